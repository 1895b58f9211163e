//! From one word to its word pieces, through the `tokenizers` library and a cache.
//!
//! Words are tokenised one by one and concatenated (docs/systems.md, C.1), with the pieces that
//! transformers gives for the same folder. Special pieces are never looked for in the text, so the
//! word `[SEP]` is three plain pieces. Not for: markers and special pieces inside a document; those
//! are put in when a view is made.

mod added;
mod charsmap;
mod class;
mod files;
mod load;
mod names;
mod save;
mod sentencepiece;
mod special;
mod unigram;

use std::path::Path;
use std::sync::Arc;

use ahash::AHashMap;
use tokenizers::tokenizer::Model;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use names::PieceNames;
pub use special::SpecialPieces;

use crate::{DataError, Error, Result};

/// Number of `[unusedK]` pieces that are kept ready unless told otherwise: `[unused0]` to
/// `[unused400]`, enough for the blank symbol, the masked mention and the markers of 199 entities.
pub const DEFAULT_RESERVED: usize = 401;

/// Words held by one cache before it is emptied, and their letters in bytes; they bound the memory
/// to roughly 10 MB a clone.
const CACHE_WORDS: usize = 100_000;
const CACHE_BYTES: usize = 1 << 21;

/// A tokeniser with its special pieces. A clone shares the vocabulary and starts with an empty
/// cache, so give each thread its own.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    cache: Cache,
}

/// What all clones share.
#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    kind: TokenizerKind,
    /// BERT's normaliser and splitter, which leave plain words whole; whether they fold case.
    plain: Option<bool>,
    special: SpecialPieces,
    vocab_size: usize,
    /// The serialised `tokenizer.json`.
    json: String,
    identity: String,
    warnings: Vec<String>,
    note: Option<String>,
}

/// A tokeniser as its files give it, before pieces are reserved.
#[derive(Debug)]
struct Opened {
    tokenizer: tokenizers::Tokenizer,
    kind: TokenizerKind,
    /// The special pieces that the files name.
    named: PieceNames,
    /// What looks wrong in the files, one sentence each.
    warnings: Vec<String>,
}

impl Opened {
    fn new(tokenizer: tokenizers::Tokenizer, kind: TokenizerKind, named: PieceNames) -> Self {
        Self { tokenizer, kind, named, warnings: Vec::new() }
    }

    /// Appends named special pieces that the vocabulary lacks, as transformers does. Only that of a
    /// hidden piece is usually missing.
    fn append_named(&mut self) {
        for name in self.named.all() {
            if self.tokenizer.token_to_id(name).is_some() {
                continue;
            }
            self.tokenizer.add_special_tokens(&[self.named.added(name)]);
            if self.named.mask.as_ref() != Some(name) {
                self.warnings.push(format!(
                    "the special piece `{name}` is not in the vocabulary and is added to it: is it \
                     the vocabulary of this folder?"
                ));
            }
        }
    }
}

/// The families of tokenisers that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// BERT's WordPiece.
    WordPiece,
    /// Byte-level BPE: RoBERTa, ModernBERT.
    BytePair,
    /// Sentencepiece's unigram model: DeBERTa, XLM-RoBERTa, ALBERT, XLNet.
    Unigram,
    /// One piece a word, for word vectors.
    WordLevel,
}

impl TokenizerKind {
    /// The name that manifests use.
    pub fn name(self) -> &'static str {
        match self {
            Self::WordPiece => "wordpiece",
            Self::BytePair => "byte-level-bpe",
            Self::Unigram => "unigram",
            Self::WordLevel => "word-level",
        }
    }
}

/// Pieces of the words met so far, in one flat list.
#[derive(Debug, Default)]
struct Cache {
    spans: AHashMap<String, (usize, usize)>,
    pieces: Vec<u32>,
    bytes: usize,
}

impl Clone for Tokenizer {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), cache: Cache::default() }
    }
}

impl Tokenizer {
    /// Opens a tokeniser with [`DEFAULT_RESERVED`] reserved pieces; see [`Self::load_with`].
    pub fn load(path: &Path, lowercase: Option<bool>) -> Result<Self> {
        Self::load_with(path, lowercase, DEFAULT_RESERVED)
    }

    /// Opens a folder with `tokenizer.json`, a folder with `vocab.txt` alone (BERT), `vocab.json`
    /// and `merges.txt` (RoBERTa) or the model of sentencepiece (`spm.model`, `spiece.model`,
    /// `sentencepiece.bpe.model`), one of these files, or a text file of word vectors (GloVe's
    /// format, gzipped or not).
    ///
    /// The class in `tokenizer_config.json` or `config.json` decides how the files are read, and
    /// the settings of `tokenizer_config.json` count, as in transformers. `lowercase` overrides
    /// what they say about case. Where nothing says it, BERT's vocabularies keep case if they hold
    /// capitals and fold it otherwise, and word vectors fold it. Pieces `[unused0]` to
    /// `[unused(reserved − 1)]` that the vocabulary lacks are appended to it.
    ///
    /// Errors: a recipe error for a path that holds no tokeniser or one of a kind that is not
    /// supported, and for too small a `reserved`; a data error for a broken file.
    pub fn load_with(path: &Path, lowercase: Option<bool>, reserved: usize) -> Result<Self> {
        Self::assemble(load::open(path, lowercase)?, reserved, path)
    }

