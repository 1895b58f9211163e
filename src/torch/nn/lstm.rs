//! LSTMs over packed sequences: sequences are sorted by length and advanced together, so no padding
//! is computed.
//!
//! On the CPU a layer is one kernel of the shim: large products for the input projection and for
//! the gradients of the weights, fused gates in between, and a sequence has the same bits alone and
//! in a batch. On CUDA it is libtorch's `lstm_data` (cuDNN), without TF32. Always in 32 bits: the
//! recurrence adds up rounding errors. Not for: dropping out, except on the input of each layer of
//! a stack.

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use crate::Result;
use crate::torch::Dropout;
use crate::torch::dropout::dropout;
use crate::torch::kernels::Segments;
use crate::torch::precision::make_gpu_recurrence_exact;
use crate::torch::shim::tables::LSTM_WEIGHTS;
use crate::torch::shim::{check, docre_lstm};
use crate::torch::{Init, Parameters, SharedRows, Slot, on};

/// The packed form of one stream, for all LSTMs that read it.
#[derive(Debug)]
pub struct Packing {
    /// Cumulative lengths; int64 `[N + 1]` on the host.
    offsets: Tensor,
    /// Row of the first token of each token's sequence; `[T]`, on the CPU.
    first_tokens: Option<Tensor>,
    /// The order of libtorch's packed form, where its LSTM is used.
    pub(super) library: Option<LibraryOrder>,
}

/// The order in which libtorch takes the tokens of a stream: step by step, longest sequence first.
#[derive(Debug)]
pub(super) struct LibraryOrder {
    /// Sequences with at least one token, longest first.
    sequences: Tensor,
    /// Rows of the stream in packed order; `[T]`.
    order: Tensor,
    /// Rows of the packed data in stream order; `[T]`.
    back: Tensor,
    /// Sequences that are still running at each step; `[longest]`, on the CPU.
    batch_sizes: Tensor,
    /// The sequence of each token; `[T]`.
    of_tokens: Tensor,
}

/// The result of an LSTM layer.
#[derive(Debug)]
pub struct LstmStates {
    /// Hidden states of all tokens, in stream order; [T, directions · H].
    pub states: Tensor,
    /// The last hidden state of each sequence in the direction's own order, its initial state where
    /// it has no token; [directions, N, H].
    pub hidden: Tensor,
    /// The last cell state, likewise; [directions, N, H].
    pub cell: Tensor,
}

impl Packing {
    /// The packing of a stream's sequences, for tensors on `device`.
    ///
    /// # Errors
    /// If libtorch cannot copy the tables to the device.
    pub fn new(segments: &Segments, device: Device) -> Result<Self> {
        let (first_tokens, library) = match device {
            Device::Cpu => {
                let first = segments.of_tokens().map(|(_, start)| start).collect::<Vec<_>>();
                (Some(Tensor::f_from_slice(&first)?), None)
            }
            _ => (None, Some(LibraryOrder::new(segments, device)?)),
        };
        Ok(Self { offsets: segments.host.shallow_clone(), first_tokens, library })
    }

    /// Number of sequences N.
    pub fn sequences(&self) -> i64 {
        self.offsets.numel() as i64 - 1
    }

    /// Locked dropout (Gal and Ghahramani 2016): all tokens of a sequence share a mask, on the CPU
    /// that of its first token.
    ///
    /// # Errors
    /// If libtorch rejects the keys.
    pub fn lock(&self, dropout: &Dropout) -> Result<Dropout> {
        let keys = match &self.first_tokens {
            Some(first) => dropout.token_keys.f_index_select(0, first)?,
            None => dropout.token_keys.shallow_clone(),
        };
        let shared = self.library.as_ref().map(|library| SharedRows {
            count: self.sequences(),
            of_tokens: library.of_tokens.shallow_clone(),
        });
        Ok(Dropout { shared, ..Dropout::new(dropout.p, keys)? })
    }
}

