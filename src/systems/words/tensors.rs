//! The tensor half of word tables: states of words, averages over mentions, dropout keys.

use tch::{Device, Tensor};

use super::WordTables;
use crate::Result;
use crate::encoders::TokenStream;
use crate::systems::{Foundation, row_dropout};
use crate::torch::kernels::Segments;
use crate::torch::nn::{PackedLstm, lookup};
use crate::torch::{Dropout, on};
use crate::train::Forward;

/// The rows of a batch that a dropout mask can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Words.
    Words,
    /// Pairs.
    Pairs,
}

impl WordTables {
    /// The encoder's input.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn stream(&self, device: Device) -> Result<TokenStream> {
        if let Some(windows) = &self.windows {
            return windows.stream(device);
        }
        let positions: Vec<i64> =
            self.offsets.windows(2).flat_map(|span| 0..span[1] - span[0]).collect();
        TokenStream::new(&self.ids, &positions, &self.offsets, device)
    }

    /// Dropout of rows with probability `p`; `None` outside training.
    ///
    /// # Errors
    /// A probability outside [0, 1).
    pub fn dropout(
        &self,
        rows: Rows,
        p: f64,
        forward: Forward,
        device: Device,
    ) -> Result<Option<Dropout>> {
        row_dropout(p, forward, device, || match rows {
            Rows::Words => self.keys(1, &self.word_offsets),
            Rows::Pairs => self.keys(3, &self.pair_offsets),
        })
    }

    /// States of the documents' pieces; [T, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn piece_states(&self, foundation: &Foundation, forward: Forward) -> Result<Tensor> {
        let pass = foundation.pass(forward, || match &self.windows {
            Some(windows) => windows.token_keys.clone(),
            None => self.keys(0, &self.offsets),
        })?;
        let stream = self.stream(foundation.parameters.device())?;
        let states = foundation.encoder.encode(&stream, &pass)?;
        match &self.windows {
            Some(windows) => windows.joined(&states),
            None => Ok(states),
        }
    }

    /// States of words; a word without one is zero. [W, d]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn word_states(&self, foundation: &Foundation, forward: Forward) -> Result<Tensor> {
        self.of_words(&self.piece_states(foundation, forward)?)
    }

    /// The rows of piece states [T, d] that stand for words; zeros where there is none. [W, d]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn of_words(&self, pieces: &Tensor) -> Result<Tensor> {
        let Some(rows) = &self.word_rows else { return Ok(pieces.shallow_clone()) };
        let (count, width) = pieces.size2()?;
        let nowhere = rows.contains(&count);
        let zero = Tensor::f_zeros([i64::from(nowhere), width], (pieces.kind(), pieces.device()))?;
        let table =
            if nowhere { Tensor::f_cat(&[pieces, &zero], 0)? } else { pieces.shallow_clone() };
        lookup(&table, &on(rows, pieces.device())?)
    }

    /// The states of an LSTM over the words of each document, from inputs `x` [W, …] that are
    /// masked with probability `p`.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn read(
        &self,
        lstm: &PackedLstm,
        x: &Tensor,
        (p, salt): (f64, u64),
        forward: Forward,
    ) -> Result<Tensor> {
        let dropout = self.dropout(Rows::Words, p, forward, x.device())?;
        let documents = Segments::new(&self.word_offsets, x.device())?;
        lstm.read(x, &documents, dropout.as_ref(), salt, forward.train)
    }
}
