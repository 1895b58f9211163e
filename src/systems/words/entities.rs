//! Which words make an entity, and with which weights: the average over mentions of the average
//! over words, as sparse rows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::TokenizedEntity;

/// How a word that several mentions of one entity share, or a mention beyond the cut, is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MentionWeights {
    /// The mean over the mentions in range of the mean over their words in range; shared words
    /// count for each mention.
    #[default]
    Mean,
    /// 1 / (mentions · words), counted before the cut; where mentions overlap the later one's
    /// weight replaces the earlier one's, so that the weights of an entity may not sum to 1
    /// (DocRED's release).
    Release,
}

/// Sparse averaging rows over the words of a batch, one row an entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Averages {
    /// Words of all entities, rising within an entity. `[entries]`
    pub words: Vec<i64>,
    /// Weight of each. `[entries]`
    pub weights: Vec<f32>,
    /// First entry of each entity, closed by their number. [entities + 1]
    pub offsets: Vec<i64>,
}

impl Averages {
    /// No entity yet.
    pub(super) fn new() -> Self {
        Self { offsets: vec![0], ..Self::default() }
    }

    /// Number of entities.
    pub fn entities(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Appends an entity of a document that begins at word `base` of the batch and was cut after
    /// `kept` words.
    pub(super) fn push(
        &mut self,
        entity: &TokenizedEntity,
        base: i64,
        kept: usize,
        rule: MentionWeights,
    ) {
        for (word, weight) in weights(entity, kept as u32, rule) {
            self.words.push(base + i64::from(word));
            self.weights.push(weight);
        }
        self.offsets.push(self.words.len() as i64);
    }
}

/// (word of the document, weight), rising.
fn weights(entity: &TokenizedEntity, kept: u32, rule: MentionWeights) -> Vec<(u32, f32)> {
    let clipped = |start: u32, end: u32| (start.min(kept), end.min(kept));
    let in_range =
        entity.mentions.iter().filter(|mention| mention.start < mention.end.min(kept)).count();
    let mut entries = Vec::new();
    for mention in &entity.mentions {
        let (start, end) = clipped(mention.start, mention.end);
        let (mentions, words) = match rule {
            MentionWeights::Mean => (in_range, end - start),
            MentionWeights::Release => {
                (entity.mentions.len(), mention.end.saturating_sub(mention.start))
            }
        };
        let weight = (1.0 / mentions as f64 / f64::from(words)) as f32;
        entries.extend((start..end).map(|word| (word, weight)));
    }
    entries.sort_by_key(|&(word, _)| word);
    merge(&entries, rule)
}

/// One entry a word: the sum, or the last one.
fn merge(entries: &[(u32, f32)], rule: MentionWeights) -> Vec<(u32, f32)> {
    let mut merged: Vec<(u32, f32)> = Vec::with_capacity(entries.len());
    for &(word, weight) in entries {
        match merged.last_mut() {
            Some(last) if last.0 == word => {
                last.1 = if rule == MentionWeights::Mean { last.1 + weight } else { weight }
            }
            _ => merged.push((word, weight)),
        }
    }
    merged
}
