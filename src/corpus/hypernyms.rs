//! The hypernym filter of CDR (SPEC §1.6): a negative pair whose disease is more general than that of a positive one is neither trained on
//! nor scored. Not for: evaluation, which takes pairs as the data have them.

use std::collections::HashMap;
use std::path::Path;

use super::records::{Unit, read_records};
use super::{Candidate, Document};
use crate::{DataError, Result};

/// Tree numbers of MeSH by descriptor, such as `D006311` → `C09.218.458.341`, `C10.597.751.418`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshTree {
    numbers: HashMap<String, Vec<String>>,
}

impl MeshTree {
    /// Reads a file of lines with tabs: tree number, descriptor, anything (the form of `2017MeshTree.txt`); a line of headings may come first.
    ///
    /// # Errors
    /// A [`DataError`] for a line without two columns, or a file without any number; I/O errors.
    pub fn load(path: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let parse = |record: super::records::Record<'_>| {
            let mut columns = record.text.split('\t').map(|column| column.trim().to_owned());
            match (columns.next(), columns.next()) {
                (Some(number), Some(descriptor)) if !number.is_empty() && !descriptor.is_empty() => Ok((record.row, number, descriptor)),
                _ => Err(DataError::new(path, "the line has no two columns").row(record.row).hint("tree number, tab, descriptor").into()),
            }
        };
        read_records(path, Unit::Line, &parse, &mut |(row, number, descriptor)| {
            if row > 0 || descriptor.chars().any(|c| c.is_ascii_digit()) {
                tree.numbers.entry(descriptor).or_default().push(number);
            }
            Ok(())
        })?;
        if tree.numbers.is_empty() { Err(DataError::new(path, "the file names no tree number").into()) } else { Ok(tree) }
    }

    fn of<'a>(&'a self, document: &Document, entity: usize) -> &'a [String] {
        let id = document.entities[entity].knowledge_base_id.as_deref().unwrap_or_default();
        self.numbers.get(id.strip_prefix("MESH:").unwrap_or(id)).map_or(&[], Vec::as_slice)
    }

    /// Takes out each negative (e1, e2) for which some tree number of e2 is part of a number of the disease of a positive with the same e1,
    /// or of a number of the chemical of a positive with the same e2. (The second half compares a disease with chemicals; it is kept as the
    /// filter has it.)
    pub fn exclude(&self, document: &mut Document) {
        let Some(candidates) = document.candidates.take() else { return };
        let positives: Vec<(usize, usize)> = document.facts().iter().map(|fact| (fact.head, fact.tail)).collect();
        let contains = |entity: usize, number: &String| self.of(document, entity).iter().any(|own| own.contains(number.as_str()));
        let is_hypernym = |pair: &Candidate| {
            self.of(document, pair.tail).iter().any(|number| {
                positives
                    .iter()
                    .any(|&(head, tail)| (head == pair.head && contains(tail, number)) || (tail == pair.tail && contains(head, number)))
            })
        };
        let exclude = |pair: Candidate| {
            let positive = positives.contains(&(pair.head, pair.tail));
            Candidate { excluded: pair.excluded || (!positive && is_hypernym(&pair)), ..pair }
        };
        document.candidates = Some(candidates.into_iter().map(exclude).collect());
    }
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
            "Tree\tUi\tName\nC10.5\tD1\tbroad\nC10.5.2\tD2\tnarrow\nC10.5.2\tD5\tsame\nC11\tD3\tother\nD03.C11.9\tC9\tdrug\n",
        )
        .unwrap();
        let tree = MeshTree::load(&path).unwrap();
        let entity = |id: &str| Entity { knowledge_base_id: Some(id.into()), ..Entity::default() };
        let pairs = [(0, 1), (0, 2), (0, 3), (0, 4), (5, 1), (5, 3)];
        let mut document = Document {
            entities: ["MESH:C9", "D1", "D2", "D3", "D5", "C8"].map(entity).into(),
            facts: Some(vec![Fact { head: 0, tail: 2, relation: "CID".into(), evidence: vec![] }]),
            candidates: Some(pairs.map(|(head, tail)| Candidate { head, tail, excluded: false }).into()),
            ..Document::default()
        };
        tree.exclude(&mut document);
        let excluded = |document: &Document| document.candidates.iter().flatten().map(|pair| pair.excluded).collect::<Vec<_>>();
        // D1 is broader than D2; D5 has D2's very number; D3's number is no part of D2's; another chemical has no positive.
        assert_eq!(excluded(&document), [true, false, false, true, false, false]);
        // The second half: C11 (D3) is part of a number of C9, which is positive with D3.
        document.facts = Some(vec![Fact { head: 0, tail: 3, relation: "CID".into(), evidence: vec![] }]);
        document.candidates = Some(pairs.map(|(head, tail)| Candidate { head, tail, excluded: false }).into());
        tree.exclude(&mut document);
        assert_eq!(excluded(&document), [false, false, false, false, false, true]);
        fs_err::write(&path, "Tree\tUi\n").unwrap();
        assert_eq!(MeshTree::load(&path).unwrap_err().exit_code(), 65);
    }
}
