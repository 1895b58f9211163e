//! What the Transformer encoders share: running layers over packed documents, loading, growing and
//! saving. A family adds its configuration and names its parts.
//!
//! Nothing is padded, so every product sees real tokens only. Not for: the products themselves
//! (`torch`), or what one family alone has (its folder).

mod activation;
mod block;
mod config;
mod dimensions;
mod embeddings;
mod family;
mod local_start;
mod network;
mod stack;

use std::fmt;

use serde_json::Value;
use tch::Tensor;

pub(super) use activation::HiddenAct;
pub(super) use block::{BERT_NAMES, BlockNames, PostNorm, PostNormPlan};
pub(super) use config::Config;
pub(super) use dimensions::{Dimensions, Limit};
pub(super) use embeddings::{EmbeddingPlan, PositionTable, Projection};
pub(super) use family::Family;
pub(super) use network::{AttentionScores, EncoderNetwork, Layer, LayerScores, Plain};
pub(super) use stack::Stack;

use super::attended::{TIMES, extended_positions};
use super::word_vectors::embed_projected;
use super::{
    Attended, Attending, Encoder, EncoderFacts, EncoderKind, LayerStates, NewEncoder, Pass,
    TokenStream,
};
use crate::torch::Parameters;
use crate::torch::dropout::dropout;
use crate::torch::hf::{ModelFolder, load};
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::context::{AttentionTable, SingleRows, entity_attention};
use crate::{Error, Result};

/// Key of the configuration that says that positions were extended, with which α.
const EXTENDED: &str = "extended_positions_alpha";

/// Places of a layer that draw dropout masks: attention probabilities, attention output,
/// feed-forward output.
const MASKS_A_LAYER: u64 = 3;

/// An encoder of a family.
pub(super) struct Transformer<F: Family> {
    config: Config<F::Keys>,
    network: EncoderNetwork,
    facts: EncoderFacts,
}

impl<F: Family> fmt::Debug for Transformer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(F::MODEL_TYPE).field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl<F: Family> Transformer<F> {
    /// An encoder with new weights.
    fn create(new: &NewEncoder, pieces: i64, params: &mut Parameters) -> Result<Self> {
        let mut config = Config::<F::Keys>::preset::<F>(&new.preset, pieces, new.padding)?;
        config.replace::<F>(&new.overrides)?;
        let mut encoder = Self::declare(config, params)?;
        let keys = &encoder.config.keys;
        if new.local && !F::start_local(keys, params)? {
            encoder.facts.notes.push(format!(
                "attention does not start local: `{}` has no position table",
                F::MODEL_TYPE
            ));
        }
        if let Some(words) = &new.words {
            let std = F::dimensions(keys).initializer_range;
            let table = &encoder.network.embeddings.words;
            embed_projected(table, &words.vectors, &words.vocabulary, std, words.seed)?;
        }
        Ok(encoder)
    }

    /// An encoder with initial weights.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a configuration that cannot be built.
    pub(super) fn declare(config: Config<F::Keys>, params: &mut Parameters) -> Result<Self> {
        config.check::<F>()?;
        params.declare_all(F::slots(&config.keys)?)?;
        let network = F::network(&config.keys, params)?;
        let of = F::dimensions(&config.keys);
        let notes = padding_note::<F>(&config).into_iter().collect();
        let facts = EncoderFacts {
            max_positions: of.limit.tokens().and_then(|tokens| usize::try_from(tokens).ok()),
            dropout_rates: of.dropout_rates,
            attention_heads: Some(of.heads),
            layers: Some(network.layers.len()),
            ..EncoderFacts::new(of.width, notes)
        };
        Ok(Self { config, network, facts })
    }

