//! Labels from elsewhere: facts of a knowledge base, matched to documents by name, and the answers
//! of people about single pairs.
//!
//! Not for: deciding which labels are true; that is what the pre-denoising stages are for.

mod base;
mod report;
mod review;

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

use super::formats::docred::DocredWriter;
use super::formats::{ReadOptions, list_left_out};
use super::{Document, Format};
use crate::Result;
use crate::base::say;

pub use base::{FactBase, Matching};
pub use report::LabelReport;
pub use review::{ReviewCandidate, ReviewPair, ReviewedPairs, label_reviewed};

/// What [`label_file`] does besides matching names.
#[derive(Clone, Debug, Default)]
pub struct LabelOptions {
    /// Titles that are left out, such as those of the development and test documents.
    pub exclude_titles: HashSet<String>,
    /// Format of the input.
    pub format: Format,
    /// How the input is read.
    pub read: ReadOptions,
}

/// Labels every document of `input` and writes `output` in DocRED's form, in the same order. The
/// new labels replace those of the input, and the report compares the two. If a document lists its
/// candidates, other pairs get no label.
///
/// # Errors
/// Those of reading the format and of writing.
pub fn label_file(
    facts: &FactBase,
    input: &Path,
    output: &Path,
    options: &LabelOptions,
) -> Result<LabelReport> {
    let mut report = LabelReport::default();
    let mut writer = DocredWriter::create(output)?;
    let mut used = HashSet::new();
    let summary = options.format.read(input, &options.read, &mut |mut document: Document| {
        report.documents += 1;
        if options.exclude_titles.contains(&document.title) {
            report.excluded += 1;
            return Ok(());
        }
        let found = facts.nodes(&document);
        let mut labels = facts.label_nodes(&document, &found);
        if document.candidates.is_some() {
            let asked: BTreeSet<(usize, usize)> = document.asked_pairs().into_iter().collect();
            labels.retain(|label| asked.contains(&(label.head, label.tail)));
        }
        report.add(&document, &found, &labels);
        facts.note_used(&found, &labels, &mut used);
        document.facts = Some(labels);
        writer.write(&document)
    })?;
    writer.finish()?;
    let warnings = summary.warnings(input).into_iter();
    warnings.for_each(|warning| say(format!("warning: {warning}")));
    list_left_out(&summary.left_out, output)?;
    (report.known_facts, report.used_facts) = (facts.len(), used.len());
    if report.facts == 0 {
        say(format!(
            "warning: {}: no label was given: no fact has a head and a tail that are entities of \
             one document",
            input.display()
        ));
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
