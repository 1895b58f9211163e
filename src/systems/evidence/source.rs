//! The training batches of the evidence predictor: documents in a shuffled order, each with all its
//! labelled facts.

use super::{EvidenceBatch, EvidenceItem, EvidenceLayout};
use crate::Result;
use crate::systems::{TrainingDocuments, TrainingSource, visit};
use crate::text::split_by_tokens;
use crate::train::{BatchSource, Share, StepBatches};

/// Prepares batches of all facts of `batch` documents (the release: 40).
pub struct EvidenceSource<'a> {
    /// The documents that are trained on.
    pub documents: TrainingDocuments<'a>,
    layout: EvidenceLayout,
    budget: usize,
}

impl<'a> EvidenceSource<'a> {
    /// A source over the labelled documents of `sources`; `budget` bounds the words of a
    /// micro-batch, counted once a fact.
    ///
    /// # Errors
    /// As [`TrainingDocuments::new`].
    pub fn new(
        layout: &EvidenceLayout,
        sources: &[TrainingSource<'a>],
        batch: usize,
        budget: usize,
        seed: u64,
    ) -> Result<Self> {
        let documents = TrainingDocuments::new(sources, seed, batch)?;
        Ok(Self { documents, layout: layout.clone(), budget })
    }
}

impl BatchSource for EvidenceSource<'_> {
    type Batch = EvidenceBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<EvidenceBatch>> {
        let rows: Vec<usize> =
            self.documents.items(step).into_iter().map(|item| item.row).collect();
        let mut items = Vec::new();
        for (index, &row) in rows.iter().enumerate().filter(|(index, _)| share.holds(*index)) {
            let document = self.documents.get(row);
            for (number, fact) in document.facts.iter().enumerate() {
                // A document holds far fewer than 2¹⁶ facts, a batch far fewer than 2¹⁶ documents.
                items.push(EvidenceItem {
                    document: document.clone(),
                    fact: fact.clone(),
                    visit: visit(step, index << 16 | number),
                });
            }
        }
        let costs: Vec<usize> = items.iter().map(|item| item.document.num_words()).collect();
        let parts = split_by_tokens(&costs, self.budget).into_iter();
        let micro = parts.map(|range| self.layout.batch(&items[range])).collect::<Result<_>>()?;
        Ok(StepBatches { micro, rows })
    }

    fn title(&self, row: usize) -> String {
        self.documents.title(row)
    }
}
