//! Stage 2: pre-training on document pairs with three tasks and five losses (docs/systems.md,
//! D.13–D.19; Xiao et al. 2020, eq. 1–5).

use tch::Tensor;

use super::model::DsdocreModel;
use super::rows::{AlignmentRows, MatchRows, PairRows};
use super::settings::{AlignmentDistance, MentionCandidates};
use crate::Result;
use crate::sampling::{PretrainItem, PretrainSampler};
use crate::shards::DocumentStore;
use crate::systems::{DocumentViews, PackedDocuments, on, visit};
use crate::text::{View, split_by_tokens};
use crate::torch::Parameters;
use crate::torch::nn::losses::cross_entropy_sum;
use crate::train::{BatchSource, Forward, MicroBatch, Objective, Share, StepBatches};

/// The loss slots: each is one mean of the published loss, directions apart.
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

/// Documents two by two with the rows of all tasks. Document 2i is the first of item i, 2i+1 the
/// second.
pub struct PretrainBatch {
    /// The documents.
    pub documents: PackedDocuments,
    /// MenMat in first and second documents: queries are stream positions.
    pub mention: [MatchRows; 2],
    /// XMenMat: queries are entities of the first (second) document, candidates of the other.
    pub cross_mention: [MatchRows; 2],
    /// RelDet in first and second documents.
    pub detection: [PairRows; 2],
    /// XRelDet over both.
    pub cross_detection: PairRows,
    /// RelAlign: query in the first (second) document, candidates in the other.
    pub alignment: [AlignmentRows; 2],
    /// IntraAlign: query and candidates in one document; the optional sixth task.
    pub intra_alignment: AlignmentRows,
    counts: [f64; 10],
}

impl PretrainBatch {
    /// A batch of documents without any row yet.
    pub fn new(documents: PackedDocuments) -> Self {
        Self {
            documents,
            mention: Default::default(),
            cross_mention: Default::default(),
            detection: Default::default(),
            cross_detection: PairRows::default(),
            alignment: Default::default(),
            intra_alignment: AlignmentRows::default(),
            counts: [0.0; 10],
        }
    }

    /// Counts the rows; called once all are in.
    #[must_use]
    pub fn counted(mut self) -> Self {
        let rows = [
            self.mention[0].answers.len(),
            self.mention[1].answers.len(),
            self.cross_mention[0].answers.len(),
            self.cross_mention[1].answers.len(),
            self.detection[0].answers.len(),
            self.detection[1].answers.len(),
            self.cross_detection.answers.len(),
            self.alignment[0].len(),
            self.alignment[1].len(),
            self.intra_alignment.len(),
        ];
        self.counts = rows.map(|count| count as f64);
        self
    }

    fn add(&mut self, item: &PretrainItem, first: usize, candidates: MentionCandidates) {
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
        candidates: MentionCandidates,
    ) {
        let base = match candidates {
            MentionCandidates::Entities => self.documents.entity_base(document),
            MentionCandidates::TokenStates => self.documents.views.offsets[document],
        };
        for instance in &item.mention[side] {
            if let Some(position) = self.documents.views.masked[document][instance.masked] {
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
    /// Candidates of MenMat.
    pub mention_candidates: MentionCandidates,
}

impl PretrainSource<'_> {
    fn views_of(&self, item: &PretrainItem) -> Result<[View; 2]> {
        let view =
            |side: usize| self.views.view(&self.store.get(item.rows[side]), &item.choices[side]);
        Ok([view(0)?, view(1)?])
    }
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
            let views = self.views_of(&item)?;
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
                batch.add(item, 2 * index, self.mention_candidates);
            }
            batch.counted()
        });
        Ok(StepBatches { micro: micro.collect(), rows })
    }

    fn title(&self, row: usize) -> String {
        self.store.title(row).to_owned()
    }
}

/// The pre-training objective: L = RelAlign + RelDet + XRelDet + MenMat + XMenMat, unweighted.
pub struct Pretrainer<'a> {
    /// Encoder and heads.
    pub model: &'a DsdocreModel,
    /// |a − b| or (a − b)².
    pub distance: AlignmentDistance,
    /// Candidates of MenMat.
    pub mention_candidates: MentionCandidates,
}

/// Scores of every task, in rows; what the losses and the parity check are made of.
pub struct PretrainScores {
    /// [R, C] by slot, in the order of the slots; empty slots are `None`.
    pub slots: Vec<Option<Tensor>>,
}

