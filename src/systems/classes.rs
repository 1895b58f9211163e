//! The output classes of a system, and the targets that facts are for them.

use serde::{Deserialize, Serialize};

use crate::sampling::Pair;
use crate::text::TokenizedDocument;

/// Which class is "no relation".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NaClass {
    /// Class 0; relation r is class r + 1. For adaptive thresholds this is the threshold class.
    First,
    /// The last class; relation r is class r.
    Last,
    /// There is none.
    Absent,
}

/// The output classes of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// Number of relations.
    pub relations: usize,
    /// Where NA is.
    pub na: NaClass,
}

impl Classes {
    /// Number of classes C.
    pub fn count(self) -> usize {
        self.relations + usize::from(self.na != NaClass::Absent)
    }

    /// Class of a relation.
    pub fn of_relation(self, relation: usize) -> usize {
        relation + usize::from(self.na == NaClass::First)
    }

    /// Relation of a class; `None` for NA.
    pub fn relation(self, class: usize) -> Option<usize> {
        let relation = class.checked_sub(usize::from(self.na == NaClass::First))?;
        (relation < self.relations).then_some(relation)
    }

    /// The class of NA.
    pub fn na(self) -> Option<usize> {
        match self.na {
            NaClass::First => Some(0),
            NaClass::Last => Some(self.relations),
            NaClass::Absent => None,
        }
    }

    /// Multi-hot targets [pairs × C], row-major; NA is 1 iff no relation holds.
    pub fn targets(self, document: &TokenizedDocument, pairs: &[Pair]) -> Vec<f32> {
        let classes = self.count();
        let mut rows = vec![0.0; pairs.len() * classes];
        let place: ahash::AHashMap<Pair, usize> =
            pairs.iter().enumerate().map(|(row, &pair)| (pair, row)).collect();
        for fact in &document.facts {
            if let Some(row) = place.get(&(fact.head, fact.tail)) {
                rows[row * classes + self.of_relation(fact.relation as usize)] = 1.0;
            }
        }
        if let Some(na) = self.na() {
            rows.chunks_exact_mut(classes)
                .filter(|row| !row.contains(&1.0))
                .for_each(|row| row[na] = 1.0);
        }
        rows
    }
}
