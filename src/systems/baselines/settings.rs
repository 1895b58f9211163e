//! The settings of the baselines and their profiles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::words::MentionWeights;
use crate::systems::{LongDocuments, Profile};

/// The network between the encoder's word states and the entity averages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Three times convolution, max-pooling, ReLU, dropout.
    Cnn,
    /// Unidirectional LSTM, linear map, ReLU.
    Lstm,
    /// The same in both directions.
    #[default]
    Bilstm,
    /// The BiLSTM's, and attention over all pairs of the document above it.
    ContextAware,
    /// A linear map without activation (BERT-RE).
    Linear,
}

/// What the pairs are classified into (BERT-TS: docs/systems.md, B.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// All relations, and NA as a class of its own.
    #[default]
    All,
    /// Step one: related or not; the classes are NA and "some relation".
    Existence,
    /// Step two: the same classes as `all`, trained on pairs that have a relation.
    Relations,
}

/// Settings of the DocRED baselines, BERT-RE and BERT-TS; the defaults follow the system. A width
/// is a number of channels; a limit of 0 is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BaselineSettings {
    /// Network over the words.
    pub network: Network,
    /// What the pairs are classified into.
    pub labels: Labels,
    /// Whether coreference and type rows stand beside each word (docs/systems.md, B.1; BERT-RE has
    /// none).
    pub features: bool,
    /// Width of a coreference row.
    pub coref_width: i64,
    /// Rows of the coreference table; the most entities of a document plus one.
    pub coref_rows: usize,
    /// Width of a type row.
    pub type_width: i64,
    /// Width of a distance row.
    pub distance_width: i64,
    /// Width of an LSTM state a direction, of the linear map after it, and of the context-aware
    /// pair vectors.
    pub hidden: i64,
    /// Channels of a convolution.
    pub channels: i64,
    /// Dropout after each convolution block.
    pub cnn_dropout: f64,
    /// Locked dropout on the LSTM's input: one mask a document.
    pub locked_dropout: f64,
    /// NA pairs in training for each labelled pair, drawn anew in every epoch; negative: all of
    /// them.
    pub na_per_positive: f64,
    /// Most pairs of a document in training, labelled ones first (the release has room for 1,800).
    pub pair_limit: usize,
    /// Words after which a document is cut silently (the release: 512).
    pub max_words: usize,
    /// Documents with more pieces than a text encoder has positions: `windows` or `cut`.
    pub long_documents: LongDocuments,
    /// Pieces, with `[CLS]` and `[SEP]`, after which a document is cut silently (BERT-RE's release:
    /// 511).
    pub max_pieces: usize,
    /// Whether words without pieces shift all later words, and words beyond the cut share one state
    /// (BERT-RE's release; docs/systems.md, "Systems that read words").
    pub collapse_words: bool,
    /// Whether the documents of a batch are padded to the longest; convolutions see that (the
    /// release).
    pub pad_documents: bool,
    /// Weights of an entity's words.
    pub mention_weights: MentionWeights,
}

impl Default for BaselineSettings {
    fn default() -> Self {
        Self::of(Network::Bilstm, Profile::Fixed)
    }
}

impl BaselineSettings {
    /// The settings of a profile for `cnn`, `lstm`, `bilstm`, `context-aware` or, with
    /// [`Network::Linear`], `bert-re`.
    pub fn of(network: Network, profile: Profile) -> Self {
        let (code, bert) = (profile == Profile::Code, network == Network::Linear);
        let limit = |value: usize, wanted: bool| if wanted { value } else { 0 };
        Self {
            network,
            labels: Labels::All,
            features: !bert,
            coref_width: 20,
            coref_rows: 512,
            type_width: 20,
            distance_width: 20,
            hidden: 128,
            channels: 200,
            cnn_dropout: 0.5,
            locked_dropout: 0.2,
            na_per_positive: if bert { 3.0 } else { -1.0 },
            pair_limit: limit(1800, code),
            max_words: limit(512, profile != Profile::Fixed && !bert || code),
            long_documents: LongDocuments::of(profile),
            max_pieces: limit(511, profile != Profile::Fixed && bert),
            collapse_words: code && bert,
            pad_documents: code && network == Network::Cnn,
            mention_weights: if code { MentionWeights::Release } else { MentionWeights::Mean },
        }
    }
}
