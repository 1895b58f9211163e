//! Names of repositories: `ORG/NAME` or `NAME`, with `@REVISION` behind it where another one than
//! `main` is meant.

use std::fmt;

/// Repositories that had no owner once, by the start of their names, and who owns them now. The Hub
/// knows them by both names.
const OWNERS: [(&str, &str); 7] = [
    ("bert-", "google-bert"),
    ("roberta-", "FacebookAI"),
    ("xlm-roberta-", "FacebookAI"),
    ("distilbert-", "distilbert"),
    ("distilroberta-", "distilbert"),
    ("albert-", "albert"),
    ("xlnet-", "xlnet"),
];
/// Owners that cannot be: the Hub's own pages have these names, and people's folders of models.
const NO_OWNERS: [&str; 3] = ["models", "datasets", "spaces"];
/// Longest name; the Hub's own limit.
const LONGEST: usize = 96;

/// The name of a repository and a revision of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoName {
    /// `ORG/NAME`, or `NAME` for a repository that had no owner once.
    pub id: String,
    /// A branch, a tag, `refs/pr/N` or a commit; `main` where none is named.
    pub revision: String,
}

impl RepoName {
    /// Reads `ORG/NAME`, `ORG/NAME@REVISION`, or the same of a well-known name without owner, such
    /// as `bert-base-cased`; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let parts: Vec<&str> = id.split('/').collect();
        let known = match parts[..] {
            [owner, _] => !NO_OWNERS.contains(&owner),
            _ => owner_of(id).is_some(),
        };
        let plain = parts.iter().all(|part| is_plain(part)) && id.len() <= LONGEST;
        let revision_plain = revision.split('/').all(is_plain);
        (known && plain && revision_plain)
            .then(|| Self { id: id.to_owned(), revision: revision.to_owned() })
    }

    /// The names under which the repository may lie in a cache, the one that was asked for first.
    pub fn spellings(&self) -> Vec<String> {
        let other = match self.id.split_once('/') {
            None => owner_of(&self.id).map(|owner| format!("{owner}/{}", self.id)),
            Some((owner, name)) if owner_of(name) == Some(owner) => Some(name.to_owned()),
            Some(_) => None,
        };
        std::iter::once(self.id.clone()).chain(other).collect()
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, revision } = self;
        if revision == "main" { write!(f, "{id}") } else { write!(f, "{id}@{revision}") }
    }
}

fn owner_of(name: &str) -> Option<&'static str> {
    OWNERS.iter().find(|(start, _)| name.starts_with(start)).map(|&(_, owner)| owner)
}

/// Whether a part of a name is one that the Hub allows, and no step through folders.
fn is_plain(part: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty()
        && part.bytes().all(letter)
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--")
}

/// Whether a revision is a commit.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
