//! Random numbers without a state to carry around: generators and permutations that are functions
//! of their keys.
//!
//! Not for: dropout masks (`torch`), which have a cheaper counter-based generator of their own.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The generator of one purpose of one item.
pub type Stream = ChaCha8Rng;

/// What random numbers are drawn for. Every purpose has a stream of its own, so that leaving out a
/// task does not change the others' draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The order of documents.
    Order = 1,
    /// Ranker instances.
    Rank = 2,
    /// The two documents of a pre-training item.
    Documents = 3,
    /// Entity blanking.
    Blanking = 4,
    /// Mention-entity matching inside a document, with the choice of masked mentions.
    MentionMatching = 5,
    /// Mention-entity matching between documents.
    CrossMentionMatching = 6,
    /// Relation detection inside a document.
    Detection = 7,
    /// Relation detection between documents.
    CrossDetection = 8,
    /// Relational fact alignment.
    Alignment = 9,
    /// Alignment of two facts inside a document.
    IntraAlignment = 10,
    /// Negative pairs of fine-tuning without a ranker.
    Finetune = 11,
    /// Noise of DocRE-II's second stage.
    Noise = 12,
    /// Entity blanking in ranker training.
    RankBlanking = 13,
    /// The order of blocks of documents.
    Blocks = 14,
    /// The order of documents in a window of blocks.
    Window = 15,
}

/// The generator for one purpose of one item of one step. Its 256-bit key is the four numbers
/// themselves, so no two streams share a key.
pub fn rng(seed: u64, purpose: Purpose, step: u64, item: u64) -> Stream {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, purpose as u64, step, item]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    Stream::from_seed(key)
}

/// Rounds of the Feistel network; many, because the halves of a small domain have only a bit or
/// two.
const ROUNDS: usize = 12;

/// A permutation of 0..n that is computed, not stored: a Feistel network keyed by (seed, epoch)
/// with cycle walking.
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `len` positions in an epoch.
    pub fn new(len: u64, seed: u64, epoch: u64) -> Self {
        Self::keyed(len, seed, Purpose::Order, epoch, len)
    }

    /// The permutation of `len` positions for a purpose, with two numbers that tell it from others.
    pub fn keyed(len: u64, seed: u64, purpose: Purpose, first: u64, second: u64) -> Self {
        use rand::Rng;
        let mut stream = rng(seed, purpose, first, second);
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|_| stream.next_u64()),
        }
    }

    /// The index at a position below the length; every index has exactly one position. The domain
    /// is at most four times too large, so this takes four walks on average at worst.
    pub fn at(&self, position: u64) -> u64 {
        debug_assert!(position < self.len);
        let mut value = self.encrypt(position);
        while value >= self.len {
            value = self.encrypt(value);
        }
        value
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// The finaliser of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;

    use super::*;
    use crate::sampling::testing::assert_uniform;

    #[test]
    fn a_stream_depends_on_every_part_of_its_key() {
        let first = |seed, purpose, step, item| rng(seed, purpose, step, item).next_u64();
        let base = first(1, Purpose::Rank, 2, 3);
        assert_eq!(base, first(1, Purpose::Rank, 2, 3));
        let others = [
            first(2, Purpose::Rank, 2, 3),
            first(1, Purpose::Order, 2, 3),
            first(1, Purpose::Rank, 3, 3),
            first(1, Purpose::Rank, 2, 4),
        ];
        assert!(others.iter().all(|&other| other != base));
        assert_ne!(first(1, Purpose::Rank, 2, 3), first(1, Purpose::Rank, 3, 2));
    }

    proptest! {
        #[test]
        fn a_permutation_is_a_bijection(len in 1_u64..3000, seed: u64, epoch in 0_u64..1000) {
            let permutation = Permutation::new(len, seed, epoch);
            let mut seen: Vec<_> = (0..len).map(|position| permutation.at(position)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn a_permutation_of_a_huge_range_stays_in_range(
            len in (1_u64 << 40)..u64::MAX,
            position: u64,
        ) {
            prop_assert!(Permutation::new(len, 1, 1).at(position % len) < len);
        }
    }

    #[test]
    fn every_index_is_equally_likely_at_every_position() {
        for len in [2, 5, 7, 16] {
            let mut counts = vec![0; (len * len) as usize];
            for epoch in 0..8000 {
                let permutation = Permutation::new(len, 11, epoch);
                (0..len).for_each(|position| {
                    counts[(position * len + permutation.at(position)) as usize] += 1;
                });
            }
            counts.chunks(len as usize).for_each(assert_uniform);
        }
    }
}
