//! BERT (Devlin et al. 2019) over packed documents: nothing is padded, so every product sees real
//! tokens only.
//!
//! Post-norm layers as in Hugging Face's `BertModel`; token type 0 everywhere; the pooler is saved
//! and loaded but not computed. RoBERTa differs in the row of its first position alone.

mod config;
mod local_start;

use serde_json::Value;
use tch::Tensor;

use super::attended::extended_positions;
use super::word_vectors::embed_projected;
use super::{
    Attended, Attending, Encoder, EncoderFacts, EncoderKind, NewEncoder, Pass, TokenStream, kind,
};
use crate::torch::Parameters;
use crate::torch::dropout::dropout;
use crate::torch::hf::{ModelFolder, load};
use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::context::entity_attention;
use crate::torch::nn::{LayerNorm, Linear, SelfAttention, lookup};
use crate::{Error, Result};
pub(super) use config::BertConfig;
use local_start::start_local;

/// The registry's entry of BERT.
pub(super) const BERT: EncoderKind = EncoderKind {
    model_type: config::BERT,
    presets: config::PRESETS,
    reads_words: false,
    create: |new, pieces, params| Ok(Box::new(Bert::create(new, pieces, params)?)),
    load: |folder, pieces, params| Ok(Box::new(Bert::load(folder, pieces, params)?)),
    flops,
};

/// The registry's entry of RoBERTa, which has no preset.
pub(super) const ROBERTA: EncoderKind =
    EncoderKind { model_type: config::ROBERTA, presets: &[], ..BERT };

/// Products with the weights, and the products of queries and keys and of probabilities and values.
fn flops(config: &Value, length: f64) -> Option<f64> {
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let (layers, width, inner) =
        (number("num_hidden_layers")?, number("hidden_size")?, number("intermediate_size")?);
    Some(
        layers
            * (length * (8.0 * width * width + 4.0 * width * inner)
                + 4.0 * length * length * width),
    )
}

/// Name of the word-piece table.
const WORD_TABLE: &str = "embeddings.word_embeddings.weight";

/// Name of the position table.
const POSITION_TABLE: &str = "embeddings.position_embeddings.weight";

/// Key of the configuration that says that positions were extended, with which α.
const EXTENDED: &str = "extended_positions_alpha";

/// Places of a layer that draw dropout masks: attention probabilities, attention output,
/// feed-forward output.
const MASKS_A_LAYER: u64 = 3;

/// A BERT encoder.
#[derive(Debug)]
pub(super) struct Bert {
    config: BertConfig,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    facts: EncoderFacts,
}

impl Bert {
    fn create(new: &NewEncoder, pieces: i64, params: &mut Parameters) -> Result<Self> {
        let preset = BertConfig::preset(&new.preset, pieces)?;
        let config = kind::overridden(&preset, &new.overrides)?;
        let std = config.initializer_range;
        let bert = Self::declare(config, params)?;
        if new.local {
            start_local(&bert.config, params)?;
        }
        if let Some(words) = &new.words {
            let table = &bert.embeddings.words;
            embed_projected(table, &words.vectors, &words.vocabulary, std, words.seed)?;
        }
        Ok(bert)
    }

    /// A BERT with random weights.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a configuration that cannot be built.
    pub(super) fn declare(config: BertConfig, params: &mut Parameters) -> Result<Self> {
        config.validate()?;
        let activation = activation(&config.hidden_act)?;
        params.declare_all(config.slots())?;
        let embeddings = Embeddings::get(params, &config)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::get(params, &config, layer, activation))
            .collect::<Result<_>>()?;
        let facts = EncoderFacts {
            max_positions: usize::try_from(config.positions()).ok(),
            dropout_rates: (config.hidden_dropout_prob, config.attention_probs_dropout_prob),
            attention_heads: Some(config.num_attention_heads),
            ..EncoderFacts::new(config.hidden_size, Vec::new())
        };
        Ok(Self { config, embeddings, layers, facts })
    }

    /// A BERT with the weights of a folder. Where the tokenizer has more pieces than the
    /// checkpoint, rows are added to the word table.
    ///
    /// # Errors
    /// [`Error::Data`] where weights are missing or do not fit the configuration.
    fn load(folder: &mut ModelFolder, pieces: i64, params: &mut Parameters) -> Result<Self> {
        let mut config =
            BertConfig::read(&folder.config).map_err(|error| folder.in_config(&error))?;
        config.validate().map_err(|error| folder.in_config(&error))?;
        check_depth(folder, &config)?;
        let mut notes = load::check(folder, &config.slots())?;
        notes.extend(grow(&mut config, pieces));
        let mut bert = Self::declare(config, params)?;
        load::fill(folder, params)?;
        bert.facts.notes = notes;
        Ok(bert)
    }
}

