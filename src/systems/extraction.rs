//! The batches of fine-tuning, for any system: documents in a shuffled order, their pairs chosen
//! anew at each visit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::AHashMap;
use half::f16;

use super::positive_unlabelled::{RiskTotals, labelled_priors};
use super::{
    AttentionTargets, Classes, Example, Extractor, Layout, Pair, PairTarget, RelationBatch,
    RelationLoss, TrainingDocuments, TrainingItem, TrainingSource, visit,
};
use crate::Result;
use crate::base::say;
use crate::distant::PairDecisions;
use crate::sampling::asked_pairs;
use crate::text::{TaughtPair, TokenizedDocument, split_by_tokens};
use crate::train::{BatchSource, Share, StepBatches};

/// Prepares fine-tuning batches.
pub struct ExtractionSource<'a> {
    /// The documents that are trained on.
    pub documents: TrainingDocuments<'a>,
    layout: Arc<dyn Layout>,
    classes: Classes,
    loss: RelationLoss,
    budget: usize,
    seed: u64,
    /// Labelled priors of the relations, where the loss needs them.
    priors: Option<Arc<Vec<f64>>>,
    warned: AtomicBool,
}

impl<'a> ExtractionSource<'a> {
    /// A source for `extractor` over the labelled documents of `sources`; `budget` bounds the cost
    /// of a micro-batch.
    ///
    /// # Errors
    /// As [`TrainingDocuments::new`]; a loss that does not fit the labels.
    pub fn new(
        extractor: &dyn Extractor,
        sources: &[TrainingSource<'a>],
        batch: usize,
        budget: usize,
        seed: u64,
    ) -> Result<Self> {
        let documents = TrainingDocuments::new(sources, seed, batch)?;
        let (layout, classes, loss) = (extractor.layout(), extractor.classes(), extractor.loss());
        layout.observe(&mut documents.labelled());
        let priors = match loss {
            RelationLoss::PositiveUnlabelled(rule) => {
                let name = |relation: usize| {
                    let first = documents.sources().first();
                    let known = first.and_then(|source| source.store.relations().get(relation));
                    known.map_or_else(|| relation.to_string(), |relation| relation.id.clone())
                };
                let all = documents.weighted();
                Some(Arc::new(labelled_priors(&rule, all, classes.relations, name)?))
            }
            RelationLoss::Bce | RelationLoss::AdaptiveThreshold { .. } => None,
        };
        let warned = AtomicBool::new(false);
        Ok(Self { documents, layout, classes, loss, budget, seed, priors, warned })
    }

    /// What a teacher attends to in the pairs of examples; `None` where no tokens are stored. The
    /// attention of a pair that it did not store counts as one share that any student has.
    fn attention(&self, examples: &[Example]) -> Option<AttentionTargets> {
        let stores = self.documents.sources().iter().map(|source| source.store.manifest());
        let stored =
            stores.filter_map(|manifest| manifest.taught.as_ref()).any(|taught| taught.tokens > 0);
        stored.then(|| examples.iter().flat_map(stored_attention).collect())
    }

    /// The document of an item, and the pairs that this visit trains on.
    fn visited(&self, item: TrainingItem) -> Result<(Arc<TokenizedDocument>, Vec<Pair>)> {
        let TrainingItem { row, pass, .. } = item;
        let document = self.documents.get(row);
        let pairs = self.layout.training_pairs(&document, self.seed, pass, row as u64);
        let pairs = pairs.map_err(|error| error.in_file(self.documents.folder(row)))?;
        Ok((document, pairs))
    }

    /// What the loss needs of the global batch of these items, if it needs anything.
    fn totals(&self, items: &[TrainingItem]) -> Result<Option<Arc<RiskTotals>>> {
        let Some(priors) = &self.priors else { return Ok(None) };
        let mut totals = RiskTotals::new(Arc::clone(priors));
        for &item in items {
            let (document, pairs) = self.visited(item)?;
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

/// A teacher's logits of the pairs of examples; `None` where some have none.
fn teacher_logits(examples: &[Example]) -> Option<Vec<f32>> {
    let all = examples.iter().all(|example| example.document.teacher_logits.is_some());
    all.then(|| examples.iter().flat_map(stored_logits).collect())
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
        let items = self.documents.items(step);
        let mine = items.iter().enumerate().filter(|(index, _)| share.holds(*index));
        let visits = mine.map(|(index, &item)| {
            let (document, pairs) = self.visited(item)?;
            let decisions = self.documents.decisions(item.row);
            Ok((Example { document, pairs, visit: visit(step, index), train: true }, decisions))
        });
        let (examples, decisions): (Vec<Example>, Vec<Option<PairDecisions>>) =
            visits.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let costs: Vec<usize> = examples
            .iter()
            .map(|example| self.layout.cost(&example.document, example.pairs.len()))
            .collect();
        let (parts, totals) = (split_by_tokens(&costs, self.budget), self.totals(&items)?);
        self.warn_of_parts(share, parts.len());
        let micro = parts
            .into_iter()
            .map(|range| {
                let (examples, decisions) = (&examples[range.clone()], &decisions[range]);
                let classes = self.classes;
                let mut batch = RelationBatch::new(&*self.layout, examples, classes, self.loss)?;
                if self.documents.is_soft() {
                    batch = batch.with_soft_targets(decisions, examples, classes)?;
                }
                batch.attention = self.attention(examples);
                if let Some(logits) = teacher_logits(examples) {
                    batch.with_teacher_logits(logits)?;
                }
                Ok(match &totals {
                    Some(totals) => batch.with_risk(Arc::clone(totals)),
                    None => batch,
                })
            })
            .collect::<Result<_>>()?;
        Ok(StepBatches { micro, rows: items.iter().map(|item| item.row).collect() })
    }

    fn title(&self, row: usize) -> String {
        self.documents.title(row)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::distant::{Calibration, DistantSettings, LabelRule, RuleThresholds};
    use crate::shards::testing::{document, prepared_with};
    use crate::shards::{
        DocumentStore, StoreOptions, Taught, TaughtDocument, TaughtShards, WriteOptions,
    };
    use crate::systems::atlop::{Atlop, AtlopSettings};
    use crate::systems::reading::testing::{EVALUATION, foundation};
    use crate::systems::{Foundation, Profile, RiskKind, RiskRule};
    use crate::text::TaughtRelation;
    use crate::train::MicroBatch;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

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
        let own = TrainingSource::alone(&store);
        // Nothing is decided with complete labels, however the batch is divided.
        let source = ExtractionSource::new(&system, &own, 4, 1, 5).unwrap();
        let (alone, two) = (Share { rank: 0, world: 1 }, Share { rank: 0, world: 2 });
        assert!(!source.decides_in_parts(two, 3));
        let flips = RelationLoss::PositiveUnlabelled(RiskRule { prior_factor: 3.0, ..rule });
        let source = ExtractionSource { loss: flips, ..source };
        assert!(source.decides_in_parts(two, 1) && source.decides_in_parts(alone, 2));
        assert!(!source.decides_in_parts(alone, 1));
        let loss = |budget: usize, world: usize| {
            let source = ExtractionSource::new(&system, &own, 4, budget, 5).unwrap();
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

    /// Decisions are on the distant labels, not on the facts that the rules make of them.
    #[test]
    fn soft_targets_are_those_of_the_rules_and_of_labels_as_they_were() {
        let temp = tempfile::tempdir().unwrap();
        let names: [&[&str]; 3] = [&["Paris"], &["France"], &["Ada"]];
        let documents = [
            document("taught", &names, &[(0, 1, "P17"), (0, 2, "P27")]),
            document("too", &names, &[(1, 2, "P19")]),
        ];
        let options = WriteOptions { rows_per_shard: 10, row_group_rows: 4 };
        let (folder, report) = prepared_with(temp.path(), "shards", &documents, options);
        let relation = |relation, p| TaughtRelation {
            relation,
            probability: TaughtRelation::units(p),
            ..TaughtRelation::default()
        };
        let pair = |head, tail, relations: &[TaughtRelation]| TaughtPair {
            head,
            tail,
            relations: relations.to_vec(),
            ..TaughtPair::default()
        };
        let pairs = vec![
            pair(0, 1, &[relation(0, 0.1), relation(1, 0.95)]),
            pair(0, 2, &[relation(2, 0.4)]),
            pair(1, 0, &[relation(0, 0.45)]),
        ];
        let shards = TaughtShards::open(&folder, &temp.path().join("taught")).unwrap();
        shards.begin(&()).unwrap();
        let said = [TaughtDocument { pairs, logits: None }, TaughtDocument::default()];
        shards.keep(0, &said).unwrap();
        let thresholds = vec![RuleThresholds { keep: 0.6, drop: 0.2, add: 0.9 }; 3];
        let taught = Taught {
            checkpoint: "c".into(),
            system: "atlop".into(),
            floor: 0.01,
            top: 4,
            passes: 0,
            tokens: 0,
            logits: false,
            calibration: Calibration::plain(3),
            fit: None,
            thresholds: thresholds.clone(),
            uncertainty: None,
            bytes_per_document: 0.0,
        };
        shards.finish(taught).unwrap();
        assert_eq!(report.manifest.documents, 2);
        let store =
            DocumentStore::open(&temp.path().join("taught"), StoreOptions::default()).unwrap();
        let settings = AtlopSettings { emb_size: 12, block_size: 4, ..AtlopSettings::default() };
        let system = Atlop::new(Foundation { relations: 3, ..foundation(64) }, settings).unwrap();
        let batch = |rule| {
            let settings = DistantSettings { rule, soft_weight: 0.5, ..DistantSettings::default() };
            let rules = settings.rules(&thresholds, None).unwrap();
            let taught = TrainingSource { rules: Some(&rules), ..TrainingSource::alone(&store)[0] };
            let source = ExtractionSource::new(&system, &[taught], 2, 100_000, 5).unwrap();
            let share = Share { rank: 0, world: 1 };
            let StepBatches { mut micro, rows } = source.prepare(0, share).unwrap();
            // Rows of logits by document, then by pair: those with a fact come first.
            (micro.remove(0), rows)
        };
        let rounded = |numbers: &[f32]| {
            numbers.iter().map(|x| (x * 100.0).round() / 100.0).collect::<Vec<f32>>()
        };
        let (mixed, rows) = batch(LabelRule::Mixed);
        let first = if rows[0] == 0 { 0 } else { 6 };
        let row = |numbers: &[f32], at: usize| rounded(&numbers[4 * at..4 * at + 4]);
        let weights = mixed.weights.as_deref().unwrap();
        // (0, 1) has a fact by the rules, an added one, and so is first; its label is dropped.
        assert_eq!(row(&mixed.targets, first), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(row(weights, first), [1.0; 4]);
        // The label of (0, 2) is a soft target of weight 1, that of (1, 0) no label, of weight 1/2.
        assert_eq!(row(&mixed.targets, first + 1), [0.6, 0.0, 0.0, 0.4]);
        assert_eq!(row(weights, first + 1), [1.0; 4]);
        assert_eq!(row(&mixed.targets, first + 2), [0.55, 0.45, 0.0, 0.0]);
        assert_eq!(row(weights, first + 2), [1.0, 0.5, 1.0, 1.0]);
        // The teacher said nothing of the other document, so that its label is dropped.
        assert_eq!(row(&mixed.targets, 6 - first), [1.0, 0.0, 0.0, 0.0]);
        assert!(mixed.is_soft() && mixed.targets_like(&Tensor::zeros([12, 4], FLOAT)).is_err());
        let (hard, _) = batch(LabelRule::Hard);
        assert!(!hard.is_soft());
        assert_eq!(row(&hard.targets, first), [0.0, 0.0, 1.0, 0.0]);
        let losses =
            |batch: &RelationBatch| system.losses(batch, EVALUATION).unwrap()[0].double_value(&[]);
        assert!(losses(&mixed).is_finite() && losses(&mixed) != losses(&hard));

        // Documents that no teacher has judged have the same loss beside taught ones and alone.
        let plain = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
        let settings = DistantSettings { rule: LabelRule::Soft, ..DistantSettings::default() };
        let rules = settings.rules(&thresholds, None).unwrap();
        let taught = TrainingSource { rules: Some(&rules), ..TrainingSource::alone(&store)[0] };
        let both = [taught, TrainingSource::alone(&plain)[0]];
        let sum = |budget| {
            let source = ExtractionSource::new(&system, &both, 4, budget, 5).unwrap();
            let batches = source.prepare(0, Share { rank: 0, world: 1 }).unwrap().micro;
            (batches.len(), batches.iter().map(losses).sum::<f64>())
        };
        let ((one, whole), (four, divided)) = (sum(100_000), sum(1));
        assert_eq!((one, four), (1, 4));
        assert!((whole - divided).abs() < 1e-4 * whole, "{whole} {divided}");
    }
}
