//! Mention-entity matching: which entity does a masked mention belong to, and which entity of the
//! other document shares a name (docs/systems.md, D.13 and D.14; Xiao et al. 2020, eq. 1 and 2).

use rand::RngExt;

use super::draw::{pick, place, take};
use super::pretrain::PretrainSettings;
use super::{Pair, Stream};
use crate::text::{TokenizedDocument, ViewChoices};

/// A masked mention and the entities it may belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MentionInstance {
    /// Index into [`ViewChoices::masked`] and so into the view's masked positions.
    pub masked: usize,
    /// Candidate entities of the same document.
    pub candidates: Vec<u32>,
    /// Index of the mention's own entity.
    pub answer: usize,
}

/// An entity of one document and the entities of the other that it may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityInstance {
    /// The entity asked about.
    pub query: u32,
    /// Candidate entities of the other document.
    pub candidates: Vec<u32>,
    /// Index of the candidate that shares a name with the query.
    pub answer: usize,
}

/// The mentions to mask, one of each drawn entity, as (entity, mention): as many rows as the
/// settings say, the first one repeated where too few entities have two mentions, or no row at all.
pub(super) fn draw_masked(
    rng: &mut Stream,
    document: &TokenizedDocument,
    settings: &PretrainSettings,
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
pub(super) fn instances(
    rng: &mut Stream,
    document: &TokenizedDocument,
    choices: &ViewChoices,
    settings: &PretrainSettings,
) -> Vec<MentionInstance> {
    let instance = |(masked, &(entity, _)): (usize, &(u32, u32))| {
        let (candidates, answer) = candidates(rng, document, entity, settings.mention_candidates)?;
        Some(MentionInstance { masked, candidates, answer })
    };
    choices.masked.iter().enumerate().filter_map(instance).collect()
}

/// An entity among `count` of its document at a uniform slot. The others are drawn without
/// replacement, from a doubled list where there are too few.
///
/// The release draws all candidates first and overwrites a random slot if the answer is not among
/// them, which gives the same distribution wherever there are enough entities.
fn candidates(
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
pub(super) fn cross_instances(
    rng: &mut Stream,
    documents: [&TokenizedDocument; 2],
    choices: &[ViewChoices; 2],
    settings: &PretrainSettings,
) -> [Option<EntityInstance>; 2] {
    let names = [0, 1].map(|side: usize| names(documents[side], &choices[side]));
    let Some((first, second)) = pick(rng, &shared_entities(&names[0], &names[1])) else {
        return [None, None];
    };
    let mut direction = |query, document, answer| {
        let (candidates, answer) =
            candidates(rng, document, answer, settings.cross_mention_candidates)?;
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
