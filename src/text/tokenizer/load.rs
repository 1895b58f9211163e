//! Finding out what a path holds and opening it as a tokeniser.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use ahash::AHashMap;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, Lowercase};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper};

use super::TokenizerKind;
use crate::base::text_file;
use crate::{DataError, Error, Result};

/// The special pieces in front of the words of a vector file.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Those of RoBERTa.
const ROBERTA_SPECIAL: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
/// BERT gives up on longer words and says `[UNK]`.
const MAX_WORD_CHARS: usize = 100;
/// What each file must hold.
const HINT_JSON: &str = "expected a tokenizer.json of Hugging Face's tokenizers; of a vocab.json \
    with its merges.txt, name the folder";
const HINT_VOCABULARY: &str = "a vocab.txt has one piece a line, each of them once";
const HINT_BYTE_PAIRS: &str = "a vocab.json gives each piece its number, and a merges.txt has two \
    pieces a line, without a byte order mark";
const HINT_VECTORS: &str = "a line of word vectors is a word and its values, as many in each line, \
    with single blanks between";
const HINT_TEXT: &str = "expected a vocab.txt or a text file of word vectors, in UTF-8";

type Opened = (tokenizers::Tokenizer, TokenizerKind);

/// Opens whatever `path` holds; see [`Tokenizer::load_with`](super::Tokenizer::load_with).
pub(super) fn open(path: &Path, lowercase: Option<bool>) -> Result<Opened> {
    if path.is_dir() {
        return open_folder(path, lowercase);
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        return open_json(path, lowercase);
    }
    let lines = read_lines(path)?;
    if lines.first().is_some_and(|line| num_values(line) > 0) {
        word_level(path, &lines, lowercase)
    } else {
        bert(path, lines, lowercase)
    }
}

fn open_folder(folder: &Path, lowercase: Option<bool>) -> Result<Opened> {
    let (json, vocab) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
    if json.is_file() {
        return open_json(&json, lowercase);
    }
    if vocab.is_file() {
        let lines = read_lines(&vocab)?;
        return bert(&vocab, lines, lowercase);
    }
    if folder.join("vocab.json").is_file() {
        return byte_pairs(folder, lowercase);
    }
    Err(Error::recipe(format!("{} holds no tokeniser", folder.display())).with_hint(
        "name a folder with tokenizer.json or vocab.txt, a vocab.txt, or a file of word vectors",
    ))
}

/// A file that is not what its name says, in the words of the library that reads it.
fn broken(path: &Path, problem: &dyn Display, hint: &str) -> Error {
    DataError::new(path, problem.to_string()).hint(hint).into()
}

fn unsupported(path: &Path, what: &str) -> Error {
    Error::recipe(format!("{}: a tokeniser of kind {what} is not supported yet", path.display()))
        .with_hint("use a BERT WordPiece or a byte-level BPE tokeniser, or a file of word vectors")
}

/// Opens a `tokenizer.json`. Truncation and padding are taken off: views do that themselves.
fn open_json(path: &Path, lowercase: Option<bool>) -> Result<Opened> {
    let bytes = text_file::read_whole(path)?;
    let broken = |problem: &str, error: &dyn Display| {
        broken(path, &format!("{problem}: {error}"), HINT_JSON)
    };
    // The library panics over JSON that breaks off inside a decoder; what is JSON it refuses in
    // words.
    serde_json::from_slice::<serde_json::Value>(&bytes)
        .map_err(|error| broken("not valid JSON", &error))?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
        .map_err(|error| broken("this is no tokeniser", &error))?;
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| broken("its truncation cannot be taken off", &error))?;
    let kind = match tokenizer.get_model() {
        ModelWrapper::WordPiece(_) => TokenizerKind::WordPiece,
        ModelWrapper::WordLevel(_) => TokenizerKind::WordLevel,
        ModelWrapper::BPE(_) => TokenizerKind::BytePair,
        ModelWrapper::Unigram(_) => return Err(unsupported(path, "unigram")),
    };
    if let Some(lowercase) = lowercase {
        fold_case(&mut tokenizer, lowercase, path)?;
    }
    Ok((tokenizer, kind))
}

