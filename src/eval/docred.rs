//! The official DocRED scorer and the two ports of it that papers use (docs/scores.md, "Official
//! scorer").
//!
//! Deviations are only where the scripts crash: an empty list of predictions scores 0, and so does
//! a division by zero (every right prediction is known from training data). Not for: thresholds
//! (`threshold`) and break-downs (`breakdown`).

use ahash::AHashSet;
use serde::{Deserialize, Serialize};

use super::block::{f1, ratio};
use super::statistics::DocumentCounts;
use super::{FactKey, FactSet, Gold, Prediction};
use crate::{Error, Result};

/// Which script to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scorer {
    /// The script of the DocRED benchmark.
    #[default]
    Official,
    /// ATLOP's port: 1e-5 in the denominator of the Ign precision.
    Atlop,
    /// Re-DocRED's port: as ATLOP's, and the evidence total starts at 1.
    Redocred,
}

impl std::str::FromStr for Scorer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "official" => Ok(Self::Official),
            "atlop" => Ok(Self::Atlop),
            "redocred" => Ok(Self::Redocred),
            other => Err(Error::recipe(format!("--scorer {other} is unknown"))
                .with_hint("one of official, atlop, redocred")),
        }
    }
}

impl Scorer {
    /// What the script adds to the denominator of the Ign precision.
    fn ign_epsilon(self) -> f64 {
        match self {
            Self::Official => 0.0,
            Self::Atlop | Self::Redocred => 1e-5,
        }
    }

    /// What the script of CDR and GDA adds to its denominators (docs/scores.md, "Listed pairs").
    pub(super) fn pair_epsilon(self) -> f64 {
        if self == Self::Atlop { 1e-5 } else { 0.0 }
    }

    /// Where the script starts counting gold evidence.
    fn evidence_start(self) -> usize {
        usize::from(self == Self::Redocred)
    }
}

/// The facts of the training data that Ign F1 ignores.
#[derive(Clone, Copy, Debug, Default)]
pub struct FactSets<'a> {
    /// Facts of the annotated training set: the Ign F1 that papers report.
    pub annotated: Option<&'a FactSet>,
    /// Facts of the distant training set: reported where a model was trained on distant labels.
    pub distant: Option<&'a FactSet>,
}

/// What the script counts on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Distinct predictions, unknown titles included.
    pub submitted: usize,
    /// Distinct gold facts.
    pub gold: usize,
    /// Predictions that are gold facts.
    pub correct: usize,
    /// Predictions on documents that are not in the gold set.
    pub unknown_title: usize,
    /// Right predictions known from the annotated training set.
    pub correct_in_annotated: usize,
    /// Right predictions known from the distant training set.
    pub correct_in_distant: usize,
    /// Evidence sentences of all gold label rows.
    pub evidence_gold: usize,
    /// Predicted evidence sentences, whether or not the fact is right.
    pub evidence_predicted: usize,
    /// Predicted evidence sentences of right facts that are gold evidence.
    pub evidence_correct: usize,
}

/// Scores that ignore facts known from training data. Recall is that of all facts: the script does
/// not recompute it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IgnScores {
    /// (correct − known) / (submitted − known).
    pub precision: f64,
    /// F1 of this precision and the unchanged recall.
    pub f1: f64,
}

/// Everything the official script reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OfficialScores {
    /// Counts.
    pub counts: Counts,
    /// correct / submitted.
    pub precision: f64,
    /// correct / gold.
    pub recall: f64,
    /// F1.
    pub f1: f64,
    /// Ign F1 against the annotated facts; `None` without such facts.
    pub ign_annotated: Option<IgnScores>,
    /// Ign F1 against the distant facts; `None` without such facts.
    pub ign_distant: Option<IgnScores>,
    /// Precision of evidence sentences.
    pub evidence_precision: f64,
    /// Recall of evidence sentences.
    pub evidence_recall: f64,
    /// Evidence F1.
    pub evidence_f1: f64,
}

/// Scores predictions. Among repeated predictions of one fact the first counts, with its evidence.
pub fn score(
    gold: &Gold<'_>,
    predictions: &[Prediction],
    facts: FactSets<'_>,
    scorer: Scorer,
) -> OfficialScores {
    let mut counts = Counts {
        gold: gold.facts().len(),
        evidence_gold: gold.evidence_total() + scorer.evidence_start(),
        ..Counts::default()
    };
    let mut seen = AHashSet::new();
    for prediction in predictions {
        if seen.insert((&prediction.title, prediction.h_idx, prediction.t_idx, &prediction.r)) {
            count(gold, prediction, facts, &mut counts);
        }
    }
    scores(counts, facts, scorer)
}

/// Right, predicted and gold facts of each gold document, in order: the input of a paired bootstrap
/// over documents.
pub(super) fn count_by_document<'f>(
    gold: &Gold<'_>,
    truth: impl IntoIterator<Item = &'f FactKey<'f>>,
    predicted: impl IntoIterator<Item = &'f FactKey<'f>>,
) -> Vec<DocumentCounts> {
    let mut counts = vec![DocumentCounts::default(); gold.documents().len()];
    for fact in truth {
        counts[fact.document].gold += 1;
    }
    for fact in predicted {
        counts[fact.document].predicted += 1;
        counts[fact.document].correct += usize::from(gold.facts().contains_key(fact));
    }
    counts
}

