//! Abstracts with mentions as spans of characters, and relations between knowledge-base
//! identifiers: what PubTator and ChemDisGene hold.
//!
//! An entity is everything of one type that bears one identifier; mentions without identifier cut
//! no sentence and become no entity. Not for: parsing those files.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use super::identifiers::identifiers;
use super::scripts::{GIVE_SENTENCES, no_words, without_words};
use super::segment::{Cut, Prose, segment};
use crate::Result;
use crate::corpus::check::OtherRows;
use crate::corpus::place::DocumentPlace;
use crate::corpus::{Document, Entity, Fact, Mention, PairTypes, Provenance, is_no_relation};

/// An annotated abstract.
#[derive(Debug, Default)]
pub(super) struct Annotated<'a> {
    pub id: &'a str,
    pub title: &'a str,
    pub body: &'a str,
    pub mentions: Vec<SpanMention<'a>>,
    pub relations: Vec<IdRelation<'a>>,
    pub unmentioned: Unmentioned,
}

/// What is done with a relation that no two mentioned entities bear.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Unmentioned {
    /// It is an error.
    #[default]
    Refuse,
    /// It is left out and listed as a fault.
    List,
    /// It is left out and counted, and so are those of types that are not asked about.
    Count,
}

/// A mention as characters of title, one blank and body.
#[derive(Debug)]
pub(super) struct SpanMention<'a> {
    pub start: i64,
    pub end: i64,
    pub name: &'a str,
    pub entity_type: &'a str,
    pub ids: &'a str,
    /// Where the file states it.
    pub field: String,
}

/// A relation between identifiers, in either order.
#[derive(Debug)]
pub(super) struct IdRelation<'a> {
    pub relation: &'a str,
    pub ids: [&'a str; 2],
    /// Where the file states it.
    pub field: String,
}