/// Overrides the case folding of a `tokenizer.json`.
fn fold_case(tokenizer: &mut tokenizers::Tokenizer, lowercase: bool, path: &Path) -> Result<()> {
    let normalizer: Option<NormalizerWrapper> = match tokenizer.get_normalizer() {
        Some(NormalizerWrapper::BertNormalizer(bert)) => Some(
            BertNormalizer::new(
                bert.clean_text,
                bert.handle_chinese_chars,
                bert.strip_accents,
                lowercase,
            )
            .into(),
        ),
        Some(NormalizerWrapper::Lowercase(_)) | None => lowercase.then(|| Lowercase.into()),
        Some(_) => {
            return Err(Error::recipe(format!(
                "{}: its case folding cannot be changed",
                path.display()
            ))
            .with_hint("leave `lowercase` out: tokenizer.json says itself what to do"));
        }
    };
    tokenizer.with_normalizer(normalizer);
    Ok(())
}

/// BERT's WordPiece tokeniser over the lines of a `vocab.txt`.
fn bert(path: &Path, lines: Vec<String>, lowercase: Option<bool>) -> Result<Opened> {
    let lowercase = match lowercase {
        Some(choice) => choice,
        None => configured_lowercase(path)?.unwrap_or_else(|| !named_cased(path)),
    };
    let vocab = number(path, lines)?;
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token("[UNK]".into())
        .continuing_subword_prefix("##".into());
    let model = model
        .max_input_chars_per_word(MAX_WORD_CHARS)
        .build()
        .map_err(|error| broken(path, &error, HINT_VOCABULARY))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, lowercase)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    finish(tokenizer, TokenizerKind::WordPiece)
}

