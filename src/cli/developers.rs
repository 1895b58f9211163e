//! Verbs for developers: `selftest`, `verify`, `probe`, `bench`. `--help` does not list them.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Args;

use super::shared::{MachineFlags, Overrides, show, write_json};
use crate::bench::{self, BenchOptions};
use crate::parity;
use crate::systems::parity_cases;
use crate::torch::DeviceChoice;
use crate::{Error, Result};

/// Recompute parity cases of the reference implementations and compare the numbers
#[derive(Debug, Args)]
pub struct VerifyVerb {
    /// Folder of one parity case
    #[arg(long, value_name = "DIR", required_unless_present = "all")]
    case: Option<PathBuf>,
    /// Folder of parity cases, to verify all of them
    #[arg(long, value_name = "DIR", conflicts_with = "case")]
    all: Option<PathBuf>,
    /// Device to compute on: cpu, cuda or cuda:N. On a GPU ten times a case's tolerance is allowed
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Write the comparison as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl VerifyVerb {
    pub fn run(self) -> Result<()> {
        let device = self.device.parse::<DeviceChoice>()?.resolve(0)?;
        let kinds = parity_cases();
        let outcomes = match (&self.case, &self.all) {
            (Some(case), _) => vec![parity::verify_case(case, &kinds, device)?],
            (None, Some(folder)) => parity::verify_all(folder, &kinds, device)?,
            (None, None) => Vec::new(),
        };
        for outcome in &outcomes {
            println!("{outcome}");
        }
        write_json(self.json.as_deref(), &outcomes)?;
        let failed: Vec<&str> = outcomes
            .iter()
            .filter(|outcome| outcome.failed())
            .map(|outcome| outcome.case.as_str())
            .collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Error::Bug(format!("outside the tolerance: {}", failed.join(", "))))
        }
    }
}

/// Check every operation on a device against plain formulas in doubles
#[derive(Debug, Args)]
pub struct SelftestVerb {
    #[command(flatten)]
    machine: MachineFlags,
    /// Seed of the random numbers, to repeat a run [default: a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Repeat all checks with so many seeds
    #[arg(long, value_name = "N", default_value = "1")]
    rounds: NonZeroU64,
    /// Give up in the middle of work, for the process that checks how a rank ends
    #[arg(long, hide = true)]
    abort_child: bool,
    /// Write the checks as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl SelftestVerb {
    pub fn run(self) -> Result<()> {
        let session = self.machine.session()?;
        if self.abort_child {
            return session.run(bench::give_up);
        }
        let seed = self.seed.unwrap_or_else(new_seed);
        let options = bench::SelftestOptions { seed, rounds: self.rounds.get(), child: true };
        session.run(|session| {
            let result = bench::selftest(options, session)?;
            show(&result, self.json.as_deref())?;
            if result.passed {
                return Ok(());
            }
            let failed = result.failed().join(", ");
            Err(Error::Bug(format!("wrong on {} with seed {seed}: {failed}", result.device)))
        })
    }
}

/// A seed that no other run has, short enough to type.
fn new_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000
}

