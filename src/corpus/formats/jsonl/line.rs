//! A line as it stands in the file, and how running text becomes sentences of words.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use crate::Result;
use crate::corpus::check::{
    Unchecked, UncheckedEntity, UncheckedFact, UncheckedMention, UncheckedPair,
};
use crate::corpus::formats::scripts::{GIVE_SENTENCES, no_words, without_words};
use crate::corpus::formats::segment::segment;
use crate::corpus::place::DocumentPlace;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a document as a JSON object")]
pub(super) struct RawLine {
    title: String,
    /// Running text; mentions then count characters.
    text: Option<String>,
    /// Sentences of words; mentions then count words of their sentence.
    sentences: Option<Vec<Vec<String>>>,
    entities: Vec<LineEntity>,
    facts: Option<Vec<UncheckedFact>>,
    candidates: Option<Vec<UncheckedPair>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineEntity {
    id: Option<String>,
    /// Type of the mentions that bear none of their own.
    #[serde(rename = "type")]
    entity_type: Option<String>,
    mentions: Vec<LineMention>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineMention {
    name: Option<String>,
    sentence: Option<i64>,
    start: i64,
    end: i64,
    #[serde(rename = "type")]
    entity_type: Option<String>,
}

impl RawLine {
    /// The document in words, not checked any further.
    pub(super) fn unchecked(self, path: &Path, row: usize) -> Result<Unchecked> {
        let place = DocumentPlace { file: path, row, title: &self.title };
        let (sentences, entities) = match (self.text, self.sentences) {
            (Some(text), None) => {
                of_text(place, &text, self.entities, self.facts.as_deref().unwrap_or_default())?
            }
            (None, Some(sentences)) => of_words(place, sentences, self.entities)?,
            (Some(_), Some(_)) => {
                return Err(place
                    .error("text", "both `text` and `sentences` are given")
                    .hint("give one of them")
                    .into());
            }
            (None, None) => {
                return Err(place
                    .error("text", "neither `text` nor `sentences` is given")
                    .hint("give one of them")
                    .into());
            }
        };
        let Self { title, facts, candidates, .. } = self;
        Ok(Unchecked { title, sentences, entities, facts, candidates })
    }
}

/// Sentences of words, and the entities in them.
type SentencesAndEntities = (Vec<Vec<String>>, Vec<UncheckedEntity>);

fn of_words(
    place: DocumentPlace<'_>,
    sentences: Vec<Vec<String>>,
    entities: Vec<LineEntity>,
) -> Result<SentencesAndEntities> {
    let mut read = Vec::with_capacity(entities.len());
    for (index, entity) in entities.into_iter().enumerate() {
        let (id, entity_type) = (entity.id, entity.entity_type.unwrap_or_default());
        let mut mentions = Vec::with_capacity(entity.mentions.len());
        for (at, mention) in entity.mentions.into_iter().enumerate() {
            let Some(sentence) = mention.sentence else {
                let field = format!("entities[{index}].mentions[{at}].sentence");
                return Err(place
                    .error(field, "the mention names no sentence")
                    .hint("with `sentences`, mentions count words of one of them")
                    .into());
            };
            // A name that is not given is that of the words; a span that does not exist is found by
            // the check.
            let words = || {
                let span =
                    usize::try_from(mention.start).ok()?..usize::try_from(mention.end).ok()?;
                Some(sentences.get(usize::try_from(sentence).ok()?)?.get(span)?.join(" "))
            };
            let name = mention.name.clone().or_else(words).unwrap_or_default();
            let entity_type = mention.entity_type.unwrap_or_else(|| entity_type.clone());
            mentions.push(UncheckedMention {
                name,
                sentence,
                span: vec![mention.start, mention.end],
                entity_type,
            });
        }
        read.push(UncheckedEntity { id, mentions });
    }
    Ok((sentences, read))
}

fn of_text(
    place: DocumentPlace<'_>,
    text: &str,
    entities: Vec<LineEntity>,
    facts: &[UncheckedFact],
) -> Result<SentencesAndEntities> {
    if let Some(at) = facts.iter().position(|fact| !fact.evidence.is_empty()) {
        let hint = "give `sentences` instead of `text`, or leave the evidence out";
        let problem = "evidence counts sentences, and the text has none yet";
        return Err(place.error(format!("facts[{at}].evidence"), problem).hint(hint).into());
    }
    if let Some((letter, script)) = without_words(text) {
        return Err(place.error("text", no_words(letter, script)).hint(GIVE_SENTENCES).into());
    }
    let characters: Vec<char> = text.chars().collect();
    let mut spans = Vec::new();
    for (index, entity) in entities.iter().enumerate() {
        for (at, mention) in entity.mentions.iter().enumerate() {
            spans.push(character_span(
                place,
                &format!("entities[{index}].mentions[{at}]"),
                &characters,
                mention,
            )?);
        }
    }
    let cut = segment(text, 0, &spans);
    let mut spans = spans.into_iter().zip(cut.spans);
    let mut read = Vec::with_capacity(entities.len());
    for (index, entity) in entities.into_iter().enumerate() {
        let (id, entity_type) = (entity.id, entity.entity_type.unwrap_or_default());
        let mut mentions = Vec::with_capacity(entity.mentions.len());
        for ((at, mention), (range, span)) in
            entity.mentions.into_iter().enumerate().zip(&mut spans)
        {
            let Some((sentence, start, end)) = span else {
                let field = format!("entities[{index}].mentions[{at}].start");
                return Err(place
                    .error(field, "the mention covers no word")
                    .hint("spans begin and end at letters")
                    .into());
            };
            let name = mention.name.unwrap_or_else(|| characters[range].iter().collect());
            let entity_type = mention.entity_type.unwrap_or_else(|| entity_type.clone());
            mentions.push(UncheckedMention {
                name,
                sentence: sentence as i64,
                span: vec![start as i64, end as i64],
                entity_type,
            });
        }
        read.push(UncheckedEntity { id, mentions });
    }
    Ok((cut.sentences, read))
}

fn character_span(
    place: DocumentPlace<'_>,
    path: &str,
    text: &[char],
    mention: &LineMention,
) -> Result<Range<usize>> {
    if mention.sentence.is_some() {
        return Err(place
            .error(format!("{path}.sentence"), "running text has no sentences yet")
            .hint("mentions of `text` count characters")
            .into());
    }
    let bounds = usize::try_from(mention.start).ok().zip(usize::try_from(mention.end).ok());
    match bounds.filter(|&(from, to)| from < to && to <= text.len()) {
        Some((from, to)) => Ok(from..to),
        None => {
            let problem = format!(
                "the characters {}..{} are not a span of a text of {}",
                mention.start,
                mention.end,
                text.len()
            );
            Err(place
                .error(format!("{path}.start"), problem)
                .hint("offsets count Unicode characters from 0, the end is one past the last")
                .into())
        }
    }
}
