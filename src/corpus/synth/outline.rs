//! What one document is about: which things it names, which facts it puts into words, and which
//! labels distant supervision gives it.
//!
//! The labels are all facts between the things of the document that the knowledge base knows. A
//! fact that is not put into words makes a false label, so the number of facts that the text leaves
//! out decides the share of false labels. A document also names some things that have nothing to do
//! with the others. Not for: the words themselves (`story`).

use std::collections::{BTreeMap, BTreeSet};

use rand::{
    Rng, RngExt,
    seq::{IndexedRandom, SliceRandom},
};

use super::{
    closure::{Evidence, closure, compose},
    community::Community,
    schema::{Kind, Triple},
};

const MIN_RELATED: usize = 8;
const MIN_THINGS: usize = 10;
const MAX_THINGS: usize = 14;
const MAX_LEAVES: usize = 4;
const MAX_PASSING_LEAVES: usize = 2;
/// Number of labels that a document should express at least. The last thing chosen usually adds
/// several more.
const EXPRESSED: f64 = 8.5;
/// Share of persons that are linked to a relative of the same name, in worlds with enough noise for
/// it.
const CONFUSED_SHARE: f64 = 0.06;
const CONFUSION_NEEDS_NOISE: f64 = 0.2;

/// The content of a document, in numbers of the community's things.
#[derive(Clone, Debug, Default)]
pub(super) struct Outline {
    /// The things that are named, in the order of the document's entities.
    pub things: Vec<usize>,
    /// The statements to put into words.
    pub said: Vec<Triple>,
    /// The distant labels.
    pub labels: BTreeSet<Triple>,
    /// Persons named by their family name alone, whom distant supervision takes for the given
    /// relative.
    pub confused: BTreeMap<usize, usize>,
}

impl Outline {
    /// Draws a document whose expected share of false labels is `noise`.
    pub(super) fn new<R: Rng>(community: &Community, noise: f64, rng: &mut R) -> Self {
        let mut outline =
            Self { things: select(community, EXPRESSED / (1.0 - noise), rng), ..Self::default() };
        add_passing(community, &mut outline.things, rng);
        outline.confuse(community, CONFUSED_SHARE * (noise / CONFUSION_NEEDS_NOISE).min(1.0), rng);
        outline.labels = labels(community, &outline.things, &outline.confused);
        outline.said = express(community, &outline, noise, rng);
        outline.things.shuffle(rng);
        outline
    }

    fn confuse<R: Rng>(&mut self, community: &Community, share: f64, rng: &mut R) {
        for family in &community.families {
            for &person in family.iter().filter(|person| self.things.contains(person)) {
                let relatives: Vec<usize> =
                    family.iter().copied().filter(|relative| *relative != person).collect();
                if let Some(&relative) = relatives.choose(rng)
                    && rng.random_bool(share)
                {
                    self.confused.insert(person, relative);
                }
            }
        }
    }
}

/// Starts with a random thing and adds related ones until there is enough to tell.
fn select<R: Rng>(community: &Community, labels_wanted: f64, rng: &mut R) -> Vec<usize> {
    let centres: Vec<usize> = (0..community.things.len())
        .filter(|thing| is_centre(community.things[*thing].kind))
        .collect();
    let mut chosen: Vec<usize> = centres.choose(rng).copied().into_iter().collect();
    while chosen.len() < MAX_THINGS {
        if chosen.len() >= MIN_RELATED
            && labels(community, &chosen, &BTreeMap::new()).len() as f64 >= labels_wanted
        {
            break;
        }
        let leaves = chosen.iter().filter(|thing| community.things[**thing].kind.is_leaf()).count();
        let allowed = |thing: usize| {
            !chosen.contains(&thing)
                && (leaves < MAX_LEAVES || !community.things[thing].kind.is_leaf())
        };
        let ends = community.links.iter().flat_map(|link| {
            let Triple { head, tail, .. } = link.triple;
            [(head, tail), (tail, head)]
        });
        let next: Vec<usize> = ends
            .filter(|(from, to)| chosen.contains(from) && allowed(*to))
            .map(|(_, to)| to)
            .collect();
        match next.choose(rng) {
            Some(&thing) => chosen.push(thing),
            None => break,
        }
    }
    chosen
}