impl LibraryOrder {
    /// The order of a stream.
    pub(super) fn new(segments: &Segments, device: Device) -> Result<Self> {
        make_gpu_recurrence_exact()?;
        let offsets = &segments.offsets;
        let length = |&sequence: &i64| offsets[sequence as usize + 1] - offsets[sequence as usize];
        let mut sequences: Vec<i64> =
            (0..offsets.len() as i64 - 1).filter(|sequence| length(sequence) > 0).collect();
        sequences.sort_by_key(|sequence| std::cmp::Reverse(length(sequence)));
        let spans: Vec<(i64, i64)> = sequences
            .iter()
            .map(|sequence| (offsets[*sequence as usize], length(sequence)))
            .collect();
        let (order, batch_sizes) = interleave(&spans);
        let mut back = vec![0; order.len()];
        for (packed, &row) in (0..).zip(&order) {
            back[row as usize] = packed;
        }
        let batch_sizes = Tensor::f_from_slice(&batch_sizes)?;
        Ok(Self {
            sequences: on(&sequences, device)?,
            order: on(&order, device)?,
            back: on(&back, device)?,
            batch_sizes,
            of_tokens: on(
                &segments.of_tokens().map(|(index, _)| index).collect::<Vec<_>>(),
                device,
            )?,
        })
    }

    /// One layer by libtorch's own LSTM.
    pub(super) fn run(
        &self,
        x: &Tensor,
        weights: &[&Tensor],
        start: [Tensor; 2],
        train: bool,
    ) -> Result<LstmStates> {
        let [hidden, cell] = start;
        if self.order.numel() == 0 {
            let width = hidden.size()[0] * hidden.size()[2];
            return Ok(LstmStates {
                states: x.f_new_zeros([0, width], (x.kind(), x.device()))?,
                hidden,
                cell,
            });
        }
        let packed = x.f_index_select(0, &self.order)?;
        let chosen =
            [hidden.f_index_select(1, &self.sequences)?, cell.f_index_select(1, &self.sequences)?];
        let two = weights.len() == 2 * WEIGHTS;
        let (output, last, last_cell) = Tensor::f_lstm_data(
            &packed,
            &self.batch_sizes,
            &chosen.each_ref()[..],
            weights,
            true,
            1,
            0.0,
            train,
            two,
        )?;
        Ok(LstmStates {
            states: output.f_index_select(0, &self.back)?,
            hidden: hidden.f_index_copy(1, &self.sequences, &last)?,
            cell: cell.f_index_copy(1, &self.sequences, &last_cell)?,
        })
    }
}

/// Weights of one direction.
const WEIGHTS: usize = LSTM_WEIGHTS as usize;

/// One LSTM layer (Hochreiter and Schmidhuber 1997, with forget gates) over every sequence of a
/// stream.
///
/// `x`: [T, in]; `weights`: for each of one or two directions PyTorch's `weight_ih` [4H, in],
/// `weight_hh` [4H, H], `bias_ih`, `bias_hh` `[4H]`, gates i, f, g, o; the second direction runs
/// from each sequence's end. `start` has the hidden and the cell state that every sequence starts
/// from, [directions, N, H] each; without it all start from zeros. `train` says whether gradients
/// will be asked for. Any number of sequences of any length, none included; a backward
/// pass runs once.
///
/// # Errors
/// If shapes or kinds do not fit.
pub fn lstm_layer(
    x: &Tensor,
    packing: &Packing,
    weights: &[&Tensor],
    start: Option<[&Tensor; 2]>,
    train: bool,
) -> Result<LstmStates> {
    match &packing.library {
        None => kernel_layer(x, &packing.offsets, weights, start),
        Some(library) => {
            let start = match start {
                Some(states) => states.map(Tensor::shallow_clone),
                None => {
                    let sizes = [
                        (weights.len() / WEIGHTS) as i64,
                        packing.sequences(),
                        weights[1].size()[1],
                    ];
                    let zeros = x.f_new_zeros(sizes, (x.kind(), x.device()))?;
                    [zeros.shallow_clone(), zeros]
                }
            };
            library.run(x, weights, start, train)
        }
    }
}

/// One layer by the shim's kernel.
fn kernel_layer(
    x: &Tensor,
    offsets: &Tensor,
    weights: &[&Tensor],
    start: Option<[&Tensor; 2]>,
) -> Result<LstmStates> {
    let pointers: Vec<*const C_tensor> = weights.iter().map(|weight| weight.as_ptr()).collect();
    let [hidden, cell] = start.map_or([std::ptr::null(); 2], |states| states.map(Tensor::as_ptr));
    let mut out = [Tensor::new(), Tensor::new(), Tensor::new()];
    let filled = out.each_mut().map(Tensor::as_mut_ptr);
    // SAFETY: all pointers are to live tensors, or null where the shim allows it; `weights` and
    // `out` have the lengths that it is told or expects.
    check(unsafe {
        docre_lstm(
            x.as_ptr(),
            offsets.as_ptr(),
            hidden,
            cell,
            pointers.as_ptr(),
            pointers.len(),
            filled.as_ptr(),
        )
    })?;
    let [states, hidden, cell] = out;
    Ok(LstmStates { states, hidden, cell })
}

