//! The instances of the pre-training tasks: mention-entity matching, relation detection and
//! relational fact alignment (docs/systems.md, D.13–D.17; Xiao et al. 2020, eq. 1–4).
//!
//! Pure functions of a random stream, the documents and the settings. Not for: choosing documents
//! (`sampler`), or turning instances into rows of a batch (`pretrainer`).

use std::sync::Arc;

use rand::RngExt;

use super::settings::{DsdocreSettings, NegativePool};
use crate::sampling::{
    Label, Pair, Stream, UnlabelledPairs, distinct_pairs, good_labels, pick, place, take,
};
use crate::shards::FactInstance;
use crate::text::{TokenizedDocument, ViewChoices};

/// One document of an item, with its pairs.
pub(super) struct Side {
    pub(super) document: Arc<TokenizedDocument>,
    /// Good labels, sorted.
    pub(super) good: Vec<Label>,
    /// Their pairs, each once.
    pub(super) good_pairs: Vec<Pair>,
    pub(super) negatives: UnlabelledPairs,
}

impl Side {
    pub(super) fn new(document: Arc<TokenizedDocument>, settings: &DsdocreSettings) -> Self {
        let k = settings.k_pretrain().unwrap_or(usize::MAX);
        let good = good_labels(&document, k);
        let negatives = match settings.negative_pool {
            NegativePool::All => UnlabelledPairs::new(&document),
            NegativePool::Kept => UnlabelledPairs::among_kept(&document, k),
        };
        Self { document, good_pairs: distinct_pairs(&good), good, negatives }
    }
}

/// A question with one right answer among several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance<Q, C> {
    /// What is asked about.
    pub query: Q,
    /// What may be the answer.
    pub candidates: Vec<C>,
    /// Index of the right candidate.
    pub answer: usize,
}

/// A masked mention and the entities of its document that it may be of. The query is an index into
/// [`ViewChoices::masked`] and so into the view's masked positions.
pub type MentionInstance = Instance<usize, u32>;

/// An entity of one document and the entities of the other that it may be; the right one shares a
/// name with it.
pub type EntityInstance = Instance<u32, u32>;

/// A pair of one document and candidates for the same fact.
pub type AlignmentInstance = Instance<Pair, Pair>;

/// The mentions to mask, one of each drawn entity, as (entity, mention): as many rows as the
/// settings say, the first one repeated where too few entities have two mentions, or no row at all.
pub(super) fn draw_masked(
    rng: &mut Stream,
    document: &TokenizedDocument,
    settings: &DsdocreSettings,
) -> Vec<(u32, u32)> {
    let rows = settings.masked_mentions;
    let several: Vec<u32> = (0..)
        .zip(&document.entities)
        .filter(|(_, entity)| entity.mentions.len() > 1)
        .map(|(e, _)| e)
        .collect();
    let chosen = take(rng, &several, rows.min(several.len()));
    let mention =
        |e: u32| (e, rng.random_range(0..document.entities[e as usize].mentions.len()) as u32);
    let mut masked: Vec<_> = chosen.into_iter().map(mention).collect();
    if let Some(&first) = masked.first() {
        masked.resize(rows, first);
    }
    masked
}

/// An instance for each row of masked mentions; none in a document with a single entity.
pub(super) fn mention_instances(
    rng: &mut Stream,
    document: &TokenizedDocument,
    choices: &ViewChoices,
    settings: &DsdocreSettings,
) -> Vec<MentionInstance> {
    let instance = |(query, &(entity, _)): (usize, &(u32, u32))| {
        let (candidates, answer) =
            entity_candidates(rng, document, entity, settings.mention_candidates)?;
        Some(MentionInstance { query, candidates, answer })
    };
    choices.masked.iter().enumerate().filter_map(instance).collect()
}

/// An entity among `count` of its document at a uniform slot. The others are drawn without
/// replacement, from a doubled list where there are too few.
///
/// The release draws all candidates first and overwrites a random slot if the answer is not among
/// them, which gives the same distribution wherever there are enough entities.
fn entity_candidates(
    rng: &mut Stream,
    document: &TokenizedDocument,
    answer: u32,
    count: usize,
) -> Option<(Vec<u32>, usize)> {
    let rest: Vec<u32> =
        (0..document.entities.len() as u32).filter(|&entity| entity != answer).collect();
    let others = take(rng, &rest, count - 1);
    (!others.is_empty()).then(|| place(rng, others, answer))
}

/// Matching across documents, in both directions: `[0]` asks for an entity of the first document
/// among those of the second.
pub(super) fn cross_mention_instances(
    rng: &mut Stream,
    documents: [&TokenizedDocument; 2],
    choices: &[ViewChoices; 2],
    settings: &DsdocreSettings,
) -> [Option<EntityInstance>; 2] {
    let names = [0, 1].map(|side: usize| names(documents[side], &choices[side]));
    let Some((first, second)) = pick(rng, &shared_entities(&names[0], &names[1])) else {
        return [None, None];
    };
    let mut direction = |query, document, answer| {
        let (candidates, answer) =
            entity_candidates(rng, document, answer, settings.cross_mention_candidates)?;
        Some(EntityInstance { query, candidates, answer })
    };
    [direction(first, documents[1], second), direction(second, documents[0], first)]
}

