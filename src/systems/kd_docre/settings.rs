//! KD-DocRE's settings (docs/systems.md, "K. KD-DocRE").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::atlop::AtlopSettings;
use crate::systems::reading::MarkerScheme;
use crate::systems::{LongDocuments, Profile};

/// The three trainings of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KdDocreStage {
    /// On annotated documents, from the pre-trained encoder.
    #[default]
    Teacher,
    /// On distant documents with the teacher's logits beside the labels.
    Distil,
    /// On annotated documents, from the distilled weights, at a low rate.
    Continue,
}

/// The weight of a true relation with probability p against the threshold class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FocalKind {
    /// 1 + (1 − p)^γ (release).
    #[default]
    OnePlus,
    /// (1 − p)^γ (paper).
    Plain,
}

/// Settings of KD-DocRE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KdDocreSettings {
    /// Which training this is. It decides the schedule; `distil` needs a teacher's logits.
    pub stage: KdDocreStage,
    /// Markers around mentions. Release: `*`, once a word.
    pub markers: MarkerScheme,
    /// Width of a pair's two vectors. Release: 1024.
    pub emb_size: i64,
    /// Width of a block of the grouped products. Release: 64.
    pub block_size: i64,
    /// Axial layers. Release: 6.
    pub axial_layers: usize,
    /// Attention heads of an axial layer. Release: 8.
    pub axial_heads: i64,
    /// Learning rate of the axial layers as a multiple of the heads'. The release trains them at
    /// the encoder's rate.
    pub axial_rate: f64,
    /// Rows and columns of the grid of pairs; 0 for as many as the document has entities. Release:
    /// 42, with cells of no pair taking part.
    pub grid_size: usize,
    /// Whether cells of no pair hold the features of an absent entity in evaluation (release)
    /// instead of zeros as in training. Only with `grid_size`.
    pub biased_padding: bool,
    /// Whether the pairs of an entity with itself, whose logits are 0, count in the means of the
    /// losses. Release: yes.
    pub count_diagonal: bool,
    /// The weight of true relations in the loss.
    pub focal_weight: FocalKind,
    /// γ of that weight. Release: 1.
    pub gamma: f64,
    /// Share of the unlabelled pairs whose features are zeroed in training, drawn once a run.
    /// Release: 0.
    pub drop_unlabelled: f64,
    /// Factor of the mean squared difference to the teacher's logits. Release: 1.
    pub mse_weight: f64,
    /// Most relations of a pair; 0 for no limit. Release: 4.
    pub num_labels: usize,
    /// Documents longer than the encoder's positions.
    pub long_documents: LongDocuments,
    /// Most pieces of a document read in windows; 0 for no limit. Release: 1024.
    pub max_pieces: usize,
    /// Whether longer documents are cut without being asked. Release: yes.
    pub cut_silently: bool,
    /// Most windows a document; 0 for as many as it needs. Release: 2.
    pub max_windows: usize,
    /// Largest distance between the starts of two windows, in pieces; 0 for as few windows as leave
    /// no gap (the release).
    pub window_stride: usize,
}

impl Default for KdDocreSettings {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl KdDocreSettings {
    /// The settings of a profile for a training; the others are those of [`Self::of`].
    pub fn staged(profile: Profile, stage: KdDocreStage) -> Self {
        // The encoder's rate over the heads': 3e-5 and 1e-4, then 1e-6 and 3e-6.
        let axial_rate = if stage == KdDocreStage::Continue { 1.0 / 3.0 } else { 0.3 };
        Self { stage, axial_rate, ..Self::of(profile) }
    }

    /// The settings of a profile. The fixed one has no cells of no pair, and means over the pairs
    /// that are asked about.
    pub fn of(profile: Profile) -> Self {
        let (code, reading) = (profile == Profile::Code, AtlopSettings::of(profile));
        Self {
            stage: KdDocreStage::Teacher,
            markers: reading.markers,
            emb_size: 1024,
            block_size: 64,
            axial_layers: 6,
            axial_heads: 8,
            axial_rate: 0.3,
            grid_size: if code { 42 } else { 0 },
            biased_padding: code,
            count_diagonal: code,
            focal_weight: if profile == Profile::Paper {
                FocalKind::Plain
            } else {
                FocalKind::OnePlus
            },
            gamma: 1.0,
            drop_unlabelled: 0.0,
            mse_weight: 1.0,
            num_labels: 4,
            long_documents: reading.long_documents,
            max_pieces: reading.max_pieces,
            cut_silently: reading.cut_silently,
            max_windows: reading.max_windows,
            window_stride: reading.window_stride,
        }
    }

    /// How documents are read, as ATLOP's settings.
    pub(super) fn reading(&self) -> AtlopSettings {
        AtlopSettings {
            markers: self.markers,
            long_documents: self.long_documents,
            max_pieces: self.max_pieces,
            cut_silently: self.cut_silently,
            max_windows: self.max_windows,
            window_stride: self.window_stride,
            ..AtlopSettings::default()
        }
    }
}
