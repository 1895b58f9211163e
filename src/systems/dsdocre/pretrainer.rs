//! Stage 2: pre-training on document pairs with three tasks and five losses (docs/systems.md,
//! D.13–D.19; Xiao et al. 2020, eq. 1–5).

use tch::{Device, Tensor};

use super::model::DsdocreModel;
use super::pretrain_tables::PretrainTables;
use super::rows::{AlignmentRows, MatchRows, PairRows};
use super::sampler::{PretrainItem, PretrainSampler};
use super::settings::{DsdocreSettings, MentionVectors};
use crate::Result;
use crate::shards::DocumentStore;
use crate::systems::{DocumentViews, PackedDocuments, visit};
use crate::text::{View, split_by_tokens};
use crate::torch::kernels::pairs::tail_products;
use crate::torch::nn::losses::cross_entropy_sum_of;
use crate::torch::{Parameters, Table, Uploaded};
use crate::train::{BatchSource, Forward, MicroBatch, Objective, Share, StepBatches};

/// One value for each loss slot. A slot is one mean of the published loss, directions apart.
#[derive(Debug, Default)]
pub struct Slots<T> {
    /// MenMat in first and second documents.
    pub mention: [T; 2],
    /// XMenMat: the query is in the first (second) document, the candidates are in the other.
    pub cross_mention: [T; 2],
    /// RelDet in first and second documents.
    pub detection: [T; 2],
    /// XRelDet over both.
    pub cross_detection: T,
    /// RelAlign: the query is in the first (second) document, the candidates are in the other.
    pub alignment: [T; 2],
    /// IntraAlign, the optional sixth task: query and candidates are in one document.
    pub intra_alignment: T,
}

/// Names of the slots, in the order of [`Slots::values`].
const SLOTS: [&str; 10] = [
    "MenMat/1",
    "MenMat/2",
    "XMenMat/1",
    "XMenMat/2",
    "RelDet/1",
    "RelDet/2",
    "XRelDet",
    "RelAlign/12",
    "RelAlign/21",
    "IntraAlign",
];

impl<T> Slots<T> {
    /// The values in the order of reports.
    fn values(self) -> impl Iterator<Item = T> {
        let inside = [self.mention, self.cross_mention, self.detection].into_iter().flatten();
        inside.chain([self.cross_detection]).chain(self.alignment).chain([self.intra_alignment])
    }
}

/// Documents two by two with the rows of all [slots](Slots). Document 2i is the first of item i,
/// 2i+1 the second.
#[derive(Default)]
pub struct PretrainBatch {
    /// The documents.
    pub documents: PackedDocuments,
    /// MenMat: queries are stream positions.
    pub mention: [MatchRows; 2],
    /// XMenMat: queries are entities.
    pub cross_mention: [MatchRows; 2],
    /// RelDet.
    pub detection: [PairRows; 2],
    /// XRelDet.
    pub cross_detection: PairRows,
    /// RelAlign.
    pub alignment: [AlignmentRows; 2],
    /// IntraAlign.
    pub intra_alignment: AlignmentRows,
    counts: Vec<f64>,
    tables: PretrainTables,
}

impl PretrainBatch {
    /// A batch of documents without any row yet.
    pub fn new(documents: PackedDocuments) -> Self {
        Self { documents, ..Self::default() }
    }

