//! The command line: one file for each heading of `docre-pretrain --help`, and one table of verbs
//! and flags for help, manual page and completions.
//!
//! A verb parses its flags into the task of a library function, calls it, and prints what came
//! out. Not for: doing the work.

mod annotate;
mod data;
mod developers;
mod doctor;
mod launch;
mod looking;
mod machine;
mod pipeline;
mod predict;
mod scores;
mod shared;
mod submit;
mod tables;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::panic::catch_unwind;

use clap::{Args, Command, CommandFactory, Parser, Subcommand};

use crate::base::{caught, say};
use crate::ranks::{Launcher, failure::start_keeper, joined_rank};
use crate::torch::c10d::disable_recorder;
use crate::torch::cuda::prepare_allocator;
use crate::{Error, Result, exit_code};

/// Denoised pre-training and fine-tuning for document-level relation extraction.
///
/// Start with `docre-pretrain run quickstart`, a recipe inside the program, or on two ranks with
/// `docre-pretrain launch -n 2 run quickstart`.
#[derive(Debug, Parser)]
#[command(
    name = "docre-pretrain",
    version,
    propagate_version = true,
    subcommand_value_name = "VERB",
    help_template = help_template(),
    after_help = EXIT_CODES
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  2   wrong usage
  64  bad recipe or option value
  65  bad data
  70  a bug
  71  a rank was lost or hung
  74  disk or I/O
  75  stopped on request (run again with --resume)";

/// Makes the enum of verbs and the headings of `--help` from one table.
macro_rules! verbs {
    ($($heading:literal, hide = $hide:literal: $($verb:ident($flags:ty),)+)+) => {
        #[derive(Debug, Subcommand)]
        enum Verb {
            $($(#[command(hide = $hide)] $verb($flags),)+)+
        }

        impl Verb {
            fn run(self) -> Result<()> {
                match self {
                    $($(Self::$verb(flags) => flags.run(),)+)+
                }
            }
        }

        /// The headings in the order of use, each with its verbs.
        const HEADINGS: &[(&str, &[&str])] = &[$(($heading, &[$(stringify!($verb)),+])),+];
    };
}

verbs! {
    "Data", hide = false:
        Synth(data::SynthVerb), Prepare(data::PrepareVerb), Survey(data::SurveyVerb),
        Annotate(annotate::AnnotateVerb), Label(data::LabelVerb), Convert(data::ConvertVerb),
    "Pipeline", hide = false:
        Run(pipeline::RunVerb), Rank(pipeline::RankVerb), Score(pipeline::ScoreVerb),
        Teach(pipeline::TeachVerb),
        Pretrain(pipeline::PretrainVerb), Finetune(pipeline::FinetuneVerb),
        Predict(predict::PredictVerb), Export(pipeline::ExportVerb), Graph(pipeline::GraphVerb),
    "Scores", hide = false:
        Evaluate(scores::EvaluateVerb), Audit(scores::AuditVerb), Table(tables::TableVerb),
    "Looking into a run", hide = false:
        Watch(looking::WatchVerb), Report(looking::ReportVerb), Inspect(looking::InspectVerb),
        Check(looking::CheckVerb), Why(looking::WhyVerb), Batch(looking::BatchVerb),
        Blame(looking::BlameVerb),
        Ledger(looking::LedgerVerb), Explain(looking::ExplainVerb), Autopsy(looking::AutopsyVerb),
    "Machine", hide = false:
        Doctor(doctor::DoctorVerb), Systems(machine::SystemsVerb), Plan(machine::PlanVerb),
        Launch(launch::LaunchVerb), Submit(submit::SubmitVerb),
    "Developers", hide = true:
        Selftest(developers::SelftestVerb), Verify(developers::VerifyVerb),
        Probe(developers::ProbeVerb), Bench(developers::BenchVerb),
        Completions(CompletionsVerb), Man(ManVerb),
}

/// The page of `docre-pretrain --help`: clap has headings for flags, but none for verbs.
fn help_template() -> String {
    let verbs = Verb::augment_subcommands(Command::new("verbs"));
    let (header, literal) = (verbs.get_styles().get_header(), verbs.get_styles().get_literal());
    let mut page = "{about-section}\n{usage-heading} {usage}\n\n".to_owned();
    for (heading, names) in HEADINGS {
        let shown = names.iter().filter_map(|name| verbs.find_subcommand(name.to_lowercase()));
        let mut list = String::new();
        for verb in shown.filter(|verb| !verb.is_hide_set()) {
            let about = verb.get_about().cloned().unwrap_or_default();
            let _ = writeln!(list, "  {literal}{:<10}{literal:#}{about}", verb.get_name());
        }
        if !list.is_empty() {
            page += &format!("{header}{heading}:{header:#}\n{list}\n");
        }
    }
    page + &format!("{header}Options:{header:#}\n{{options}}{{after-help}}")
}

/// Print shell completions
#[derive(Debug, Args)]
struct CompletionsVerb {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

impl CompletionsVerb {
    fn run(self) -> Result<()> {
        let mut script = Vec::new();
        let command = &mut Cli::command();
        clap_complete::generate(self.shell, command, "docre-pretrain", &mut script);
        shared::print_all(&script)
    }
}

/// Print the manual page
#[derive(Debug, Args)]
struct ManVerb;

impl ManVerb {
    fn run(self) -> Result<()> {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        shared::print_all(&page)
    }
}

/// Parses the arguments, runs the verb, reports an error, and ends the process with its exit code.
pub fn main() -> ! {
    prepare_allocator();
    disable_recorder();
    let cli = Cli::try_parse().unwrap_or_else(|answer| {
        // All ranks are asked the same, so one answers.
        if own_rank() == 0 {
            let _ = answer.print();
        }
        leave(answer.exit_code() as u8)
    });
    exit_quietly_on_a_broken_pipe();
    // A file that grows over the limit of the shell is an error like a full disk, not the end of
    // the process. SAFETY: a plain call with numbers.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let keeper = match &cli.verb {
        // It is no rank, even where srun starts it once a machine.
        Verb::Launch(_) => Ok(None),
        _ => start_keeper(),
    };
    let code = match keeper {
        // This process is the keeper, and its rank has ended.
        Ok(Some(code)) => code,
        Ok(None) => match catch_unwind(|| caught(|| cli.verb.run())) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => report(&error),
            // The panic hook has printed it.
            Err(_) => exit_code::BUG,
        },
        Err(error) => report(&error),
    };
    leave(code)
}

/// Ends the process at once. Nothing is left to clean up that the system would not: the destructors
/// of libtorch's registries, which would run now, take longer than scoring a split.
fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: plain calls; C's streams are flushed, for what libraries printed.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(code.into())
    }
}

