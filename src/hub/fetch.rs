//! From a name to a folder: which commit, which files, and what the cache holds of them already.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cache::RepoCache;
use super::client::{Client, FileFacts};
use super::download::{RepoFile, download};
use super::failure::Failure;
use super::name::{RepoName, is_commit};
use super::settings::HubSettings;
use super::{WEIGHTS, WeightIndex};
use crate::base::run_files::{CARD, CHECKPOINT_SEAL, RANKER};
use crate::base::{lock, read_json, say};
use crate::{DataError, Error, Result};

const CONFIG: &str = "config.json";
/// Files beside a vocabulary; each may be missing.
const BESIDE: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
/// Vocabularies, the first that is there counts; all files of it are needed.
const VOCABULARIES: [&[&str]; 6] = [
    &["tokenizer.json"],
    &["vocab.txt"],
    &["vocab.json", "merges.txt"],
    &["spm.model"],
    &["sentencepiece.bpe.model"],
    &["spiece.model"],
];

/// What is wanted of a repository.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// `config.json`, weights, and a tokeniser if there is one. The function is given the folder
    /// once `config.json` is there: what it refuses is not fetched any further.
    Encoder(fn(&Path) -> Result<()>),
    /// A tokeniser.
    Tokenizer,
    /// A checkpoint of this program: the files that its seal lists, and those of the ranker inside.
    Checkpoint,
}

impl Wanted {
    /// What tells results for the same name apart.
    fn kind(self) -> &'static str {
        match self {
            Self::Encoder(_) => ENCODER,
            Self::Tokenizer => "tokenizer",
            Self::Checkpoint => "checkpoint",
        }
    }

    fn has_weights(self) -> bool {
        matches!(self, Self::Encoder(_))
    }
}

const ENCODER: &str = "encoder";

/// What counts here of the seal of a checkpoint.
#[derive(Deserialize)]
struct SealedFiles {
    files: BTreeMap<String, IgnoredAny>,
}

/// Files of a repository on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFolder {
    /// Where they are.
    pub folder: PathBuf,
    /// The name of the repository.
    pub name: String,
    /// The commit that they are from.
    pub commit: String,
}

/// What this process has fetched, by name and kind: one name stands for one commit as long as it
/// runs.
static FETCHED: Mutex<BTreeMap<(RepoName, &str), HubFolder>> = Mutex::new(BTreeMap::new());

/// Finds the files of a repository in the cache, or fetches them.
///
/// # Errors
/// [`Error::Recipe`] for a repository, revision or files that do not exist or may not be read, and
/// for what is not in the cache while the network is forbidden; [`Error::Remote`] where the network
/// fails; [`Error::Io`] for the disk; those of the function of [`Wanted::Encoder`].
pub fn fetch(name: &RepoName, wanted: Wanted) -> Result<HubFolder> {
    let key = (name.clone(), wanted.kind());
    let mut known = lock(&FETCHED);
    if let Some(found) = known.get(&key) {
        return Ok(found.clone());
    }
    let found = fetch_with(&HubSettings::from_environment(), name, wanted)?;
    known.insert(key, found.clone());
    Ok(found)
}

/// What [`fetch`] found for the encoder of a name in this process.
pub fn fetched(name: &RepoName) -> Option<HubFolder> {
    lock(&FETCHED).get(&(name.clone(), ENCODER)).cloned()
}

/// As [`fetch`], with settings of one's own.
pub(super) fn fetch_with(
    settings: &HubSettings,
    name: &RepoName,
    wanted: Wanted,
) -> Result<HubFolder> {
    if let Some(variable) = settings.offline {
        return offline(settings, name, wanted, variable);
    }
    // A commit never changes: what is whole needs no question.
    if is_commit(&name.revision)
        && let Ok((found, unknown)) = from_cache(settings, name, wanted)
        && unknown.is_empty()
    {
        return Ok(found);
    }
    let failure = match online(settings, name, wanted) {
        Ok(found) => return Ok(found),
        Err(failure) => failure,
    };
    if failure.is_passing()
        && let Ok((found, unknown)) = from_cache(settings, name, wanted)
    {
        let told = failure.told(&settings.endpoint);
        say(format!(
            "warning: {told}; commit {} of {name} comes from the cache and may not be the newest",
            found.commit
        ));
        warn_unknown(name, &unknown);
        return Ok(found);
    }
    Err(failure.into_error(name, settings))
}

