//! Extended cross attention (docs/systems.md, I.9 and I.10; Zhang et al. 2022, eq. 5–7): a pair (s,
//! o) attends to the pairs that share an entity with it, a head for each of four sets.
//!
//! Head 1: row s, (s, x); head 2: column o, (x, o); head 3: column s, (x, s); head 4: row o, (o,
//! x). The pair itself is a key of its own, once: in the first two heads, in whose sets it lies, or
//! in all four. On a grid of N × N pairs all four are products of
//! [N, w] with [w, N], one for each row or column: O(N³ w) time and O(N³) scores a document, where
//! gathered keys would take O(N³ w) memory.

use tch::{Device, Kind, Tensor};

use super::grid::{Grid, Grids};
use super::settings::{DocreIiSettings, Reasoning};
use crate::Result;
use crate::systems::on;
use crate::torch::dropout::dropout;
use crate::torch::kernels::products::{batched, batched_turned};
use crate::torch::nn::Linear;
use crate::torch::{Dropout, Parameters};

const HEADS: i64 = 4;
/// Heads whose rows are columns of the queries' grid, and of the keys' grid.
const QUERY_COLUMNS: [bool; 4] = [false, true, false, true];
const KEY_COLUMNS: [bool; 4] = [false, true, true, false];
/// Heads in whose set the pair itself would occur again.
const HOLDS_ITSELF: [bool; 4] = [true, true, false, false];
const MASKED: f64 = -1e30;

/// One unit of attention.
pub(super) struct Eca {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    self_key_everywhere: bool,
    self_key_bias: f64,
    reasoning: Reasoning,
}

/// Dropout of one pass over the inference module.
pub(super) struct PairDropout {
    /// Of pairs' vectors.
    pub pairs: Dropout,
    /// Keys of pairs under each head, [4, P]; and the rate.
    pub heads: (Tensor, f64),
}

/// The grids of a batch on a device.
pub(super) struct DeviceGrids<'a> {
    grids: &'a Grids,
    places: Tensor,
    cells: Vec<Tensor>,
    pairs: i64,
}

impl<'a> DeviceGrids<'a> {
    pub(super) fn new(grids: &'a Grids, device: Device) -> Result<Self> {
        let cells =
            grids.grids.iter().map(|grid| on(&grid.cells, device)).collect::<Result<_>>()?;
        Ok(Self {
            grids,
            places: on(&grids.places, device)?,
            cells,
            pairs: grids.places.len() as i64,
        })
    }

    /// Each grid with its cells as rows of a table of pairs (the last row: no pair).
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Grid, &Tensor)> {
        self.grids.grids.iter().zip(&self.cells)
    }

    /// Whether a cell holds a pair; [G, N, N].
    pub(super) fn valid(&self, grid: &Grid, cells: &Tensor) -> Result<Tensor> {
        let (count, side) = (grid.documents as i64, grid.side as i64);
        Ok(cells.f_lt(self.pairs as f64)?.f_view([count, side, side])?)
    }

    /// Rows of pairs [P, ..] with one of zeros at the end.
    pub(super) fn closed(rows: &Tensor) -> Result<Tensor> {
        let mut shape = rows.size();
        shape[0] = 1;
        Ok(Tensor::f_cat(&[rows, &rows.f_new_zeros(shape, (rows.kind(), rows.device()))?], 0)?)
    }
}

impl Eca {
    /// Declares `NAME.{query,key,value,mid_output.0}`.
    pub(super) fn declare(
        parameters: &mut Parameters,
        name: &str,
        [input, width]: [i64; 2],
        settings: &DocreIiSettings,
    ) -> Result<Self> {
        let mut layer = |part: &str, input| {
            Linear::declare(parameters, &format!("{name}.{part}"), input, width)
        };
        Ok(Self {
            query: layer("query", width)?,
            key: layer("key", input)?,
            value: layer("value", input)?,
            output: layer("mid_output.0", width)?,
            self_key_everywhere: settings.self_key_everywhere,
            self_key_bias: settings.self_key_bias,
            reasoning: settings.reasoning,
        })
    }

