//! What the rules of a recipe make of the labels of taught documents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::Result;
use crate::distant::{DistantSettings, LabelAction, LabelRule, LabelRules};
use crate::shards::DocumentStore;
use crate::systems::dsdocre::Documents;
use crate::text::TokenizedDocument;

/// The rules for documents of a store; `None` where no teacher has judged them, or labels are to
/// stay as they are.
///
/// # Errors
/// A rule that needs what the teacher did not store.
pub fn rules_of(store: &DocumentStore, settings: &DistantSettings) -> Result<Option<LabelRules>> {
    let ruled = settings.rule != LabelRule::AsIs;
    let Some(taught) = store.manifest().taught.as_ref().filter(|_| ruled) else { return Ok(None) };
    settings.rules(&taught.thresholds, taught.uncertainty.as_ref()).map(Some)
}

/// Distant documents with the labels that rules leave them.
pub struct RuledDocuments<'a> {
    /// The documents as they are.
    pub store: &'a DocumentStore,
    rules: Option<LabelRules>,
}

impl<'a> RuledDocuments<'a> {
    /// The documents of a store; without rules, labels stay as they are.
    pub fn new(store: &'a DocumentStore, rules: Option<LabelRules>) -> Self {
        Self { store, rules }
    }
}

impl Documents for RuledDocuments<'_> {
    fn count(&self) -> usize {
        self.store.len()
    }
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        let document = self.store.get(row);
        self.rules.iter().fold(document, |document, rules| rules.apply(document))
    }
}

/// What became of the labels of a store, and of what the teacher says beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCounts {
    rule: LabelRule,
    labels: usize,
    actions: BTreeMap<LabelAction, usize>,
}

impl RuleCounts {
    /// Counts over all documents.
    pub fn of(store: &DocumentStore, rules: &LabelRules) -> Self {
        let (mut labels, mut actions) = (0, BTreeMap::new());
        for row in 0..store.len() {
            let document = store.get(row);
            labels += document.facts.len();
            for decision in rules.decisions(&document).iter().flat_map(|(_, all)| all) {
                *actions.entry(decision.action).or_default() += 1;
            }
        }
        Self { rule: rules.rule, labels, actions }
    }
}

impl fmt::Display for RuleCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self.rule).unwrap_or_default();
        let name = name.as_str().unwrap_or_default().to_owned();
        write!(f, "{} distant labels by rule \"{name}\":", self.labels)?;
        let counted = LabelAction::ALL.into_iter().filter_map(|action| {
            let count = self.actions.get(&action).copied().filter(|&count| count > 0)?;
            Some(format!("{} {count}", action.name()))
        });
        write!(f, " {}", counted.collect::<Vec<_>>().join(", "))
    }
}
