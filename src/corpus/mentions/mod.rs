//! Mentions in running text or in words: names of a dictionary, dates and numbers.
//!
//! Not for: recognising names that no dictionary holds, pronouns, or coreference.

mod annotator;
mod dictionary;
mod found;
mod normal;
mod rules;

pub use annotator::Annotator;
pub(in crate::corpus) use annotator::{AddedMention, GivenEntity, GivenMention};
pub use dictionary::Dictionary;
pub use found::{AmbiguousName, FoundMentions};
pub(in crate::corpus) use normal::{Units, one_line};
pub use rules::{Findable, Language};

#[cfg(test)]
mod tests;
