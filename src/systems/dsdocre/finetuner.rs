//! Stage 3: fine-tuning on human annotation, restricted to the ranker's top pairs (SPEC §3.3 j).

use tch::{Kind, Tensor};

use super::model::DsdocreModel;
use crate::Result;
use crate::recipe::MarkerNumbering;
use crate::sampling::{self, BaselineSettings, BatchOrder, KeepRule};
use crate::shards::DocumentStore;
use crate::systems::{BatchSource, Forward, MicroBatch, Objective, Share, StepBatches};
use crate::systems::{DocumentViews, PackedDocuments, visit};
use crate::text::{EncodedDocument, Markers, View, ViewChoices, split_by_tokens};
use crate::torch::Parameters;
use crate::torch::losses::bce_sum;

/// Which pairs of a document take part.
#[derive(Clone, Debug)]
pub enum PairChoice {
    /// The ranker's best, by a rule (+D and +D+P).
    Kept(KeepRule),
    /// No ranker: positives and sampled negatives in training, all pairs in evaluation.
    Sampled(BaselineSettings),
}

impl PairChoice {
    /// The pairs of a document in training, at one visit.
    ///
    /// # Errors
    /// Pairs that no ranker has scored.
    pub fn training(&self, document: &EncodedDocument, seed: u64, epoch: u64, row: u64) -> Result<Vec<(u32, u32)>> {
        match self {
            Self::Kept(rule) => sampling::kept_pairs(document, *rule),
            Self::Sampled(settings) => Ok(sampling::baseline_pairs(document, settings, seed, epoch, row)),
        }
    }

    /// The pairs of a document in evaluation.
    ///
    /// # Errors
    /// Pairs that no ranker has scored.
    pub fn evaluation(&self, document: &EncodedDocument) -> Result<Vec<(u32, u32)>> {
        match self {
            Self::Kept(rule) => sampling::kept_pairs(document, *rule),
            Self::Sampled(_) => Ok(sampling::ordered_pairs(document.entities.len()).collect()),
        }
    }
}

/// Documents with pairs and, in training, their targets.
pub struct FinetuneBatch {
    /// The documents.
    pub documents: PackedDocuments,
    /// Head entity rows, `[P]`.
    pub heads: Vec<i64>,
    /// Tail entity rows, `[P]`.
    pub tails: Vec<i64>,
    /// Multi-hot targets, [P × C] row-major; NA, the last class, is 1 iff no relation holds. Empty at prediction.
    pub targets: Vec<f32>,
    counts: [f64; 1],
}

impl FinetuneBatch {
    /// A batch of `documents` with the pairs chosen in each, and targets over `classes` (0: none).
    pub fn new<D: AsRef<EncodedDocument>>(documents: PackedDocuments, sources: &[(D, Vec<(u32, u32)>)], classes: usize) -> Self {
        let mut batch = Self { documents, heads: Vec::new(), tails: Vec::new(), targets: Vec::new(), counts: [0.0] };
        for (index, (document, pairs)) in sources.iter().enumerate() {
            let document = document.as_ref();
            let base = batch.documents.entity_base(index);
            batch.heads.extend(pairs.iter().map(|pair| base + i64::from(pair.0)));
            batch.tails.extend(pairs.iter().map(|pair| base + i64::from(pair.1)));
            if classes > 0 {
                batch.targets.extend(targets(document, pairs, classes));
            }
        }
        batch.counts = [batch.targets.len() as f64];
        batch
    }
}

/// Multi-hot rows of pairs, [pairs × classes].
pub fn targets(document: &EncodedDocument, pairs: &[(u32, u32)], classes: usize) -> Vec<f32> {
    let mut rows = vec![0.0; pairs.len() * classes];
    for (row, pair) in rows.chunks_exact_mut(classes).zip(pairs) {
        for fact in document.facts.iter().filter(|fact| (fact.head, fact.tail) == *pair) {
            row[fact.relation as usize] = 1.0;
        }
        if !row.contains(&1.0) {
            row[classes - 1] = 1.0;
        }
    }
    rows
}

