//! Spans of characters in a flat list, as spaCy, GLiNER and Hugging Face's pipelines print them,
//! and which of them are one entity.
//!
//! Spans of one identifier or of one cluster are one entity. Where spans have neither, those of one
//! name and type are. Not for: entities with `mentions` (`line`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::Result;
use crate::corpus::formats::running::{CHARACTERS, TextEntity, TextMention, offset_hint};
use crate::corpus::mentions::one_line;
use crate::corpus::place::DocumentPlace;

/// What spaCy's linker writes for a mention that it knows no identifier for.
const NO_ID: [&str; 2] = ["", "NIL"];

/// An entity of this format, or one span of another program.
#[derive(Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `mentions`, or with `start`, `end` and `label`"
)]
pub(super) struct LineEntity {
    pub(super) id: Option<String>,
    /// Type of the mentions that bear none of their own.
    #[serde(rename = "type")]
    pub(super) entity_type: Option<String>,
    pub(super) mentions: Option<Vec<LineMention>>,
    start: Option<i64>,
    end: Option<i64>,
    label: Option<String>,
    /// Hugging Face's types: of spans, and of single tokens.
    entity_group: Option<String>,
    entity: Option<String>,
    /// The text of the span, of GLiNER and of Hugging Face.
    text: Option<String>,
    word: Option<String>,
    kb_id: Option<String>,
    #[serde(rename = "kb_url")]
    _kb_url: Option<IgnoredAny>,
    #[serde(rename = "score", alias = "confidence")]
    _score: Option<IgnoredAny>,
    #[serde(rename = "index")]
    _index: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LineMention {
    pub(super) name: Option<String>,
    pub(super) sentence: Option<i64>,
    pub(super) start: i64,
    pub(super) end: i64,
    #[serde(rename = "type")]
    pub(super) entity_type: Option<String>,
}

/// A member of a cluster: the number of a span, or its characters.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "the number of a span, or [start, end]")]
pub(super) enum Member {
    Number(i64),
    Characters([i64; 2]),
}

/// Spans in a list, or lists of them by type or by group.
pub(super) enum SpanList {
    List(Vec<LineEntity>),
    Groups(Vec<(String, Vec<LineEntity>)>),
}

impl Default for SpanList {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl<'de> Deserialize<'de> for SpanList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Lists;
        impl<'de> Visitor<'de> for Lists {
            type Value = SpanList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of entities or spans")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<SpanList, A::Error> {
                let mut list = Vec::new();
                while let Some(entity) = seq.next_element()? {
                    list.push(entity);
                }
                Ok(SpanList::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<SpanList, A::Error> {
                let mut groups = Vec::new();
                while let Some(group) = map.next_entry()? {
                    groups.push(group);
                }
                Ok(SpanList::Groups(groups))
            }
        }
        deserializer.deserialize_any(Lists)
    }
}

impl SpanList {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Groups(groups) => groups.iter().all(|(_, list)| list.is_empty()),
        }
    }

    /// The entities of this format; `None`, with the list as it was, where it holds spans.
    pub(super) fn native(
        &mut self,
        place: DocumentPlace<'_>,
        field: &str,
    ) -> Result<Option<Vec<LineEntity>>> {
        let Self::List(list) = self else { return Ok(None) };
        let own = list.iter().filter(|entity| entity.mentions.is_some()).count();
        let is_flat = |entity: &LineEntity| entity.start.is_some() || entity.end.is_some();
        match list.iter().position(|entity| entity.mentions.is_some() == is_flat(entity)) {
            Some(at) => {
                let problem = match list[at].mentions {
                    Some(_) => "an entity has `mentions`, or `start` and `end`, but not both",
                    None => "neither `mentions` nor `start` and `end` are given",
                };
                let hint =
                    "an entity is {\"mentions\": […]}, a span {\"start\", \"end\", \"label\"}";
                Err(place.error(format!("{field}[{at}]"), problem).hint(hint).into())
            }
            None if own == list.len() && field == "entities" => Ok(Some(std::mem::take(list))),
            None if own == 0 => Ok(None),
            None => {
                let at =
                    list.iter().position(|entity| entity.mentions.is_some()).unwrap_or_default();
                let problem = "entities with `mentions` stand among single spans";
                let hint = "entities with `mentions` are a list of their own, `entities`";
                Err(place.error(format!("{field}[{at}]"), problem).hint(hint).into())
            }
        }
    }

    /// All spans, each with its field and the type that its group gives.
    fn into_spans(
        self,
        place: DocumentPlace<'_>,
        field: &str,
    ) -> Result<Vec<(LineEntity, String, Option<String>)>> {
        let groups = match self {
            Self::List(list) => {
                let list = list.into_iter().enumerate();
                return Ok(list.map(|(at, span)| (span, format!("{field}[{at}]"), None)).collect());
            }
            Self::Groups(groups) => groups,
        };
        let is_typed = field != "spans";
        let full = groups.iter().filter(|(_, list)| !list.is_empty());
        let names: Vec<&str> = full.map(|(name, _)| name.as_str()).collect();
        if !is_typed && names.len() > 1 {
            let problem = format!("there are several groups of spans: {}", names.join(", "));
            return Err(place
                .error(field, problem)
                .hint("keep the one that holds the entities")
                .into());
        }
        let mut spans = Vec::new();
        for (group, list) in groups {
            for (at, span) in list.into_iter().enumerate() {
                spans.push((
                    span,
                    format!("{field}.{group}[{at}]"),
                    is_typed.then(|| group.clone()),
                ));
            }
        }
        Ok(spans)
    }
}

