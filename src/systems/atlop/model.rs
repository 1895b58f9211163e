//! The tensor half of ATLOP (docs/systems.md, A.1–A.5).

use std::sync::Arc;

use tch::Tensor;

use super::settings::{AtlopSettings, Classifier, ThresholdKind};
use crate::Result;
use crate::systems::reading::{
    ATLOP_EPSILON, MentionTokens, ReadStates, Reader, ReadingLayout, ReadingOptions, ReadingTables,
};
use crate::systems::{
    Classes, DecisionRule, EvidenceWeights, Extractor, Foundation, Layout, LongDocuments, NaClass,
    RelationBatch, RelationLoss, RelationStart, ScoredBatch, SystemSettings, on, tables,
    windows_of,
};
use crate::text::{TokenizedDocument, View};
use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::context::SpanTable;
use crate::torch::kernels::grouped::grouped_bilinear;
use crate::torch::nn::Linear;
use crate::train::Forward;

/// ATLOP.
pub struct Atlop {
    reader: Reader,
    head_extractor: Linear,
    tail_extractor: Linear,
    bilinear: Linear,
    layout: Arc<ReadingLayout>,
    settings: AtlopSettings,
    foundation: Foundation,
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
    pub fn new(foundation: Foundation, settings: AtlopSettings) -> Result<Self> {
        settings.check()?;
        let reader = Reader {
            pooling: settings.pooling,
            context: settings.context,
            layers: 1,
            averaged: true,
            epsilon: ATLOP_EPSILON,
        };
        Self::with_reader(foundation, settings, reader)
    }

    /// The same heads on documents that are read in another way.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn with_reader(
        mut foundation: Foundation,
        settings: AtlopSettings,
        reader: Reader,
    ) -> Result<Self> {
        let layout = ReadingLayout::new(&foundation, reading_options(&foundation, &settings));
        let (width, emb) = (foundation.encoder.facts().width, settings.emb_size);
        let input = if settings.context { 2 * width } else { width };
        let features = match settings.classifier {
            Classifier::Grouped => emb * settings.block_size,
            Classifier::Linear => 2 * emb,
        };
        let classes = foundation.relations as i64 + 1;
        let parameters = &mut foundation.parameters;
        Ok(Self {
            reader,
            head_extractor: Linear::declare(parameters, "heads.head_extractor", input, emb)?,
            tail_extractor: Linear::declare(parameters, "heads.tail_extractor", input, emb)?,
            bilinear: Linear::declare(parameters, "heads.bilinear", features, classes)?,
            layout: Arc::new(layout),
            settings,
            foundation,
        })
    }

    /// How documents are laid out.
    pub fn reading(&self) -> Arc<ReadingLayout> {
        Arc::clone(&self.layout)
    }

    /// How a document is laid out.
    ///
    /// # Errors
    /// A document over the limit that may not be cut.
    pub fn view(&self, document: &TokenizedDocument) -> Result<View> {
        self.layout.view(document)
    }

    /// Everything before the classifier.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn pairs(&self, tables: &ReadingTables, forward: Forward) -> Result<AtlopPairs> {
        let read = self.reader.read(&self.foundation, tables, forward)?;
        let context = self
            .settings
            .context
            .then(|| self.reader.contexts(&self.foundation, &read, tables))
            .transpose()?;
        let vector = |layer: &Linear, rows: &[i64]| -> Result<Tensor> {
            let rows = on(rows, read.states.device())?;
            let mut parts = vec![(&read.entities, Some(&rows))];
            parts.extend(context.iter().map(|context| (context, None)));
            Activation::Tanh.apply(&layer.forward_parts(&parts)?)
        };
        let (heads, tails) = (
            vector(&self.head_extractor, &tables.heads)?,
            vector(&self.tail_extractor, &tables.tails)?,
        );
        Ok(AtlopPairs { read, context, heads, tails })
    }

    /// Logits and evidence of pairs; no evidence without contexts.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn scored_pairs(
        &self,
        tables: &ReadingTables,
        pairs: &AtlopPairs,
        forward: Forward,
    ) -> Result<ScoredBatch> {
        let evidence = || self.reader.evidence(&self.foundation, &pairs.read, tables);
        Ok(ScoredBatch {
            logits: self.compared(self.classify(pairs, forward)?)?,
            evidence: self.settings.context.then(evidence).transpose()?,
        })
    }

    /// [`Self::scored_pairs`] with the pairs' attention to single tokens.
    ///
    /// # Errors
    /// If libtorch rejects an operation; [`Error::Bug`](crate::Error::Bug) without contexts.
    pub fn scored_pairs_with_tokens(
        &self,
        tables: &ReadingTables,
        pairs: &AtlopPairs,
        forward: Forward,
    ) -> Result<(ScoredBatch, EvidenceWeights)> {
        let tokens = self.reader.token_attention(&self.foundation, &pairs.read, tables)?;
        Ok((self.scored_pairs(tables, pairs, forward)?, tokens))
    }

    /// Logits whose threshold class is what relations are compared with: 0 without `ranking`.
    fn compared(&self, logits: Tensor) -> Result<Tensor> {
        if self.settings.ranking {
            return Ok(logits);
        }
        let (_, classes) = logits.size2()?;
        let zero = logits.f_narrow(1, 0, 1)?.f_zeros_like()?;
        Ok(Tensor::f_cat(&[&zero, &logits.f_narrow(1, 1, classes - 1)?], 1)?)
    }

    /// The attention that the pairs of a table share, summed over its spans; flat.
    ///
    /// # Errors
    /// If libtorch rejects an operation; [`Error::Bug`](crate::Error::Bug) without contexts.
    pub fn span_sums(&self, pairs: &AtlopPairs, table: &SpanTable) -> Result<Tensor> {
        self.reader.span_sums(&self.foundation, &pairs.read, table)
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

/// How documents are read; other systems that read as ATLOP does ask for the same.
pub(crate) fn reading_options(foundation: &Foundation, settings: &AtlopSettings) -> ReadingOptions {
    let in_windows = settings.long_documents == LongDocuments::Windows;
    let whole = foundation.max_pieces.or_else(|| foundation.encoder.facts().max_positions);
    ReadingOptions {
        markers: settings.markers,
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
        Arc::<ReadingLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        Classes { relations: self.foundation.relations, na: NaClass::First }
    }

    fn loss(&self) -> RelationLoss {
        self.settings.relation_loss()
    }

    fn decision(&self) -> DecisionRule {
        match self.settings.threshold {
            ThresholdKind::Adaptive => DecisionRule::Adaptive { top: self.settings.num_labels },
            ThresholdKind::Global => DecisionRule::Threshold,
        }
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        let pairs = self.pairs(tables(&batch.tables)?, forward)?;
        self.compared(self.classify(&pairs, forward)?)
    }

    fn rows_from_names(&self) -> Option<&Tensor> {
        (self.settings.relation_start == RelationStart::Names).then_some(&self.bilinear.weight)
    }

    fn scored(&self, batch: &RelationBatch, forward: Forward) -> Result<ScoredBatch> {
        let laid: &ReadingTables = tables(&batch.tables)?;
        self.scored_pairs(laid, &self.pairs(laid, forward)?, forward)
    }

    fn scored_with_tokens(
        &self,
        batch: &RelationBatch,
        forward: Forward,
    ) -> Result<(ScoredBatch, EvidenceWeights)> {
        let laid: &ReadingTables = tables(&batch.tables)?;
        self.scored_pairs_with_tokens(laid, &self.pairs(laid, forward)?, forward)
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }
}