impl MicroBatch for FinetuneBatch {
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

/// Prepares fine-tuning batches.
pub struct FinetuneSource<'a> {
    /// Human-annotated documents.
    pub store: &'a DocumentStore,
    /// Rows of the store with at least one label.
    pub rows: Vec<usize>,
    /// Order of the rows.
    pub order: BatchOrder,
    /// Views.
    pub views: DocumentViews,
    /// Marker numbers.
    pub markers: MarkerNumbering,
    /// Pairs.
    pub pairs: PairChoice,
    /// Relations and NA.
    pub classes: usize,
    /// Token budget of a micro-batch.
    pub budget: usize,
    /// Seed of the sampled pairs.
    pub seed: u64,
}

/// The view of a document whose pairs are chosen; the release numbers entities by the kept pairs.
///
/// # Errors
/// A document over the length limit where truncation was not asked for.
pub fn paired_view(views: &DocumentViews, markers: MarkerNumbering, document: &EncodedDocument, pairs: &[(u32, u32)]) -> Result<View> {
    if markers == MarkerNumbering::Entity {
        return views.view(document, &ViewChoices::default());
    }
    let mut views = views.clone();
    views.options.markers = Markers::Kept(sampling::marker_order(pairs));
    views.view(document, &ViewChoices::default())
}

impl BatchSource for FinetuneSource<'_> {
    type Batch = FinetuneBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<FinetuneBatch>> {
        let batch: Vec<usize> = self.order.items(step).into_iter().map(|item| self.rows[item.row]).collect();
        let epoch = self.order.epoch(step);
        let mut views = Vec::new();
        let mut sources = Vec::new();
        let mut keys = Vec::new();
        for (index, &row) in batch.iter().enumerate().filter(|(index, _)| share.holds(*index)) {
            let document = self.store.get(row);
            let pairs = self.pairs.training(&document, self.seed, epoch, row as u64)?;
            views.push(paired_view(&self.views, self.markers, &document, &pairs)?);
            sources.push((document, pairs));
            keys.push(visit(step, index));
        }
        let lengths: Vec<usize> = views.iter().map(|view| view.ids.len()).collect();
        let micro = split_by_tokens(&lengths, self.budget).into_iter().map(|range| {
            let documents = self.views.pack(&views[range.clone()], &keys[range.clone()]);
            FinetuneBatch::new(documents, &sources[range], self.classes)
        });
        Ok(StepBatches { micro: micro.collect(), rows: batch })
    }
}

/// The fine-tuning objective: Σ binary cross-entropy / (classes · pairs).
pub struct Finetuner<'a> {
    /// Encoder and heads.
    pub model: &'a DsdocreModel,
}

impl Finetuner<'_> {
    /// Relation vectors [P, w] and class logits [P, C] of a batch.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn logits(&self, batch: &FinetuneBatch, forward: Forward) -> Result<(Tensor, Tensor)> {
        let (_, entities) = self.model.encode(&batch.documents, forward)?;
        let relations = self.model.relation_vectors(&entities, &batch.heads, &batch.tails)?;
        let logits = self.model.classify(&relations)?;
        Ok((relations, logits))
    }
}

impl Objective for Finetuner<'_> {
    type Batch = FinetuneBatch;

    fn slots(&self) -> &[&'static str] {
        &["relation"]
    }

    fn forward(&self, batch: &FinetuneBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let (_, logits) = self.logits(batch, forward)?;
        let targets = Tensor::f_from_slice(&batch.targets)?.f_to_device(logits.device())?.f_view_as(&logits)?;
        Ok(vec![bce_sum(&logits.f_to_kind(Kind::Float)?, &targets)?])
    }

    fn parameters(&self) -> &Parameters {
        &self.model.parameters
    }
}
