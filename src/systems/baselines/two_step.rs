//! BERT-TS: two networks that share nothing, one for "related or not", one for relations (Wang et
//! al. 2019; docs/systems.md, B.9).
//!
//! Both are trained on the same visits, each with its own loss over its own pairs: their parameters
//! are disjoint, so this equals two runs one after the other as long as gradients are not clipped
//! together.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::model::Baseline;
use super::settings::{BaselineSettings, Labels};
use crate::systems::words::WordTables;
use crate::systems::{Classes, Extractor, Foundation, Layout, Pair, RelationBatch, Tables, tables};
use crate::text::TokenizedDocument;
use crate::torch::HEADS;
use crate::torch::Parameters;
use crate::torch::nn::losses::bce_sum;
use crate::train::Forward;
use crate::{Error, Result};

/// The score of every relation of a pair that the first model calls unrelated.
pub const UNRELATED: f64 = -100.0;

/// The second model's logits [P, C] where the first one's [P, 2] (none, related) say "related",
/// [`UNRELATED`] elsewhere.
///
/// The release takes the first model's larger score, and compares sigmoids of the second one with
/// one global threshold; −100 is taken before the sigmoid here, which leaves such pairs behind all
/// others just the same.
///
/// # Errors
/// If the numbers of pairs differ.
pub fn two_step_logits(existence: &Tensor, relations: &Tensor) -> Result<Tensor> {
    let related =
        existence.f_select(1, 1)?.f_gt_tensor(&existence.f_select(1, 0)?)?.f_unsqueeze(1)?;
    Ok(relations.f_masked_fill(&related.f_logical_not()?, UNRELATED)?)
}

/// Both models.
pub struct TwoStep {
    existence: Baseline,
    relations: Baseline,
    /// The parameters of both; those of the first model are named `heads.existence.…`.
    parameters: Parameters,
    layout: Arc<TwoStepLayout>,
}

/// Lays documents out once for both models.
pub struct TwoStepLayout {
    /// Chooses the pairs of training: the labelled ones and a sample of the others.
    existence: Arc<dyn Layout>,
    classes: Classes,
}

impl TwoStep {
    /// Both models over two encoders of one kind.
    ///
    /// # Errors
    /// Settings that cannot be built; a foundation without a second encoder.
    pub fn new(mut foundation: Foundation, settings: &BaselineSettings) -> Result<Self> {
        let twin = foundation
            .twin
            .take()
            .ok_or_else(|| Error::Bug("BERT-TS was given no second encoder".into()))?;
        let step = |labels| BaselineSettings { labels, ..settings.clone() };
        let existence = Baseline::new(*twin, &step(Labels::Existence))?;
        let relations = Baseline::new(foundation, &step(Labels::Relations))?;
        let mut parameters = Parameters::new(0, relations.parameters().device());
        parameters.adopt("", relations.parameters())?;
        parameters.adopt(&format!("{HEADS}existence."), existence.parameters())?;
        let layout =
            Arc::new(TwoStepLayout { existence: existence.layout(), classes: relations.classes() });
        Ok(Self { existence, relations, parameters, layout })
    }
}

impl Layout for TwoStepLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        seed: u64,
        epoch: u64,
        row: u64,
    ) -> Result<Vec<Pair>> {
        self.existence.training_pairs(document, seed, epoch, row)
    }

    fn cost(&self, document: &TokenizedDocument, pairs: usize) -> usize {
        2 * self.existence.cost(document, pairs)
    }

    fn tables(&self, examples: &[crate::systems::Example]) -> Result<Tables> {
        self.existence.tables(examples)
    }

    /// Both classes of every pair; all classes of the labelled pairs.
    fn counts(&self, _tables: &Tables, targets: &[f32]) -> Option<Vec<f64>> {
        let classes = self.classes.count();
        let labelled = targets.chunks_exact(classes).filter(|row| row[0] == 0.0).count();
        Some(vec![(2 * targets.len() / classes) as f64, (labelled * classes) as f64])
    }
}

impl Extractor for TwoStep {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<TwoStepLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        self.layout.classes
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        two_step_logits(
            &self.existence.logits(batch, forward)?,
            &self.relations.logits(batch, forward)?,
        )
    }

    fn slots(&self) -> &[&'static str] {
        &["existence", "relation"]
    }

    fn losses(&self, batch: &RelationBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let tables: &WordTables = tables(&batch.tables)?;
        let existence = self.existence.probed(tables, forward, &mut |_, _| {})?;
        let relations = self.relations.probed(tables, forward, &mut |_, _| {})?;
        let targets = batch.targets_like(&relations)?;
        let none = targets.f_narrow(1, 0, 1)?;
        let related = Tensor::f_cat(&[&none, &(1.0 - &none)], 1)?;
        let labelled = none.f_squeeze_dim(1)?.f_eq(0.0)?.f_nonzero()?.f_squeeze_dim(1)?;
        let of_labelled = bce_sum(
            &relations.f_index_select(0, &labelled)?,
            &targets.f_index_select(0, &labelled)?,
        )?;
        Ok(vec![bce_sum(&existence.f_to_kind(Kind::Float)?, &related)?, of_labelled])
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn foundation(&self) -> &Foundation {
        self.relations.foundation()
    }
}