/// A span as characters of the text.
///
/// # Errors
/// A [`DataError`](crate::DataError) for a span outside the text.
pub(super) fn span_of(
    place: DocumentPlace<'_>,
    field: &str,
    length: usize,
    start: i64,
    end: i64,
) -> Result<Range<usize>> {
    let bounds = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    match bounds.filter(|&(from, to)| from < to && to <= length) {
        Some((from, to)) => Ok(from..to),
        None => {
            let problem =
                format!("the characters {start}..{end} are not a span of a text of {length}");
            Err(place.error(field, problem).hint(CHARACTERS).into())
        }
    }
}

/// The spans of a line, as entities.
#[derive(Default)]
pub(super) struct Flat {
    pub(super) entities: Vec<TextEntity>,
    /// For each span its entity.
    pub(super) of_span: Vec<usize>,
    pub(super) passed_over: Vec<(usize, &'static str)>,
}

/// A span of the text.
struct Spanned {
    id: Option<String>,
    /// Its text with single blanks.
    name: String,
    mention: TextMention,
}

impl Flat {
    /// # Errors
    /// A [`DataError`](crate::DataError) for a span that is not in the text, has another text than
    /// it says, or no type, and for a cluster of spans that are not there or have different
    /// identifiers.
    pub(super) fn read(
        place: DocumentPlace<'_>,
        field: &str,
        list: SpanList,
        text: &[char],
        clusters: &[Vec<Member>],
    ) -> Result<Self> {
        let mut spans = Vec::new();
        for (span, field, group) in list.into_spans(place, field)? {
            spans.push(spanned(place, text, span, &field, group)?);
        }
        let count = spans.len();
        let mut groups = SameEntity { parent: (0..count).collect(), clustered: vec![false; count] };
        let extra = groups.add_clusters(place, text.len(), &spans, clusters)?;
        groups.add_ids(&spans);
        groups.add_names(&spans);
        let mut flat = Self::default();
        let mut number_of: HashMap<usize, usize> = HashMap::new();
        for (at, span) in spans.into_iter().enumerate() {
            let number = *number_of.entry(groups.root(at)).or_insert_with(|| {
                flat.entities.push(TextEntity::default());
                flat.entities.len() - 1
            });
            let entity = &mut flat.entities[number];
            if let (Some(own), Some(other)) = (&entity.id, &span.id)
                && own != other
            {
                let problem = format!("one cluster has mentions of `{own}` and of `{other}`");
                let hint = "an entity has one identifier; part the cluster, or leave one out";
                return Err(place.error(span.mention.field, problem).hint(hint).into());
            }
            entity.id = entity.id.take().or(span.id);
            entity.mentions.push(span.mention);
            flat.of_span.push(number);
        }
        let mut foreign = 0;
        for (cluster, range) in extra {
            let Some(span) = cluster else {
                foreign += 1;
                continue;
            };
            let mentions = &mut flat.entities[flat.of_span[span]].mentions;
            let entity_type = mentions[0].entity_type.clone();
            let field = "clusters".to_owned();
            mentions.push(TextMention { range, name: None, entity_type, field });
        }
        flat.passed_over
            .push((foreign, "mentions of clusters without any given span were left out"));
        Ok(flat)
    }
}

fn spanned(
    place: DocumentPlace<'_>,
    text: &[char],
    span: LineEntity,
    field: &str,
    group: Option<String>,
) -> Result<Spanned> {
    let (Some(start), Some(end)) = (span.start, span.end) else {
        let hint = "GLiNER2 prints offsets with include_spans=True";
        return Err(place.error(field, "`start` or `end` is missing").hint(hint).into());
    };
    if span.entity.is_some() {
        let problem = "the span is a single token with a tag, not an entity";
        let hint = "run the pipeline with aggregation_strategy=\"simple\"";
        return Err(place.error(format!("{field}.entity"), problem).hint(hint).into());
    }
    let start_field = format!("{field}.start");
    let range = span_of(place, &start_field, text.len(), start, end).map_err(|error| {
        let said = span.text.as_ref().or(span.word.as_ref());
        let bounds = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        match (said, bounds) {
            (Some(said), Some((start, end))) => {
                error.with_hint(offset_hint(text, start, end, said))
            }
            _ => error,
        }
    })?;
    let name = one_line(&text[range.clone()].iter().collect::<String>());
    check_text(place, text, &range, &name, &span, &start_field)?;
    let types = [span.label, span.entity_type, span.entity_group, group];
    let Some(entity_type) = types.into_iter().flatten().find(|it| !it.is_empty()) else {
        let hint = "a span has a `label`, such as `PER`";
        return Err(place
            .error(format!("{field}.label"), "the span has no type")
            .hint(hint)
            .into());
    };
    let mut ids = [span.kb_id, span.id].into_iter().flatten();
    let id = ids.find(|id| !NO_ID.contains(&id.as_str()));
    let mention = TextMention { range, name: Some(name.clone()), entity_type, field: start_field };
    Ok(Spanned { id, name, mention })
}

/// Refuses a span whose text is another than it says. A `word` is made of pieces, which may have
/// lost accents; it is refused only where other offsets fit.
fn check_text(
    place: DocumentPlace<'_>,
    text: &[char],
    range: &Range<usize>,
    name: &str,
    span: &LineEntity,
    field: &str,
) -> Result<()> {
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let Some(said) = span.text.as_ref().or(span.word.as_ref()) else { return Ok(()) };
    if letters(said) == letters(name) {
        return Ok(());
    }
    let hint = offset_hint(text, range.start, range.end, said);
    if span.text.is_none() && hint == CHARACTERS {
        return Ok(());
    }
    let problem = format!("the text at {}..{} is `{name}`, not `{said}`", range.start, range.end);
    Err(place.error(field, problem).hint(hint).into())
}

/// Which spans are one entity.
struct SameEntity {
    /// For each span an earlier one of its entity, or itself.
    parent: Vec<usize>,
    clustered: Vec<bool>,
}

/// A mention of a cluster that is no span: a span of its cluster, and its characters.
type Extra = (Option<usize>, Range<usize>);

impl SameEntity {
    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
    }

