//! Adds to a document the mentions that a dictionary and rules find, and identifiers to the
//! entities that it has.
//!
//! What a document has stays as it is, and nothing is added over its mentions. Of what is found,
//! names come before dates, and dates before numbers. An ambiguous name means the thing that the
//! document also mentions by another name. Where it mentions none or several of them, the name
//! becomes an entity without identifier. Not for: sentences and words (`formats`).

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::dictionary::{Dictionary, NameMatch, NamedThing};
use super::found::FoundMentions;
use super::normal::{Blanks, Normal, Units, normal_name};
use super::rules::{DATE_TYPE, Findable, Language, Rules};
use crate::Result;
use crate::corpus::spans::Occupied;
use crate::corpus::{Document, Entity, Mention};

/// Finds mentions.
#[derive(Debug)]
pub struct Annotator {
    dictionary: Option<Dictionary>,
    rules: Rules,
    /// Types of given mentions → the types that they get.
    renamed: HashMap<String, String>,
}

/// An entity that a document has.
#[derive(Debug, Default)]
pub(in crate::corpus) struct GivenEntity {
    pub id: Option<String>,
    pub mentions: Vec<GivenMention>,
}

/// A mention that a document has.
#[derive(Debug)]
pub(in crate::corpus) struct GivenMention {
    pub units: Range<usize>,
    pub name: String,
    pub entity_type: String,
}

/// What a document gets.
#[derive(Debug, Default)]
pub(in crate::corpus) struct Additions {
    /// Given entities, by number, and their identifiers.
    pub links: Vec<(usize, String)>,
    /// Identifiers of new entities, which are counted after those that were given.
    pub entities: Vec<Option<String>>,
    pub mentions: Vec<AddedMention>,
    pub found: FoundMentions,
}

/// A mention that was found.
#[derive(Debug, PartialEq)]
pub(in crate::corpus) struct AddedMention {
    /// Number of its entity.
    pub entity: usize,
    pub units: Range<usize>,
    pub name: String,
    pub entity_type: String,
}

/// What makes two things the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MeantThing<'a> {
    Id(&'a str),
    /// A thing without identifier, by its number.
    Nameless(u32),
}

/// Entities of a document that is being annotated, by what makes them the same.
#[derive(Default)]
struct Known<'a> {
    by_identity: HashMap<MeantThing<'a>, usize>,
    /// Entities without identifier, by name and type.
    by_name: HashMap<(String, String), usize>,
}

impl Annotator {
    /// # Errors
    /// None but a bug in the rules.
    pub fn new(
        dictionary: Option<Dictionary>,
        find: &[Findable],
        languages: &[Language],
        renamed: HashMap<String, String>,
    ) -> Result<Self> {
        Ok(Self { dictionary, rules: Rules::new(find, languages)?, renamed })
    }

    /// The type that a given mention gets.
    pub(in crate::corpus) fn type_of(&self, given: String) -> String {
        self.renamed.get(&given).cloned().unwrap_or(given)
    }

    /// Adds mentions to a document of words.
    pub(in crate::corpus) fn annotate_words(&self, document: &mut Document) -> FoundMentions {
        for mention in document.entities.iter_mut().flat_map(|entity| &mut entity.mentions) {
            mention.entity_type = self.type_of(std::mem::take(&mut mention.entity_type));
        }
        let starts = document.sentence_starts();
        let given = |mention: &Mention| GivenMention {
            units: starts[mention.sentence] + mention.start..starts[mention.sentence] + mention.end,
            name: mention.name.clone(),
            entity_type: mention.entity_type.clone(),
        };
        let entities = document.entities.iter().map(|entity| GivenEntity {
            id: entity.knowledge_base_id.clone(),
            mentions: entity.mentions.iter().map(given).collect(),
        });
        let entities: Vec<GivenEntity> = entities.collect();
        let additions = self.annotate(Units::Words(&document.sentences, &starts), &entities);
        for (entity, id) in additions.links {
            document.entities[entity].knowledge_base_id = Some(id);
        }
        let new = additions.entities.into_iter();
        document
            .entities
            .extend(new.map(|id| Entity { knowledge_base_id: id, ..Entity::default() }));
        for AddedMention { entity, units, name, entity_type } in additions.mentions {
            let sentence = starts.partition_point(|start| *start <= units.start) - 1;
            let (start, end) = (units.start - starts[sentence], units.end - starts[sentence]);
            let mention = Mention { name, sentence, start, end, entity_type };
            document.entities[entity].mentions.push(mention);
        }
        additions.found
    }

