//! The LSTM, token by token.

use tch::Tensor;

use super::double;

/// Weights of one direction: those of the input, of the state, and two biases.
const WEIGHTS: usize = 4;

/// States [T, directions · H], last hidden states and last cells [directions, N, H] of a layer over
/// the sequences between `offsets`; arguments as `lstm_layer` takes them, `start` included.
pub fn lstm(x: &Tensor, offsets: &[i64], weights: &[Tensor], start: [&Tensor; 2]) -> [Tensor; 3] {
    let x = double(x);
    let (mut states, mut hidden, mut cells) = (Vec::new(), Vec::new(), Vec::new());
    for (direction, weights) in (0..).zip(weights.chunks(WEIGHTS)) {
        let weights: Vec<Tensor> = weights.iter().map(double).collect();
        let mut of_tokens: Vec<Tensor> = Vec::new();
        for (sequence, range) in (0..).zip(offsets.windows(2)) {
            let state = |state: &Tensor| double(state).get(direction).get(sequence);
            let (mut h, mut c) = (state(start[0]), state(start[1]));
            let mut own = Vec::new();
            let forwards: Vec<i64> = (range[0]..range[1]).collect();
            let backwards = forwards.iter().rev().copied();
            let order: Vec<i64> =
                if direction == 0 { forwards.clone() } else { backwards.collect() };
            for token in order {
                (h, c) = cell(&x.get(token), &h, &c, &weights);
                own.push(h.shallow_clone());
            }
            if direction == 1 {
                own.reverse();
            }
            of_tokens.extend(own);
            hidden.push(h);
            cells.push(c);
        }
        let width = weights[1].size()[1];
        states.push(if of_tokens.is_empty() {
            x.new_zeros([0, width], (x.kind(), x.device()))
        } else {
            Tensor::stack(&of_tokens, 0)
        });
    }
    let by_direction = |all: &[Tensor]| Tensor::stack(all, 0).view(start[0].size().as_slice());
    [Tensor::cat(&states, 1), by_direction(&hidden), by_direction(&cells)]
}

/// The next hidden state and cell; gates i, f, g, o.
fn cell(x: &Tensor, h: &Tensor, c: &Tensor, weights: &[Tensor]) -> (Tensor, Tensor) {
    let sums = weights[0].mv(x) + &weights[2] + weights[1].mv(h) + &weights[3];
    let gates = sums.chunk(4, 0);
    let c = gates[1].sigmoid() * c + gates[0].sigmoid() * gates[2].tanh();
    (gates[3].sigmoid() * c.tanh(), c)
}
