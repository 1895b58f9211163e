//! Calibrated probabilities of a model's relations: what the calibration is fitted on, and how it
//! is used (docs/scores.md, "Calibration").
//!
//! Not for: the fit itself (`distant`), or how good probabilities are (`eval::reliability`).

use std::path::Path;

use ahash::{AHashMap, AHashSet};

use super::predictor::{Decider, DocumentScores};
use crate::base::say;
use crate::corpus::RelationSet;
use crate::distant::{Calibration, Observation, ObservationBins};
use crate::eval::{Prediction, ScoredFact};
use crate::sampling::asked_pairs;
use crate::shards::DocumentStore;
use crate::systems::Pair;
use crate::train::TrainerState;
use crate::{DataError, Error, Result};

/// What a calibration of each relation is fitted on: the margins of all pairs of labelled documents
/// that were scored and that the corpus asks about, with what is true of them. `scores` come with
/// their rows; `labels(row, pair, relation)` says whether there is a distant label.
///
/// Wrong pairs of almost the same margin are one observation with their number as weight.
pub fn observations(
    scores: &mut dyn Iterator<Item = (usize, &DocumentScores)>,
    store: &DocumentStore,
    decider: Decider,
    labels: &dyn Fn(usize, Pair, usize) -> bool,
) -> Vec<Vec<Observation>> {
    let mut bins = vec![ObservationBins::default(); decider.classes.relations];
    for (row, scores) in scores {
        let document = store.get(row);
        if !document.labelled {
            continue;
        }
        let asked: Option<AHashSet<Pair>> =
            document.candidates.as_ref().map(|_| asked_pairs(&document).into_iter().collect());
        let facts: AHashSet<(Pair, usize)> = document
            .facts
            .iter()
            .map(|fact| ((fact.head, fact.tail), fact.relation as usize))
            .collect();
        for (pair, logits) in decider.rows(scores) {
            if asked.as_ref().is_some_and(|asked| !asked.contains(&pair)) {
                continue;
            }
            for (relation, bins) in bins.iter_mut().enumerate() {
                let (labelled, is_true) =
                    (labels(row, pair, relation), facts.contains(&(pair, relation)));
                bins.push(decider.margin(logits, relation), labelled, is_true);
            }
        }
    }
    bins.into_iter().map(ObservationBins::finish).collect()
}

/// The calibration of a model from its scores of labelled documents; `None` where none of their
/// facts was scored.
pub fn calibration_on(
    scores: &[DocumentScores],
    store: &DocumentStore,
    decider: Decider,
) -> Option<Calibration> {
    let observations =
        observations(&mut scores.iter().enumerate(), store, decider, &|_, _, _| false);
    let any = observations.iter().flatten().any(|one| one.is_true);
    any.then(|| Calibration::fit(&observations))
}

/// Calibrated probabilities of relations from logits.
#[derive(Clone, Copy)]
pub struct Calibrated<'a> {
    /// The functions.
    pub calibration: &'a Calibration,
    /// What the columns of the logits mean.
    pub decider: Decider,
}

impl<'a> Calibrated<'a> {
    /// The probability of a relation from a pair's row of logits.
    pub fn probability(self, row: &[f32], relation: usize) -> f64 {
        let margin = self.decider.margin(row, relation);
        self.calibration.probability(relation, margin, false)
    }

    /// The probabilities of all relations from a pair's row of logits.
    pub fn row<'s>(self, row: &'s [f32]) -> impl Iterator<Item = f64> + use<'s, 'a> {
        (0..self.decider.classes.relations).map(move |relation| self.probability(row, relation))
    }

    /// Writes the probability of each fact into the predictions of a document.
    pub fn judge(
        self,
        predictions: &mut [Prediction],
        scores: &DocumentScores,
        relations: &RelationSet,
    ) {
        let rows: AHashMap<Pair, &[f32]> = self.decider.rows(scores).collect();
        for fact in predictions {
            let row = rows.get(&(fact.h_idx as u32, fact.t_idx as u32));
            let known = row.zip(relations.index_of(&fact.r));
            fact.confidence = known.map(|(row, relation)| self.probability(row, relation));
        }
    }

    /// Every (pair, relation, probability) in the order of [`Decider::relations`].
    pub fn relations<'s>(
        self,
        scores: &'s DocumentScores,
    ) -> impl Iterator<Item = (Pair, usize, f64)> + use<'s, 'a> {
        self.decider.rows(scores).flat_map(move |(pair, row)| {
            (0..self.decider.classes.relations)
                .map(move |relation| (pair, relation, self.probability(row, relation)))
        })
    }
}

