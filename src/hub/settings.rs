//! What the environment says about the Hub, in the variables of Hugging Face's own library.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the cache is, whom to ask and how patiently.
#[derive(Clone, Debug)]
pub(super) struct HubSettings {
    /// The root of the cache.
    pub cache: PathBuf,
    /// The address of the Hub, without a slash at its end.
    pub endpoint: String,
    /// What proves who asks.
    pub token: Option<String>,
    /// Which variable forbids the network, if one does.
    pub offline: Option<&'static str>,
    /// How long to wait for a connection, for an answer, and for the next bytes of one.
    pub timeout: Duration,
    /// How long to wait before a second try; each further wait is twice as long.
    pub pause: Duration,
    /// How often something is tried that failed.
    pub tries: u32,
}

const ENDPOINT: &str = "https://huggingface.co";
const TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;

impl HubSettings {
    /// Reads the environment of the process.
    pub fn from_environment() -> Self {
        Self::new(&|name| std::env::var(name).ok())
    }

    /// Reads an environment; empty variables count as unset.
    pub fn new(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| environment(name).filter(|value| !value.is_empty());
        let path = |name: &str| value(name).map(|text| expand(&text, &value));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME").unwrap_or_else(|| expand("~/.cache", &value));
            caches.join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
        let seconds = value("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok());
        let endpoint = value("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Self {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token(&value, &path, &home),
            offline: offline.into_iter().find(|name| value(name).is_some_and(|on| is_on(&on))),
            timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
            pause: PAUSE,
            tries: TRIES,
        }
    }
}

fn token(
    value: &dyn Fn(&str) -> Option<String>,
    path: &dyn Fn(&str) -> Option<PathBuf>,
    home: &Path,
) -> Option<String> {
    if value("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|on| is_on(&on)) {
        return None;
    }
    let file = || {
        let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        fs_err::read_to_string(file).ok()
    };
    let found = value("HF_TOKEN").or_else(|| value("HUGGING_FACE_HUB_TOKEN")).or_else(file)?;
    Some(found.trim().to_owned()).filter(|token| !token.is_empty())
}

fn is_on(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.trim().to_ascii_lowercase().as_str())
}

/// Puts the home folder for a `~` at the start, and the values of variables for `$NAME` and
/// `${NAME}`; a variable that is not set stays as it is written.
fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    if let Some(after) =
        rest.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'))
    {
        out += &value("HOME").unwrap_or_else(|| "~".to_owned());
        rest = after;
    }
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        let after = &rest[at + 1..];
        let (name, length) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                let end = after.find(|letter| !word(letter)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match value(name) {
            Some(value) => out += &value,
            None => out += &rest[at..at + 1 + length],
        }
        rest = &after[length..];
    }
    PathBuf::from(out + rest)
}