    /// An encoder with the weights of a folder. Where the tokenizer has more pieces than the
    /// checkpoint, rows are added to the word table.
    ///
    /// # Errors
    /// [`Error::Data`] where weights are missing or do not fit the configuration.
    fn load(folder: &mut ModelFolder, pieces: i64, params: &mut Parameters) -> Result<Self> {
        let mut config = Config::<F::Keys>::read::<F>(&folder.config)
            .map_err(|error| folder.in_config(&error))?;
        config.check::<F>().map_err(|error| folder.in_config(&error))?;
        check_depth(folder, F::dimensions(&config.keys).layers)?;
        let mut notes = load::check(folder, &F::slots(&config.keys)?)?;
        notes.extend(grow::<F>(&mut config, pieces)?);
        let mut encoder = Self::declare(config, params)?;
        load::fill(folder, params)?;
        encoder.facts.notes.extend(notes);
        Ok(encoder)
    }

    /// Runs all layers.
    fn run(
        &self,
        stream: &TokenStream,
        first: usize,
        plan: Option<&AttentionTable>,
        pass: &Pass,
    ) -> Result<Ran> {
        F::dimensions(&self.config.keys).limit.check(stream.segments.longest)?;
        let mut states = self.network.embeddings.forward(stream, pass)?;
        let scores = self.network.scores.of_pass(stream, pass)?;
        let masks = pass.attention_dropout.as_ref();
        let (mut kept, mut attention) = (Vec::new(), Vec::new());
        for (index, layer) in self.network.layers.iter().enumerate() {
            let salt = 1 + MASKS_A_LAYER * index as u64;
            let terms = scores(index)?;
            let qkv = layer.qkv(&states, pass)?;
            if let Some(plan) = plan.filter(|_| index >= first) {
                let rows = entity_attention(&qkv, &stream.segments, plan, &terms, masks, salt)?;
                attention.push(rows);
            }
            let context = varlen_attention(&qkv, &stream.segments, &terms, masks, salt)?;
            states = layer.finish(&states, &context, stream, pass, salt)?;
            if index >= first {
                kept.push(states.shallow_clone());
            }
        }
        let last = self.finished(&states, pass)?;
        Ok(Ran { kept, attention, last })
    }

    /// The states of the last layer as the encoder gives them.
    fn finished(&self, states: &Tensor, pass: &Pass) -> Result<Tensor> {
        let states = match &self.network.norm {
            Some(norm) => norm.forward(states)?,
            None => states.shallow_clone(),
        };
        if !self.network.drops_output {
            return Ok(states);
        }
        let salt = 1 + MASKS_A_LAYER * self.network.layers.len() as u64;
        dropout(&states, pass.hidden_dropout.as_ref(), salt)
    }
}

/// What a pass through all layers gives.
struct Ran {
    /// The states after each layer from the first that was asked for, before
    /// [`EncoderNetwork::norm`].
    kept: Vec<Tensor>,
    /// The attention of entities in the same layers.
    attention: Vec<Tensor>,
    /// The states of the last layer, finished.
    last: Tensor,
}

