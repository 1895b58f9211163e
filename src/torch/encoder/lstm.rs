//! LSTMs over packed documents: documents are sorted by length and advanced together, so no padding is computed.
//!
//! Initial states are learned, as in the DocRED baselines (Yao et al. 2019). Always in 32 bits: the recurrence adds up rounding errors.

use tch::{Device, Tensor};

use super::layers::handle;
use super::load::{self, Slot};
use super::{Dropout, Segments};
use crate::Result;
use crate::torch::dropout::dropout;
use crate::torch::{Init, Parameters};

/// The order in which the tokens of a stream are taken: step by step, longest document first.
#[derive(Debug)]
pub struct Packing {
    /// Rows of the stream in packed order; `[T]`.
    order: Tensor,
    /// Rows of the packed data in stream order; `[T]`.
    back: Tensor,
    /// Documents that are still running at each step; `[longest]`, on the CPU.
    batch_sizes: Tensor,
    /// Row of the first token of each token's document; `[T]`.
    first_tokens: Tensor,
    /// Documents with at least one token.
    documents: i64,
}

impl Packing {
    /// The packing of a stream's documents, for tensors on `device`.
    ///
    /// # Errors
    /// If libtorch cannot copy the tables to the device.
    pub fn new(segments: &Segments, device: Device) -> Result<Self> {
        let mut spans: Vec<(i64, i64)> = segments.offsets().windows(2).map(|span| (span[0], span[1] - span[0])).collect();
        let first_tokens: Vec<i64> = spans.iter().flat_map(|&(start, length)| (0..length).map(move |_| start)).collect();
        spans.retain(|&(_, length)| length > 0);
        spans.sort_by_key(|&(_, length)| std::cmp::Reverse(length));
        let (order, batch_sizes) = interleave(&spans);
        let mut back = vec![0; order.len()];
        for (packed, &row) in (0..).zip(&order) {
            back[row as usize] = packed;
        }
        let place = |rows: &[i64]| Tensor::f_from_slice(rows)?.f_to_device(device);
        Ok(Self {
            order: place(&order)?,
            back: place(&back)?,
            batch_sizes: Tensor::f_from_slice(&batch_sizes)?,
            first_tokens: place(&first_tokens)?,
            documents: spans.len() as i64,
        })
    }

    /// Locked dropout (Gal and Ghahramani 2016): all tokens of a document share the mask of its first token.
    ///
    /// # Errors
    /// If libtorch refuses the keys.
    pub fn lock(&self, dropout: &Dropout) -> Result<Dropout> {
        Dropout::new(dropout.p(), dropout.token_keys().f_index_select(0, &self.first_tokens)?)
    }
}

/// Rows step by step over `spans` (start, length), sorted by falling length, and the number of rows of each step.
fn interleave(spans: &[(i64, i64)]) -> (Vec<i64>, Vec<i64>) {
    let (mut order, mut batch_sizes) = (Vec::new(), Vec::new());
    for step in 0..spans.first().map_or(0, |&(_, longest)| longest) {
        let running = spans.partition_point(|&(_, length)| length > step);
        order.extend(spans[..running].iter().map(|&(start, _)| start + step));
        batch_sizes.push(running as i64);
    }
    (order, batch_sizes)
}

/// A stack of LSTM layers, one or two directions each.
#[derive(Debug)]
pub struct PackedLstm {
    layers: Vec<LstmLayer>,
    directions: i64,
    hidden: i64,
}

/// The sizes of a [`PackedLstm`].
#[derive(Clone, Copy, Debug)]
pub struct LstmShape {
    /// Width of the input.
    pub input: i64,
    /// Width of a state, per direction.
    pub hidden: i64,
    /// Number of layers.
    pub layers: i64,
    /// Whether each layer also runs backwards.
    pub bidirectional: bool,
}

#[derive(Debug)]
struct LstmLayer {
    /// For each direction: input weights `[4H, in]`, recurrent weights `[4H, H]` and two biases `[4H]`; gates i, f, g, o.
    weights: Vec<Tensor>,
    /// Learned initial state; [directions, 1, H].
    init_hidden: Tensor,
    /// Learned initial cell; [directions, 1, H].
    init_cell: Tensor,
}

