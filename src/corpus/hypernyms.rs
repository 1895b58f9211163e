//! The hypernym filter of CDR (docs/formats.md, "The hypernym filter"): a negative pair whose
//! disease is a more general term than an argument of a positive pair is neither right nor wrong,
//! and leaves training and scoring. Not for: GDA, which has no such filter.

use std::collections::HashMap;
use std::path::Path;

use super::{Candidate, Document, LabelledPair, PairLabel};
use crate::base::records::{Record, Unit, read_records};
use crate::{DataError, Result};

/// Tree numbers of MeSH by descriptor, such as `D006311` → `C09.218.458.341`, `C10.597.751.418`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshTree {
    numbers: HashMap<String, Vec<String>>,
}

impl MeshTree {
    /// Reads a file of lines with tabs, plain or gzip: tree number, descriptor, anything (the form
    /// of `2017MeshTree.txt`). A first line whose second column bears no digit is one of headings.
    ///
    /// # Errors
    /// A [`DataError`] for a line without two columns or not in UTF-8, by number, and for a file
    /// without any number; I/O errors.
    pub fn load(path: &Path) -> Result<Self> {
        let mut tree = Self::default();
        read_records(path, Unit::Line, &|record| parse(path, record), &mut |line| {
            if let Some((number, descriptor)) = line {
                tree.numbers.entry(descriptor).or_default().push(number);
            }
            Ok(())
        })?;
        if tree.numbers.is_empty() {
            return Err(DataError::new(path, "the file holds no tree number")
                .hint("give MeSH's list of tree numbers, such as 2017MeshTree.txt")
                .into());
        }
        Ok(tree)
    }

    /// The tree numbers of an entity, whose identifier may stand after `MESH:`.
    fn of<'a>(&'a self, document: &Document, entity: usize) -> &'a [String] {
        let id = document.entities[entity].knowledge_base_id.as_deref().unwrap_or_default();
        self.numbers.get(id.strip_prefix("MESH:").unwrap_or(id)).map_or(&[], Vec::as_slice)
    }

    /// Whether a tree number of `general` is contained in one of `special`.
    fn covers(&self, document: &Document, general: usize, special: usize) -> bool {
        let special = self.of(document, special);
        self.of(document, general)
            .iter()
            .any(|number| special.iter().any(|other| other.contains(number.as_str())))
    }

    /// Whether a negative (chemical, disease) is taken out for a positive pair of its document: the
    /// chemical is the same and the negative's disease covers the positive's, or the disease is the
    /// same and *the negative's disease* covers the positive's chemical. (The script compares these
    /// two; kept as it is.)
    fn is_hypernym(
        &self,
        document: &Document,
        (chemical, disease): (usize, usize),
        positives: &[(usize, usize)],
    ) -> bool {
        positives.iter().any(|&(c, d)| {
            (c == chemical && self.covers(document, disease, d))
                || (d == disease && self.covers(document, disease, c))
        })
    }

    /// Excludes the candidates of a document that the filter takes out.
    pub fn exclude(&self, document: &mut Document) {
        let Some(candidates) = document.candidates.take() else { return };
        let positives: Vec<_> =
            document.facts().iter().map(|fact| (fact.head, fact.tail)).collect();
        let exclude = |pair: Candidate| {
            let arguments = (pair.head, pair.tail);
            let hypernym = !positives.contains(&arguments)
                && self.is_hypernym(document, arguments, &positives);
            Candidate { excluded: pair.excluded || hypernym, ..pair }
        };
        document.candidates = Some(candidates.into_iter().map(exclude).collect());
    }
}

/// Tree number and descriptor of a line; nothing for a line of headings.
fn parse(path: &Path, Record { text, row, .. }: Record<'_>) -> Result<Option<(String, String)>> {
    let mut columns = text.split('\t').map(str::trim);
    match (columns.next(), columns.next()) {
        (_, second)
            if row == 0
                && !second.unwrap_or_default().contains(|letter: char| letter.is_ascii_digit()) =>
        {
            Ok(None)
        }
        (Some(number), Some(descriptor)) if !number.is_empty() && !descriptor.is_empty() => {
            Ok(Some((number.to_owned(), descriptor.to_owned())))
        }
        (_, second) => {
            let problem = if second.is_none() {
                "the line has a single column"
            } else {
                "the line has an empty column"
            };
            Err(DataError::new(path, problem)
                .row(row)
                .hint("a line is a tree number, a descriptor and a term, with tabs between")
                .into())
        }
    }
}

