//! The tensor half of word tables: states of words, averages over mentions, dropout keys.

use tch::{Device, Kind, Tensor};

use super::WordTables;
use crate::Result;
use crate::encoders::{Encoder, Pass, TokenStream};
use crate::systems::on;
use crate::torch::Dropout;
use crate::torch::kernels::Segments;
use crate::torch::nn::lookup;
use crate::train::Forward;

/// Mode of `embedding_bag` that adds up.
const SUM: i64 = 0;

/// The rows of a batch that a dropout mask can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Pieces that the encoder reads.
    Pieces,
    /// Words.
    Words,
    /// Pairs.
    Pairs,
}

/// One pass of an encoder over the words of a batch.
#[derive(Clone, Copy)]
pub struct WordPass<'a> {
    /// The encoder.
    pub encoder: &'a dyn Encoder,
    /// Its dropout in place of its own rates.
    pub dropout: Option<f64>,
    /// Training or evaluation.
    pub forward: Forward,
    /// Where tensors live.
    pub device: Device,
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
        let segments = Segments::new(&self.offsets, device)?;
        Ok(TokenStream {
            ids: on(&self.ids, device)?,
            positions: on(&positions, device)?,
            segments,
        })
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
        if !forward.train || p == 0.0 {
            return Ok(None);
        }
        if let (Rows::Pieces, Some(windows)) = (rows, &self.windows) {
            return windows.dropout(p, forward, device);
        }
        let (domain, offsets) = match rows {
            Rows::Pieces => (0, &self.offsets),
            Rows::Words => (1, &self.word_offsets),
            Rows::Pairs => (3, &self.pair_offsets),
        };
        let keys = self.keys(domain, offsets);
        Ok(Some(Dropout::new(p, on(&keys, device)?)?))
    }

    /// States of the documents' pieces; [T, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn piece_states(&self, pass: &WordPass) -> Result<Tensor> {
        let settings = (pass.forward.train, pass.forward.precision);
        let encoding = Pass::new(pass.encoder, pass.dropout, settings, |p| {
            self.dropout(Rows::Pieces, p, pass.forward, pass.device)
        })?;
        let states = pass.encoder.encode(&self.stream(pass.device)?, &encoding)?;
        self.windows
            .as_ref()
            .map_or_else(|| Ok(states.shallow_clone()), |windows| windows.joined(&states))
    }

    /// States of words; a word without one is zero. [W, d]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn word_states(&self, pass: &WordPass) -> Result<Tensor> {
        self.of_words(&self.piece_states(pass)?)
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

    /// Documents as segments of the words.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn word_segments(&self, device: Device) -> Result<Segments> {
        Segments::new(&self.word_offsets, device)
    }

    /// Sentences as segments of the words.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn sentence_segments(&self, device: Device) -> Result<Segments> {
        Segments::new(&self.sentence_offsets, device)
    }

    /// Entity vectors, averages of word states [W, d]; zero for an entity without a word in range.
    /// [E, d]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn entity_vectors(&self, words: &Tensor) -> Result<Tensor> {
        let device = words.device();
        let averages = &self.averages;
        if averages.words.is_empty() {
            return Ok(Tensor::f_zeros(
                [self.entities() as i64, words.size()[1]],
                (Kind::Float, device),
            )?);
        }
        let weights = Tensor::f_from_slice(&averages.weights)?.f_to_device(device)?;
        let (rows, offsets) = (on(&averages.words, device)?, on(&averages.offsets, device)?);
        let words = words.f_to_kind(Kind::Float)?;
        let (vectors, ..) = Tensor::f_embedding_bag(
            &words,
            &rows,
            &offsets,
            false,
            SUM,
            false,
            Some(&weights),
            true,
        )?;
        Ok(vectors)
    }

    /// Signed distance bins of all pairs, `[P]`.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn bins(&self, device: Device) -> Result<Tensor> {
        on(&self.bins, device)
    }
}
