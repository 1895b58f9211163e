//! From a document as a file states it to a checked [`Document`]: every index inside its bounds,
//! every finding with its place and way out.
//!
//! DocRED's JSON, JSONL and Parquet all end here; each names its fields in its own way. Not for:
//! parsing.

use std::path::Path;

use ahash::{AHashMap, AHashSet};
use serde::Deserialize;

use super::mentions::FoundMentions;
use super::place::DocumentPlace;
use super::{Candidate, Document, Entity, Fact, Mention, Provenance, RelationSet, is_no_relation};
use crate::{DataError, Error, Result};

/// A document before any check. Indices are signed so that a negative one is a finding, not a type
/// error.
#[derive(Debug, Default)]
pub(crate) struct Unchecked {
    pub title: String,
    pub sentences: Vec<Vec<String>>,
    pub entities: Vec<UncheckedEntity>,
    /// `None` where the labels are hidden.
    pub facts: Option<Vec<UncheckedFact>>,
    /// `None` where every ordered pair is asked about.
    pub candidates: Option<Vec<UncheckedPair>>,
}

#[derive(Debug, Default)]
pub(crate) struct UncheckedEntity {
    pub id: Option<String>,
    pub mentions: Vec<UncheckedMention>,
}

#[derive(Debug, Default)]
pub(crate) struct UncheckedMention {
    pub name: String,
    pub sentence: i64,
    /// First word and one past the last, in words of the sentence.
    pub span: Vec<i64>,
    pub entity_type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UncheckedFact {
    pub head: i64,
    pub tail: i64,
    pub relation: String,
    #[serde(default)]
    pub evidence: Vec<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UncheckedPair {
    pub head: i64,
    pub tail: i64,
    #[serde(default)]
    pub excluded: bool,
}

/// What a format calls its fields, so that an error names the one that the user sees.
#[derive(Debug)]
pub(crate) struct FieldNames {
    pub entity: fn(usize) -> String,
    pub mention: fn(usize, usize) -> String,
    pub sentence: &'static str,
    pub span: &'static str,
    pub facts: &'static str,
    pub head: &'static str,
    pub tail: &'static str,
    pub relation: &'static str,
}

/// Names of DocRED's JSON.
pub(crate) const DOCRED_FIELDS: FieldNames = FieldNames {
    entity: |entity| format!("vertexSet[{entity}]"),
    mention: |entity, mention| format!("vertexSet[{entity}][{mention}]"),
    sentence: "sent_id",
    span: "pos",
    facts: "labels",
    head: "h",
    tail: "t",
    relation: "r",
};

/// Names of JSONL and Parquet.
pub(crate) const PLAIN_FIELDS: FieldNames = FieldNames {
    entity: |entity| format!("entities[{entity}]"),
    mention: |entity, mention| format!("entities[{entity}].mentions[{mention}]"),
    sentence: "sentence",
    span: "start",
    facts: "facts",
    head: "head",
    tail: "tail",
    relation: "relation",
};

/// The place of a document, and what it is checked against.
pub(crate) struct Check<'a> {
    pub file: &'a Path,
    pub row: usize,
    pub relations: Option<&'a RelationSet>,
    pub fields: &'static FieldNames,
    pub repeats: Repeats,
}

/// Label rows of a document that made no fact of their own, and what else its reader has to tell.
#[derive(Debug, Default)]
pub struct OtherRows {
    /// Rows that repeat the facts of earlier rows.
    pub repeated: usize,
    /// Rows whose label says that there is no relation.
    pub no_relation: usize,
    /// ChemDisGene: rows that no mentioned pair bears.
    pub unplaced: usize,
    /// PubTator: rows of two mentioned entities whose types are not asked about.
    pub unasked: usize,
    /// Rows with a fault that was to be passed over.
    pub faulty: Vec<DataError>,
    /// What else was passed over or taken in another way than it stands, with its number.
    pub passed_over: Vec<(usize, &'static str)>,
    /// Mentions that were added while the document was read.
    pub found: FoundMentions,
}

/// What is done with label rows that repeat a fact.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Repeats {
    /// One fact with the evidence of all.
    Merge,
    /// Each stays.
    Keep,
}

impl Check<'_> {
    /// The document, and the label rows that made no fact of their own.
    pub(crate) fn document(&self, raw: Unchecked) -> Result<(Document, OtherRows)> {
        let place = DocumentPlace { file: self.file, row: self.row, title: &raw.title };
        let at = CheckAt { check: self, place };
        let lengths: Vec<usize> = raw.sentences.iter().map(Vec::len).collect();
        let entities = raw.entities.into_iter().enumerate();
        let entities = entities
            .map(|(index, entity)| at.entity(index, entity, &lengths))
            .collect::<Result<Vec<_>>>()?;
        let facts = raw.facts.map(|rows| at.facts(rows, entities.len(), lengths.len()));
        let (facts, others) = facts.transpose()?.unzip();
        let candidates =
            raw.candidates.map(|pairs| at.candidates(&pairs, entities.len())).transpose()?;
        if let Some(candidates) = &candidates {
            at.facts_are_asked(facts.as_deref().unwrap_or_default(), candidates)?;
        }
        let provenance = Provenance { file: self.file.to_owned(), row: self.row };
        Ok((
            Document {
                title: raw.title,
                sentences: raw.sentences,
                entities,
                facts,
                candidates,
                provenance,
            },
            others.unwrap_or_default(),
        ))
    }
}

