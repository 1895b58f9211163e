//! Flags that several verbs share, and small output helpers.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use clap::{Args, Command};
use serde::Serialize;

use super::own_rank;
use crate::base::{say, to_pretty_json, write_whole};
use crate::pipeline::Session;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// The flags that decide keys of the recipe, in every verb that has them. A table stands for all
/// its keys.
pub const DECIDING_FLAGS: [(&str, &str); 7] = [
    ("device", "device"),
    ("threads", "threads"),
    ("encoder", "encoder.name"),
    ("system", "system"),
    ("systems", "system"),
    // Shards in place of documents.
    ("train", "data"),
    ("distant", "data"),
];

/// Keys of a table that flags decide, but which say nothing about what the flags name.
const FREE_KEYS: [&str; 2] = ["data.memory", "data.disk"];

/// Keys of the recipe that are given on the command line.
#[derive(Debug, Args)]
pub struct Overrides {
    /// Override a key of the recipe, such as pretrain.learning_rate=1e-4; may be repeated
    #[arg(id = "set", long, value_name = "KEY=VALUE")]
    list: Vec<String>,
}

impl Overrides {
    /// The overrides, none of which a flag of `V` decides.
    pub fn of_verb<V: Args>(&self) -> Result<&[String]> {
        let verb = V::augment_args(Command::new("verb"));
        let has = |flag| verb.get_arguments().any(|argument| argument.get_long() == Some(flag));
        for text in &self.list {
            let key = text.split('=').next().unwrap_or_default().trim();
            let decided = DECIDING_FLAGS.iter().find(|(flag, decided)| {
                has(flag) && overlap(key, decided) && !FREE_KEYS.contains(&key)
            });
            if let Some((flag, decided)) = decided {
                let message = format!("--set {text}: the flag --{flag} decides `{decided}`");
                return Err(Error::recipe(message).with_hint(format!("use --{flag} instead")));
            }
        }
        Ok(&self.list)
    }

    /// Reads a recipe, or the defaults where there is none, for the verb `V`. `flags` are keys that
    /// its flags decide.
    pub fn load<V: Args>(&self, recipe: Option<&Path>, flags: &[String]) -> Result<Recipe> {
        let settings = [flags, self.of_verb::<V>()?].concat();
        let recipe = match recipe {
            Some(path) => Recipe::load(path, &settings),
            None => Recipe::parse("", "the command line", &settings),
        }?;
        if own_rank() == 0 {
            recipe.notes.iter().for_each(say);
        }
        Ok(recipe)
    }
}

/// Whether two keys are the same, or one is a table that holds the other.
fn overlap(a: &str, b: &str) -> bool {
    let holds = |table: &str, key: &str| {
        key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    holds(a, b) || holds(b, a)
}

/// Where and with how many threads a rank computes.
#[derive(Debug, Args)]
pub struct MachineFlags {
    /// Device of the tensors: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads of each rank; 0 divides the cores among the ranks of this host
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

impl MachineFlags {
    /// Joins the world and opens the device.
    pub fn session(&self) -> Result<Session> {
        Session::start(&self.device, self.threads)
    }

    /// As [`session`](Self::session); signals are requests to stop, which the work looks at.
    pub fn stoppable_session(&self) -> Result<Session> {
        let machine = |(): &()| (self.device.clone(), self.threads);
        Ok(Session::start_with(Ok(()), machine)?.0)
    }
}

/// Writes a result for machines, where asked for.
pub fn write_json<T: Serialize>(path: Option<&Path>, value: &T) -> Result<()> {
    path.map_or(Ok(()), |path| write_whole(path, &to_pretty_json(value)?))
}

/// Prints a result, and writes it for machines where asked for.
pub fn show(result: &(impl Serialize + fmt::Display), json: Option<&Path>) -> Result<()> {
    write_json(json, result)?;
    print_all(format!("{result}\n").as_bytes())
}

/// What a verb did, for machines: where the result lies, the result's own fields, and the time it
/// took.
#[derive(Debug, Serialize)]
struct Done<'a, T> {
    output: &'a Path,
    #[serde(flatten)]
    result: &'a T,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents_per_s: Option<f64>,
}

/// Measures a verb from its start, and writes what it did where `--json` says.
#[derive(Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Writes the summary of a verb that made `output`, of so many documents where it is documents
    /// that take the time. `result` is a structure, whose fields stand beside those of the summary.
    pub fn write<T: Serialize>(
        &self,
        json: Option<&Path>,
        output: &Path,
        documents: Option<usize>,
        result: &T,
    ) -> Result<()> {
        let seconds = self.0.elapsed().as_secs_f64();
        let documents_per_s = documents.map(|count| count as f64 / seconds.max(f64::MIN_POSITIVE));
        write_json(json, &Done { output, result, seconds, documents_per_s })
    }
}

/// Prints bytes; a reader that has gone away is no error.
pub fn print_all(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_overlap_if_they_are_the_same_or_one_holds_the_other() {
        for (a, b) in
            [("device", "device"), ("data.synth.noise", "data"), ("encoder", "encoder.name")]
        {
            assert!(overlap(a, b) && overlap(b, a), "{a} and {b}");
        }
        for (a, b) in [("encoder.dropout", "encoder.name"), ("database", "data"), ("", "data")] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} and {b}");
        }
    }
}
