//! The command line: one file a verb, one table of flags for help, man page and completions.
//!
//! Not for: doing the work; each verb is a short story told with library calls.

mod data;
mod doctor;
mod inspect;
mod jobs;
mod questions;
mod scoring;
mod shared;
mod submit;
mod training;
mod verifying;
mod watch;

use std::io::{IsTerminal, Write};
use std::panic::catch_unwind;

use clap::{CommandFactory, Parser, Subcommand};

use crate::ranks::failure::keeper;
use crate::{Error, Result};

/// Denoised pre-training and fine-tuning for document-level relation extraction.
///
/// Start with `docre-pretrain run jobs/quickstart.toml`; on several ranks with `mpirun -n 2
/// docre-pretrain run …`.
#[derive(Debug, Parser)]
#[command(name = "docre-pretrain", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 2 wrong usage, 64 bad recipe or option value, 65 bad data, 70 a bug, 71 a rank was lost or hung,
74 disk or I/O, 75 stopped on request (run again with --resume)";

#[derive(Debug, Subcommand)]
enum Verb {
    /// The whole pipeline from one recipe
    Run(jobs::Run),
    /// Estimate what a recipe takes on a cluster: steps, time, memory, disk and traffic of each
    /// stage
    Plan(jobs::Plan),
    /// Make a Slurm job of a recipe and submit it
    Submit(submit::Submit),
    /// Write the generated world: documents, relations, tokenizer, truth of the distant labels
    Synth(data::Synth),
    /// Turn documents of any supported format into Parquet shards
    Prepare(data::Prepare),
    /// Distant supervision: label documents with the facts of a knowledge base
    Label(data::Label),
    /// Turn documents of one format into another
    Convert(data::Convert),
    /// Stage 1: train the pre-denoising ranker
    Rank(training::Rank),
    /// Score every ordered pair of every document and keep the best
    Score(training::Score),
    /// Stage 2: pre-train on denoised distant supervision
    Pretrain(training::Pretrain),
    /// Stage 3: fine-tune on human annotation
    Finetune(training::Finetune),
    /// Predict the facts of documents, labelled or not
    Predict(scoring::Predict),
    /// Score predictions against gold documents
    Evaluate(scoring::Evaluate),
    /// Export a checkpoint as a Hugging Face folder
    Export(scoring::Export),
    /// Recompute a parity case of the reference implementations and compare
    Verify(verifying::Verify),
    /// Write the encoder's states on a fixed text, to be compared with other programs
    Probe(verifying::Probe),
    /// Measure the stages on this machine
    Bench(verifying::Bench),
    /// List the systems, or describe one: layers, settings, defaults of the profiles, parameter
    /// counts
    Systems(inspect::Systems),
    /// Make report.html of one or several runs
    Report(inspect::Report),
    /// Say what a checkpoint, a folder of shards or a run is, and check it; compare two checkpoints
    /// or two runs
    Inspect(inspect::Inspect),
    /// Print the documents of any past or future step
    Batch(questions::Batch),
    /// Which steps of a run stand out by their loss, and which documents they read
    Blame(questions::Blame),
    /// Why a run says what it says of a document: labels, truth, ranks and predictions of its pairs
    Why(questions::Why),
    /// Write a Parquet row for every distant label: its rank and score, whether pre-training keeps
    /// it, and why not
    Ledger(questions::Ledger),
    /// Where a run stands: the last step of each stage, and what each rank is at
    Watch(watch::Watch),
    /// Say what became of a run: the flight recorders of all ranks, the verdict, the last events
    Autopsy(questions::Autopsy),
    /// What a key of a recipe means, its values in the profiles and in a recipe
    Explain(questions::Explain),
    /// Check libtorch, MPI, NCCL, GPUs, memory and disk
    Doctor(doctor::Doctor),
    /// Print shell completions
    Completions(shared::Completions),
    /// Print the manual page
    Man,
}

impl Verb {
    fn run(self) -> Result<()> {
        match self {
            Self::Run(verb) => verb.run(),
            Self::Plan(verb) => verb.run(),
            Self::Submit(verb) => verb.run(),
            Self::Synth(verb) => verb.run(),
            Self::Prepare(verb) => verb.run(),
            Self::Label(verb) => verb.run(),
            Self::Convert(verb) => verb.run(),
            Self::Rank(verb) => verb.run(),
            Self::Score(verb) => verb.run(),
            Self::Pretrain(verb) => verb.run(),
            Self::Finetune(verb) => verb.run(),
            Self::Predict(verb) => verb.run(),
            Self::Evaluate(verb) => verb.run(),
            Self::Export(verb) => verb.run(),
            Self::Verify(verb) => verb.run(),
            Self::Probe(verb) => verb.run(),
            Self::Bench(verb) => verb.run(),
            Self::Systems(verb) => verb.run(),
            Self::Report(verb) => verb.run(),
            Self::Inspect(verb) => verb.run(),
            Self::Batch(verb) => verb.run(),
            Self::Why(verb) => verb.run(),
            Self::Watch(verb) => verb.run(),
            Self::Autopsy(verb) => verb.run(),
            Self::Blame(verb) => verb.run(),
            Self::Ledger(verb) => verb.run(),
            Self::Explain(verb) => verb.run(),
            Self::Doctor(verb) => verb.run(),
            Self::Completions(verb) => verb.run(&mut Cli::command()),
            Self::Man => {
                let mut page = Vec::new();
                clap_mangen::Man::new(Cli::command()).render(&mut page)?;
                shared::print_all(&page)
            }
        }
    }
}

