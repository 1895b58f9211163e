//! What a family of encoders says about itself.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::dimensions::Dimensions;
use super::network::EncoderNetwork;
use crate::Result;
use crate::torch::{Parameters, Slot};

/// The key of the number of rows of the word-piece table, in all families.
pub(super) const PIECES: &str = "vocab_size";
/// BERT's counts, which must be at least 1 in every family that has the key.
pub(super) const COUNTS: [&str; 6] = [
    PIECES,
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
];
/// BERT's dropout rates.
pub(super) const RATES: [&str; 2] = ["hidden_dropout_prob", "attention_probs_dropout_prob"];

/// A family of Transformers, by its `model_type`.
pub(in crate::encoders) trait Family: Sized + 'static {
    /// The keys of its `config.json` that decide about numbers.
    type Keys: Clone + Debug + PartialEq + Serialize + DeserializeOwned;

    /// The value of `model_type`.
    const MODEL_TYPE: &'static str;
    /// The class that opens an exported checkpoint in transformers.
    const ARCHITECTURE: &'static str;
    /// Keys that are not written where they are not set.
    const OPTIONAL: &'static [&'static str] = &[];
    /// Keys of its own that must be at least 1 where they are set, beyond [`COUNTS`].
    const COUNTS: &'static [&'static str] = &[];
    /// Keys of its own that are dropout rates, beyond [`RATES`].
    const RATES: &'static [&'static str] = &[];
    /// The piece that transformers counts positions without, whatever padding piece the
    /// configuration names.
    const PADDING: Option<i64> = None;

    /// What transformers assumes for keys that a `config.json` lacks; an object.
    fn assumed() -> Value;

    /// The `config.json` of an encoder with these numbers of layers, width and heads.
    fn preset(size: [i64; 3], pieces: i64) -> Value;

    /// Brings keys that were read to one form, where libraries write them in several.
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] for values that contradict each other.
    fn adapt(_keys: &mut Self::Keys, _other: &mut Map<String, Value>) -> Result<()> {
        Ok(())
    }

    /// Its numbers in general terms.
    fn dimensions(keys: &Self::Keys) -> Dimensions;

    /// Refuses values that cannot be built, beyond those of [`Self::COUNTS`] and [`Self::RATES`].
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] naming the key.
    fn check(_keys: &Self::Keys) -> Result<()> {
        Ok(())
    }

    /// Sets the number of rows of the position table, for families that have one.
    fn set_positions(_keys: &mut Self::Keys, _rows: i64) {}

    /// All parameters, under the names of Hugging Face without a prefix.
    ///
    /// # Errors
    /// As [`Self::check`].
    fn slots(keys: &Self::Keys) -> Result<Vec<Slot>>;

    /// The network over parameters that were declared.
    ///
    /// # Errors
    /// If one was not.
    fn network(keys: &Self::Keys, params: &Parameters) -> Result<EncoderNetwork>;

    /// Makes the attention of new weights look nearby; whether the family knows how.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn start_local(_keys: &Self::Keys, _params: &Parameters) -> Result<bool> {
        Ok(false)
    }

    /// Forward FLOPs for a document of so many pieces.
    fn flops(keys: &Self::Keys, length: f64) -> f64 {
        Self::dimensions(keys).flops(length, 2.0, length)
    }
}