/// Rows step by step over `spans` (start, length), sorted by falling length, and the number of rows
/// of each step.
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
    /// For each direction: input weights `[4H, in]`, recurrent weights `[4H, H]` and two biases
    /// `[4H]`; gates i, f, g, o.
    weights: Vec<Tensor>,
    /// Learned initial state and cell; [directions, 1, H] each.
    init: Vec<Tensor>,
}

impl LstmShape {
    fn directions(self) -> i64 {
        if self.bidirectional { 2 } else { 1 }
    }

    /// Names as in the DocRED baselines: `PREFIX.rnns.0.weight_ih_l0`, `PREFIX.init_hidden.0`, …
    pub fn slots(self, prefix: &str) -> Vec<Slot> {
        (0..self.layers).flat_map(|layer| self.layer_slots(prefix, layer)).collect()
    }

    fn layer_slots(self, prefix: &str, layer: i64) -> Vec<Slot> {
        let (gates, bound) =
            (4 * self.hidden, Init::Uniform { bound: 1.0 / (self.hidden as f64).sqrt() });
        let input = if layer == 0 { self.input } else { self.directions() * self.hidden };
        let mut slots = Vec::new();
        for suffix in &["", "_reverse"][..self.directions() as usize] {
            let shapes = [
                ("weight_ih", vec![gates, input]),
                ("weight_hh", vec![gates, self.hidden]),
                ("bias_ih", vec![gates]),
                ("bias_hh", vec![gates]),
            ];
            slots.extend(shapes.map(|(part, shape)| {
                Slot::new(format!("{prefix}.rnns.{layer}.{part}_l0{suffix}"), &shape, bound)
            }));
        }
        for state in ["init_hidden", "init_c"] {
            slots.push(Slot::new(
                format!("{prefix}.{state}.{layer}"),
                &[self.directions(), 1, self.hidden],
                Init::Zeros,
            ));
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
        params.declare_all(shape.slots(prefix))?;
        Self::get(prefix, shape, params)
    }

    /// A stack over parameters that were declared before.
    ///
    /// # Errors
    /// If one is missing.
    pub fn get(prefix: &str, shape: LstmShape, params: &Parameters) -> Result<Self> {
        let layers = (0..shape.layers)
            .map(|layer| LstmLayer::get(prefix, shape, layer, params))
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// [T, input] → [T, directions · H], both in stream order. `locked` masks the input of every
    /// layer, with salts from `salt` on.
    ///
    /// # Errors
    /// If libtorch rejects the shapes.
    pub fn forward(
        &self,
        x: &Tensor,
        packing: &Packing,
        locked: Option<&Dropout>,
        salt: u64,
        train: bool,
    ) -> Result<Tensor> {
        let mut states = x.shallow_clone();
        for (salt, layer) in (salt..).zip(&self.layers) {
            states = layer.forward(&dropout(&states, locked, salt)?, packing, train)?.states;
        }
        Ok(states)
    }

    /// The same over segments; `dropout` has a key a row, and the rows of a segment share the mask
    /// of the first one.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn read(
        &self,
        x: &Tensor,
        segments: &Segments,
        dropout: Option<&Dropout>,
        salt: u64,
        train: bool,
    ) -> Result<Tensor> {
        let packing = Packing::new(segments, x.device())?;
        let locked = dropout.map(|dropout| packing.lock(dropout)).transpose()?;
        self.forward(x, &packing, locked.as_ref(), salt, train)
    }
}

impl LstmLayer {
    fn get(prefix: &str, shape: LstmShape, layer: i64, params: &Parameters) -> Result<Self> {
        let slots = shape.layer_slots(prefix, layer);
        let mut weights =
            slots.iter().map(|slot| params.handle(&slot.name)).collect::<Result<Vec<_>>>()?;
        let init = weights.split_off(weights.len() - 2);
        Ok(Self { weights, init })
    }

    fn forward(&self, x: &Tensor, packing: &Packing, train: bool) -> Result<LstmStates> {
        let all = |state: &Tensor| state.f_expand([-1, packing.sequences(), -1], false);
        let (hidden, cell) = (all(&self.init[0])?, all(&self.init[1])?);
        let weights: Vec<&Tensor> = self.weights.iter().collect();
        lstm_layer(x, packing, &weights, Some([&hidden, &cell]), train)
    }
}

#[cfg(test)]
#[path = "lstm_tests.rs"]
mod tests;