/// Labels the listed pairs of a document that the filter takes out as filtered out, and returns
/// their number. A document without a positive pair stays as it is.
pub fn filter_hypernyms(document: &Document, pairs: &mut [LabelledPair], tree: &MeshTree) -> usize {
    let positives: Vec<_> = pairs
        .iter()
        .filter(|pair| matches!(pair.label, PairLabel::Relation(_)))
        .map(|pair| (pair.head, pair.tail))
        .collect();
    let mut taken = 0;
    for pair in pairs.iter_mut().filter(|pair| pair.label == PairLabel::NoRelation) {
        if tree.is_hypernym(document, (pair.head, pair.tail), &positives) {
            pair.label = PairLabel::NotIncluded;
            taken += 1;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Entity, Fact};

    #[test]
    fn more_general_diseases_are_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree.txt");
        fs_err::write(
            &path,
            "Tree\tUi\tName\nC10.5\tD1\tbroad\nC10.5.2\tD2\tnarrow\nC10.5.2\tD5\tsame\n\
             C11\tD3\tother\nD03.C11.9\tC9\tdrug\n",
        )
        .unwrap();
        let tree = MeshTree::load(&path).unwrap();
        let entity = |id: &str| Entity { knowledge_base_id: Some(id.into()), ..Entity::default() };
        let pairs = [(0, 1), (0, 2), (0, 3), (0, 4), (5, 1), (5, 3)];
        let mut document = Document {
            entities: ["MESH:C9", "D1", "D2", "D3", "D5", "C8"].map(entity).into(),
            facts: Some(vec![Fact { head: 0, tail: 2, relation: "CID".into(), evidence: vec![] }]),
            candidates: Some(
                pairs.map(|(head, tail)| Candidate { head, tail, excluded: false }).into(),
            ),
            ..Document::default()
        };
        tree.exclude(&mut document);
        let excluded = |document: &Document| {
            document.candidates.iter().flatten().map(|pair| pair.excluded).collect::<Vec<_>>()
        };
        // D1 is broader than D2; D5 has D2's very number; D3's number is no part of D2's; another
        // chemical has no positive.
        assert_eq!(excluded(&document), [true, false, false, true, false, false]);
        // The second half: C11 (D3) is part of a number of C9, which is positive with D3.
        document.facts =
            Some(vec![Fact { head: 0, tail: 3, relation: "CID".into(), evidence: vec![] }]);
        document.candidates =
            Some(pairs.map(|(head, tail)| Candidate { head, tail, excluded: false }).into());
        tree.exclude(&mut document);
        assert_eq!(excluded(&document), [false, false, false, false, false, true]);
        fs_err::write(&path, "Tree\tUi\n").unwrap();
        assert_eq!(MeshTree::load(&path).unwrap_err().exit_code(), 65);
    }

    fn tree(text: &str) -> Result<MeshTree> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tree.txt");
        fs_err::write(&path, text).unwrap();
        MeshTree::load(&path)
    }

    #[test]
    fn general_negatives_leave() {
        let tree = tree(
            "Tree Number\tDesc Ui\tTerm\nC10\tD1\tx\nC10.228\tD2\ty\nC14\tD3\tz\nC10.9\tC1\tw\n",
        )
        .unwrap();
        let entity = |id: &str| Entity { knowledge_base_id: Some(id.into()), ..Entity::default() };
        let entities = ["C1", "C2", "D1", "D2", "D3"].map(entity).to_vec();
        let pair = |head, tail, label| LabelledPair { head, tail, label, crosses_sentences: false };
        let none = || PairLabel::NoRelation;
        // (C1, D2) holds. D1 is more general than D2 and C1 is below D1's number too; D3 is
        // elsewhere; C2 has no positive.
        let mut pairs = vec![
            pair(0, 3, PairLabel::Relation("CID".into())),
            pair(0, 2, none()),
            pair(0, 4, none()),
            pair(1, 2, none()),
            pair(1, 3, none()),
        ];
        let document = Document { entities, ..Document::default() };
        assert_eq!(filter_hypernyms(&document, &mut pairs, &tree), 1);
        let labels: Vec<_> = pairs.iter().map(|pair| pair.label.clone()).collect();
        assert_eq!(labels[1..], [PairLabel::NotIncluded, none(), none(), none()]);
    }

    #[test]
    fn the_negatives_disease_is_compared_with_the_positives_chemical() {
        let tree = tree("head\nC10\tD1\nC10.9\tC1\n").unwrap();
        let entity = |id: &str| Entity { knowledge_base_id: Some(id.into()), ..Entity::default() };
        let entities = ["C1", "C2", "D1"].map(entity).to_vec();
        let pair = |head, label| LabelledPair { head, tail: 2, label, crosses_sentences: false };
        let mut pairs =
            vec![pair(0, PairLabel::Relation("CID".into())), pair(1, PairLabel::NoRelation)];
        let document = Document { entities, ..Document::default() };
        assert_eq!(filter_hypernyms(&document, &mut pairs, &tree), 1);
    }

    #[test]
    fn a_broken_tree_is_named() {
        assert!(
            tree("head\nC10 D1\n")
                .unwrap_err()
                .to_string()
                .contains("row 1: the line has a single column")
        );
        assert!(tree("head\n").unwrap_err().to_string().contains("no tree number"));
    }
}