    /// Queries from `x` [P, w], keys and values from `m` [P, w']; [P, w]. Masks are drawn with
    /// `salt` and the number after it.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        m: &Tensor,
        grids: &DeviceGrids,
        drop: Option<&PairDropout>,
        salt: u64,
    ) -> Result<Tensor> {
        if x.size()[0] == 0 {
            return self.output.forward(&self.query.forward(x)?);
        }
        let closed = |layer: &Linear, x: &Tensor| DeviceGrids::closed(&layer.forward(x)?);
        let rows = [closed(&self.query, x)?, closed(&self.key, m)?, closed(&self.value, m)?];
        let mut parts = Vec::new();
        for (grid, cells) in grids.iter() {
            let valid = grids.valid(grid, cells)?;
            let part = match self.reasoning {
                Reasoning::Eca => self.crossed(&rows, cells, &valid, drop, salt)?,
                Reasoning::Full => full(&rows, cells, &valid)?,
            };
            parts.push(part);
        }
        let merged =
            self.output.forward(&Tensor::f_cat(&parts, 0)?.f_index_select(0, &grids.places)?)?;
        dropout(&merged, drop.map(|drop| &drop.pairs), salt + 1)
    }

    /// The four heads over grids of one size; [G·N·N, w].
    fn crossed(
        &self,
        rows: &[Tensor; 3],
        cells: &Tensor,
        valid: &Tensor,
        drop: Option<&PairDropout>,
        salt: u64,
    ) -> Result<Tensor> {
        let (count, side, _) = valid.size3()?;
        let width = rows[0].size()[1] / HEADS;
        let heads = |rows: &Tensor| -> Result<Tensor> {
            let grid = rows.f_index_select(0, cells)?.f_view([count, side, side, HEADS, width])?;
            Ok(grid.f_permute([3, 0, 1, 2, 4])?)
        };
        let flat = |x: &Tensor| -> Result<Tensor> {
            Ok(x.f_reshape([HEADS * count * side, side, width])?)
        };
        let (query, key, value) = (heads(&rows[0])?, heads(&rows[1])?, heads(&rows[2])?);
        let queries = flat(&turned(&query, QUERY_COLUMNS)?)?;
        let (keys, values) =
            (flat(&turned(&key, KEY_COLUMNS)?)?, flat(&turned(&value, KEY_COLUMNS)?)?);
        let (own_keys, own_values) =
            (flat(&turned(&key, QUERY_COLUMNS)?)?, flat(&turned(&value, QUERY_COLUMNS)?)?);
        let scale = 1.0 / (width as f64).sqrt();
        let crossed = batched_turned(&queries, &keys)?
            .f_mul_scalar(scale)?
            .f_view([HEADS, count, side, side, side])?;
        let own = (queries * own_keys)
            .f_sum_dim_intlist(-1, true, Kind::Float)?
            .f_mul_scalar(scale)?
            .f_add_scalar(self.self_key_bias)?
            .f_view([HEADS, count, side, side, 1])?;
        let hidden = Tensor::f_cat(&[self.own_hidden(&own)?, hidden(valid)?], -1)?;
        let scores = Tensor::f_cat(&[own, crossed], -1)?.f_masked_fill(&hidden, MASKED)?;
        // A pair without keys, as under heads 3 and 4 where all pairs go from one type to another,
        // takes nothing over.
        let shares = scores.f_softmax(-1, Kind::Float)?.f_masked_fill(&hidden, 0.0)?;
        let shares = shares.f_view([HEADS * count * side, side, side + 1])?;
        let shares = dropped(&shares, cells, drop, salt)?;
        let mixed = batched(&shares.f_narrow(2, 1, side)?, &values)?
            .f_add(&shares.f_narrow(2, 0, 1)?.f_mul(&own_values)?)?;
        let back = turned(&mixed.f_view([HEADS, count, side, side, width])?, QUERY_COLUMNS)?;
        Ok(back.f_permute([1, 2, 3, 0, 4])?.f_reshape([count * side * side, HEADS * width])?)
    }

    /// Where the pair itself is no key, beside its scores `own` [4, G, N, N, 1].
    fn own_hidden(&self, own: &Tensor) -> Result<Tensor> {
        let hidden = HOLDS_ITSELF.map(|holds| !holds && !self.self_key_everywhere);
        Ok(on(&hidden, own.device())?.f_view([HEADS, 1, 1, 1, 1])?.f_expand_as(own)?)
    }
}