impl LstmShape {
    fn directions(self) -> i64 {
        if self.bidirectional { 2 } else { 1 }
    }

    /// Names as in the DocRED baselines: `PREFIX.rnns.0.weight_ih_l0`, `PREFIX.init_hidden.0`, …
    pub(super) fn slots(self, prefix: &str) -> Vec<Slot> {
        (0..self.layers).flat_map(|layer| self.layer_slots(prefix, layer)).collect()
    }

    fn layer_slots(self, prefix: &str, layer: i64) -> Vec<Slot> {
        let (gates, bound) = (4 * self.hidden, Init::Uniform { bound: 1.0 / (self.hidden as f64).sqrt() });
        let input = if layer == 0 { self.input } else { self.directions() * self.hidden };
        let mut slots = Vec::new();
        for suffix in &["", "_reverse"][..self.directions() as usize] {
            let shapes = [
                ("weight_ih", vec![gates, input]),
                ("weight_hh", vec![gates, self.hidden]),
                ("bias_ih", vec![gates]),
                ("bias_hh", vec![gates]),
            ];
            slots.extend(shapes.map(|(part, shape)| Slot::new(format!("{prefix}.rnns.{layer}.{part}_l0{suffix}"), &shape, bound)));
        }
        for state in ["init_hidden", "init_c"] {
            slots.push(Slot::new(format!("{prefix}.{state}.{layer}"), &[self.directions(), 1, self.hidden], Init::Zeros));
        }
        slots
    }
}

impl PackedLstm {
    /// Declares the parameters with PyTorch's initial values, U(±1/√H), and zero initial states.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn declare(prefix: &str, shape: LstmShape, params: &mut Parameters) -> Result<Self> {
        load::declare(shape.slots(prefix), params)?;
        Self::get(prefix, shape, params)
    }

    /// The stack whose parameters were declared before.
    pub(super) fn get(prefix: &str, shape: LstmShape, params: &Parameters) -> Result<Self> {
        let layers = (0..shape.layers).map(|layer| LstmLayer::get(prefix, shape, layer, params)).collect::<Result<_>>()?;
        Ok(Self { layers, directions: shape.directions(), hidden: shape.hidden })
    }

    /// [T, input] → [T, directions · H], both in stream order. `locked` masks the input of every layer, with salts from `salt` on.
    ///
    /// # Errors
    /// If libtorch refuses the shapes.
    pub fn forward(&self, x: &Tensor, packing: &Packing, locked: Option<&Dropout>, salt: u64, train: bool) -> Result<Tensor> {
        let mut states = x.shallow_clone();
        if packing.documents == 0 {
            return Ok(states.f_new_zeros([0, self.directions * self.hidden], (states.kind(), states.device()))?);
        }
        for (salt, layer) in (salt..).zip(&self.layers) {
            let input = dropout(&states, locked, salt)?;
            states = layer.forward(&input, packing, self.directions, train)?;
        }
        Ok(states)
    }
}

impl LstmLayer {
    fn get(prefix: &str, shape: LstmShape, layer: i64, params: &Parameters) -> Result<Self> {
        let mut tensors = shape.layer_slots(prefix, layer).iter().map(|slot| handle(params, &slot.name)).collect::<Result<Vec<_>>>()?;
        let init_cell = handle(params, &format!("{prefix}.init_c.{layer}"))?;
        let init_hidden = handle(params, &format!("{prefix}.init_hidden.{layer}"))?;
        tensors.truncate(tensors.len() - 2);
        Ok(Self { weights: tensors, init_hidden, init_cell })
    }

    fn forward(&self, x: &Tensor, packing: &Packing, directions: i64, train: bool) -> Result<Tensor> {
        let start = |state: &Tensor| state.f_expand([directions, packing.documents, -1], false)?.f_contiguous();
        let states = [start(&self.init_hidden)?, start(&self.init_cell)?];
        let packed = x.f_index_select(0, &packing.order)?;
        let weights: Vec<&Tensor> = self.weights.iter().collect();
        let (output, ..) =
            Tensor::f_lstm_data(&packed, &packing.batch_sizes, &states.each_ref()[..], &weights, true, 1, 0.0, train, directions == 2)?;
        Ok(output.f_index_select(0, &packing.back)?)
    }
}