/// Write an encoder's states on a fixed text and on given ones, for comparison with other programs
#[derive(Debug, Args)]
pub struct ProbeVerb {
    /// Checkpoint of any stage
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// JSON list of texts, {"words": [...], "pieces": N} each: words, and how many pieces are read
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Folder to write probe.safetensors and words.json to
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl ProbeVerb {
    pub fn run(self) -> Result<()> {
        parity::probe(&self.checkpoint, self.texts.as_deref(), &self.output)
    }
}

/// Measure the stages, or all systems, on this machine
#[derive(Debug, Args)]
pub struct BenchVerb {
    #[command(flatten)]
    options: BenchOptions,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// systems: data, word vectors and schedules [default: the generated world, a short schedule]
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// systems: only these systems
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    systems: Vec<String>,
    /// systems: train and score on the same few documents; fail unless every training loss falls
    /// below a tenth
    #[arg(long)]
    overfit: bool,
    /// encoders: pieces of each document [default: 512]
    #[arg(long, value_name = "N")]
    length: Option<usize>,
    /// encoders: dropout of states and of attention in training
    #[arg(long, value_name = "P", default_value = "0")]
    dropout: f64,
    /// encoders: measure presets that have this key of config.json with this value too; may be
    /// repeated, each for itself. (--set KEY=VALUE sets a key of config.json in all rows.)
    #[arg(long = "variant", value_name = "KEY=VALUE")]
    variants: Vec<String>,
    /// systems: folder of documents, for the process that measures one system
    #[arg(long, value_name = "DIR", hide = true)]
    entrant: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineFlags,
}

impl BenchVerb {
    pub fn run(self) -> Result<()> {
        let [systems, encoders] = ["systems", "encoders"].map(|name| self.options.names == [name]);
        let of_encoders = self.length.is_some() || !self.variants.is_empty() || self.dropout != 0.0;
        if !encoders && of_encoders {
            return Err(Error::recipe("--length, --dropout and --variant need `bench encoders`"));
        }
        if !systems && (self.overfit || self.recipe.is_some() || !self.systems.is_empty()) {
            return Err(Error::recipe("--recipe, --systems and --overfit need `bench systems`"));
        }
        if systems {
            return self.systems();
        }
        if encoders {
            return self.encoders();
        }
        let settings = self.overrides.of_verb::<Self>()?;
        let session = self.machine.session()?;
        if self.options.names == ["all-reduce"] {
            return session.run(|session| {
                let table = bench::all_reduce_rates(session)?;
                if session.is_root() { show(&table, self.json.as_deref()) } else { Ok(()) }
            });
        }
        session.run(|session| {
            let results = bench::bench(&self.options, settings, session)?;
            if session.is_root() {
                println!("{results}");
                write_json(self.json.as_deref(), &results)?;
            }
            Ok(())
        })
    }

    fn encoders(self) -> Result<()> {
        let of_flag = |flag: &'static str| move |text: &String| key_and_value(flag, text);
        let settings = self.overrides.of_verb::<Self>()?.iter().map(of_flag("--set"));
        let bench = bench::EncodersBench {
            settings: settings.collect::<Result<_>>()?,
            variants: self.variants.iter().map(of_flag("--variant")).collect::<Result<_>>()?,
            encoders: self.options.encoders,
            length: self.length.unwrap_or(512).max(1),
            dropout: self.dropout,
        };
        self.machine.session()?.run(|session| {
            let table = bench.run(session.device, session.precision(self.options.precision))?;
            println!("{table}");
            write_json(self.json.as_deref(), &table)
        })
    }

    fn systems(self) -> Result<()> {
        let bench = bench::SystemsBench {
            recipe: self.recipe,
            settings: self.overrides.of_verb::<Self>()?.to_vec(),
            systems: self.systems,
            encoders: self.options.encoders,
            documents: self.options.documents,
            overfit: self.overfit,
        };
        if let Some(work) = &self.entrant {
            let system = bench.entrants()?[0];
            let json = self.json.as_deref();
            return self
                .machine
                .session()?
                .run(|session| write_json(json, &bench::enter(&bench, system, work, session)?));
        }
        let MachineFlags { device, threads } = self.machine;
        let flags = ["--device".into(), device, "--threads".into(), threads.to_string()];
        let table = bench::compare_systems(&bench, &flags)?;
        println!("{table}");
        write_json(self.json.as_deref(), &table)?;
        if let Some(first) = table.failed.first() {
            let names: Vec<&str> =
                table.failed.iter().map(|failed| failed.system.as_str()).collect();
            eprintln!("not in the table: {}; their errors are above", names.join(", "));
            return Err(Error::Elsewhere { rank: 0, code: first.exit_code.unwrap_or(70) });
        }
        let stuck = bench::not_learnt(&table);
        if bench.overfit && !stuck.is_empty() {
            return Err(Error::Bug(format!(
                "the training loss did not fall below a tenth: {}",
                stuck.join(", ")
            )));
        }
        Ok(())
    }
}

/// A key and its value, as JSON or else as text.
fn key_and_value(flag: &str, text: &str) -> Result<(String, serde_json::Value)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::recipe(format!("{flag} `{text}` is not KEY=VALUE"))
            .with_hint(format!("for example {flag} global_attn_every_n_layers=1"))
    })?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((key.to_owned(), value))
}
