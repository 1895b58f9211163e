//! Small drawing helpers: without replacement, filled up by doubling, and a correct answer placed
//! at a uniform slot.

use rand::RngExt;

use super::Stream;
use crate::text::{TokenizedDocument, ViewChoices};

/// Draws `count` elements without replacement, in random order. A pool that is too small is doubled
/// until it is large enough (docs/systems.md, D.7); an empty pool gives nothing.
pub fn take<T: Copy>(rng: &mut Stream, pool: &[T], count: usize) -> Vec<T> {
    let mut list = pool.to_vec();
    if list.is_empty() {
        return list;
    }
    while list.len() < count {
        list.extend_from_within(..);
    }
    for i in 0..count {
        let other = rng.random_range(i..list.len());
        list.swap(i, other);
    }
    list.truncate(count);
    list
}

/// One element, uniformly.
pub fn pick<T: Copy>(rng: &mut Stream, pool: &[T]) -> Option<T> {
    (!pool.is_empty()).then(|| pool[rng.random_range(0..pool.len())])
}

/// Puts the answer among the others at a uniform slot; returns all and the slot.
pub fn place<T>(rng: &mut Stream, mut others: Vec<T>, answer: T) -> (Vec<T>, usize) {
    let slot = rng.random_range(0..=others.len());
    others.insert(slot, answer);
    (others, slot)
}

/// Draws the entities of a document that are blanked, each with the same probability.
pub fn draw_blanked(
    stream: &mut Stream,
    document: &TokenizedDocument,
    probability: f64,
) -> ViewChoices {
    let blanked = document.entities.iter().map(|_| stream.random_bool(probability)).collect();
    ViewChoices { blanked, masked: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::testing::assert_uniform;
    use crate::sampling::{Purpose, rng};

    #[test]
    fn taking_is_uniform_and_without_repetition() {
        let mut counts = [[0; 7]; 3];
        for item in 0..7000 {
            let drawn = take(&mut rng(1, Purpose::Rank, 0, item), &[0, 1, 2, 3, 4, 5, 6], 3);
            assert!(drawn[0] != drawn[1] && drawn[0] != drawn[2] && drawn[1] != drawn[2]);
            drawn.iter().zip(&mut counts).for_each(|(&x, row)| row[x] += 1);
        }
        counts.iter().for_each(|row| assert_uniform(row));
    }

    #[test]
    fn a_short_pool_is_doubled() {
        let mut stream = rng(1, Purpose::Rank, 0, 0);
        let mut drawn = take(&mut stream, &['a', 'b'], 4);
        drawn.sort_unstable();
        assert_eq!(drawn, ['a', 'a', 'b', 'b']);
        assert_eq!(take(&mut stream, &['a'], 5), ['a'; 5]);
        assert!(take::<char>(&mut stream, &[], 5).is_empty());
        assert_eq!(pick::<char>(&mut stream, &[]), None);
    }

    #[test]
    fn the_answer_stands_at_its_slot_and_slots_are_uniform() {
        let mut counts = [0; 4];
        for item in 0..4000 {
            let (all, slot) = place(&mut rng(2, Purpose::Rank, 0, item), vec![1, 2, 3], 0);
            assert_eq!((all[slot], all.len()), (0, 4));
            counts[slot] += 1;
        }
        assert_uniform(&counts);
    }
}
