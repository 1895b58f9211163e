//! GLRE, the global-to-local network (Wang et al. 2020; docs/systems.md, "G. GLRE").
//!
//! `settings` the settings; `layout` the tables of a batch; `graph` the graph of a document and the
//! network over it (G.3–G.7); `local` the attention over mentions (G.8, G.9); `model` the whole.
//! Not for: words, their features, and the attention among pairs (G.12), which the baselines share
//! (`words`).

mod graph;
mod layout;
mod local;
mod model;
mod parity;
mod settings;
mod system;
#[cfg(test)]
mod tests;

pub use graph::RELATIONS;
pub use layout::GlreTables;
pub use model::{Glre, GlreStates};
pub use settings::{
    ContextMatrix, ContextPairs, GlreCorpus, GlreSettings, Query, RgcnNorm, SentenceMean,
};
pub use system::GLRE;
