//! Stage 1: the pre-denoising ranker, relation detection on human annotation (docs/systems.md, D.7;
//! Xiao et al. 2020, eq. 3).

use super::model::DsdocreModel;
use super::rows::PairRows;
use crate::Result;
use crate::sampling::{self, BatchOrder, RankSettings};
use crate::shards::DocumentStore;
use crate::systems::{DocumentViews, PackedDocuments, visit};
use crate::text::split_by_tokens;
use crate::torch::Parameters;
use crate::torch::nn::losses::cross_entropy_sum;
use crate::train::{BatchSource, Forward, MicroBatch, Objective, Share, StepBatches};

/// Documents with their 6-way instances.
pub struct RankBatch {
    /// The documents.
    pub documents: PackedDocuments,
    /// All instances.
    pub rows: PairRows,
    /// Candidates an instance.
    pub width: i64,
    counts: [f64; 1],
}

impl RankBatch {
    /// A batch of given rows.
    pub fn new(documents: PackedDocuments, rows: PairRows, width: i64) -> Self {
        let counts = [rows.answers.len() as f64];
        Self { documents, rows, width, counts }
    }
}

impl MicroBatch for RankBatch {
    fn counts(&self) -> &[f64] {
        &self.counts
    }
    fn documents(&self) -> usize {
        self.documents.documents()
    }
    fn tokens(&self) -> usize {
        self.documents.tokens()
    }
}

/// Prepares ranker batches: documents with labels in a shuffled order, instances drawn anew at each
/// visit.
pub struct RankSource<'a> {
    /// Human-annotated documents.
    pub store: &'a DocumentStore,
    /// Rows of the store that can be trained on.
    pub rows: Vec<usize>,
    /// Order of the rows.
    pub order: BatchOrder,
    /// Views.
    pub views: DocumentViews,
    /// FactInstance numbers.
    pub settings: RankSettings,
    /// Token budget of a micro-batch.
    pub budget: usize,
    /// Seed of the instances.
    pub seed: u64,
}

impl BatchSource for RankSource<'_> {
    type Batch = RankBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<RankBatch>> {
        let batch: Vec<usize> =
            self.order.items(step).into_iter().map(|item| self.rows[item.row]).collect();
        let mut views = Vec::new();
        let mut items = Vec::new();
        for (index, &row) in batch.iter().enumerate().filter(|(index, _)| share.holds(*index)) {
            let document = &self.store.get(row);
            if let Some(item) =
                sampling::rank_item(document, row, &self.settings, self.seed, step, index as u64)
            {
                views.push(self.views.view(document, &item.choices)?);
                items.push((item, visit(step, index)));
            }
        }
        let lengths: Vec<usize> = views.iter().map(|view| view.ids.len()).collect();
        let micro = split_by_tokens(&lengths, self.budget).into_iter().map(|range| {
            let keys: Vec<u64> = items[range.clone()].iter().map(|item| item.1).collect();
            let documents = self.views.pack(&views[range.clone()], &keys);
            let mut rows = PairRows::default();
            for (index, (item, _)) in items[range].iter().enumerate() {
                for instance in &item.instances {
                    rows.push(&instance.pairs, documents.entity_base(index), instance.answer);
                }
            }
            RankBatch::new(documents, rows, self.settings.candidates as i64)
        });
        Ok(StepBatches { micro: micro.collect(), rows: batch })
    }

    fn title(&self, row: usize) -> String {
        self.store.title(row).to_owned()
    }
}

/// The ranker's objective.
pub struct Ranker<'a> {
    /// Encoder and heads.
    pub model: &'a DsdocreModel,
}

impl Objective for Ranker<'_> {
    type Batch = RankBatch;

    fn slots(&self) -> &[&'static str] {
        &["RelDet"]
    }

    fn forward(&self, batch: &RankBatch, forward: Forward) -> Result<Vec<tch::Tensor>> {
        let (_, entities) = self.model.encode(&batch.documents, forward)?;
        let scores = self.model.ranking_scores(&entities, &batch.rows.heads, &batch.rows.tails)?;
        let logits = scores.f_view([-1, batch.width])?;
        Ok(vec![cross_entropy_sum(&logits, &batch.rows.answers)?])
    }

    fn parameters(&self) -> &Parameters {
        &self.model.parameters
    }
}