/// Facts as [`ranked_facts`](super::predictor::ranked_facts) lists them, with calibrated
/// probabilities in place of scores.
pub fn calibrated_facts(
    ranked: &[ScoredFact],
    scores: &[DocumentScores],
    calibrated: Calibrated,
) -> Vec<ScoredFact> {
    let shares = scores.iter().flat_map(|scores| calibrated.relations(scores));
    let with = |(fact, (_, _, share)): (&ScoredFact, (Pair, usize, f64))| ScoredFact {
        score: share as f32,
        ..*fact
    };
    ranked.iter().zip(shares).map(with).collect()
}

/// The calibration that a checkpoint was saved with, where it has one.
///
/// # Errors
/// [`Error::Data`] naming the checkpoint if the calibration is for another number of relations.
pub fn calibration_of(
    checkpoint: &Path,
    state: &TrainerState,
    relations: &RelationSet,
) -> Result<Option<Calibration>> {
    let Some(calibration) = &state.calibration else { return Ok(None) };
    let (found, needed) = (calibration.relations.len(), relations.len());
    if found != needed {
        let problem = format!("has a calibration of {found} relations for {needed} relations");
        return Err(DataError::new(checkpoint, problem)
            .hint("name another checkpoint, or fine-tune again")
            .into());
    }
    Ok(Some(calibration.clone()))
}

