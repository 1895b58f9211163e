//! What is drawn when: fact instances, candidates, batch order. Pure functions of (seed, step,
//! item).
//!
//! Nothing here has a state to save and nothing knows tensors or ranks; the same arguments give the
//! same item anywhere. Not for: laying out pieces (`text::view`), scoring (`systems`),
//! communication (`ranks`).

mod alignment;
mod detection;
mod draw;
mod finetune;
mod mentions;
mod order;
mod pairs;
mod pretrain;
mod rank;
mod rng;
#[cfg(test)]
mod testing;

pub use alignment::AlignmentInstance;
pub use detection::{CrossPairInstance, PairInstance};
pub use finetune::{BaselineSettings, KeepRule, baseline_pairs, kept_pairs, marker_order};
pub use mentions::{EntityInstance, MentionInstance};
pub use order::{BatchItem, BatchOrder, OrderHash};
pub use pairs::{
    Label, Pair, UnlabelledPairs, asked_pairs, good_labels, ordered_pairs, top_asked_pairs,
    top_pairs,
};
pub use pretrain::{
    NegativePool, PretrainItem, PretrainSampler, PretrainSettings, PretrainSummary, Task,
};
pub use rank::{RankItem, RankSettings, rank_item};
pub use rng::{Permutation, Purpose, Stream, rng};

use std::sync::Arc;

pub use crate::shards::FactInstance;
use crate::shards::{DocumentStore, FactIndex};
use crate::text::TokenizedDocument;

/// Random access to the documents of a corpus.
pub trait Corpus: Sync {
    /// Number of documents.
    fn len(&self) -> usize;
    /// The document of a row below [`Self::len`].
    fn document(&self, row: usize) -> Arc<TokenizedDocument>;
    /// Whether there is no document at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Corpus for [TokenizedDocument] {
    fn len(&self) -> usize {
        self.len()
    }
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        Arc::new(self[row].clone())
    }
}

impl Corpus for Vec<TokenizedDocument> {
    fn len(&self) -> usize {
        self.len()
    }
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        Arc::new(self[row].clone())
    }
}

impl Corpus for DocumentStore {
    fn len(&self) -> usize {
        self.len()
    }
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        self.get(row)
    }
}

/// Facts by key: (canonical head name, canonical tail name, relation), numbered from 0
/// (docs/systems.md, D.10).
pub trait FactKeys {
    /// Number of keys.
    fn num_keys(&self) -> usize;
    /// Where the fact of a key below [`Self::num_keys`] was found.
    fn instances(&self, key: usize) -> &[FactInstance];
}

impl FactKeys for Vec<Vec<FactInstance>> {
    fn num_keys(&self) -> usize {
        self.len()
    }
    fn instances(&self, key: usize) -> &[FactInstance] {
        &self[key]
    }
}

impl FactKeys for FactIndex {
    fn num_keys(&self) -> usize {
        self.num_keys()
    }
    fn instances(&self, key: usize) -> &[FactInstance] {
        self.instances(key)
    }
}
