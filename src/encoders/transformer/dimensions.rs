//! The numbers of a Transformer in general terms, and how long a document may be.

use crate::{Error, Result};

/// The numbers of a Transformer that do not depend on how its family spells them.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) struct Dimensions {
    /// Rows of the word-piece table.
    pub pieces: i64,
    /// Width d of a state.
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Attention heads a layer.
    pub heads: i64,
    /// Width of the feed-forward layer.
    pub inner: i64,
    /// Dropout rates of (hidden states, attention probabilities).
    pub dropout_rates: (f64, f64),
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// The longest document.
    pub limit: Limit,
}

impl Dimensions {
    /// # Errors
    /// [`Error::Recipe`] for sizes that do not fit each other.
    pub fn check(&self) -> Result<()> {
        let Self { width, heads, .. } = self;
        if width % heads != 0 {
            return Err(Error::recipe(format!(
                "the width {width} of the encoder is not a multiple of its {heads} attention heads"
            )));
        }
        match self.limit {
            Limit::Table(rows) if rows < 1 => Err(Error::recipe(
                "`max_position_embeddings` leaves no position after the padding piece",
            )),
            _ => Ok(()),
        }
    }

    /// Forward FLOPs of a document of so many pieces: products with the weights, with `matrices`
    /// matrices in the feed-forward layer, and products of queries and keys and of probabilities
    /// and values, where a query sees `seen` keys.
    pub fn flops(&self, length: f64, matrices: f64, seen: f64) -> f64 {
        let [layers, width, inner] = [self.layers, self.width, self.inner].map(|n| n as f64);
        let weights = 8.0 * width * width + 2.0 * matrices * width * inner;
        layers * length * (weights + 4.0 * seen.min(length) * width)
    }
}

/// How long a document may be, in pieces.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) enum Limit {
    /// There is a row for each position.
    Table(i64),
    /// Longer documents work, but the encoder was trained on documents up to this length: longer
    /// ones are read in windows.
    Trained(i64),
    /// Any length.
    None,
}

impl Limit {
    /// The longest document that is read in one go.
    pub fn tokens(self) -> Option<i64> {
        match self {
            Self::Table(tokens) | Self::Trained(tokens) => Some(tokens),
            Self::None => None,
        }
    }

    /// Refuses a document that is longer than the table of positions.
    pub fn check(self, longest: i64) -> Result<()> {
        let Self::Table(positions) = self else { return Ok(()) };
        if longest <= positions {
            return Ok(());
        }
        Err(Error::recipe(format!(
            "a document of {longest} pieces does not fit the encoder, which has \
            {positions} positions"
        ))
        .with_hint(
            "encode long documents in windows, allow them to be cut, or take an encoder \
                with more positions",
        ))
    }
}
