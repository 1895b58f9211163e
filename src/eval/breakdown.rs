//! Scores by the kind of fact: distance, mentions, evidence, inference, relation (docs/scores.md,
//! "Intra and inter" to "Infer F1").
//!
//! Predictions on unknown documents or entities belong to no group and are left out here; the
//! official scores count them as wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::infer::{InferScores, infer_scores};
use super::{FactKey, FactKeySet, Gold, Prediction, ScoreBlock};
use crate::{Error, Result};

/// Where the groups begin and end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakdownOptions {
    /// Half-open ranges of the distance in sentences; no end means no limit.
    pub distances: Vec<(usize, Option<usize>)>,
    /// Half-open ranges of the mean number of mentions.
    pub mentions: Vec<(f64, Option<f64>)>,
    /// Facts with at least this many evidence sentences share one group.
    pub most_evidence: usize,
    /// Relations that count as frequent; all others are the long tail.
    pub frequent: Vec<String>,
}

impl Default for BreakdownOptions {
    /// The groups of GLRE's figures and the ten frequent relations of the Re-DocRED script.
    fn default() -> Self {
        let frequent =
            ["P17", "P131", "P27", "P150", "P175", "P577", "P463", "P527", "P495", "P361"];
        Self {
            distances: vec![
                (0, Some(1)),
                (1, Some(3)),
                (3, None),
                (0, Some(3)),
                (1, None),
                (6, None),
            ],
            mentions: vec![(1.0, Some(2.0)), (2.0, Some(4.0)), (4.0, None)],
            most_evidence: 8,
            frequent: frequent.map(str::to_owned).to_vec(),
        }
    }
}

impl BreakdownOptions {
    /// Bins of the distance in sentences that begin at these numbers; the last one is open.
    ///
    /// # Errors
    /// [`Error::Recipe`] where the numbers do not rise.
    pub fn distance_bins(starts: &[usize]) -> Result<Vec<(usize, Option<usize>)>> {
        bins("--distance-bins", "0,1,3", starts)
    }

    /// Bins of the mean number of mentions that begin at these numbers; the last one is open.
    ///
    /// # Errors
    /// [`Error::Recipe`] where the numbers do not rise.
    pub fn mention_bins(starts: &[f64]) -> Result<Vec<(f64, Option<f64>)>> {
        bins("--mention-bins", "1,2,4", starts)
    }
}

fn bins<T: PartialOrd + Copy + std::fmt::Display>(
    flag: &str,
    usual: &str,
    starts: &[T],
) -> Result<Vec<(T, Option<T>)>> {
    let rise = starts.windows(2).all(|two| two[0] < two[1]);
    // NaN is not equal to itself.
    #[allow(clippy::eq_op, reason = "a number that is not equal to itself is NaN")]
    let numbers = starts.iter().all(|start| start == start);
    if !rise || !numbers || starts.is_empty() {
        let given: Vec<String> = starts.iter().map(T::to_string).collect();
        return Err(Error::recipe(format!("{flag} {}: the bins must rise", given.join(",")))
            .with_hint(format!("give the number at which each bin begins, such as {usual}")));
    }
    let ends = starts[1..].iter().copied().map(Some).chain([None]);
    Ok(starts.iter().copied().zip(ends).collect())
}

/// A block with its name: a range such as `[1,3)`, or the identifier of a relation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedBlock {
    /// The group.
    pub name: String,
    /// Its scores.
    pub block: ScoreBlock,
}

/// How many gold facts with a given number of evidence sentences were found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecall {
    /// Number of distinct evidence sentences; the last group (`≥8`) is open.
    pub evidence: String,
    /// Gold facts of the group.
    pub gold: usize,
    /// Those found.
    pub found: usize,
    /// `found / gold`; `None` for an empty group.
    pub recall: Option<f64>,
}

/// All break-downs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Breakdown {
    /// All facts of known pairs.
    pub overall: ScoreBlock,
    /// Facts whose head and tail share a sentence.
    pub intra: ScoreBlock,
    /// The others.
    pub inter: ScoreBlock,
    /// By smallest distance in sentences.
    pub distance: Vec<NamedBlock>,
    /// By mean number of mentions of head and tail.
    pub mentions: Vec<NamedBlock>,
    /// Recall by number of evidence sentences.
    pub evidence: Vec<EvidenceRecall>,
    /// Facts in inference triangles.
    pub infer: InferScores,
    /// Facts of frequent relations.
    pub frequent: ScoreBlock,
    /// Facts of all other relations.
    pub long_tail: ScoreBlock,
    /// By relation, most gold facts first, then by identifier.
    pub relations: Vec<NamedBlock>,
}