/// Keeps a damaged `num_hidden_layers` from building an endless list of names.
fn check_depth(folder: &ModelFolder, config: &BertConfig) -> Result<()> {
    let tensors = folder.tensors.len();
    if usize::try_from(config.num_hidden_layers).is_ok_and(|layers| layers <= tensors) {
        return Ok(());
    }
    Err(folder
        .error(format!(
            "config.json has {} layers, but the weights only {tensors} tensors",
            config.num_hidden_layers
        ))
        .into())
}

fn grow(config: &mut BertConfig, vocab_size: i64) -> Option<String> {
    let rows = config.vocab_size;
    if vocab_size <= rows {
        return None;
    }
    config.vocab_size = vocab_size;
    let std = config.initializer_range;
    Some(format!(
        "the tokenizer has {vocab_size} pieces, the checkpoint {rows}: {} rows were added from \
         N(0, {std}²)",
        vocab_size - rows
    ))
}

impl Encoder for Bert {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn encode(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor> {
        Ok(self.encode_attended(stream, &Attending { layers: 1, plan: None }, pass)?.states)
    }

    fn encode_attended(
        &self,
        stream: &TokenStream,
        asked: &Attending,
        pass: &Pass,
    ) -> Result<Attended> {
        check_lengths(stream.segments.longest, self.config.positions())?;
        let (total, counted) = (self.layers.len(), asked.layers.max(1));
        let first = total.checked_sub(counted).ok_or_else(|| {
            Error::recipe(format!(
                "the mean of {counted} layers was asked of an encoder with {total}"
            ))
        })?;
        let mut states = self.embeddings.forward(stream, pass)?;
        let (mut kept, mut attention) = (Vec::new(), Vec::new());
        for (index, layer) in self.layers.iter().enumerate() {
            let salt = 1 + MASKS_A_LAYER * index as u64;
            let qkv = layer.attention.qkv(&states, pass.precision)?;
            if let Some(plan) = asked.plan.filter(|_| index >= first) {
                attention.push(entity_attention(
                    &qkv,
                    &stream.segments,
                    plan,
                    pass.attention_dropout.as_ref(),
                    salt,
                )?);
            }
            states = layer.forward(&states, &qkv, stream, pass, salt)?;
            if index >= first {
                kept.push(states.shallow_clone());
            }
        }
        Attended::mean(&kept, &attention)
    }

    /// Replaces the position table by its hierarchical extension, once.
    fn extend_positions(&mut self, alpha: f64, parameters: &mut Parameters) -> Result<()> {
        if self.config.other.contains_key(EXTENDED) {
            return Ok(());
        }
        if self.config.first_position() > 0 {
            return Err(Error::recipe("the positions of a RoBERTa cannot be extended")
                .with_hint("encode long documents in windows"));
        }
        let table = tch::no_grad(|| extended_positions(&self.embeddings.positions, alpha))?;
        self.config.max_position_embeddings = table.size()[0];
        self.facts.max_positions = usize::try_from(self.config.positions()).ok();
        self.config.other.insert(EXTENDED.to_owned(), alpha.into());
        self.embeddings.positions = parameters.replace(POSITION_TABLE, &table)?;
        Ok(())
    }

    fn config(&self) -> Value {
        self.config.to_json()
    }
}

fn check_lengths(longest: i64, positions: i64) -> Result<()> {
    if longest <= positions {
        return Ok(());
    }
    Err(Error::recipe(format!(
        "a document of {longest} pieces does not fit the encoder, which has \
        {positions} positions"
    ))
    .with_hint(
        "encode long documents in windows, allow them to be cut, or take an encoder \
            with more positions",
    ))
}

/// Word pieces, positions and token type 0.
#[derive(Debug)]
struct Embeddings {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    norm: LayerNorm,
    first_position: i64,
}

impl Embeddings {
    fn get(params: &Parameters, config: &BertConfig) -> Result<Self> {
        Ok(Self {
            words: params.handle(WORD_TABLE)?,
            positions: params.handle(POSITION_TABLE)?,
            token_types: params.handle("embeddings.token_type_embeddings.weight")?,
            norm: LayerNorm::get(params, "embeddings.LayerNorm", config.layer_norm_eps)?,
            first_position: config.first_position(),
        })
    }

