//! DSDocRE's settings: every difference between paper and release and every ablation
//! (docs/systems.md, "D. DSDocRE"), with three profiles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sampling::KeptPairs;
use crate::systems::{DecisionRule, Profile, RelationStart};
use crate::text::{Markers, ViewOptions};

/// Which of the three models, and so which heads it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Relation layer and ranking score.
    Ranker,
    /// All heads of the five losses.
    Pretrainer,
    /// Relation layer and classifier.
    Finetuner,
}

/// The tasks of pre-training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Task {
    /// Mention-entity matching inside a document.
    MenMat,
    /// Mention-entity matching across documents.
    XMenMat,
    /// Relation detection inside a document.
    RelDet,
    /// Relation detection across documents.
    XRelDet,
    /// Relational fact alignment across documents.
    RelAlign,
    /// Alignment of two facts with the same relation inside a document; the release builds it and
    /// never uses it.
    IntraAlign,
}

/// Where negative pairs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NegativePool {
    /// All pairs without a distant label, as in the release.
    All,
    /// Only those that the ranker kept, which is one reading of the paper.
    Kept,
}

/// How two relation vectors are compared in alignment (docs/systems.md, D.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlignmentDistance {
    /// |a − b|, equation 4.
    Abs,
    /// (a − b)², the release.
    Squared,
}

/// The vectors of the candidates of MenMat (docs/systems.md, D.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MentionVectors {
    /// Entity vectors.
    Entities,
    /// The encoder's token states, indexed by entity number: the release's slip.
    TokenStates,
}

/// How entities are numbered by their markers in fine-tuning (docs/systems.md, "D. DSDocRE").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkerNumbering {
    /// 2e+1 and 2e+2 for entity e, as in the other stages.
    Entity,
    /// The same numbers, but none on entities of no kept pair.
    KeptEntities,
    /// 2i and 2i+1 by first appearance among the kept pairs, none on other entities: the release.
    KeptOrder,
}

/// How bilinear layers start (docs/systems.md, "Initial values").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeadStart {
    /// U(−1/√d, 1/√d), PyTorch's default and the release's. States after a layer norm have length
    /// √d, so scores start with a standard deviation of √(d/3) and the softmax starts saturated:
    /// harmless under a pre-trained encoder, a plateau under a random one.
    Pytorch,
    /// U(−√3/d, √3/d): outputs start with standard deviation 1.
    Unit,
}

/// Keys of DSDocRE's table that pre-training reads and its ranker does not.
pub const KEYS_OF_PRETRAINING: [&str; 17] = [
    "mention_vectors",
    "alignment_distance",
    "repeat_masked",
    "hide_in_turn",
    "tasks",
    "blank_probability",
    "same_fact_ratio",
    "k_pretrain",
    "masked_mentions",
    "mention_candidates",
    "cross_mention_candidates",
    "detection_instances",
    "detection_candidates",
    "cross_detection_per_document",
    "alignment_hard",
    "alignment_random",
    "min_entities",
];

/// Keys of DSDocRE's table that only fine-tuning reads.
pub const KEYS_OF_FINETUNING: [&str; 8] = [
    "markers",
    "k_finetune_per_entity",
    "k_finetune_cap",
    "transfer_bilinear",
    "decision",
    "relation_start",
    "baseline_negatives",
    "baseline_max_pairs",
];

/// Settings of DSDocRE (docs/systems.md, "D. DSDocRE").
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DsdocreSettings {
    /// Width of the relation vector.
    pub relation_width: i64,
    /// Hide padding from attention in the ranker and in pre-training.
    pub mask_padding: bool,
    /// Mentions pooled into an entity, in document order (docs/systems.md, D.1); 0 for all.
    pub max_mentions: usize,
    /// Marker numbers in fine-tuning.
    pub markers: MarkerNumbering,
    /// Vectors of the candidates of MenMat (docs/systems.md, D.13).
    pub mention_vectors: MentionVectors,
    /// Distance of RelAlign (docs/systems.md, D.5).
    pub alignment_distance: AlignmentDistance,
    /// Insert the mask once per repetition of a mention, as the release does (docs/systems.md,
    /// D.12).
    pub repeat_masked: bool,
    /// In pre-training, hide and mark entities one after another, so that where mentions overlap
    /// the later wipes out the earlier, and read a masked mention at the start of its word, as the
    /// release does.
    pub hide_in_turn: bool,
    /// Start of the bilinear layers.
    pub head_start: HeadStart,
    /// The pre-training tasks.
    pub tasks: Vec<Task>,
    /// Probability of blanking an entity (docs/systems.md, D.12).
    pub blank_probability: f64,
    /// Share of document pairs drawn for a fact they have in common.
    pub same_fact_ratio: f64,
    /// Pairs kept a document in pre-training (docs/systems.md, D.9); 0 for all, that is no
    /// pre-denoising.
    pub k_pretrain: usize,
    /// Pairs kept a document in fine-tuning, as a multiple of its number of entities.
    pub k_finetune_per_entity: usize,
    /// Upper bound of that number (docs/systems.md, D.20); 0 for none.
    pub k_finetune_cap: usize,
    /// Pool of negatives.
    pub negative_pool: NegativePool,
    /// Instances a document in ranker training.
    pub rank_instances: usize,
    /// Candidates of a ranker instance, the positive included.
    pub rank_candidates: usize,
    /// Probability of blanking an entity in ranker training (a regulariser of ours, off in the
    /// papers).
    pub rank_blank_probability: f64,
    /// Mentions masked a document.
    pub masked_mentions: usize,
    /// Candidates of MenMat, the answer included.
    pub mention_candidates: usize,
    /// Candidates of XMenMat, the answer included.
    pub cross_mention_candidates: usize,
    /// Instances of RelDet in each document, and of XRelDet across the two.
    pub detection_instances: usize,
    /// Candidates of RelDet, the related pair included.
    pub detection_candidates: usize,
    /// Candidates of XRelDet from each document.
    pub cross_detection_per_document: usize,
    /// Candidates of RelAlign that hold another relation.
    pub alignment_hard: usize,
    /// Candidates of RelAlign without relation.
    pub alignment_random: usize,
    /// Fewest entities of a document in pre-training.
    pub min_entities: usize,
    /// Whether annotated documents take part in pre-training, all their labels taken as true: joint
    /// training on human data (ours, off in the papers).
    pub pretrain_on_human: bool,
    /// Start the fine-tuner's relation layer from pre-training (an improvement of ours, off in the
    /// papers).
    pub transfer_bilinear: bool,
    /// Decision rule.
    pub decision: DecisionRule,
    /// How the classifier's vector of each relation starts in fine-tuning (ours; papers: at
    /// random).
    pub relation_start: RelationStart,
    /// Baseline without ranker: unlabelled training pairs for each labelled one.
    pub baseline_negatives: usize,
    /// Baseline without ranker: largest number of training pairs a document.
    pub baseline_max_pairs: usize,
}

