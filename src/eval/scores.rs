//! Everything that is known about one set of predictions, as `scores.json` holds it. Not for: its
//! table (`sections`), computing (`docred`, `breakdown`, `threshold`, `ranker`).

use ahash::AHashSet;
use serde::{Deserialize, Serialize};

use super::breakdown::{Breakdown, BreakdownOptions, breakdown};
use super::confusion::{Confused, confusion};
use super::docred::{FactSets, OfficialScores, Scorer, score};
use super::ranking::ThresholdScores;
use super::{BestPrefix, CurvePoint, Gold, ListedPairs, Prediction, RecallAt, Reliability};

/// How to evaluate.
#[derive(Clone, Debug, Default)]
pub struct EvaluateOptions<'a> {
    /// The facts that Ign F1 ignores.
    pub facts: FactSets<'a>,
    /// The script to follow.
    pub scorer: Scorer,
    /// Groups of the break-downs.
    pub groups: BreakdownOptions,
}

/// All scores of one set of predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scores {
    /// What was scored (`dev`, `test`, a file name).
    pub split: String,
    /// The script that was followed.
    pub scorer: Scorer,
    /// Gold documents.
    pub documents: usize,
    /// What looks wrong about the files, for people.
    pub warnings: Vec<String>,
    /// What the official script reports.
    pub official: OfficialScores,
    /// The corpus's list of pairs, where it has one (CDR, GDA).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<ListedPairs>,
    /// Break-downs.
    pub breakdown: Breakdown,
    /// Which relations are taken for which, most pairs first.
    pub confusion: Vec<Confused>,
    /// The threshold, where one was chosen on these scores.
    pub threshold: Option<BestPrefix>,
    /// What else a file of all scores says about thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranking: Option<ThresholdScores>,
    /// Precision–recall curve, where facts were scored.
    pub curve: Vec<CurvePoint>,
    /// Whether scores are probabilities that hold, where facts were scored with probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Reliability>,
    /// The same of their calibrated probabilities, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<Reliability>,
    /// What the ranker's pruning kept, where there was one.
    pub ranker: Vec<RecallAt>,
}

/// Scores predictions in every way that needs no more than the predictions; the caller adds
/// threshold, curve and ranker.
pub fn evaluate(
    split: &str,
    gold: &Gold<'_>,
    predictions: &[Prediction],
    options: &EvaluateOptions<'_>,
) -> Scores {
    let official = || score(gold, predictions, options.facts, options.scorer);
    let groups = || (breakdown(gold, predictions, &options.groups), confusion(gold, predictions));
    let (official, (breakdown, confusion)) = rayon::join(official, groups);
    Scores {
        split: split.to_owned(),
        scorer: options.scorer,
        documents: gold.documents().len(),
        warnings: warnings(gold, predictions, official.counts.submitted),
        official,
        breakdown,
        confusion,
        ..Scores::default()
    }
}

