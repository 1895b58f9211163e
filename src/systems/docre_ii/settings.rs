//! DocRE-II's settings: every difference between paper and release and every ablation
//! (docs/systems.md, "I. DocRE-II"), with three profiles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::reading::{MarkerScheme, MentionTokens};
use crate::systems::{LongDocuments, Profile};

/// Which part is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Stage 1: the base module alone.
    Base,
    /// Stage 2: everything; starts from stage 1's checkpoint, heads included, unless
    /// `pretrained_base` is false.
    #[default]
    Inference,
}

/// The corpus and encoder whose configuration the other defaults are (Zhang et al. 2022, table 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// DocRED with BERT-base.
    #[default]
    Docred,
    /// DocRED with RoBERTa-large, whose positions cannot be extended: long documents are read in
    /// windows.
    DocredRoberta,
    /// CDR with SciBERT.
    Cdr,
    /// GDA with SciBERT.
    Gda,
}

/// How the two vectors of a pair become its features (FNN of equation 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PairLayer {
    /// Linear layer and ReLU over outer products within blocks: the release.
    #[default]
    Grouped,
    /// Linear layer and ReLU over both vectors: the paper.
    Concatenated,
}

/// What of a pair's labels becomes its cell of the relation matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelationInput {
    /// The sum of the embeddings of all labels: the release.
    #[default]
    MultiHot,
    /// The embedding of the most probable class: the paper.
    ArgMax,
}

/// Which pairs a pair attends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reasoning {
    /// Those that share an entity with it, a head for each of four sets.
    #[default]
    Eca,
    /// All pairs of the document: the ablation "w/o ECA", without dropout of attention.
    Full,
}

/// The contrastive loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Contrast {
    /// SimSiam: positive pairs alone (equation 14).
    #[default]
    Positive,
    /// SimCLR: the other pairs of the document are negative; an ablation.
    Negative,
    /// No such loss; an ablation.
    None,
}

/// What the passes of the contrastive loss are whose feature and relation slots are exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExchangedSlots {
    /// A pass of each view, which is a target alone: no gradient enters it. The release.
    #[default]
    Targets,
    /// View B itself: its pass goes through the predictor, with gradient (equation 14).
    ViewB,
}

/// What the noisy relation inputs of training start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseSource {
    /// Gold labels: the release.
    #[default]
    Gold,
    /// The base module's predictions: the paper.
    Base,
}

/// Over which pairs the noise of a step is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseScope {
    /// Over those of a document, so that neither batch mates nor ranks matter.
    #[default]
    Document,
    /// Over those of a micro-batch: the release.
    Batch,
}

/// Keys of the table that stage 1 does not read.
pub(super) const KEYS_OF_SECOND_STAGE: [&str; 29] = [
    "inference_width",
    "inference_heads",
    "ffn_width",
    "inference_layers",
    "iterations",
    "accumulate",
    "relation_input",
    "project_inputs",
    "self_key_everywhere",
    "self_key_bias",
    "fusion",
    "reasoning",
    "train_base_heads",
    "base_head_rate",
    "freeze_base",
    "noise_source",
    "noise_scope",
    "noise_rate",
    "positive_noise",
    "negative_noise",
    "negatives",
    "view_b_negatives",
    "base_loss",
    "stage2_loss_scale",
    "stage2_factor",
    "contrast",
    "exchanged_slots",
    "contrast_weight",
    "temperature",
];

