//! The tensor half of KD-DocRE (docs/systems.md, K.1–K.7).

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::axial::{AxialCells, AxialLayer};
use super::layout::{KdDocreLayout, KdDocreTables};
use super::settings::{FocalKind, KdDocreSettings, KdDocreStage};
use crate::systems::atlop::reading_options;
use crate::systems::reading::{Pooling, ReadStates, Reader, ReadingLayout};
use crate::systems::{
    Classes, DecisionRule, Extractor, Foundation, Layout, NaClass, RelationBatch, RelationLoss,
    ScoredBatch, SystemSettings, on, tables,
};
use crate::text::{TokenizedDocument, View};
use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::grouped::grouped_bilinear;
use crate::torch::nn::Linear;
use crate::torch::nn::losses::{FocalWeight, adaptive_focal_sum};
use crate::train::Forward;
use crate::{Error, Result};

/// ε of K.1.
const EPSILON: f64 = 1e-10;

/// The parameters of the axial layers.
const AXIAL: &str = "heads.axial_transformer";

/// KD-DocRE.
pub struct KdDocre {
    reader: Reader,
    head_extractor: Linear,
    tail_extractor: Linear,
    projection: Linear,
    axial: Vec<AxialLayer>,
    classifier: Linear,
    layout: Arc<KdDocreLayout>,
    foundation: Foundation,
}

/// All pairs of a batch, those of an entity with itself included, before the axial layers.
pub(super) struct KdDocrePairs {
    /// States and entities.
    pub read: ReadStates,
    /// Contexts of pairs with head ≤ tail.
    pub context: Tensor,
    /// z_h; [Q, emb_size].
    pub heads: Tensor,
    /// z_t; [Q, emb_size].
    pub tails: Tensor,
    /// x⁰, without what is dropped; [Q, d].
    pub projected: Tensor,
}

