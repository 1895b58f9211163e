//! What can go wrong between a name and its files, and how it is told.

use std::time::Duration;

use super::name::RepoName;
use super::settings::HubSettings;
use crate::Error;

/// Why a file could not be fetched.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer: no network, no connection, no encryption, no time.
    Unreachable(String),
    /// The Hub asks to come back later (429, 5xx), after so long if it says so.
    Busy { status: u16, after: Option<Duration> },
    /// The bytes of a file break off, again and again.
    Cut { file: String, problem: String },
    /// No such repository, or a private one (401, 404).
    NoRepository,
    /// The repository has no such revision.
    NoRevision,
    /// The repository has no such file; its commit, if the answer names it.
    NoEntry(Option<String>),
    /// The terms of the repository have not been accepted.
    Gated,
    /// Another answer than the protocol knows.
    Unexpected(String),
    /// The content has another hash than the Hub says.
    Differs { file: String, found: String, expected: String },
    /// A file that is needed is not in the repository or in the cache.
    Missing { what: String, commit: String },
    /// The cache could not be written, or a file in it is broken.
    Local(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Local(error.into())
    }
}

impl Failure {
    /// Whether the files that are in the cache already may do instead.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Busy { .. } | Self::Cut { .. })
    }

    /// What happened, without what to do.
    pub fn told(&self, hub: &str) -> String {
        match self {
            Self::Unreachable(problem) => format!("{hub} cannot be reached: {problem}"),
            Self::Busy { status: 429, .. } => format!("{hub} answers 429: too many requests"),
            Self::Busy { status, .. } => format!("{hub} answers {status}: it is out of order"),
            Self::Cut { file, problem } => format!("`{file}` breaks off: {problem}"),
            Self::NoRepository => format!("{hub} has no such repository, or it is private"),
            Self::NoRevision => "the repository has no such revision".to_owned(),
            Self::NoEntry(_) => "the repository has no such file".to_owned(),
            Self::Gated => "the repository is open only to those who accept its terms".to_owned(),
            Self::Unexpected(answer) => format!("{hub} does not answer as the Hub does: {answer}"),
            Self::Differs { file, found, expected } => {
                format!("`{file}` arrives with the hash {found}, but {hub} names it by {expected}")
            }
            Self::Missing { what, commit } => format!("commit {commit} has no {what}"),
            Self::Local(error) => error.to_string(),
        }
    }

    /// The error of the program.
    pub fn into_error(self, name: &RepoName, settings: &HubSettings) -> Error {
        let hub = &settings.endpoint;
        let message = format!("{name}: {}", self.told(hub));
        let (id, cache) = (&name.id, settings.cache.display());
        match self {
            Self::Local(error) => error,
            Self::Unreachable(problem) => Error::Remote {
                message: format!("there is no folder {id}, and {hub} cannot be reached: {problem}"),
                hint: format!(
                    "check the network, proxy and HF_ENDPOINT, or copy the files into a folder and \
                     name that; what was fetched is kept in {cache}"
                ),
            },
            Self::Busy { after, .. } => Error::Remote {
                message,
                hint: match after {
                    Some(wait) => format!("try again in {} s", wait.as_secs()),
                    None => "try again later; what was fetched so far is kept".to_owned(),
                },
            },
            Self::Cut { .. } => Error::Remote {
                message,
                hint: "run again: it goes on where it broke off".to_owned(),
            },
            Self::Differs { .. } => Error::Remote {
                message,
                hint: "run again; if it happens again, something on the way changes the file"
                    .to_owned(),
            },
            Self::Unexpected(_) => Error::Remote {
                message,
                hint: "HF_ENDPOINT must name the Hugging Face Hub or a mirror of it".to_owned(),
            },
            Self::NoRepository => Error::recipe(format!(
                "there is no folder {id}, and {hub} has no repository of that name, or it is \
                 private"
            ))
            .with_hint(
                "check the name; for a private repository, HF_TOKEN must hold a token that may \
                 read it",
            ),
            Self::NoRevision | Self::NoEntry(_) => Error::recipe(message)
                .with_hint("name a branch, a tag or a commit of 40 digits behind the `@`"),
            Self::Gated => Error::recipe(message).with_hint(format!(
                "accept the terms at {hub}/{id}, and set HF_TOKEN to a token of that account"
            )),
            Self::Missing { .. } => Error::recipe(message).with_hint(
                "needed are config.json, a vocabulary, and weights as safetensors or \
                 pytorch_model.bin: name another repository or revision",
            ),
        }
    }
}