/// Settings of DocRE-II.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DocreIiSettings {
    /// The corpus and encoder whose values of the schedules, `base_head_rate`, `num_labels` and
    /// `long_documents` are the defaults.
    pub preset: Preset,
    /// Which part is trained.
    pub stage: Stage,
    /// Whether the base module is trained first, in a stage of its own, from which stage 2 starts.
    /// Without it ("w/o pre-training") stage 2 trains base and inference module together, nothing
    /// of them frozen.
    pub pretrained_base: bool,
    /// Markers: `star-per-word` in the paper, `typed` in the release.
    pub markers: MarkerScheme,
    /// Tokens of a mention: its start marker in the paper, start and end marker in the release.
    pub mention: MentionTokens,
    /// States and attention are means of so many last layers: 1 in the paper, 3 in the release.
    pub averaged_layers: usize,
    /// Whether attention is averaged over heads (ATLOP) or summed (release), before it is
    /// normalised.
    pub average_heads: bool,
    /// Whether pair vectors see the state of `[CLS]`: the release.
    pub cls_feature: bool,
    /// Long documents: `windows` in the paper (ATLOP's way), `extended-positions` in the release.
    pub long_documents: LongDocuments,
    /// α of the extended positions.
    pub position_alpha: f64,
    /// Most pieces of a document; 0 for no limit but the encoder's. Release: 1024.
    pub max_pieces: usize,
    /// Whether longer documents are cut without being asked: the release.
    pub cut_silently: bool,
    /// Most windows a document; 0 for as many as it needs.
    pub max_windows: usize,
    /// Largest distance between the starts of two windows, in pieces; 0 for as few windows as leave
    /// no gap.
    pub window_stride: usize,
    /// Width of a pair's two vectors. Release: 768.
    pub emb_size: i64,
    /// Width of a block of the grouped products. Release: 64.
    pub block_size: i64,
    /// How both vectors become features.
    pub pair_layer: PairLayer,
    /// Whether the base classifier is dropout, layer norm and a linear layer without bias (release)
    /// or a linear layer (paper).
    pub classifier_norm: bool,
    /// Dropout of the heads.
    pub dropout: f64,
    /// Most relations of a pair under the adaptive threshold; 0 for no limit. 4 for DocRED, 1 for
    /// CDR and GDA.
    pub num_labels: usize,
    /// Factor of the mean adaptive-threshold loss: 100 in the release, 1 in the paper.
    pub loss_scale: f64,
    /// Width of the inference module. Release: 512.
    pub inference_width: i64,
    /// Attention heads, one for each set of pairs: 4.
    pub inference_heads: i64,
    /// Width inside the module's feed-forward networks. Release: 1024.
    pub ffn_width: i64,
    /// Inference layers N_I: 2 in the paper, 1 in the release's commands.
    pub inference_layers: usize,
    /// Iterations K at test; 0 leaves the base module ("ATLOP base").
    pub iterations: usize,
    /// Whether logits are added up over iterations (release) or each iteration's stand alone
    /// (paper).
    pub accumulate: bool,
    /// Relation inputs.
    pub relation_input: RelationInput,
    /// Whether keys and values see \[F; R\] through a linear layer and a norm (release) or as they
    /// are (paper); likewise the classifier.
    pub project_inputs: bool,
    /// Whether a pair attends to itself under all four heads (release), or under the first two
    /// alone, in whose sets it lies (equation 5).
    pub self_key_everywhere: bool,
    /// Added to the score of a pair with itself: 1 in the release (its mask holds ones there), 0 in
    /// the paper.
    pub self_key_bias: f64,
    /// The fusion sub-layer; off is an ablation.
    pub fusion: bool,
    /// Extended cross attention, or attention to all pairs.
    pub reasoning: Reasoning,
    /// Whether stage 2 trains the layers of the base module above the encoder: no in the release,
    /// which leaves them out of its optimiser.
    pub train_base_heads: bool,
    /// Their learning rate as a multiple of the heads' (the paper trains the base module at a tenth
    /// of the inference module's).
    pub base_head_rate: f64,
    /// Whether stage 2 leaves encoder and base module as they are; the ablation "w/ freeze base
    /// module".
    pub freeze_base: bool,
    /// What the relation inputs of training start from.
    pub noise_source: NoiseSource,
    /// Where noise is drawn.
    pub noise_scope: NoiseScope,
    /// Range of the share of predicted relations that are replaced (source `base`).
    pub noise_rate: [f64; 2],
    /// Range of the share of positive pairs that are replaced (source `gold`).
    pub positive_noise: [f64; 2],
    /// Range of the share of drawn negative pairs that are replaced (source `gold`).
    pub negative_noise: [f64; 2],
    /// Negative pairs drawn for each positive one; 0 for all.
    pub negatives: usize,
    /// Share of view B's drawn negatives that enter its loss.
    pub view_b_negatives: f64,
    /// Whether stage 2 keeps the base module's loss.
    pub base_loss: bool,
    /// Factor of the means of stage 2's adaptive-threshold losses: 10 in the release, 1 in the
    /// paper.
    pub stage2_loss_scale: f64,
    /// Factor of all losses of stage 2: 1/2 in the release.
    pub stage2_factor: f64,
    /// The contrastive loss.
    pub contrast: Contrast,
    /// Which passes have their slots exchanged in that loss.
    pub exchanged_slots: ExchangedSlots,
    /// λ_C: factor of the contrastive loss over both directions; 1 in the release, 1/2 gives
    /// equation 14.
    pub contrast_weight: f64,
    /// Temperature of negative pairs.
    pub temperature: f64,
}

