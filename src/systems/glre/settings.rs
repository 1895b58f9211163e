//! The settings of GLRE: every row where paper and release differ and every ablation of the paper
//! (docs/systems.md, "G. GLRE").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::words::Reading;
use crate::systems::{BertMode, LongDocuments, Profile};

/// The corpus whose configuration the defaults are (docs/systems.md, "G. GLRE").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GlreCorpus {
    /// DocRED, and corpora of its form.
    #[default]
    Docred,
    /// CDR: three graph layers, four heads, a BiLSTM over a frozen encoder, chemical–disease pairs
    /// alone.
    Cdr,
}

/// How the messages of a node's neighbours are normalised (docs/systems.md, G.6 and G.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RgcnNorm {
    /// Each relation by its own number of neighbours, the node itself not at all (paper).
    PerRelation,
    /// All relations and the node itself by 1 + the number of neighbours over all relations
    /// (release).
    TotalDegree,
}

/// What a sentence node's sum over words is divided by (docs/systems.md, G.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SentenceMean {
    /// The number of its words.
    True,
    /// The number of words of the document's longest sentence: what the release does to a document
    /// alone.
    Longest,
}

/// What asks in the local attention (docs/systems.md, G.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// The other entity's global representation.
    Global,
    /// The other entity's mean over mentions, before the graph.
    Init,
}

/// The matrix W of the attention among relations (docs/systems.md, G.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContextMatrix {
    /// Any d_r × d_r (paper).
    Full,
    /// A diagonal (release).
    Diagonal,
}

/// Which pairs the attention among relations sees in training (docs/systems.md, G.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContextPairs {
    /// All pairs that can be asked about, as in evaluation.
    All,
    /// Those that were kept by sub-sampling (release).
    Kept,
}

/// Settings of GLRE; the defaults are those of the profile `fixed` on DocRED.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GlreSettings {
    /// The corpus whose configuration the other defaults are: `docred` or `cdr`.
    pub corpus: GlreCorpus,
    /// Width d_n of words, nodes and entities (256).
    pub width: i64,
    /// Whether a text encoder is frozen or trained (the release freezes BioBERT on CDR). Word
    /// vectors are always frozen.
    pub bert_mode: BertMode,
    /// Whether a frozen text encoder keeps its dropout in training, as a learning rate of 0 does.
    pub frozen_dropout: bool,
    /// A BiLSTM over the states of a text encoder (CDR). Word vectors always have one.
    pub more_lstm: bool,
    /// Rate of the locked dropout on that BiLSTM's input (0.5).
    pub lstm_dropout: f64,
    /// Width of the embedding of node types, and of entity types beside word vectors (20).
    pub type_width: i64,
    /// Width of the distance embedding (20).
    pub distance_width: i64,
    /// Which state stands for a word; `collapsed-pieces` is the release's, which loses track of
    /// words without pieces (docs/systems.md, "Systems that read words").
    pub reading: Reading,
    /// Documents with more pieces than a text encoder has positions: `windows` (the paper reads
    /// them in short paragraphs) or `cut`.
    pub long_documents: LongDocuments,
    /// Most pieces with `[CLS]` and `[SEP]`; longer documents are cut (the release: 511). `None`:
    /// no limit but what `long_documents` says.
    pub max_pieces: Option<usize>,
    /// What a sentence node is divided by.
    pub sentence_mean: SentenceMean,
    /// Layers of the graph network (DocRED 2, CDR 3).
    pub rgcn_layers: usize,
    /// How its messages are normalised.
    pub rgcn_norm: RgcnNorm,
    /// Whether its maps have biases (release).
    pub rgcn_bias: bool,
    /// Whether a mention and a sentence are neighbours of themselves (release).
    pub rgcn_self_loops: bool,
    /// Dropout on the graph's input (0.2).
    pub rgcn_input_dropout: f64,
    /// Dropout between its layers (DocRED 0.2, CDR 0).
    pub rgcn_dropout: f64,
    /// Global representations (ablation "w/o entity global rep.").
    pub global_rep: bool,
    /// Local representations (ablation "w/o entity local rep.").
    pub local_rep: bool,
    /// What asks in the local attention.
    pub query: Query,
    /// Heads z of the local attention (DocRED 2, CDR 4).
    pub heads: i64,
    /// Whether its keys and values carry the node-type embedding (paper).
    pub local_type_embedding: bool,
    /// Whether its maps have biases (release); equations 3 and 4 have none.
    pub local_bias: bool,
    /// Its dropout, on probabilities and on the output (DocRED 0, CDR 0.2).
    pub attention_dropout: f64,
    /// Context relation representations (ablation "w/o context relation rep.").
    pub context: bool,
    /// Their matrix W.
    pub context_matrix: ContextMatrix,
    /// Which pairs they see in training.
    pub context_pairs: ContextPairs,
    /// Width of the classifier's hidden layer; 0 for none (DocRED 512; the release has none on
    /// CDR).
    pub classifier_width: i64,
    /// Dropout before the last linear map (DocRED 0.3, CDR 0.2).
    pub classifier_dropout: f64,
    /// Probability of a pair without a relation to be kept at a visit in training (DocRED 0.5, CDR
    /// 1; docs/systems.md, G.14).
    pub na_keep: f64,
    /// Head and tail type of the pairs that are asked about, such as Chemical and Disease; `None`
    /// for all pairs.
    pub pair_types: Option<(String, String)>,
    /// Probability of a word that training has seen once to be read as unknown, in training,
    /// without a text encoder (0.5).
    pub unknown_singletons: f64,
}

