//! The hypernym filter of CDR (SPEC §1.6): a negative pair whose disease is a more general term than an argument of a positive pair is
//! neither right nor wrong, and leaves training and scoring. Not for: GDA, which has no such filter.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::corpus::{EogDocument, PairLabel};
use crate::{DataError, Result};

/// Tree numbers of the descriptors of MeSH.
#[derive(Clone, Debug, Default)]
pub struct MeshTree {
    numbers: HashMap<String, Vec<String>>,
}

impl MeshTree {
    /// Reads `2017MeshTree.txt` and its like: a line of column names, then tree number, descriptor and term with tabs between.
    ///
    /// # Errors
    /// I/O errors; a line without two columns or not in UTF-8, by number; a file without descriptors.
    pub fn load(path: &Path) -> Result<Self> {
        let mut tree = Self::default();
        for (row, line) in BufReader::new(fs_err::File::open(path)?).split(b'\n').enumerate() {
            let line = line?;
            let at = |problem: &str| {
                DataError::new(path, problem).row(row).hint("a line is a tree number, a descriptor and a term, with tabs between")
            };
            let text = std::str::from_utf8(&line).map_err(|_| at("the line is not UTF-8 text"))?.trim_end();
            if row == 0 || text.is_empty() {
                continue;
            }
            let (number, rest) = text.split_once('\t').ok_or_else(|| at("the line has a single column"))?;
            let descriptor = rest.split('\t').next().unwrap_or_default();
            tree.numbers.entry(descriptor.to_owned()).or_default().push(number.to_owned());
        }
        if tree.numbers.is_empty() {
            return Err(DataError::new(path, "the file holds no tree number")
                .hint("give MeSH's list of tree numbers, such as 2017MeshTree.txt")
                .into());
        }
        Ok(tree)
    }

    fn of(&self, id: &str) -> &[String] {
        self.numbers.get(id).map_or(&[], Vec::as_slice)
    }

    /// Whether a tree number of `general` is contained in one of `special`.
    fn covers(&self, general: &str, special: &str) -> bool {
        self.of(general).iter().any(|number| self.of(special).iter().any(|other| other.contains(number.as_str())))
    }
}

/// Labels as filtered out the negative pairs of which, for a positive pair of the same document, either the chemical is the same and the
/// negative's disease covers the positive's, or the disease is the same and *the negative's disease* covers the positive's chemical (the
/// script compares these two; kept as it is). Returns the number of pairs that it took out. Documents without a positive pair stay.
pub fn filter_hypernyms(documents: &mut [EogDocument], tree: &MeshTree) -> usize {
    documents.iter_mut().map(|document| filter_document(document, tree)).sum()
}

fn filter_document(read: &mut EogDocument, tree: &MeshTree) -> usize {
    let entities = &read.document.entities;
    let id = |entity: usize| entities[entity].knowledge_base_id.as_deref().unwrap_or_default();
    let positive = |pair: &&crate::corpus::LabelledPair| matches!(pair.label, PairLabel::Relation(_));
    let positives: Vec<_> = read.pairs.iter().filter(positive).map(|pair| (id(pair.head), id(pair.tail))).collect();
    let mut taken = 0;
    for pair in read.pairs.iter_mut().filter(|pair| pair.label == PairLabel::NoRelation) {
        let (chemical, disease) = (id(pair.head), id(pair.tail));
        let covers = |(c, d): &(&str, &str)| (*c == chemical && tree.covers(disease, d)) || (*d == disease && tree.covers(disease, c));
        if positives.iter().any(covers) {
            pair.label = PairLabel::NotIncluded;
            taken += 1;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Document, Entity, LabelledPair};

    fn tree(text: &str) -> Result<MeshTree> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree.txt");
        fs_err::write(&path, text).unwrap();
        MeshTree::load(&path)
    }

    #[test]
    fn general_negatives_leave() {
        let tree = tree("Tree Number\tDesc Ui\tTerm\nC10\tD1\tx\nC10.228\tD2\ty\nC14\tD3\tz\nC10.9\tC1\tw\n").unwrap();
        let entity = |id: &str| Entity { knowledge_base_id: Some(id.into()), ..Entity::default() };
        let entities = ["C1", "C2", "D1", "D2", "D3"].map(entity).to_vec();
        let pair = |head, tail, label| LabelledPair { head, tail, label, crosses_sentences: false };
        let none = || PairLabel::NoRelation;
        // (C1, D2) holds. D1 is more general than D2 and C1 is below D1's number too; D3 is elsewhere; C2 has no positive.
        let pairs = vec![
            pair(0, 3, PairLabel::Relation("CID".into())),
            pair(0, 2, none()),
            pair(0, 4, none()),
            pair(1, 2, none()),
            pair(1, 3, none()),
        ];
        let mut documents = [EogDocument { document: Document { entities, ..Document::default() }, pairs }];
        assert_eq!(filter_hypernyms(&mut documents, &tree), 1);
        let labels: Vec<_> = documents[0].pairs.iter().map(|pair| pair.label.clone()).collect();
        assert_eq!(labels[1..], [PairLabel::NotIncluded, none(), none(), none()]);
    }

    #[test]
    fn the_negatives_disease_is_compared_with_the_positives_chemical() {
        let tree = tree("head\nC10\tD1\nC10.9\tC1\n").unwrap();
        let entity = |id: &str| Entity { knowledge_base_id: Some(id.into()), ..Entity::default() };
        let entities = ["C1", "C2", "D1"].map(entity).to_vec();
        let pair = |head, label| LabelledPair { head, tail: 2, label, crosses_sentences: false };
        let pairs = vec![pair(0, PairLabel::Relation("CID".into())), pair(1, PairLabel::NoRelation)];
        let mut documents = [EogDocument { document: Document { entities, ..Document::default() }, pairs }];
        assert_eq!(filter_hypernyms(&mut documents, &tree), 1);
    }

    #[test]
    fn a_broken_tree_is_named() {
        assert!(tree("head\nC10 D1\n").unwrap_err().to_string().contains("row 1: the line has a single column"));
        assert!(tree("head\n").unwrap_err().to_string().contains("no tree number"));
    }
}
