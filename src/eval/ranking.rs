//! Thresholds from a score file (docs/scores.md, "Thresholds"): the best prefix, the curve,
//! thresholds tuned for intra- and inter-sentence facts apart, and the scores at a threshold that
//! was chosen elsewhere. Not for: per-pair thresholds, which are logits.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::curve::CurveBuilder;
use super::reliability::{FLOOR, Reliability, ReliabilityBuilder};
use super::score_file::{ScoreRow, read_scores};
use super::sorter::{GroupedFact, Sorter};
use super::threshold::Walk;
use super::{AtTheta, BestPrefix, CurvePoint, FactKey, FactSet, Gold, Prediction, ScoredFact};
use crate::{DataError, Result};

/// What a score file says about thresholds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThresholdScores {
    /// Scores read.
    pub entries: usize,
    /// Those on documents that are not in the gold set.
    pub unknown_title: usize,
    /// The best prefix: the threshold chosen on these very documents.
    pub best: Option<BestPrefix>,
    /// Best prefix among the facts whose head and tail share a sentence, against those gold facts.
    pub best_intra: Option<BestPrefix>,
    /// Best prefix among the others.
    pub best_inter: Option<BestPrefix>,
    /// The scores at a threshold that was chosen elsewhere, with it.
    pub given: Option<(f32, AtTheta)>,
    /// Precision–recall curve.
    pub curve: Vec<CurvePoint>,
    /// Whether the scores are probabilities that hold; `None` where they are no probabilities.
    #[serde(skip)]
    pub reliability: Option<Reliability>,
    /// The same of the calibrated probabilities beside them; `None` where there are none.
    #[serde(skip)]
    pub calibrated: Option<Reliability>,
}

/// Points of the curve at most, about.
const CURVE_POINTS: usize = 200;

/// Reads a score file and walks down the sorted list: O(n log n) time, bounded memory, runs on
/// disk.
///
/// # Errors
/// As [`read_scores`]; a gold fact with two scores; the disk.
pub fn rank_scores(
    path: &Path,
    gold: &Gold<'_>,
    train: Option<&FactSet>,
    theta: Option<f32>,
) -> Result<ThresholdScores> {
    let (mut sorter, mut ranking, mut seen) =
        (Sorter::default(), ThresholdScores::default(), HashSet::new());
    let (mut given, mut calibrated) = (Walk::new(gold.facts().len()), Sorter::default());
    ranking.entries = read_scores(path, &mut |row, score| {
        if !is_scored(gold, &score) {
            return Ok(());
        }
        let entry = judge(gold, train, &score);
        ranking.unknown_title += usize::from(entry.is_none());
        let entry = entry.unwrap_or(GroupedFact {
            fact: ScoredFact { score: score.score, ..ScoredFact::default() },
            intra: false,
        });
        if entry.fact.correct
            && !seen.insert((
                score.title.to_owned(),
                score.head,
                score.tail,
                score.relation.to_owned(),
            ))
        {
            let at = DataError::new(
                path,
                format!("`{}` of ({}, {}) has two scores", score.relation, score.head, score.tail),
            );
            return Err(at
                .row(row)
                .title(score.title)
                .hint("give each pair and relation one score")
                .into());
        }
        if theta.is_some_and(|theta| entry.fact.score > theta) {
            given.prefix_of_set(&entry.fact);
        }
        if let Some(score) = score.calibrated.filter(|share| *share >= FLOOR) {
            calibrated.push(GroupedFact { fact: ScoredFact { score, ..entry.fact }, ..entry })?;
        }
        sorter.push(entry)
    })?;
    ranking.given = theta.map(|theta| (theta, given.kept()));
    let predicted = walk(sorter, gold, &mut ranking)?;
    let mut reliability = ReliabilityBuilder::default();
    calibrated.finish(&mut |entry| reliability.push(entry.fact.score, entry.fact.correct))?;
    ranking.calibrated = reliability.finish(predicted);
    Ok(ranking)
}

/// Walks down the sorted list; returns how many of its entries are predictions.
fn walk(sorter: Sorter, gold: &Gold<'_>, ranking: &mut ThresholdScores) -> Result<usize> {
    let intra_gold = gold.facts().keys().filter(|fact| gold.distance(fact) == Some(0)).count();
    let (mut all, mut intra, mut inter) = (
        Walk::new(gold.facts().len()),
        Walk::new(intra_gold),
        Walk::new(gold.facts().len() - intra_gold),
    );
    let (mut curve, mut reliability) =
        (CurveBuilder::new(CURVE_POINTS), ReliabilityBuilder::default());
    sorter.finish(&mut |entry| {
        reliability.push(entry.fact.score, entry.fact.correct);
        curve.push(all.push(&entry.fact));
        (if entry.intra { &mut intra } else { &mut inter }).push(&entry.fact);
    })?;
    (ranking.best, ranking.best_intra, ranking.best_inter) =
        (all.best(), intra.best(), inter.best());
    ranking.curve = curve.finish();
    let kept = ranking.given.map(|(_, at)| at.kept);
    let predicted = kept.or(ranking.best.map(|best| best.prefix + 1)).unwrap_or(0);
    ranking.reliability = reliability.finish(predicted);
    Ok(predicted)
}