    /// What a text gets beside the entities that it has.
    pub(in crate::corpus) fn annotate(&self, units: Units<'_>, given: &[GivenEntity]) -> Additions {
        let mentions = || given.iter().flat_map(|entity| &entity.mentions);
        let mut taken: Vec<Range<usize>> = mentions().map(|it| it.units.clone()).collect();
        let occupied = |taken: &[Range<usize>]| Occupied::new(taken.iter().cloned());
        let mut additions = Additions::default();
        additions.found.given = taken.len();
        let mut known = Known::of_ids(given);
        let mut added = Vec::new();
        if let Some(dictionary) = &self.dictionary {
            let names =
                dictionary.find(&Normal::new(units, Blanks::BetweenWords), &occupied(&taken));
            taken.extend(names.iter().map(|name| name.units.clone()));
            let linking = Linking { dictionary, given, names };
            added = linking.run(&mut additions, &mut known);
        }
        known.add_names(given, &additions.links);
        if !self.rules.is_empty() {
            let text = Normal::new(units, Blanks::Everywhere);
            for rule in self.rules.find(&text, &occupied(&taken)) {
                let is_date = rule.entity_type == DATE_TYPE;
                additions.found.dates += usize::from(is_date);
                additions.found.numbers += usize::from(!is_date);
                let name = normal_name(&units.name(rule.units.clone()));
                added.push((rule.units, Meaning::Named(name), rule.entity_type.to_owned()));
            }
        }
        added.sort_by_key(|(units, ..)| units.start);
        for (range, meaning, entity_type) in added {
            let next = given.len() + additions.entities.len();
            let entity = known.entity(&meaning, &entity_type, next);
            if entity == next {
                additions.entities.push(meaning.id());
            }
            let name = units.name(range.clone());
            additions.mentions.push(AddedMention { entity, units: range, name, entity_type });
        }
        additions
    }
}

/// What a found mention stands for.
enum Meaning<'a> {
    Known(MeantThing<'a>),
    /// It is not known: mentions of one name and type are one entity.
    Named(String),
}

impl Meaning<'_> {
    fn id(&self) -> Option<String> {
        match self {
            Self::Known(MeantThing::Id(id)) => Some((*id).to_owned()),
            _ => None,
        }
    }
}

impl<'a> Known<'a> {
    /// The given entities with identifiers.
    fn of_ids(given: &'a [GivenEntity]) -> Self {
        let mut known = Self::default();
        for (at, entity) in given.iter().enumerate() {
            if let Some(id) = &entity.id {
                known.by_identity.entry(MeantThing::Id(id)).or_insert(at);
            }
        }
        known
    }

    /// Given entities that have no identifier after all.
    fn add_names(&mut self, given: &[GivenEntity], links: &[(usize, String)]) {
        let linked: HashSet<usize> = links.iter().map(|(at, _)| *at).collect();
        for (at, entity) in given.iter().enumerate() {
            if entity.id.is_none() && !linked.contains(&at) {
                for mention in &entity.mentions {
                    let key = (normal_name(&mention.name), mention.entity_type.clone());
                    self.by_name.entry(key).or_insert(at);
                }
            }
        }
    }

    /// The entity of a found mention, which is `next` where it is a new one.
    fn entity(&mut self, meaning: &Meaning<'a>, entity_type: &str, next: usize) -> usize {
        match meaning {
            Meaning::Known(identity) => *self.by_identity.entry(*identity).or_insert(next),
            Meaning::Named(name) => {
                let key = (name.clone(), entity_type.to_owned());
                *self.by_name.entry(key).or_insert(next)
            }
        }
    }
}

