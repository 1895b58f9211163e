//! The random choices that a view is given beside the document.

use crate::text::TokenizedMention;

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

    /// The mentions of an entity that are not masked.
    pub(super) fn unmasked<'d>(
        &self,
        entity: usize,
        mentions: &'d [TokenizedMention],
    ) -> impl Iterator<Item = &'d TokenizedMention> {
        let indexed = mentions.iter().enumerate();
        indexed.filter(move |&(m, _)| !self.is_masked(entity, m)).map(|(_, mention)| mention)
    }

    /// Whether this mention is masked, and so no longer in its entity's list.
    pub fn is_masked(&self, entity: usize, mention: usize) -> bool {
        self.masked.iter().any(|&(e, m)| e as usize == entity && m as usize == mention)
    }
}