fn count(gold: &Gold<'_>, prediction: &Prediction, facts: FactSets<'_>, counts: &mut Counts) {
    counts.submitted += 1;
    let Some(key) = gold.key(prediction) else {
        counts.unknown_title += 1;
        return;
    };
    let evidence: AHashSet<usize> = prediction.evidence.iter().copied().collect();
    counts.evidence_predicted += evidence.len();
    let Some(gold_evidence) = gold.facts().get(&key) else { return };
    counts.correct += 1;
    counts.evidence_correct +=
        gold_evidence.iter().filter(|sentence| evidence.contains(sentence)).count();
    counts.correct_in_annotated +=
        usize::from(facts.annotated.is_some_and(|set| gold.is_known(&key, set)));
    counts.correct_in_distant +=
        usize::from(facts.distant.is_some_and(|set| gold.is_known(&key, set)));
}

fn scores(counts: Counts, facts: FactSets<'_>, scorer: Scorer) -> OfficialScores {
    let precision = ratio(counts.correct as f64, counts.submitted as f64);
    let recall = ratio(counts.correct as f64, counts.gold as f64);
    let ign = |known: usize| {
        let precision = ratio(
            (counts.correct - known) as f64,
            (counts.submitted - known) as f64 + scorer.ign_epsilon(),
        );
        IgnScores { precision, f1: f1(precision, recall) }
    };
    let evidence_precision =
        ratio(counts.evidence_correct as f64, counts.evidence_predicted as f64);
    let evidence_recall = ratio(counts.evidence_correct as f64, counts.evidence_gold as f64);
    OfficialScores {
        counts,
        precision,
        recall,
        f1: f1(precision, recall),
        ign_annotated: facts.annotated.map(|_| ign(counts.correct_in_annotated)),
        ign_distant: facts.distant.map(|_| ign(counts.correct_in_distant)),
        evidence_precision,
        evidence_recall,
        evidence_f1: f1(evidence_precision, evidence_recall),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{case, close, document, documents, fact, json};
    use super::super::{Breakdown, BreakdownOptions, breakdown, read_predictions};
    use super::*;

    const TOLERANCE: f64 = 1e-9;

    fn predicted(title: &str, h_idx: usize, t_idx: usize) -> Prediction {
        Prediction { title: title.into(), h_idx, t_idx, r: "P1".into(), ..Prediction::default() }
    }

    #[test]
    fn closed_form() {
        let mut one = document("a", &[&[0], &[0], &[1]]);
        one.facts = Some(vec![fact(0, 1, "P1", &[]), fact(0, 2, "P1", &[0, 1])]);
        let documents = [one];
        let gold = Gold::new(&documents).unwrap();
        let mut annotated = FactSet::default();
        annotated.insert("e0", "e1", "P1");
        let predictions = [
            predicted("a", 0, 1),
            predicted("a", 0, 2),
            predicted("a", 0, 2),
            predicted("a", 2, 0),
            predicted("z", 0, 1),
        ];
        let scores = score(
            &gold,
            &predictions,
            FactSets { annotated: Some(&annotated), distant: None },
            Scorer::Official,
        );
        assert_eq!(
            (scores.counts.submitted, scores.counts.unknown_title, scores.counts.correct),
            (4, 1, 2)
        );
        assert_eq!((scores.precision, scores.recall), (0.5, 1.0));
        let ign = scores.ign_annotated.unwrap();
        assert!((ign.precision - 1.0 / 3.0).abs() < 1e-12 && (ign.f1 - 0.5).abs() < 1e-12);
        assert_eq!(scores.ign_distant, None);
        assert_eq!(
            count_by_document(&gold, gold.facts().keys(), &gold.predicted(&predictions)),
            [DocumentCounts { correct: 2, predicted: 3, gold: 2 }]
        );
        let nothing = score(
            &gold,
            &[],
            FactSets { annotated: Some(&annotated), distant: None },
            Scorer::Official,
        );
        assert_eq!(
            (nothing.f1, nothing.evidence_f1, nothing.ign_annotated.unwrap().f1),
            (0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn all_right_and_all_known_scores_zero_where_the_script_crashes() {
        let mut one = document("a", &[&[0], &[0]]);
        one.facts = Some(vec![fact(0, 1, "P1", &[])]);
        let documents = [one];
        let gold = Gold::new(&documents).unwrap();
        let annotated = FactSet::from_documents(&documents);
        let sets = FactSets { annotated: Some(&annotated), distant: None };
        assert_eq!(
            score(&gold, &[predicted("a", 0, 1)], sets, Scorer::Official).ign_annotated,
            Some(IgnScores::default())
        );
    }

    fn same_counts(name: &str, ours: &Counts, theirs: &serde_json::Value) {
        let pairs = [
            ("submitted", ours.submitted),
            ("gold", ours.gold),
            ("correct", ours.correct),
            ("unknown_title", ours.unknown_title),
            ("correct_in_train_annotated", ours.correct_in_annotated),
            ("correct_in_train_distant", ours.correct_in_distant),
            ("evidence_gold", ours.evidence_gold),
            ("evidence_pred", ours.evidence_predicted),
            ("evidence_correct", ours.evidence_correct),
        ];
        for (key, count) in pairs {
            assert_eq!(Some(count as u64), theirs[key].as_u64(), "{name}: {key}");
        }
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn parity_docred() {
        let folder = case("scorer-docred");
        let documents = documents(&folder.join("gold.json"));
        let gold = Gold::new(&documents).unwrap();
        let annotated = FactSet::load(&folder.join("train_annotated.json")).unwrap();
        let distant = FactSet::load(&folder.join("train_distant.json")).unwrap();
        let sizes = &json(&folder.join("case.json"))["fact_set_sizes"];
        assert_eq!(
            (Some(annotated.len() as u64), Some(distant.len() as u64)),
            (sizes["annotated"].as_u64(), sizes["distant"].as_u64())
        );
        let facts = FactSets { annotated: Some(&annotated), distant: Some(&distant) };
        let expected = json(&folder.join("expected.json"));
        for set in expected.as_array().unwrap() {
            let name = set["name"].as_str().unwrap();
            let predictions = read_predictions(&folder.join(format!("pred-{name}.json"))).unwrap();
            let ours = score(&gold, &predictions, facts, Scorer::Official);
            same_counts(name, &ours.counts, &set["counts"]);
            close(name, ours.precision, &set["derived"]["precision"], TOLERANCE);
            if !set["official"].is_null() {
                close(name, ours.f1, &set["official"]["RE_F1"], TOLERANCE);
                close(name, ours.evidence_f1, &set["official"]["Evi_F1"], TOLERANCE);
                close(
                    name,
                    ours.ign_annotated.unwrap().f1,
                    &set["official"]["RE_ignore_annotated_F1"],
                    TOLERANCE,
                );
                close(
                    name,
                    ours.ign_distant.unwrap().f1,
                    &set["official"]["RE_ignore_distant_F1"],
                    TOLERANCE,
                );
            }
            let port = score(&gold, &predictions, facts, Scorer::Atlop);
            close(name, port.f1, &set["atlop"]["re_f1"], TOLERANCE);
            close(name, port.evidence_f1, &set["atlop"]["evi_f1"], TOLERANCE);
            close(
                name,
                port.ign_annotated.unwrap().f1,
                &set["atlop"]["re_f1_ignore_train_annotated"],
                TOLERANCE,
            );
            close(
                name,
                port.ign_distant.unwrap().f1,
                &set["atlop"]["re_f1_ignore_train"],
                TOLERANCE,
            );
        }
        assert_eq!(expected.as_array().unwrap().len(), 24);
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn parity_redocred() {
        let folder = case("scorer-redocred");
        let documents = documents(&folder.join("gold.json"));
        let gold = Gold::new(&documents).unwrap();
        let annotated = FactSet::load(&folder.join("train_revised.json")).unwrap();
        let distant = FactSet::load(&folder.join("train_distant.json")).unwrap();
        let facts = FactSets { annotated: Some(&annotated), distant: Some(&distant) };
        for set in json(&folder.join("expected.json")).as_array().unwrap() {
            let name = set["name"].as_str().unwrap();
            let predictions = read_predictions(&folder.join(format!("pred-{name}.json"))).unwrap();
            let ours = score(&gold, &predictions, facts, Scorer::Redocred);
            let theirs = &set["official_evaluate"];
            close(name, ours.f1, &theirs["re_f1"], TOLERANCE);
            close(name, ours.precision, &theirs["re_p"], TOLERANCE);
            close(name, ours.recall, &theirs["re_r"], TOLERANCE);
            close(name, ours.evidence_f1, &theirs["evi_f1"], TOLERANCE);
            close(
                name,
                ours.ign_annotated.unwrap().f1,
                &theirs["re_f1_ignore_train_annotated"],
                TOLERANCE,
            );
            close(name, ours.ign_distant.unwrap().f1, &theirs["re_f1_ignore_train"], TOLERANCE);
            // The script's own break-down takes a list of one prediction for an empty one; that
            // quirk is not followed.
            if predictions.len() != 1 {
                same_groups(
                    name,
                    &breakdown(&gold, &predictions, &BreakdownOptions::default()),
                    &set["official_evaluate_benchmark"],
                );
            }
        }
    }

    fn same_groups(name: &str, ours: &Breakdown, theirs: &serde_json::Value) {
        close(name, ours.intra.f1, &theirs["re_f1_intra"], TOLERANCE);
        close(name, ours.inter.f1, &theirs["re_f1_inter"], TOLERANCE);
        for (group, suffix) in [(&ours.frequent, "freq"), (&ours.long_tail, "long_tail")] {
            close(name, group.f1, &theirs[format!("re_f1_{suffix}")], TOLERANCE);
            close(name, group.precision, &theirs[format!("re_p_{suffix}")], TOLERANCE);
            close(name, group.recall, &theirs[format!("re_r_{suffix}")], TOLERANCE);
        }
    }
}
