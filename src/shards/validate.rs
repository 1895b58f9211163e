//! The check of every row that is read: whatever a later index, slice or table look-up relies on.

use crate::text::{TokenizedDocument, TokenizedEntity, TokenizedFact};

/// What a row may refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Number of relations of the manifest.
    pub(super) relations: usize,
    /// Number of pieces of the tokeniser.
    pub(super) vocab_size: usize,
    /// Whether the words were read.
    pub(super) with_words: bool,
}

/// Checks one row; the error is a pair of the field and the problem.
pub(super) fn check(document: &TokenizedDocument, limits: Limits) -> Result<(), (String, String)> {
    let num_words = document.num_words();
    check_starts("word_starts", &document.word_starts, document.pieces.len())?;
    check_starts("sentence_starts", &document.sentence_starts, num_words)?;
    if limits.with_words && document.words.len() != num_words {
        return fail("words", format!("{} words, but starts of {num_words}", document.words.len()));
    }
    if let Some(piece) = document.pieces.iter().find(|&&piece| piece as usize >= limits.vocab_size)
    {
        return fail(
            "pieces",
            format!("piece {piece} is beyond the vocabulary of {}", limits.vocab_size),
        );
    }
    for (index, entity) in document.entities.iter().enumerate() {
        check_entity(index, entity, &document.sentence_starts)?;
    }
    for (index, fact) in document.facts.iter().enumerate() {
        check_fact(index, fact, document, limits)?;
    }
    check_candidates(document)?;
    check_kept(document)?;
    check_taught(document, limits.relations)
}

fn fail(field: impl Into<String>, problem: impl Into<String>) -> Result<(), (String, String)> {
    Err((field.into(), problem.into()))
}

/// Starts must begin at 0, never fall, and be closed by `total`.
fn check_starts(field: &str, starts: &[u32], total: usize) -> Result<(), (String, String)> {
    let closed =
        starts.first() == Some(&0) && starts.last().is_some_and(|&last| last as usize == total);
    if closed && starts.is_sorted() {
        return Ok(());
    }
    fail(field, format!("not a rising list from 0 to {total}"))
}

fn check_entity(
    index: usize,
    entity: &TokenizedEntity,
    sentence_starts: &[u32],
) -> Result<(), (String, String)> {
    if entity.mentions.is_empty() {
        return fail(format!("entities[{index}]"), "an entity without mentions");
    }
    for (number, mention) in entity.mentions.iter().enumerate() {
        let sentence = mention.sentence as usize;
        let bounds = sentence_starts.get(sentence).zip(sentence_starts.get(sentence + 1));
        if !bounds.is_some_and(|(&from, &to)| {
            from <= mention.start && mention.start < mention.end && mention.end <= to
        }) {
            let span = format!(
                "the words {}..{} are not a span of sentence {sentence}",
                mention.start, mention.end
            );
            return fail(format!("entities[{index}].mentions[{number}]"), span);
        }
    }
    Ok(())
}

fn check_fact(
    index: usize,
    fact: &TokenizedFact,
    document: &TokenizedDocument,
    limits: Limits,
) -> Result<(), (String, String)> {
    let field = || format!("facts[{index}]");
    if !is_pair(fact.head, fact.tail, document) {
        return fail(
            field(),
            format!("head {} and tail {} are not two entities", fact.head, fact.tail),
        );
    }
    if fact.relation as usize >= limits.relations {
        return fail(field(), format!("relation class {} of {}", fact.relation, limits.relations));
    }
    let sentences = document.sentence_starts.len() - 1;
    match fact.evidence.iter().find(|&&sentence| sentence as usize >= sentences) {
        Some(sentence) => fail(field(), format!("evidence sentence {sentence} of {sentences}")),
        None => Ok(()),
    }
}

/// Candidates are distinct pairs of two entities.
fn check_candidates(document: &TokenizedDocument) -> Result<(), (String, String)> {
    let mut seen = ahash::AHashSet::new();
    let pairs = document.candidates.as_deref().unwrap_or_default();
    match pairs.iter().position(|pair| {
        !is_pair(pair.head, pair.tail, document) || !seen.insert((pair.head, pair.tail))
    }) {
        Some(at) => {
            fail(format!("candidates[{at}]"), "not a pair of two entities, or not the first time")
        }
        None => Ok(()),
    }
}

/// Kept pairs are distinct entities with finite scores, best first.
pub(super) fn check_kept(document: &TokenizedDocument) -> Result<(), (String, String)> {
    let pairs = document.kept.as_deref().unwrap_or_default();
    if let Some(at) = pairs
        .iter()
        .position(|pair| !is_pair(pair.head, pair.tail, document) || !pair.score.is_finite())
    {
        return fail(format!("kept[{at}]"), "not a pair of two entities with a finite score");
    }
    if pairs.is_sorted_by(|a, b| a.score >= b.score) { Ok(()) } else { fail("kept", "scores rise") }
}

/// Taught pairs rise, as do the relations of each; evidence is of the document's sentences.
pub(super) fn check_taught(
    document: &TokenizedDocument,
    relations: usize,
) -> Result<(), (String, String)> {
    let pairs = document.taught.as_deref().unwrap_or_default();
    let sentences = document.sentence_starts.len().saturating_sub(1);
    for (at, pair) in pairs.iter().enumerate() {
        let field = || format!("taught[{at}]");
        if !is_pair(pair.head, pair.tail, document) {
            return fail(field(), "not a pair of two entities");
        }
        let known = pair.relations.last().is_none_or(|last| usize::from(last.relation) < relations);
        if !known || !pair.relations.is_sorted_by(|a, b| a.relation < b.relation) {
            return fail(field(), format!("relations that do not rise, or beyond {relations}"));
        }
        if !pair.evidence.is_empty() && pair.evidence.len() != sentences {
            let found = pair.evidence.len();
            return fail(field(), format!("evidence in {found} sentences of {sentences}"));
        }
        if pair.tokens.len() != pair.weights.len() {
            return fail(field(), "not as many weights as tokens");
        }
    }
    if pairs.is_sorted_by(|a, b| (a.head, a.tail) < (b.head, b.tail)) {
        Ok(())
    } else {
        fail("taught", "the pairs do not rise")
    }
}

fn is_pair(head: u32, tail: u32, document: &TokenizedDocument) -> bool {
    let count = document.entities.len();
    head != tail && (head as usize) < count && (tail as usize) < count
}
