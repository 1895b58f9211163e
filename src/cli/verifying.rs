//! `verify` and `bench`: does this build compute the right numbers, and how fast.

use std::path::PathBuf;

use clap::Args;

use super::shared::{Machine, write_json};
use crate::bench;
use crate::parity;
use crate::systems::parity_cases;
use crate::{Error, Result};

/// `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Folder of one case
    #[arg(long, value_name = "DIR", required_unless_present = "all")]
    case: Option<PathBuf>,
    /// Folder of cases: all of them
    #[arg(long, value_name = "DIR", conflicts_with = "case")]
    all: Option<PathBuf>,
    /// Write the comparison for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Verify {
    /// Compares and prints each tensor's largest differences.
    ///
    /// # Errors
    /// A case that cannot be read, or a tensor outside its tolerance.
    pub fn run(self) -> Result<()> {
        let kinds = parity_cases();
        let outcomes = match (&self.case, &self.all) {
            (Some(case), _) => vec![parity::verify_case(case, &kinds)?],
            (None, Some(folder)) => parity::verify_all(folder, &kinds)?,
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

/// `probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// A checkpoint of any stage
    #[arg(long, value_name = "C")]
    checkpoint: PathBuf,
    /// Folder for probe.safetensors and words.json
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Probe {
    /// Writes the probe.
    ///
    /// # Errors
    /// As [`parity::probe`].
    pub fn run(self) -> Result<()> {
        parity::probe(&self.checkpoint, &self.output)
    }
}

/// `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// prepare, score, pretrain, finetune, evaluate (all when absent), or systems: a table of all
    /// systems on the same documents
    names: Vec<String>,
    /// Encoder preset; systems: also SYSTEM=E for one of them
    #[arg(long = "encoder", value_name = "E", value_delimiter = ',', default_value = "tiny")]
    encoders: Vec<String>,
    /// Documents of the generated corpus [default: 1000; systems: 400, with --overfit 40]
    #[arg(long, value_name = "N")]
    documents: Option<usize>,
    /// Measure on these DocRED files instead
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Tokenizer for --input
    #[arg(long, value_name = "DIR-or-vocab", requires = "input")]
    tokenizer: Option<PathBuf>,
    /// fp32, bf16 or auto
    #[arg(long, value_name = "P", default_value = "auto")]
    precision: String,
    /// Write the results for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// systems: data, word vectors and schedules (default: the generated world, a brief schedule)
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// systems: override a key of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// systems: only these
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    systems: Vec<String>,
    /// systems: learn a few documents by heart; an error unless every training loss falls under a
    /// tenth
    #[arg(long)]
    overfit: bool,
    /// systems: the process of one system, and where its documents lie
    #[arg(long, value_name = "DIR", hide = true)]
    entrant: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

impl Bench {
    /// Measures and prints a table.
    ///
    /// # Errors
    /// An unknown name; what a stage meets.
    pub fn run(self) -> Result<()> {
        if self.names == ["systems"] {
            return self.systems();
        }
        let session = self.machine.session()?;
        let options = bench::BenchOptions {
            names: self.names,
            encoder: self.encoders.join(","),
            documents: self.documents.unwrap_or(1000),
            input: self.input,
            tokenizer: self.tokenizer,
            precision: self.precision,
        };
        session.run(|session| {
            let results = bench::bench(&options, session)?;
            if session.is_root() {
                println!("{results}");
                write_json(self.json.as_deref(), &results)?;
            }
            Ok(())
        })
    }

    fn systems(self) -> Result<()> {
        let bench = bench::SystemsBench {
            recipe: self.recipe,
            settings: self.settings,
            systems: self.systems,
            encoders: self.encoders,
            documents: self.documents,
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
        let Machine { device, threads } = &self.machine;
        let flags =
            ["--device".to_owned(), device.clone(), "--threads".to_owned(), threads.to_string()];
        let table = bench::compare_systems(&bench, &flags)?;
        println!("{table}");
        write_json(self.json.as_deref(), &table)?;
        if let Some(first) = table.failed.first() {
            let names: Vec<&str> =
                table.failed.iter().map(|failed| failed.system.as_str()).collect();
            eprintln!("not in the table: {}; what ended them stands above", names.join(", "));
            return Err(Error::Elsewhere { rank: 0, code: first.exit_code.unwrap_or(70) });
        }
        let stuck = bench::not_learnt(&table);
        if bench.overfit && !stuck.is_empty() {
            return Err(Error::Bug(format!(
                "the training loss did not fall under a tenth: {}",
                stuck.join(", ")
            )));
        }
        Ok(())
    }
}
