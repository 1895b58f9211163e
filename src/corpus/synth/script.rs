//! The order of sentences of a document: introductions, facts (alone or joined), and distractors
//! between them.
//!
//! Not for: names, references and evidence, which depend on what was said before (`story`).

use std::collections::BTreeSet;

use rand::{
    Rng, RngExt,
    seq::{IndexedRandom, SliceRandom},
};

use super::{
    closure::closure,
    community::Community,
    distractors,
    outline::Outline,
    schema::{Kind, Rel, Triple},
    templates,
};

const MAX_SENTENCES: usize = 12;
const MIN_SENTENCES: usize = 6;
/// Number of words that a document should reach. They are counted before names are chosen.
const MIN_WORDS: usize = 88;
/// How many words more a name has than its place holder.
const WORDS_PER_NAME: usize = 1;
const JOINED_SHARE: f64 = 0.4;
const FOLLOWED_SHARE: f64 = 0.6;
const EPITHET_SHARE: f64 = 0.45;
const DECOY_SHARE: f64 = 0.5;
const LOOSE_SHARE: f64 = 0.15;

/// A fact and the clause that says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    pub fact: Triple,
    pub clause: &'static str,
}

impl Statement {
    /// Whether the clause opens with its head, so that the head can be left out or referred to.
    pub(super) fn opens_with_head(&self) -> bool {
        self.clause.starts_with("{h} ")
    }
}

/// One sentence to come.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Gives a thing a second name.
    Epithet { thing: usize, noun: &'static str, clause: &'static str },
    /// Says one fact, or two about the same head.
    Facts(Vec<Statement>),
    /// Names one or two things and says nothing about them.
    Distractor { clause: &'static str, first: usize, second: Option<usize> },
}

impl Step {
    fn words(&self) -> usize {
        let of =
            |clause: &str| clause.split(' ').count() + WORDS_PER_NAME * clause.matches('{').count();
        1 + match self {
            Self::Epithet { clause, .. } | Self::Distractor { clause, .. } => of(clause),
            Self::Facts(statements) => {
                statements.iter().map(|statement| of(statement.clause)).sum()
            }
        }
    }
}

/// Draws the sentences of a document.
pub(super) fn write<R: Rng>(community: &Community, outline: &Outline, rng: &mut R) -> Vec<Step> {
    let statements: Vec<Statement> =
        outline.said.iter().filter_map(|fact| phrase(*fact, rng)).collect();
    let intros = introductions(community, &statements, rng);
    let mut steps = chain(join(statements, rng), rng);
    for distractor in Distractions::new(community, outline).draw(&steps, intros.len(), rng) {
        let at = rng.random_range(0..=steps.len());
        steps.insert(at, distractor);
    }
    steps.splice(0..0, intros);
    steps
}

/// Half of the facts that have an inverse are told from the other side.
fn phrase<R: Rng>(fact: Triple, rng: &mut R) -> Option<Statement> {
    let fact = match fact.rel.inverse() {
        Some(inverse) if rng.random_bool(0.5) => Triple::new(fact.tail, inverse, fact.head),
        _ => fact,
    };
    templates::clauses(fact.rel).choose(rng).map(|clause| Statement { fact, clause })
}

fn introductions<R: Rng>(
    community: &Community,
    statements: &[Statement],
    rng: &mut R,
) -> Vec<Step> {
    let heads: Vec<usize> = statements
        .iter()
        .filter(|statement| statement.opens_with_head())
        .map(|statement| statement.fact.head)
        .collect();
    let nameable: Vec<usize> = heads
        .into_iter()
        .filter(|head| !templates::epithets(community.things[*head].kind).is_empty())
        .collect();
    let Some(&hero) = nameable.choose(rng).filter(|_| rng.random_bool(EPITHET_SHARE)) else {
        return Vec::new();
    };
    let kind = community.things[hero].kind;
    let mut nouns: Vec<&'static str> = templates::epithets(kind).to_vec();
    nouns.shuffle(rng);
    let decoy = nameable
        .iter()
        .copied()
        .find(|thing| *thing != hero && community.things[*thing].kind == kind);
    let mut named = vec![hero];
    named.extend(decoy.filter(|_| rng.random_bool(DECOY_SHARE)));
    named.shuffle(rng);
    let step = |(thing, noun)| {
        templates::epithet_clauses().choose(rng).map(|clause| Step::Epithet { thing, noun, clause })
    };
    named.into_iter().zip(nouns).filter_map(step).collect()
}

/// Joins some statements about the same head into one sentence.
fn join<R: Rng>(mut pending: Vec<Statement>, rng: &mut R) -> Vec<Vec<Statement>> {
    pending.shuffle(rng);
    let mut groups = Vec::new();
    while let Some(first) = pending.pop() {
        let mut group = vec![first];
        let fits =
            |other: &Statement| other.opens_with_head() && other.fact.head == first.fact.head;
        if first.opens_with_head()
            && let Some(at) = pending.iter().position(fits)
            && rng.random_bool(JOINED_SHARE)
        {
            group.push(pending.swap_remove(at));
        }
        groups.push(group);
    }
    groups
}

/// Orders the sentences so that many of them go on with what the one before was about.
fn chain<R: Rng>(mut pending: Vec<Vec<Statement>>, rng: &mut R) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut last: Option<Triple> = None;
    while !pending.is_empty() {
        let continues = |group: &Vec<Statement>| {
            let head = group[0].fact.head;
            group[0].opens_with_head()
                && last.is_some_and(|fact| fact.head == head || fact.tail == head)
        };
        let follower =
            pending.iter().position(continues).filter(|_| rng.random_bool(FOLLOWED_SHARE));
        let group = pending.swap_remove(follower.unwrap_or(pending.len() - 1));
        last = group.last().map(|statement| statement.fact);
        steps.push(Step::Facts(group));
    }
    steps
}