/// Gives the name of a field, which only an error asks for.
type Field<'a> = &'a dyn Fn() -> String;

/// A check of one document.
struct CheckAt<'a> {
    check: &'a Check<'a>,
    place: DocumentPlace<'a>,
}

impl CheckAt<'_> {
    fn error(&self, field: String, problem: String, hint: &str) -> Error {
        self.place.error(field, problem).hint(hint).into()
    }

    fn entity(&self, index: usize, raw: UncheckedEntity, lengths: &[usize]) -> Result<Entity> {
        let fields = self.check.fields;
        if raw.mentions.is_empty() {
            let hint = "drop the entity, and move the head and tail of the labels accordingly";
            return Err(self.error(
                (fields.entity)(index),
                "the entity has no mentions".to_owned(),
                hint,
            ));
        }
        let mentions = raw.mentions.into_iter().enumerate();
        let mentions = mentions
            .map(|(at, mention)| self.mention(&|| (fields.mention)(index, at), mention, lengths));
        Ok(Entity { mentions: mentions.collect::<Result<_>>()?, knowledge_base_id: raw.id })
    }

    fn mention(&self, path: Field, raw: UncheckedMention, lengths: &[usize]) -> Result<Mention> {
        let fields = self.check.fields;
        let sentence = self.index(
            &|| format!("{}.{}", path(), fields.sentence),
            raw.sentence,
            lengths.len(),
            "sentences",
        )?;
        let (start, end) = self.span(
            &|| format!("{}.{}", path(), fields.span),
            &raw.span,
            sentence,
            lengths[sentence],
        )?;
        if raw.entity_type.is_empty() {
            let hint = "give the mention a type, such as `MISC`";
            return Err(self.error(
                format!("{}.type", path()),
                "the entity type is empty".to_owned(),
                hint,
            ));
        }
        Ok(Mention { name: raw.name, sentence, start, end, entity_type: raw.entity_type })
    }

    fn span(
        &self,
        field: Field,
        span: &[i64],
        sentence: usize,
        length: usize,
    ) -> Result<(usize, usize)> {
        let &[start, end] = span else {
            let problem = format!("a span is [start, end], found {} numbers", span.len());
            return Err(self.error(
                field(),
                problem,
                "write the first word and one past the last word, from 0 inside the sentence",
            ));
        };
        if let (Ok(first), Ok(last)) = (usize::try_from(start), usize::try_from(end))
            && first < last
            && last <= length
        {
            return Ok((first, last));
        }
        let problem = format!(
            "the span [{start}, {end}) does not lie inside sentence {sentence} of {length} words"
        );
        Err(self.error(
            field(),
            problem,
            "spans count words inside their own sentence, from 0, and end one past the last word",
        ))
    }

    fn facts(
        &self,
        rows: Vec<UncheckedFact>,
        entities: usize,
        sentences: usize,
    ) -> Result<(Vec<Fact>, OtherRows)> {
        let mut facts: Vec<Fact> = Vec::with_capacity(rows.len());
        let mut seen: AHashMap<(usize, usize, String), usize> = AHashMap::with_capacity(rows.len());
        let mut others = OtherRows::default();
        for (at, row) in rows.into_iter().enumerate() {
            if is_no_relation(&row.relation) {
                others.no_relation += 1;
                continue;
            }
            let fact = self.fact(
                &|| format!("{}[{at}]", self.check.fields.facts),
                row,
                entities,
                sentences,
            )?;
            let key = (fact.head, fact.tail, fact.relation.clone());
            others.repeated += usize::from(seen.contains_key(&key));
            if let Some(&first) = seen.get(&key).filter(|_| self.check.repeats == Repeats::Merge) {
                merge_evidence(&mut facts[first].evidence, &fact.evidence);
            } else {
                seen.insert(key, facts.len());
                facts.push(fact);
            }
        }
        Ok((facts, others))
    }

    fn fact(
        &self,
        path: Field,
        raw: UncheckedFact,
        entities: usize,
        sentences: usize,
    ) -> Result<Fact> {
        let (head, tail) = self.pair(
            path,
            raw.head,
            raw.tail,
            entities,
            "drop the label; a fact relates two different entities",
        )?;
        self.relation(&|| format!("{}.{}", path(), self.check.fields.relation), &raw.relation)?;
        let mut evidence = Vec::with_capacity(raw.evidence.len());
        for (at, &sentence) in raw.evidence.iter().enumerate() {
            evidence.push(self.index(
                &|| format!("{}.evidence[{at}]", path()),
                sentence,
                sentences,
                "sentences",
            )?);
        }
        Ok(Fact { head, tail, relation: raw.relation, evidence })
    }

    fn pair(
        &self,
        path: Field,
        head: i64,
        tail: i64,
        entities: usize,
        hint: &str,
    ) -> Result<(usize, usize)> {
        let fields = self.check.fields;
        let head =
            self.index(&|| format!("{}.{}", path(), fields.head), head, entities, "entities")?;
        let tail =
            self.index(&|| format!("{}.{}", path(), fields.tail), tail, entities, "entities")?;
        if head == tail {
            return Err(self.error(
                format!("{}.{}", path(), fields.tail),
                format!("head and tail are the same entity {head}"),
                hint,
            ));
        }
        Ok((head, tail))
    }

    fn candidates(&self, rows: &[UncheckedPair], entities: usize) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::with_capacity(rows.len());
        let mut seen = AHashMap::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let path = || format!("candidates[{at}]");
            let (head, tail) = self.pair(&path, row.head, row.tail, entities, "drop the pair")?;
            if let Some(first) = seen.insert((head, tail), at) {
                return Err(self.error(
                    path(),
                    format!("the pair is candidates[{first}] already"),
                    "keep one of the two",
                ));
            }
            candidates.push(Candidate { head, tail, excluded: row.excluded });
        }
        Ok(candidates)
    }

    fn facts_are_asked(&self, facts: &[Fact], candidates: &[Candidate]) -> Result<()> {
        let asked: AHashSet<(usize, usize)> = candidates
            .iter()
            .filter(|pair| !pair.excluded)
            .map(|pair| (pair.head, pair.tail))
            .collect();
        match facts.iter().position(|fact| !asked.contains(&(fact.head, fact.tail))) {
            None => Ok(()),
            Some(at) => {
                let (head, tail) = (facts[at].head, facts[at].tail);
                let problem = format!(
                    "the fact from {head} to {tail} is not among the candidates that are asked \
                     about"
                );
                Err(self.error(
                    format!("{}[{at}]", self.check.fields.facts),
                    problem,
                    "add the pair to `candidates`, or leave the list out",
                ))
            }
        }
    }

    fn relation(&self, field: Field, id: &str) -> Result<()> {
        if id.is_empty() {
            return Err(self.error(
                field(),
                "the relation is empty".to_owned(),
                "write the relation's identifier, such as `P17`",
            ));
        }
        match self.check.relations.and_then(|set| unknown_relation(set, id)) {
            Some((problem, hint)) => Err(self.error(field(), problem, hint)),
            None => Ok(()),
        }
    }

    fn index(&self, field: Field, value: i64, length: usize, what: &str) -> Result<usize> {
        match usize::try_from(value) {
            Ok(index) if index < length => Ok(index),
            _ => {
                let problem = format!("{value} is out of range: the document has {length} {what}");
                Err(self.error(field(), problem, "indices count from 0 inside the document"))
            }
        }
    }
}

/// Evidence of repeated rows adds up; DocRED's scorer lets the last row win, which loses sentences
/// a reader could use.
fn merge_evidence(kept: &mut Vec<usize>, more: &[usize]) {
    for sentence in more {
        if !kept.contains(sentence) {
            kept.push(*sentence);
        }
    }
}

/// What is wrong with a relation that is not in a set, and the way out.
pub(super) fn unknown_relation(set: &RelationSet, id: &str) -> Option<(String, &'static str)> {
    let problem = || format!("unknown relation `{id}`; {} relations are known", set.len());
    let hint = "add it to the relation file, or name the relation file that belongs to this corpus";
    set.index_of(id).is_none().then(|| (problem(), hint))
}