fn offline(
    settings: &HubSettings,
    name: &RepoName,
    wanted: Wanted,
    variable: &str,
) -> Result<HubFolder> {
    match from_cache(settings, name, wanted) {
        Ok((found, unknown)) => {
            warn_unknown(name, &unknown);
            Ok(found)
        }
        Err(Failure::Local(error)) => Err(error),
        Err(failure) => {
            let folder = RepoCache::new(&settings.cache, &name.id).folder();
            let what = match failure {
                Failure::Missing { what, commit } => format!("{what} of commit {commit}"),
                _ => format!("its revision {}", name.revision),
            };
            let message = format!(
                "{name}: {variable} forbids the network, and {what} is not in {}",
                folder.display()
            );
            Err(Error::recipe(message).with_hint(
                "fetch it once without that variable, copy the cache from a machine that has it \
                 (HF_HOME names the place), or name a folder",
            ))
        }
    }
}

/// A file that the repository may or may not have changes what the others mean.
fn warn_unknown(name: &RepoName, unknown: &[String]) {
    if !unknown.is_empty() {
        say(format!(
            "warning: {name}: {} {} not in the cache, and the repository may have {}",
            unknown.join(", "),
            if unknown.len() == 1 { "is" } else { "are" },
            if unknown.len() == 1 { "it" } else { "them" }
        ));
    }
}

/// The files in the cache, and the names of those that are neither there nor known to be missing in
/// the repository.
fn from_cache(
    settings: &HubSettings,
    name: &RepoName,
    wanted: Wanted,
) -> Result<(HubFolder, Vec<String>), Failure> {
    let mut first = None;
    for id in name.spellings() {
        let cache = RepoCache::new(&settings.cache, &id);
        let Some(commit) = cache.commit(&name.revision) else { continue };
        let mut snapshot = Snapshot { cache, id, commit, client: None, unknown: Vec::new() };
        match snapshot.collect(wanted, name) {
            Ok(folder) => return Ok((folder, snapshot.unknown)),
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first.unwrap_or(Failure::NoRepository))
}

fn online(settings: &HubSettings, name: &RepoName, wanted: Wanted) -> Result<HubFolder, Failure> {
    let client = Client::new(settings);
    let cache = RepoCache::new(&settings.cache, &name.id);
    let first = client.facts(&name.id, &name.revision, CONFIG);
    let named = match &first {
        Ok(facts) => facts.commit.clone(),
        Err(Failure::NoEntry(commit)) => commit.clone(),
        Err(_) => None,
    };
    let own = || is_commit(&name.revision).then(|| name.revision.clone());
    let commit = match (named.or_else(own), first) {
        (Some(commit), Ok(facts)) => {
            if !cache.has(&commit, CONFIG) {
                let from = RepoFile { id: &name.id, commit: &commit, file: CONFIG };
                download(&client, &cache, from, &facts)?;
            }
            commit
        }
        (Some(commit), Err(Failure::NoEntry(_))) => {
            cache.note_absence(&commit, CONFIG)?;
            commit
        }
        (_, Err(Failure::NoEntry(None))) => return Err(Failure::NoRepository),
        (_, Err(failure)) => return Err(failure),
        (None, Ok(_)) => return Err(Failure::Unexpected("no X-Repo-Commit".to_owned())),
    };
    let id = name.id.clone();
    let mut snapshot = Snapshot { cache, id, commit, client: Some(&client), unknown: Vec::new() };
    let folder = snapshot.collect(wanted, name)?;
    snapshot.cache.set_commit(&name.revision, &folder.commit)?;
    Ok(folder)
}

/// The files of one commit.
struct Snapshot<'c> {
    cache: RepoCache,
    id: String,
    commit: String,
    /// Where missing files come from; nowhere if only the cache counts.
    client: Option<&'c Client<'c>>,
    /// Files that are neither in the cache nor known to be missing in the repository.
    unknown: Vec<String>,
}

