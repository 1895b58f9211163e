//! TTM-RE's settings (docs/systems.md, "T. TTM-RE").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::atlop::AtlopSettings;
use crate::systems::reading::MarkerScheme;
use crate::systems::{LongDocuments, NegativeRisk, Profile, RiskKind, RiskRule};

/// What the Transformer over memory outputs attends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryAttention {
    /// The two outputs of a pair see each other.
    #[default]
    Outputs,
    /// The first outputs of `pair_chunk` pairs see each other, and the second ones, across the
    /// documents of a batch (release).
    Pairs,
}

/// Settings of TTM-RE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TtmReSettings {
    /// Markers around mentions. Release: `*`, once a word.
    pub markers: MarkerScheme,
    /// Width of a pair's two vectors and of the memory. Release: 768.
    pub emb_size: i64,
    /// Width of a block of the grouped bilinear form. Release: 64.
    pub block_size: i64,
    /// Memory tokens. Release: 200.
    pub memory_size: i64,
    /// Layers of the Transformer over memory outputs. Release: 4 on DocRED, 2 elsewhere.
    pub memory_layers: usize,
    /// Its attention heads. Release: 8.
    pub memory_heads: i64,
    /// What it attends to.
    pub memory_attention: MemoryAttention,
    /// Pairs that see each other under `memory_attention = "pairs"`. Release: 256.
    pub pair_chunk: usize,
    /// Learning rate of the memory and its layers as a multiple of the heads'. The release trains
    /// them at the encoder's rate.
    pub memory_rate: f64,
    /// The loss: `pn`, `pu` or `s-pu`.
    pub loss: RiskKind,
    /// How many times as many facts there are as labels, e. Release: 1 on Re-DocRED, 3 on
    /// ChemDisGene.
    pub prior_factor: f64,
    /// The margin m of the squared loss. Release: 1; 0.25 on ChemDisGene.
    pub risk_margin: f64,
    /// The factor κ of the squared loss. Release: 1.
    pub risk_factor: f64,
    /// What becomes of a relation whose negative risk is below 0 (release: below `risk_floor`).
    pub negative_risk: NegativeRisk,
    /// Under `negative_risk = "reverse"`: β. Release: 0.
    pub risk_floor: f64,
    /// Under the same: γ. Release: 1.
    pub risk_reversal: f64,
    /// Most relations of a pair; 0 for no limit (release).
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

impl Default for TtmReSettings {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl TtmReSettings {
    /// The settings of a profile. In paper and `fixed` the logits of a pair do not depend on other
    /// pairs.
    pub fn of(profile: Profile) -> Self {
        let reading = AtlopSettings::of(profile);
        Self {
            markers: reading.markers,
            emb_size: 768,
            block_size: 64,
            memory_size: 200,
            memory_layers: 4,
            memory_heads: 8,
            memory_attention: if profile == Profile::Code {
                MemoryAttention::Pairs
            } else {
                MemoryAttention::Outputs
            },
            pair_chunk: 256,
            memory_rate: 3.0,
            loss: RiskKind::SPu,
            prior_factor: 1.0,
            risk_margin: 1.0,
            risk_factor: 1.0,
            negative_risk: NegativeRisk::of(profile),
            risk_floor: 0.0,
            risk_reversal: 1.0,
            num_labels: 0,
            long_documents: reading.long_documents,
            max_pieces: reading.max_pieces,
            cut_silently: reading.cut_silently,
            max_windows: reading.max_windows,
            window_stride: reading.window_stride,
        }
    }

    /// The loss that its numbers make.
    pub(super) fn rule(&self) -> RiskRule {
        RiskRule {
            kind: self.loss,
            prior_factor: self.prior_factor,
            margin: self.risk_margin,
            factor: self.risk_factor,
            negative: self.negative_risk,
            floor: self.risk_floor,
            reversal: self.risk_reversal,
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
