//! Running text with entities whose mentions are spans of characters: what JSONL, brat and plain
//! text hold. It is annotated where that was asked for, then cut into sentences of words.
//!
//! Not for: parsing those files, or where sentences end (`segment`).

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::reading::ReadOptions;
use super::scripts::{GIVE_SENTENCES, is_word_alone, no_words, without_words};
use super::segment::{Cut, segment};
use crate::Result;
use crate::corpus::check::{UncheckedEntity, UncheckedMention};
use crate::corpus::mentions::{
    AddedMention, FoundMentions, GivenEntity, GivenMention, Units, one_line,
};
use crate::corpus::place::DocumentPlace;

/// What offsets count.
pub(super) const CHARACTERS: &str =
    "offsets count Unicode characters from 0, the end is one past the last";

/// A text and the entities in it.
#[derive(Debug, Default)]
pub(super) struct RunningText {
    pub text: Vec<char>,
    pub entities: Vec<TextEntity>,
    /// Whether entities that get the same identifier are one.
    pub merge: bool,
    /// Words and sentences that another program has made.
    pub cut: Cut,
}

#[derive(Debug, Default)]
pub(super) struct TextEntity {
    pub id: Option<String>,
    pub mentions: Vec<TextMention>,
}

#[derive(Debug)]
pub(super) struct TextMention {
    /// Characters; inside the text and not empty.
    pub range: Range<usize>,
    /// `None` for the text itself.
    pub name: Option<String>,
    pub entity_type: String,
    /// Where the file states it.
    pub field: String,
}

/// A text in words.
#[derive(Debug, Default)]
pub(super) struct CutText {
    pub sentences: Vec<Vec<String>>,
    pub entities: Vec<UncheckedEntity>,
    /// For each entity of the text its number here.
    pub numbers: Vec<usize>,
    /// Mentions that repeated another one of their entity, which are left out.
    pub repeated: usize,
    /// Given mentions that begin or end between two letters.
    pub inside_words: usize,
    pub found: FoundMentions,
    /// Whether given sentences were joined, because a mention lies in both.
    pub joined: bool,
}

impl RunningText {
    /// # Errors
    /// A [`DataError`](crate::DataError) for a script without words, a mention that covers no word,
    /// and words or sentences of another program that do not fit the text.
    pub(super) fn cut(
        mut self,
        place: DocumentPlace<'_>,
        options: &ReadOptions,
    ) -> Result<CutText> {
        if self.cut.words.is_none() {
            check_script(place, &self.text)?;
        }
        let inside_words = self.mentions().filter(|mention| self.cuts_word(&mention.range)).count();
        let found = self.annotate(options);
        let numbers =
            if self.merge { self.merge_entities() } else { (0..self.entities.len()).collect() };
        let repeated = self.drop_repeated();
        let ranges: Vec<Range<usize>> =
            self.mentions().map(|mention| mention.range.clone()).collect();
        let cut = segment(&self.text, 0, &ranges, &self.cut);
        let mut spans = cut.spans.into_iter();
        let mut entities = Vec::with_capacity(self.entities.len());
        for entity in self.entities {
            let mut mentions = Vec::with_capacity(entity.mentions.len());
            for mention in entity.mentions {
                let Some((sentence, start, end)) = spans.next().flatten() else {
                    return Err(place
                        .error(mention.field, "the mention covers no word")
                        .hint("spans begin and end at letters")
                        .into());
                };
                let text = || Units::Characters(&self.text).name(mention.range.clone());
                mentions.push(UncheckedMention {
                    name: mention.name.clone().unwrap_or_else(text),
                    sentence: sentence as i64,
                    span: vec![start as i64, end as i64],
                    entity_type: mention.entity_type,
                });
            }
            entities.push(UncheckedEntity { id: entity.id, mentions });
        }
        let (sentences, joined) = (cut.sentences, cut.joined);
        Ok(CutText { sentences, entities, numbers, repeated, inside_words, found, joined })
    }

    fn mentions(&self) -> impl Iterator<Item = &TextMention> {
        self.entities.iter().flat_map(|entity| &entity.mentions)
    }

    /// Whether a span begins or ends between two letters of a script that has blanks.
    fn cuts_word(&self, range: &Range<usize>) -> bool {
        let inside = |at: usize| {
            let letter = |at: usize| {
                self.text.get(at).is_some_and(|c| c.is_alphanumeric() && !is_word_alone(*c))
            };
            at > 0 && letter(at - 1) && letter(at)
        };
        inside(range.start) || inside(range.end)
    }

