//! From raw JSON to a checked `Document`: every index inside its bounds, every finding with its place and its way out.

use std::{collections::HashMap, path::Path};

use super::raw::{RawDocument, RawLabel, RawMention};
use crate::{
    DataError, Error, Result,
    corpus::{Document, Entity, Fact, Mention, Provenance, RelationSet},
};

/// Where the document under check stands, and what it is checked against.
pub(super) struct Check<'a> {
    pub file: &'a Path,
    pub row: usize,
    pub relations: Option<&'a RelationSet>,
    pub repeats: Repeats,
}

/// What becomes of label rows that repeat a fact.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Repeats {
    /// One fact with the evidence of all.
    Merge,
    /// Each stays.
    Keep,
}

impl Check<'_> {
    /// The document and the number of label rows that repeated an earlier fact.
    pub(super) fn document(&self, raw: RawDocument) -> Result<(Document, usize)> {
        let at = Place { check: self, title: &raw.title };
        let lengths: Vec<usize> = raw.sents.iter().map(Vec::len).collect();
        let entities = at.entities(raw.vertex_set, &lengths)?;
        let (facts, duplicates) = match raw.labels {
            None => (None, 0),
            Some(rows) => {
                let (facts, duplicates) = at.facts(rows, entities.len(), lengths.len())?;
                (Some(facts), duplicates)
            }
        };
        let provenance = Provenance { file: self.file.to_owned(), row: self.row };
        Ok((Document { title: raw.title, sentences: raw.sents, entities, facts, provenance }, duplicates))
    }
}

struct Place<'a> {
    check: &'a Check<'a>,
    title: &'a str,
}

impl Place<'_> {
    fn error(&self, field: String, problem: String, hint: &str) -> Error {
        DataError::new(self.check.file, problem).row(self.check.row).title(self.title).field(field).hint(hint).into()
    }

    fn entities(&self, raw: Vec<Vec<RawMention>>, lengths: &[usize]) -> Result<Vec<Entity>> {
        raw.into_iter().enumerate().map(|(index, mentions)| self.entity(index, mentions, lengths)).collect()
    }

    fn entity(&self, index: usize, raw: Vec<RawMention>, lengths: &[usize]) -> Result<Entity> {
        if raw.is_empty() {
            let hint = "drop the entity, and move the `h` and `t` of the labels accordingly";
            return Err(self.error(format!("vertexSet[{index}]"), "the entity has no mentions".to_owned(), hint));
        }
        let mentions =
            raw.into_iter().enumerate().map(|(at, mention)| self.mention(&format!("vertexSet[{index}][{at}]"), mention, lengths));
        Ok(Entity { mentions: mentions.collect::<Result<_>>()?, knowledge_base_id: None })
    }

    fn mention(&self, path: &str, raw: RawMention, lengths: &[usize]) -> Result<Mention> {
        let sentence = self.index(format!("{path}.sent_id"), raw.sent_id, lengths.len(), "sentences")?;
        let (start, end) = self.span(format!("{path}.pos"), &raw.pos, sentence, lengths[sentence])?;
        if raw.entity_type.is_empty() {
            let hint = "give the mention a type, such as `MISC`";
            return Err(self.error(format!("{path}.type"), "the entity type is empty".to_owned(), hint));
        }
        Ok(Mention { name: raw.name, sentence, start, end, entity_type: raw.entity_type })
    }

    fn span(&self, field: String, pos: &[i64], sentence: usize, length: usize) -> Result<(usize, usize)> {
        let &[start, end] = pos else {
            let problem = format!("a span is [start, end], found {} numbers", pos.len());
            return Err(self.error(field, problem, "write the first word and one past the last word, from 0 inside the sentence"));
        };
        if let (Ok(first), Ok(last)) = (usize::try_from(start), usize::try_from(end))
            && first < last
            && last <= length
        {
            return Ok((first, last));
        }
        let problem = format!("the span [{start}, {end}) does not lie inside sentence {sentence} of {length} words");
        Err(self.error(field, problem, "spans count words inside their own sentence, from 0, and end one past the last word"))
    }

    fn facts(&self, rows: Vec<RawLabel>, entities: usize, sentences: usize) -> Result<(Vec<Fact>, usize)> {
        let mut facts: Vec<Fact> = Vec::with_capacity(rows.len());
        let mut seen: HashMap<(usize, usize, String), usize> = HashMap::new();
        let mut duplicates = 0;
        for (at, row) in rows.into_iter().enumerate() {
            let fact = self.fact(&format!("labels[{at}]"), row, entities, sentences)?;
            let key = (fact.head, fact.tail, fact.relation.clone());
            duplicates += usize::from(seen.contains_key(&key));
            if let Some(&first) = seen.get(&key).filter(|_| self.check.repeats == Repeats::Merge) {
                merge_evidence(&mut facts[first].evidence, &fact.evidence);
            } else {
                seen.insert(key, facts.len());
                facts.push(fact);
            }
        }
        Ok((facts, duplicates))
    }

    fn fact(&self, path: &str, raw: RawLabel, entities: usize, sentences: usize) -> Result<Fact> {
        let head = self.index(format!("{path}.h"), raw.h, entities, "entities")?;
        let tail = self.index(format!("{path}.t"), raw.t, entities, "entities")?;
        if head == tail {
            let hint = "drop the label; a fact relates two different entities";
            return Err(self.error(format!("{path}.t"), format!("head and tail are the same entity {head}"), hint));
        }
        self.relation(format!("{path}.r"), &raw.r)?;
        let mut evidence = Vec::with_capacity(raw.evidence.len());
        for (at, &sentence) in raw.evidence.iter().enumerate() {
            evidence.push(self.index(format!("{path}.evidence[{at}]"), sentence, sentences, "sentences")?);
        }
        Ok(Fact { head, tail, relation: raw.r, evidence })
    }

    fn relation(&self, field: String, id: &str) -> Result<()> {
        if id.is_empty() {
            return Err(self.error(field, "the relation is empty".to_owned(), "write the relation's identifier, such as `P17`"));
        }
        match self.check.relations {
            Some(set) if set.index_of(id).is_none() => {
                let problem = format!("unknown relation `{id}`; {} relations are known", set.len());
                Err(self.error(field, problem, "add it to the relation file, or name the relation file that belongs to this corpus"))
            }
            _ => Ok(()),
        }
    }

    fn index(&self, field: String, value: i64, length: usize, what: &str) -> Result<usize> {
        match usize::try_from(value) {
            Ok(index) if index < length => Ok(index),
            _ => {
                let problem = format!("{value} is out of range: the document has {length} {what}");
                Err(self.error(field, problem, "indices count from 0 inside the document"))
            }
        }
    }
}

/// Evidence of repeated rows adds up; DocRED's scorer lets the last row win, which loses sentences a reader could use.
fn merge_evidence(kept: &mut Vec<usize>, more: &[usize]) {
    for sentence in more {
        if !kept.contains(sentence) {
            kept.push(*sentence);
        }
    }
}
