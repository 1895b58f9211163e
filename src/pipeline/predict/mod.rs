//! Prediction: the facts of documents by a fine-tuned checkpoint, from files into files, or from a
//! stream of lines into answers.
//!
//! Not for: class logits and the decision rule (`predictor`), or scoring predictions (`evaluate`).

mod doubts;
mod files;
mod finder;
mod form;
mod input;
mod lines;
mod options;
mod outputs;
mod stream;
mod unfinished;

pub use files::predict_files;
pub use finder::ranker_of;
pub use options::{PredictFiles, PredictOptions};
pub use stream::answer_lines;
