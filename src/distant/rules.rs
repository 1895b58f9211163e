//! What becomes of a distant label, and of a pair without one, by what a teacher says
//! (docs/systems.md, V.3).

use std::sync::Arc;

use ahash::AHashMap;
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClassThresholds, PseudoLabel, RuleThresholds, relabelled};
use crate::text::{TaughtPair, TaughtRelation, TokenizedDocument, TokenizedFact};

/// What becomes of distant labels that a teacher has judged.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum LabelRule {
    /// Labels are what they say.
    AsIs,
    /// Labels are what they say, each with the teacher's probability of it as its weight.
    Weighted,
    /// Labels below the threshold of their relation are dropped.
    Drop,
    /// Labels are dropped and added by the thresholds; what lies between them is rounded.
    Hard,
    /// Labels are kept, dropped and added by the thresholds; what lies between them is a soft
    /// target.
    Mixed,
    /// The probabilities are the targets.
    #[default]
    Soft,
    /// The teacher's predictions replace all labels.
    Predicted,
    /// The teacher's certain predictions replace the labels of their pairs (UGDRE); needs
    /// `distant.passes`.
    Certain,
}

impl LabelRule {
    /// Whether some targets lie between 0 and 1, or weigh less than others.
    pub fn is_soft(self) -> bool {
        matches!(self, Self::Weighted | Self::Mixed | Self::Soft)
    }
}

/// What was decided on a relation of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelAction {
    /// A label that is believed.
    Keep,
    /// A label that is not believed: the relation does not hold.
    Drop,
    /// A label that is not believed and neither trained on.
    Ignore,
    /// A relation without a label that is believed to hold.
    Add,
    /// The probability is the target.
    Soft,
    /// No label, and no reason to add one.
    Negative,
}

impl LabelAction {
    /// All actions, in order.
    pub const ALL: [Self; 6] =
        [Self::Keep, Self::Drop, Self::Ignore, Self::Add, Self::Soft, Self::Negative];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Ignore => "ignore",
            Self::Add => "add",
            Self::Soft => "soft",
            Self::Negative => "negative",
        }
    }
}

/// The target of a relation of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelDecision {
    /// Relation class.
    pub relation: u16,
    /// Whether a distant label says so.
    pub labelled: bool,
    /// What was decided.
    pub action: LabelAction,
    /// The target, from 0 to 1.
    pub target: f32,
    /// Its weight in the loss.
    pub weight: f32,
}

impl LabelDecision {
    /// Why training does not take the relation as a fact, if it does not.
    pub fn left_out(self) -> Option<&'static str> {
        (self.target < 0.5).then(|| self.action.name())
    }
}

/// The decisions on the pairs of a document, by head and tail.
pub type PairDecisions = Vec<((u32, u32), Vec<LabelDecision>)>;

/// The rules of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelRules {
    /// How labels and probabilities are used.
    pub rule: LabelRule,
    /// By relation.
    pub thresholds: Vec<RuleThresholds>,
    /// By relation, for [`LabelRule::Certain`].
    pub uncertainty: Option<ClassThresholds>,
    /// Whether dropped labels are left out of the loss.
    pub ignore_dropped: bool,
    /// Weight of soft targets without a label.
    pub soft_weight: f32,
}

impl LabelRules {
    /// What becomes of the relations of a pair that have a label or that the teacher stored. Any
    /// other is a negative of weight 1. `labels` rise.
    pub fn pair(&self, labels: &[u16], taught: &[TaughtRelation]) -> Vec<LabelDecision> {
        let certain = (self.rule == LabelRule::Certain).then(|| self.certain(labels, taught));
        let unstored = |&label: &u16| {
            let known = taught.iter().any(|one| one.relation == label);
            (!known).then_some(TaughtRelation { relation: label, ..TaughtRelation::default() })
        };
        let mut all: Vec<TaughtRelation> =
            taught.iter().copied().chain(labels.iter().filter_map(unstored)).collect();
        all.sort_by_key(|one| one.relation);
        let decide = |one: TaughtRelation| {
            let labelled = labels.binary_search(&one.relation).is_ok();
            let (action, target, weight) = match &certain {
                Some(holds) => binary(labelled, holds.contains(&usize::from(one.relation))),
                None => self.decide(labelled, one),
            };
            let target = target as f32;
            LabelDecision { relation: one.relation, labelled, action, target, weight }
        };
        all.into_iter().map(decide).collect()
    }

