//! MPNet (Song et al. 2020): BERT's layers with a bias on attention scores, which depends on the
//! distance of two pieces and is the same in all layers. There are no token types.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::bert::{self, BertKeys, POSITION_TABLE};
use super::transformer::{
    AttentionScores, BlockNames, Dimensions, EmbeddingPlan, EncoderNetwork, Family, HiddenAct,
    LayerScores, PositionTable, Stack, kind,
};
use super::{EncoderKind, Pass, TokenStream};
use crate::torch::kernels::scores::{DistanceIndex, ScoreTerms};
use crate::torch::{Init, Parameters, Slot};
use crate::{Error, Result};

/// MPNet.
pub(super) enum MpNet {}

/// The registry's entry.
pub(super) const MPNET: EncoderKind = kind::<MpNet>(&["mpnet-tiny", "mpnet-mini", "mpnet-base"]);

/// The piece that positions are counted without. It is fixed in the reference, whatever padding
/// piece the configuration names.
const PADDING: i64 = 1;
/// Buckets of distances. The key of the configuration sizes the table, and changes nothing else.
const BUCKETS: i64 = 32;
const BIAS: &str = "encoder.relative_attention_bias.weight";

const NAMES: BlockNames = BlockNames {
    projections: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    inner: "intermediate.dense",
    output: "output.dense",
    norm: "output.LayerNorm",
};

/// The keys of Hugging Face's `MPNetConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MpNetKeys {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    /// Rows of the position table: two more than the longest document has pieces.
    max_position_embeddings: i64,
    /// Rows of the table of biases.
    relative_attention_num_buckets: i64,
    hidden_act: String,
    hidden_dropout_prob: f64,
    attention_probs_dropout_prob: f64,
    initializer_range: f64,
    layer_norm_eps: f64,
}

impl MpNetKeys {
    fn embeddings(&self) -> EmbeddingPlan {
        EmbeddingPlan {
            words: "embeddings.word_embeddings.weight",
            pieces: self.vocab_size,
            width: self.hidden_size,
            positions: Some(PositionTable {
                name: POSITION_TABLE,
                rows: self.max_position_embeddings,
                padding: Some(PADDING),
            }),
            token_types: None,
            norm: Some(("embeddings.LayerNorm", true)),
            eps: self.layer_norm_eps,
            projection: None,
            std: self.initializer_range,
        }
    }

    fn stack(&self) -> Result<Stack> {
        let mut stack = self.as_bert().stack(self.embeddings())?;
        stack.layer.names = NAMES;
        Ok(stack)
    }

    /// The numbers that MPNet shares with BERT.
    fn as_bert(&self) -> BertKeys {
        BertKeys {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: 1,
            hidden_act: self.hidden_act.clone(),
            hidden_dropout_prob: self.hidden_dropout_prob,
            attention_probs_dropout_prob: self.attention_probs_dropout_prob,
            initializer_range: self.initializer_range,
            layer_norm_eps: self.layer_norm_eps,
            pad_token_id: None,
            position_embedding_type: "absolute".to_owned(),
        }
    }
}

/// Distances from which the rows of far pieces begin, in either direction. The logarithm of the
/// paper depends on rounding at exact powers, a table does not.
const FAR: [i64; 8] = [8, 12, 16, 23, 32, 46, 64, 91];

/// The row of a distance (key − query): the lower half for keys before the query.
fn bucket(distance: i64) -> i64 {
    let half = if distance > 0 { BUCKETS / 2 } else { 0 };
    let steps = distance.abs();
    let near = FAR[0];
    half + if steps < near {
        steps
    } else {
        near - 1 + FAR.iter().filter(|&&least| steps >= least).count() as i64
    }
}

/// The biases of all layers.
#[derive(Debug)]
struct Biases {
    /// [buckets, heads]
    table: Tensor,
    head_width: i64,
}

impl AttentionScores for Biases {
    fn of_pass<'a>(&'a self, stream: &'a TokenStream, _pass: &'a Pass) -> Result<LayerScores<'a>> {
        let index = DistanceIndex::new(stream.segments.longest, bucket)?;
        let table = self.table.f_to_kind(Kind::Float)?.f_contiguous()?;
        Ok(Box::new(move |_| {
            Ok(ScoreTerms {
                index: Some(index.shallow_clone()),
                bias: Some(table.shallow_clone()),
                ..ScoreTerms::plain(self.head_width)
            })
        }))
    }
}

impl Family for MpNet {
    type Keys = MpNetKeys;
    const MODEL_TYPE: &'static str = "mpnet";
    const ARCHITECTURE: &'static str = "MPNetModel";
    const PADDING: Option<i64> = Some(PADDING);

    fn assumed() -> Value {
        let mut assumed = bert::assumed();
        assumed["relative_attention_num_buckets"] = json!(BUCKETS);
        assumed
    }

    fn preset(size: [i64; 3], pieces: i64) -> Value {
        let mut config = bert::preset(size, pieces);
        config["max_position_embeddings"] = json!(512 + PADDING + 1);
        config["layer_norm_eps"] = json!(1e-5);
        config["pad_token_id"] = json!(PADDING);
        config
    }

    fn dimensions(keys: &MpNetKeys) -> Dimensions {
        keys.as_bert().dimensions(Some(PADDING))
    }

    fn check(keys: &MpNetKeys) -> Result<()> {
        HiddenAct::named("hidden_act", &keys.hidden_act)?;
        let buckets = keys.relative_attention_num_buckets;
        if buckets < BUCKETS {
            return Err(Error::recipe(format!(
                "`relative_attention_num_buckets` is {buckets}, but there are {BUCKETS} buckets"
            )));
        }
        Ok(())
    }

    fn slots(keys: &MpNetKeys) -> Result<Vec<Slot>> {
        let mut slots = keys.stack()?.slots();
        let normal = Init::Normal { std: keys.initializer_range };
        let shape = [keys.relative_attention_num_buckets, keys.num_attention_heads];
        slots.push(Slot::new(BIAS, &shape, normal));
        slots.extend(keys.as_bert().pooler());
        Ok(slots)
    }

    fn network(keys: &MpNetKeys, params: &Parameters) -> Result<EncoderNetwork> {
        let head_width = keys.hidden_size / keys.num_attention_heads;
        let biases = Biases { table: params.handle(BIAS)?, head_width };
        keys.stack()?.network(params, Box::new(biases))
    }

    fn start_local(keys: &MpNetKeys, params: &Parameters) -> Result<bool> {
        keys.stack()?.start_local(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_have_the_rows_of_the_reference() {
        // The logarithm form at distances where rounding does not matter.
        let reference = |steps: i64| {
            let far = 8.0 + ((steps as f64 / 8.0).ln() / 16f64.ln() * 8.0 + 1e-9).trunc();
            if steps < 8 { steps } else { (far as i64).min(15) }
        };
        for steps in 0..600 {
            assert_eq!(bucket(-steps), reference(steps), "{steps}");
            assert_eq!(bucket(steps.max(1)), 16 + reference(steps.max(1)), "{steps}");
        }
    }
}
