//! Axial attention over matrices of entity pairs (docs/systems.md, K.3 and K.4): a pair attends to
//! those with its tail and to those with its head.

use tch::{Device, Tensor};

use super::grid::PairGrids;
use crate::Result;
use crate::systems::on;
use crate::torch::kernels::Segments;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::products::linear;
use crate::torch::kernels::scores::ScoreTerms;
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Parameters, Precision};

/// ε of the layer norms of the release.
const NORM_EPS: f64 = 1e-5;

/// The grids of a batch on a device.
pub(super) struct AxialCells {
    segments: Segments,
    turned: Tensor,
}

impl AxialCells {
    pub(super) fn new(grids: &PairGrids, device: Device) -> Result<Self> {
        let segments = Segments::new(&grids.offsets, device)?;
        Ok(Self { segments, turned: on(&grids.turned, device)? })
    }
}

/// Attention along one axis.
struct AxisAttention {
    /// [d, d]
    query: Tensor,
    /// Keys, then values; [2d, d].
    key_value: Tensor,
    output: Linear,
    heads: i64,
}

impl AxisAttention {
    fn declare(parameters: &mut Parameters, name: &str, width: i64, heads: i64) -> Result<Self> {
        let mut plain = |part: &str, outputs: i64| {
            Linear::without_bias(parameters, &format!("{name}.{part}.weight"), width, outputs)
        };
        let (query, key_value) = (plain("to_q", width)?.weight, plain("to_kv", 2 * width)?.weight);
        let output = Linear::declare(parameters, &format!("{name}.to_out"), width, width)?;
        Ok(Self { query, key_value, output, heads })
    }

    /// Cells of segments [G, d] → [G, d].
    fn forward(&self, x: &Tensor, segments: &Segments, precision: Precision) -> Result<Tensor> {
        let head_width = self.query.size()[0] / self.heads;
        let weight = Tensor::f_cat(&[&self.query, &self.key_value], 0)?;
        let qkv = linear(&x.f_to_kind(precision.kind())?, &weight, None)?
            .f_view([-1, 3, self.heads, head_width])?;
        let terms = ScoreTerms::plain(head_width);
        let mixed = varlen_attention(&qkv, segments, &terms, None, 0)?;
        Ok(self.output.forward_in(&mixed, precision)?.f_to_kind(tch::Kind::Float)?)
    }
}

/// One axial layer.
pub(super) struct AxialLayer {
    columns: AxisAttention,
    rows: AxisAttention,
    linear: Linear,
    norm: LayerNorm,
}

impl AxialLayer {
    /// Declares layer `index` of the transformer called `name`.
    pub(super) fn declare(
        parameters: &mut Parameters,
        name: &str,
        index: usize,
        [width, heads]: [i64; 2],
    ) -> Result<Self> {
        let mut axis = |number: usize| {
            let own = format!("{name}.axial_attns.{index}.axial_attentions.{number}.fn");
            AxisAttention::declare(parameters, &own, width, heads)
        };
        let (columns, rows) = (axis(0)?, axis(1)?);
        let linear = Linear::declare(parameters, &format!("{name}.ffns.{index}"), width, width)?;
        let norm = LayerNorm::declare(parameters, &format!("{name}.lns.{index}"), width, NORM_EPS)?;
        Ok(Self { columns, rows, linear, norm })
    }

    /// Attention along both axes, added up; [G, d] → [G, d].
    pub(super) fn attention(
        &self,
        x: &Tensor,
        grids: &AxialCells,
        precision: Precision,
    ) -> Result<Tensor> {
        let turned = x.f_index_select(0, &grids.turned)?;
        let columns = self.columns.forward(&turned, &grids.segments, precision)?;
        let rows = self.rows.forward(x, &grids.segments, precision)?;
        Ok(columns.f_index_select(0, &grids.turned)?.f_add(&rows)?)
    }

    /// [G, d] → [G, d]
    pub(super) fn forward(
        &self,
        x: &Tensor,
        grids: &AxialCells,
        precision: Precision,
    ) -> Result<Tensor> {
        let attended = x.f_add(&self.attention(x, grids, precision)?)?;
        self.norm.forward(&self.linear.forward_in(&attended, precision)?)
    }
}
