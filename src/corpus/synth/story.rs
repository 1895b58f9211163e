//! Puts a script into words: names and aliases, references to what was named before, and the
//! evidence that follows from them.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt, seq::IndexedRandom};

use super::{
    closure::{Evidence, closure},
    community::Community,
    outline::Outline,
    schema::{Kind, Triple},
    script::{Statement, Step},
};
use crate::corpus::{Document, Entity, Fact, Mention};

const REFERENCE_SHARE: f64 = 0.75;
const EPITHET_USE_SHARE: f64 = 0.85;
const ALIAS_SHARE: f64 = 0.35;

/// A document in words, and what it expresses. The document itself has no facts yet.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub document: Document,
    /// Every expressed fact with its evidence, by head, tail and relation.
    pub expressed: Vec<Fact>,
    /// The distant labels, in the same order, without evidence.
    pub labels: Vec<Fact>,
}

struct Story<'a, R> {
    community: &'a Community,
    outline: &'a Outline,
    rng: &'a mut R,
    sentences: Vec<Vec<String>>,
    mentions: BTreeMap<usize, Vec<Mention>>,
    evidence: Evidence,
    /// Things named in the sentence before, in order.
    named_before: Vec<usize>,
    named_now: Vec<usize>,
    /// The sentence that gave a thing its epithet.
    epithets: BTreeMap<usize, (&'static str, usize)>,
}

/// Tells the script.
pub(super) fn tell<R: Rng>(
    community: &Community,
    outline: &Outline,
    script: &[Step],
    title: String,
    rng: &mut R,
) -> Told {
    let mut story = Story {
        community,
        outline,
        rng,
        sentences: Vec::new(),
        mentions: BTreeMap::new(),
        evidence: Evidence::new(),
        named_before: Vec::new(),
        named_now: Vec::new(),
        epithets: BTreeMap::new(),
    };
    for step in script {
        story.step(step);
    }
    story.finish(title)
}