/// Whether a score belongs to a gold fact; `None` for documents that gold does not have.
fn judge(gold: &Gold<'_>, train: Option<&FactSet>, row: &ScoreRow<'_>) -> Option<GroupedFact> {
    let document = gold.row(row.title)?;
    let key = FactKey {
        document,
        head: row.head as usize,
        tail: row.tail as usize,
        relation: row.relation,
    };
    let correct = gold.facts().contains_key(&key);
    let in_train = correct && train.is_some_and(|train| gold.is_known(&key, train));
    Some(GroupedFact {
        fact: ScoredFact { score: row.score, correct, in_train },
        intra: gold.distance(&key) == Some(0),
    })
}

/// The decisions that a score file stands for: scores above `theta`, or the best prefix of
/// [`rank_scores`].
///
/// # Errors
/// As [`read_scores`].
pub fn decide_scores(
    path: &Path,
    gold: &Gold<'_>,
    ranking: &ThresholdScores,
) -> Result<Vec<Prediction>> {
    let (theta, mut ties) = match (&ranking.given, &ranking.best) {
        (Some((theta, _)), _) => (*theta, 0),
        (None, Some(best)) => (best.theta, best.prefix + 1 - above(path, gold, best.theta)?),
        (None, None) => return Ok(Vec::new()),
    };
    let mut predictions = Vec::new();
    read_scores(path, &mut |_, row| {
        // Equal scores are in the order of the file, as in the sorted list.
        let tie = ties > 0 && row.score == theta && is_scored(gold, &row);
        ties -= usize::from(tie);
        if tie || row.score > theta {
            predictions.push(prediction(&row));
        }
        Ok(())
    })?;
    Ok(predictions)
}

fn above(path: &Path, gold: &Gold<'_>, theta: f32) -> Result<usize> {
    let mut count = 0;
    read_scores(path, &mut |_, row| {
        count += usize::from(row.score > theta && is_scored(gold, &row));
        Ok(())
    })?;
    Ok(count)
}

/// Whether a score is about a pair that is right or wrong.
fn is_scored(gold: &Gold<'_>, row: &ScoreRow<'_>) -> bool {
    gold.row(row.title)
        .is_none_or(|document| !gold.is_left_out(document, row.head as usize, row.tail as usize))
}

