//! What a family of encoders says about itself.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::dimensions::Dimensions;
use super::network::EncoderNetwork;
use crate::Result;
use crate::torch::{Parameters, Slot};

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

    /// The keys that must be at least 1.
    fn counts(keys: &Self::Keys) -> Vec<(&'static str, i64)>;

    /// The keys that are dropout rates.
    fn rates(keys: &Self::Keys) -> Vec<(&'static str, f64)>;

    /// Refuses values that cannot be built, beyond those of [`Self::counts`] and [`Self::rates`].
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] naming the key.
    fn check(_keys: &Self::Keys) -> Result<()> {
        Ok(())
    }

    /// Sets the number of rows of the word-piece table.
    fn set_pieces(keys: &mut Self::Keys, pieces: i64);

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
