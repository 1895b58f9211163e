//! GLRE, the global-to-local network (Wang et al. 2020; SPEC §5).
//!
//! `settings` the settings; `layout` the tables of a batch; `graph` the graph of a document and the network over it (step 5); `local` the
//! attention over mentions (step 6); `context` the attention among pairs (step 8); `model` the whole. Not for: words and their features,
//! which the baselines share (`words`).

mod context;
mod graph;
mod layout;
mod local;
mod model;
mod settings;
#[cfg(test)]
mod tests;

pub use graph::{DocumentNodes, Graph, RELATIONS};
pub use layout::{GlreLayout, GlreTables};
pub use local::LocalEntries;
pub use model::{Glre, GlreStates};
pub use settings::{ContextMatrix, ContextPairs, Corpus, GlreSettings, Query, RgcnNorm, SentenceMean};