    /// The first span of the entity of a span.
    fn root(&mut self, mut span: usize) -> usize {
        while self.parent[span] != span {
            self.parent[span] = self.parent[self.parent[span]];
            span = self.parent[span];
        }
        span
    }

    fn add_clusters(
        &mut self,
        place: DocumentPlace<'_>,
        length: usize,
        spans: &[Spanned],
        clusters: &[Vec<Member>],
    ) -> Result<Vec<Extra>> {
        let mut by_range: HashMap<&Range<usize>, usize> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            by_range.entry(&span.mention.range).or_insert(at);
        }
        let mut extra = Vec::new();
        for (number, cluster) in clusters.iter().enumerate() {
            let (mut members, mut others) = (Vec::new(), Vec::new());
            for (at, member) in cluster.iter().enumerate() {
                let field = format!("clusters[{number}][{at}]");
                match *member {
                    Member::Number(span) => {
                        let known = usize::try_from(span).ok().filter(|span| *span < spans.len());
                        let Some(known) = known else {
                            let problem = format!(
                                "{span} is out of range: the line has {} spans",
                                spans.len()
                            );
                            let hint = "a cluster lists numbers of spans, from 0, or [start, end]";
                            return Err(place.error(field, problem).hint(hint).into());
                        };
                        members.push(known);
                    }
                    Member::Characters([start, end]) => {
                        let range = span_of(place, &field, length, start, end)?;
                        match by_range.get(&range) {
                            Some(known) => members.push(*known),
                            None => others.push(range),
                        }
                    }
                }
            }
            members.windows(2).for_each(|pair| self.unite(pair[0], pair[1]));
            members.iter().for_each(|member| self.clustered[*member] = true);
            extra.extend(others.into_iter().map(|range| (members.first().copied(), range)));
        }
        Ok(extra)
    }

    fn add_ids(&mut self, spans: &[Spanned]) {
        let mut by_id: HashMap<&str, usize> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            if let Some(id) = &span.id {
                let first = *by_id.entry(id).or_insert(at);
                self.unite(first, at);
            }
        }
    }

    /// Spans with neither identifier nor cluster: those of one name and type are one entity, and
    /// belong to the identifier that all others of that name and type have.
    fn add_names(&mut self, spans: &[Spanned]) {
        type Key<'a> = (&'a str, &'a str);
        let mut ids: HashMap<Key<'_>, (BTreeSet<&str>, usize)> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            if let Some(id) = &span.id {
                let known = ids.entry((&span.name, &span.mention.entity_type));
                known.or_insert_with(|| (BTreeSet::new(), at)).0.insert(id);
            }
        }
        let mut by_name: HashMap<Key<'_>, usize> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            if span.id.is_some() || self.clustered[at] {
                continue;
            }
            let key = (span.name.as_str(), span.mention.entity_type.as_str());
            let with_id = ids.get(&key).filter(|(ids, _)| ids.len() == 1).map(|(_, span)| *span);
            let first = with_id.unwrap_or_else(|| *by_name.entry(key).or_insert(at));
            self.unite(first, at);
        }
    }
}