    fn decide(&self, labelled: bool, one: TaughtRelation) -> (LabelAction, f64, f32) {
        let p = one.probability();
        let soft = || (LabelAction::Soft, p, if labelled { 1.0 } else { self.soft_weight });
        match self.rule {
            LabelRule::AsIs => binary(labelled, labelled),
            LabelRule::Weighted if labelled => (LabelAction::Keep, 1.0, p as f32),
            LabelRule::Weighted => (LabelAction::Negative, 0.0, (1.0 - p) as f32),
            LabelRule::Predicted => binary(labelled, one.predicted),
            LabelRule::Soft => soft(),
            LabelRule::Drop | LabelRule::Hard | LabelRule::Mixed | LabelRule::Certain => {
                let thresholds = &self.thresholds[usize::from(one.relation)];
                match labelled {
                    true if p < thresholds.drop && self.ignore_dropped => {
                        (LabelAction::Ignore, 0.0, 0.0)
                    }
                    true if p < thresholds.drop => binary(true, false),
                    _ if self.rule == LabelRule::Drop => binary(labelled, labelled),
                    true if p >= thresholds.keep => binary(true, true),
                    false if p >= thresholds.add => binary(false, true),
                    _ if self.rule == LabelRule::Hard => binary(labelled, p >= 0.5),
                    _ => soft(),
                }
            }
        }
    }

    /// The relations that hold by UGDRE's rule.
    fn certain(&self, labels: &[u16], taught: &[TaughtRelation]) -> Vec<usize> {
        let distant: Vec<usize> = labels.iter().map(|&label| label.into()).collect();
        let predicted = taught.iter().filter(|one| one.predicted);
        let pseudo: Vec<PseudoLabel> = predicted.map(PseudoLabel::of).collect();
        let replaced =
            self.uncertainty.as_ref().and_then(|limits| relabelled(&distant, &pseudo, limits));
        replaced.unwrap_or(distant)
    }

    /// All decisions on a document: its pairs with a label and those of the teacher, by head and
    /// tail.
    pub fn decisions(&self, document: &TokenizedDocument) -> PairDecisions {
        let mut labels: AHashMap<(u32, u32), Vec<u16>> = AHashMap::new();
        for fact in &document.facts {
            labels.entry((fact.head, fact.tail)).or_default().push(fact.relation as u16);
        }
        let taught: AHashMap<(u32, u32), &TaughtPair> =
            (document.taught.iter().flatten()).map(|pair| ((pair.head, pair.tail), pair)).collect();
        let mut pairs: Vec<(u32, u32)> = labels.keys().chain(taught.keys()).copied().collect();
        pairs.sort_unstable();
        pairs.dedup();
        let decide = |pair: (u32, u32)| {
            let mut own = labels.remove(&pair).unwrap_or_default();
            own.sort_unstable();
            own.dedup();
            let stored = taught.get(&pair).map_or(&[][..], |pair| &pair.relations);
            (pair, self.pair(&own, stored))
        };
        pairs.into_iter().map(decide).collect()
    }