    /// [T, d]
    fn forward(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor> {
        let words = lookup(&self.words, &stream.ids)?;
        let positions =
            lookup(&self.positions, &stream.positions.f_add_scalar(self.first_position)?)?;
        let sum = words.f_add(&positions)?.f_add(&self.token_types.f_select(0, 0)?)?;
        dropout(&self.norm.forward(&sum)?, pass.hidden_dropout.as_ref(), 0)
    }
}

/// One layer: attention, then the feed-forward network, each with a residual connection and a norm.
#[derive(Debug)]
struct Layer {
    attention: SelfAttention,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    activation: Option<Activation>,
    output: Linear,
    norm: LayerNorm,
}

impl Layer {
    fn get(
        params: &Parameters,
        config: &BertConfig,
        layer: i64,
        activation: Option<Activation>,
    ) -> Result<Self> {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let [query, key, value] =
            ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        let norm = |part: &str| LayerNorm::get(params, &name(part), config.layer_norm_eps);
        Ok(Self {
            attention: SelfAttention::get(
                params,
                [&query, &key, &value],
                config.num_attention_heads,
            )?,
            attention_output: Linear::get(params, &name("attention.output.dense"))?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: Linear::get(params, &name("intermediate.dense"))?,
            activation,
            output: Linear::get(params, &name("output.dense"))?,
            norm: norm("output.LayerNorm")?,
        })
    }

    /// [T, d] and its queries, keys and values → [T, d]; masks are drawn with `salt` and the two
    /// numbers after it.
    fn forward(
        &self,
        x: &Tensor,
        qkv: &Tensor,
        stream: &TokenStream,
        pass: &Pass,
        salt: u64,
    ) -> Result<Tensor> {
        let context =
            varlen_attention(qkv, &stream.segments, pass.attention_dropout.as_ref(), salt)?;
        let attended = self.attention_output.forward_in(&context, pass.precision)?;
        let attended = dropout(&attended, pass.hidden_dropout.as_ref(), salt + 1)?;
        let x = self.attention_norm.forward(&x.f_add(&attended)?)?;
        let inner = self.intermediate.forward_in(&x, pass.precision)?;
        let inner = match self.activation {
            Some(activation) => activation.apply(&inner)?,
            None => inner.f_relu()?,
        };
        let output = dropout(
            &self.output.forward_in(&inner, pass.precision)?,
            pass.hidden_dropout.as_ref(),
            salt + 2,
        )?;
        self.norm.forward(&x.f_add(&output)?)
    }
}

/// The activation of that name; `None` is relu.
fn activation(name: &str) -> Result<Option<Activation>> {
    match name {
        "gelu" => Ok(Some(Activation::Gelu)),
        "gelu_new" => Ok(Some(Activation::GeluTanh)),
        "relu" => Ok(None),
        _ => Err(Error::recipe(format!("`hidden_act` is `{name}`"))
            .with_hint("the known activations are gelu, gelu_new and relu")),
    }
}
