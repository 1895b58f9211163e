//! Words and sentences that another program has made, as a line gives them.

use std::ops::Range;

use serde::Deserialize;

use super::spans::span_of;
use crate::Result;
use crate::corpus::formats::running::TextEntity;
use crate::corpus::formats::segment::Cut;
use crate::corpus::place::DocumentPlace;
use crate::corpus::spans::Occupied;

/// A token or sentence; what else is said of it does not matter.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct LineSpan {
    start: i64,
    end: i64,
}

/// The cut of a text whose entities are known.
///
/// # Errors
/// A [`DataError`](crate::DataError) for tokens and sentences that are not in the text or not in
/// order, for a sentence that begins inside a token, and for a mention that cuts one.
pub(super) fn cut_of(
    place: DocumentPlace<'_>,
    text: &[char],
    entities: &[TextEntity],
    tokens: Option<Vec<LineSpan>>,
    sents: Option<Vec<LineSpan>>,
) -> Result<Cut> {
    let read = |field, spans: Option<Vec<LineSpan>>| {
        spans.map(|spans| in_order(place, field, text.len(), &spans)).transpose()
    };
    let (tokens, sents) = (read("tokens", tokens)?, read("sents", sents)?);
    let is_word = |token: &Range<usize>| text[token.clone()].iter().any(|c| !c.is_whitespace());
    let words: Option<Vec<Range<usize>>> =
        tokens.map(|tokens| tokens.into_iter().filter(is_word).collect());
    let sentences: Option<Vec<usize>> =
        sents.map(|sents| sents.into_iter().map(|sentence| sentence.start).collect());
    let Some(words) = words else { return Ok(Cut { words, sentences, ..Cut::default() }) };
    let occupied = Occupied::new(words.iter().cloned());
    if let Some(at) = sentences.iter().flatten().position(|start| occupied.cross(*start)) {
        let problem = "the sentence begins inside a token";
        let field = format!("sents[{at}].start");
        return Err(place.error(field, problem).hint("give both from one program").into());
    }
    let cuts_token =
        |range: &Range<usize>| occupied.cross(range.start) || occupied.cross(range.end);
    let mut mentions = entities.iter().flat_map(|entity| &entity.mentions);
    if let Some(mention) = mentions.find(|mention| cuts_token(&mention.range)) {
        let name: String = text[mention.range.clone()].iter().collect();
        let problem = format!("the mention `{name}` begins or ends inside a token");
        let hint = "leave `tokens` out, and the text is cut into words here";
        return Err(place.error(&mention.field, problem).hint(hint).into());
    }
    Ok(Cut { words: Some(words), sentences, ..Cut::default() })
}

/// Spans inside the text, which may be empty, none of which begins before the end of the last.
fn in_order(
    place: DocumentPlace<'_>,
    field: &str,
    length: usize,
    spans: &[LineSpan],
) -> Result<Vec<Range<usize>>> {
    let mut read: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for (at, &LineSpan { start, end }) in spans.iter().enumerate() {
        let field = format!("{field}[{at}].start");
        let range = match usize::try_from(start) {
            Ok(from) if start == end && from <= length => from..from,
            _ => span_of(place, &field, length, start, end)?,
        };
        if read.last().is_some_and(|last| range.start < last.end) {
            let problem = format!("{start} is before the end of the one before");
            let hint = "list them in the order of the text";
            return Err(place.error(field, problem).hint(hint).into());
        }
        read.push(range);
    }
    Ok(read)
}
