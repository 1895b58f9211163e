//! The batches of fine-tuning, for any system: documents in a shuffled order, their pairs chosen
//! anew at each visit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::AHashMap;
use half::f16;

use super::positive_unlabelled::{RiskTotals, labelled_priors};
use super::{
    AttentionTargets, Classes, Example, Extractor, Layout, Pair, PairTarget, RelationBatch,
    RelationLoss, visit,
};
use crate::Result;
use crate::base::say;
use crate::distant::{LabelRule, LabelRules};
use crate::sampling::{BatchOrder, asked_pairs};
use crate::shards::DocumentStore;
use crate::text::{TaughtPair, TokenizedDocument, split_by_tokens};
use crate::train::{BatchSource, Share, StepBatches};

/// Prepares fine-tuning batches.
pub struct ExtractionSource<'a> {
    /// Human-annotated documents.
    pub store: &'a DocumentStore,
    /// Rows of the store with at least one label.
    pub rows: Vec<usize>,
    /// Order of the rows.
    pub order: BatchOrder,
    layout: Arc<dyn Layout>,
    classes: Classes,
    loss: RelationLoss,
    budget: usize,
    seed: u64,
    /// What becomes of the labels of documents that a teacher has judged.
    rules: Option<LabelRules>,
    /// Labelled priors of the relations, where the loss needs them.
    priors: Option<Arc<Vec<f64>>>,
    warned: AtomicBool,
}

impl<'a> ExtractionSource<'a> {
    /// A source for `extractor` over the labelled rows of a store, and those that a teacher has
    /// judged if `rules` say what becomes of their labels; `budget` bounds the cost of a
    /// micro-batch.
    ///
    /// # Errors
    /// A batch of no documents.
    pub fn new(
        extractor: &dyn Extractor,
        store: &'a DocumentStore,
        batch: usize,
        budget: usize,
        seed: u64,
        rules: Option<LabelRules>,
    ) -> Result<Self> {
        let rules = rules.filter(|rules| rules.rule != LabelRule::AsIs);
        let get = |row: usize| {
            let document = store.get(row);
            rules.iter().fold(document, |document, rules| rules.apply(document))
        };
        let learnt = |&row: &usize| {
            let document = store.get(row);
            !document.facts.is_empty() || rules.is_some() && document.taught.is_some()
        };
        let rows: Vec<usize> = (0..store.len()).filter(learnt).collect();
        let order = BatchOrder::new(rows.len(), seed, batch)?;
        let (layout, classes, loss) = (extractor.layout(), extractor.classes(), extractor.loss());
        layout.observe(&mut rows.iter().map(|&row| get(row)));
        let priors = match loss {
            RelationLoss::PositiveUnlabelled(rule) => {
                let all = (0..store.len()).map(get);
                let name = |relation: usize| {
                    let known = store.relations().get(relation);
                    known.map_or_else(|| relation.to_string(), |relation| relation.id.clone())
                };
                Some(Arc::new(labelled_priors(&rule, all, classes.relations, name)?))
            }
            RelationLoss::Bce | RelationLoss::AdaptiveThreshold { .. } => None,
        };
        let warned = AtomicBool::new(false);
        Ok(Self { store, rows, order, layout, classes, loss, budget, seed, rules, priors, warned })
    }

