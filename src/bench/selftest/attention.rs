//! Attention with all its terms, attention rows of entities, contexts and sums over spans.

use tch::{Device, Kind, Tensor};

use super::trial::{Numbers, Trial};
use crate::Result;
use crate::text::{PackedWindows, View, WindowRule, pack};
use crate::torch::kernels::Segments;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::context::{
    AttentionTable, ContextTable, EntityRow, Overlap, SpanTable, contexts, entity_attention,
    span_sums,
};
use crate::torch::kernels::scores::{DistanceIndex, ScoreTerms, rotary_angles};
use crate::torch::plain::attention::attention;
use crate::torch::plain::contexts::{self as plain, AskedDocument};

/// An empty document, one token, and lengths around the blocks of the kernels.
const LENGTHS: [i64; 6] = [0, 1, 17, 64, 65, 512];
const HEADS: i64 = 2;
/// Widths of heads that flash attention has, and one that it lacks.
const WIDTHS: [i64; 4] = [16, 64, 128, 26];

pub(super) fn checks(trial: &mut Trial) -> Result<()> {
    for width in WIDTHS {
        plain_attention(trial, width, &LENGTHS)?;
    }
    plain_attention(trial, 16, &[0])?;
    for kind in ["bias", "keys", "keys and queries", "window", "rotary", "rotary, window, bias"] {
        attention_with(trial, kind)?;
    }
    entities(trial)
}

fn offsets_of(lengths: &[i64]) -> Vec<i64> {
    let mut offsets = vec![0];
    offsets.extend(lengths.iter().scan(0, |sum, length| {
        *sum += length;
        Some(*sum)
    }));
    offsets
}

/// The stream as the operation gets it.
fn in_numbers(stream: &Tensor, numbers: Numbers) -> Result<Tensor> {
    Ok(stream.f_to_kind(numbers.precision().kind())?)
}

fn plain_attention(trial: &mut Trial, width: i64, lengths: &[i64]) -> Result<()> {
    let (offsets, numbers) = (offsets_of(lengths), trial.numbers);
    let tokens: i64 = lengths.iter().sum();
    let segments = Segments::new(&offsets, trial.device)?;
    let stream = trial.normal(&[tokens, 3, HEADS, width])?;
    let name = if tokens == 0 {
        "attention, no token".to_owned()
    } else {
        format!("attention, heads of {width}")
    };
    let terms = ScoreTerms::plain(width);
    trial.hold(
        name,
        &[stream],
        |leaves| {
            let stream = in_numbers(&leaves[0], numbers)?;
            Ok(vec![varlen_attention(&stream, &segments, &terms, None, 1)?])
        },
        |leaves| vec![attention(&leaves[0], &offsets, &terms, None)],
    );
    Ok(())
}

/// Rows of the table for far distances are shared.
fn bucket(distance: i64) -> i64 {
    distance.clamp(-4, 4) + 4
}

/// The terms of a kind; `tables`: key table, query table, bias.
fn terms(kind: &str, tables: &[Tensor], longest: i64, device: Device) -> Result<ScoreTerms> {
    let width = tables[0].size()[2];
    let mut terms = ScoreTerms::plain(width);
    terms.key_table = kind.contains("keys").then(|| tables[0].shallow_clone());
    terms.query_table = kind.contains("queries").then(|| tables[1].shallow_clone());
    terms.bias = kind.contains("bias").then(|| tables[2].shallow_clone());
    if terms.key_table.is_some() || terms.bias.is_some() {
        terms.index = Some(DistanceIndex::new(longest, bucket)?);
    }
    if kind.contains("window") {
        terms.window = Some(10);
    }
    if kind.contains("rotary") {
        terms.rotary = Some(rotary_angles(100.0, longest, width, device)?);
    }
    Ok(terms)
}

/// Tables as a model has them. Larger ones make scores whose rounding to 16 bits shows.
fn small(trial: &mut Trial, shape: &[i64]) -> Result<Tensor> {
    Ok(trial.normal(shape)? * 0.25)
}

