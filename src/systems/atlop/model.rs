//! The tensor half of ATLOP (docs/systems.md, A.1–A.5).

use std::sync::Arc;

use serde_json::Value;
use tch::Tensor;

use super::layout::AtlopLayout;
use super::settings::{AtlopSettings, Classifier, LossKind, ThresholdKind};
use crate::Result;
use crate::systems::reading::{
    MentionTokens, ReadStates, Reader, ReadingLayout, ReadingOptions, ReadingTables,
};
use crate::systems::{
    Classes, DecisionRule, Extractor, Foundation, Layout, LongDocuments, NaClass, RelationBatch,
    RelationLoss, on, tables, windows_of,
};
use crate::text::{TokenizedDocument, View};
use crate::torch::Parameters;
use crate::torch::kernels::activations::tanh;
use crate::torch::kernels::grouped::grouped_bilinear;
use crate::torch::nn::Linear;
use crate::train::Forward;

/// ATLOP.
pub struct Atlop {
    reader: Reader,
    head_extractor: Linear,
    tail_extractor: Linear,
    bilinear: Linear,
    parameters: Parameters,
    layout: Arc<AtlopLayout>,
    settings: AtlopSettings,
    relations: usize,
}

/// A batch's pairs on their way to logits.
pub struct AtlopPairs {
    /// States, entities and attention.
    pub read: ReadStates,
    /// Localized contexts; [P, d]; `None` without them.
    pub context: Option<Tensor>,
    /// z_s; [P, emb_size].
    pub heads: Tensor,
    /// z_o; [P, emb_size].
    pub tails: Tensor,
}

impl Atlop {
    /// Puts ATLOP's heads on an encoder.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(mut foundation: Foundation, settings: AtlopSettings) -> Result<Self> {
        settings.check()?;
        let layout = ReadingLayout::new(
            foundation.pieces.clone(),
            reading_options(&foundation, &settings),
            foundation.seed,
        );
        let (width, emb) = (foundation.encoder.width(), settings.emb_size);
        let parameters = &mut foundation.parameters;
        let input = if settings.context { 2 * width } else { width };
        let head_extractor = Linear::declare(parameters, "heads.head_extractor", input, emb)?;
        let tail_extractor = Linear::declare(parameters, "heads.tail_extractor", input, emb)?;
        let features = match settings.classifier {
            Classifier::Grouped => emb * settings.block_size,
            Classifier::Linear => 2 * emb,
        };
        let bilinear = Linear::declare(
            parameters,
            "heads.bilinear",
            features,
            foundation.relations as i64 + 1,
        )?;
        let (pooling, context, dropout) = (settings.pooling, settings.context, foundation.dropout);
        let reader = Reader { encoder: foundation.encoder, pooling, context, layers: 1, dropout };
        let (parameters, relations) = (foundation.parameters, foundation.relations);
        let layout = Arc::new(AtlopLayout(Arc::new(layout)));
        Ok(Self {
            reader,
            head_extractor,
            tail_extractor,
            bilinear,
            parameters,
            layout,
            settings,
            relations,
        })
    }

    /// How a document is laid out.
    ///
    /// # Errors
    /// A document over the limit that may not be cut.
    pub fn view(&self, document: &TokenizedDocument) -> Result<View> {
        self.layout.0.view(document)
    }

    /// Everything before the classifier.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn pairs(&self, tables: &ReadingTables, forward: Forward) -> Result<AtlopPairs> {
        let device = self.parameters.device();
        let read = self.reader.read(tables, device, forward)?;
        let context =
            self.settings.context.then(|| self.reader.contexts(&read, tables, true)).transpose()?;
        let vector = |layer: &Linear, rows: &[i64]| -> Result<Tensor> {
            let rows = on(rows, device)?;
            let mut parts = vec![(&read.entities, Some(&rows))];
            parts.extend(context.iter().map(|context| (context, None)));
            tanh(&layer.forward_parts(&parts)?)
        };
        let (heads, tails) = (
            vector(&self.head_extractor, &tables.heads)?,
            vector(&self.tail_extractor, &tables.tails)?,
        );
        Ok(AtlopPairs { read, context, heads, tails })
    }

    /// Logits of pair vectors; [P, C].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn classify(&self, pairs: &AtlopPairs, forward: Forward) -> Result<Tensor> {
        match self.settings.classifier {
            Classifier::Grouped => {
                let blocks = self.settings.emb_size / self.settings.block_size;
                let (weight, bias) = (&self.bilinear.weight, self.bilinear.bias.as_ref());
                grouped_bilinear(
                    &pairs.heads,
                    &pairs.tails,
                    weight,
                    bias,
                    blocks,
                    forward.precision,
                )
            }
            Classifier::Linear => {
                self.bilinear.forward(&Tensor::f_cat(&[&pairs.heads, &pairs.tails], 1)?)
            }
        }
    }
}

fn reading_options(foundation: &Foundation, settings: &AtlopSettings) -> ReadingOptions {
    let in_windows = settings.long_documents == LongDocuments::Windows;
    let whole = foundation
        .max_pieces
        .or_else(|| foundation.encoder.max_positions().map(|positions| positions as usize));
    ReadingOptions {
        markers: settings.markers,
        entity_types: foundation.entity_types.clone(),
        mention: MentionTokens::Start,
        max_pieces: if in_windows {
            (settings.max_pieces > 0).then_some(settings.max_pieces)
        } else {
            whole
        },
        truncate: foundation.truncate || settings.cut_silently,
        windows: in_windows
            .then(|| windows_of(foundation, settings.max_windows, settings.window_stride))
            .flatten(),
    }
}

impl Extractor for Atlop {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<AtlopLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        Classes { relations: self.relations, na: NaClass::First }
    }

    fn loss(&self) -> RelationLoss {
        match self.settings.loss {
            LossKind::AdaptiveThreshold => RelationLoss::AdaptiveThreshold { scale: 1.0 },
            LossKind::Bce => RelationLoss::Bce,
        }
    }

    fn decision(&self) -> DecisionRule {
        match self.settings.threshold {
            ThresholdKind::Adaptive => DecisionRule::Adaptive { top: self.settings.num_labels },
            ThresholdKind::Global => DecisionRule::Threshold,
        }
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        self.classify(&self.pairs(tables(&batch.tables)?, forward)?, forward)
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn encoder_config(&self) -> Value {
        self.reader.encoder.config()
    }
}