/// Adds things that have nothing to do with any other of the document, up to a size between 10 and
/// 14.
fn add_passing<R: Rng>(community: &Community, chosen: &mut Vec<usize>, rng: &mut R) {
    let size = rng.random_range(MIN_THINGS..=MAX_THINGS);
    let related = chosen.len();
    while chosen.len() < size {
        let linked = |thing: usize| {
            let touches = |fact: Triple| {
                (fact.head == thing && chosen.contains(&fact.tail))
                    || (fact.tail == thing && chosen.contains(&fact.head))
            };
            community.links.iter().any(|link| touches(link.triple))
        };
        let is_leaf = |thing: usize| community.things[thing].kind.is_leaf();
        let leaves = chosen[related..].iter().filter(|thing| is_leaf(**thing)).count();
        let fits = |thing: &usize| {
            !chosen.contains(thing)
                && (leaves < MAX_PASSING_LEAVES || !is_leaf(*thing))
                && !linked(*thing)
        };
        let candidates: Vec<usize> = (0..community.things.len()).filter(fits).collect();
        let Some(&thing) = candidates.choose(rng) else { break };
        chosen.push(thing);
    }
}

fn is_centre(kind: Kind) -> bool {
    matches!(kind, Kind::Person | Kind::Company | Kind::Work)
}

/// What distant supervision says about these things: all known facts between them, and those of the
/// relatives they are taken for.
fn labels(
    community: &Community,
    things: &[usize],
    confused: &BTreeMap<usize, usize>,
) -> BTreeSet<Triple> {
    let mut labels = BTreeSet::new();
    for link in community.links.iter().filter(|link| link.known) {
        for fact in link.triple.with_implied() {
            let (has_head, has_tail) = (things.contains(&fact.head), things.contains(&fact.tail));
            if has_head && has_tail {
                labels.insert(fact);
            }
            for (&person, &relative) in confused {
                if fact.head == relative && has_tail && fact.tail != person {
                    labels.insert(Triple { head: person, ..fact });
                }
                if fact.tail == relative && has_head && fact.head != person {
                    labels.insert(Triple { tail: person, ..fact });
                }
            }
        }
    }
    labels
}

/// Leaves facts out of the text, in random order, until the share of false labels is `noise`.
/// Chance decides about the last one, so that the share is right on average.
fn express<R: Rng>(
    community: &Community,
    outline: &Outline,
    noise: f64,
    rng: &mut R,
) -> Vec<Triple> {
    let inside =
        |fact: &Triple| outline.things.contains(&fact.head) && outline.things.contains(&fact.tail);
    let mut said: Vec<Triple> =
        community.links.iter().map(|link| link.triple).filter(inside).collect();
    said.shuffle(rng);
    let wanted = noise * outline.labels.len() as f64;
    let mut wrong = false_labels(outline, &said);
    while (wrong as f64) < wanted {
        let Some(left_out) = said.pop() else { break };
        let more = false_labels(outline, &said);
        let step = (more - wrong) as f64;
        if more as f64 > wanted
            && !rng.random_bool(((wanted - wrong as f64) / step).clamp(0.0, 1.0))
        {
            said.push(left_out);
            break;
        }
        wrong = more;
    }
    without_composed(said)
}

fn false_labels(outline: &Outline, said: &[Triple]) -> usize {
    let true_facts = closure(&evidence_free(said));
    outline.labels.iter().filter(|label| !true_facts.contains_key(label)).count()
}

/// Facts that follow from two others are left for the reader to find.
fn without_composed(said: Vec<Triple>) -> Vec<Triple> {
    let parts = said
        .iter()
        .flat_map(|fact| fact.with_implied())
        .map(|fact| (fact, BTreeSet::new()))
        .collect();
    let composed = compose(&parts);
    said.into_iter().filter(|fact| !composed.contains_key(fact)).collect()
}

fn evidence_free(said: &[Triple]) -> Evidence {
    said.iter().map(|fact| (*fact, BTreeSet::new())).collect()
}