/// [4, G, N, N, ..] with rows and columns exchanged in the heads that are marked.
fn turned(grid: &Tensor, columns: [bool; 4]) -> Result<Tensor> {
    let head = |(index, turn): (i64, bool)| -> Result<Tensor> {
        let head = grid.f_get(index)?;
        Ok(if turn { head.f_transpose(1, 2)? } else { head })
    };
    Ok(Tensor::f_stack(&(0i64..).zip(columns).map(head).collect::<Result<Vec<_>>>()?, 0)?)
}

/// Keys that are no pair, or the pair itself again; [4, G, N, N, N] as (head, document, row or
/// column, query, key).
fn hidden(valid: &Tensor) -> Result<Tensor> {
    let (count, side, _) = valid.size3()?;
    let itself =
        Tensor::f_eye(side, (Kind::Bool, valid.device()))?.f_unsqueeze(0)?.f_unsqueeze(0)?;
    let head = |(columns, itself_too): (bool, bool)| -> Result<Tensor> {
        let keys = if columns { valid.f_transpose(1, 2)? } else { valid.shallow_clone() };
        let absent =
            keys.f_logical_not()?.f_unsqueeze(2)?.f_expand([count, side, side, side], false)?;
        Ok(if itself_too { absent.f_logical_or(&itself)? } else { absent })
    };
    Ok(Tensor::f_stack(
        &KEY_COLUMNS.into_iter().zip(HOLDS_ITSELF).map(head).collect::<Result<Vec<_>>>()?,
        0,
    )?)
}

/// Dropout of shares [4·G·N, N, 1 + N]: the pair's key under the head chooses the row of the mask,
/// the entity its column.
fn dropped(
    shares: &Tensor,
    cells: &Tensor,
    drop: Option<&PairDropout>,
    salt: u64,
) -> Result<Tensor> {
    let Some(PairDropout { heads: (keys, rate), .. }) = drop else {
        return Ok(shares.shallow_clone());
    };
    let (rows, side, keys_wide) = shares.size3()?;
    let count = rows / (HEADS * side);
    let closed = DeviceGrids::closed(&keys.f_transpose(0, 1)?)?; // [P + 1, 4]
    let grid = closed
        .f_index_select(0, cells)?
        .f_view([count, side, side, HEADS])?
        .f_permute([3, 0, 1, 2])?;
    let keys = turned(&grid, QUERY_COLUMNS)?.f_reshape([-1])?;
    let flat = dropout(
        &shares.f_reshape([rows * side, keys_wide])?,
        Some(&Dropout::new(*rate, keys)?),
        salt,
    )?;
    Ok(flat.f_view([rows, side, keys_wide])?)
}

/// Self-attention of all pairs of a document; [G·N·N, w].
fn full(rows: &[Tensor; 3], cells: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let (count, side, _) = valid.size3()?;
    let (cells_each, width) = (side * side, rows[0].size()[1]);
    let heads = |rows: &Tensor| -> Result<Tensor> {
        Ok(rows
            .f_index_select(0, cells)?
            .f_view([count, cells_each, HEADS, width / HEADS])?
            .f_transpose(1, 2)?)
    };
    let (query, key, value) = (heads(&rows[0])?, heads(&rows[1])?, heads(&rows[2])?);
    let mask = valid.f_view([count, 1, 1, cells_each])?;
    let mixed = Tensor::f_scaled_dot_product_attention(
        &query,
        &key,
        &value,
        Some(&mask),
        0.0,
        false,
        None,
        false,
    )?;
    Ok(mixed.f_transpose(1, 2)?.f_reshape([count * cells_each, width])?)
}