/// The names of all unmasked mentions with their entities, sorted.
fn names<'d>(document: &'d TokenizedDocument, choices: &ViewChoices) -> Vec<(&'d str, u32)> {
    let mut names = Vec::new();
    for (e, entity) in document.entities.iter().enumerate() {
        let unmasked =
            entity.mentions.iter().enumerate().filter(|&(m, _)| !choices.is_masked(e, m));
        names.extend(
            unmasked
                .filter(|(_, mention)| !mention.name.is_empty())
                .map(|(_, mention)| (mention.name.as_str(), e as u32)),
        );
    }
    names.sort_unstable();
    names
}

/// The pairs of entities with a name in common, sorted, each once.
fn shared_entities(first: &[(&str, u32)], second: &[(&str, u32)]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for &(name, entity) in first {
        let start = second.partition_point(|&(other, _)| other < name);
        pairs.extend(
            second[start..]
                .iter()
                .take_while(|&&(other, _)| other == name)
                .map(|&(_, other)| (entity, other)),
        );
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// One related pair among unlabelled ones of the same document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairInstance {
    /// The candidates.
    pub pairs: Vec<Pair>,
    /// Index of the related pair.
    pub answer: usize,
}

/// One related pair among unlabelled ones of two documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrossPairInstance {
    /// The candidates in each document.
    pub pairs: [Vec<Pair>; 2],
    /// Index of the related pair in the first document's candidates followed by the second's.
    pub answer: usize,
}

/// Detection instances of one document; none where it has no good label or no unlabelled pair.
pub(super) fn detection_instances(
    rng: &mut Stream,
    side: &Side,
    settings: &DsdocreSettings,
) -> Vec<PairInstance> {
    if side.negatives.is_empty() {
        return Vec::new();
    }
    let instance = |_| {
        let positive = pick(rng, &side.good_pairs)?;
        let others = side.negatives.draw(rng, settings.detection_candidates - 1);
        let (pairs, answer) = place(rng, others, positive);
        Some(PairInstance { pairs, answer })
    };
    (0..settings.detection_instances).filter_map(instance).collect()
}

/// Detection instances across two documents; none where either has no good label or no unlabelled
/// pair.
pub(super) fn cross_detection_instances(
    rng: &mut Stream,
    sides: &[Side; 2],
    settings: &DsdocreSettings,
) -> Vec<CrossPairInstance> {
    let width = settings.cross_detection_per_document;
    if sides.iter().any(|side| side.good_pairs.is_empty() || side.negatives.is_empty()) {
        return Vec::new();
    }
    let instance = |_| {
        let mut pairs = [0, 1].map(|document: usize| sides[document].negatives.draw(rng, width));
        let (document, slot) = (usize::from(rng.random_bool(0.5)), rng.random_range(0..width));
        pairs[document][slot] = pick(rng, &sides[document].good_pairs)?;
        Some(CrossPairInstance { pairs, answer: document * width + slot })
    };
    (0..settings.detection_instances).filter_map(instance).collect()
}

/// Alignment in both directions: `[0]` asks for the fact of the first document among the pairs of
/// the second.
pub(super) fn alignment_instances(
    rng: &mut Stream,
    facts: &[FactInstance; 2],
    sides: &[Side; 2],
    settings: &DsdocreSettings,
) -> [Option<AlignmentInstance>; 2] {
    [(0, 1), (1, 0)].map(|(from, to): (usize, usize)| {
        let answer = (facts[to].head, facts[to].tail);
        let (candidates, answer) =
            pair_candidates(rng, &sides[to], answer, facts[to].relation, settings)?;
        Some(AlignmentInstance { query: (facts[from].head, facts[from].tail), candidates, answer })
    })
}

/// Two facts of one document with the same relation: the optional sixth task. `None` where no
/// relation holds between two good pairs.
pub(super) fn intra_alignment_instance(
    rng: &mut Stream,
    side: &Side,
    settings: &DsdocreSettings,
) -> Option<AlignmentInstance> {
    let mut twins = Vec::new();
    for a in &side.good {
        let same = side.good.iter().filter(|b| a.relation == b.relation && a.pair != b.pair);
        twins.extend(same.map(|b| (a.pair, *b)));
    }
    let (query, answer) = pick(rng, &twins)?;
    let (candidates, answer) = pair_candidates(rng, side, answer.pair, answer.relation, settings)?;
    Some(AlignmentInstance { query, candidates, answer })
}

/// The answer among good pairs without its relation (unlabelled ones where there are none) and
/// unlabelled pairs; `None` where no pair is unlabelled.
fn pair_candidates(
    rng: &mut Stream,
    side: &Side,
    answer: Pair,
    relation: u32,
    settings: &DsdocreSettings,
) -> Option<(Vec<Pair>, usize)> {
    let has_relation = |pair: &Pair| {
        side.good.iter().any(|label| label.pair == *pair && label.relation == relation)
    };
    let different: Vec<_> = side
        .good_pairs
        .iter()
        .copied()
        .filter(|pair| *pair != answer && !has_relation(pair))
        .collect();
    let mut others = take(rng, &different, settings.alignment_hard);
    let missing = settings.alignment_hard - others.len() + settings.alignment_random;
    let random = side.negatives.draw(rng, missing);
    if random.len() < missing {
        return None;
    }
    others.extend(random);
    let count = others.len();
    let shuffled = take(rng, &others, count);
    Some(place(rng, shuffled, answer))
}
