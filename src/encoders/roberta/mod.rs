//! RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): BERT whose positions begin
//! behind the number of the padding piece and are counted without that piece.

use serde_json::{Value, json};

use super::EncoderKind;
use super::bert::{self, BertKeys};
use super::transformer::{Dimensions, EncoderNetwork, Family, Stack, kind};
use crate::torch::{Parameters, Slot};
use crate::{Error, Result};

/// RoBERTa, or XLM-RoBERTa, which differs in its name alone.
pub(super) enum Roberta<const XLM: bool> {}

/// The registry's entry of RoBERTa.
pub(super) const ROBERTA: EncoderKind =
    kind::<Roberta<false>>(&["roberta-tiny", "roberta-mini", "roberta-base"]);

/// The registry's entry of XLM-RoBERTa.
pub(super) const XLM_ROBERTA: EncoderKind =
    kind::<Roberta<true>>(&["xlm-roberta-tiny", "xlm-roberta-mini", "xlm-roberta-base"]);

/// The padding piece of configurations that do not name one.
const PADDING: i64 = 1;

fn padding(keys: &BertKeys) -> i64 {
    keys.pad_token_id.unwrap_or(PADDING)
}

fn stack(keys: &BertKeys) -> Result<Stack> {
    keys.stack(keys.embeddings(Some(padding(keys))))
}

impl<const XLM: bool> Family for Roberta<XLM> {
    type Keys = BertKeys;
    const MODEL_TYPE: &'static str = if XLM { "xlm-roberta" } else { "roberta" };
    const ARCHITECTURE: &'static str = if XLM { "XLMRobertaModel" } else { "RobertaModel" };
    const COUNTS: &'static [&'static str] = &["type_vocab_size"];

    fn assumed() -> Value {
        bert::assumed()
    }

    fn preset(size: [i64; 3], pieces: i64) -> Value {
        let mut config = bert::preset(size, pieces);
        config["max_position_embeddings"] = json!(512 + PADDING + 1);
        config["type_vocab_size"] = json!(1);
        config["layer_norm_eps"] = json!(1e-5);
        config["pad_token_id"] = json!(PADDING);
        config
    }

    fn dimensions(keys: &BertKeys) -> Dimensions {
        keys.dimensions(Some(padding(keys)))
    }

    fn check(keys: &BertKeys) -> Result<()> {
        let padding = padding(keys);
        if padding < 0 {
            return Err(Error::recipe(format!(
                "`pad_token_id` is {padding}, but positions begin behind the number of that piece"
            ))
            .with_hint("name the number of the padding piece; that of RoBERTa is 1"));
        }
        keys.check()
    }

    fn slots(keys: &BertKeys) -> Result<Vec<Slot>> {
        let mut slots = stack(keys)?.slots();
        slots.extend(keys.pooler());
        Ok(slots)
    }

    fn network(keys: &BertKeys, params: &Parameters) -> Result<EncoderNetwork> {
        stack(keys)?.plain_network(params)
    }

    fn start_local(keys: &BertKeys, params: &Parameters) -> Result<bool> {
        stack(keys)?.start_local(params)
    }
}
