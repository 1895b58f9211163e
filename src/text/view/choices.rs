//! What a view is given beside the document: special pieces of the vocabulary, and random choices.

/// The vocabulary's special pieces that a view needs.
pub trait Symbols {
    /// `[CLS]`.
    fn cls(&self) -> u32;
    /// `[SEP]`.
    fn sep(&self) -> u32;
    /// `[PAD]`.
    fn pad(&self) -> u32;
    /// The piece that stands for the words of a blanked entity (`[unused0]`).
    fn blank(&self) -> u32;
    /// The piece that stands for a masked mention (`[unused200]`).
    fn masked_mention(&self) -> u32;
    /// The piece before every mention of an entity (`[unused(2e+1)]`).
    fn start_marker(&self, entity: usize) -> u32;
    /// The piece after every mention of an entity (`[unused(2e+2)]`).
    fn end_marker(&self, entity: usize) -> u32;
    /// `[unusedk]`.
    fn numbered(&self, k: usize) -> u32;
    /// Number of `[unusedk]`.
    fn num_numbered(&self) -> usize {
        usize::MAX
    }
    /// The piece `*`.
    fn star(&self) -> u32;
}

/// The random choices of one visit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewChoices {
    /// Whether each entity is blanked; empty when none is.
    pub blanked: Vec<bool>,
    /// Masked mentions as (entity, index of the mention in the entity), one for each row of mention
    /// matching; rows can repeat a mention.
    pub masked: Vec<(u32, u32)>,
}

impl ViewChoices {
    /// Whether all mentions of this entity are blanked.
    pub fn is_blanked(&self, entity: usize) -> bool {
        self.blanked.get(entity).copied().unwrap_or(false)
    }

    /// Whether this mention is masked, and so no longer in its entity's list.
    pub fn is_masked(&self, entity: usize, mention: usize) -> bool {
        self.masked.iter().any(|&(e, m)| e as usize == entity && m as usize == mention)
    }
}
