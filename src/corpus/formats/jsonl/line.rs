//! A line as it stands in the file: the fields of this format, and those in which other programs
//! write spans of characters (`spans`).

use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::spans::{Flat, LineEntity, LineMention, Member, SpanList, span_of};
use super::tokens::{LineSpan, cut_of};
use crate::Result;
use crate::corpus::check::{
    OtherRows, Unchecked, UncheckedEntity, UncheckedFact, UncheckedMention, UncheckedPair,
};
use crate::corpus::formats::reading::ReadOptions;
use crate::corpus::formats::running::{RunningText, TextEntity, TextMention};
use crate::corpus::place::DocumentPlace;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a document as a JSON object")]
pub(super) struct RawLine {
    title: Option<String>,
    /// The title of a document that has none.
    id: Option<LineId>,
    /// Running text; mentions then count characters.
    text: Option<String>,
    /// Sentences of words; mentions then count words of their sentence.
    sentences: Option<Vec<Vec<String>>>,
    /// This format's entities, or spans of GLiNER and of Hugging Face's pipelines.
    entities: Option<SpanList>,
    /// spaCy's entities.
    ents: Option<SpanList>,
    /// spaCy's groups of spans.
    spans: Option<SpanList>,
    /// spaCy's sentences and tokens.
    sents: Option<Vec<LineSpan>>,
    tokens: Option<Vec<LineSpan>>,
    /// Mentions that are one entity.
    #[serde(alias = "coref")]
    clusters: Option<Vec<Vec<Member>>>,
    facts: Option<Vec<UncheckedFact>>,
    candidates: Option<Vec<UncheckedPair>>,
    // What spaCy writes beside these.
    #[serde(rename = "cats")]
    _cats: Option<IgnoredAny>,
    #[serde(rename = "_")]
    _underscore: Option<IgnoredAny>,
    #[serde(rename = "underscore_token")]
    _underscore_token: Option<IgnoredAny>,
    #[serde(rename = "underscore_span")]
    _underscore_span: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a whole number")]
enum LineId {
    Text(String),
    Number(i64),
}

/// Where a line gives its mentions.
#[derive(Clone, Copy, PartialEq)]
enum SpanField {
    Entities,
    Ents,
    Spans,
}

impl SpanField {
    fn field(self) -> &'static str {
        match self {
            Self::Entities => "entities",
            Self::Ents => "ents",
            Self::Spans => "spans",
        }
    }
}

impl RawLine {
    /// The key of the document: `title`, or else `id`, or else file and row.
    pub(super) fn take_title(&mut self, file_name: &str, row: usize) -> String {
        let id = self.id.take().map(|id| match id {
            LineId::Text(text) => text,
            LineId::Number(number) => number.to_string(),
        });
        self.title.take().or(id).unwrap_or_else(|| format!("{file_name}:{row}"))
    }

    /// Whether the document is in words already.
    pub(super) fn has_words(&self) -> bool {
        self.sentences.is_some()
    }

    /// The document in words, not checked any further.
    pub(super) fn unchecked(
        mut self,
        place: DocumentPlace<'_>,
        options: &ReadOptions,
    ) -> Result<(Unchecked, OtherRows)> {
        match (self.text.take(), self.sentences.take()) {
            (Some(text), None) => self.of_text(place, &text, options),
            (None, Some(sentences)) => {
                let unchecked = self.of_words(place, sentences, options)?;
                Ok((unchecked, OtherRows::default()))
            }
            (Some(_), Some(_)) => Err(place
                .error("text", "both `text` and `sentences` are given")
                .hint("give one of them")
                .into()),
            (None, None) => Err(place
                .error("text", "neither `text` nor `sentences` is given")
                .hint("give one of them")
                .into()),
        }
    }

