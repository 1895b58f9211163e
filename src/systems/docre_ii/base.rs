//! The base module (docs/systems.md, I.1–I.5; Zhang et al. 2022, eq. 1–4): ATLOP's entities and
//! contexts, one feature vector a pair, a classifier.

use tch::Tensor;

use super::layout::DocreIiTables;
use super::settings::{DocreIiSettings, PairLayer};
use crate::Result;
use crate::systems::reading::{ATLOP_EPSILON, Pooling, ReadStates, Reader};
use crate::systems::{Foundation, on};
use crate::torch::Dropout;
use crate::torch::HEADS;
use crate::torch::dropout::dropout;
use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::grouped::grouped_bilinear;
use crate::torch::nn::{LayerNorm, Linear};
use crate::train::Forward;

/// ε of all layer norms of the release.
pub(super) const NORM_EPS: f64 = 1e-12;

/// Place of the classifier's dropout among those of the heads.
const SALT: u64 = 1;

/// The base module.
pub(super) struct BaseModule {
    head_pair: Linear,
    tail_pair: Linear,
    extractor: Linear,
    norm: Option<LayerNorm>,
    classifier: Linear,
}

/// A batch's pairs after the base module.
pub struct BasePairs {
    /// States, entities and attention.
    pub read: ReadStates,
    /// Contexts; [P, d].
    pub context: Tensor,
    /// z_s; [P, emb_size].
    pub heads: Tensor,
    /// z_o; [P, emb_size].
    pub tails: Tensor,
    /// F_{s,o}; [P, d].
    pub features: Tensor,
    /// Logits; [P, C].
    pub logits: Tensor,
}

/// Names of the base module's own layers.
pub(super) const NAMES: [&str; 4] =
    ["head_pair", "tail_pair", "entity_pair_extractor", "Relation_classifier"];

impl BaseModule {
    /// Declares the layers above the encoder.
    pub(super) fn declare(
        foundation: &mut Foundation,
        settings: &DocreIiSettings,
        classes: i64,
    ) -> Result<Self> {
        let (d, emb) = (foundation.encoder.facts().width, settings.emb_size);
        let parameters = &mut foundation.parameters;
        let input = if settings.cls_feature { 3 * d } else { 2 * d };
        let grouped = settings.pair_layer == PairLayer::Grouped;
        let joined = if grouped { emb * settings.block_size } else { 2 * emb };
        let [head, tail, extractor, classifier] = NAMES.map(|name| format!("{HEADS}{name}"));
        let norm = settings
            .classifier_norm
            .then(|| LayerNorm::declare(parameters, &format!("{classifier}.1"), d, NORM_EPS));
        Ok(Self {
            head_pair: Linear::declare(parameters, &format!("{head}.0"), input, emb)?,
            tail_pair: Linear::declare(parameters, &format!("{tail}.0"), input, emb)?,
            extractor: Linear::declare(parameters, &format!("{extractor}.0"), joined, d)?,
            norm: norm.transpose()?,
            classifier: if settings.classifier_norm {
                Linear::without_bias(parameters, &format!("{classifier}.2.weight"), d, classes)?
            } else {
                Linear::declare(parameters, &format!("{classifier}.2"), d, classes)?
            },
        })
    }

    /// How documents are read.
    pub(super) fn reader(settings: &DocreIiSettings) -> Reader {
        Reader {
            pooling: Pooling::Logsumexp,
            context: true,
            layers: settings.averaged_layers,
            averaged: settings.average_heads,
            epsilon: ATLOP_EPSILON,
        }
    }

    /// Everything up to the base module's logits; `drop`: dropout of pairs.
    pub(super) fn pairs(
        &self,
        foundation: &Foundation,
        settings: &DocreIiSettings,
        tables: &DocreIiTables,
        forward: Forward,
        drop: Option<&Dropout>,
    ) -> Result<BasePairs> {
        let reading = &tables.reading;
        let reader = Self::reader(settings);
        let read = reader.read(foundation, reading, forward)?;
        let context = reader.contexts(foundation, &read, reading)?;
        let device = read.states.device();
        let first =
            settings.cls_feature.then(|| Reader::first_states(&read, reading)).transpose()?;
        let documents = on(&tables.documents, device)?;
        let vector = |layer: &Linear, rows: &[i64]| -> Result<Tensor> {
            let rows = on(rows, device)?;
            let mut parts = vec![(&read.entities, Some(&rows)), (&context, None)];
            parts.extend(first.iter().map(|first| (first, Some(&documents))));
            Activation::Tanh.apply(&layer.forward_parts(&parts)?)
        };
        let (heads, tails) =
            (vector(&self.head_pair, &reading.heads)?, vector(&self.tail_pair, &reading.tails)?);
        let features = self.features(settings, &heads, &tails, forward)?;
        let logits = self.logits(&features, drop)?;
        Ok(BasePairs { read, context, heads, tails, features, logits })
    }

    fn features(
        &self,
        settings: &DocreIiSettings,
        heads: &Tensor,
        tails: &Tensor,
        forward: Forward,
    ) -> Result<Tensor> {
        let layer = &self.extractor;
        let inner = match settings.pair_layer {
            PairLayer::Grouped => grouped_bilinear(
                heads,
                tails,
                &layer.weight,
                layer.bias.as_ref(),
                settings.emb_size / settings.block_size,
                forward.precision,
            )?,
            PairLayer::Concatenated => layer.forward_parts(&[(heads, None), (tails, None)])?,
        };
        Ok(inner.f_relu()?)
    }

    fn logits(&self, features: &Tensor, drop: Option<&Dropout>) -> Result<Tensor> {
        match &self.norm {
            Some(norm) => self.classifier.forward(&norm.forward(&dropout(features, drop, SALT)?)?),
            None => self.classifier.forward(features),
        }
    }
}
