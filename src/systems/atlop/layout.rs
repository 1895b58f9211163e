//! The host half of ATLOP: all pairs that are asked about, labelled ones first.

use crate::Result;
use crate::systems::reading::ReadingLayout;
use crate::systems::{Example, Layout, Pair, Tables};
use crate::text::TokenizedDocument;

/// Reads documents and takes all pairs.
pub struct AtlopLayout(pub ReadingLayout);

/// All pairs that are asked about in the order of the releases of ATLOP and DocRE-II: labelled ones
/// by first appearance, then the others row by row.
pub fn labelled_first(document: &TokenizedDocument) -> Vec<Pair> {
    let entities = document.entities.len();
    let mut seen = vec![false; entities * entities];
    let labelled = document.facts.iter().map(|fact| (fact.head, fact.tail));
    let all = labelled.chain(crate::sampling::asked_pairs(document));
    all.filter(|pair| {
        !std::mem::replace(&mut seen[pair.0 as usize * entities + pair.1 as usize], true)
    })
    .collect()
}

impl Layout for AtlopLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        _seed: u64,
        _epoch: u64,
        _row: u64,
    ) -> Result<Vec<Pair>> {
        Ok(labelled_first(document))
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        Ok(Box::new(self.0.read(examples)?))
    }
}