    /// The mentions, and the field that gives them.
    fn take_spans(
        &mut self,
        place: DocumentPlace<'_>,
        options: &ReadOptions,
        others: &mut OtherRows,
    ) -> Result<(SpanList, SpanField)> {
        let given = [
            (self.entities.take(), SpanField::Entities),
            (self.ents.take(), SpanField::Ents),
            (self.spans.take(), SpanField::Spans),
        ];
        let mut given: Vec<(SpanList, SpanField)> =
            given.into_iter().filter_map(|(list, source)| Some((list?, source))).collect();
        if let [(_, SpanField::Entities), (_, second), ..] = given[..] {
            let problem = format!("both `entities` and `{}` are given", second.field());
            return Err(place.error("entities", problem).hint("give one of them").into());
        }
        if let [(ents, SpanField::Ents), (spans, SpanField::Spans)] = &given[..] {
            if ents.is_empty() {
                given.remove(0);
            } else if !spans.is_empty() {
                let what = "documents have `spans` beside `ents`, which were passed over";
                others.passed_over.push((1, what));
            }
        }
        match given.into_iter().next() {
            Some(given) => Ok(given),
            None if options.annotator.is_some() => Ok((SpanList::default(), SpanField::Entities)),
            None => Err(place
                .error("entities", "the line has no mentions: no `entities`, `ents` or `spans`")
                .hint(
                    "find some with `docre-pretrain annotate`, or write `\"entities\": []` for a \
                     document without any",
                )
                .into()),
        }
    }

    fn of_words(
        mut self,
        place: DocumentPlace<'_>,
        sentences: Vec<Vec<String>>,
        options: &ReadOptions,
    ) -> Result<Unchecked> {
        let (mut list, source) = self.take_spans(place, options, &mut OtherRows::default())?;
        let (own, of_text) =
            (list.native(place, source.field())?, "spans of characters need `text`");
        let also = [("tokens", self.tokens.is_some()), ("sents", self.sents.is_some())];
        if let Some((field, _)) = also.into_iter().find(|(_, given)| *given) {
            return Err(place.error(field, of_text).hint("leave `sentences` out").into());
        }
        let Some(entities) = own else {
            return Err(place.error(source.field(), of_text).hint("leave `sentences` out").into());
        };
        self.refuse_clusters(place)?;
        let mut read = Vec::with_capacity(entities.len());
        for (index, entity) in entities.into_iter().enumerate() {
            let (id, entity_type) = (entity.id, entity.entity_type.unwrap_or_default());
            let mentions = entity.mentions.unwrap_or_default().into_iter().enumerate();
            let mentions = mentions.map(|(at, mention)| {
                let field = format!("entities[{index}].mentions[{at}].sentence");
                word_mention(place, &sentences, mention, &entity_type, field)
            });
            read.push(UncheckedEntity { id, mentions: mentions.collect::<Result<_>>()? });
        }
        let Self { facts, candidates, .. } = self;
        Ok(Unchecked {
            title: place.title.to_owned(),
            sentences,
            entities: read,
            facts,
            candidates,
        })
    }

    fn of_text(
        mut self,
        place: DocumentPlace<'_>,
        text: &str,
        options: &ReadOptions,
    ) -> Result<(Unchecked, OtherRows)> {
        let mut others = OtherRows::default();
        let (mut list, source) = self.take_spans(place, options, &mut others)?;
        let text: Vec<char> = text.chars().collect();
        let mut running = RunningText::default();
        // For each span of a flat list its entity.
        let mut of_span = None;
        match list.native(place, source.field())? {
            Some(entities) => {
                self.refuse_clusters(place)?;
                running.entities = own_entities(place, &text, entities)?;
            }
            None => {
                let clusters = self.clusters.take().unwrap_or_default();
                let flat = Flat::read(place, source.field(), list, &text, &clusters)?;
                others.passed_over.extend(flat.passed_over);
                (running.entities, of_span, running.merge) =
                    (flat.entities, Some(flat.of_span), true);
            }
        }
        running.cut =
            cut_of(place, &text, &running.entities, self.tokens.take(), self.sents.take())?;
        running.text = text;
        let has_sentences = running.cut.sentences.is_some();
        let cut = running.cut(place, options)?;
        self.refuse_evidence(place, has_sentences, cut.joined)?;
        others.passed_over.extend(cut.passed_over());
        others.found = cut.found;
        let (mut facts, mut candidates) = (self.facts.take(), self.candidates.take());
        if let Some(of_span) = of_span {
            let numbers: Vec<usize> = of_span.iter().map(|entity| cut.numbers[*entity]).collect();
            renumber(place, &numbers, facts.as_deref_mut(), candidates.as_deref_mut())?;
        }
        let (title, sentences, entities) = (place.title.to_owned(), cut.sentences, cut.entities);
        Ok((Unchecked { title, sentences, entities, facts, candidates }, others))
    }