impl Default for DocreIiSettings {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl DocreIiSettings {
    /// The settings of a profile for a corpus and encoder; the other values are those of
    /// [`Self::of`].
    pub fn preset(profile: Profile, preset: Preset) -> Self {
        let own = Self { preset, ..Self::of(profile) };
        match preset {
            Preset::Docred => own,
            Preset::DocredRoberta => {
                Self { base_head_rate: 0.05, long_documents: LongDocuments::Windows, ..own }
            }
            Preset::Cdr => Self { base_head_rate: 0.02, num_labels: 1, ..own },
            Preset::Gda => Self { base_head_rate: 0.025, num_labels: 1, ..own },
        }
    }

    /// The settings of a profile on DocRED with BERT-base. The fixed one is the release with noise
    /// drawn document by document and nothing cut unasked.
    pub fn of(profile: Profile) -> Self {
        let release = Self::release();
        match profile {
            Profile::Code => release,
            Profile::Fixed => Self {
                noise_scope: NoiseScope::Document,
                cut_silently: false,
                max_pieces: 0,
                ..release
            },
            Profile::Paper => Self {
                markers: MarkerScheme::StarPerWord,
                mention: MentionTokens::Start,
                averaged_layers: 1,
                average_heads: true,
                cls_feature: false,
                long_documents: LongDocuments::Windows,
                max_windows: 2,
                pair_layer: PairLayer::Concatenated,
                classifier_norm: false,
                loss_scale: 1.0,
                inference_layers: 2,
                accumulate: false,
                relation_input: RelationInput::ArgMax,
                project_inputs: false,
                self_key_everywhere: false,
                self_key_bias: 0.0,
                train_base_heads: true,
                noise_source: NoiseSource::Base,
                negatives: 0,
                view_b_negatives: 1.0,
                stage2_loss_scale: 1.0,
                stage2_factor: 1.0,
                exchanged_slots: ExchangedSlots::ViewB,
                contrast_weight: 0.5,
                ..release
            },
        }
    }

    fn release() -> Self {
        Self {
            preset: Preset::Docred,
            stage: Stage::Inference,
            pretrained_base: true,
            markers: MarkerScheme::Typed,
            mention: MentionTokens::Both,
            averaged_layers: 3,
            average_heads: false,
            cls_feature: true,
            long_documents: LongDocuments::ExtendedPositions,
            position_alpha: 0.4,
            max_pieces: 1024,
            cut_silently: true,
            max_windows: 0,
            window_stride: 0,
            emb_size: 768,
            block_size: 64,
            pair_layer: PairLayer::Grouped,
            classifier_norm: true,
            dropout: 0.1,
            num_labels: 4,
            loss_scale: 100.0,
            inference_width: 512,
            inference_heads: 4,
            ffn_width: 1024,
            inference_layers: 1,
            iterations: 3,
            accumulate: true,
            relation_input: RelationInput::MultiHot,
            project_inputs: true,
            self_key_everywhere: true,
            self_key_bias: 1.0,
            fusion: true,
            reasoning: Reasoning::Eca,
            train_base_heads: false,
            base_head_rate: 0.1,
            freeze_base: false,
            noise_source: NoiseSource::Gold,
            noise_scope: NoiseScope::Batch,
            noise_rate: [0.0, 0.4],
            positive_noise: [0.2, 0.5],
            negative_noise: [0.05, 0.15],
            negatives: 5,
            view_b_negatives: 0.2,
            base_loss: true,
            stage2_loss_scale: 10.0,
            stage2_factor: 0.5,
            contrast: Contrast::Positive,
            exchanged_slots: ExchangedSlots::Targets,
            contrast_weight: 1.0,
            temperature: 0.5,
        }
    }
}
