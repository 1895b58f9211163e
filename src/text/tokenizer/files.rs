//! What the files beside a vocabulary say about a tokeniser, read as transformers reads them: the
//! class that opens the folder, and the settings of `tokenizer_config.json`.
//!
//! transformers builds the tokenisers of BERT and RoBERTa anew from the vocabulary and these
//! settings, so that the normaliser and the pre-tokeniser of a `tokenizer.json` do not count. Not
//! for: building them (`load`, `unigram`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::AddedToken;

use super::class::Class;
use super::names::PieceNames;
use crate::base::text_file;
use crate::{DataError, Result};

/// Models whose byte-level vocabulary is met with the pieces of running text: a blank before each
/// word, unless `add_prefix_space` says otherwise.
const RUNNING_TEXT: [&str; 1] = ["modernbert"];

/// What the files beside a vocabulary say.
#[derive(Debug, Default)]
pub(super) struct TokenizerFiles {
    /// The class; `None` where no file names one that is known.
    pub class: Option<Class>,
    /// The class of the model's family, which counts where `class` needs a `tokenizer.json` and
    /// there is none.
    pub family: Option<Class>,
    /// Whether a byte-level vocabulary is met with a blank before each word, where nothing is said.
    pub running_text: bool,
    /// The special pieces that are named.
    pub named: PieceNames,
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
    /// Sentencepiece: whether accents stay (ALBERT, XLNet).
    pub keep_accents: bool,
    /// Sentencepiece: whether punctuation is split off first (DeBERTa).
    pub split_by_punct: bool,
    cls_token: Option<PieceName>,
    sep_token: Option<PieceName>,
    pad_token: Option<PieceName>,
    unk_token: Option<PieceName>,
    mask_token: Option<PieceName>,
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
            keep_accents: false,
            split_by_punct: false,
            cls_token: None,
            sep_token: None,
            pad_token: None,
            unk_token: None,
            mask_token: None,
            added_tokens_decoder: None,
        }
    }
}

impl PieceSettings {
    fn names(&self) -> PieceNames {
        let text = |name: &Option<PieceName>| name.as_ref().map(PieceName::text);
        PieceNames {
            cls: text(&self.cls_token),
            sep: text(&self.sep_token),
            pad: text(&self.pad_token),
            unk: text(&self.unk_token),
            mask: text(&self.mask_token),
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

impl PieceName {
    fn text(&self) -> String {
        let (Self::Plain(name) | Self::InFull { content: name }) = self;
        name.clone()
    }
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
    /// Reads `tokenizer_config.json`, `special_tokens_map.json`, `config.json` and
    /// `added_tokens.json` in a folder; a file that is missing says nothing.
    ///
    /// # Errors
    /// [`crate::Error::Data`] for a file that is not such JSON, and for a class that is not
    /// supported.
    pub fn read(folder: &Path) -> Result<Self> {
        let config = folder.join("tokenizer_config.json");
        let mut settings: PieceSettings = read_json(&config)?.unwrap_or_default();
        let model: ModelType = read_json(&folder.join("config.json"))?.unwrap_or_default();
        let model_type = model.model_type.as_deref().unwrap_or_default();
        let family = Class::of_model(model_type);
        let class = match &settings.tokenizer_class {
            Some(name) => Some(class_named(name, &config)?),
            None => family,
        };
        let mut named = settings.names();
        if settings.added_tokens_decoder.is_none() {
            // The older way of writing it down; then this file counts more.
            let path = folder.join("special_tokens_map.json");
            let map: PieceSettings = read_json(&path)?.unwrap_or_default();
            named = map.names().or(named);
        }
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
        let running_text = RUNNING_TEXT.contains(&model_type);
        Ok(Self { class, family, running_text, named, settings, added })
    }

    /// The class that builds a tokeniser where there is no `tokenizer.json`.
    pub fn builder(&self) -> Option<Class> {
        match self.class {
            None | Some(Class::AsItStands) => self.family,
            class => class,
        }
    }
}

/// The key of `tokenizer_config.json` that states the longest text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatedLength {
    model_max_length: Option<f64>,
}

/// Lengths from here on say that there is no limit; transformers writes 1e30.
const UNLIMITED: f64 = 1e9;

/// See [`super::Tokenizer::stated_length`].
pub(super) fn stated_length(folder: &Path) -> Result<Option<usize>> {
    let stated: StatedLength =
        read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let limited = stated.model_max_length.filter(|length| (1.0..UNLIMITED).contains(length));
    Ok(limited.map(|length| length as usize))
}

fn class_named(name: &str, config: &Path) -> Result<Class> {
    Class::named(name).ok_or_else(|| {
        DataError::new(config, format!("the class `{name}` is not supported yet"))
            .field("tokenizer_class")
            .hint(
                "if tokenizer.json holds the whole tokeniser, set tokenizer_class to \
                 PreTrainedTokenizerFast in a copy of the folder",
            )
            .into()
    })
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
