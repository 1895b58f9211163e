//! What every launch file says of a run, and how words are written into one.
//!
//! Not for what only one scheduler knows.

use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// Where ranks that `launch` has started meet, on the first machine.
pub(super) const PORT: u16 = 29_500;

/// Where the data lie in a container.
pub(super) const DATA: &str = "/data";

/// A run, its ranks, and what it may take.
#[derive(Debug)]
pub(super) struct LaunchJob {
    /// Name of the recipe.
    pub name: String,
    /// The recipe's file, as it was given.
    pub recipe: PathBuf,
    /// The run folder, as it was given.
    pub run: PathBuf,
    /// What `--set` says.
    pub settings: Vec<String>,
    /// The program; `None` for the one of the image, or this one.
    pub program: Option<PathBuf>,
    /// Machines.
    pub nodes: u32,
    /// Ranks of a machine.
    pub tasks: u32,
    /// Cores of a rank.
    pub cpus: u32,
    /// GPUs of a machine.
    pub gpus: u32,
    /// Seconds from the request to stop to the end.
    pub grace: u32,
    /// Starts after a lost rank.
    pub restarts: u32,
    /// Image of the containers.
    pub image: Option<String>,
    /// The volume with data and run folders.
    pub volume: Option<String>,
    /// GiB of memory of a machine.
    pub memory: Option<u32>,
    /// Kind of the GPUs.
    pub accelerator: Option<String>,
}

impl LaunchJob {
    /// The image.
    ///
    /// # Errors
    /// A recipe error (64) if there is none.
    pub fn image(&self) -> Result<&str> {
        self.image.as_deref().ok_or_else(|| {
            Error::recipe("the containers need --image IMAGE")
                .with_hint("cluster/Containerfile builds one; push it where the cluster finds it")
        })
    }

    /// The program in a container: the one on its `PATH`, unless told otherwise.
    pub fn program_there(&self) -> String {
        self.program.as_ref().map_or("docre-pretrain".into(), |path| path.display().to_string())
    }

    /// The run folder on the volume.
    ///
    /// # Errors
    /// A recipe error (64) for a folder elsewhere, which would be lost with its container.
    pub fn run_on_volume(&self) -> Result<String> {
        let run = Path::new(DATA).join(&self.run);
        let leaves = run.components().any(|part| part == Component::ParentDir);
        if leaves || !run.starts_with(DATA) {
            let run = self.run.display();
            let message = format!("--run-dir {run}: in a container only {DATA} is kept");
            return Err(Error::recipe(message).with_hint(format!(
                "name a folder below {DATA}, where the volume is, or a relative one"
            )));
        }
        Ok(run.display().to_string())
    }

    /// The recipe's name as a name of the DNS, which a job of a cluster needs.
    ///
    /// # Errors
    /// A recipe error (64) if it is none.
    pub fn dns_name(&self) -> Result<&str> {
        let name = self.name.as_str();
        let inner = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let valid = name.bytes().all(|letter| inner(letter) || letter == b'-')
            && name.bytes().next().is_some_and(|letter| letter.is_ascii_lowercase())
            && name.bytes().last().is_some_and(inner);
        // Pods add an index, and the whole must have 63 letters at most.
        if valid && name.len() <= MAX_NAME {
            return Ok(name);
        }
        Err(Error::recipe(format!(
            "name is `{name}`, but a job there is named with at most {MAX_NAME} small letters, \
             digits and hyphens, beginning with a letter"
        ))
        .with_hint("set another one with --set name=…"))
    }

    /// Cores of a machine.
    pub fn cores(&self) -> u64 {
        u64::from(self.tasks) * u64::from(self.cpus)
    }
}

/// Longest name of a job in a cluster.
const MAX_NAME: usize = 48;

/// Quotes a word for the shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Checks a value that stands unquoted in a line of a script, or between double quotes.
pub(super) fn plain(name: &str, text: &str) -> Result<String> {
    let odd = |letter: char| !(letter.is_alphanumeric() || "-_.,:/%@+=".contains(letter));
    match text.chars().find(|&letter| odd(letter)) {
        Some(letter) => Err(Error::recipe(format!(
            "{name} is `{text}`, but {letter:?} is not allowed in a job script"
        ))),
        None => Ok(text.to_owned()),
    }
}

/// A path in a script, see [`plain`].
pub(super) fn path_text(path: &Path) -> Result<String> {
    plain("a path", &path.to_string_lossy())
}

/// `--set` and a value for each of the settings, quoted for the shell.
pub(super) fn settings_text(settings: &[String]) -> String {
    settings.iter().map(|setting| format!(" --set {}", quoted(setting))).collect()
}
