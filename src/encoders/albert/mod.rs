//! ALBERT (Lan et al. 2020): narrow embeddings, always with a linear map behind them, and layers
//! that share their weights. The gradients of shared weights add up.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::EncoderKind;
use super::bert::{self, BertKeys};
use super::transformer::{
    BlockNames, Dimensions, EmbeddingPlan, EncoderNetwork, Family, Projection, Stack, kind,
};
use crate::torch::nn::Linear;
use crate::torch::{Init, Parameters, Slot};
use crate::{Error, Result};

/// ALBERT.
pub(super) enum Albert {}

/// The registry's entry.
pub(super) const ALBERT: EncoderKind =
    kind::<Albert>(&["albert-tiny", "albert-mini", "albert-base"]);

/// Width of the embeddings of presets.
const EMBEDDING: i64 = 128;

const NAMES: BlockNames = BlockNames {
    projections: ["attention.query", "attention.key", "attention.value"],
    attention_output: "attention.dense",
    attention_norm: "attention.LayerNorm",
    inner: "ffn",
    output: "ffn_output",
    norm: "full_layer_layer_norm",
};

/// The keys of Hugging Face's `AlbertConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AlbertKeys {
    #[serde(flatten)]
    bert: BertKeys,
    /// Width of the embeddings.
    embedding_size: i64,
    /// Groups of layers with weights of their own.
    num_hidden_groups: i64,
    /// Blocks that a layer runs one after the other.
    inner_group_num: i64,
}

impl AlbertKeys {
    fn embeddings(&self) -> EmbeddingPlan {
        EmbeddingPlan {
            width: self.embedding_size,
            projection: Some(Projection {
                name: "encoder.embedding_hidden_mapping_in",
                outputs: self.bert.hidden_size,
                biased: true,
                before_norm: false,
            }),
            ..self.bert.embeddings(None)
        }
    }

    fn stack(&self) -> Result<Stack> {
        let mut stack = self.bert.stack(self.embeddings())?;
        stack.layer.names = NAMES;
        stack.layer.drops = [true, false];
        let (layers, groups) = (self.bert.num_hidden_layers, self.num_hidden_groups);
        let block = |group: i64, block: i64| {
            format!("encoder.albert_layer_groups.{group}.albert_layers.{block}")
        };
        stack.names = (0..layers)
            .map(|layer| layer * groups / layers)
            .flat_map(|group| (0..self.inner_group_num).map(move |inner| block(group, inner)))
            .collect();
        Ok(stack)
    }

    /// The pooler, a plain linear map, which is carried along but never used.
    fn pooler(&self) -> impl Iterator<Item = Slot> {
        let normal = Init::Normal { std: self.bert.initializer_range };
        let width = self.bert.hidden_size;
        let slots = Linear::slots("pooler", width, width, [normal, Init::Zeros]);
        slots.into_iter().map(|slot| slot.frozen().optional())
    }
}

impl Family for Albert {
    type Keys = AlbertKeys;
    const MODEL_TYPE: &'static str = "albert";
    const ARCHITECTURE: &'static str = "AlbertModel";
    const COUNTS: &'static [&'static str] =
        &["type_vocab_size", "embedding_size", "num_hidden_groups", "inner_group_num"];

    fn assumed() -> Value {
        let mut assumed = bert::assumed();
        for (key, value) in [
            ("hidden_act", json!("gelu_new")),
            ("hidden_dropout_prob", json!(0.0)),
            ("attention_probs_dropout_prob", json!(0.0)),
            ("embedding_size", json!(EMBEDDING)),
            ("num_hidden_groups", json!(1)),
            ("inner_group_num", json!(1)),
        ] {
            assumed[key] = value;
        }
        assumed
    }

    fn preset(size: [i64; 3], pieces: i64) -> Value {
        let mut config = bert::preset(size, pieces);
        config["pad_token_id"] = json!(0);
        config
    }

    fn dimensions(keys: &AlbertKeys) -> Dimensions {
        let of = keys.bert.dimensions(None);
        Dimensions { layers: of.layers * keys.inner_group_num, ..of }
    }

    fn check(keys: &AlbertKeys) -> Result<()> {
        keys.bert.check()?;
        let (groups, layers) = (keys.num_hidden_groups, keys.bert.num_hidden_layers);
        if groups > layers {
            return Err(Error::recipe(format!(
                "`num_hidden_groups` is {groups}, but there are only {layers} layers"
            )));
        }
        Ok(())
    }

    fn set_positions(keys: &mut AlbertKeys, rows: i64) {
        keys.bert.max_position_embeddings = rows;
    }

    fn slots(keys: &AlbertKeys) -> Result<Vec<Slot>> {
        let mut slots = keys.stack()?.slots();
        slots.extend(keys.pooler());
        Ok(slots)
    }

    fn network(keys: &AlbertKeys, params: &Parameters) -> Result<EncoderNetwork> {
        keys.stack()?.plain_network(params)
    }

    fn start_local(keys: &AlbertKeys, params: &Parameters) -> Result<bool> {
        keys.stack()?.start_local(params)
    }
}
