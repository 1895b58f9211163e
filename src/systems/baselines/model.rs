//! The tensor half of the baselines.

use std::sync::Arc;

use tch::Tensor;

use super::attention::ContextAttention;
use super::layout::BaselineLayout;
use super::network::{Probe, WordNetwork};
use super::pairs::PairBilinear;
use super::settings::{BaselineSettings, Labels, Network};
use crate::Result;
use crate::systems::words::{FeatureOrder, WordFeatures, WordTables};
use crate::systems::{
    Classes, DecisionRule, Extractor, Foundation, Layout, RelationBatch, SystemSettings, tables,
};
use crate::train::Forward;

/// Any of `cnn`, `lstm`, `bilstm`, `context-aware`, `bert-re` and the two models of `bert-ts`.
pub struct Baseline {
    foundation: Foundation,
    features: Option<WordFeatures>,
    network: WordNetwork,
    pairs: PairBilinear,
    attention: Option<ContextAttention>,
    layout: Arc<BaselineLayout>,
}

impl Baseline {
    /// Declares the layers above an encoder, named as in the release.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(mut foundation: Foundation, settings: &BaselineSettings) -> Result<Self> {
        settings.check()?;
        let layout = Arc::new(BaselineLayout::new(&foundation, settings));
        let parameters = &mut foundation.parameters;
        let coref = ("heads.coref_embed", settings.coref_rows as i64, settings.coref_width);
        let rows = foundation.entity_types.len() as i64 + 1;
        let types = ("heads.ner_emb", rows, settings.type_width);
        let features = settings
            .features
            .then(|| WordFeatures::declare(parameters, coref, types, FeatureOrder::CorefType))
            .transpose()?;
        let input =
            foundation.encoder.facts().width + features.as_ref().map_or(0, WordFeatures::width);
        let (network, width) = WordNetwork::declare(settings, input, parameters)?;
        let classes = layout.classes().count() as i64;
        let context = settings.network == Network::ContextAware;
        let (distance, out) =
            (settings.distance_width, if context { settings.hidden } else { classes });
        Ok(Self {
            features,
            network,
            pairs: PairBilinear::declare(parameters, width, distance, out)?,
            attention: context
                .then(|| ContextAttention::declare(parameters, settings.hidden, classes))
                .transpose()?,
            layout,
            foundation,
        })
    }

    /// Class logits [P, C]; `probe` is shown what lies between.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn probed(&self, tables: &WordTables, forward: Forward, probe: Probe) -> Result<Tensor> {
        let pieces = tables.piece_states(&self.foundation, forward)?;
        probe("bert_last_hidden", &pieces);
        let mut words = tables.of_words(&pieces)?;
        if let Some(features) = &self.features {
            words = features.beside(&words, tables)?;
        }
        let context = self.network.forward(&words, tables, forward, probe)?;
        let entities = tables.averages.sum(&context)?;
        probe("entities", &entities);
        let values = self.pairs.forward(&entities, tables)?;
        let Some(attention) = &self.attention else { return Ok(values) };
        probe("bilinear_output", &values);
        let attended = attention.attend(&values, tables)?;
        probe("self_att_output", &attended);
        attention.output.forward(&attended)
    }

    /// The two sides of each pair, [entity; distance row] [P, w], from entity vectors [E, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn pair_sides(&self, entities: &Tensor, tables: &WordTables) -> Result<(Tensor, Tensor)> {
        self.pairs.sides(entities, tables)
    }
}

impl Extractor for Baseline {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<BaselineLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        self.layout.classes()
    }

    /// One global threshold; "related or not" by the larger of the two scores (BERT-TS's release).
    fn decision(&self) -> DecisionRule {
        if self.layout.labels == Labels::Existence {
            DecisionRule::ArgMax
        } else {
            DecisionRule::Threshold
        }
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        self.probed(tables(&batch.tables)?, forward, &mut |_, _| {})
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }
}
