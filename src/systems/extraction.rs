//! The batches of fine-tuning, for any system: documents in a shuffled order, their pairs chosen
//! anew at each visit.

use std::sync::Arc;

use super::{Classes, Example, Extractor, Layout, RelationBatch, RelationLoss, visit};
use crate::Result;
use crate::sampling::BatchOrder;
use crate::shards::DocumentStore;
use crate::text::split_by_tokens;
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
}

impl<'a> ExtractionSource<'a> {
    /// A source for `extractor` over the labelled rows of a store; `budget` bounds the cost of a
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
    ) -> Result<Self> {
        let rows: Vec<usize> =
            (0..store.len()).filter(|&row| !store.get(row).facts.is_empty()).collect();
        let order = BatchOrder::new(rows.len(), seed, batch)?;
        let (layout, classes, loss) = (extractor.layout(), extractor.classes(), extractor.loss());
        layout.observe(&mut rows.iter().map(|&row| store.get(row)));
        Ok(Self { store, rows, order, layout, classes, loss, budget, seed })
    }
}

impl BatchSource for ExtractionSource<'_> {
    type Batch = RelationBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<RelationBatch>> {
        let rows: Vec<usize> =
            self.order.items(step).into_iter().map(|item| self.rows[item.row]).collect();
        let epoch = self.order.epoch(step);
        let mine = rows.iter().enumerate().filter(|(index, _)| share.holds(*index));
        let visits = mine.map(|(index, &row)| {
            let document = self.store.get(row);
            let pairs = self.layout.training_pairs(&document, self.seed, epoch, row as u64)?;
            Ok(Example { document, pairs, visit: visit(step, index), train: true })
        });
        let examples = visits.collect::<Result<Vec<_>>>()?;
        let costs: Vec<usize> = examples
            .iter()
            .map(|example| self.layout.cost(&example.document, example.pairs.len()))
            .collect();
        let parts = split_by_tokens(&costs, self.budget).into_iter();
        let micro = parts
            .map(|range| {
                RelationBatch::new(&*self.layout, &examples[range], self.classes, self.loss)
            })
            .collect::<Result<_>>()?;
        Ok(StepBatches { micro, rows })
    }

    fn title(&self, row: usize) -> String {
        self.store.title(row).to_owned()
    }
}