impl<F: Family> Encoder for Transformer<F> {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn encode(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor> {
        Ok(self.run(stream, self.network.layers.len(), None, pass)?.last)
    }

    fn encode_attended(
        &self,
        stream: &TokenStream,
        asked: &Attending,
        pass: &Pass,
    ) -> Result<Attended> {
        let (total, counted) = (self.network.layers.len(), asked.layers.max(1));
        let first = total.checked_sub(counted).ok_or_else(|| {
            Error::recipe(format!(
                "the mean of {counted} layers was asked of an encoder with {total}"
            ))
        })?;
        // The mean over layers comes before windows are put together.
        let single = asked.plan.filter(|_| counted > 1).and_then(SingleRows::of);
        let plan = single.as_ref().map_or(asked.plan, |single| Some(&single.table));
        let Ran { mut kept, attention, last } = self.run(stream, first, plan, pass)?;
        kept.pop();
        kept.push(last);
        let mut attended = Attended::mean(&kept, &attention)?;
        if let (Some(single), Some(rows)) = (single, &attended.attention) {
            let heads = F::dimensions(&self.config.keys).heads;
            attended.attention = Some(single.joined(rows, heads)?);
        }
        Ok(attended)
    }

    fn layer_states(&self, stream: &TokenStream, pass: &Pass) -> Result<LayerStates> {
        let embedding = self.network.embeddings.forward(stream, pass)?;
        let Ran { kept, last, .. } = self.run(stream, 0, None, pass)?;
        Ok(LayerStates { embedding, layers: kept, last })
    }

    /// Replaces the position table by its hierarchical extension, once.
    fn extend_positions(&mut self, alpha: f64, parameters: &mut Parameters) -> Result<()> {
        if self.config.other.contains_key(EXTENDED) {
            return Ok(());
        }
        let Some(table) = &mut self.network.embeddings.positions else {
            // Distances need no rows: longer documents can be read as they are.
            self.facts.max_positions = self.facts.max_positions.map(|most| TIMES * most);
            return Ok(());
        };
        if table.padding.is_some() {
            return Err(Error::recipe(format!(
                "the positions of the family `{}` cannot be extended, because they do not start \
                 with row 0",
                F::MODEL_TYPE
            ))
            .with_hint("encode long documents in windows: `long_documents = \"windows\"`"));
        }
        let rows = tch::no_grad(|| extended_positions(&table.rows, alpha))?;
        table.rows = parameters.replace(table.name, &rows)?;
        self.config.other.insert(EXTENDED.to_owned(), alpha.into());
        F::set_positions(&mut self.config.keys, rows.size()[0]);
        let limit = F::dimensions(&self.config.keys).limit;
        self.facts.max_positions = limit.tokens().and_then(|count| usize::try_from(count).ok());
        Ok(())
    }

    fn config(&self) -> Value {
        self.config.to_json::<F>()
    }
}

/// Keeps a damaged number of layers from building an endless list of names.
fn check_depth(folder: &ModelFolder, layers: i64) -> Result<()> {
    let tensors = folder.tensors.len();
    if usize::try_from(layers).is_ok_and(|layers| layers <= MOST_SHARING * tensors) {
        return Ok(());
    }
    let problem =
        format!("config.json has {layers} layers, but the weights only {tensors} tensors");
    Err(folder.error(problem).into())
}

/// Layers that may share one tensor (ALBERT).
const MOST_SHARING: usize = 8;

/// What to know of an encoder whose padding piece is not the one that its positions leave out.
fn padding_note<F: Family>(config: &Config<F::Keys>) -> Option<String> {
    let own = F::PADDING?;
    let named = config.other.get("pad_token_id")?.as_i64()?;
    (named != own).then(|| {
        format!(
            "the padding piece is {named}, but `{}` counts positions without piece {own}, here as \
             in transformers",
            F::MODEL_TYPE
        )
    })
}

fn grow<F: Family>(config: &mut Config<F::Keys>, pieces: i64) -> Result<Option<String>> {
    let Dimensions { pieces: rows, initializer_range: std, .. } = F::dimensions(&config.keys);
    if pieces <= rows {
        return Ok(None);
    }
    config.set_pieces(pieces)?;
    Ok(Some(format!(
        "the tokenizer has {pieces} pieces, the checkpoint {rows}: {} rows were added from \
         N(0, {std}²)",
        pieces - rows
    )))
}

/// The registry's entry of a family.
pub(in crate::encoders) const fn kind<F: Family>(presets: &'static [&'static str]) -> EncoderKind {
    EncoderKind {
        model_type: F::MODEL_TYPE,
        presets,
        reads_words: false,
        create: |new, pieces, params| Ok(Box::new(Transformer::<F>::create(new, pieces, params)?)),
        load: |folder, pieces, params| {
            Ok(Box::new(Transformer::<F>::load(folder, pieces, params)?))
        },
        size: |config| {
            let of = F::dimensions(&partial::<F>(config)?.keys);
            Some([of.width as f64, of.layers as f64])
        },
        flops: |config, length| Some(F::flops(&partial::<F>(config)?.keys, length)),
    }
}

/// A configuration in which counts that say nothing about the cost may be missing.
fn partial<F: Family>(config: &Value) -> Option<Config<F::Keys>> {
    let mut whole = F::preset([1, 1, 1], 1);
    whole.as_object_mut()?.extend(config.as_object()?.clone());
    Config::read::<F>(&whole).ok()
}
