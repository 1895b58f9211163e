//! What the model of a case is built on: an encoder of the case's dimensions, and the relations,
//! types and pieces of its documents.

use serde_json::json;
use tch::Device;

use crate::Result;
use crate::encoders::{EncoderSpec, build};
use crate::parity::Case;
use crate::systems::Foundation;
use crate::text::{SpecialPieces, Tokenizer};
use crate::torch::{Parameters, Precision};
use crate::train::Forward;

/// The references were run without dropout, in 32 bits.
pub(crate) const EVALUATION: Forward = Forward { train: false, precision: Precision::Fp32 };

/// The same for systems with recurrent layers, which cuDNN differentiates in training alone. The
/// settings of their cases drop nothing out.
pub(crate) const DIFFERENTIATED: Forward = Forward { train: true, ..EVALUATION };

/// Entity types of DocRED in the order of their numbers, from 1 (docs/formats.md, "DocRED and
/// Re-DocRED"); the typed markers of DocRE-II follow it.
pub(crate) const DOCRED_TYPES: [&str; 6] = ["ORG", "LOC", "TIME", "PER", "MISC", "NUM"];

/// Where a case states the sizes of its BERT.
pub(crate) struct BertSizes<'a> {
    /// What stands before `hidden`, `layers`, `heads` and `intermediate`, such as `/dims/bert_`.
    pub prefix: &'a str,
    /// Number of positions.
    pub positions: usize,
    /// Path of the ε of layer norms; 1e-12 where it is absent.
    pub epsilon: &'a str,
}

/// A BERT of the sizes that a case states, without dropout.
pub(crate) fn bert(case: &Case, sizes: &BertSizes) -> Result<EncoderSpec> {
    let path = |key: &str| format!("{}{key}", sizes.prefix);
    let config = json!({
        "hidden_size": case.number(&path("hidden"))?,
        "num_hidden_layers": case.number(&path("layers"))?,
        "num_attention_heads": case.number(&path("heads"))?,
        "intermediate_size": case.number(&path("intermediate"))?,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": case.at(&path("type_vocab")).as_u64().unwrap_or(2),
        "hidden_act": "gelu",
        "layer_norm_eps": case.at(sizes.epsilon).as_f64().unwrap_or(1e-12),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    });
    Ok(EncoderSpec::preset("tiny", config))
}

/// An encoder with a word table of `rows` rows on the device of the case, and room for a system's
/// parameters.
pub(crate) fn foundation(
    device: Device,
    spec: &EncoderSpec,
    rows: i64,
    relations: usize,
    types: &[&str],
    pieces: &SpecialPieces,
) -> Result<Foundation> {
    let mut parameters = Parameters::new(0, device);
    let encoder = build(spec, rows, &mut parameters)?;
    Ok(Foundation {
        encoder,
        twin: None,
        parameters,
        relations,
        entity_types: types.iter().map(|&name| name.to_owned()).collect(),
        pieces: pieces.clone(),
        max_pieces: None,
        truncate: false,
        dropout: Some(0.0),
        seed: 0,
    })
}

/// [`foundation`] on the BERT of `/dims/encoder`, for documents of word pieces.
pub(crate) fn on_pieces(
    case: &Case,
    tokenizer: &Tokenizer,
    relations: usize,
) -> Result<Foundation> {
    let dims = |key: &str| case.number(&format!("/dims/encoder/{key}"));
    let rows = tokenizer.vocab_size().min(dims("vocab")? as usize);
    let positions = dims("max_position")? as usize;
    let spec = bert(
        case,
        &BertSizes { prefix: "/dims/encoder/", positions, epsilon: "/dims/encoder/layer_norm_eps" },
    )?;
    foundation(case.device(), &spec, rows as i64, relations, &DOCRED_TYPES, tokenizer.special())
}