impl Snapshot<'_> {
    /// Brings all files that are wanted.
    fn collect(&mut self, wanted: Wanted, name: &RepoName) -> Result<HubFolder, Failure> {
        if matches!(wanted, Wanted::Checkpoint) {
            self.checkpoint(name)?;
            return Ok(self.found(name));
        }
        let config = self.obtain(CONFIG)?;
        if let Wanted::Encoder(accepts) = wanted {
            if !config {
                return Err(self.missing(CONFIG));
            }
            accepts(&self.cache.snapshot(&self.commit))?;
        }
        let vocabulary = self.vocabulary()?;
        if vocabulary {
            for file in BESIDE {
                self.obtain(file)?;
            }
        }
        match wanted {
            Wanted::Tokenizer if !vocabulary => return Err(self.missing("vocabulary")),
            Wanted::Tokenizer | Wanted::Checkpoint => {}
            Wanted::Encoder(_) => self.weights()?,
        }
        if wanted.has_weights() && !vocabulary {
            say(format!("note: {name} has no vocabulary; name one as the tokenizer"));
        }
        Ok(self.found(name))
    }

    fn found(&self, name: &RepoName) -> HubFolder {
        HubFolder {
            folder: self.cache.snapshot(&self.commit),
            name: name.id.clone(),
            commit: self.commit.clone(),
        }
    }

    /// Brings the files of a checkpoint, and of the ranker inside it where there is one.
    fn checkpoint(&mut self, name: &RepoName) -> Result<(), Failure> {
        if !self.sealed("")? {
            let message = format!("{name} is no checkpoint: it has no {CHECKPOINT_SEAL}");
            let hint = "name a repository to which an export was uploaded, or a folder";
            return Err(Error::recipe(message).with_hint(hint).into());
        }
        self.sealed(&format!("{RANKER}/")).map(drop)
    }

    /// Brings the files that the seal of a folder lists; says whether there is a seal.
    fn sealed(&mut self, folder: &str) -> Result<bool, Failure> {
        let seal = format!("{folder}{CHECKPOINT_SEAL}");
        if !self.obtain(&seal)? {
            return Ok(false);
        }
        let path = self.cache.snapshot(&self.commit).join(&seal);
        let seal: SealedFiles = read_json(&path)?;
        for file in seal.files.into_keys() {
            let plain = |part: Component| matches!(part, Component::Normal(_));
            if !Path::new(&file).components().all(plain) {
                let problem = format!("names a file outside the checkpoint: {file}");
                return Err(Error::from(DataError::new(path, problem)).into());
            }
            // The card may be taken away.
            if !self.obtain(&format!("{folder}{file}"))? && file != CARD {
                return Err(self.missing(&format!("{folder}{file}")));
            }
        }
        Ok(true)
    }

    /// Brings the first vocabulary that is whole; says whether there is one. What is found first
    /// makes those behind it needless, but one before it may count more.
    fn vocabulary(&mut self) -> Result<bool, Failure> {
        for files in VOCABULARIES {
            let mut all = true;
            for file in files {
                all = all && self.obtain(file)?;
            }
            if all {
                // A tokenizer.json would count more; other families' files say nothing.
                self.unknown.retain(|file| file == VOCABULARIES[0][0]);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn weights(&mut self) -> Result<(), Failure> {
        let unknown = self.unknown.len();
        for file in WEIGHTS {
            if !self.obtain(file)? {
                continue;
            }
            // Weights that are there do, whatever other forms there may be.
            self.unknown.truncate(unknown);
            if file.ends_with(".index.json") {
                let index = WeightIndex::read(&self.cache.snapshot(&self.commit).join(file))?;
                for shard in index.files() {
                    if !self.obtain(shard)? {
                        return Err(self.missing(shard));
                    }
                }
            }
            return Ok(());
        }
        let whole = WEIGHTS.iter().filter(|file| !file.ends_with(".index.json"));
        let names: Vec<&str> = whole.copied().collect();
        Err(self.missing(&format!("weights ({})", names.join(" or "))))
    }

    /// Whether a file is there, or can be brought.
    fn obtain(&mut self, file: &str) -> Result<bool, Failure> {
        if self.cache.has(&self.commit, file) {
            return Ok(true);
        }
        if self.cache.lacks(&self.commit, file) {
            return Ok(false);
        }
        let Some(client) = self.client else {
            self.unknown.push(file.to_owned());
            return Ok(false);
        };
        let facts: FileFacts = match client.facts(&self.id, &self.commit, file) {
            Ok(facts) => facts,
            Err(Failure::NoEntry(_)) => {
                self.cache.note_absence(&self.commit, file)?;
                return Ok(false);
            }
            Err(failure) => return Err(failure),
        };
        let from = RepoFile { id: &self.id, commit: &self.commit, file };
        download(client, &self.cache, from, &facts)?;
        Ok(true)
    }

    fn missing(&self, what: &str) -> Failure {
        Failure::Missing { what: what.to_owned(), commit: self.commit.clone() }
    }
}
