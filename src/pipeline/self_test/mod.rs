//! The self-test of an export: a few documents with what the model made of them when it was
//! exported, so that anybody can see whether it still does so after a move, an upload or on another
//! machine (docs/formats.md, "The self-test").
//!
//! What depends on a choice, such as the pairs that a ranker keeps, is computed from the recorded
//! numbers: a rounding error cannot turn into another choice, and a changed rule shows at once. Not
//! for: how good a model is (`evaluate`).

mod answer;
mod check;
mod documents;
mod subject;
mod verdict;

pub use answer::SelfTest;
pub use check::check_model;
pub use documents::TestDocuments;
pub use subject::Subject;
pub use verdict::CheckReport;
