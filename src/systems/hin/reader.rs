//! A BiLSTM as HIN uses it: locked dropout on the input, one layer in both directions, and the
//! optional map to half the width.

use tch::Tensor;

use super::HinSettings;
use crate::Result;
use crate::torch::kernels::Segments;
use crate::torch::nn::{Linear, LstmShape, PackedLstm};
use crate::torch::{Dropout, Parameters};

/// A BiLSTM with its dropout and projection.
#[derive(Debug)]
pub(super) struct HinReader {
    lstm: PackedLstm,
    projection: Option<Linear>,
    salt: u64,
}

impl HinReader {
    /// `salt` tells the reader's dropout masks from those of other places.
    pub fn declare(
        parameters: &mut Parameters,
        name: &str,
        input: i64,
        settings: &HinSettings,
        salt: u64,
    ) -> Result<Self> {
        let shape =
            LstmShape { input, hidden: settings.lstm_hidden, layers: 1, bidirectional: true };
        let lstm = PackedLstm::declare(name, shape, parameters)?;
        let projection = settings.project.then(|| {
            let (out, width) = (settings.lstm_hidden, 2 * settings.lstm_hidden);
            Linear::bias_first(parameters, &format!("{name}.project"), width, out)
        });
        Ok(Self { lstm, projection: projection.transpose()?, salt })
    }

    /// [rows, input] → [rows, d]; `dropout` has one key a row.
    pub fn forward(
        &self,
        x: &Tensor,
        segments: &Segments,
        dropout: Option<&Dropout>,
        train: bool,
    ) -> Result<Tensor> {
        let states = self.lstm.read(x, segments, dropout, self.salt, train)?;
        match &self.projection {
            Some(projection) => Ok(projection.forward(&states)?.f_relu()?),
            None => Ok(states),
        }
    }
}
