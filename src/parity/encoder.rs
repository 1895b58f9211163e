//! Cases of encoders: a Hugging Face folder, pieces of documents, and what the reference makes of
//! them: the states of all layers, attention rows, and gradients.

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::case::Case;
use crate::Result;
use crate::encoders::{Attending, Encoder, EncoderSpec, Pass, TokenStream, build};
use crate::text::{PackedWindows, Tokenizer, View, WindowRule, pack};
use crate::torch::kernels::context::{AttentionTable, EntityRow};
use crate::torch::{Parameters, Precision};

/// Recomputes a case of an encoder.
pub(super) fn encoder(case: &mut Case) -> Result<()> {
    let folder = case.path(&case.stated::<String>("/weights/folder")?);
    pieces(case, &mut Tokenizer::load(&folder, None)?)?;
    let spec = EncoderSpec::Folder(folder);
    let mut parameters = Parameters::new(0, case.device());
    let encoder = build(&spec, 0, &mut parameters)?;
    let (ids, _) = case.integers("input_ids")?;
    let (offsets, _) = case.integers("offsets")?;
    let ranges = offsets.windows(2);
    let positions: Vec<i64> = ranges.flat_map(|range| 0..range[1] - range[0]).collect();
    let stream = TokenStream::new(&ids, &positions, &offsets, case.device())?;
    states(case, &*encoder, &stream, &parameters)?;
    attention(case, &*encoder, &stream)
}

/// The texts of a case.
#[derive(Deserialize)]
struct CaseTexts {
    /// Words, odd ones among them.
    words: Vec<String>,
    /// Documents.
    sequences: Vec<Vec<String>>,
}

/// The pieces of words, and those of documents with what stands around them.
fn pieces(case: &mut Case, tokenizer: &mut Tokenizer) -> Result<()> {
    let CaseTexts { words, sequences } = case.json("words.json")?;
    let mut all = Vec::new();
    for word in &words {
        all.extend(tokenizer.tokenize_word(word)?.iter().map(|&id| i64::from(id)));
    }
    case.compare_input("word_pieces", &all)?;
    let (prefix, suffix) = (tokenizer.special().prefix.clone(), tokenizer.special().suffix.clone());
    let mut ids = Vec::new();
    for words in &sequences {
        ids.extend_from_slice(&prefix);
        for word in words {
            ids.extend_from_slice(tokenizer.tokenize_word(word)?);
        }
        ids.extend_from_slice(&suffix);
    }
    let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
    case.compare_input("input_ids", &ids)
}

/// States of all layers, the loss, and its gradients.
fn states(
    case: &mut Case,
    encoder: &dyn Encoder,
    stream: &TokenStream,
    parameters: &Parameters,
) -> Result<()> {
    let states = encoder.layer_states(stream, &Pass::inference(Precision::Fp32))?;
    case.compare("embedding", &states.embedding)?;
    for (layer, states) in (1..).zip(&states.layers) {
        let name = format!("hidden/{layer}");
        if case.has_output(&name) {
            case.compare(&name, states)?;
        }
    }
    case.compare("last_hidden_state", &states.last)?;
    let weight = case.input("loss_weight")?.f_to_device(case.device())?;
    let weighted = states.last.f_mul(&weight)?.f_to_kind(Kind::Double)?;
    let of_documents = stream.segments.offsets.windows(2).map(|range| {
        Ok(weighted.f_narrow(0, range[0], range[1] - range[0])?.f_sum(Kind::Double)?)
    });
    let losses = Tensor::f_stack(&of_documents.collect::<Result<Vec<_>>>()?, 0)?;
    if case.has_output("loss_per_sequence") {
        case.compare("loss_per_sequence", &losses)?;
    }
    let loss = losses.f_sum(Kind::Double)?;
    case.compare("loss", &loss)?;
    loss.f_backward()?;
    // Of these only their size says something: they are 0 but for rounding.
    let zero: Vec<String> = case.stated("/null_gradients")?;
    let prefix: String = case.stated("/gradient_prefix")?;
    for name in case.output_names(&prefix) {
        let own = &name[prefix.len()..];
        let parameter = parameters
            .get(own)
            .ok_or_else(|| case.error(format!("no parameter is called `{own}`")))?;
        case.compare_gradient(&name, parameter, zero.iter().any(|zero| zero == own))?;
    }
    Ok(())
}

/// Attention rows of the last layer: each is that of an entity with one mention.
fn attention(case: &mut Case, encoder: &dyn Encoder, stream: &TokenStream) -> Result<()> {
    let (rows, shape) = case.integers("attention_rows")?;
    let count = shape.get(1).copied().unwrap_or(0).unsigned_abs() as usize;
    let offsets = &stream.segments.offsets;
    let lengths: Vec<usize> =
        offsets.windows(2).map(|range| range[1].abs_diff(range[0]) as usize).collect();
    let views: Vec<View> =
        lengths.iter().map(|&length| View { ids: vec![0; length], ..View::default() }).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let rule = WindowRule {
        capacity: longest,
        prefix: Vec::new(),
        suffix: Vec::new(),
        stride: None,
        most: None,
    };
    let packed = pack(&views);
    let packed = PackedWindows::new(&packed.ids, &packed.offsets, &rule);
    let mut plan = AttentionTable::default();
    for (document, &length) in lengths.iter().enumerate() {
        let places = &rows[document * count..(document + 1) * count];
        let own: Vec<EntityRow> = (0..)
            .zip(places)
            .map(|(entity, &at)| EntityRow {
                entity,
                position: at.unsigned_abs() as u32,
                weight: 1.0,
            })
            .collect();
        plan.push(&packed, length, count, &own);
    }
    let asked = Attending { layers: 1, plan: Some(&plan) };
    let pass = Pass::inference(Precision::Fp32);
    let attended = tch::no_grad(|| encoder.encode_attended(stream, &asked, &pass))?;
    let heads = encoder.facts().attention_heads.unwrap_or(1);
    let (Some(all), count) = (attended.attention, count as i64) else { return Ok(()) };
    let mut first = 0;
    for (document, length) in (0..).zip(lengths) {
        let (size, length) = (count * heads * length as i64, length as i64);
        let own = all.f_narrow(0, first, size)?.f_view([count, heads, length])?;
        case.compare(&format!("attention/{document}"), &own.f_transpose(0, 1)?)?;
        first += size;
    }
    Ok(())
}