impl Annotated<'_> {
    /// The document with its candidates and facts, and what became of the other relation rows;
    /// `types` say which pairs are asked about.
    ///
    /// # Errors
    /// A [`DataError`](crate::DataError) for a span outside the text or with another text than its
    /// name, and for a relation that no candidate bears.
    pub(super) fn document(
        &self,
        file: &Path,
        row: usize,
        types: &PairTypes,
    ) -> Result<(Document, OtherRows)> {
        let place = DocumentPlace { file, row, title: self.id };
        let text = if self.body.is_empty() {
            self.title.to_owned()
        } else {
            format!("{} {}", self.title, self.body)
        };
        if let Some((letter, script)) = without_words(&text) {
            return Err(place.error("title", no_words(letter, script)).hint(GIVE_SENTENCES).into());
        }
        let spans = self.spans(place, &text)?;
        let title = if self.body.is_empty() { 0 } else { self.title.chars().count() };
        let characters: Vec<char> = text.chars().collect();
        let cut = Cut { prose: Prose::Abstract, ..Cut::default() };
        let cut = segment(&characters, title, &spans, &cut);
        let mut document = Document {
            title: self.id.to_owned(),
            sentences: cut.sentences,
            provenance: Provenance { file: file.to_owned(), row },
            ..Document::default()
        };
        let mut known: HashMap<(&str, &str), usize> = HashMap::new();
        for (mention, span) in self.mentions.iter().zip(cut.spans) {
            let Some((sentence, start, end)) = span else {
                return Err(place
                    .error(&mention.field, "the mention covers no word")
                    .hint("spans begin and end at letters")
                    .into());
            };
            if !types.involve(mention.entity_type) {
                continue;
            }
            for id in identifiers(mention.ids) {
                let entity = *known.entry((mention.entity_type, id)).or_insert_with(|| {
                    document.entities.push(Entity {
                        knowledge_base_id: Some(id.to_owned()),
                        ..Entity::default()
                    });
                    document.entities.len() - 1
                });
                let mention = Mention {
                    name: mention.name.to_owned(),
                    sentence,
                    start,
                    end,
                    entity_type: mention.entity_type.to_owned(),
                };
                let mentions = &mut document.entities[entity].mentions;
                if !mentions.contains(&mention) {
                    mentions.push(mention);
                }
            }
        }
        document.candidates = types.candidates(&document);
        let (facts, others) = self.facts(place, &document, types)?;
        document.facts = Some(facts);
        Ok((document, others))
    }

    fn spans(&self, place: DocumentPlace<'_>, text: &str) -> Result<Vec<Range<usize>>> {
        let characters: Vec<char> = text.chars().collect();
        self.mentions.iter().map(|mention| mention.span(place, &characters)).collect()
    }

    fn facts(
        &self,
        place: DocumentPlace<'_>,
        document: &Document,
        types: &PairTypes,
    ) -> Result<(Vec<Fact>, OtherRows)> {
        let pairs: Vec<(usize, usize)> = document.asked_pairs();
        let mentioned: HashSet<&str> =
            self.mentions.iter().flat_map(|mention| identifiers(mention.ids)).collect();
        let is_mentioned = |ids: &str| identifiers(ids).iter().any(|id| mentioned.contains(id));
        let bears = |entity: usize, ids: &str| {
            let own = document.entities[entity].knowledge_base_id.as_deref().unwrap_or_default();
            identifiers(ids).contains(&own)
        };
        let mut seen = HashSet::new();
        let (mut facts, mut others) = (Vec::<Fact>::new(), OtherRows::default());
        for IdRelation { relation, ids: [first, second], field } in &self.relations {
            if is_no_relation(relation) {
                others.no_relation += 1;
                continue;
            }
            let as_stated =
                pairs.iter().filter(|&&(head, tail)| bears(head, first) && bears(tail, second));
            let mut found: Vec<_> = as_stated.copied().collect();
            if found.is_empty() {
                found = pairs
                    .iter()
                    .filter(|&&(head, tail)| bears(head, second) && bears(tail, first))
                    .copied()
                    .collect();
            }
            let is_unasked =
                *types != PairTypes::All && is_mentioned(first) && is_mentioned(second);
            if found.is_empty() && self.unmentioned == Unmentioned::Count {
                others.unplaced += 1;
            } else if found.is_empty() && is_unasked {
                others.unasked += 1;
            } else if found.is_empty() {
                let problem = format!(
                    "`{relation}` between `{first}` and `{second}`: no such pair of entities is \
                     mentioned"
                );
                let hint = "both must be mentioned; --on-error skip leaves such rows out";
                let error = place.error(field, problem).hint(hint);
                if self.unmentioned == Unmentioned::Refuse {
                    return Err(error.into());
                }
                others.faulty.push(error);
            }
            let (placed, before) = (!found.is_empty(), facts.len());
            let new = found.into_iter().filter(|&pair| seen.insert((pair, *relation)));
            facts.extend(new.map(|(head, tail)| Fact {
                head,
                tail,
                relation: (*relation).to_owned(),
                evidence: Vec::new(),
            }));
            others.repeated += usize::from(placed && facts.len() == before);
        }
        Ok((facts, others))
    }
}

impl SpanMention<'_> {
    /// Its characters in `text`.
    fn span(&self, place: DocumentPlace<'_>, text: &[char]) -> Result<Range<usize>> {
        let &SpanMention { start, end, name, ref field, .. } = self;
        let bounds = usize::try_from(start)
            .ok()
            .zip(usize::try_from(end).ok())
            .filter(|&(from, to)| from < to && to <= text.len());
        let Some((from, to)) = bounds else {
            let problem = format!(
                "the characters {start}..{end} are not a span of the {} characters of title and \
                 abstract",
                text.len()
            );
            return Err(place
                .error(field, problem)
                .hint("offsets count characters from the start of the title, from 0")
                .into());
        };
        let found: String = text[from..to].iter().collect();
        if found != name && found.to_lowercase() != name.to_lowercase() {
            let problem = format!("the text at {from}..{to} is `{found}`, not `{name}`");
            return Err(place
                .error(field, problem)
                .hint("offsets count Unicode characters, and one between title and abstract")
                .into());
        }
        Ok(from..to)
    }
}
