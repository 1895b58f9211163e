//! What a baseline computes over the words of a document (docs/systems.md, B.2–B.4).

use tch::Tensor;

use super::convolution::{Borders, Convolution};
use super::settings::{self, BaselineSettings};
use crate::Result;
use crate::systems::words::{Rows, WordTables};
use crate::torch::HEADS;
use crate::torch::dropout::dropout;
use crate::torch::kernels::Segments;
use crate::torch::nn::{Linear, LstmShape, PackedLstm};
use crate::torch::{Dropout, Parameters};
use crate::train::Forward;

/// Is shown intermediate results by name; the names are those of the reference.
pub type Probe<'a> = &'a mut dyn FnMut(&'static str, &Tensor);

const BLOCKS: [[&str; 3]; 3] = [
    ["cnn_1", "conv1_raw", "layer1_output"],
    ["cnn_2", "", "layer2_output"],
    ["cnn_3", "", "layer3_output"],
];

/// The network of one baseline.
#[derive(Debug)]
pub(super) enum WordNetwork {
    /// Three blocks and their dropout.
    Cnn(Vec<Convolution>, f64),
    /// An LSTM with the locked dropout of its input, and the map behind it.
    Lstm(PackedLstm, f64, Linear),
    /// A linear map alone.
    Linear(Linear),
}

impl WordNetwork {
    /// Declares the network over word vectors of width `input`; returns the width of its states
    /// too.
    pub fn declare(
        settings: &BaselineSettings,
        input: i64,
        parameters: &mut Parameters,
    ) -> Result<(Self, i64)> {
        let hidden = settings.hidden;
        match settings.network {
            settings::Network::Cnn => {
                let width = |block: usize| if block == 0 { input } else { settings.channels };
                let declare = |(block, names): (usize, &[&str; 3])| {
                    Convolution::declare(
                        parameters,
                        &format!("{HEADS}{}", names[0]),
                        width(block),
                        settings.channels,
                    )
                };
                let blocks = BLOCKS.iter().enumerate().map(declare).collect::<Result<_>>()?;
                Ok((Self::Cnn(blocks, settings.cnn_dropout), settings.channels))
            }
            settings::Network::Linear => Ok((
                Self::Linear(Linear::bias_first(
                    parameters,
                    &format!("{HEADS}linear_re"),
                    input,
                    hidden,
                )?),
                hidden,
            )),
            settings::Network::Lstm
            | settings::Network::Bilstm
            | settings::Network::ContextAware => {
                let bidirectional = settings.network != settings::Network::Lstm;
                let shape = LstmShape { input, hidden, layers: 1, bidirectional };
                let lstm = PackedLstm::declare(&format!("{HEADS}rnn"), shape, parameters)?;
                let states = if bidirectional { 2 * hidden } else { hidden };
                let linear =
                    Linear::bias_first(parameters, &format!("{HEADS}linear_re"), states, hidden)?;
                Ok((Self::Lstm(lstm, settings.locked_dropout, linear), hidden))
            }
        }
    }

    /// [W, input] → [W, width].
    pub fn forward(
        &self,
        x: &Tensor,
        tables: &WordTables,
        forward: Forward,
        probe: Probe,
    ) -> Result<Tensor> {
        let device = x.device();
        match self {
            Self::Cnn(blocks, p) => {
                let active = tables.dropout(Rows::Words, *p, forward, device)?;
                let borders = Borders::new(&Segments::new(&tables.word_offsets, device)?)?;
                convolve(x, blocks, &borders, active.as_ref(), probe)
            }
            Self::Lstm(lstm, p, linear) => {
                let states = tables.read(lstm, x, (*p, 0), forward)?;
                probe("lstm_output", &states);
                let context = linear.forward(&states)?.f_relu()?;
                probe("context_output", &context);
                Ok(context)
            }
            Self::Linear(linear) => {
                probe("word_vectors", x);
                let context = linear.forward(x)?;
                probe("context_output", &context);
                Ok(context)
            }
        }
    }
}

/// Convolution, max-pooling, ReLU, dropout; three times.
fn convolve(
    x: &Tensor,
    blocks: &[Convolution],
    borders: &Borders,
    active: Option<&Dropout>,
    probe: Probe,
) -> Result<Tensor> {
    let mut x = x.shallow_clone();
    for (salt, (block, [_, raw, output])) in (0..).zip(blocks.iter().zip(BLOCKS)) {
        let convolved = block.forward(&x, borders)?;
        probe(raw, &convolved);
        if convolved.size()[0] == 0 {
            return Ok(convolved);
        }
        let pooled = borders.max_pool(&convolved)?.f_relu()?;
        probe(output, &pooled);
        x = dropout(&pooled, active, salt)?;
    }
    Ok(x)
}