    /// Counts the rows and lays out the tables; called once all are in.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.counts = self.answers().values().map(|answers| answers.len() as f64).collect();
        self.tables = PretrainTables::new(
            &self.documents,
            [&self.mention, &self.cross_mention],
            &self.detection_rows(),
            &self.alignment_rows(),
            self.answers().values(),
        );
        self
    }

    fn detection_rows(&self) -> [&PairRows; 3] {
        let [first, second] = &self.detection;
        [first, second, &self.cross_detection]
    }

    fn alignment_rows(&self) -> [&AlignmentRows; 3] {
        let [first, second] = &self.alignment;
        [first, second, &self.intra_alignment]
    }

    /// Its tables on `device`.
    ///
    /// # Errors
    /// If libtorch rejects the copy.
    pub fn upload(&self, device: Device) -> Result<Uploaded> {
        self.tables.arena.upload(device)
    }

    /// The right candidate of each row.
    fn answers(&self) -> Slots<&[i64]> {
        Slots {
            mention: self.mention.each_ref().map(|rows| &rows.answers[..]),
            cross_mention: self.cross_mention.each_ref().map(|rows| &rows.answers[..]),
            detection: self.detection.each_ref().map(|rows| &rows.answers[..]),
            cross_detection: &self.cross_detection.answers,
            alignment: self.alignment.each_ref().map(|rows| &rows.candidates.answers[..]),
            intra_alignment: &self.intra_alignment.candidates.answers,
        }
    }

    fn add(&mut self, item: &PretrainItem, first: usize, candidates: MentionVectors) {
        let base = [self.documents.entity_base(first), self.documents.entity_base(first + 1)];
        for side in 0..2 {
            let other = 1 - side;
            self.add_mentions(item, side, first + side, candidates);
            for instance in &item.detection[side] {
                self.detection[side].push(&instance.pairs, base[side], instance.answer);
            }
            if let Some(instance) = &item.cross_mention[side] {
                let rows =
                    instance.candidates.iter().map(|&entity| base[other] + i64::from(entity));
                self.cross_mention[side].push(
                    base[side] + i64::from(instance.query),
                    rows,
                    instance.answer,
                );
            }
            if let Some(instance) = &item.alignment[side] {
                self.alignment[side].push(
                    instance.query,
                    base[side],
                    &instance.candidates,
                    base[other],
                    instance.answer,
                );
            }
            if let Some(instance) = &item.intra_alignment[side] {
                self.intra_alignment.push(
                    instance.query,
                    base[side],
                    &instance.candidates,
                    base[side],
                    instance.answer,
                );
            }
        }
        for instance in &item.cross_detection {
            self.cross_detection.extend_pairs(&instance.pairs[0], base[0]);
            self.cross_detection.extend_pairs(&instance.pairs[1], base[1]);
            self.cross_detection.answers.push(instance.answer as i64);
        }
    }

    /// A masked mention beyond the cut has no position: its row is left out, as the release ignores
    /// it.
    fn add_mentions(
        &mut self,
        item: &PretrainItem,
        side: usize,
        document: usize,
        candidates: MentionVectors,
    ) {
        let base = match candidates {
            MentionVectors::Entities => self.documents.entity_base(document),
            MentionVectors::TokenStates => self.documents.views.offsets[document],
        };
        for instance in &item.mention[side] {
            if let Some(position) = self.documents.views.masked[document][instance.query] {
                let rows = instance.candidates.iter().map(|&entity| base + i64::from(entity));
                self.mention[side].push(position, rows, instance.answer);
            }
        }
    }
}

impl MicroBatch for PretrainBatch {
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

/// Prepares pre-training batches: items drawn independently, a pure function of (seed, step,
/// index).
pub struct PretrainSource<'a> {
    /// Distant documents with kept pairs.
    pub store: &'a DocumentStore,
    /// The sampler over it.
    pub sampler: PretrainSampler<'a>,
    /// Views.
    pub views: DocumentViews,
    /// Document pairs a step.
    pub batch: usize,
    /// Token budget of a micro-batch.
    pub budget: usize,
    /// Seed of the items.
    pub seed: u64,
}

impl BatchSource for PretrainSource<'_> {
    type Batch = PretrainBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<PretrainBatch>> {
        let rows = (0..self.batch as u64)
            .flat_map(|index| self.sampler.rows(self.seed, step, index))
            .collect();
        let mut items = Vec::new();
        for index in (0..self.batch).filter(|&index| share.holds(index)) {
            let item = self.sampler.sample(self.seed, step, index as u64);
            let view = |side: usize| {
                self.views.view(&self.store.get(item.rows[side]), &item.choices[side])
            };
            let views = [view(0)?, view(1)?];
            items.push((item, views, visit(step, index)));
        }
        let lengths: Vec<usize> =
            items.iter().map(|(_, views, _)| views[0].ids.len() + views[1].ids.len()).collect();
        let micro = split_by_tokens(&lengths, self.budget).into_iter().map(|range| {
            let views: Vec<View> =
                items[range.clone()].iter().flat_map(|(_, views, _)| views.clone()).collect();
            let keys: Vec<u64> = items[range.clone()]
                .iter()
                .flat_map(|(_, _, key)| [2 * key, 2 * key + 1])
                .collect();
            let mut batch = PretrainBatch::new(self.views.pack(&views, &keys));
            for (index, (item, _, _)) in items[range].iter().enumerate() {
                batch.add(item, 2 * index, self.sampler.settings.mention_vectors);
            }
            batch.counted()
        });
        Ok(StepBatches { micro: micro.collect(), rows })
    }

    fn title(&self, row: usize) -> String {
        self.store.title(row)
    }
}