impl Default for GlreSettings {
    fn default() -> Self {
        Self::of(Profile::Fixed)
    }
}

impl GlreSettings {
    /// The settings of a profile on DocRED. Where paper and release differ in the network itself
    /// the reported numbers are probably the release's, so `fixed` follows it there and mends what
    /// depends on the batch or loses words.
    pub fn of(profile: Profile) -> Self {
        let (paper, code) = (profile == Profile::Paper, profile == Profile::Code);
        Self {
            corpus: GlreCorpus::Docred,
            width: 256,
            bert_mode: BertMode::Finetune,
            frozen_dropout: !paper,
            more_lstm: false,
            lstm_dropout: 0.5,
            type_width: 20,
            distance_width: 20,
            reading: if code { Reading::CollapsedPieces } else { Reading::Pieces },
            long_documents: if code { LongDocuments::Cut } else { LongDocuments::Windows },
            max_pieces: code.then_some(511),
            sentence_mean: if code { SentenceMean::Longest } else { SentenceMean::True },
            rgcn_layers: 2,
            rgcn_norm: if paper { RgcnNorm::PerRelation } else { RgcnNorm::TotalDegree },
            rgcn_bias: !paper,
            rgcn_self_loops: !paper,
            rgcn_input_dropout: 0.2,
            rgcn_dropout: 0.2,
            global_rep: true,
            local_rep: true,
            query: Query::Global,
            heads: 2,
            local_type_embedding: paper,
            local_bias: !paper,
            attention_dropout: 0.0,
            context: true,
            context_matrix: if paper { ContextMatrix::Full } else { ContextMatrix::Diagonal },
            context_pairs: if code { ContextPairs::Kept } else { ContextPairs::All },
            classifier_width: 512,
            classifier_dropout: 0.3,
            na_keep: if paper { 1.0 } else { 0.5 },
            pair_types: None,
            unknown_singletons: 0.5,
        }
    }

    /// The settings of a profile on CDR.
    pub fn cdr(profile: Profile) -> Self {
        let paper = profile == Profile::Paper;
        Self {
            corpus: GlreCorpus::Cdr,
            bert_mode: if paper { BertMode::Finetune } else { BertMode::Frozen },
            more_lstm: true,
            rgcn_layers: 3,
            rgcn_dropout: 0.0,
            heads: 4,
            attention_dropout: 0.2,
            classifier_width: if paper { 512 } else { 0 },
            classifier_dropout: 0.2,
            na_keep: 1.0,
            pair_types: Some(("Chemical".to_owned(), "Disease".to_owned())),
            ..Self::of(profile)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::SystemSettings;

    #[test]
    fn profiles_can_be_built_and_bad_values_are_named() {
        for profile in [Profile::Paper, Profile::Code, Profile::Fixed] {
            GlreSettings::of(profile).check().unwrap();
            GlreSettings::cdr(profile).check().unwrap();
        }
        let bad = [
            (GlreSettings { heads: 3, ..GlreSettings::default() }, "heads"),
            (GlreSettings { rgcn_layers: 0, ..GlreSettings::default() }, "rgcn_layers"),
            (GlreSettings { rgcn_dropout: 1.0, ..GlreSettings::default() }, "rgcn_dropout"),
            (GlreSettings { na_keep: -0.1, ..GlreSettings::default() }, "na_keep"),
            (
                GlreSettings { global_rep: false, local_rep: false, ..GlreSettings::default() },
                "local_rep",
            ),
            (GlreSettings { max_pieces: Some(2), ..GlreSettings::default() }, "max_pieces"),
        ];
        for (settings, key) in bad {
            assert!(settings.check().unwrap_err().to_string().contains(key), "{key}");
        }
    }
}