    fn annotate(&mut self, options: &ReadOptions) -> FoundMentions {
        let Some(annotator) = &options.annotator else { return FoundMentions::default() };
        let units = Units::Characters(&self.text);
        for mention in self.entities.iter_mut().flat_map(|entity| &mut entity.mentions) {
            mention.entity_type = annotator.type_of(std::mem::take(&mut mention.entity_type));
        }
        let given = |mention: &TextMention| GivenMention {
            units: mention.range.clone(),
            name: mention.name.clone().unwrap_or_else(|| units.name(mention.range.clone())),
            entity_type: mention.entity_type.clone(),
        };
        let entities: Vec<GivenEntity> = self
            .entities
            .iter()
            .map(|entity| GivenEntity {
                id: entity.id.clone(),
                mentions: entity.mentions.iter().map(given).collect(),
            })
            .collect();
        let additions = annotator.annotate(units, &entities);
        for (entity, id) in additions.links {
            self.entities[entity].id = Some(id);
        }
        let new = additions.entities.into_iter();
        self.entities.extend(new.map(|id| TextEntity { id, mentions: Vec::new() }));
        for AddedMention { entity, units: range, name, entity_type } in additions.mentions {
            let (name, field) = (Some(name), "text".to_owned());
            self.entities[entity].mentions.push(TextMention { range, name, entity_type, field });
        }
        additions.found
    }

    /// Makes one entity of those with one identifier, and gives the new number of each.
    fn merge_entities(&mut self) -> Vec<usize> {
        let mut merged: Vec<TextEntity> = Vec::with_capacity(self.entities.len());
        let mut numbers = Vec::with_capacity(self.entities.len());
        let mut by_id: HashMap<String, usize> = HashMap::new();
        for entity in std::mem::take(&mut self.entities) {
            let next = merged.len();
            let number = match &entity.id {
                Some(id) => *by_id.entry(id.clone()).or_insert(next),
                None => next,
            };
            if number == next {
                merged.push(entity);
            } else {
                merged[number].mentions.extend(entity.mentions);
            }
            numbers.push(number);
        }
        self.entities = merged;
        numbers
    }

    /// Leaves out mentions that an entity has already, and counts them.
    fn drop_repeated(&mut self) -> usize {
        let mut repeated = 0;
        for entity in &mut self.entities {
            let before = entity.mentions.len();
            let mut seen = HashSet::with_capacity(before);
            entity.mentions.retain(|mention| seen.insert(mention.range.clone()));
            repeated += before - entity.mentions.len();
        }
        repeated
    }
}

impl CutText {
    /// What was left out of the text, or taken in another way than it stands.
    pub(super) fn passed_over(&self) -> Vec<(usize, &'static str)> {
        vec![
            (self.repeated, "mentions that repeat another one of their entity were left out"),
            (
                self.inside_words,
                "mentions that begin or end inside a word were taken for whole words",
            ),
        ]
    }
}

/// Refuses text whose words cannot be found.
pub(super) fn check_script(place: DocumentPlace<'_>, text: &[char]) -> Result<()> {
    let script = |c: &char| without_words(c.encode_utf8(&mut [0; 4]));
    match text.iter().find_map(script) {
        None => Ok(()),
        Some((letter, script)) => {
            Err(place.error("text", no_words(letter, script)).hint(GIVE_SENTENCES).into())
        }
    }
}

/// What the text has at an offset that does not fit: whether the offset counts something else than
/// characters.
pub(super) fn offset_hint(text: &[char], start: usize, end: usize, name: &str) -> &'static str {
    let wanted = one_line(name);
    let fits = |found: Option<String>| found.is_some_and(|found| one_line(&found) == wanted);
    let whole: String = text.iter().collect();
    let units: Vec<u16> = whole.encode_utf16().collect();
    if fits(whole.get(start..end).map(str::to_owned)) {
        "the offsets count bytes of UTF-8; count characters, as Python does"
    } else if fits(units.get(start..end).and_then(|units| String::from_utf16(units).ok())) {
        "the offsets count units of UTF-16, as JavaScript does; count characters, as Python does"
    } else if fits(
        whole
            .replace("\r\n", "\n")
            .chars()
            .collect::<Vec<_>>()
            .get(start..end)
            .map(String::from_iter),
    ) {
        "the offsets count a line break of \\r\\n as one character; save the text with \\n alone"
    } else {
        CHARACTERS
    }
}
