//! The host half of DocRE-II: documents, grids of pairs, dropout keys of pairs, and the noise of a
//! training visit.

use super::grid::Grids;
use super::noise::{Noise, draw};
use super::settings::{Contrast, DocreIiSettings, Stage};
use crate::Result;
use crate::systems::reading::{ReadingLayout, ReadingTables, labelled_first};
use crate::systems::{Classes, Example, Layout, Pair, Tables, tables};
use crate::text::TokenizedDocument;
use crate::torch::Dropout;

/// Streams of dropout keys below those of tokens: of pairs, then one for each attention head.
const PAIR_STREAM: u64 = 1;

/// The host half.
pub struct DocreIiLayout {
    pub(super) reading: ReadingLayout,
    pub(super) classes: Classes,
    pub(super) settings: DocreIiSettings,
    pub(super) seed: u64,
}

/// A batch of documents.
pub struct DocreIiTables {
    /// Documents, mentions, pairs.
    pub reading: ReadingTables,
    /// Document of each pair, `[P]`.
    pub documents: Vec<i64>,
    /// Dropout key of each pair, `[P]`.
    pub pair_keys: Vec<i64>,
    /// Dropout keys of each pair under each of the four heads, `[4][P]`.
    pub head_keys: [Vec<i64>; 4],
    /// Pairs as grids; empty in stage 1.
    pub grids: Grids,
    /// The noise of stage 2; `None` outside of its training.
    pub noise: Option<Noise>,
}

impl DocreIiLayout {
    fn keys(&self, examples: &[Example], stream: u64) -> Vec<i64> {
        let keys = examples.iter().flat_map(|example| {
            let entities = example.document.entities.len() as u64;
            let number = move |pair: &Pair| u64::from(pair.0) * entities + u64::from(pair.1);
            example
                .pairs
                .iter()
                .map(move |pair| Dropout::token_key(self.seed, stream, example.visit, number(pair)))
        });
        keys.collect()
    }
}

impl Layout for DocreIiLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        _seed: u64,
        _epoch: u64,
        _row: u64,
    ) -> Result<Vec<Pair>> {
        Ok(labelled_first(document))
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        let reading = self.reading.read(examples)?;
        let inference = self.settings.stage == Stage::Inference;
        let sizes: Vec<(usize, &[Pair])> =
            examples.iter().map(|e| (e.document.entities.len(), e.pairs.as_slice())).collect();
        let grids = if inference { Grids::new(&sizes) } else { Grids::default() };
        let document_of =
            |(index, example): (i64, &Example)| std::iter::repeat_n(index, example.pairs.len());
        let documents = (0i64..).zip(examples).flat_map(document_of).collect();
        let noisy =
            inference && !examples.is_empty() && examples.iter().all(|example| example.train);
        let noise = noisy.then(|| draw(examples, self.classes, &self.settings, self.seed));
        let head_keys = [1, 2, 3, 4].map(|head| self.keys(examples, PAIR_STREAM + head));
        let pair_keys = self.keys(examples, PAIR_STREAM);
        Ok(Box::new(DocreIiTables { reading, documents, pair_keys, head_keys, grids, noise }))
    }

    fn counts(&self, laid: &Tables, _targets: &[f32]) -> Option<Vec<f64>> {
        let laid: &DocreIiTables = tables(laid).ok()?;
        let noise = match (self.settings.stage, &laid.noise) {
            (Stage::Inference, Some(noise)) => noise,
            // Prediction: no loss is asked for.
            (Stage::Inference, None) => return Some(vec![0.0; 4]),
            (Stage::Base, _) => return None,
        };
        Some(noise.counts(
            laid.documents.len(),
            self.settings.contrast != Contrast::None,
            self.settings.base_loss,
        ))
    }
}
