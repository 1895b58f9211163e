//! The batches of fine-tuning, for any system: documents in a shuffled order, their pairs chosen
//! anew at each visit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::positive_unlabelled::{RiskTotals, labelled_priors};
use super::{
    Classes, Example, Extractor, Layout, RelationBatch, RelationLoss, TrainingDocuments,
    TrainingItem, TrainingSource, visit,
};
use crate::Result;
use crate::base::say;
use crate::sampling::Pair;
use crate::text::{TokenizedDocument, split_by_tokens};
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

impl BatchSource for ExtractionSource<'_> {
    type Batch = RelationBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<RelationBatch>> {
        let items = self.documents.items(step);
        let mine = items.iter().enumerate().filter(|(index, _)| share.holds(*index));
        let visits = mine.map(|(index, &item)| {
            let (document, pairs) = self.visited(item)?;
            Ok(Example { document, pairs, visit: visit(step, index), train: true })
        });
        let examples = visits.collect::<Result<Vec<_>>>()?;
        let costs: Vec<usize> = examples
            .iter()
            .map(|example| self.layout.cost(&example.document, example.pairs.len()))
            .collect();
        let (parts, totals) = (split_by_tokens(&costs, self.budget), self.totals(&items)?);
        self.warn_of_parts(share, parts.len());
        let micro = parts
            .into_iter()
            .map(|range| {
                let examples = &examples[range];
                let batch = RelationBatch::new(&*self.layout, examples, self.classes, self.loss)?;
                Ok(match &totals {
                    Some(totals) => batch.with_risk(Arc::clone(totals)),
                    None => batch,
                })
            })
            .collect::<Result<_>>()?;
        Ok(StepBatches { micro, rows: items.iter().map(|item| item.row).collect() })
    }

    fn title(&self, row: usize) -> String {
        self.documents.title(row).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::testing::{document, prepared_with};
    use crate::shards::{DocumentStore, StoreOptions, WriteOptions};
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
}
