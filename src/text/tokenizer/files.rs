//! What the files beside a vocabulary say about a tokeniser, read as transformers reads them: the
//! class that opens the folder, and the settings of `tokenizer_config.json`.
//!
//! transformers builds the tokenisers of BERT and RoBERTa anew from the vocabulary and these
//! settings, so that the normaliser and the pre-tokeniser of a `tokenizer.json` do not count. Not
//! for: building them (`load`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::AddedToken;

use crate::base::text_file;
use crate::{DataError, Result};

/// Classes that transformers builds like BERT's tokeniser.
const BERT_CLASSES: [&str; 8] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "ConvBertTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "MPNetTokenizer",
];
/// Classes that transformers builds like RoBERTa's tokeniser.
const ROBERTA_CLASSES: [&str; 3] = ["RobertaTokenizer", "BartTokenizer", "LongformerTokenizer"];
/// Classes that take `tokenizer.json` as it stands.
const GENERIC_CLASSES: [&str; 2] = ["PreTrainedTokenizer", "TokenizersBackend"];

/// Values of `model_type` whose tokeniser is BERT's.
const BERT_MODELS: [&str; 14] = [
    "bert",
    "convbert",
    "distilbert",
    "electra",
    "ernie",
    "layoutlm",
    "lxmert",
    "megatron-bert",
    "mobilebert",
    "mpnet",
    "nezha",
    "retribert",
    "squeezebert",
    "visual_bert",
];
/// Values of `model_type` whose tokeniser is RoBERTa's.
const ROBERTA_MODELS: [&str; 8] = [
    "bart",
    "data2vec-text",
    "ibert",
    "longformer",
    "mega",
    "mra",
    "roberta",
    "roberta-prelayernorm",
];

/// How transformers builds the tokeniser of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// BERT's normaliser and pre-tokeniser over the vocabulary.
    Bert,
    /// Byte-level BPE over the vocabulary.
    Roberta,
    /// `tokenizer.json` as it stands.
    AsItStands,
}

/// What the files beside a vocabulary say.
#[derive(Debug, Default)]
pub(super) struct TokenizerFiles {
    /// The class; `None` where no file names one that is known.
    pub class: Option<Class>,
    /// The settings of `tokenizer_config.json`.
    pub settings: PieceSettings,
    /// Pieces that are looked for in the text before it is split, by number.
    pub added: BTreeMap<u32, AddedToken>,
}

/// The keys of `tokenizer_config.json` that change pieces.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct PieceSettings {
    tokenizer_class: Option<String>,
    /// Whether words fold case; who says nothing lets the vocabulary decide.
    pub do_lower_case: Option<bool>,
    /// Whether accents are taken off; with case when nothing is said.
    pub strip_accents: Option<bool>,
    /// Whether each Han character is a word.
    pub tokenize_chinese_chars: bool,
    /// Whether a word is tokenised as if a blank stood before it.
    pub add_prefix_space: Option<bool>,
    unk_token: Option<PieceName>,
    added_tokens_decoder: Option<BTreeMap<u32, AddedPiece>>,
}

impl Default for PieceSettings {
    fn default() -> Self {
        Self {
            tokenizer_class: None,
            do_lower_case: None,
            strip_accents: None,
            tokenize_chinese_chars: true,
            add_prefix_space: None,
            unk_token: None,
            added_tokens_decoder: None,
        }
    }
}

impl PieceSettings {
    /// The piece of unknown words; `usual` when nothing is said.
    pub fn unknown_piece(&self, usual: &str) -> String {
        match &self.unk_token {
            None => usual.to_owned(),
            Some(PieceName::Plain(name) | PieceName::InFull { content: name }) => name.clone(),
        }
    }
}

/// A special piece by its text, alone or with the way it is matched.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PieceName {
    Plain(String),
    InFull { content: String },
}

/// An entry of `added_tokens_decoder`.
#[derive(Debug, Deserialize)]
struct AddedPiece {
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

impl From<AddedPiece> for AddedToken {
    fn from(piece: AddedPiece) -> Self {
        Self::from(piece.content, piece.special)
            .normalized(piece.normalized)
            .single_word(piece.single_word)
            .lstrip(piece.lstrip)
            .rstrip(piece.rstrip)
    }
}

/// The key of an encoder's `config.json` that names its family.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelType {
    model_type: Option<String>,
}

impl TokenizerFiles {
    /// Reads `tokenizer_config.json`, `config.json` and `added_tokens.json` in a folder; a file
    /// that is missing says nothing.
    ///
    /// # Errors
    /// [`crate::Error::Data`] for a file that is not such JSON, and for a class that is not
    /// supported.
    pub fn read(folder: &Path) -> Result<Self> {
        let config = folder.join("tokenizer_config.json");
        let mut settings: PieceSettings = read_json(&config)?.unwrap_or_default();
        let model: ModelType = read_json(&folder.join("config.json"))?.unwrap_or_default();
        let class = match &settings.tokenizer_class {
            Some(name) => Some(class_named(name, &config)?),
            None => model.model_type.as_deref().and_then(class_of_model),
        };
        let mut added: BTreeMap<u32, AddedToken> = settings
            .added_tokens_decoder
            .take()
            .unwrap_or_default()
            .into_iter()
            .map(|(number, piece)| (number, piece.into()))
            .collect();
        let older: Option<BTreeMap<String, u32>> = read_json(&folder.join("added_tokens.json"))?;
        for (content, number) in older.unwrap_or_default() {
            added.entry(number).or_insert_with(|| AddedToken::from(content, false));
        }
        Ok(Self { class, settings, added })
    }
}

fn class_named(name: &str, config: &Path) -> Result<Class> {
    let plain = name.strip_suffix("Fast").unwrap_or(name);
    if BERT_CLASSES.contains(&plain) {
        Ok(Class::Bert)
    } else if ROBERTA_CLASSES.contains(&plain) {
        Ok(Class::Roberta)
    } else if GENERIC_CLASSES.contains(&plain) {
        Ok(Class::AsItStands)
    } else {
        Err(DataError::new(config, format!("the class `{name}` is not supported yet"))
            .field("tokenizer_class")
            .hint(
                "if tokenizer.json holds the whole tokeniser, set tokenizer_class to \
                 PreTrainedTokenizerFast in a copy of the folder",
            )
            .into())
    }
}

fn class_of_model(model_type: &str) -> Option<Class> {
    if BERT_MODELS.contains(&model_type) {
        Some(Class::Bert)
    } else {
        ROBERTA_MODELS.contains(&model_type).then_some(Class::Roberta)
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = text_file::read_whole(path)?;
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    serde_path_to_error::deserialize(&mut reader).map(Some).map_err(|error| {
        let field = error.path().to_string();
        DataError::new(path, error.into_inner().to_string())
            .field(field)
            .hint("transformers writes this file beside a vocabulary: copy it again")
            .into()
    })
}