/// Finds things to name without saying anything about them.
struct Distractions<'a> {
    community: &'a Community,
    outline: &'a Outline,
    /// Pairs with an expressed fact, in both directions. A distractor about them could contradict
    /// it.
    related: BTreeSet<(usize, usize)>,
    /// Pairs that the knowledge base relates and the text does not.
    tempting: Vec<(usize, usize)>,
}

impl<'a> Distractions<'a> {
    fn new(community: &'a Community, outline: &'a Outline) -> Self {
        let facts = closure(&outline.said.iter().map(|fact| (*fact, BTreeSet::new())).collect());
        let related: BTreeSet<_> = facts
            .keys()
            .flat_map(|fact| [(fact.head, fact.tail), (fact.tail, fact.head)])
            .collect();
        let inside = |link: &Triple| {
            outline.things.contains(&link.head) && outline.things.contains(&link.tail)
        };
        let pairs = community
            .links
            .iter()
            .map(|link| link.triple)
            .filter(inside)
            .map(|fact| (fact.head, fact.tail));
        let tempting = pairs.filter(|pair| !related.contains(pair)).collect();
        Self { community, outline, related, tempting }
    }

    fn draw<R: Rng>(&self, steps: &[Step], intros: usize, rng: &mut R) -> Vec<Step> {
        let mut drawn = Vec::new();
        let mut missing: Vec<usize> =
            self.outline.things.iter().copied().filter(|thing| !self.is_said(*thing)).collect();
        while let Some(thing) = missing.pop() {
            let partner = self.partner(thing, &missing, rng);
            missing.retain(|other| Some(*other) != partner);
            drawn.extend(self.clause(thing, partner, rng));
        }
        let mut tempting = self.tempting.clone();
        tempting.shuffle(rng);
        for (first, second) in tempting.into_iter().take(rng.random_range(1..=3)) {
            if steps.len() + intros + drawn.len() < MAX_SENTENCES {
                drawn.extend(self.clause(first, Some(second), rng));
            }
        }
        let words = |drawn: &[Step]| steps.iter().chain(drawn).map(Step::words).sum::<usize>();
        while steps.len() + intros + drawn.len() < MIN_SENTENCES || words(&drawn) < MIN_WORDS {
            let Some(&thing) = self.outline.things.choose(rng) else { break };
            drawn.extend(self.clause(thing, self.partner(thing, &[], rng), rng));
        }
        drawn
    }

    fn is_said(&self, thing: usize) -> bool {
        self.outline.said.iter().any(|fact| fact.head == thing || fact.tail == thing)
    }

    /// Something to name together with `thing`: a related thing that must still be named, else any
    /// related thing, else anything that a clause can be about.
    fn partner<R: Rng>(&self, thing: usize, missing: &[usize], rng: &mut R) -> Option<usize> {
        let other = |pair: &(usize, usize)| {
            (pair.0 == thing).then_some(pair.1).or((pair.1 == thing).then_some(pair.0))
        };
        let tempting: Vec<usize> = self.tempting.iter().filter_map(other).collect();
        let free = |other: &usize| {
            *other != thing
                && !self.related.contains(&(thing, *other))
                && self.can_meet(thing, *other)
        };
        let any: Vec<usize> = self.outline.things.iter().copied().filter(free).collect();
        let still_missing: Vec<usize> =
            tempting.iter().copied().filter(|other| missing.contains(other)).collect();
        [still_missing, tempting, any].iter().find_map(|pool| pool.choose(rng)).copied()
    }

    fn kind(&self, thing: usize) -> Kind {
        self.community.things[thing].kind
    }

    fn can_meet(&self, one: usize, other: usize) -> bool {
        let says = |a, b| !distractors::clauses(self.kind(a), self.kind(b)).is_empty();
        says(one, other) || says(other, one)
    }

    fn clause<R: Rng>(&self, first: usize, second: Option<usize>, rng: &mut R) -> Option<Step> {
        let Some(second) = second else {
            return distract(distractors::about_any_one(), first, None, rng);
        };
        let pair = [(first, second), (second, first)]
            .into_iter()
            .find(|(a, b)| !self.clauses(*a, *b).is_empty());
        let loose = !self.kind(first).is_leaf()
            && !self.kind(second).is_leaf()
            && rng.random_bool(LOOSE_SHARE);
        match pair.filter(|_| !loose) {
            Some((a, b)) => distract(&self.clauses(a, b), a, Some(b), rng),
            None => distract(distractors::about_any_two(), first, Some(second), rng),
        }
    }

    /// What can be said about two things in this order without contradicting what is known.
    fn clauses(&self, a: usize, b: usize) -> Vec<&'static str> {
        let known = |rel: &Rel| {
            let says = |fact: &Triple| {
                fact.rel == *rel && [(a, b), (b, a)].contains(&(fact.head, fact.tail))
            };
            self.community.links.iter().any(|link| link.triple.with_implied().iter().any(says))
        };
        let (first, second) = (self.kind(a), self.kind(b));
        let denials = distractors::denials(first, second)
            .iter()
            .filter(|denial| !denial.denied.iter().any(known));
        distractors::clauses(first, second)
            .iter()
            .copied()
            .chain(denials.map(|denial| denial.clause))
            .collect()
    }
}

/// A sentence with one of these clauses.
fn distract<R: Rng>(
    clauses: &[&'static str],
    first: usize,
    second: Option<usize>,
    rng: &mut R,
) -> Option<Step> {
    clauses.choose(rng).map(|clause| Step::Distractor { clause, first, second })
}