fn attention_with(trial: &mut Trial, kind: &str) -> Result<()> {
    let (width, lengths) = (32, [1, 40, 0, 130]);
    let (offsets, numbers, device) = (offsets_of(&lengths), trial.numbers, trial.device);
    let segments = Segments::new(&offsets, device)?;
    let inputs = [
        trial.normal(&[lengths.iter().sum(), 3, HEADS, width])?,
        small(trial, &[9, HEADS, width])?,
        small(trial, &[9, HEADS, width])?,
        small(trial, &[9, HEADS])?,
    ];
    trial.hold(
        format!("attention, {kind}"),
        &inputs,
        |leaves| {
            let terms = terms(kind, &leaves[1..], segments.longest, device)?;
            let stream = in_numbers(&leaves[0], numbers)?;
            Ok(vec![varlen_attention(&stream, &segments, &terms, None, 1)?])
        },
        |leaves| {
            let terms = terms(kind, &leaves[1..], segments.longest, Device::Cpu);
            let terms = terms.unwrap_or_else(|error| panic!("{error}"));
            vec![attention(&leaves[0], &offsets, &terms, None)]
        },
    );
    Ok(())
}

/// A document in two windows, one that asks for nothing, one in one window; an entity without
/// mentions, and two rows of one entity.
fn asked() -> Vec<AskedDocument> {
    let row = |entity, position, weight| EntityRow { entity, position, weight };
    vec![
        AskedDocument {
            tokens: 30,
            entities: 2,
            rows: vec![row(0, 0, 1.0), row(1, 14, 0.25), row(1, 29, 0.75)],
            pairs: vec![(0, 1), (1, 0)],
            spans: vec![(0, 1), (1, 29)],
        },
        AskedDocument { tokens: 9, spans: vec![(0, 9)], ..AskedDocument::default() },
        AskedDocument {
            tokens: 20,
            entities: 3,
            rows: vec![row(0, 3, 0.5), row(0, 17, 0.5), row(2, 3, 1.0)],
            pairs: vec![(0, 2), (2, 0), (0, 0)],
            spans: vec![(1, 7), (8, 10), (4, 6), (19, 0)],
        },
    ]
}

/// The stream of windows of documents.
fn windows(documents: &[AskedDocument]) -> PackedWindows {
    let views: Vec<View> = documents
        .iter()
        .map(|document| View { ids: vec![0; document.tokens], ..View::default() })
        .collect();
    let packed = pack(&views);
    let rule = WindowRule {
        capacity: 20,
        prefix: vec![1],
        suffix: vec![2, 2],
        stride: Some(8),
        most: None,
    };
    PackedWindows::new(&packed.ids, &packed.offsets, &rule)
}

fn entities(trial: &mut Trial) -> Result<()> {
    let documents = asked();
    let packed = windows(&documents);
    let (mut rows, mut pairs) = (AttentionTable::default(), ContextTable::default());
    for document in &documents {
        let AskedDocument { tokens, entities, .. } = *document;
        rows.push(&packed, tokens, entities, &document.rows);
        pairs.push(tokens, entities, &document.pairs);
    }
    let all_spans: Vec<_> = documents.iter().map(|document| document.spans.clone()).collect();
    let spans = SpanTable::new(&pairs, &all_spans);
    let (numbers, terms) = (trial.numbers, ScoreTerms::plain(24));
    let segments = Segments::new(&packed.offsets, trial.device)?;
    let stream = trial.normal(&[packed.ids.len() as i64, 3, HEADS, 24])?;
    trial.hold(
        "attention rows of entities",
        &[stream],
        |leaves| {
            let stream = in_numbers(&leaves[0], numbers)?;
            Ok(vec![entity_attention(&stream, &segments, &rows, &terms, None, 1)?])
        },
        |leaves| vec![plain::entity_rows(&leaves[0], &packed, &documents, &terms)],
    );
    let cells: usize = documents.iter().map(|document| document.entities * document.tokens).sum();
    let tokens: usize = documents.iter().map(|document| document.tokens).sum();
    let overlap = Overlap { heads: HEADS, scale: 0.5, epsilon: 1e-5 };
    // Attention is never negative.
    let attention = trial.normal(&[cells as i64 * HEADS])?.f_abs()?.f_to_kind(Kind::Float)?;
    let states = trial.normal(&[tokens as i64, 40])?;
    trial.hold(
        "contexts of pairs",
        &[states, attention.shallow_clone()],
        |leaves| Ok(vec![contexts(&leaves[0], &leaves[1], &pairs, &overlap)?]),
        |leaves| vec![plain::contexts(&leaves[0], &leaves[1], &documents, &overlap)],
    );
    trial.hold(
        "sums over spans",
        &[attention],
        |leaves| Ok(vec![span_sums(&leaves[0], &spans, &overlap)?]),
        |leaves| vec![plain::span_sums(&leaves[0], &documents, &overlap)],
    );
    Ok(())
}