impl KdDocre {
    /// Puts KD-DocRE's heads on an encoder.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(mut foundation: Foundation, settings: KdDocreSettings) -> Result<Self> {
        settings.check()?;
        let (width, emb) = (foundation.encoder.facts().width, settings.emb_size);
        if width % settings.axial_heads != 0 {
            return Err(Error::recipe(format!(
                "`axial_heads` {} does not divide the encoder's width {width}",
                settings.axial_heads
            ))
            .with_hint("the release has 8 heads over 768 or 1024"));
        }
        let reading =
            ReadingLayout::new(&foundation, reading_options(&foundation, &settings.reading()));
        let classes = Classes { relations: foundation.relations, na: NaClass::First };
        let seed = foundation.seed;
        let parameters = &mut foundation.parameters;
        let mut extractor = |name: &str| Linear::declare(parameters, name, 2 * width, emb);
        let (head_extractor, tail_extractor) =
            (extractor("heads.head_extractor")?, extractor("heads.tail_extractor")?);
        let joined = emb * settings.block_size;
        let projection =
            Linear::without_bias(parameters, "heads.projection.weight", joined, width)?;
        let sizes = [width, settings.axial_heads];
        let axial = (0..settings.axial_layers)
            .map(|index| AxialLayer::declare(parameters, AXIAL, index, sizes))
            .collect::<Result<_>>()?;
        let classifier =
            Linear::declare(parameters, "heads.classifier", width, classes.count() as i64)?;
        Ok(Self {
            reader: Reader {
                pooling: Pooling::Logsumexp,
                context: true,
                layers: 1,
                averaged: false,
                epsilon: EPSILON,
            },
            head_extractor,
            tail_extractor,
            projection,
            axial,
            classifier,
            layout: Arc::new(KdDocreLayout { reading, classes, settings, seed }),
            foundation,
        })
    }

    fn settings(&self) -> &KdDocreSettings {
        &self.layout.settings
    }

    /// How a document is laid out.
    ///
    /// # Errors
    /// A document over the limit that may not be cut.
    pub fn view(&self, document: &TokenizedDocument) -> Result<View> {
        self.layout.reading.view(document)
    }

    /// Everything before the axial layers.
    pub(super) fn pairs(&self, laid: &KdDocreTables, forward: Forward) -> Result<KdDocrePairs> {
        let read = self.reader.read(&self.foundation, &laid.reading, forward)?;
        let context = self.reader.contexts(&self.foundation, &read, &laid.reading)?;
        let device = context.device();
        let of_pairs = on(&laid.contexts, device)?;
        let vector = |layer: &Linear, rows: &[i64]| -> Result<Tensor> {
            let rows = on(rows, device)?;
            let parts = [(&read.entities, Some(&rows)), (&context, Some(&of_pairs))];
            Activation::Tanh.apply(&layer.forward_parts(&parts)?)
        };
        let (heads, tails) = (
            vector(&self.head_extractor, &laid.ends[0])?,
            vector(&self.tail_extractor, &laid.ends[1])?,
        );
        let mut projected = self.project(&heads, &tails, forward)?;
        if let Some(kept) = laid.kept.as_ref().filter(|_| forward.train) {
            projected = projected.f_mul(&on(kept, device)?.f_unsqueeze(1)?)?;
        }
        Ok(KdDocrePairs { read, context, heads, tails, projected })
    }

    /// W_p g, where g are the grouped products of two vectors; [.., emb_size] twice → [.., d].
    fn project(&self, heads: &Tensor, tails: &Tensor, forward: Forward) -> Result<Tensor> {
        let blocks = self.settings().emb_size / self.settings().block_size;
        grouped_bilinear(heads, tails, &self.projection.weight, None, blocks, forward.precision)
    }

    /// What stands in cells of no pair; [1, d].
    fn padding(&self, projected: &Tensor, forward: Forward) -> Result<Tensor> {
        let biased = self.settings().biased_padding && !forward.train;
        match (&self.head_extractor.bias, &self.tail_extractor.bias) {
            (Some(head), Some(tail)) if biased => {
                let vector = |bias: &Tensor| Activation::Tanh.apply(&bias.f_unsqueeze(0)?);
                self.project(&vector(head)?, &vector(tail)?, forward)
            }
            _ => {
                let options = (Kind::Float, projected.device());
                Ok(Tensor::f_zeros([1, projected.size()[1]], options)?)
            }
        }
    }

    /// x⁰ of all cells; [Q, d] → [G, d].
    pub(super) fn cells(
        &self,
        laid: &KdDocreTables,
        projected: &Tensor,
        forward: Forward,
    ) -> Result<Tensor> {
        let Some(sources) = &laid.grids.sources else { return Ok(projected.shallow_clone()) };
        let closed = Tensor::f_cat(&[projected, &self.padding(projected, forward)?], 0)?;
        Ok(closed.f_index_select(0, &on(sources, projected.device())?)?)
    }

    /// The axial layers over all cells; [G, d] each.
    pub(super) fn axial(
        &self,
        laid: &KdDocreTables,
        cells: &Tensor,
        forward: Forward,
    ) -> Result<Tensor> {
        let grids = AxialCells::new(&laid.grids, cells.device())?;
        let mut x = cells.shallow_clone();
        for layer in &self.axial {
            x = layer.forward(&x, &grids, forward.precision)?;
        }
        Ok(x)
    }

    /// Attention and result of the first axial layer, for comparisons; [G, d] each.
    pub(super) fn first_layer(
        &self,
        laid: &KdDocreTables,
        cells: &Tensor,
        forward: Forward,
    ) -> Result<Option<[Tensor; 2]>> {
        let grids = AxialCells::new(&laid.grids, cells.device())?;
        let first = self.axial.first().map(|layer| {
            let attention = layer.attention(cells, &grids, forward.precision)?;
            Ok([attention, layer.forward(cells, &grids, forward.precision)?])
        });
        first.transpose()
    }

    /// Logits of the pairs that are asked about from the features of all cells; [G, d] → [P, C].
    pub(super) fn classify(&self, laid: &KdDocreTables, features: &Tensor) -> Result<Tensor> {
        let places: Vec<i64> =
            laid.asked.iter().map(|&pair| laid.grids.places[pair as usize]).collect();
        let asked = features.f_index_select(0, &on(&places, features.device())?)?;
        self.classifier.forward(&asked)
    }

    /// Logits of the pairs that are asked about; [P, C].
    fn logits_of(
        &self,
        laid: &KdDocreTables,
        pairs: &KdDocrePairs,
        forward: Forward,
    ) -> Result<Tensor> {
        let cells = self.cells(laid, &pairs.projected, forward)?;
        let features = self.axial(laid, &cells, forward)?.f_add(&cells)?;
        self.classify(laid, &features)
    }

    /// The focal loss of logits [P, C], a sum over pairs.
    pub(super) fn focal_sum(
        &self,
        laid: &KdDocreTables,
        logits: &Tensor,
        targets: &Tensor,
    ) -> Result<Tensor> {
        let settings = self.settings();
        let base = if settings.focal_weight == FocalKind::OnePlus { 1.0 } else { 0.0 };
        let weight = FocalWeight { base, gamma: settings.gamma };
        let sum = adaptive_focal_sum(logits, targets, weight)?;
        // Their logits are 0: a constant.
        let diagonal = if settings.count_diagonal { laid.diagonal as f64 } else { 0.0 };
        Ok(sum.f_add_scalar(diagonal * (self.layout.classes.count() as f64).ln())?)
    }

    /// The squared differences to the teacher's logits, a sum over pairs and classes.
    pub(super) fn distillation_sum(
        &self,
        batch: &RelationBatch,
        logits: &Tensor,
    ) -> Result<Tensor> {
        let Some(teacher) = &batch.teacher_logits else {
            return Err(Error::recipe(
                "`kd-docre.stage` is distil, but these documents come without a teacher's logits",
            )
            .with_hint(
                "`teach` stores them with distant.logits = true; `stage` teacher and continue \
                 learn from labels",
            ));
        };
        let teacher = on(teacher, logits.device())?.f_view_as(logits)?;
        let squares = logits.f_sub(&teacher)?.f_square()?.f_sum(Kind::Float)?;
        Ok(squares.f_mul_scalar(self.settings().mse_weight)?)
    }
}