impl Default for DsdocreSettings {
    fn default() -> Self {
        Self::fixed()
    }
}

impl DsdocreSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        let fixed = Self::fixed();
        match profile {
            Profile::Fixed => fixed,
            Profile::Paper => Self {
                max_mentions: 0,
                k_finetune_cap: 0,
                negative_pool: NegativePool::Kept,
                ..fixed
            },
            Profile::Code => Self {
                mask_padding: false,
                markers: MarkerNumbering::KeptOrder,
                mention_vectors: MentionVectors::TokenStates,
                alignment_distance: AlignmentDistance::Squared,
                repeat_masked: true,
                hide_in_turn: true,
                k_pretrain: 30,
                ..fixed
            },
        }
    }

    fn fixed() -> Self {
        Self {
            relation_width: 256,
            mask_padding: true,
            max_mentions: 3,
            markers: MarkerNumbering::Entity,
            mention_vectors: MentionVectors::Entities,
            alignment_distance: AlignmentDistance::Abs,
            repeat_masked: false,
            hide_in_turn: false,
            head_start: HeadStart::Pytorch,
            tasks: vec![Task::MenMat, Task::XMenMat, Task::RelDet, Task::XRelDet, Task::RelAlign],
            blank_probability: 0.2,
            same_fact_ratio: 0.6,
            k_pretrain: 20,
            k_finetune_per_entity: 2,
            k_finetune_cap: 60,
            negative_pool: NegativePool::All,
            rank_instances: 3,
            rank_candidates: 6,
            rank_blank_probability: 0.0,
            masked_mentions: 3,
            mention_candidates: 5,
            cross_mention_candidates: 8,
            detection_instances: 3,
            detection_candidates: 8,
            cross_detection_per_document: 4,
            alignment_hard: 5,
            alignment_random: 8,
            min_entities: 5,
            pretrain_on_human: false,
            transfer_bilinear: false,
            decision: DecisionRule::ArgMax,
            relation_start: RelationStart::Random,
            baseline_negatives: 3,
            baseline_max_pairs: 90,
        }
    }

    /// Mentions pooled into an entity; `None` for all.
    pub fn max_mentions(&self) -> Option<usize> {
        limit(self.max_mentions)
    }

    /// Pairs kept a document in pre-training; `None` without pre-denoising.
    pub fn k_pretrain(&self) -> Option<usize> {
        limit(self.k_pretrain)
    }

    /// The same settings for pre-training without a ranker: every pair counts.
    #[must_use]
    pub fn without_ranker(&self) -> Self {
        Self { k_pretrain: 0, negative_pool: NegativePool::All, ..self.clone() }
    }

    /// The pairs kept in fine-tuning where there is a ranker.
    pub fn finetune_pairs(&self) -> KeptPairs {
        let cap = limit(self.k_finetune_cap);
        KeptPairs { pairs: 0, times: self.k_finetune_per_entity, cap }
    }

    /// How documents are laid out for a model.
    pub fn view_options(
        &self,
        max_pieces: Option<usize>,
        truncate: bool,
        kind: ModelKind,
    ) -> ViewOptions {
        let unmasked = !self.mask_padding && kind != ModelKind::Finetuner;
        ViewOptions {
            max_pieces,
            truncate,
            pad_to: if unmasked { max_pieces } else { None },
            max_mentions: self.max_mentions(),
            markers: Markers::PerEntity,
            repeat_masked: self.repeat_masked,
            in_turn: self.hide_in_turn && kind == ModelKind::Pretrainer,
        }
    }
}

/// A limit, of which 0 means that there is none.
fn limit(most: usize) -> Option<usize> {
    (most > 0).then_some(most)
}