    /// The document with the facts that the rules leave: those whose target is at least 1/2. A
    /// document that no teacher has seen stays as it is. Added facts have no evidence.
    pub fn apply(&self, document: Arc<TokenizedDocument>) -> Arc<TokenizedDocument> {
        if document.taught.is_none() || self.rule == LabelRule::AsIs {
            return document;
        }
        let decisions = self.decisions(&document);
        let holds: AHashMap<(u32, u32, u32), bool> = decisions
            .iter()
            .flat_map(|((head, tail), all)| {
                all.iter().map(|one| ((*head, *tail, one.relation.into()), one.target >= 0.5))
            })
            .collect();
        let kept = |fact: &&TokenizedFact| holds[&(fact.head, fact.tail, fact.relation)];
        let mut facts: Vec<TokenizedFact> = document.facts.iter().filter(kept).cloned().collect();
        let added = decisions.iter().flat_map(|(pair, all)| {
            let added = all.iter().filter(|one| !one.labelled && one.target >= 0.5);
            added.map(|one| TokenizedFact {
                head: pair.0,
                tail: pair.1,
                relation: one.relation.into(),
                evidence: Vec::new(),
            })
        });
        facts.extend(added);
        Arc::new(TokenizedDocument { facts, ..Arc::unwrap_or_clone(document) })
    }
}

/// A relation that holds or not, beside whether it has a label.
fn binary(labelled: bool, holds: bool) -> (LabelAction, f64, f32) {
    let action = match (labelled, holds) {
        (true, true) => LabelAction::Keep,
        (true, false) => LabelAction::Drop,
        (false, true) => LabelAction::Add,
        (false, false) => LabelAction::Negative,
    };
    (action, f64::from(u8::from(holds)), 1.0)
}

#[cfg(test)]
mod tests {
    use super::LabelAction::{Add, Drop, Ignore, Keep, Negative, Soft};
    use super::*;

    fn rules(rule: LabelRule) -> LabelRules {
        let thresholds = vec![RuleThresholds { keep: 0.6, drop: 0.2, add: 0.9 }; 3];
        let uncertainty = Some(ClassThresholds(vec![Some(0.5); 3]));
        LabelRules { rule, thresholds, uncertainty, ignore_dropped: false, soft_weight: 0.5 }
    }

    fn taught(relation: u16, p: f64, predicted: bool) -> TaughtRelation {
        let probability = TaughtRelation::units(p);
        TaughtRelation { relation, probability, predicted, deviation: 0 }
    }

    /// Action, target and weight of relation 0.
    fn decided(rules: &LabelRules, labelled: bool, p: f64) -> (LabelAction, f32, f32) {
        let labels: &[u16] = if labelled { &[0] } else { &[] };
        let found = rules.pair(labels, &[taught(0, p, p > 0.55)])[0];
        let round = |number: f32| (number * 1000.0).round() / 1000.0;
        (found.action, round(found.target), round(found.weight))
    }

    #[test]
    fn the_table_of_the_rules() {
        let table = [
            (LabelRule::AsIs, true, 0.1, (Keep, 1.0, 1.0)),
            (LabelRule::AsIs, false, 0.99, (Negative, 0.0, 1.0)),
            (LabelRule::Weighted, true, 0.3, (Keep, 1.0, 0.3)),
            (LabelRule::Weighted, false, 0.3, (Negative, 0.0, 0.7)),
            (LabelRule::Drop, true, 0.1, (Drop, 0.0, 1.0)),
            (LabelRule::Drop, true, 0.3, (Keep, 1.0, 1.0)),
            (LabelRule::Drop, false, 0.95, (Negative, 0.0, 1.0)),
            (LabelRule::Hard, true, 0.1, (Drop, 0.0, 1.0)),
            (LabelRule::Hard, true, 0.55, (Keep, 1.0, 1.0)),
            (LabelRule::Hard, true, 0.45, (Drop, 0.0, 1.0)),
            (LabelRule::Hard, false, 0.55, (Add, 1.0, 1.0)),
            (LabelRule::Hard, false, 0.45, (Negative, 0.0, 1.0)),
            (LabelRule::Mixed, true, 0.7, (Keep, 1.0, 1.0)),
            (LabelRule::Mixed, true, 0.1, (Drop, 0.0, 1.0)),
            (LabelRule::Mixed, true, 0.5, (Soft, 0.5, 1.0)),
            (LabelRule::Mixed, false, 0.95, (Add, 1.0, 1.0)),
            (LabelRule::Mixed, false, 0.5, (Soft, 0.5, 0.5)),
            (LabelRule::Soft, true, 0.1, (Soft, 0.1, 1.0)),
            (LabelRule::Soft, false, 0.95, (Soft, 0.95, 0.5)),
            (LabelRule::Predicted, true, 0.5, (Drop, 0.0, 1.0)),
            (LabelRule::Predicted, false, 0.6, (Add, 1.0, 1.0)),
        ];
        for (rule, labelled, p, expected) in table {
            assert_eq!(decided(&rules(rule), labelled, p), expected, "{rule:?} {labelled} {p}");
        }
        let ignoring = LabelRules { ignore_dropped: true, ..rules(LabelRule::Mixed) };
        assert_eq!(decided(&ignoring, true, 0.1), (Ignore, 0.0, 0.0));
    }

