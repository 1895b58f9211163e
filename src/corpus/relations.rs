//! The set of relations of a corpus, in a fixed order: data, never a constant.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What files call the label of a pair without relation, in lower case and without `_`, `-`, `/`
/// and blanks.
const NO_RELATION: [&str; 5] = ["na", "norelation", "none", "nil", "null"];

/// Whether a label says that there is no relation: `Na`, `N/A`, `no_relation`, `None` and the like,
/// and EoG's `NR`. Such a label is no class.
pub fn is_no_relation(id: &str) -> bool {
    let apart = |c: &char| matches!(c, '_' | '-' | '/' | ' ');
    let letters: String = id.chars().filter(|c| !apart(c)).flat_map(char::to_lowercase).collect();
    id == "NR" || NO_RELATION.contains(&letters.as_str())
}

/// One relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Identifier used in labels (`P17`, `CID`).
    pub id: String,
    /// Name for people (`country`); the identifier again where none is known.
    pub name: String,
}

/// Relations in class order. "No relation" is not among them: a model appends its own NA class
/// after the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Relation>", into = "Vec<Relation>")]
pub struct RelationSet {
    relations: Vec<Relation>,
    index: HashMap<String, usize>,
}

impl RelationSet {
    /// The class of a relation, if it is known.
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The relation of a class.
    pub fn get(&self, class: usize) -> Option<&Relation> {
        self.relations.get(class)
    }

    /// All relations in class order.
    pub fn iter(&self) -> impl Iterator<Item = &Relation> {
        self.relations.iter()
    }

    /// Number of relations, without NA.
    pub fn len(&self) -> usize {
        self.relations.len()
    }

    /// Whether there is no relation at all.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }

    /// The class of `id`, added at the end if it is new.
    pub fn insert(&mut self, id: &str, name: &str) -> usize {
        if let Some(class) = self.index_of(id) {
            return class;
        }
        self.index.insert(id.to_owned(), self.relations.len());
        self.relations.push(Relation { id: id.to_owned(), name: name.to_owned() });
        self.relations.len() - 1
    }
}

impl From<Vec<Relation>> for RelationSet {
    fn from(relations: Vec<Relation>) -> Self {
        let mut set = Self::default();
        for relation in relations {
            set.insert(&relation.id, &relation.name);
        }
        set
    }
}

impl From<RelationSet> for Vec<Relation> {
    fn from(set: RelationSet) -> Self {
        set.relations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_say_no_relation_are_known_by_name() {
        for id in ["NA", "Na", "N/A", "n/a", "na", "no_relation", "No Relation", "None", "NR"] {
            assert!(is_no_relation(id), "{id}");
        }
        for id in ["P17", "", "nr", "name", "nation", "CID", "Nan1", "relation", "-"] {
            assert!(!is_no_relation(id), "{id}");
        }
    }
}