/// Computes all break-downs.
pub fn breakdown(
    gold: &Gold<'_>,
    predictions: &[Prediction],
    options: &BreakdownOptions,
) -> Breakdown {
    let predicted: FactKeySet<'_> = gold
        .predicted(predictions)
        .into_iter()
        .filter(|fact| gold.distance(fact).is_some())
        .collect();
    let truth = gold.keys();
    let sets = Sets::new(gold, &predicted, &truth);
    let is_frequent =
        |fact: &ComparedFact<'_>| options.frequent.iter().any(|id| id == fact.key.relation);
    Breakdown {
        overall: sets.block(|_| true),
        intra: sets.block(|fact| fact.distance == Some(0)),
        inter: sets.block(|fact| fact.distance != Some(0)),
        distance: options
            .distances
            .iter()
            .map(|range| sets.within(*range, |fact| fact.distance))
            .collect(),
        mentions: options
            .mentions
            .iter()
            .map(|range| sets.within(*range, |fact| fact.mentions))
            .collect(),
        evidence: evidence_recall(gold, &predicted, options.most_evidence),
        infer: infer_scores(&predicted, &truth),
        frequent: sets.block(is_frequent),
        long_tail: sets.block(|fact| !is_frequent(fact)),
        relations: sets.by_relation(),
    }
}

/// A fact that is predicted, gold or both, with what groups go by: looked up once, asked by every
/// group.
struct ComparedFact<'a> {
    key: FactKey<'a>,
    distance: Option<usize>,
    mentions: Option<f64>,
    predicted: bool,
    gold: bool,
}

struct Sets<'a>(Vec<ComparedFact<'a>>);