    /// A document with the facts that are trained on.
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        let document = self.store.get(row);
        self.rules.iter().fold(document, |document, rules| rules.apply(document))
    }

    /// What a teacher attends to in the pairs of examples; `None` where no tokens are stored. The
    /// attention of a pair that it did not store counts as one share that any student has.
    fn attention(&self, examples: &[Example]) -> Option<AttentionTargets> {
        let taught = self.store.manifest().taught.as_ref()?;
        (taught.tokens > 0).then(|| examples.iter().flat_map(stored_attention).collect())
    }

    /// A teacher's logits of the pairs of examples; `None` where they are not stored.
    fn teacher_logits(&self, examples: &[Example]) -> Option<Vec<f32>> {
        let taught = self.store.manifest().taught.as_ref()?;
        taught.logits.then(|| examples.iter().flat_map(stored_logits).collect())
    }

    /// What the loss needs of the global batch of these rows, if it needs anything.
    fn totals(&self, rows: &[usize], epoch: u64) -> Result<Option<Arc<RiskTotals>>> {
        let Some(priors) = &self.priors else { return Ok(None) };
        let mut totals = RiskTotals::new(Arc::clone(priors));
        for &row in rows {
            let document = self.document(row);
            let pairs = self.layout.training_pairs(&document, self.seed, epoch, row as u64)?;
            totals.add(&document, &pairs);
        }
        Ok(Some(Arc::new(totals)))
    }

    /// Whether the loss decides something by a global batch that one micro-batch does not hold.
    fn decides_in_parts(&self, share: Share, parts: usize) -> bool {
        let divided = share.world > 1 || parts > 1;
        matches!(self.loss, RelationLoss::PositiveUnlabelled(rule) if divided && rule.can_flip())
    }

    /// Warns of that once.
    fn warn_of_parts(&self, share: Share, parts: usize) {
        if share.rank > 0 || !self.decides_in_parts(share, parts) {
            return;
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            say(format!(
                "warning: a batch is divided into {} parts, and each decides on its own whether \
                 the negative risk of a relation is too small; a smaller `batch`, a larger \
                 `tokens_per_micro_batch` or fewer ranks keep a batch together",
                share.world * parts.max(1)
            ));
        }
    }
}

/// The stored attention of an example's pairs.
fn stored_attention(example: &Example) -> Vec<PairTarget> {
    let stored: AHashMap<Pair, &TaughtPair> = (example.document.taught.iter().flatten())
        .map(|pair| ((pair.head, pair.tail), pair))
        .collect();
    let target = |pair: &Pair| {
        let Some(stored) = stored.get(pair).filter(|pair| !pair.tokens.is_empty()) else {
            return PairTarget { rest: 1.0, ..PairTarget::default() };
        };
        let share = |&units: &u16| f32::from(units) / f32::from(u16::MAX);
        let weights: Vec<f32> = stored.weights.iter().map(share).collect();
        let rest = (1.0 - weights.iter().sum::<f32>()).max(0.0);
        PairTarget { tokens: stored.tokens.clone(), weights, rest }
    };
    example.pairs.iter().map(target).collect()
}

/// The stored logits of an example's pairs, row by row.
fn stored_logits(example: &Example) -> Vec<f32> {
    let document = &example.document;
    let asked = asked_pairs(document);
    let bits = document.teacher_logits.as_deref().unwrap_or_default();
    let classes = bits.len() / asked.len().max(1);
    let places: AHashMap<Pair, usize> = asked.into_iter().zip(0..).collect();
    let row = |pair: &Pair| places.get(pair).map(|place| place * classes..(place + 1) * classes);
    let rows = example.pairs.iter().filter_map(row).filter_map(|row| bits.get(row));
    rows.flatten().map(|&bits| f16::from_bits(bits).to_f32()).collect()
}