/// The pre-training objective: L = RelAlign + RelDet + XRelDet + MenMat + XMenMat, unweighted.
pub struct Pretrainer<'a> {
    /// Encoder and heads.
    pub model: &'a DsdocreModel,
    /// Distance of alignment, and the vectors of MenMat's candidates.
    pub settings: &'a DsdocreSettings,
}

/// Scores of a slot's rows, [R, C]; `None` for a slot without rows.
pub type RowScores = Option<Tensor>;

impl Pretrainer<'_> {
    /// Scores of all slots from token states [T, d] and entity vectors [E, d]; `uploaded` is what
    /// [`PretrainBatch::upload`] gave.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn scores(
        &self,
        batch: &PretrainBatch,
        uploaded: &Uploaded,
        states: &Tensor,
        entities: &Tensor,
    ) -> Result<Slots<RowScores>> {
        let vectors = match self.settings.mention_vectors {
            MentionVectors::Entities => entities,
            MentionVectors::TokenStates => states,
        };
        let tables = &batch.tables;
        let matching = |tables: &[Table; 2], queries, candidates| {
            self.matching(tables.map(|table| uploaded.table(table)), queries, candidates)
        };
        let [first, second] = &tables.mention;
        let mention = [matching(first, states, vectors)?, matching(second, states, vectors)?];
        let [first, second] = &tables.cross_mention;
        let cross_mention =
            [matching(first, entities, entities)?, matching(second, entities, entities)?];
        let rows = RelationRows { batch, uploaded, entities };
        let [by_tail, matrix] = self.joint_products(&rows)?;
        let [detection_1, detection_2, cross_detection] = self.detection(&rows, matrix.as_ref())?;
        let [alignment_12, alignment_21, intra_alignment] = self.alignment(&rows, by_tail)?;
        Ok(Slots {
            mention,
            cross_mention,
            detection: [detection_1, detection_2],
            cross_detection,
            alignment: [alignment_12, alignment_21],
            intra_alignment,
        })
    }

    fn matching(
        &self,
        tables: [Result<Tensor>; 2],
        queries: &Tensor,
        candidates: &Tensor,
    ) -> Result<RowScores> {
        let [rows, of_candidates] = tables;
        let rows = rows?;
        if rows.numel() == 0 {
            return Ok(None);
        }
        let queries = queries.f_index_select(0, &rows)?.f_to_kind(candidates.kind())?;
        self.model.mention_scores(&queries, candidates, &of_candidates?).map(Some)
    }

    /// On a GPU the products with the tails of alignment and the matrix of detection, if a batch
    /// has both.
    fn joint_products(&self, rows: &RelationRows) -> Result<[Option<Tensor>; 2]> {
        let tables = &rows.batch.tables;
        let both = !tables.alignment.is_empty()
            && rows.batch.detection_rows().iter().any(|rows| !rows.heads.is_empty());
        if !both || !rows.entities.device().is_cuda() {
            return Ok([None, None]);
        }
        let tails =
            tables.alignment.tails_of(rows.entities, &tables.alignment_tables, rows.uploaded)?;
        Ok(self.model.tail_products_and_matrix(&tails)?.map(Some))
    }

    /// Both directions of RelDet and XRelDet in one product over all their pairs.
    fn detection(&self, rows: &RelationRows, matrix: Option<&Tensor>) -> Result<[RowScores; 3]> {
        let RelationRows { batch, uploaded, entities } = *rows;
        let [heads, tails] = batch.tables.detection.map(|table| uploaded.table(table));
        let (heads, tails) = (heads?, tails?);
        if heads.numel() == 0 {
            return Ok([None, None, None]);
        }
        let scores = self.model.ranking_scores_by(entities, [&heads, &tails], matrix)?;
        let rows = batch.detection_rows();
        let mut parts = split(&scores, &rows.map(|rows| rows.heads.len()))?.into_iter();
        let mut take = |rows: &PairRows| -> Result<RowScores> {
            let (part, count) = (parts.next(), rows.answers.len() as i64);
            let shaped = part.filter(|_| count > 0).map(|part| part.f_view([count, -1]));
            Ok(shaped.transpose()?)
        };
        Ok([take(rows[0])?, take(rows[1])?, take(rows[2])?])
    }

    /// Both directions of RelAlign, and IntraAlign; the relation vectors of all query and candidate
    /// pairs come from one product.
    fn alignment(&self, rows: &RelationRows, by_tail: Option<Tensor>) -> Result<[RowScores; 3]> {
        let RelationRows { batch, uploaded, entities } = *rows;
        let (plan, tables) = (&batch.tables.alignment, &batch.tables.alignment_tables);
        if plan.is_empty() {
            return Ok([None, None, None]);
        }
        let relation = &self.model.heads.relation;
        let by_tail = match by_tail {
            Some(by_tail) => by_tail,
            None => tail_products(&plan.tails_of(entities, tables, uploaded)?, &relation.weight)?,
        };
        let vectors = plan.vectors(entities, &by_tail, &relation.bias, (tables, uploaded))?;
        let width = vectors.size()[1];
        let rows = batch.alignment_rows();
        let lengths =
            rows.iter().flat_map(|rows| [rows.queries.heads.len(), rows.candidates.heads.len()]);
        let mut parts = split(&vectors, &lengths.collect::<Vec<_>>())?.into_iter();
        let mut score = |rows: &AlignmentRows| -> Result<RowScores> {
            let (Some(queries), Some(candidates)) = (parts.next(), parts.next()) else {
                return Ok(None);
            };
            let count = rows.candidates.answers.len() as i64;
            if count == 0 {
                return Ok(None);
            }
            let candidates = candidates.f_view([count, -1, width])?;
            let distance = self.settings.alignment_distance;
            self.model.alignment_scores(&queries, &candidates, distance).map(Some)
        };
        Ok([score(rows[0])?, score(rows[1])?, score(rows[2])?])
    }
}

