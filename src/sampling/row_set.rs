//! A set of rows in a bit each, which knows the place of each row in it: a list of a hundred
//! million rows in 20 MB.

/// Rows in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    /// A bit a row.
    words: Vec<u64>,
    /// Rows of the set before each word.
    before: Vec<u32>,
    len: usize,
}

impl RowSet {
    /// Those of the rows 0 to `count` for which `holds` is true.
    pub fn of(count: usize, mut holds: impl FnMut(usize) -> bool) -> Self {
        let mut set = Self::default();
        for start in (0..count).step_by(u64::BITS as usize) {
            let bits = (start..count.min(start + u64::BITS as usize))
                .fold(0, |bits, row| bits | u64::from(holds(row)) << (row - start));
            set.before.push(set.len as u32);
            set.words.push(bits);
            set.len += bits.count_ones() as usize;
        }
        set
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The row at a place, which must be below [`Self::len`] as for a slice.
    pub fn nth(&self, place: usize) -> usize {
        assert!(place < self.len, "place {place} of {} rows", self.len);
        let word = self.before.partition_point(|&before| before as usize <= place) - 1;
        let mut bits = self.words[word];
        for _ in self.before[word] as usize..place {
            bits &= bits - 1;
        }
        word * u64::BITS as usize + bits.trailing_zeros() as usize
    }

    /// How many rows of the set are below `row`.
    pub fn before(&self, row: usize) -> usize {
        let (word, bit) = (row / u64::BITS as usize, row % u64::BITS as usize);
        let Some(bits) = self.words.get(word) else { return self.len };
        self.before[word] as usize + (bits & ((1 << bit) - 1)).count_ones() as usize
    }

    /// The rows, rising.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(word, &bits)| {
            let mut bits = bits;
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * u64::BITS as usize + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_is_the_list_of_its_rows(rows in prop::collection::vec(any::<bool>(), 0..400)) {
            let set = RowSet::of(rows.len(), |row| rows[row]);
            let list: Vec<usize> = (0..rows.len()).filter(|&row| rows[row]).collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), list.clone());
            prop_assert_eq!(set.len(), list.len());
            for (place, &row) in list.iter().enumerate() {
                prop_assert_eq!((set.nth(place), set.before(row)), (row, place));
            }
            prop_assert_eq!(set.before(rows.len()), list.len());
            prop_assert_eq!(set.before(rows.len() + 99), list.len());
        }
    }
}