    /// One piece a word, over words with their numbers; words fold case. `[PAD]` and `[UNK]` must
    /// be among them, the other special pieces are appended. `path` is where the words came from.
    ///
    /// Errors: a data error where a special piece is missing.
    pub fn of_words(words: impl IntoIterator<Item = (String, u32)>, path: &Path) -> Result<Self> {
        let opened = load::of_words(words.into_iter().collect(), true, path)?;
        Self::assemble(opened, DEFAULT_RESERVED, path)
    }

    fn assemble(mut opened: Opened, reserved: usize, path: &Path) -> Result<Self> {
        opened.append_named();
        let Opened { mut tokenizer, kind, named, warnings } = opened;
        let names = named.or(PieceNames::guess(&tokenizer));
        let without = kind != TokenizerKind::WordLevel && !has_reserved(&tokenizer);
        let special = SpecialPieces::reserve(&mut tokenizer, reserved, &names, path)?;
        let json =
            tokenizer.to_string(false).map_err(|error| DataError::new(path, error.to_string()))?;
        let vocab_size =
            tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let identity = blake3::hash(json.as_bytes()).to_hex().to_string();
        // Special pieces in the text are text.
        tokenizer.set_encode_special_tokens(true);
        let plain = plain_folding(&tokenizer);
        let note = without.then(|| {
            format!(
                "the vocabulary has no [unusedK] pieces; {reserved} are added to it for markers \
                 and masks, with the numbers {} to {}",
                special.unused[0],
                special.unused[reserved - 1]
            )
        });
        let inner =
            Inner { tokenizer, kind, plain, special, vocab_size, json, identity, warnings, note };
        Ok(Self { inner: Arc::new(inner), cache: Cache::default() })
    }

    /// The word pieces of one word; empty for a word that normalises to nothing, such as a lone
    /// U+00A0.
    pub fn tokenize_word(&mut self, word: &str) -> Result<&[u32]> {
        let (start, end) = match self.cache.spans.get(word) {
            Some(&span) => span,
            None => self.remember(word)?,
        };
        Ok(&self.cache.pieces[start..end])
    }

    fn remember(&mut self, word: &str) -> Result<(usize, usize)> {
        if self.cache.spans.len() >= CACHE_WORDS || self.cache.bytes >= CACHE_BYTES {
            self.cache = Cache::default();
        }
        let pieces = self
            .inner
            .tokenize(word)
            .map_err(|error| Error::Bug(format!("tokenising the word `{word}`: {error}")))?;
        let start = self.cache.pieces.len();
        self.cache.pieces.extend(pieces);
        let span = (start, self.cache.pieces.len());
        self.cache.spans.insert(word.to_owned(), span);
        self.cache.bytes += word.len();
        Ok(span)
    }

    /// The special pieces.
    pub fn special(&self) -> &SpecialPieces {
        &self.inner.special
    }

    /// Rows that an embedding table for this tokeniser needs: the highest number of a piece plus
    /// one.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The text of a piece.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// The number of a piece.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// The family.
    pub fn kind(&self) -> TokenizerKind {
        self.inner.kind
    }

    /// The longest text, in pieces, that the tokeniser of a folder states (`model_max_length` in
    /// `tokenizer_config.json`); `None` where it states none. Views do not keep to it by
    /// themselves.
    ///
    /// Errors: a data error for a file that is not such JSON, or a value that is not a number.
    pub fn stated_length(folder: &Path) -> Result<Option<usize>> {
        files::stated_length(folder)
    }

    /// What looks wrong in the files of the tokeniser, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// What was done to the vocabulary that a reader may want to know.
    pub fn note(&self) -> Option<&str> {
        self.inner.note.as_deref()
    }

    /// BLAKE3 of the serialised `tokenizer.json`: two tokenisers with the same identity give the
    /// same pieces.
    pub fn identity(&self) -> &str {
        &self.inner.identity
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and, for
    /// WordPiece, `vocab.txt` into a folder (made if needed), as Hugging Face's `AutoTokenizer`
    /// reads them. Loading the folder gives the same [`identity`](Self::identity).
    pub fn save(&self, folder: &Path) -> Result<()> {
        save::write(&self.inner, folder)
    }
}

/// Whether a vocabulary has pieces that are kept ready.
fn has_reserved(tokenizer: &tokenizers::Tokenizer) -> bool {
    (0..DEFAULT_RESERVED).any(|k| tokenizer.token_to_id(&format!("[unused{k}]")).is_some())
}

/// Whether a tokeniser is BERT's without pieces that are looked for in the text, and then whether
/// it folds case.
fn plain_folding(tokenizer: &tokenizers::Tokenizer) -> Option<bool> {
    if tokenizer.get_added_tokens_decoder().values().any(|piece| !piece.special) {
        return None;
    }
    match (tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer()) {
        (
            Some(NormalizerWrapper::BertNormalizer(bert)),
            Some(PreTokenizerWrapper::BertPreTokenizer(_)),
        ) => Some(bert.lowercase),
        _ => None,
    }
}

impl Inner {
    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<u32>> {
        match self.plain {
            // Nine words in ten. There is nothing to split or to clean in ASCII letters and digits.
            Some(lowercase)
                if word.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !word.is_empty() =>
            {
                let folded = if lowercase { word.to_ascii_lowercase() } else { word.to_owned() };
                let tokens = self.tokenizer.get_model().tokenize(&folded)?;
                Ok(tokens.into_iter().map(|token| token.id).collect())
            }
            _ => Ok(self.tokenizer.encode_fast(word, false)?.get_ids().to_vec()),
        }
    }
}

#[cfg(test)]
mod family_tests;
#[cfg(test)]
mod tests;