impl Pretrainer<'_> {
    /// Scores of all slots from token states [T, d] and entity vectors [E, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn scores(
        &self,
        batch: &PretrainBatch,
        states: &Tensor,
        entities: &Tensor,
    ) -> Result<PretrainScores> {
        let mention_table = match self.mention_candidates {
            MentionCandidates::Entities => entities,
            MentionCandidates::TokenStates => states,
        };
        let [first, second] = &batch.mention;
        let mut slots = vec![
            self.matching(first, states, mention_table)?,
            self.matching(second, states, mention_table)?,
        ];
        for rows in &batch.cross_mention {
            slots.push(self.matching(rows, entities, entities)?);
        }
        slots.extend(self.detection(batch, entities)?);
        slots.extend(self.alignment(batch, entities)?);
        Ok(PretrainScores { slots })
    }

    fn matching(
        &self,
        rows: &MatchRows,
        queries: &Tensor,
        candidates: &Tensor,
    ) -> Result<Option<Tensor>> {
        if rows.answers.is_empty() {
            return Ok(None);
        }
        let (count, device) = (rows.answers.len() as i64, queries.device());
        let queries =
            queries.f_index_select(0, &on(&rows.queries, device)?)?.f_to_kind(candidates.kind())?;
        let width = candidates.size()[1];
        let candidates = candidates
            .f_index_select(0, &on(&rows.candidates, device)?)?
            .f_view([count, -1, width])?;
        self.model.mention_scores(&queries, &candidates).map(Some)
    }

    /// Both directions of RelDet and XRelDet in one product over all their pairs.
    fn detection(&self, batch: &PretrainBatch, entities: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let rows = [&batch.detection[0], &batch.detection[1], &batch.cross_detection];
        let heads: Vec<i64> = rows.iter().flat_map(|rows| rows.heads.iter().copied()).collect();
        let tails: Vec<i64> = rows.iter().flat_map(|rows| rows.tails.iter().copied()).collect();
        if heads.is_empty() {
            return Ok(vec![None, None, None]);
        }
        let scores = self.model.ranking_scores(entities, &heads, &tails)?;
        let mut at = 0;
        rows.iter()
            .map(|rows| {
                let (start, pairs, count) =
                    (at, rows.heads.len() as i64, rows.answers.len() as i64);
                at += pairs;
                (count > 0)
                    .then(|| Ok(scores.f_narrow(0, start, pairs)?.f_view([count, -1])?))
                    .transpose()
            })
            .collect()
    }

    /// Both directions of RelAlign, and IntraAlign; the relation vectors of all query and candidate
    /// pairs come from one product.
    fn alignment(&self, batch: &PretrainBatch, entities: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let tasks = [&batch.alignment[0], &batch.alignment[1], &batch.intra_alignment];
        let parts: Vec<&PairRows> =
            tasks.iter().flat_map(|rows| [&rows.queries, &rows.candidates]).collect();
        let heads: Vec<i64> = parts.iter().flat_map(|rows| rows.heads.iter().copied()).collect();
        let tails: Vec<i64> = parts.iter().flat_map(|rows| rows.tails.iter().copied()).collect();
        if heads.is_empty() {
            return Ok(vec![None, None, None]);
        }
        let vectors = self.model.relation_vectors(entities, &heads, &tails)?;
        let width = vectors.size()[1];
        let mut at = 0;
        let mut take = |rows: &PairRows| -> Result<Tensor> {
            let length = rows.heads.len() as i64;
            at += length;
            Ok(vectors.f_narrow(0, at - length, length)?)
        };
        tasks
            .iter()
            .map(|rows| {
                let (queries, candidates) = (take(&rows.queries)?, take(&rows.candidates)?);
                if rows.is_empty() {
                    return Ok(None);
                }
                let candidates = candidates.f_view([rows.len() as i64, -1, width])?;
                self.model.alignment_scores(&queries, &candidates, self.distance).map(Some)
            })
            .collect()
    }

    /// The answers of each slot, in the order of the slots.
    fn answers(batch: &PretrainBatch) -> [&[i64]; 10] {
        [
            &batch.mention[0].answers,
            &batch.mention[1].answers,
            &batch.cross_mention[0].answers,
            &batch.cross_mention[1].answers,
            &batch.detection[0].answers,
            &batch.detection[1].answers,
            &batch.cross_detection.answers,
            &batch.alignment[0].candidates.answers,
            &batch.alignment[1].candidates.answers,
            &batch.intra_alignment.candidates.answers,
        ]
    }
}

impl Objective for Pretrainer<'_> {
    type Batch = PretrainBatch;

    fn slots(&self) -> &[&'static str] {
        &SLOTS
    }

    fn forward(&self, batch: &PretrainBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let (states, entities) = self.model.encode(&batch.documents, forward)?;
        let scores = self.scores(batch, &states, &entities)?;
        let zero = entities.f_sum(entities.kind())?.f_mul_scalar(0.0)?;
        let sums =
            scores.slots.iter().zip(Self::answers(batch)).map(|(logits, answers)| match logits {
                Some(logits) => cross_entropy_sum(logits, answers),
                None => Ok(zero.shallow_clone()),
            });
        sums.collect()
    }

    fn parameters(&self) -> &Parameters {
        &self.model.parameters
    }
}

#[cfg(test)]
mod tests;