impl<R: Rng> Story<'_, R> {
    fn step(&mut self, step: &Step) {
        let now = self.sentences.len();
        let mut words = Vec::new();
        match step {
            Step::Epithet { thing, noun, clause } => {
                self.clause(&mut words, clause, |_| *thing, noun);
                self.epithets.insert(*thing, (noun, now));
            }
            Step::Distractor { clause, first, second } => {
                self.clause(
                    &mut words,
                    clause,
                    |slot| if slot == "{b}" { second.unwrap_or(*first) } else { *first },
                    "",
                );
            }
            Step::Facts(statements) => self.facts(&mut words, statements),
        }
        words.push(".".to_owned());
        capitalise(&mut words);
        self.sentences.push(words);
        self.named_before = std::mem::take(&mut self.named_now);
    }

    fn facts(&mut self, words: &mut Vec<String>, statements: &[Statement]) {
        let now = self.sentences.len();
        let mut evidence = BTreeSet::from([now]);
        for (at, statement) in statements.iter().enumerate() {
            let Triple { head, tail, .. } = statement.fact;
            let mut clause = statement.clause;
            if let Some(predicate) = clause.strip_prefix("{h} ") {
                if at > 0 {
                    words.push("and".to_owned());
                    clause = predicate;
                } else if let Some((reference, antecedent)) = self.reference(head) {
                    words.extend(reference.split(' ').map(str::to_owned));
                    evidence.insert(antecedent);
                    clause = predicate;
                }
            }
            self.clause(words, clause, |slot| if slot == "{t}" { tail } else { head }, "");
            self.evidence.entry(statement.fact).or_default().extend(&evidence);
        }
    }

    /// Words that stand for `thing`, and the sentence one must have read to understand them.
    fn reference(&mut self, thing: usize) -> Option<(String, usize)> {
        let now = self.sentences.len();
        if self.named_before.contains(&thing) && self.rng.random_bool(REFERENCE_SHARE) {
            return self.back_reference(thing).map(|words| (words, now - 1));
        }
        let &(noun, introduced) = self.epithets.get(&thing)?;
        self.rng.random_bool(EPITHET_USE_SHARE).then(|| (format!("the {noun}"), introduced))
    }

    /// Words that stand for a thing of the sentence before, if it is clear which one they mean.
    fn back_reference(&self, thing: usize) -> Option<String> {
        let kind = self.community.things[thing].kind;
        let alike = self
            .named_before
            .iter()
            .filter(|other| self.community.things[**other].kind == kind)
            .count();
        let words = match kind {
            Kind::Person if self.community.things[thing].female => "she",
            Kind::Person => "he",
            Kind::Company => "the company",
            Kind::University => "the university",
            Kind::City => "the city",
            Kind::Country => "the country",
            Kind::Work => "the book",
            Kind::Date | Kind::Number => return None,
        };
        if alike == 1 {
            return Some(words.to_owned());
        }
        let &[first, second] = self.named_before.as_slice() else { return None };
        (first != second)
            .then(|| if first == thing { "the former" } else { "the latter" }.to_owned())
    }

    fn clause(
        &mut self,
        words: &mut Vec<String>,
        clause: &str,
        thing_of: impl Fn(&str) -> usize,
        epithet: &str,
    ) {
        for word in clause.split(' ') {
            match word {
                "{e}" => words.extend(epithet.split(' ').map(str::to_owned)),
                slot if slot.starts_with('{') => self.mention(words, thing_of(slot)),
                word => words.push(word.to_owned()),
            }
        }
    }

    fn mention(&mut self, words: &mut Vec<String>, thing: usize) {
        let name = self.name(thing);
        let start = words.len();
        words.extend(name.split(' ').map(str::to_owned));
        let entity_type = self.community.things[thing].kind.entity_type().to_owned();
        let mention =
            Mention { name, sentence: self.sentences.len(), start, end: words.len(), entity_type };
        self.mentions.entry(thing).or_default().push(mention);
        if !self.named_now.contains(&thing) {
            self.named_now.push(thing);
        }
    }

    /// The full name at first, later sometimes an alias that belongs to nothing else in the
    /// document. A person who is confused with a relative always goes by the family name.
    fn name(&mut self, thing: usize) -> String {
        let names = &self.community.things[thing].names;
        let chosen = if self.outline.confused.contains_key(&thing) {
            names.last()
        } else if self.mentions.contains_key(&thing) && self.rng.random_bool(ALIAS_SHARE) {
            let others = self
                .outline
                .things
                .iter()
                .filter(|other| **other != thing)
                .map(|other| &self.community.things[*other].names);
            let taken: Vec<&String> = others.flatten().collect();
            names
                .iter()
                .filter(|name| !taken.contains(name))
                .collect::<Vec<_>>()
                .choose(self.rng)
                .copied()
        } else {
            names.first()
        };
        chosen.cloned().unwrap_or_default()
    }

    fn finish(mut self, title: String) -> Told {
        let named: Vec<usize> = self
            .outline
            .things
            .iter()
            .copied()
            .filter(|thing| self.mentions.contains_key(thing))
            .collect();
        let facts = |facts: &mut dyn Iterator<Item = (Triple, Vec<usize>)>| {
            let index = |thing: usize| named.iter().position(|other| *other == thing);
            let fact = |(fact, evidence): (Triple, Vec<usize>)| {
                Some(Fact {
                    head: index(fact.head)?,
                    tail: index(fact.tail)?,
                    relation: fact.rel.id(),
                    evidence,
                })
            };
            let mut facts: Vec<Fact> = facts.filter_map(fact).collect();
            facts.sort_by(|a, b| (a.head, a.tail, &a.relation).cmp(&(b.head, b.tail, &b.relation)));
            facts
        };
        let expressed = facts(
            &mut closure(&self.evidence)
                .into_iter()
                .map(|(fact, evidence)| (fact, evidence.into_iter().collect())),
        );
        let labels = facts(&mut self.outline.labels.iter().map(|fact| (*fact, Vec::new())));
        let entity = |thing: &usize| Entity {
            mentions: self.mentions.remove(thing).unwrap_or_default(),
            knowledge_base_id: None,
        };
        let entities = named.iter().map(entity).collect();
        Told {
            document: Document {
                title,
                sentences: self.sentences,
                entities,
                ..Document::default()
            },
            expressed,
            labels,
        }
    }
}

fn capitalise(words: &mut [String]) {
    if let Some(word) = words.first_mut()
        && let Some(first) = word.chars().next()
    {
        *word = first.to_uppercase().chain(word.chars().skip(1)).collect();
    }
}