/// Refuses a checkpoint without the calibration that `flag` needs. Where `speaks`, warns of one
/// that belongs to the weights of another step.
///
/// # Errors
/// [`Error::Recipe`] where there is none.
pub fn needed_calibration(
    calibration: Option<&Calibration>,
    flag: &str,
    checkpoint: &Path,
    state: &TrainerState,
    speaks: bool,
) -> Result<()> {
    if calibration.is_none() {
        let checkpoint = checkpoint.display();
        let problem =
            format!("{flag} needs calibrated probabilities, but {checkpoint} has no calibration");
        return Err(Error::recipe(problem).with_hint(
            "fine-tuning stores one with the best epoch on dev; older checkpoints, and those of \
             runs whose dev documents hold no fact, have none: fine-tune again",
        ));
    }
    if let Some((_, best)) = state.best.filter(|(_, best)| speaks && *best != state.step) {
        say(format!(
            "warning: {}: the calibration is that of step {best}, the weights are those of step \
             {}; take the best checkpoint",
            checkpoint.display(),
            state.step
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::corpus::{Candidate, Document};
    use crate::shards::testing::{document, prepared_with};
    use crate::shards::{StoreOptions, WriteOptions};
    use crate::systems::{Classes, DecisionRule, NaClass};

    /// A decider over relations P17, P19 and P27.
    pub(in crate::pipeline) fn decider(rule: DecisionRule, na: NaClass) -> Decider {
        Decider { classes: Classes { relations: 3, na }, rule, threshold: 0.5, evidence: None }
    }

    /// Three entities with a mention each.
    pub(in crate::pipeline) fn three(title: &str, facts: &[(usize, usize, &str)]) -> Document {
        document(title, &[&["Paris"], &["France"], &["Ada"]], facts)
    }

    fn store(documents: &[Document]) -> (tempfile::TempDir, DocumentStore) {
        let temp = tempfile::tempdir().unwrap();
        let options = WriteOptions { rows_per_shard: 10, row_group_rows: 4 };
        let (folder, _) = prepared_with(temp.path(), "shards", documents, options);
        let store = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
        (temp, store)
    }

    /// Scores of pairs, a row of logits each.
    pub(in crate::pipeline) fn scored(rows: &[(Pair, [f32; 4])]) -> DocumentScores {
        let (pairs, logits): (Vec<Pair>, Vec<[f32; 4]>) = rows.iter().copied().unzip();
        DocumentScores { pairs, logits: logits.concat(), ..DocumentScores::default() }
    }

    #[test]
    fn a_margin_is_above_zero_where_the_rule_takes_the_relation() {
        let adaptive = DecisionRule::Adaptive { top: 0 };
        let row = [0.5, 2.0, -1.0, 0.25];
        let margins = |rule, na: NaClass| {
            let decider = decider(rule, na);
            [0, 1, 2].map(|relation| decider.margin(&row, relation))
        };
        assert_eq!(margins(adaptive, NaClass::First), [1.5, -1.5, -0.25]);
        assert_eq!(margins(DecisionRule::ArgMax, NaClass::First), [1.5, -1.5, -0.25]);
        assert_eq!(margins(DecisionRule::ArgMax, NaClass::Last), [0.25, 1.75, -1.25]);
        assert_eq!(margins(DecisionRule::Threshold, NaClass::Absent), [0.5, 2.0, -1.0]);
        assert_eq!(margins(DecisionRule::Threshold, NaClass::First), [2.0, -1.0, 0.25]);
    }

    #[test]
    fn observations_are_the_asked_pairs_of_labelled_documents() {
        let mut asked = three("asked", &[(0, 1, "P17")]);
        let pair = |head, tail, excluded| Candidate { head, tail, excluded };
        asked.candidates = Some(vec![pair(0, 1, false), pair(1, 2, true)]);
        let hidden = Document { facts: None, ..three("hidden", &[]) };
        let (_temp, store) = store(&[three("one", &[(1, 0, "P19")]), hidden, asked]);
        let rows = [((0, 1), [0.0, 1.0, 2.0, 3.0]), ((1, 0), [0.0, -1.0, 4.0, -3.0])];
        let other = [((1, 2), [0.0, 9.0, 9.0, 9.0]), ((0, 1), [1.0, 3.0, 0.0, 0.0])];
        let scores = [scored(&rows), scored(&rows), scored(&other)];
        let decider = decider(DecisionRule::Adaptive { top: 0 }, NaClass::First);
        let labels =
            |row: usize, pair: Pair, relation: usize| row == 0 && pair == (1, 0) && relation < 2;
        let found = observations(&mut scores.iter().enumerate(), &store, decider, &labels);
        let one =
            |margin, labelled, is_true| Observation { margin, labelled, is_true, weight: 1.0 };
        // True ones first, then the others by label and margin.
        assert_eq!(
            found[0],
            [one(2.0, false, true), one(1.0, false, false), { one(-1.0, true, false) }]
        );
        assert_eq!(
            found[1],
            [one(4.0, true, true), one(2.0, false, false), { one(-1.0, false, false) }]
        );
        assert_eq!(found[2].len(), 3);
        assert!(found[2].iter().all(|one| !one.is_true && !one.labelled));
        assert!(calibration_on(&scores, &store, decider).is_some());
        let nothing = [DocumentScores::default(), scored(&rows), scored(&other[..1])];
        assert_eq!(calibration_on(&nothing, &store, decider), None, "no fact was scored");
    }

    #[test]
    fn facts_get_the_probability_of_their_pair() {
        let calibration = Calibration::plain(3);
        let decider = decider(DecisionRule::Adaptive { top: 0 }, NaClass::First);
        let calibrated = Calibrated { calibration: &calibration, decider };
        let scores = scored(&[((0, 1), [1.0, 3.0, 0.0, 1.0])]);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let all: Vec<_> = calibrated.relations(&scores).collect();
        assert_eq!(
            all,
            [2.0, -1.0, 0.0]
                .map(sigmoid)
                .into_iter()
                .enumerate()
                .map(|(r, p)| { ((0, 1), r, p) })
                .collect::<Vec<_>>()
        );
        let mut relations = RelationSet::default();
        for id in ["P17", "P19", "P27"] {
            relations.insert(id, id);
        }
        let fact = |t_idx, r: &str| Prediction { t_idx, r: r.into(), ..Prediction::default() };
        let mut facts = [fact(1, "P17"), fact(2, "P17"), fact(1, "P99")];
        calibrated.judge(&mut facts, &scores, &relations);
        assert_eq!(facts.map(|fact| fact.confidence), [Some(sigmoid(2.0)), None, None]);
        let ranked = [0.9, 0.1, 0.5].map(|score| ScoredFact {
            score,
            correct: score > 0.5,
            in_train: false,
        });
        let found = calibrated_facts(&ranked, &[scores], calibrated);
        assert_eq!(found[1].score, sigmoid(-1.0) as f32);
        assert!(found[0].correct && !found[1].correct);
    }

    #[test]
    fn a_calibration_must_be_there_and_fit() {
        let mut relations = RelationSet::default();
        relations.insert("P17", "country");
        let path = Path::new("checkpoint");
        let state = |calibration| TrainerState { calibration, ..TrainerState::default() };
        assert_eq!(calibration_of(path, &state(None), &relations).unwrap(), None);
        let one = Some(Calibration::plain(1));
        assert_eq!(calibration_of(path, &state(one.clone()), &relations).unwrap(), one);
        let error = calibration_of(path, &state(Some(Calibration::plain(2))), &relations);
        assert_eq!(error.unwrap_err().exit_code(), 65);
        let error = needed_calibration(None, "--review", path, &state(None), true).unwrap_err();
        assert!(
            error.exit_code() == 64
                && error.to_string().starts_with("--review needs calibrated")
                && error.hint().unwrap().contains("fine-tune again"),
            "{error}"
        );
        needed_calibration(one.as_ref(), "--review", path, &state(one.clone()), true).unwrap();
    }

    /// What old checkpoints say is still read, and numbers come back to the last bit.
    #[test]
    fn a_calibration_is_kept_with_the_state_of_training() {
        let old: TrainerState = serde_json::from_str(r#"{"threshold": 0.25}"#).unwrap();
        assert_eq!(old.calibration, None);
        let mut calibration = Calibration::plain(2);
        calibration.relations[1].slope = 1.0 / 3.0;
        let state = TrainerState { calibration: Some(calibration), ..old };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<TrainerState>(&text).unwrap(), state);
    }
}