    fn refuse_clusters(&self, place: DocumentPlace<'_>) -> Result<()> {
        if self.clusters.is_none() {
            return Ok(());
        }
        let problem = "entities with `mentions` are clusters already";
        Err(place.error("clusters", problem).hint("leave `clusters` out").into())
    }

    fn refuse_evidence(&self, place: DocumentPlace<'_>, given: bool, joined: bool) -> Result<()> {
        let facts = self.facts.as_deref().unwrap_or_default();
        let Some(at) = facts.iter().position(|fact| !fact.evidence.is_empty()) else {
            return Ok(());
        };
        let problem = match (given, joined) {
            (true, false) => return Ok(()),
            (true, true) => "evidence counts sentences, and a mention lies in two of them",
            (false, _) => "evidence counts sentences, and the text has none yet",
        };
        let hint = "give `sentences` instead of `text`, or leave the evidence out";
        Err(place.error(format!("facts[{at}].evidence"), problem).hint(hint).into())
    }
}

fn word_mention(
    place: DocumentPlace<'_>,
    sentences: &[Vec<String>],
    mention: LineMention,
    entity_type: &str,
    field: String,
) -> Result<UncheckedMention> {
    let Some(sentence) = mention.sentence else {
        return Err(place
            .error(field, "the mention names no sentence")
            .hint("with `sentences`, mentions count words of one of them")
            .into());
    };
    // A name that is not given is that of the words; a span that does not exist is found by the
    // check.
    let words = || {
        let span: Range<usize> = mention.start.try_into().ok()?..mention.end.try_into().ok()?;
        Some(sentences.get(usize::try_from(sentence).ok()?)?.get(span)?.join(" "))
    };
    let name = mention.name.clone().or_else(words).unwrap_or_default();
    let entity_type = mention.entity_type.unwrap_or_else(|| entity_type.to_owned());
    Ok(UncheckedMention { name, sentence, span: vec![mention.start, mention.end], entity_type })
}

/// Entities of this format, with spans of characters.
fn own_entities(
    place: DocumentPlace<'_>,
    text: &[char],
    entities: Vec<LineEntity>,
) -> Result<Vec<TextEntity>> {
    let mut read = Vec::with_capacity(entities.len());
    for (index, entity) in entities.into_iter().enumerate() {
        let (id, entity_type) = (entity.id, entity.entity_type.unwrap_or_default());
        let mut mentions = Vec::new();
        for (at, mention) in entity.mentions.unwrap_or_default().into_iter().enumerate() {
            let field = format!("entities[{index}].mentions[{at}]");
            if mention.sentence.is_some() {
                return Err(place
                    .error(format!("{field}.sentence"), "running text has no sentences yet")
                    .hint("mentions of `text` count characters")
                    .into());
            }
            let field = format!("{field}.start");
            mentions.push(TextMention {
                range: span_of(place, &field, text.len(), mention.start, mention.end)?,
                name: mention.name,
                entity_type: mention.entity_type.unwrap_or_else(|| entity_type.clone()),
                field,
            });
        }
        read.push(TextEntity { id, mentions });
    }
    Ok(read)
}

/// Makes heads and tails that count spans count entities.
fn renumber(
    place: DocumentPlace<'_>,
    numbers: &[usize],
    facts: Option<&mut [UncheckedFact]>,
    candidates: Option<&mut [UncheckedPair]>,
) -> Result<()> {
    let number = |field: String, span: &mut i64| -> Result<()> {
        let entity = usize::try_from(*span).ok().and_then(|span| numbers.get(span));
        let Some(entity) = entity else {
            let problem = format!("{span} is out of range: the line has {} spans", numbers.len());
            let hint = "head and tail count the spans of the line, from 0";
            return Err(place.error(field, problem).hint(hint).into());
        };
        *span = *entity as i64;
        Ok(())
    };
    for (at, fact) in facts.unwrap_or_default().iter_mut().enumerate() {
        number(format!("facts[{at}].head"), &mut fact.head)?;
        number(format!("facts[{at}].tail"), &mut fact.tail)?;
    }
    for (at, pair) in candidates.unwrap_or_default().iter_mut().enumerate() {
        number(format!("candidates[{at}].head"), &mut pair.head)?;
        number(format!("candidates[{at}].tail"), &mut pair.tail)?;
    }
    Ok(())
}
