//! The floor of all systems that see a document as words: which state stands for a word, what is
//! known of each word, which words make an entity, how far apart the entities of a pair are
//! (docs/systems.md, C.6–C.8; used by the baselines, HIN and GLRE).
//!
//! [`WordTables`] is the host half: documents of a batch as flat tables, words after words, nothing
//! padded. The tensor half are a few operations on them: word states, feature rows, averages over
//! mentions, distance rows, attention among pairs. Not for: networks over the words.

mod attention;
mod distance;
mod entities;
mod features;
mod layout;
mod padded;
mod reading;
mod tensors;

#[cfg(test)]
pub(crate) mod tests;

pub use attention::PairAttention;
pub use distance::{DISTANCE_ROWS, DistanceTable, FirstMention, NO_DISTANCE};
pub use entities::MentionWeights;
pub use features::{FeatureOrder, WordFeatures};
pub use layout::{WordOptions, WordTables};
pub use padded::{padded_rows, padded_table};
pub use reading::Reading;
pub use tensors::Rows;