/// Names of a document, and the things that they may mean.
struct Linking<'a> {
    dictionary: &'a Dictionary,
    given: &'a [GivenEntity],
    names: Vec<NameMatch<'a>>,
}

/// A mention that was found: its units, what it stands for, and its type.
type FoundName<'a> = (Range<usize>, Meaning<'a>, String);

impl<'a> Linking<'a> {
    fn run(self, additions: &mut Additions, known: &mut Known<'a>) -> Vec<FoundName<'a>> {
        let candidates = self.candidates(&mut additions.found);
        // What the document names without doubt.
        let sure =
            self.names.iter().map(|name| name.things).chain(candidates.iter().map(|(_, c)| &c[..]));
        let sure = sure.filter_map(|things| self.only(things.iter()));
        let present: HashSet<MeantThing<'a>> =
            known.by_identity.keys().copied().chain(sure).collect();
        for (entity, things) in &candidates {
            let Some(MeantThing::Id(id)) = self.meaning(things, &present) else { continue };
            additions.links.push((*entity, id.to_owned()));
            additions.found.linked += 1;
            known.by_identity.entry(MeantThing::Id(id)).or_insert(*entity);
        }
        let mut added = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let meaning = self.meaning(name.things, &present);
            additions.found.dictionary += 1;
            if self.only(name.things.iter()).is_none() {
                self.count_ambiguous(name, meaning.is_some(), &mut additions.found);
            }
            let of_type = |thing: &&u32| meaning.is_none_or(|it| self.identity(**thing) == it);
            let thing = name.things.iter().find(of_type).copied().unwrap_or_default();
            let entity_type = self.thing(thing).entity_type.to_string();
            let meaning = meaning.map_or_else(|| Meaning::Named(name.name.clone()), Meaning::Known);
            added.push((name.units.clone(), meaning, entity_type));
        }
        added
    }

    /// Given entities without identifier, and the things of their type that bear one of their
    /// names.
    fn candidates(&self, found: &mut FoundMentions) -> Vec<(usize, Vec<u32>)> {
        let mut all = Vec::new();
        for (at, entity) in self.given.iter().enumerate().filter(|(_, entity)| entity.id.is_none())
        {
            let (mut things, mut others) = (Vec::new(), false);
            for mention in &entity.mentions {
                for &thing in self.dictionary.things_of(&mention.name) {
                    let fits = *self.thing(thing).entity_type == *mention.entity_type;
                    others |= !fits;
                    if fits && !things.contains(&thing) {
                        things.push(thing);
                    }
                }
            }
            found.other_type += usize::from(others && things.is_empty());
            if !things.is_empty() {
                all.push((at, things));
            }
        }
        all
    }

    fn thing(&self, number: u32) -> &'a NamedThing {
        self.dictionary.thing(number)
    }

    fn identity(&self, thing: u32) -> MeantThing<'a> {
        self.thing(thing).id.as_deref().map_or(MeantThing::Nameless(thing), MeantThing::Id)
    }

    /// The thing, where there is one alone.
    fn only<'b>(&self, mut things: impl Iterator<Item = &'b u32>) -> Option<MeantThing<'a>> {
        let first = things.next()?;
        things.next().is_none().then(|| self.identity(*first))
    }

    /// The one thing, or the one that is present.
    fn meaning(&self, things: &[u32], present: &HashSet<MeantThing<'a>>) -> Option<MeantThing<'a>> {
        self.only(things.iter()).or_else(|| {
            self.only(things.iter().filter(|thing| present.contains(&self.identity(**thing))))
        })
    }

    fn count_ambiguous(&self, name: &NameMatch<'_>, resolved: bool, found: &mut FoundMentions) {
        let entry = found.ambiguous.entry(name.name.clone()).or_default();
        entry.mentions += 1;
        entry.resolved += usize::from(resolved);
        let id = |thing: &u32| self.thing(*thing).id.as_deref().unwrap_or_default().to_owned();
        entry.candidates.extend(name.things.iter().map(id));
    }
}
