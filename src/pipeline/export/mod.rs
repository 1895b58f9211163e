//! Export: a checkpoint without its optimiser, as a Hugging Face folder that is complete in itself:
//! with a card, a self-test, and the ranker that it needs.

mod card;
mod origin;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::Args;
use tch::Device;

use self::card::{CardFlags, card_of};
use super::self_test::{CheckReport, Subject, TestDocuments, check_model};
use crate::base::{folder_of, run_files, say};
use crate::corpus::Format;
use crate::torch::Precision;
use crate::train::Checkpoint;
use crate::{Error, Result};

/// What to export, as the flags of `export` say it.
#[derive(Clone, Debug, Args)]
pub struct ExportTask {
    /// Checkpoint of any stage
    #[arg(long, value_name = "C")]
    pub checkpoint: PathBuf,
    /// Checkpoint of the ranker, if it has moved since fine-tuning
    #[arg(long, value_name = "C")]
    pub ranker: Option<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Documents of the self-test, at most 50, in place of generated ones; everybody who gets the
    /// export can read them
    #[arg(long, value_name = "FILE", conflicts_with = "without_self_test")]
    pub self_test: Option<PathBuf>,
    /// Format of --self-test
    #[arg(long, value_enum, value_name = "F", default_value = "docred", requires = "self_test")]
    pub format: Format,
    /// Write no self-test, so that `check` cannot compare what the model does
    #[arg(long)]
    pub without_self_test: bool,
    #[command(flatten)]
    pub card: CardFlags,
}

/// Exports a checkpoint of any stage; the ranker that a fine-tuned model needs goes into `ranker/`.
/// The export appears once it has reproduced its own self-test; `None` without one.
///
/// # Errors
/// A damaged checkpoint, a ranker that is not there, an output folder that is there already, the
/// disk; an export that does not do what the checkpoint does.
pub fn export(task: &ExportTask) -> Result<Option<CheckReport>> {
    let output = &task.output;
    if output.exists() {
        return Err(Error::recipe(format!("{} is there already", output.display()))
            .with_hint("name a new folder"));
    }
    task.card.check()?;
    let documents = (!task.without_self_test).then(|| match &task.self_test {
        Some(path) => TestDocuments::Own(path.clone(), task.format),
        None => TestDocuments::Generated,
    });
    let parent = folder_of(output);
    fs_err::create_dir_all(parent)?;
    // What is written here goes away with it, unless it is whole in the end.
    let work = tempfile::Builder::new().prefix(".exporting-").tempdir_in(parent)?;
    let folder = work.path().join("export");
    let checkpoint = Checkpoint::open(&task.checkpoint)?;
    write(&checkpoint, task, documents.as_ref(), &folder)?;
    let report = match documents {
        Some(_) => {
            let report = check_model(&folder, Device::Cpu, Precision::Fp32)?;
            let report = CheckReport { model: output.clone(), ..report };
            report.outcome()?;
            Some(report)
        }
        None => None,
    };
    fs_err::rename(&folder, output)?;
    fs_err::File::open(parent)?.sync_all()?;
    if task.card.license.is_none() {
        say(format!(
            "warning: {} says that the licence is unknown; name one with --license",
            output.join(run_files::CARD).display()
        ));
    }
    Ok(report)
}

fn write(
    checkpoint: &Checkpoint,
    task: &ExportTask,
    documents: Option<&TestDocuments>,
    folder: &Path,
) -> Result<()> {
    let named = task.ranker.as_deref();
    let mut subject = Subject::open(checkpoint, named, Device::Cpu, Precision::Fp32)?;
    subject.forget_paths();
    let test = documents.map(|documents| subject.self_test(documents)).transpose()?;
    let card = card_of(&subject, checkpoint, &task.card, test.as_ref())?;
    let mut extra = vec![(run_files::CARD.to_owned(), card.to_markdown().into_bytes())];
    extra.extend(test.map(|test| test.files()).transpose()?.into_iter().flatten());
    subject.save(folder, extra)?;
    match &subject.ranker {
        Some(ranker) => {
            let ranker = Checkpoint::open(ranker)?;
            let task = ExportTask { ranker: None, ..task.clone() };
            write(&ranker, &task, documents, &folder.join(run_files::RANKER))
        }
        None => Ok(()),
    }
}
