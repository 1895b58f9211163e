//! ATLOP's settings: what the ablations of its paper turn off (docs/systems.md, "A. ATLOP") and how
//! long documents are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::reading::{MarkerScheme, Pooling};
use crate::systems::{LongDocuments, Profile};
use crate::{Error, Result};

/// How two pair vectors become logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Classifier {
    /// Bilinear forms within blocks of `block_size` (docs/systems.md, A.5); one block of `emb_size`
    /// is the full bilinear form.
    #[default]
    Grouped,
    /// A linear layer over both vectors.
    Linear,
}

/// The loss over classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// The adaptive-threshold loss (docs/systems.md, C.11).
    #[default]
    AdaptiveThreshold,
    /// Binary cross-entropy.
    Bce,
}

/// How relations are read off the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdKind {
    /// Above the threshold class and among the `num_labels` largest.
    #[default]
    Adaptive,
    /// Above one threshold chosen on dev.
    Global,
}

/// Settings of ATLOP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AtlopSettings {
    /// Markers around mentions; `none` is the ablation without them. Paper and release: `*`, once a
    /// word on DocRED, once a mention on CDR and GDA.
    pub markers: MarkerScheme,
    /// How mentions become an entity. Paper and release: logsumexp; ablations: mean, max.
    pub pooling: Pooling,
    /// Localized context pooling; off is an ablation.
    pub context: bool,
    /// Grouped bilinear form; `linear` is the ablation with a plain head.
    pub classifier: Classifier,
    /// Width of a pair's two vectors. Release: 768 for every encoder.
    pub emb_size: i64,
    /// Width of a block of the grouped bilinear form. Release: 64.
    pub block_size: i64,
    /// The loss; `bce` is an ablation.
    pub loss: LossKind,
    /// The decision; `global` is an ablation.
    pub threshold: ThresholdKind,
    /// Most relations of a pair under the adaptive threshold; 0 for no limit. Release: 4 for
    /// DocRED, 1 for CDR and GDA.
    pub num_labels: usize,
    /// Documents longer than the encoder's positions.
    pub long_documents: LongDocuments,
    /// Most pieces of a document read in windows; 0 for no limit. Release: 1024.
    pub max_pieces: usize,
    /// Whether longer documents are cut without being asked. Release: yes; otherwise they are an
    /// error unless the recipe allows it.
    pub cut_silently: bool,
    /// Most windows a document; 0 for as many as it needs. Release: 2.
    pub max_windows: usize,
    /// Largest distance between the starts of two windows, in pieces; 0 for as few windows as leave
    /// no gap (the release).
    pub window_stride: usize,
}

impl Default for AtlopSettings {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl AtlopSettings {
    /// The settings of a profile. Paper and release agree but for documents over 1024 pieces, of
    /// which the paper says nothing.
    pub fn of(profile: Profile) -> Self {
        let fixed = profile == Profile::Fixed;
        Self {
            markers: MarkerScheme::StarPerWord,
            pooling: Pooling::Logsumexp,
            context: true,
            classifier: Classifier::Grouped,
            emb_size: 768,
            block_size: 64,
            loss: LossKind::AdaptiveThreshold,
            threshold: ThresholdKind::Adaptive,
            num_labels: 4,
            long_documents: LongDocuments::Windows,
            max_pieces: if fixed { 0 } else { 1024 },
            cut_silently: !fixed,
            max_windows: if fixed { 0 } else { 2 },
            window_stride: 0,
        }
    }
}

/// `block_size` must divide `emb_size`.
///
/// # Errors
/// [`Error::Recipe`] naming both.
pub(crate) fn check_blocks(emb_size: i64, block_size: i64) -> Result<()> {
    if emb_size > 0 && block_size > 0 && emb_size % block_size == 0 {
        return Ok(());
    }
    Err(Error::recipe(format!("`block_size` {block_size} does not divide `emb_size` {emb_size}"))
        .with_hint("the release has 64 and 768"))
}
