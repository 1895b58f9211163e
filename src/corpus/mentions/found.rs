//! How many mentions were added to documents, and which names could mean several things.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// What was added to documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FoundMentions {
    /// Mentions that the documents had.
    pub given: usize,
    /// Mentions of names of the dictionary.
    pub dictionary: usize,
    /// Dates.
    pub dates: usize,
    /// Numbers.
    pub numbers: usize,
    /// Given entities that got an identifier from the dictionary.
    pub linked: usize,
    /// Given entities without identifier whose name the dictionary has for another type alone.
    pub other_type: usize,
    /// Names in the documents that stand for several things of the dictionary, as they are
    /// compared.
    pub ambiguous: BTreeMap<String, AmbiguousName>,
}

/// A name that stands for several things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AmbiguousName {
    /// Its mentions.
    pub mentions: usize,
    /// Mentions whose document has another name of one of the things alone, which was taken.
    pub resolved: usize,
    /// Identifiers of what it stands for; a thing without identifier is empty.
    pub candidates: BTreeSet<String>,
}

impl FoundMentions {
    /// Adds the counts of other documents.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { given, dictionary, dates, numbers, linked, other_type, ambiguous } = other;
        self.given += given;
        self.dictionary += dictionary;
        self.dates += dates;
        self.numbers += numbers;
        self.linked += linked;
        self.other_type += other_type;
        for (name, more) in ambiguous {
            let own = self.ambiguous.entry(name).or_default();
            own.mentions += more.mentions;
            own.resolved += more.resolved;
            own.candidates.extend(more.candidates);
        }
    }

    /// Mentions of ambiguous names, and how many of them were resolved.
    pub fn ambiguous_mentions(&self) -> (usize, usize) {
        let names = self.ambiguous.values();
        names.fold((0, 0), |(all, resolved), name| (all + name.mentions, resolved + name.resolved))
    }
}
