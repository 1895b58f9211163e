//! `check`: an export is read as anybody would read it, and must do what it did.

use std::path::Path;

use tch::Device;

use super::answer::SelfTest;
use super::subject::Subject;
use super::verdict::{
    CheckReport, SelfTestRow, compare_facts, compare_numbers, compare_records, other_facts,
    tolerance_of,
};
use crate::base::run_files;
use crate::pipeline::model::Description;
use crate::torch::Precision;
use crate::torch::device::described;
use crate::train::Checkpoint;
use crate::{DataError, Result};

/// Checks an export, with the ranker inside it, against its self-test. Of the checkpoint of a run,
/// which has none, the hashes are checked.
///
/// # Errors
/// A folder that is no whole checkpoint; an export without a self-test. What does not hold is in
/// the report.
pub fn check_model(path: &Path, device: Device, precision: Precision) -> Result<CheckReport> {
    let checkpoint = Checkpoint::open(path)?;
    let description: Description = checkpoint.description()?;
    let mut report = begin(path, &checkpoint, &description, device, precision)?;
    if !SelfTest::is_in(checkpoint.path()) {
        if checkpoint.card_is_original()?.is_some() {
            return Err(DataError::new(path, "is an export without a self-test")
                .hint("export the checkpoint again without --without-self-test")
                .into());
        }
        report
            .notes
            .push("a checkpoint of a run, which has no self-test: `export` adds one".into());
        report.good = true;
        return Ok(report);
    }
    let ranker = checkpoint.path().join(run_files::RANKER);
    if description.ranker.is_some() && !ranker.join(run_files::CHECKPOINT_SEAL).exists() {
        return Err(DataError::new(&ranker, "is missing: the model chooses pairs by a ranker")
            .hint("copy or download the whole export")
            .into());
    }
    let test = SelfTest::read(checkpoint.path())?;
    let subject = Subject::open(&checkpoint, None, device, precision)?;
    report.rows.extend(compare_records(&test, &subject, &checkpoint)?);
    let found = subject.answers(&test.documents, Some(&test.answers))?;
    report.rows.extend(compare_numbers(&test.answers, &found, precision));
    let facts = subject.decide(&test.documents, &test.answers)?;
    report.rows.push(compare_facts(&test.recorded.facts, &facts));
    let own = other_facts(&facts, &subject.decide(&test.documents, &found)?);
    if own > 0 {
        report.notes.push(format!("{own} facts at the threshold are decided otherwise here"));
    }
    if subject.ranker.is_some() {
        report.add_part(run_files::RANKER, check_model(&ranker, device, precision)?);
    }
    report.good = report.rows.iter().all(|row| row.good);
    Ok(report)
}

fn begin(
    path: &Path,
    checkpoint: &Checkpoint,
    description: &Description,
    device: Device,
    precision: Precision,
) -> Result<CheckReport> {
    let name = match precision {
        Precision::Fp32 => "fp32",
        Precision::Bf16 => "bf16",
    };
    let share = tolerance_of(precision);
    let files = checkpoint.files()?.len();
    let mut report = CheckReport {
        model: path.to_owned(),
        identity: checkpoint.identity()?,
        what: format!("{} {:?}", description.settings.system(), description.kind).to_lowercase(),
        computed: format!("on {} in {name}: to {share:e} of the largest number", described(device)),
        rows: vec![SelfTestRow::new("hashes", true, format!("{files} files match their hashes"))],
        ..CheckReport::default()
    };
    if checkpoint.card_is_original()? == Some(false) {
        report.notes.push("README.md is not as it was exported; it may be edited".into());
    }
    Ok(report)
}
