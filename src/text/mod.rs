//! From words to word pieces to views: tokenisers, tokenised documents, markers, blanking, masked
//! mentions, packing.
//!
//! A [`TokenizedDocument`] is what a shard stores: word pieces once, without markers. A *view* is
//! one visit of the model to a document: the same pieces with markers, blanked entities and masked
//! mentions, a pure function of (document, seed, step). Not for: tensors (`torch`), files on disk
//! (`shards`).

mod pack;
#[cfg(test)]
pub(crate) mod testing;
mod tokenize;
mod tokenized;
mod tokenizer;
pub(crate) mod view;
mod windows;

pub use pack::{PackedViews, pack, split_by_tokens};
pub use tokenize::tokenize;
pub use tokenized::{
    ScoredPair, TaughtPair, TaughtRelation, TokenizedCandidate, TokenizedDocument, TokenizedEntity,
    TokenizedFact, TokenizedMention,
};
pub use tokenizer::{SpecialPieces, Tokenizer};
pub use view::{Markers, View, ViewChoices, ViewOptions, view};
pub use windows::{PackedWindows, Window, WindowRule};
