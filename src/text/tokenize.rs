//! From a document to the form that shards store: word pieces, spans in document words, facts in
//! relation classes.
//!
//! Not for: views, which put markers into the pieces. Everything a view or a sampler indexes by is
//! checked here.

use crate::Result;
use crate::corpus::{Candidate, Document, Entity, Fact, Mention, RelationSet};

use super::tokenizer::Tokenizer;
use super::{
    TokenizedCandidate, TokenizedDocument, TokenizedEntity, TokenizedFact, TokenizedMention,
};

/// Tokenises a document word by word (docs/systems.md, C.1) and resolves its relations. The words
/// are kept. Facts from an entity to itself are left out: no system has a class for such a pair.
///
/// Errors: a [`DataError`](crate::DataError) that names the file, row, title and field of a mention
/// outside its sentence, an empty entity, a fact about entities that do not exist, or a relation
/// that `relations` does not hold.
pub fn tokenize(
    document: &Document,
    tokenizer: &mut Tokenizer,
    relations: &RelationSet,
) -> Result<TokenizedDocument> {
    let starts = document.sentence_starts();
    let mut tokenized = TokenizedDocument {
        title: document.title.clone(),
        words: document.sentences.concat(),
        sentence_starts: starts.iter().map(|&start| start as u32).collect(),
        labelled: document.facts.is_some(),
        ..TokenizedDocument::default()
    };
    (tokenized.pieces, tokenized.word_starts) = tokenize_words(&tokenized.words, tokenizer)?;
    let entities = document
        .entities
        .iter()
        .enumerate()
        .map(|(index, entity)| tokenize_entity(document, &starts, index, entity));
    tokenized.entities = entities.collect::<Result<_>>()?;
    let facts = document.facts().iter().enumerate().filter(|(_, fact)| fact.head != fact.tail);
    let facts = facts.map(|(index, fact)| tokenize_fact(document, relations, index, fact));
    tokenized.facts = facts.collect::<Result<_>>()?;
    tokenized.candidates = document
        .candidates
        .as_ref()
        .map(|pairs| tokenize_candidates(document, pairs))
        .transpose()?;
    Ok(tokenized)
}

/// Pieces of all words and the first piece of each word, closed by the number of pieces.
fn tokenize_words(words: &[String], tokenizer: &mut Tokenizer) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut pieces = Vec::with_capacity(words.len() * 5 / 4);
    let mut starts = Vec::with_capacity(words.len() + 1);
    for word in words {
        starts.push(pieces.len() as u32);
        pieces.extend_from_slice(tokenizer.tokenize_word(word)?);
    }
    starts.push(pieces.len() as u32);
    Ok((pieces, starts))
}

fn tokenize_entity(
    document: &Document,
    starts: &[usize],
    index: usize,
    entity: &Entity,
) -> Result<TokenizedEntity> {
    if entity.mentions.is_empty() {
        return Err(document
            .place()
            .error(format!("vertexSet[{index}]"), "an entity without mentions")
            .into());
    }
    let mentions = entity.mentions.iter().enumerate().map(|(number, mention)| {
        tokenize_mention(mention, starts, entity.entity_type()).map_err(|text| {
            document.place().error(format!("vertexSet[{index}][{number}]"), text).into()
        })
    });
    Ok(TokenizedEntity {
        entity_type: entity.entity_type().to_owned(),
        mentions: mentions.collect::<Result<_>>()?,
    })
}

fn tokenize_mention(
    mention: &Mention,
    starts: &[usize],
    entity_type: &str,
) -> Result<TokenizedMention, String> {
    let &Mention { sentence, start, end, .. } = mention;
    let Some(&[from, to]) = starts.windows(2).nth(sentence).and_then(|pair| pair.first_chunk())
    else {
        return Err(format!("sentence {sentence} does not exist"));
    };
    if start >= end || end > to - from {
        return Err(format!(
            "the words {start}..{end} are not a span of sentence {sentence}, which has {} words",
            to - from
        ));
    }
    Ok(TokenizedMention {
        name: mention.name.clone(),
        sentence: sentence as u32,
        start: (from + start) as u32,
        end: (from + end) as u32,
        own_type: Some(&mention.entity_type).filter(|own| *own != entity_type).cloned(),
    })
}

fn tokenize_fact(
    document: &Document,
    relations: &RelationSet,
    index: usize,
    fact: &Fact,
) -> Result<TokenizedFact> {
    let fail = |text: String| document.place().error(format!("labels[{index}]"), text);
    let (head, tail, count) = (fact.head, fact.tail, document.entities.len());
    if head >= count || tail >= count {
        return Err(
            fail(format!("head {head} or tail {tail} is none of the {count} entities")).into()
        );
    }
    if let Some(sentence) =
        fact.evidence.iter().find(|&&sentence| sentence >= document.sentences.len())
    {
        return Err(fail(format!("evidence sentence {sentence} does not exist")).into());
    }
    let relation = relations.index_of(&fact.relation).ok_or_else(|| {
        fail(format!("relation `{}` is not in the relation set", fact.relation))
            .hint("name the file that lists all relations")
    })?;
    let evidence = fact.evidence.iter().map(|&sentence| sentence as u32).collect();
    Ok(TokenizedFact { head: head as u32, tail: tail as u32, relation: relation as u32, evidence })
}

fn tokenize_candidates(
    document: &Document,
    pairs: &[Candidate],
) -> Result<Vec<TokenizedCandidate>> {
    let count = document.entities.len();
    let candidate = |(index, &Candidate { head, tail, excluded }): (usize, &Candidate)| {
        if head >= count || tail >= count || head == tail {
            let text = format!("head {head} and tail {tail} are not two of the {count} entities");
            return Err(document.place().error(format!("candidates[{index}]"), text).into());
        }
        Ok(TokenizedCandidate { head: head as u32, tail: tail as u32, excluded })
    };
    pairs.iter().enumerate().map(candidate).collect()
}

#[cfg(test)]
mod tests;
