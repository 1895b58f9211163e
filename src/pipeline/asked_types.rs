//! The types of entities between which a model was trained to find relations.
//!
//! Corpora such as CDR list the pairs that they ask about: a chemical and a disease. A model that
//! has seen no others has not learnt that a disease is not the head of such a fact. Documents of a
//! user list no pairs, so that the model keeps these types. Not for: the types of a format
//! (`corpus::PairTypes`).

use std::collections::BTreeSet;

use crate::shards::DocumentStore;
use crate::text::{TokenizedCandidate, TokenizedDocument};

/// Types of head and tail.
pub type TypePair = (String, String);

/// Types of head and tail of the pairs that training documents list; none if a document lists no
/// pairs, as all are asked about then.
pub fn asked_types(stores: &[DocumentStore]) -> Vec<TypePair> {
    let mut types = BTreeSet::new();
    for store in stores {
        for row in 0..store.len() {
            let document = store.get(row);
            let Some(candidates) = &document.candidates else { return Vec::new() };
            for pair in candidates.iter().filter(|pair| !pair.excluded) {
                types.insert(types_of(&document, pair.head, pair.tail));
            }
        }
    }
    types.into_iter().collect()
}

/// The pairs of a document that have such types.
pub fn pairs_of(document: &TokenizedDocument, types: &[TypePair]) -> Vec<TokenizedCandidate> {
    let count = document.entities.len() as u32;
    let all = (0..count).flat_map(|head| (0..count).map(move |tail| (head, tail)));
    let fits = |&(head, tail): &(u32, u32)| {
        head != tail && types.contains(&types_of(document, head, tail))
    };
    let candidate = |(head, tail)| TokenizedCandidate { head, tail, excluded: false };
    all.filter(fits).map(candidate).collect()
}

fn types_of(document: &TokenizedDocument, head: u32, tail: u32) -> TypePair {
    let entity_type = |entity: u32| document.entities[entity as usize].entity_type.clone();
    (entity_type(head), entity_type(tail))
}

/// Pairs of types in words.
pub fn in_words(types: &[TypePair]) -> String {
    let pair = |(head, tail): &TypePair| format!("{head} → {tail}");
    types.iter().map(pair).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Candidate, Document};
    use crate::shards::testing::{document, prepared_with};
    use crate::shards::{StoreOptions, WriteOptions};

    #[test]
    fn types_are_those_of_listed_pairs_and_none_where_a_document_lists_none() {
        let temp = tempfile::tempdir().unwrap();
        let open = |name: &str, documents: &[Document]| {
            let (folder, _) = prepared_with(temp.path(), name, documents, WriteOptions::default());
            DocumentStore::open(&folder, StoreOptions::default()).unwrap()
        };
        let mut listed = document("a", &[&["Paris"], &["France"], &["Rome"]], &[]);
        for (entity, name) in listed.entities.iter_mut().zip(["CITY", "LAND", "CITY"]) {
            entity.mentions[0].entity_type = name.to_owned();
        }
        let pair = |head, tail, excluded| Candidate { head, tail, excluded };
        listed.candidates = Some(vec![pair(0, 1, false), pair(2, 1, false), pair(1, 0, true)]);
        let all = Document { title: "b".into(), candidates: None, ..listed.clone() };
        let types = asked_types(&[open("listed", &[listed.clone()])]);
        assert_eq!(in_words(&types), "CITY → LAND");
        let store = open("both", &[listed, all]);
        assert!(asked_types(std::slice::from_ref(&store)).is_empty());
        let found: Vec<_> =
            pairs_of(&store.get(1), &types).iter().map(|pair| (pair.head, pair.tail)).collect();
        assert_eq!(found, [(0, 1), (2, 1)]);
    }
}