/// What the relation tasks of a batch read.
#[derive(Clone, Copy)]
struct RelationRows<'a> {
    batch: &'a PretrainBatch,
    uploaded: &'a Uploaded,
    entities: &'a Tensor,
}

/// Parts of `lengths` rows each. On a GPU one operation puts their gradients together; elsewhere
/// they are added up one by one, as they always were, which decides the last bits.
fn split(rows: &Tensor, lengths: &[usize]) -> Result<Vec<Tensor>> {
    let lengths: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
    if rows.device().is_cuda() {
        return Ok(rows.f_split_with_sizes(&lengths[..], 0)?);
    }
    let starts = lengths.iter().scan(0, |at, length| {
        *at += length;
        Some(*at - length)
    });
    starts.zip(&lengths).map(|(at, &length)| Ok(rows.f_narrow(0, at, length)?)).collect()
}

impl Objective for Pretrainer<'_> {
    type Batch = PretrainBatch;

    fn slots(&self) -> &[&'static str] {
        &SLOTS
    }

    fn forward(&self, batch: &PretrainBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let uploaded = batch.upload(self.parameters().device())?;
        let (states, entities) = self.model.encode_uploaded(
            &batch.documents,
            &batch.tables.documents,
            &uploaded,
            forward,
        )?;
        let scores = self.scores(batch, &uploaded, &states, &entities)?;
        let zero = entities.f_sum(entities.kind())?.f_mul_scalar(0.0)?;
        let rows = scores.values().zip(batch.answers().values()).zip(&batch.tables.answers);
        rows.map(|((scores, answers), &table)| match scores {
            Some(scores) => cross_entropy_sum_of(&scores, answers, |_| uploaded.table(table)),
            None => Ok(zero.shallow_clone()),
        })
        .collect()
    }

    fn parameters(&self) -> &Parameters {
        &self.model.foundation.parameters
    }
}

#[cfg(test)]
mod tests;
