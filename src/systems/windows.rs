//! Documents over the encoder's positions, read in overlapping windows (docs/systems.md, C.2 and
//! C.3): what the encoder gets, its dropout, and the states put together again.
//!
//! Not for: where windows lie (`text::windows`), or their attention (`torch::kernels::context`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{Foundation, Profile, on, row_keys};
use crate::encoders::TokenStream;
use crate::text::{PackedWindows, WindowRule};
use crate::{Error, Result};

/// What is done with documents that are longer than the encoder's positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LongDocuments {
    /// Overlapping windows (docs/systems.md, C.2–C.4).
    #[default]
    Windows,
    /// A position table three times as long (DocRE-II's release; docs/systems.md, C.5).
    ExtendedPositions,
    /// They are cut, or an error where that is not allowed.
    Cut,
}

impl LongDocuments {
    /// What systems that were published with one pass of 512 pieces do: cut in `paper` and `code`.
    pub fn of(profile: Profile) -> Self {
        if profile == Profile::Fixed { Self::Windows } else { Self::Cut }
    }

    /// Refuses what DocRE-II alone can do.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the system.
    pub fn without_extension(self, system: &str) -> Result<()> {
        if self == Self::ExtendedPositions {
            return Err(Error::recipe(format!("{system} has no extended positions"))
                .with_hint("use windows or cut as `long_documents`, or the system docre-ii"));
        }
        Ok(())
    }
}

/// The windows of an encoder with positions; `max_windows` and `stride` may be 0 for "no limit".
pub fn windows_of(
    foundation: &Foundation,
    max_windows: usize,
    stride: usize,
) -> Option<WindowRule> {
    let positions = foundation.encoder.facts().max_positions;
    let capacity = [positions, foundation.max_pieces].into_iter().flatten().min()?;
    let most = |limit: usize| (limit > 0).then_some(limit);
    let pieces = &foundation.pieces;
    let (prefix, suffix) = (pieces.prefix.clone(), pieces.window_end.clone());
    Some(WindowRule { capacity, prefix, suffix, stride: most(stride), most: most(max_windows) })
}

/// The windows of a batch of documents; host data.
#[derive(Clone, Debug, Default)]
pub struct BatchWindows {
    /// What the encoder reads.
    pub packed: PackedWindows,
    /// Dropout key of each piece that the encoder reads.
    pub(super) token_keys: Vec<i64>,
    /// How states are put together (see [`PackedWindows::covers`]); `None` where no document was
    /// cut into windows.
    covers: Option<(Vec<i64>, Vec<i64>, Vec<f32>)>,
    /// Pieces of all documents.
    tokens: i64,
}

impl BatchWindows {
    /// Cuts documents by `rule`: their pieces `ids`, and the first piece of each, closed by the
    /// number of pieces. Dropout is a function of (seed, visit, place).
    pub fn new(ids: &[i64], offsets: &[i64], rule: &WindowRule, visits: &[u64], seed: u64) -> Self {
        let packed = PackedWindows::new(ids, offsets, rule);
        let covers = packed.is_cut().then(|| packed.covers(offsets));
        let firsts = packed.document_windows.iter().map(|&window| packed.offsets[window]);
        let token_keys = row_keys(seed, 0, visits, &firsts.collect::<Vec<_>>());
        Self { packed, token_keys, covers, tokens: ids.len() as i64 }
    }

    /// The encoder's input.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn stream(&self, device: Device) -> Result<TokenStream> {
        let packed = &self.packed;
        TokenStream::new(&packed.ids, &packed.positions, &packed.offsets, device)
    }

    /// States of the documents' pieces from those of the windows: the mean over the windows that
    /// show a piece, zero where none does. [pieces of windows, d] → [pieces of documents, d]
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn joined(&self, states: &Tensor) -> Result<Tensor> {
        let Some((from, to, weights)) = &self.covers else { return Ok(states.shallow_clone()) };
        let device = states.device();
        let weights = on(weights, device)?.f_unsqueeze(1)?;
        let shown = states.f_index_select(0, &on(from, device)?)?.f_mul(&weights)?;
        let zeros = Tensor::f_zeros([self.tokens, states.size()[1]], (Kind::Float, device))?;
        Ok(zeros.f_index_add(0, &on(to, device)?, &shown)?)
    }
}
