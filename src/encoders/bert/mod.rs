//! BERT (Devlin et al. 2019).
//!
//! Post-norm layers as in Hugging Face's `BertModel`; token type 0 everywhere; the pooler is saved
//! and loaded but not computed.

mod config;

use serde_json::{Value, json};

use super::EncoderKind;
use super::transformer::{Dimensions, EncoderNetwork, Family, kind};
use crate::Result;
use crate::torch::{Parameters, Slot};
pub(super) use config::{BertKeys, POSITION_TABLE, assumed, preset};

/// BERT.
pub(super) enum Bert {}

/// The registry's entry.
pub(super) const BERT: EncoderKind = kind::<Bert>(&["tiny", "mini", "base"]);

impl Family for Bert {
    type Keys = BertKeys;
    const MODEL_TYPE: &'static str = "bert";
    const ARCHITECTURE: &'static str = "BertModel";
    const COUNTS: &'static [&'static str] = &["type_vocab_size"];

    fn assumed() -> Value {
        assumed()
    }

    fn preset(size: [i64; 3], pieces: i64) -> Value {
        let mut config = preset(size, pieces);
        config["pad_token_id"] = json!(0);
        config
    }

    fn dimensions(keys: &BertKeys) -> Dimensions {
        keys.dimensions(None)
    }

    fn check(keys: &BertKeys) -> Result<()> {
        keys.check()
    }

    fn set_positions(keys: &mut BertKeys, rows: i64) {
        keys.max_position_embeddings = rows;
    }

    fn slots(keys: &BertKeys) -> Result<Vec<Slot>> {
        let mut slots = keys.stack(keys.embeddings(None))?.slots();
        slots.extend(keys.pooler());
        Ok(slots)
    }

    fn network(keys: &BertKeys, params: &Parameters) -> Result<EncoderNetwork> {
        keys.stack(keys.embeddings(None))?.plain_network(params)
    }

    fn start_local(keys: &BertKeys, params: &Parameters) -> Result<bool> {
        keys.stack(keys.embeddings(None))?.start_local(params)
    }
}