/// What a reader should know before the numbers: files that do not belong together. `distinct` of
/// the predictions are different facts.
fn warnings(gold: &Gold<'_>, predictions: &[Prediction], distinct: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let titles: AHashSet<&str> =
        predictions.iter().map(|prediction| prediction.title.as_str()).collect();
    let found = titles.iter().filter(|title| gold.row(title).is_some()).count();
    if !titles.is_empty() && 2 * found < titles.len() {
        let documents = gold.documents().len();
        warnings.push(format!(
            "these predictions are for another split or corpus: {found} of {} titles match the \
             {documents} gold documents",
            titles.len()
        ));
    } else if found < titles.len() {
        warnings.push(format!(
            "{} titles of the predictions are not in the gold file; what is predicted on them \
             counts as wrong",
            titles.len() - found
        ));
    }
    let outside = |prediction: &&Prediction| {
        let row = gold.row(&prediction.title);
        row.is_some_and(|row| {
            gold.entity(row, prediction.h_idx).is_none()
                || gold.entity(row, prediction.t_idx).is_none()
        })
    };
    let outside = predictions.iter().filter(outside).count();
    if outside > 0 {
        warnings.push(format!(
            "{outside} predictions name an entity that their document does not \
            have; they count as wrong"
        ));
    }
    let known: AHashSet<&str> = gold.facts().keys().map(|fact| fact.relation).collect();
    let relations: AHashSet<&str> =
        predictions.iter().map(|prediction| prediction.r.as_str()).collect();
    if let Some(example) = relations.iter().min().filter(|_| known.is_disjoint(&relations)) {
        let theirs = known
            .iter()
            .min()
            .map_or_else(String::new, |theirs| format!(", gold ones look like `{theirs}`"));
        warnings.push(format!(
            "no predicted relation occurs in gold: predicted ones look like `{example}`{theirs}"
        ));
    }
    let unlabelled = gold.documents().iter().filter(|document| document.facts.is_none()).count();
    if unlabelled > 0 {
        warnings.push(format!(
            "{unlabelled} gold documents carry no labels; every prediction on them counts as wrong"
        ));
    }
    if distinct < predictions.len() {
        warnings.push(format!(
            "{} predictions repeat an earlier one; each fact counts once",
            predictions.len() - distinct
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::ranker::{RankedDocument, recall_at};
    use super::super::testing::{document, fact};
    use super::*;
    use crate::sampling::KeptPairs;

    #[test]
    fn table_and_json() {
        let mut one = document("a", &[&[0], &[0], &[1]]);
        one.facts = Some(vec![fact(0, 1, "P17", &[0]), fact(0, 2, "P9", &[])]);
        let documents = [one];
        let gold = Gold::new(&documents).unwrap();
        let predict = |title: &str, t_idx| Prediction {
            title: title.into(),
            t_idx,
            r: "P17".into(),
            ..Prediction::default()
        };
        let mut scores = evaluate(
            "dev",
            &gold,
            &[predict("a", 1), predict("z", 1)],
            &EvaluateOptions::default(),
        );
        scores.ranker = recall_at([RankedDocument::default()], &[KeptPairs::times(2)]);
        let table = scores.to_string();
        assert!(
            table.starts_with(
                "dev: 1 documents, 2 gold facts, 2 predicted\n  1 titles of the predictions are not"
            ),
            "{table}"
        );
        assert!(
            table.contains(
                "all facts                              50.00   50.00   50.00         2         2\n"
            ),
            "{table}"
        );
        assert!(
            table.contains(
                "intra-sentence                        100.00  100.00  100.00         1         1\n"
            ),
            "{table}"
        );
        assert!(table.contains("ranker recall at 2N"), "{table}");
        let json = serde_json::to_string(&scores).unwrap();
        assert_eq!(serde_json::from_str::<Scores>(&json).unwrap(), scores);
    }

    #[test]
    fn files_that_do_not_belong_together_are_explained() {
        let mut one = document("a", &[&[0], &[0]]);
        one.facts = Some(vec![fact(0, 1, "P17", &[])]);
        let documents = [one, document("b", &[&[0]])];
        let gold = Gold::new(&documents).unwrap();
        let predict = |title: &str, t_idx, r: &str| Prediction {
            title: title.into(),
            t_idx,
            r: r.into(),
            ..Prediction::default()
        };
        let told = |predictions: &[Prediction]| {
            evaluate("dev", &gold, predictions, &EvaluateOptions::default()).warnings.join("\n")
        };
        let other = told(&[predict("x", 1, "P17"), predict("y", 1, "P17")]);
        assert!(
            other.contains("another split or corpus: 0 of 2 titles match the 2 gold documents"),
            "{other}"
        );
        let names = told(&[predict("a", 7, "country"), predict("a", 7, "country")]);
        assert!(
            names.contains("2 predictions name an entity")
                && names.contains("like `country`, gold ones look like `P17`"),
            "{names}"
        );
        assert!(
            names.contains("1 predictions repeat")
                && names.contains("1 gold documents carry no labels"),
            "{names}"
        );
    }
}
