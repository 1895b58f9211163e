//! What an encoder reads of a document, and which of its states stands for each word.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{SpecialPieces, TokenizedDocument};
use crate::{DataError, Error, Result};

/// How a document is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// One piece a word (the first, where there are several), nothing around them: for a plain
    /// table of vectors.
    #[default]
    Words,
    /// `[CLS]`, all pieces, `[SEP]`; a word's state is that of its first piece, and a word without
    /// pieces has none.
    Pieces,
    /// The same as BERT-RE's and GLRE's releases do it: starts beyond the last piece become that
    /// piece, equal starts collapse into one, and word *i* gets the state of the *i*-th start. So
    /// every word without pieces shifts all later words left, and words at the end have no state
    /// (docs/systems.md, "Systems that read words").
    CollapsedPieces,
}

/// Where a document is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordLimits {
    /// Most pieces with `[CLS]` and `[SEP]`; for [`Reading::Words`] most words.
    pub max_pieces: Option<usize>,
    /// Most words.
    pub max_words: Option<usize>,
    /// Whether a longer document is cut; otherwise it is an error.
    pub truncate: bool,
}

/// A document as the encoder reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadDocument {
    /// Pieces for the encoder.
    pub ids: Vec<i64>,
    /// The state that stands for each kept word; `None` where there is none. `[kept words]`
    pub states: Vec<Option<i64>>,
}

/// Reads one document.
///
/// # Errors
/// A document over a limit that may not be cut.
pub(super) fn read(
    document: &TokenizedDocument,
    reading: Reading,
    limits: &WordLimits,
    pieces: &SpecialPieces,
) -> Result<ReadDocument> {
    let kept = within(document, document.num_words(), limits.max_words, limits.truncate, "words")?;
    match reading {
        Reading::Words => {
            let kept = within(document, kept, limits.max_pieces, limits.truncate, "words")?;
            let ids = (0..kept)
                .map(|word| i64::from(first_piece(document, word).unwrap_or(pieces.unk)))
                .collect();
            Ok(ReadDocument { ids, states: (0..kept as i64).map(Some).collect() })
        }
        Reading::Pieces | Reading::CollapsedPieces => {
            let (first, frame) = (pieces.prefix.len(), pieces.frame_len());
            let count = document.pieces.len() + frame;
            let room = within(
                document,
                count,
                limits.max_pieces,
                limits.truncate,
                "word pieces with [CLS] and [SEP]",
            )?
            .saturating_sub(frame);
            let inner = document.pieces[..room].iter();
            let framed = pieces.prefix.iter().chain(inner).chain(&pieces.suffix);
            let ids = framed.map(|&piece| i64::from(piece)).collect();
            let states = if reading == Reading::Pieces {
                own_states(document, kept, room, first)
            } else {
                collapsed_states(document, kept, limits, pieces)
            };
            Ok(ReadDocument { ids, states })
        }
    }
}

/// `count` or the limit, whichever is less.
fn within(
    document: &TokenizedDocument,
    count: usize,
    limit: Option<usize>,
    truncate: bool,
    what: &str,
) -> Result<usize> {
    match limit {
        Some(limit) if count > limit && !truncate => Err(too_long(document, count, limit, what)),
        Some(limit) => Ok(count.min(limit)),
        None => Ok(count),
    }
}

fn too_long(document: &TokenizedDocument, count: usize, limit: usize, what: &str) -> Error {
    DataError::new("shards", format!("{count} {what} are more than the limit of {limit}"))
        .title(&document.title)
        .hint(
            "allow truncation (`predict --truncate`, encoder.truncate in a recipe), read in \
            windows (long_documents), or take an encoder with more positions",
        )
        .into()
}

/// The first piece of a word, if it has one.
fn first_piece(document: &TokenizedDocument, word: usize) -> Option<u32> {
    let (start, end) = (document.word_starts[word], document.word_starts[word + 1]);
    (start < end).then(|| document.pieces[start as usize])
}

/// Words up to the last one that begins before the cut; those without pieces have no state.
fn own_states(
    document: &TokenizedDocument,
    kept: usize,
    room: usize,
    first: usize,
) -> Vec<Option<i64>> {
    let fits = document.word_starts[..document.num_words()]
        .partition_point(|&start| (start as usize) < room.max(1));
    let cut = room < document.pieces.len();
    let words = if cut { kept.min(fits) } else { kept };
    (0..words)
        .map(|word| {
            first_piece(document, word)
                .map(|_| i64::from(document.word_starts[word]) + first as i64)
        })
        .collect()
}

/// The *i*-th distinct start for word *i*.
fn collapsed_states(
    document: &TokenizedDocument,
    kept: usize,
    limits: &WordLimits,
    pieces: &SpecialPieces,
) -> Vec<Option<i64>> {
    let behind = pieces.suffix.len() + 1;
    let last = limits.max_pieces.map_or(i64::MAX, |limit| limit.saturating_sub(behind) as i64);
    let mut starts: Vec<i64> = document.word_starts[..document.num_words()]
        .iter()
        .map(|&start| (i64::from(start) + pieces.prefix.len() as i64).min(last))
        .collect();
    starts.dedup();
    (0..kept).map(|word| starts.get(word).copied()).collect()
}
