//! Which words make an entity, and with which weights: the average over mentions of the average
//! over words, as sparse rows.

use std::collections::BTreeMap;

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

/// (word of the document, weight) of an entity, rising; the document was cut after `kept` words.
pub(super) fn weights(
    entity: &TokenizedEntity,
    kept: u32,
    rule: MentionWeights,
) -> BTreeMap<u32, f32> {
    let in_range =
        entity.mentions.iter().filter(|mention| mention.start < mention.end.min(kept)).count();
    let mut entries: BTreeMap<u32, f32> = BTreeMap::new();
    for mention in &entity.mentions {
        let (start, end) = (mention.start.min(kept), mention.end.min(kept));
        let (mentions, words) = match rule {
            MentionWeights::Mean => (in_range, end - start),
            MentionWeights::Release => {
                (entity.mentions.len(), mention.end.saturating_sub(mention.start))
            }
        };
        let weight = (1.0 / mentions as f64 / f64::from(words)) as f32;
        for word in start..end {
            match entries.get_mut(&word) {
                Some(sum) if rule == MentionWeights::Mean => *sum += weight,
                _ => drop(entries.insert(word, weight)),
            }
        }
    }
    entries
}