/// The exit code of a disk or device that cannot be written.
const DISK: i32 = 74;

/// What a shell reports of a program that SIGPIPE has ended.
const READER_GONE: i32 = 141;

/// Parses the arguments, runs the verb, reports an error, and ends the process with its exit code.
pub fn main() -> ! {
    let cli = Cli::try_parse().unwrap_or_else(|answer| {
        let _ = answer.print();
        leave(answer.exit_code() as u8)
    });
    let_readers_go();
    // A file that grows over the limit of the shell is an error like a full disk, not the end of
    // the process. SAFETY: a plain call with numbers.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let code = match keep() {
        Ok(Some(code)) => code,
        Ok(None) => match catch_unwind(|| cli.verb.run()) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => report(&error),
            Err(_told) => Error::Bug(String::new()).exit_code(),
        },
        Err(error) => report(&error),
    };
    leave(code)
}

/// Ends the process at once. Nothing is left to tidy up that the system would not: libtorch's
/// registries, whose destructors would run now, take longer to take apart than a split takes to
/// score.
fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: plain calls; C's streams are flushed, for what libraries printed.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(code.into())
    }
}

/// A reader of the output that has seen enough, such as `head`, ends the program as quietly as it
/// ends others.
fn let_readers_go() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>();
        if let Some(cause) =
            message.and_then(|message| message.strip_prefix("failed printing to stdout: "))
        {
            if cause.contains("Broken pipe") {
                std::process::exit(READER_GONE);
            }
            eprintln!("error: standard output cannot be written: {cause}");
            std::process::exit(DISK);
        }
        tell(panic);
    }));
}

/// Under a launcher: a keeper for this rank, see [`keeper`]. The exit code in the keeper, `None` in
/// the rank.
fn keep() -> Result<Option<u8>> {
    keeper::keep(|run, rank, fate| match run {
        Some(run) => crate::ranks::failure::obituary(run, rank, fate),
        None => Some(format!(
            "rank {rank} on {} {fate} before it had a run folder",
            crate::base::host_name()
        )),
    })
}

/// Prints an error with its hint and returns its exit code. A rank whose error another rank has
/// reported stays silent.
fn report(error: &Error) -> u8 {
    // These are met by every rank alike, rank 0 included; what a rank meets alone is an error of
    // that rank or has been told already.
    let other_rank = crate::ranks::is_joined()
        && crate::ranks::Launcher::detect().is_ok_and(|launched| launched.rank > 0);
    let common =
        matches!(error, Error::Recipe { .. } | Error::Stopped { .. } | Error::NonFinite { .. });
    let said_elsewhere = matches!(error, Error::Elsewhere { .. }) || (other_rank && common);
    if !said_elsewhere {
        let (red, bold, plain) = if std::io::stderr().is_terminal() {
            ("\x1b[31;1m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let hint =
            error.hint().map_or_else(String::new, |hint| format!("\n{bold}hint:{plain} {hint}\n"));
        // One write, so that the lines of several ranks do not mix.
        let _ = std::io::stderr()
            .lock()
            .write_all(format!("{red}error:{plain} {error}\n{hint}").as_bytes());
    }
    error.exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verbs without a result for machines, and why.
    const WITHOUT_JSON: [(&str, &str); 3] = [
        ("probe", "prints nothing; what it writes is for machines already"),
        ("completions", "prints a shell's own script"),
        ("man", "prints a page"),
    ];

    #[test]
    fn every_verb_that_reports_something_does_so_for_machines_too() {
        Cli::command().debug_assert();
        let cli = Cli::command();
        for verb in cli.get_subcommands() {
            let json = verb.get_arguments().find(|argument| argument.get_long() == Some("json"));
            let excused = WITHOUT_JSON.iter().find(|(name, _)| *name == verb.get_name());
            match (json, excused) {
                (Some(_), Some((name, reason))) => panic!("{name} has --json, but {reason}"),
                (None, None) => panic!("{} has no --json", verb.get_name()),
                (Some(json), None) => {
                    assert_eq!(
                        json.get_value_names().map(|names| names[0].as_str()),
                        Some("FILE"),
                        "{}",
                        verb.get_name()
                    );
                    assert!(
                        !json.is_required_set() && json.get_help().is_some(),
                        "{}",
                        verb.get_name()
                    );
                }
                (None, Some(_)) => {}
            }
        }
        assert!(
            WITHOUT_JSON.iter().all(|(name, _)| cli.find_subcommand(name).is_some()),
            "a verb that is no more"
        );
    }
}
