//! The documents of a micro-batch: views packed into one token stream, and the tables that find
//! mentions and entities in it.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::encoders::TokenStream;
use crate::text::{
    PackedViews, SpecialPieces, TokenizedDocument, View, ViewChoices, ViewOptions, pack, view,
};
use crate::torch::{Arena, Dropout, Table, on};
use crate::train::Forward;

/// How documents become token streams in one stage.
#[derive(Clone, Debug)]
pub struct DocumentViews {
    /// Special pieces of the tokenizer.
    pub pieces: SpecialPieces,
    /// Markers, truncation and padding.
    pub options: ViewOptions,
    /// Seed of the stage's dropout masks.
    pub seed: u64,
}

/// Views of several documents, ready for the encoder; host data.
#[derive(Clone, Debug, Default)]
pub struct PackedDocuments {
    /// Token stream, offsets, mention tables.
    pub views: PackedViews,
    /// One dropout key a token, `[tokens]`: a function of (seed, step, item, token).
    pub token_keys: Vec<i64>,
}

/// Where an arena holds the tables of packed documents.
#[derive(Clone, Copy, Debug, Default)]
pub struct DocumentTables {
    /// Pieces, positions and offsets of the stream.
    pub stream: [Table; 3],
    /// Where the mentions start.
    pub mentions: Table,
}

impl DocumentViews {
    /// The view of one document.
    ///
    /// # Errors
    /// A document over the length limit where truncation was not asked for.
    pub fn view(&self, document: &TokenizedDocument, choices: &ViewChoices) -> Result<View> {
        view(document, &self.pieces, &self.options, choices)
    }

    /// Packs views; `keys[i]` identifies document i among all visits of the run (for dropout).
    pub fn pack(&self, views: &[View], keys: &[u64]) -> PackedDocuments {
        let views = pack(views);
        let token_keys = row_keys(self.seed, 0, keys, &views.offsets);
        PackedDocuments { views, token_keys }
    }
}

impl PackedDocuments {
    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.views.offsets.len() - 1
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.views.ids.len()
    }

    /// First entity row of a document.
    pub fn entity_base(&self, document: usize) -> i64 {
        self.views.entity_offsets[document] as i64
    }

    /// The token stream on `device`.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn stream(&self, device: Device) -> Result<TokenStream> {
        let views = &self.views;
        TokenStream::new(&views.ids, &views.positions, &views.offsets, device)
    }

    /// Puts the tables of stream and mentions into an arena.
    pub fn lay(&self, arena: &mut Arena) -> DocumentTables {
        let views = &self.views;
        DocumentTables {
            stream: [&views.ids, &views.positions, &views.offsets].map(|table| arena.add(table)),
            mentions: arena.add(&views.mention_table),
        }
    }

    /// Entity vectors: the element-wise maximum over the states of each entity's start markers
    /// (docs/systems.md, D.1). `states` [T, d] → [E, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn entity_vectors(&self, states: &Tensor) -> Result<Tensor> {
        self.entity_vectors_at(states, &on(&self.views.mention_table, states.device())?)
    }

    /// The same with `table`, where the mentions start, on the device.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn entity_vectors_at(&self, states: &Tensor, table: &Tensor) -> Result<Tensor> {
        let width = self.views.mention_width as i64;
        let mentions = states.f_index_select(0, table)?.f_view([-1, width, states.size()[1]])?;
        Ok(mentions.f_to_kind(Kind::Float)?.f_amax([1], false)?)
    }
}

/// Identifies the visit of item `index` in `step` among all visits of a stage. Batches stay under
/// 2³² items.
pub fn visit(step: u64, index: usize) -> u64 {
    (step << 32) | index as u64
}

/// Dropout keys of the rows of documents: functions of seed, domain, visit, and place in the
/// document. `offsets` are the first rows of the documents, closed by their number.
pub fn row_keys(seed: u64, domain: u64, visits: &[u64], offsets: &[i64]) -> Vec<i64> {
    let rows = |span: &[i64]| 0..(span[1] - span[0]) as u64;
    let spans = visits.iter().zip(offsets.windows(2));
    spans
        .flat_map(|(&visit, span)| {
            rows(span).map(move |row| Dropout::token_key(seed, domain, visit, row))
        })
        .collect()
}

/// Dropout of rate `p` with a key for each row, in training.
///
/// # Errors
/// If libtorch rejects an operation, or `p` is no rate.
pub fn row_dropout<K: AsRef<[i64]>>(
    p: f64,
    forward: Forward,
    device: Device,
    keys: impl FnOnce() -> K,
) -> Result<Option<Dropout>> {
    let make = || Dropout::new(p, on(keys().as_ref(), device)?);
    (forward.train && p > 0.0).then(make).transpose()
}
