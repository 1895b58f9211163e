//! Pairs of documents as square grids, entities × entities, documents of similar size side by side.
//!
//! Sizes are rounded up, so that a document's grid does not depend on which others share its batch.

use std::collections::BTreeSet;

use crate::systems::Pair;

/// Grids are as wide as a multiple of this.
const STEP: usize = 8;

/// Documents whose grids have one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Cells a side, N.
    pub side: usize,
    /// Number of documents, G.
    pub documents: usize,
    /// Row of the pair of each cell; the number of pairs where there is none. [G × N × N]
    pub cells: Vec<i64>,
}

/// All grids of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grids {
    /// By size.
    pub grids: Vec<Grid>,
    /// For each pair its cell in the grids laid one after the other. `[P]`
    pub places: Vec<i64>,
}

impl Grids {
    /// Grids of documents given as (entities, pairs).
    pub fn new(documents: &[(usize, &[Pair])]) -> Self {
        let total: usize = documents.iter().map(|(_, pairs)| pairs.len()).sum();
        let mut first = 0;
        let placed: Vec<(usize, usize, &[Pair])> = documents
            .iter()
            .map(|&(entities, pairs)| {
                first += pairs.len();
                (entities.div_ceil(STEP) * STEP, first - pairs.len(), pairs)
            })
            .filter(|(_, _, pairs)| !pairs.is_empty())
            .collect();
        let sides: BTreeSet<usize> = placed.iter().map(|&(side, _, _)| side).collect();
        let mut all = Self { grids: Vec::new(), places: vec![0; total] };
        let mut base = 0;
        for size in sides {
            let mut grid = Grid { side: size, ..Grid::default() };
            for &(_, first, pairs) in placed.iter().filter(|(side, _, _)| *side == size) {
                all.place(&mut grid, pairs, first, total, base);
            }
            base += grid.cells.len();
            all.grids.push(grid);
        }
        all
    }

    fn place(&mut self, grid: &mut Grid, pairs: &[Pair], first: usize, absent: usize, base: usize) {
        let start = grid.cells.len();
        grid.cells.resize(start + grid.side * grid.side, absent as i64);
        for (number, &(head, tail)) in pairs.iter().enumerate() {
            let cell = start + head as usize * grid.side + tail as usize;
            grid.cells[cell] = (first + number) as i64;
            self.places[first + number] = (base + cell) as i64;
        }
        grid.documents += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_finds_its_cell_again() {
        let pairs = [vec![(0, 1), (1, 0)], vec![], vec![(8, 2), (0, 8), (3, 1)], vec![(1, 2)]];
        let grids = Grids::new(&[(2, &pairs[0]), (0, &pairs[1]), (9, &pairs[2]), (3, &pairs[3])]);
        assert_eq!(
            grids.grids.iter().map(|grid| (grid.side, grid.documents)).collect::<Vec<_>>(),
            [(8, 2), (16, 1)]
        );
        let cells: Vec<i64> = grids.grids.iter().flat_map(|grid| grid.cells.clone()).collect();
        assert_eq!(
            grids.places.iter().map(|&place| cells[place as usize]).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5]
        );
        assert_eq!(cells.iter().filter(|&&cell| cell == 6).count(), cells.len() - 6);
        assert_eq!(grids.places[0], 1);
        assert_eq!(grids.places[2], 128 + 8 * 16 + 2);
    }
}