fn prediction(row: &ScoreRow<'_>) -> Prediction {
    Prediction {
        title: row.title.to_owned(),
        h_idx: row.head as usize,
        t_idx: row.tail as usize,
        r: row.relation.to_owned(),
        evidence: Vec::new(),
        score: Some(f64::from(row.score)),
        confidence: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::score_file::ScoreWriter;
    use super::super::testing::{document, fact};
    use super::super::{best_prefix, precision_recall, reliability};
    use super::*;
    use crate::corpus::Document;

    fn corpus() -> Vec<Document> {
        let mut one = document("a", &[&[0], &[0], &[3]]);
        one.facts = Some(vec![fact(0, 1, "P1", &[]), fact(0, 2, "P1", &[]), fact(2, 0, "P2", &[])]);
        vec![one]
    }

    /// (head, tail, relation, score); ties are at 0.5.
    const SCORES: [(u32, u32, &str, f32); 6] = [
        (0, 1, "P1", 0.9),
        (1, 0, "P1", 0.5),
        (2, 0, "P2", 0.5),
        (0, 2, "P2", 0.5),
        (0, 2, "P1", 0.1),
        (1, 2, "P1", -2.0),
    ];

    fn file(
        folder: &tempfile::TempDir,
        extra: &[(u32, u32, &'static str, f32)],
    ) -> std::path::PathBuf {
        write(folder, extra, |_| None)
    }

    /// The scores, with the calibrated probability that `calibrated` gives for each.
    fn write(
        folder: &tempfile::TempDir,
        extra: &[(u32, u32, &'static str, f32)],
        calibrated: impl Fn(f32) -> Option<f32>,
    ) -> std::path::PathBuf {
        let path = folder.path().join("scores.parquet");
        let mut writer = ScoreWriter::create(&path, calibrated(0.5).is_some()).unwrap();
        for &(head, tail, relation, score) in SCORES.iter().chain(extra) {
            let calibrated = calibrated(score);
            let row = ScoreRow { title: "a", head, tail, relation, score, calibrated };
            writer.push(row).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn as_in_memory() {
        let (folder, documents) = (tempfile::tempdir().unwrap(), corpus());
        let (path, gold) = (file(&folder, &[]), Gold::new(&documents).unwrap());
        let known = FactSet::from_documents(&documents);
        let ranking = rank_scores(&path, &gold, Some(&known), None).unwrap();
        let right = [(0, 1, "P1"), (0, 2, "P1"), (2, 0, "P2")];
        let entry = |&(head, tail, relation, score): &(u32, u32, &str, f32)| {
            let correct = right.contains(&(head, tail, relation));
            ScoredFact { score, correct, in_train: correct }
        };
        let entries: Vec<_> = SCORES.iter().map(entry).collect();
        assert_eq!(ranking.best, best_prefix(&entries, 3));
        assert_eq!(ranking.curve, precision_recall(&entries, 3, CURVE_POINTS));
        // F1 is 2/4, 2/5, 4/6, 4/7, 6/8, 6/9.
        assert_eq!(ranking.best.unwrap().prefix, 4);
        assert_eq!((ranking.best_intra.unwrap().prefix, ranking.best_intra.unwrap().f1), (0, 1.0));
        // Among the others: right, wrong, right, wrong of 2.
        assert_eq!(ranking.best_inter.unwrap().prefix, 2);
        assert!((ranking.best_inter.unwrap().f1 - 0.8).abs() < 1e-12);
        assert_eq!(decide_scores(&path, &gold, &ranking).unwrap().len(), 5);
    }

    #[test]
    fn calibrated_probabilities_are_judged_beside_the_scores() {
        let (folder, documents) = (tempfile::tempdir().unwrap(), corpus());
        let gold = Gold::new(&documents).unwrap();
        let shrunk = |score: f32| (score > 0.0).then_some(score / 2.0).or(Some(0.0));
        let path = write(&folder, &[], shrunk);
        let ranking = rank_scores(&path, &gold, None, None).unwrap();
        // A score is below 0, so that the scores are no probabilities; their halves are.
        assert_eq!(ranking.reliability, None);
        let found = ranking.calibrated.unwrap();
        let entries: Vec<_> = [(0.45, true), (0.25, false), (0.25, true), (0.25, false)]
            .into_iter()
            .chain([(0.05, true)])
            .map(|(score, correct)| ScoredFact { score, correct, in_train: false })
            .collect();
        assert_eq!(found, reliability(&entries, 5).unwrap());
        assert_eq!((found.candidates, found.risk_coverage.len()), (5, 5));
        let without = rank_scores(&file(&folder, &[]), &gold, None, None).unwrap();
        assert_eq!(without, ThresholdScores { calibrated: None, ..ranking });
    }

    #[test]
    fn a_threshold_from_elsewhere_is_strict() {
        let (folder, documents) = (tempfile::tempdir().unwrap(), corpus());
        let (path, gold) = (file(&folder, &[]), Gold::new(&documents).unwrap());
        let ranking = rank_scores(&path, &gold, None, Some(0.5)).unwrap();
        let (theta, at) = ranking.given.unwrap();
        assert_eq!((theta, at.kept, at.precision, at.recall), (0.5, 1, 1.0, 1.0 / 3.0));
        assert_eq!(decide_scores(&path, &gold, &ranking).unwrap().len(), 1);
    }

    #[test]
    fn ties_are_cut_where_the_best_prefix_ends() {
        let mut documents = corpus();
        documents[0].facts = Some(vec![fact(0, 1, "P1", &[]), fact(2, 0, "P2", &[])]);
        let (folder, gold) = (tempfile::tempdir().unwrap(), Gold::new(&documents).unwrap());
        let path = file(&folder, &[]);
        let ranking = rank_scores(&path, &gold, None, None).unwrap();
        assert_eq!(ranking.best.unwrap().prefix, 2);
        let kept: Vec<_> = decide_scores(&path, &gold, &ranking)
            .unwrap()
            .iter()
            .map(|kept| (kept.h_idx, kept.t_idx))
            .collect();
        assert_eq!(kept, [(0, 1), (1, 0), (2, 0)]);
    }

    #[test]
    fn two_scores_of_a_fact_are_an_error() {
        let (folder, documents) = (tempfile::tempdir().unwrap(), corpus());
        let error = rank_scores(
            &file(&folder, &[(0, 1, "P1", 0.8)]),
            &Gold::new(&documents).unwrap(),
            None,
            None,
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("row 6, document `a`: `P1` of (0, 1) has two scores"),
            "{error}"
        );
    }
}