    #[test]
    fn labels_that_the_teacher_stored_nothing_of_are_next_to_zero() {
        let found = rules(LabelRule::Mixed).pair(&[1, 2], &[taught(2, 0.9, true)]);
        let actions: Vec<_> = found.iter().map(|one| (one.relation, one.action)).collect();
        assert_eq!(actions, [(1, Drop), (2, Keep)]);
        assert!(rules(LabelRule::AsIs).pair(&[1], &[]).iter().all(|one| one.action == Keep));
    }

    #[test]
    fn certain_predictions_replace_the_labels_of_their_pair() {
        let rules = rules(LabelRule::Certain);
        let sure = TaughtRelation { deviation: 100, ..taught(1, 0.8, true) };
        let unsure = TaughtRelation { deviation: 1024, ..taught(1, 0.8, true) };
        let actions = |labels: &[u16], taught: &[TaughtRelation]| {
            let found = rules.pair(labels, taught);
            found.iter().map(|one| (one.relation, one.action)).collect::<Vec<_>>()
        };
        assert_eq!(actions(&[0], &[sure]), [(0, Drop), (1, Add)]);
        assert_eq!(actions(&[0], &[unsure]), [(0, Keep), (1, Negative)]);
        assert_eq!(actions(&[0], &[taught(0, 0.1, false)]), [(0, Keep)]);
        assert_eq!(actions(&[], &[sure]), [(1, Add)]);
    }

    #[test]
    fn a_document_has_the_facts_that_the_rules_leave() {
        let fact = |head, tail, relation, evidence: &[u32]| TokenizedFact {
            head,
            tail,
            relation,
            evidence: evidence.to_vec(),
        };
        let pair = |head, tail, relations: &[TaughtRelation]| TaughtPair {
            head,
            tail,
            relations: relations.to_vec(),
            ..TaughtPair::default()
        };
        let document = Arc::new(TokenizedDocument {
            facts: vec![fact(0, 1, 2, &[3]), fact(1, 0, 0, &[]), fact(1, 0, 1, &[])],
            taught: Some(vec![
                pair(0, 1, &[taught(0, 0.95, true), taught(2, 0.7, true)]),
                pair(1, 0, &[taught(0, 0.1, false), taught(1, 0.4, false)]),
            ]),
            ..TokenizedDocument::default()
        });
        let of = |rule| rules(rule).apply(Arc::clone(&document)).facts.clone();
        assert_eq!(of(LabelRule::Mixed), [fact(0, 1, 2, &[3]), fact(0, 1, 0, &[])]);
        assert_eq!(of(LabelRule::Drop), [fact(0, 1, 2, &[3]), fact(1, 0, 1, &[])]);
        assert_eq!(of(LabelRule::AsIs), document.facts);
        let unseen = Arc::new(TokenizedDocument { taught: None, ..(*document).clone() });
        assert_eq!(rules(LabelRule::Predicted).apply(Arc::clone(&unseen)), unseen);
    }
}
