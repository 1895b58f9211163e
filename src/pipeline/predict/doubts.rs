//! What makes predictions doubtful, over all documents: words that the tokenizer does not know, and
//! pairs of types that the model was not trained on. Not for: single documents.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::asked_types::{TypePair, in_words, pairs_of};
use crate::shards::PieceCount;
use crate::text::TokenizedDocument;

/// Counts over documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictDoubts {
    /// Pieces of words.
    pieces: PieceCount,
    /// Pairs that are not predicted because of their types.
    pairs: usize,
    /// Documents with two entities or more that list no pairs.
    documents: usize,
    /// Those of them of which no pair is predicted for that reason.
    without_pairs: usize,
}

impl PredictDoubts {
    /// Lists the pairs of the model's types in documents that list none.
    pub fn restrict(&mut self, documents: &mut [Arc<TokenizedDocument>], types: &[TypePair]) {
        let open = documents.iter_mut().filter(|document| document.candidates.is_none());
        for document in open.filter(|_| !types.is_empty()) {
            let pairs = pairs_of(document, types);
            self.pairs += document.num_pairs() - pairs.len();
            self.documents += usize::from(document.num_pairs() > 0);
            self.without_pairs += usize::from(pairs.is_empty() && document.num_pairs() > 0);
            Arc::make_mut(document).candidates = Some(pairs);
        }
    }

    /// Counts the pieces of documents.
    pub fn count(&mut self, documents: &[Arc<TokenizedDocument>], unknown: u32) {
        documents.iter().for_each(|document| self.pieces.add(&document.pieces, unknown));
    }

    /// The sum over ranks.
    pub fn sum(shares: &[Self]) -> Self {
        shares.iter().fold(Self::default(), |mut sum, share| {
            sum.pieces.all += share.pieces.all;
            sum.pieces.unknown += share.pieces.unknown;
            sum.pairs += share.pairs;
            sum.documents += share.documents;
            sum.without_pairs += share.without_pairs;
            sum
        })
    }

    /// What the user should know.
    pub fn told(&self, types: &[TypePair]) -> Vec<String> {
        let mut told = Vec::new();
        if self.pairs > 0 {
            told.push(format!(
                "note: the model was trained on pairs of the types {} alone; {} pairs of other \
                 types are not predicted",
                in_words(types),
                self.pairs
            ));
        }
        if 2 * self.without_pairs > self.documents {
            told.push(format!(
                "warning: {} of {} documents have no pair of these types: are types spelt as in \
                 training?",
                self.without_pairs, self.documents
            ));
        }
        told.extend(self.pieces.warning().map(|warning| format!("warning: {warning}")));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TokenizedEntity;

    fn document(types: &[&str]) -> Arc<TokenizedDocument> {
        let entity = |name: &&str| TokenizedEntity {
            entity_type: (*name).to_owned(),
            ..TokenizedEntity::default()
        };
        let entities = types.iter().map(entity).collect();
        Arc::new(TokenizedDocument { entities, ..TokenizedDocument::default() })
    }

    #[test]
    fn pairs_of_types_that_were_not_trained_on_are_left_out_and_counted() {
        let types = [("Chemical".to_owned(), "Disease".to_owned())];
        let mut documents =
            [&["Disease", "Chemical", "Disease"][..], &["A", "B"], &["C", "D", "E"]].map(document);
        let mut doubts = PredictDoubts::default();
        doubts.restrict(&mut documents, &types);
        let pairs = documents[0].candidates.as_ref().unwrap();
        let found: Vec<_> = pairs.iter().map(|pair| (pair.head, pair.tail)).collect();
        assert_eq!(found, [(1, 0), (1, 2)]);
        assert_eq!(documents[1].candidates.as_ref().unwrap().len(), 0);
        let told = PredictDoubts::sum(&[doubts.clone(), doubts]).told(&types).join("\n");
        assert!(told.contains("Chemical → Disease") && told.contains("24 pairs"), "{told}");
        assert!(told.contains("4 of 6 documents have no pair"), "{told}");
    }

    #[test]
    fn documents_of_a_model_of_all_pairs_stay_as_they_are() {
        let mut documents = [document(&["A", "B"])];
        let mut doubts = PredictDoubts::default();
        doubts.restrict(&mut documents, &[]);
        assert!(documents[0].candidates.is_none() && doubts.told(&[]).is_empty());
    }

    #[test]
    fn unknown_words_are_a_warning() {
        let pieces = TokenizedDocument { pieces: vec![1, 7, 7, 2], ..TokenizedDocument::default() };
        let mut doubts = PredictDoubts::default();
        doubts.count(&[Arc::new(pieces)], 7);
        assert!(doubts.told(&[])[0].contains("2 of 4 pieces are unknown"));
    }
}