impl BatchSource for ExtractionSource<'_> {
    type Batch = RelationBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<RelationBatch>> {
        let rows: Vec<usize> =
            self.order.items(step).into_iter().map(|item| self.rows[item.row]).collect();
        let epoch = self.order.epoch(step);
        let mine = rows.iter().enumerate().filter(|(index, _)| share.holds(*index));
        let visits = mine.map(|(index, &row)| {
            let document = self.document(row);
            let pairs = self.layout.training_pairs(&document, self.seed, epoch, row as u64)?;
            Ok(Example { document, pairs, visit: visit(step, index), train: true })
        });
        let examples = visits.collect::<Result<Vec<_>>>()?;
        let costs: Vec<usize> = examples
            .iter()
            .map(|example| self.layout.cost(&example.document, example.pairs.len()))
            .collect();
        let (parts, totals) = (split_by_tokens(&costs, self.budget), self.totals(&rows, epoch)?);
        self.warn_of_parts(share, parts.len());
        let micro = parts
            .into_iter()
            .map(|range| {
                let examples = &examples[range];
                let classes = self.classes;
                let mut batch = RelationBatch::new(&*self.layout, examples, classes, self.loss)?;
                if let Some(rules) = self.rules.as_ref().filter(|rules| rules.rule.is_soft()) {
                    batch = batch.with_soft_targets(rules, examples, classes)?;
                }
                batch.attention = self.attention(examples);
                if let Some(logits) = self.teacher_logits(examples) {
                    batch.with_teacher_logits(logits)?;
                }
                Ok(match &totals {
                    Some(totals) => batch.with_risk(Arc::clone(totals)),
                    None => batch,
                })
            })
            .collect::<Result<_>>()?;
        Ok(StepBatches { micro, rows })
    }

    fn title(&self, row: usize) -> String {
        self.store.title(row).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::testing::{document, prepared_with};
    use crate::shards::{StoreOptions, WriteOptions};
    use crate::systems::atlop::{Atlop, AtlopSettings};
    use crate::systems::reading::testing::{EVALUATION, foundation};
    use crate::systems::{Profile, RiskKind, RiskRule};
    use crate::train::MicroBatch;

    /// The loss for unlabelled pairs over all micro-batches of all ranks, with complete labels, by
    /// which no class is flipped.
    #[test]
    fn the_means_of_a_risk_are_those_of_the_global_batch() {
        let temp = tempfile::tempdir().unwrap();
        let documents: Vec<_> = (0..6)
            .map(|number| {
                let facts: &[(usize, usize, &str)] = if number % 2 == 0 {
                    &[(0, 1, "P17")]
                } else {
                    &[(1, 0, "P19"), (2, 1, "P17")]
                };
                let title = format!("document {number}");
                document(&title, &[&["Paris"], &["France"], &["Ada"]], facts)
            })
            .collect();
        let options = WriteOptions { rows_per_shard: 10, row_group_rows: 4 };
        let (folder, _) = prepared_with(temp.path(), "shards", &documents, options);
        let store = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
        let settings = AtlopSettings {
            emb_size: 12,
            block_size: 4,
            prior_factor: 1.0,
            ..AtlopSettings::positive_unlabelled(Profile::Fixed)
        };
        let system = Atlop::new(foundation(64), settings).unwrap();
        let RelationLoss::PositiveUnlabelled(rule) = system.loss() else {
            panic!("{:?}", system.loss())
        };
        assert_eq!(rule.kind, RiskKind::SPu);
        // Nothing is decided with complete labels, however the batch is divided.
        let source = ExtractionSource::new(&system, &store, 4, 1, 5, None).unwrap();
        let (alone, two) = (Share { rank: 0, world: 1 }, Share { rank: 0, world: 2 });
        assert!(!source.decides_in_parts(two, 3));
        let flips = RelationLoss::PositiveUnlabelled(RiskRule { prior_factor: 3.0, ..rule });
        let source = ExtractionSource { loss: flips, ..source };
        assert!(source.decides_in_parts(two, 1) && source.decides_in_parts(alone, 2));
        assert!(!source.decides_in_parts(alone, 1));
        let loss = |budget: usize, world: usize| {
            let source = ExtractionSource::new(&system, &store, 4, budget, 5, None).unwrap();
            let (mut sum, mut count, mut parts) = (0.0, 0.0, 0);
            for rank in 0..world {
                for batch in source.prepare(0, Share { rank, world }).unwrap().micro {
                    let sums = system.losses(&batch, EVALUATION).unwrap();
                    sum += sums[0].double_value(&[]);
                    count += batch.counts()[0];
                    parts += 1;
                }
            }
            (sum / count, parts)
        };
        let (whole, one) = loss(100_000, 1);
        assert_eq!(one, 1);
        for (budget, world) in [(1, 1), (100_000, 2), (1, 3)] {
            let (divided, parts) = loss(budget, world);
            assert!(parts > 1 && (divided - whole).abs() < 1e-5, "{divided} {whole}");
        }
    }
}
