//! The files of a prediction, made of what was kept of each document.
//!
//! Not for: what is kept (`unfinished`).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::calibrate::Calibrated;
use super::super::predictor::{Decider, DocumentScores};
use super::super::review::{ReviewOrder, ReviewWriter};
use super::super::session::Session;
use super::finder::FactFinder;
use super::options::PredictFiles;
use super::unfinished::{DocumentRecord, RecordPlace, UnfinishedPredictions};
use crate::corpus::RelationSet;
use crate::eval::{PredictionWriter, ScoreRow, ScoreWriter, SubmissionZip};
use crate::{Error, Result};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenCounts {
    /// Facts.
    pub facts: usize,
    /// Facts that were left out because of `--min-confidence`.
    pub below: usize,
    /// Pairs for review.
    pub review: Option<usize>,
}

/// Writes all files that are asked for.
///
/// # Errors
/// The disk; a request to stop. Files that were there are then as before, unless they were
/// finished.
pub(super) fn write_outputs(
    finder: &FactFinder,
    files: &PredictFiles,
    work: &UnfinishedPredictions,
    session: &Session,
) -> Result<WrittenCounts> {
    let mut counts = WrittenCounts::default();
    let mut predictions = PredictionWriter::create(&files.output)?;
    let mut zip = files.zip.then(|| SubmissionZip::create(&files.zip_file())).transpose()?;
    let mut scores =
        files.scores.as_ref().map(|path| PairScoreWriter::create(path, finder)).transpose()?;
    let mut order = files.review.as_ref().map(|_| ReviewOrder::new(files.most_reviewed()));
    for part in 0..work.num_parts() {
        session.going_on("while writing predictions")?;
        let logits = scores.is_some().then(|| work.scores(part)).transpose()?;
        let mut logits = logits.unwrap_or_default().into_iter();
        work.records(part, &mut |place: RecordPlace, record: DocumentRecord| {
            counts.facts += record.facts.len();
            counts.below += record.below;
            for fact in &record.facts {
                predictions.push(fact)?;
                zip.as_mut().map_or(Ok(()), |zip| zip.push(fact))?;
            }
            if let Some((writer, logits)) = scores.as_mut().zip(logits.next()) {
                writer.push(&record.title, &logits)?;
            }
            if let Some(order) = &mut order {
                order.take(place, &record.uncertain);
            }
            Ok(())
        })?;
    }
    predictions.finish()?;
    zip.map_or(Ok(()), SubmissionZip::finish)?;
    scores.map_or(Ok(()), |scores| scores.writer.finish())?;
    if let Some((path, order)) = files.review.as_ref().zip(order) {
        counts.review = Some(write_review(path, files, order, work)?);
    }
    Ok(counts)
}

/// Writes the pairs for review in their order, a document at a time.
fn write_review(
    path: &Path,
    files: &PredictFiles,
    order: ReviewOrder<RecordPlace>,
    work: &UnfinishedPredictions,
) -> Result<usize> {
    let mut writer = ReviewWriter::create(path)?;
    let (ordered, found) = order.finish();
    for of_document in ordered.chunk_by(|a, b| a.place == b.place) {
        let Some(first) = of_document.first() else { continue };
        let record = work.record(first.place)?;
        for pair in of_document {
            let lost = || Error::Bug(format!("{}: a pair for review is lost", record.title));
            writer.push(&record.uncertain.pairs.get(pair.number).ok_or_else(lost)?.pair)?;
        }
    }
    writer.finish(path, files.band()?, found)
}

/// Writes the scores of all pairs and relations.
struct PairScoreWriter<'a> {
    writer: ScoreWriter,
    decider: Decider,
    calibrated: Option<Calibrated<'a>>,
    relations: &'a RelationSet,
}

impl<'a> PairScoreWriter<'a> {
    fn create(path: &Path, finder: &'a FactFinder) -> Result<Self> {
        let calibrated = finder.calibrated();
        Ok(Self {
            writer: ScoreWriter::create(path, calibrated.is_some())?,
            decider: finder.decider(),
            relations: finder.relations(),
            calibrated,
        })
    }

    /// Adds the scores of a document.
    fn push(&mut self, title: &str, scores: &DocumentScores) -> Result<()> {
        let shares = self.calibrated.into_iter().flat_map(|all| all.relations(scores));
        let mut shares = shares.map(|(_, _, share)| share as f32);
        for ((head, tail), relation, score) in self.decider.relations(scores) {
            let calibrated = shares.next();
            let Some(relation) = self.relations.get(relation) else { continue };
            let relation = &relation.id;
            self.writer.push(ScoreRow { title, head, tail, relation, score, calibrated })?;
        }
        Ok(())
    }
}