/// RoBERTa's byte-level BPE from `vocab.json` and `merges.txt`. A word is tokenised as it stands,
/// without a blank before it.
fn byte_pairs(folder: &Path, lowercase: Option<bool>) -> Result<Opened> {
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    if !merges.is_file() {
        return Err(Error::recipe(format!(
            "{} has a vocab.json, but no merges.txt",
            folder.display()
        ))
        .with_hint("byte-level BPE needs both"));
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let model = BPE::from_file(&text(&vocab), &text(&merges))
        .build()
        .map_err(|error| broken(&vocab, &error, HINT_BYTE_PAIRS))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let present =
        ROBERTA_SPECIAL.into_iter().filter(|piece| tokenizer.token_to_id(piece).is_some());
    let special: Vec<AddedToken> = present.map(|piece| AddedToken::from(piece, true)).collect();
    tokenizer.add_special_tokens(&special);
    if let (Some(start), Some(end)) = (tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>"))
    {
        tokenizer.with_post_processor(Some(RobertaProcessing::new(
            ("</s>".into(), end),
            ("<s>".into(), start),
        )));
    }
    if let Some(lowercase) = lowercase {
        fold_case(&mut tokenizer, lowercase, &vocab)?;
    }
    Ok((tokenizer, TokenizerKind::BytePair))
}

/// One piece a word, over the first fields of a file of word vectors.
fn word_level(path: &Path, lines: &[String], lowercase: Option<bool>) -> Result<Opened> {
    let width = num_values(&lines[0]);
    let mut vocab: AHashMap<String, u32> = AHashMap::with_capacity(lines.len() + SPECIAL.len());
    for (row, line) in std::iter::zip(0.., lines) {
        // Words of some files hold blanks themselves, so the values are counted from the right.
        let word = line.trim_end().rsplitn(width + 1, ' ').nth(width);
        let word = word.ok_or_else(|| {
            DataError::new(path, format!("fewer than {width} values")).row(row).hint(HINT_VECTORS)
        })?;
        if vocab.is_empty() {
            vocab.extend(SPECIAL.iter().zip(0..).map(|(piece, id)| ((*piece).to_owned(), id)));
        }
        let next = vocab.len() as u32;
        vocab.entry(word.to_owned()).or_insert(next);
    }
    of_words(vocab, lowercase.unwrap_or(true), path)
}

/// One piece a word, over a numbered vocabulary; `[CLS]`, `[SEP]` and `[MASK]` are appended where
/// they are missing.
pub(super) fn of_words(
    mut vocab: AHashMap<String, u32>,
    lowercase: bool,
    path: &Path,
) -> Result<Opened> {
    for piece in &SPECIAL[2..] {
        let next = vocab.values().max().map_or(0, |highest| highest + 1);
        vocab.entry((*piece).to_owned()).or_insert(next);
    }
    let model = WordLevel::builder().vocab(vocab).unk_token("[UNK]".into()).build();
    let mut tokenizer =
        tokenizers::Tokenizer::new(model.map_err(|error| broken(path, &error, HINT_VECTORS))?);
    tokenizer.with_normalizer(lowercase.then_some(Lowercase));
    finish(tokenizer, TokenizerKind::WordLevel)
}

/// Marks the special pieces as such and frames sequences by `[CLS]` and `[SEP]`, for others who
/// open the saved tokeniser.
fn finish(mut tokenizer: tokenizers::Tokenizer, kind: TokenizerKind) -> Result<Opened> {
    let present = SPECIAL.into_iter().filter(|piece| tokenizer.token_to_id(piece).is_some());
    let special: Vec<AddedToken> = present.map(|piece| AddedToken::from(piece, true)).collect();
    tokenizer.add_special_tokens(&special);
    if let (Some(cls), Some(sep)) = (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]"))
    {
        tokenizer.with_post_processor(Some(BertProcessing::new(
            ("[SEP]".into(), sep),
            ("[CLS]".into(), cls),
        )));
    }
    Ok((tokenizer, kind))
}

/// Numbers the lines of a vocabulary.
fn number(path: &Path, lines: Vec<String>) -> Result<AHashMap<String, u32>> {
    let mut vocab = AHashMap::with_capacity(lines.len());
    for (row, piece) in (0u32..).zip(lines) {
        if let Some(first) = vocab.insert(piece, row) {
            let problem = format!("the piece of row {first} comes again");
            return Err(DataError::new(path, problem)
                .row(row as usize)
                .hint(HINT_VOCABULARY)
                .into());
        }
    }
    Ok(vocab)
}

/// What `tokenizer_config.json` beside the vocabulary says about case.
fn configured_lowercase(vocab: &Path) -> Result<Option<bool>> {
    let path = vocab.with_file_name("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let hint = "mend or remove it: of a tokeniser without tokenizer.json, only `do_lower_case` is \
        read there";
    let config: serde_json::Value = serde_json::from_slice(&text_file::read_whole(&path)?)
        .map_err(|error| broken(&path, &error, hint))?;
    Ok(config.get("do_lower_case").and_then(serde_json::Value::as_bool))
}

/// Whether the name of the file or its folder says `cased` and not `uncased`.
fn named_cased(vocab: &Path) -> bool {
    let folder = vocab.parent().and_then(Path::file_name);
    let names: PathBuf = [vocab.file_name(), folder].into_iter().flatten().collect();
    let names = names.to_string_lossy().to_lowercase();
    names.contains("cased") && !names.contains("uncased")
}

/// Number of values behind the word in a line of word vectors; 0 for the line of a vocabulary.
fn num_values(line: &str) -> usize {
    line.trim_end()
        .rsplit(' ')
        .take_while(|field| field.parse::<f32>().is_ok())
        .count()
        .min(line.trim_end().split(' ').count() - 1)
}

/// The lines of a text file, unpacked if its name ends in `.gz`.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (row, line) in BufReader::new(text_file::open(path)?).split(b'\n').enumerate() {
        let line = line.map_err(|error| text_file::unreadable(path, row, error))?;
        let line = String::from_utf8(line)
            .map_err(|_| DataError::new(path, "not UTF-8").row(row).hint(HINT_TEXT))?;
        lines.push(line.trim_end_matches('\r').to_owned());
    }
    if lines.is_empty() {
        return Err(DataError::new(path, "the file is empty").hint(HINT_TEXT).into());
    }
    Ok(lines)
}
