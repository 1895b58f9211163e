//! All encoders, one line each.
//!
//! An encoder is a folder or file of this room with an [`EncoderKind`], and a line in [`ENCODERS`].
//! Nothing else in the program asks which encoder it has.

use serde_json::Value;

use super::{
    EncoderKind, albert, bert, bilstm, deberta, distilbert, electra, modernbert, mpnet, roberta,
    words, xlnet,
};

/// The encoders. A configuration without `model_type` is the first one's: those written before 2020
/// do not name their type.
const ENCODERS: &[&EncoderKind] = &[
    &bert::BERT,
    &roberta::ROBERTA,
    &roberta::XLM_ROBERTA,
    &electra::ELECTRA,
    &distilbert::DISTILBERT,
    &albert::ALBERT,
    &mpnet::MPNET,
    &deberta::DEBERTA,
    &xlnet::XLNET,
    &modernbert::MODERNBERT,
    &bilstm::BILSTM,
    &words::WORDS,
    #[cfg(test)]
    &super::tests::toy::TOY,
];

/// Values of `model_type` that are known.
pub(super) fn model_types() -> Vec<&'static str> {
    ENCODERS.iter().map(|kind| kind.model_type).collect()
}

/// Names of all presets.
pub(super) fn presets() -> Vec<&'static str> {
    ENCODERS.iter().flat_map(|kind| kind.presets).copied().collect()
}

/// The encoder that has this preset.
pub(super) fn kind_of_preset(name: &str) -> Option<&'static EncoderKind> {
    ENCODERS.iter().find(|kind| kind.presets.contains(&name)).copied()
}

/// The encoder that a `config.json` belongs to.
pub(super) fn kind_of_config(config: &Value) -> Option<&'static EncoderKind> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or(ENCODERS[0].model_type);
    ENCODERS.iter().find(|kind| kind.model_type == model_type).copied()
}

/// Width of an encoder's states and number of its layers, from its `config.json`; `None` where they
/// are not known.
pub fn encoder_size(config: &Value) -> Option<[f64; 2]> {
    (kind_of_config(config)?.size)(config)
}

/// Forward FLOPs of an encoder for a document of `length` pieces, from its `config.json`; `None`
/// where they are not known.
pub fn encoder_flops(config: &Value, length: f64) -> Option<f64> {
    (kind_of_config(config)?.flops)(config, length)
}