impl Extractor for KdDocre {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<KdDocreLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        self.layout.classes
    }

    /// The loss over soft targets; labels have the focal loss.
    fn loss(&self) -> RelationLoss {
        RelationLoss::AdaptiveThreshold { scale: 1.0 }
    }

    fn decision(&self) -> DecisionRule {
        DecisionRule::Adaptive { top: self.settings().num_labels }
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        let laid: &KdDocreTables = tables(&batch.tables)?;
        self.logits_of(laid, &self.pairs(laid, forward)?, forward)
    }

    fn scored(&self, batch: &RelationBatch, forward: Forward) -> Result<ScoredBatch> {
        let laid: &KdDocreTables = tables(&batch.tables)?;
        let pairs = self.pairs(laid, forward)?;
        let evidence = self.reader.evidence(&self.foundation, &pairs.read, &laid.reading)?;
        // The rows are those of contexts, which both directions of a pair share.
        let asked = laid.asked.iter().map(|&pair| laid.contexts[pair as usize] as usize);
        let logits = self.logits_of(laid, &pairs, forward)?;
        Ok(ScoredBatch { logits, evidence: Some(evidence.of(asked)) })
    }

    fn slots(&self) -> &[&'static str] {
        match self.settings().stage {
            KdDocreStage::Distil => &["relation", "distillation"],
            KdDocreStage::Teacher | KdDocreStage::Continue => &["relation"],
        }
    }

    fn losses(&self, batch: &RelationBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let laid: &KdDocreTables = tables(&batch.tables)?;
        let logits = self.logits(batch, forward)?.f_to_kind(Kind::Float)?;
        let relation = if batch.is_soft() {
            batch.loss_sum(self.loss(), &logits)?
        } else {
            self.focal_sum(laid, &logits, &batch.targets_like(&logits)?)?
        };
        let mut sums = vec![relation];
        if self.settings().stage == KdDocreStage::Distil {
            sums.push(self.distillation_sum(batch, &logits)?);
        }
        Ok(sums)
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }

    fn rate(&self, name: &str) -> f64 {
        if name.starts_with(AXIAL) { self.settings().axial_rate } else { 1.0 }
    }
}
