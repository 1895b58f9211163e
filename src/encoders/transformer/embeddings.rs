//! From pieces to the input of the first layer.

use tch::{Kind, Tensor};

use crate::Result;
use crate::encoders::{Pass, TokenStream};
use crate::torch::dropout::dropout;
use crate::torch::nn::{LayerNorm, Linear, lookup};
use crate::torch::{Init, Parameters, Slot};

/// A table with a row for each position of a document.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) struct PositionTable {
    /// Its name.
    pub name: &'static str,
    /// Number of rows.
    pub rows: i64,
    /// The piece that positions are counted without: all pieces of that number take the row of the
    /// same number, and a document's other pieces the rows behind it. `None` for a family whose
    /// positions count every piece, from row 0.
    pub padding: Option<i64>,
}

/// A linear map from the width of the tables to that of the states.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) struct Projection {
    /// Its name.
    pub name: &'static str,
    /// Width of a state.
    pub outputs: i64,
    /// Whether it has a bias.
    pub biased: bool,
    /// Whether it stands before norm and dropout, or behind them.
    pub before_norm: bool,
}

/// The parts of an embedding and their names.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoders) struct EmbeddingPlan {
    /// Name of the table of pieces.
    pub words: &'static str,
    /// Rows of that table.
    pub pieces: i64,
    /// Width of all tables.
    pub width: i64,
    /// The table of positions.
    pub positions: Option<PositionTable>,
    /// Name and rows of the table of token types. Row 0 is added everywhere.
    pub token_types: Option<(&'static str, i64)>,
    /// Name of the layer norm, and whether it has a bias.
    pub norm: Option<(&'static str, bool)>,
    /// Its ε.
    pub eps: f64,
    /// A linear map to the width of the states.
    pub projection: Option<Projection>,
    /// Standard deviation of initial weights.
    pub std: f64,
}

impl EmbeddingPlan {
    /// All parameters.
    pub fn slots(&self) -> Vec<Slot> {
        let normal = Init::Normal { std: self.std };
        let table = |name: &str, rows: i64| Slot::new(name, &[rows, self.width], normal);
        let mut slots = vec![table(self.words, self.pieces)];
        slots.extend(self.positions.map(|positions| table(positions.name, positions.rows)));
        slots.extend(self.token_types.map(|(name, rows)| table(name, rows)));
        if let Some((name, biased)) = self.norm {
            let projected = self.projection.filter(|map| map.before_norm);
            let width = projected.map_or(self.width, |map| map.outputs);
            slots.extend(LayerNorm::slots(name, width).into_iter().take(1 + usize::from(biased)));
        }
        if let Some(Projection { name, outputs, biased, .. }) = self.projection {
            let all = Linear::slots(name, self.width, outputs, [normal, Init::Zeros]);
            slots.extend(all.into_iter().take(1 + usize::from(biased)));
        }
        slots
    }

    /// The embedding over parameters that were declared.
    ///
    /// # Errors
    /// If one was not.
    pub fn get(&self, params: &Parameters) -> Result<Embeddings> {
        let positions = self.positions.map(|PositionTable { name, padding, .. }| {
            params.handle(name).map(|rows| Positions { name, rows, padding })
        });
        Ok(Embeddings {
            words: params.handle(self.words)?,
            positions: positions.transpose()?,
            token_types: self.token_types.map(|(name, _)| params.handle(name)).transpose()?,
            norm: self
                .norm
                .map(|(name, bias)| LayerNorm::maybe_biased(params, name, self.eps, bias))
                .transpose()?,
            projection: self
                .projection
                .map(|map| Linear::maybe_biased(params, map.name, map.biased))
                .transpose()?,
            projects_first: self.projection.is_some_and(|map| map.before_norm),
        })
    }
}

/// The embedding of an encoder.
#[derive(Debug)]
pub(in crate::encoders) struct Embeddings {
    /// The table of pieces.
    pub words: Tensor,
    /// The table of positions.
    pub positions: Option<Positions>,
    token_types: Option<Tensor>,
    norm: Option<LayerNorm>,
    projection: Option<Linear>,
    projects_first: bool,
}

/// A table of positions.
#[derive(Debug)]
pub(in crate::encoders) struct Positions {
    /// Its name.
    pub name: &'static str,
    /// The table.
    pub rows: Tensor,
    /// As in [`PositionTable`].
    pub padding: Option<i64>,
}

impl Positions {
    /// The row of each piece; `[T]`. transformers counts the same way in
    /// `create_position_ids_from_input_ids`.
    fn of(&self, stream: &TokenStream) -> Result<Tensor> {
        let (ids, positions) = (&stream.ids, &stream.positions);
        let Some(padding) = self.padding else { return Ok(positions.shallow_clone()) };
        let is_padding = ids.f_eq(padding)?.f_to_kind(Kind::Int64)?;
        // Padding pieces up to each piece: of the stream, then of its document.
        let seen = is_padding.f_cumsum(0, Kind::Int64)?;
        let first = Tensor::f_arange(ids.size()[0], (Kind::Int64, ids.device()))?;
        let first = first.f_sub(positions)?;
        let before = seen.f_sub(&is_padding)?.f_index_select(0, &first)?;
        let counted = positions.f_add_scalar(1)?.f_sub(&seen.f_sub(&before)?)?;
        Ok(counted.f_mul(&is_padding.f_eq(0)?)?.f_add_scalar(padding)?)
    }
}

impl Embeddings {
    /// [T, d]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn forward(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor> {
        let mut sum = lookup(&self.words, &stream.ids)?;
        if let Some(positions) = &self.positions {
            sum = sum.f_add(&lookup(&positions.rows, &positions.of(stream)?)?)?;
        }
        if let Some(types) = &self.token_types {
            sum = sum.f_add(&types.f_select(0, 0)?)?;
        }
        let projected = |x: Tensor, now: bool| match &self.projection {
            Some(map) if now => Ok(map.forward_in(&x, pass.precision)?.f_to_kind(Kind::Float)?),
            _ => Ok(x),
        };
        sum = projected(sum, self.projects_first)?;
        if let Some(norm) = &self.norm {
            sum = norm.forward(&sum)?;
        }
        projected(dropout(&sum, pass.hidden_dropout.as_ref(), 0)?, !self.projects_first)
    }
}