/// Ends the program without a message if the reader of its output, such as `head`, has closed the
/// pipe.
fn exit_quietly_on_a_broken_pipe() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>();
        if let Some(cause) =
            message.and_then(|message| message.strip_prefix("failed printing to stdout: "))
        {
            if cause.contains("Broken pipe") {
                std::process::exit(exit_code::BROKEN_PIPE.into());
            }
            eprintln!("error: standard output cannot be written: {cause}");
            std::process::exit(exit_code::IO.into());
        }
        tell(panic);
    }));
}

/// The number of this process among the ranks that it has joined, or that its launcher has started.
fn own_rank() -> usize {
    joined_rank().or_else(|| Some(Launcher::detect().ok()?.rank)).unwrap_or_default()
}

/// Prints an error with its hint and returns its exit code. A rank whose error another rank reports
/// stays silent.
fn report(error: &Error) -> u8 {
    // Every rank meets these alike, rank 0 included; an error that one rank meets alone names that
    // rank, or has been printed already.
    let common =
        matches!(error, Error::Recipe { .. } | Error::Stopped { .. } | Error::NonFinite { .. });
    let told_elsewhere = matches!(error, Error::Elsewhere { .. }) || (own_rank() > 0 && common);
    if !told_elsewhere {
        let (red, bold, plain) = if std::io::stderr().is_terminal() {
            ("\x1b[31;1m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let hint =
            error.hint().map_or_else(String::new, |hint| format!("\n\n{bold}hint:{plain} {hint}"));
        say(format!("{red}error:{plain} {error}{hint}"));
    }
    error.exit_code()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Verbs whose output is not a result, and why.
    const WITHOUT_JSON: [(&str, &str); 4] = [
        ("launch", "passes on what its ranks print"),
        ("probe", "prints nothing; what it writes is for machines already"),
        ("completions", "prints a shell's own script"),
        ("man", "prints a page"),
    ];

    /// Flags with the name of a recipe key that a verb with `--set` does not take from the recipe.
    const UNRELATED: [(&str, &str, &str); 7] = [
        ("bench", "dropout", "of `bench encoders`, which has no recipe"),
        ("bench", "precision", "of the stages; `bench systems` follows the recipe"),
        ("bench", "tokenizer", "of the stages; `bench systems` follows the recipe"),
        ("finetune", "dev", "holds shards; `data` is refused because of --train"),
        ("submit", "memory", "of a machine; `data.memory` is for documents"),
        ("submit", "seeds", "only in array-of-seeds, which checks it"),
        ("submit", "tasks", "of a machine, one for each rank"),
    ];

    fn flags(verb: &Command) -> impl Iterator<Item = &str> {
        verb.get_arguments().filter_map(clap::Arg::get_long)
    }

    #[test]
    fn every_verb_that_reports_something_does_so_for_machines_too() {
        let cli = Cli::command();
        for verb in cli.get_subcommands() {
            let name = verb.get_name();
            let json = verb.get_arguments().find(|argument| argument.get_long() == Some("json"));
            let excused = WITHOUT_JSON.iter().any(|(excused, _)| *excused == name);
            assert_eq!(json.is_none(), excused, "{name}");
            let Some(json) = json else { continue };
            let value = json.get_value_names().map(|names| names[0].as_str());
            assert_eq!(value, Some("FILE"), "{name}");
            assert!(!json.is_required_set() && json.get_help().is_some(), "{name}");
        }
    }

    #[test]
    fn the_help_lists_every_verb_once_unless_it_is_for_developers() {
        Cli::command().debug_assert();
        let page = Cli::command().render_long_help().to_string();
        for (heading, names) in HEADINGS {
            let hidden = *heading == "Developers";
            assert_eq!(page.contains(&format!("\n{heading}:\n")), !hidden, "{page}");
            for name in names.iter().map(|name| name.to_lowercase()) {
                let lines = page.lines().filter(|line| line.starts_with(&format!("  {name} ")));
                assert_eq!(lines.count(), usize::from(!hidden), "{name}: {page}");
            }
        }
    }

    #[test]
    fn help_is_in_whole_lines_of_a_hundred_columns() {
        let mut cli = Cli::command().term_width(100);
        cli.build();
        for mut verb in cli.get_subcommands().cloned().chain([cli.clone()]) {
            for page in [verb.render_help(), verb.render_long_help()].map(|page| page.to_string()) {
                let long = page.lines().find(|line| line.chars().count() > 100);
                assert_eq!(long, None, "{}", verb.get_name());
            }
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            let undescribed = verb.get_arguments().find(|argument| argument.get_help().is_none());
            assert!(undescribed.is_none(), "{}: {undescribed:?}", verb.get_name());
        }
    }

    #[test]
    fn a_flag_that_is_named_like_a_recipe_key_decides_it_or_is_excused() {
        let schema = crate::recipe::recipe_schema();
        let tables = crate::recipe::described_keys(&schema, "");
        let keys: HashSet<String> = tables
            .iter()
            .flat_map(|(table, _)| crate::recipe::described_keys(&schema, table))
            .chain(tables.clone())
            .flat_map(|(key, _)| [format!("{key}s"), key])
            .collect();
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            let related = flags(verb).filter(|flag| keys.contains(&flag.replace('-', "_")));
            for flag in related.filter(|_| flags(verb).any(|flag| flag == "set")) {
                let excused =
                    UNRELATED.iter().any(|(verb, other, _)| (*verb, *other) == (name, flag));
                let decides = shared::DECIDING_FLAGS.iter().any(|(decides, _)| *decides == flag);
                assert!(decides != excused, "{name} --{flag}");
            }
        }
    }
}
