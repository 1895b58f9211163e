//! Which types of entities a corpus asks about: the candidate pairs of formats that list none.

use std::str::FromStr;

use super::{Candidate, Document};
use crate::{Error, Result};

/// Types of head and tail that make a pair a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairTypes {
    /// Any two entities, in both directions.
    All,
    /// These (head type, tail type).
    Listed(Vec<(String, String)>),
}

impl PairTypes {
    /// A list of types.
    pub fn listed(pairs: &[(&str, &str)]) -> Self {
        Self::Listed(
            pairs.iter().map(|(head, tail)| ((*head).to_owned(), (*tail).to_owned())).collect(),
        )
    }

    /// The candidates of a document, by the first of the two entities, then the second; `None`
    /// where all pairs are asked about.
    pub fn candidates(&self, document: &Document) -> Option<Vec<Candidate>> {
        let Self::Listed(types) = self else { return None };
        let fits = |head: usize, tail: usize| {
            let (head, tail) =
                (document.entities[head].entity_type(), document.entities[tail].entity_type());
            types.iter().any(|(first, second)| first == head && second == tail)
        };
        let mut candidates = Vec::new();
        for first in 0..document.entities.len() {
            for second in first + 1..document.entities.len() {
                let both = [(first, second), (second, first)]
                    .into_iter()
                    .filter(|&(head, tail)| fits(head, tail));
                candidates.extend(both.map(|(head, tail)| Candidate {
                    head,
                    tail,
                    excluded: false,
                }));
            }
        }
        Some(candidates)
    }

    /// Whether entities of a type can be part of a candidate.
    pub fn involve(&self, entity_type: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(types) => {
                types.iter().any(|(head, tail)| head == entity_type || tail == entity_type)
            }
        }
    }
}

impl FromStr for PairTypes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Self::All);
        }
        let pair = |part: &str| match part.split_once(':') {
            Some((head, tail)) if !head.is_empty() && !tail.is_empty() => {
                Ok((head.to_owned(), tail.to_owned()))
            }
            _ => Err(Error::recipe(format!("`{part}` is no pair of entity types")).with_hint(
                "write `all`, or head and tail types such as Chemical:Disease,Gene:Disease",
            )),
        };
        Ok(Self::Listed(text.split(',').map(pair).collect::<Result<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Entity, Mention};

    #[test]
    fn types_make_candidates() {
        let entity = |kind: &str| Entity {
            mentions: vec![Mention { entity_type: kind.into(), ..Mention::default() }],
            ..Entity::default()
        };
        let document =
            Document { entities: ["D", "C", "G", "D"].map(entity).into(), ..Document::default() };
        let pairs = |text: &str| {
            let types: PairTypes = text.parse().unwrap();
            types
                .candidates(&document)
                .map(|list| list.iter().map(|pair| (pair.head, pair.tail)).collect::<Vec<_>>())
        };
        assert_eq!(pairs("C:D,G:D"), Some(vec![(1, 0), (2, 0), (1, 3), (2, 3)]));
        assert_eq!(pairs("D:D"), Some(vec![(0, 3), (3, 0)]));
        assert_eq!(pairs("all"), None);
        assert_eq!("C".parse::<PairTypes>().unwrap_err().exit_code(), 64);
    }
}
