//! The matrices of entity pairs of a batch: N × N cells a document, row by row, one document after
//! the other. Host data.
//!
//! A row of a matrix is a segment of N cells. The same cells with rows and columns exchanged are
//! those of the columns. Nothing is padded, unless the release's grids of one size are asked for.

/// Grids of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairGrids {
    /// First cell of each row of each grid, closed by the number of cells G.
    pub offsets: Vec<i64>,
    /// For each cell the cell with row and column exchanged; `[G]`.
    pub turned: Vec<i64>,
    /// The cell of each pair (h, t), all N² of a document row by row; `[Q]`.
    pub places: Vec<i64>,
    /// The pair of each cell, or Q where there is none; `None` where every cell is a pair, in
    /// order; `[G]`.
    pub sources: Option<Vec<i64>>,
}

impl PairGrids {
    /// Grids of documents with so many entities, of `side` rows each; 0: as many as the document
    /// has entities. No document has more entities than a `side` above 0.
    pub fn new(entities: &[usize], side: usize) -> Self {
        let mut grids =
            Self { offsets: vec![0], turned: Vec::new(), places: Vec::new(), sources: None };
        let pairs: usize = entities.iter().map(|count| count * count).sum();
        let mut sources = Vec::new();
        for &count in entities {
            let (first, side) = (grids.turned.len(), if side > 0 { side } else { count });
            for row in 0..side {
                for column in 0..side {
                    grids.turned.push((first + column * side + row) as i64);
                    if row < count && column < count {
                        sources.push(grids.places.len() as i64);
                        grids.places.push((first + row * side + column) as i64);
                    } else {
                        sources.push(pairs as i64);
                    }
                }
                grids.offsets.push(grids.turned.len() as i64);
            }
        }
        grids.sources = (side > 0).then_some(sources);
        grids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_segment_and_turning_twice_changes_nothing() {
        let grids = PairGrids::new(&[2, 0, 3, 1], 0);
        assert_eq!(grids.offsets, [0, 2, 4, 7, 10, 13, 14]);
        assert_eq!(grids.turned[..4], [0, 2, 1, 3]);
        assert_eq!(grids.turned[4..13], [4, 7, 10, 5, 8, 11, 6, 9, 12]);
        for (cell, &turned) in grids.turned.iter().enumerate() {
            assert_eq!(grids.turned[turned as usize], cell as i64);
        }
        assert_eq!(grids.places, (0..14).collect::<Vec<_>>());
        assert_eq!(grids.sources, None);
    }

    #[test]
    fn grids_of_one_size_have_cells_of_no_pair() {
        let grids = PairGrids::new(&[2, 1], 3);
        assert_eq!(grids.offsets, [0, 3, 6, 9, 12, 15, 18]);
        assert_eq!(grids.places, [0, 1, 3, 4, 9]);
        let sources = grids.sources.unwrap();
        assert_eq!(sources[..9], [0, 1, 5, 2, 3, 5, 5, 5, 5]);
        assert_eq!(sources[9..], [4, 5, 5, 5, 5, 5, 5, 5, 5]);
    }
}