impl<'a> Sets<'a> {
    fn new(gold: &Gold<'_>, predicted: &FactKeySet<'a>, truth: &FactKeySet<'a>) -> Self {
        let item = |key: &FactKey<'a>| ComparedFact {
            key: *key,
            distance: gold.distance(key),
            mentions: gold.mention_number(key),
            predicted: predicted.contains(key),
            gold: truth.contains(key),
        };
        Self(predicted.union(truth).map(item).collect())
    }

    fn block(&self, belongs: impl Fn(&ComparedFact<'_>) -> bool) -> ScoreBlock {
        let (mut predicted, mut gold, mut correct) = (0, 0, 0);
        for fact in self.0.iter().filter(|fact| belongs(fact)) {
            predicted += usize::from(fact.predicted);
            gold += usize::from(fact.gold);
            correct += usize::from(fact.predicted && fact.gold);
        }
        ScoreBlock::new(predicted, gold, correct)
    }

    /// The facts whose `value` lies in a half-open range.
    fn within<T: PartialOrd + Copy + std::fmt::Display>(
        &self,
        (low, high): (T, Option<T>),
        value: impl Fn(&ComparedFact<'_>) -> Option<T>,
    ) -> NamedBlock {
        NamedBlock {
            name: range_name((low, high)),
            block: self.block(|fact| value(fact).is_some_and(|value| inside((low, high), value))),
        }
    }

    fn by_relation(&self) -> Vec<NamedBlock> {
        let mut counts: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
        for fact in &self.0 {
            let count = counts.entry(fact.key.relation).or_default();
            count.0 += usize::from(fact.predicted);
            count.1 += usize::from(fact.gold);
            count.2 += usize::from(fact.predicted && fact.gold);
        }
        let block = |(name, (predicted, gold, correct)): (&str, _)| NamedBlock {
            name: name.into(),
            block: ScoreBlock::new(predicted, gold, correct),
        };
        let mut blocks: Vec<_> = counts.into_iter().map(block).collect();
        blocks.sort_by_key(|named| std::cmp::Reverse(named.block.gold));
        blocks
    }
}

/// A half-open range as text.
pub(super) fn range_name<T: std::fmt::Display>((low, high): (T, Option<T>)) -> String {
    high.map_or_else(|| format!("[{low},∞)"), |high| format!("[{low},{high})"))
}

/// Whether a value lies in a half-open range.
pub(super) fn inside<T: PartialOrd + Copy>((low, high): (T, Option<T>), value: T) -> bool {
    value >= low && high.is_none_or(|high| value < high)
}

fn evidence_recall(
    gold: &Gold<'_>,
    predicted: &FactKeySet<'_>,
    most: usize,
) -> Vec<EvidenceRecall> {
    let mut groups = vec![(0, 0); most + 1];
    for (fact, evidence) in gold.facts() {
        let group = &mut groups[evidence.len().min(most)];
        group.0 += 1;
        group.1 += usize::from(predicted.contains(fact));
    }
    let row = |(size, (gold, found)): (usize, (usize, usize))| EvidenceRecall {
        evidence: if size == most { format!("≥{size}") } else { size.to_string() },
        gold,
        found,
        recall: (gold > 0).then(|| found as f64 / gold as f64),
    };
    groups.into_iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::read_predictions;
    use super::super::testing::{case, close, document, documents, fact, json};
    use super::*;

    #[test]
    fn unknown_entities_are_left_out() {
        let mut one = document("a", &[&[0], &[2]]);
        one.facts = Some(vec![fact(0, 1, "P17", &[0, 2])]);
        let documents = [one];
        let gold = Gold::new(&documents).unwrap();
        let predict = |t_idx| Prediction {
            title: "a".into(),
            h_idx: 0,
            t_idx,
            r: "P17".into(),
            ..Prediction::default()
        };
        let result = breakdown(&gold, &[predict(1), predict(9)], &BreakdownOptions::default());
        assert_eq!(
            (result.overall, result.inter),
            (ScoreBlock::new(1, 1, 1), ScoreBlock::new(1, 1, 1))
        );
        assert_eq!(
            result.distance[1],
            NamedBlock { name: "[1,3)".into(), block: ScoreBlock::new(1, 1, 1) }
        );
        assert_eq!(result.evidence[2].recall, Some(1.0));
        assert_eq!(
            result.evidence[8],
            EvidenceRecall { evidence: "≥8".into(), ..EvidenceRecall::default() }
        );
        assert_eq!(
            result.relations,
            [NamedBlock { name: "P17".into(), block: ScoreBlock::new(1, 1, 1) }]
        );
    }

    fn same(place: &str, ours: &ScoreBlock, theirs: &Value) {
        let correct = if theirs["correct"].is_null() { "correct_pred" } else { "correct" };
        let found = if theirs["correct"].is_null() { "correct_gold" } else { "correct" };
        for (key, count) in [
            ("pred", ours.predicted),
            ("gold", ours.gold),
            (correct, ours.correct),
            (found, ours.found),
        ] {
            assert_eq!(Some(count as u64), theirs[key].as_u64(), "{place}: {key}");
        }
        close(place, ours.precision, &theirs["precision"], 1e-9);
        close(place, ours.recall, &theirs["recall"], 1e-9);
        close(place, ours.f1, &theirs["f1"], 1e-9);
    }

    fn same_named(place: &str, ours: &[NamedBlock], theirs: &Value) {
        assert_eq!(ours.len(), theirs.as_object().unwrap().len(), "{place}");
        for named in ours {
            let key = if named.name == "[6,∞)" {
                ">5".to_owned()
            } else {
                named.name.replace('∞', "inf")
            };
            same(&format!("{place} {key}"), &named.block, &theirs[key.as_str()]);
        }
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn parity() {
        let folder = case("scorer-breakdown");
        let documents = documents(&folder.join("gold.json"));
        let gold = Gold::new(&documents).unwrap();
        let expected = json(&folder.join("expected.json"));
        for set in expected.as_array().unwrap() {
            let name = set["name"].as_str().unwrap();
            let predictions = read_predictions(&folder.join(format!("pred-{name}.json"))).unwrap();
            let (ours, theirs) =
                (breakdown(&gold, &predictions, &BreakdownOptions::default()), &set["expected"]);
            same(name, &ours.overall, &theirs["overall"]);
            same(name, &ours.intra, &theirs["intra"]);
            same(name, &ours.inter, &theirs["inter"]);
            same_named(name, &ours.distance, &theirs["entity_distance"]);
            same_named(name, &ours.mentions, &theirs["mention_number"]);
            for row in &ours.evidence {
                let theirs =
                    &theirs["recall_by_evidence_count"][row.evidence.replace('≥', ">=").as_str()];
                let place = format!("{name}: {} evidence sentences", row.evidence);
                assert_eq!(
                    (Some(row.gold as u64), Some(row.found as u64)),
                    (theirs["gold"].as_u64(), theirs["hit"].as_u64()),
                    "{place}"
                );
                assert_eq!(row.recall.is_none(), theirs["recall"].is_null(), "{place}");
            }
            let infer = &theirs["infer"];
            same(name, &ours.infer.members_strict, &infer["members-strict"]);
            same(name, &ours.infer.members_loose, &infer["members-loose"]);
            same(name, &ours.infer.conclusion, &infer["conclusion"]);
            same(name, &ours.infer.gold_pairs, &infer["goldpairs"]);
        }
        assert_eq!(expected.as_array().unwrap().len(), 14);
    }
}
