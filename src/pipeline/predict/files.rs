//! Prediction from files into files.
//!
//! Not for: how facts are found (`finder`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::super::calibrate::Calibrated;
use super::super::prepare_job::InputFile;
use super::super::review::ReviewSource;
use super::super::session::Session;
use super::finder::{FactFinder, FinderNeeds, FoundFacts};
use super::options::{PredictFiles, PredictOptions};
use crate::Result;
use crate::base::{Progress, say};
use crate::corpus::Document;
use crate::corpus::formats::ReadOptions;
use crate::eval::{Prediction, ScoreRow, ScoreWriter, write_predictions, write_zip};
use crate::text::{TokenizedDocument, Tokenizer, tokenize};

/// What was predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PredictReport {
    /// Documents.
    pub documents: usize,
    /// Facts in them; after the last iteration where there are several files.
    pub facts: usize,
    /// Facts that were left out because of `--min-confidence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_confidence: Option<usize>,
    /// Pairs that were written for review.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review: Option<usize>,
    /// What was predicted after each number of iterations, with `--all-iterations`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub iterations: Vec<IterationReport>,
}

/// What was predicted after some iterations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IterationReport {
    /// Their number.
    pub iterations: usize,
    /// Facts.
    pub facts: usize,
    /// Where they are.
    pub output: PathBuf,
}

/// Predicts a file.
///
/// # Errors
/// If a document is bad, the checkpoint is of another stage, the ranker cannot be found, or a file
/// cannot be written.
pub fn predict_files(
    options: &PredictOptions,
    files: &PredictFiles,
    session: &Session,
) -> Result<PredictReport> {
    files.band()?;
    let needs = FinderNeeds {
        iterations: options.iterations,
        review: files.review.is_some(),
        speaks: session.is_root(),
    };
    if !files.all_iterations {
        let mut finder = FactFinder::open(options, needs, session)?;
        return predict_with(&mut finder, options, files, session);
    }
    let first = FinderNeeds { iterations: options.iterations.or(Some(0)), ..needs };
    let most = options.iterations.or(FactFinder::open(options, first, session)?.iterations());
    let mut report = PredictReport::default();
    // Without iterations, opening refuses a number of them.
    for number in 0..=most.unwrap_or(0) {
        let needs = FinderNeeds { iterations: Some(number), speaks: false, ..needs };
        let numbered = files.numbered(number);
        let mut finder = FactFinder::open(options, needs, session)?;
        let last = predict_with(&mut finder, options, &numbered, session)?;
        let output = numbered.output;
        let iteration = IterationReport { iterations: number, facts: last.facts, output };
        report = PredictReport { iterations: report.iterations, ..last };
        report.iterations.push(iteration);
    }
    Ok(report)
}

fn predict_with(
    finder: &mut FactFinder,
    options: &PredictOptions,
    files: &PredictFiles,
    session: &Session,
) -> Result<PredictReport> {
    let input = InputFile { path: files.input.clone(), format: files.format.unwrap_or_default() };
    let (mut documents, mut originals) = (Vec::new(), Vec::new());
    let mut tokenizer: Tokenizer = finder.tokenizer().clone();
    // Labels of the input play no part, so relations that the model does not know are no error
    // here.
    input.read(&ReadOptions::default(), &mut |mut document| {
        document.facts = None;
        documents.push(Arc::new(tokenize(&document, &mut tokenizer, finder.relations())?));
        if files.review.is_some() || finder.needs_words() {
            originals.push(document);
        }
        Ok(())
    })?;
    let progress = Progress::new("predict", documents.len() as u64, 0, session.is_root());
    let found = finder.find(&mut documents, &originals, &|| Ok(()))?;
    let written = WrittenFiles { finder, files, documents: &documents, originals: &originals };
    let (facts, review) = session.world.on_root(|| written.write(&found))?;
    progress.finish(&format!("{facts} facts in {} documents", documents.len()));
    let below: usize = found.iter().map(|found| found.below).sum();
    if let Some(least) = options.min_confidence.filter(|_| session.is_root()) {
        say(format!("{below} facts with a calibrated probability below {least} are left out"));
    }
    Ok(PredictReport {
        documents: documents.len(),
        facts,
        below_confidence: options.min_confidence.map(|_| below),
        review,
        iterations: Vec::new(),
    })
}

/// What is written of documents.
struct WrittenFiles<'a> {
    finder: &'a FactFinder,
    files: &'a PredictFiles,
    documents: &'a [Arc<TokenizedDocument>],
    originals: &'a [Document],
}

impl WrittenFiles<'_> {
    /// Writes the predictions of each document and what else is asked for; returns the number of
    /// facts, and of pairs for review.
    fn write(&self, found: &[FoundFacts]) -> Result<(usize, Option<usize>)> {
        let Self { files, finder, .. } = *self;
        let predictions: Vec<Vec<Prediction>> =
            found.iter().map(|found| found.facts.clone()).collect();
        let facts = predictions.concat();
        write_predictions(&files.output, &facts)?;
        if files.zip {
            write_zip(&files.zip_file(), &facts)?;
        }
        if let Some(path) = &files.scores {
            self.write_scores(path, found)?;
        }
        let mut pairs = None;
        if let (Some(path), Some(calibrated)) = (&files.review, finder.calibrated()) {
            let scores: Vec<_> = found.iter().map(|found| found.scores.clone()).collect();
            let source = ReviewSource {
                documents: self.originals,
                scores: &scores,
                predictions: &predictions,
                calibrated,
                relations: finder.relations(),
                tells_evidence: finder.tells_evidence(),
            };
            pairs = Some(source.write(path, files.band()?, files.review_limit.unwrap_or(0))?);
        }
        Ok((facts.len(), pairs))
    }

    fn write_scores(&self, path: &Path, found: &[FoundFacts]) -> Result<()> {
        let (decider, calibrated) = (self.finder.decider(), self.finder.calibrated());
        let mut writer = ScoreWriter::create(path, calibrated.is_some())?;
        for (document, found) in self.documents.iter().zip(found) {
            let scores = &found.scores;
            let shares = calibrated.into_iter().flat_map(|all: Calibrated| all.relations(scores));
            let mut shares = shares.map(|(_, _, share)| share as f32);
            for ((head, tail), relation, score) in decider.relations(scores) {
                let calibrated = shares.next();
                let Some(relation) = self.finder.relations().get(relation) else { continue };
                writer.push(ScoreRow {
                    title: &document.title,
                    head,
                    tail,
                    relation: &relation.id,
                    score,
                    calibrated,
                })?;
            }
        }
        writer.finish()
    }
}
