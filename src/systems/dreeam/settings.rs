//! DREEAM's settings (docs/systems.md, "E. DREEAM").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::atlop::{AtlopSettings, check_blocks};
use crate::systems::fusion::FusionForm;
use crate::systems::{LongDocuments, Profile};
use crate::{Error, Result};

/// What a model is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DreeamStage {
    /// Annotated documents and their evidence.
    #[default]
    Teacher,
    /// Distant documents and the attention that a teacher has stored.
    SelfTraining,
    /// As the teacher, at low rates, from a self-trained student.
    FineTuning,
}

/// What the evidence loss is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceNorm {
    /// All pairs with a relation, those without evidence included.
    Pairs,
    /// Pairs with evidence.
    #[default]
    PairsWithEvidence,
}

/// Settings of DREEAM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DreeamSettings {
    /// What is learnt, and the default schedule: `teacher`, `self-training` or `fine-tuning`.
    pub stage: DreeamStage,
    /// The mean of how many last layers, for states and attention. Release: 3.
    pub averaged_layers: usize,
    /// Width of a pair's two vectors. Release: 768 for every encoder.
    pub emb_size: i64,
    /// Width of a block of the grouped bilinear form. Release: 64.
    pub block_size: i64,
    /// Most relations of a pair; 0 for no limit. Release: 4.
    pub num_labels: usize,
    /// λ, the weight of the evidence loss. Release: 0.1; for RoBERTa and Re-DocRED 0.05.
    pub evidence_weight: f64,
    /// What the evidence loss is divided by. Release: `pairs`.
    pub evidence_norm: EvidenceNorm,
    /// The weight of the loss on a teacher's attention in self-training. Release: 1.
    pub attention_weight: f64,
    /// A sentence is predicted as evidence if it holds more than this share of a pair's attention.
    /// Release: 0.2.
    pub evidence_threshold: f64,
    /// Sentences from this one on are never predicted as evidence; 0: no limit. Release: 25.
    pub max_evidence_sentences: usize,
    /// Whether a second run over the evidence sentences alone takes part in prediction
    /// (docs/systems.md, E.6–E.8).
    pub fusion: bool,
    /// What holds at the threshold of this fusion: `at-least` keeps a fact whose score is the
    /// threshold, `above` (the release) does not.
    pub fusion_form: FusionForm,
    /// Documents longer than the encoder's positions.
    pub long_documents: LongDocuments,
    /// Most pieces of a document read in windows; 0 for no limit. Release: 1024; it stops at a
    /// longer document.
    pub max_pieces: usize,
    /// Most windows a document; 0 for as many as it needs. Release: 2.
    pub max_windows: usize,
    /// Largest distance between the starts of two windows, in pieces; 0 for as few windows as leave
    /// no gap (the release).
    pub window_stride: usize,
}

impl Default for DreeamSettings {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl DreeamSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        let (fixed, code) = (profile == Profile::Fixed, profile == Profile::Code);
        Self {
            stage: DreeamStage::Teacher,
            averaged_layers: 3,
            emb_size: 768,
            block_size: 64,
            num_labels: 4,
            evidence_weight: 0.1,
            evidence_norm: if fixed {
                EvidenceNorm::PairsWithEvidence
            } else {
                EvidenceNorm::Pairs
            },
            attention_weight: 1.0,
            evidence_threshold: 0.2,
            max_evidence_sentences: if code { 25 } else { 0 },
            fusion: true,
            fusion_form: if code { FusionForm::Above } else { FusionForm::AtLeast },
            long_documents: LongDocuments::Windows,
            max_pieces: if fixed { 0 } else { 1024 },
            max_windows: if fixed { 0 } else { 2 },
            window_stride: 0,
        }
    }

    /// ATLOP's settings of the same network.
    pub(super) fn atlop(&self) -> AtlopSettings {
        AtlopSettings {
            emb_size: self.emb_size,
            block_size: self.block_size,
            num_labels: self.num_labels,
            long_documents: self.long_documents,
            max_pieces: self.max_pieces,
            cut_silently: false,
            max_windows: self.max_windows,
            window_stride: self.window_stride,
            ..AtlopSettings::default()
        }
    }

    pub(super) fn check_values(&self) -> Result<()> {
        check_blocks(self.emb_size, self.block_size)?;
        let weight = |value: f64| value.is_finite() && value >= 0.0;
        let share = self.evidence_threshold;
        let rules = [
            ("averaged_layers", self.averaged_layers as f64, self.averaged_layers > 0, "over 0"),
            (
                "evidence_weight",
                self.evidence_weight,
                weight(self.evidence_weight),
                "a number from 0 on",
            ),
            (
                "attention_weight",
                self.attention_weight,
                weight(self.attention_weight),
                "a number from 0 on",
            ),
            ("evidence_threshold", share, (0.0..1.0).contains(&share), "from 0 to below 1"),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((key, value, _, need)) => {
                Err(Error::recipe(format!("dreeam.{key} = {value}, but it must be {need}")))
            }
            None => self.long_documents.without_extension("dreeam"),
        }
    }
}
