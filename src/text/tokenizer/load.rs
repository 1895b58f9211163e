//! Finding out what a path holds and opening it as a tokeniser.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::path::Path;

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
use tokenizers::tokenizer::{Model as _, NormalizedString, Normalizer as _};
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::added::{add_pieces, broken};
use super::class::Class;
use super::files::TokenizerFiles;
use super::names::PieceNames;
use super::{Opened, TokenizerKind, charsmap, unigram};
use crate::base::{catch_panic, panics, text_file};
use crate::hub::{self, RepoName, Wanted};
use crate::{DataError, Error, Result};

/// The special pieces in front of the words of a vector file.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Those of RoBERTa.
const ROBERTA_SPECIAL: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
/// Share of pieces with capitals from which a vocabulary counts as cased. (Uncased vocabularies
/// hold a few, which nothing reaches: one piece in 200 of SciBERT's.)
const CASED: f64 = 0.01;
/// Share of pieces that folding may make unreachable before somebody is told.
const MAX_UNREACHABLE: f64 = 0.05;
/// BERT gives up on longer words and says `[UNK]`.
const MAX_WORD_CHARS: usize = 100;
/// What each file must hold.
const HINT_JSON: &str = "expected a tokenizer.json of Hugging Face's tokenizers; of a vocab.json \
    with its merges.txt, name the folder";
const HINT_VOCABULARY: &str = "a vocab.txt has one piece a line";
const HINT_BYTE_PAIRS: &str = "a vocab.json gives each piece its number, and a merges.txt has two \
    pieces a line, without a byte order mark";
const HINT_VECTORS: &str = "a line of word vectors is a word and its values, as many in each line, \
    with single blanks between";
const HINT_TEXT: &str = "expected a vocab.txt or a text file of word vectors, in UTF-8";

/// Opens whatever `path` holds; see [`Tokenizer::load_with`](super::Tokenizer::load_with).
pub(super) fn open(path: &Path, lowercase: Option<bool>) -> Result<Opened> {
    if path.is_dir() {
        return open_folder(path, lowercase);
    }
    if !path.exists() {
        if let Some(name) = path.to_str().and_then(RepoName::parse) {
            return open_folder(&hub::fetch(&name, Wanted::Tokenizer)?.folder, lowercase);
        }
        return Err(Error::recipe(format!("there is no tokeniser at {}", path.display()))
            .with_hint(
                "name a folder with tokenizer.json, vocab.txt or spm.model, a vocab.txt, a file of \
                 word vectors, or a repository of the Hugging Face Hub as ORG/NAME",
            ));
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        return open_json(path, lowercase);
    }
    if path.extension().is_some_and(|extension| extension == "model") {
        return unigram::open(path, lowercase);
    }
    let mut lines = read_lines(path)?;
    if is_vector_header(&lines) {
        lines.remove(0);
    }
    if lines.first().is_some_and(|line| num_values(line) > 0) {
        word_level(path, &lines, lowercase)
    } else {
        open_vocabulary(path, lines, lowercase)
    }
}

fn open_folder(folder: &Path, lowercase: Option<bool>) -> Result<Opened> {
    let (json, vocab) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
    if json.is_file() {
        return open_json(&json, lowercase);
    }
    if vocab.is_file() {
        return open_vocabulary(&vocab, read_lines(&vocab)?, lowercase);
    }
    if folder.join("vocab.json").is_file() {
        return byte_pairs(folder, lowercase);
    }
    let mut models = unigram::MODEL_FILES.iter().map(|name| folder.join(name));
    if let Some(model) = models.find(|model| model.is_file()) {
        return unigram::open(&model, lowercase);
    }
    Err(Error::recipe(format!("{} holds no tokeniser", folder.display())).with_hint(
        "name a folder with tokenizer.json, vocab.txt or spm.model, a vocab.txt, or a file of word \
         vectors",
    ))
}

/// Opens a `tokenizer.json`: as it stands, or its vocabulary under the class and the settings that
/// the files beside it name.
fn open_json(path: &Path, lowercase: Option<bool>) -> Result<Opened> {
    let bytes = text_file::read_whole(path)?;
    let broken = |problem: &str, error: &dyn Display| {
        broken(path, &format!("{problem}: {error}"), HINT_JSON)
    };
    // The library panics on JSON that breaks off inside a decoder, but refuses valid JSON politely.
    let json: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| broken("not valid JSON", &error))?;
    charsmap::check_json(&json).map_err(|error| broken("not a tokeniser", &error))?;
    // It also panics on some values of the right type.
    let mut tokenizer = catch_panic(|| tokenizers::Tokenizer::from_bytes(bytes))
        .map_err(|panic| broken("not a tokeniser", &panics::message(&*panic).unwrap_or("panic")))?
        .map_err(|error| broken("not a tokeniser", &error))?;
    if matches!(tokenizer.get_model(), ModelWrapper::Unigram(_))
        && json["model"]["unk_id"].is_null()
    {
        return Err(broken("not a tokeniser", &"its unigram model names no unknown piece"));
    }
    // Views cut and pad by themselves.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| broken("its truncation cannot be taken off", &error))?;
    let files = TokenizerFiles::read(path.parent().unwrap_or(Path::new("")))?;
    match (files.class, tokenizer.get_model()) {
        (Some(Class::Bert | Class::Mpnet), ModelWrapper::WordPiece(model)) => {
            let stated = match tokenizer.get_normalizer() {
                Some(NormalizerWrapper::BertNormalizer(bert)) => Some(*bert),
                _ => None,
            };
            let pieces = model.get_vocab().into_iter().collect();
            let mut opened = bert(path, pieces, &files, Folding { asked: lowercase, stated })?;
            if files.added.is_empty() {
                add_pieces(&mut opened.tokenizer, tokenizer.get_added_tokens_decoder(), path)?;
            }
            Ok(opened)
        }
        (Some(Class::Roberta), ModelWrapper::BPE(_)) => {
            let prefix = files.settings.add_prefix_space.unwrap_or(false);
            tokenizer.with_normalizer(lowercase.unwrap_or(false).then_some(Lowercase));
            tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix, true, true)));
            add_pieces(&mut tokenizer, files.added, path)?;
            Ok(Opened::new(tokenizer, TokenizerKind::BytePair, files.named))
        }
        (
            Some(Class::DebertaV2 | Class::XlmRoberta | Class::Albert | Class::Xlnet),
            ModelWrapper::Unigram(_),
        )
        | (Some(Class::AsItStands) | None, _) => as_it_stands(tokenizer, files, path, lowercase),
        (Some(_), _) => Err(DataError::new(
            path,
            "holds another kind of tokeniser than the files beside it say",
        )
        .hint(
            "compare tokenizer_class in tokenizer_config.json and model_type in \
                     config.json with the model of tokenizer.json",
        )
        .into()),
    }
}

/// A `tokenizer.json` whose steps count as they stand; of the files beside it, those settings count
/// that transformers looks at for any class.
fn as_it_stands(
    mut tokenizer: tokenizers::Tokenizer,
    files: TokenizerFiles,
    path: &Path,
    lowercase: Option<bool>,
) -> Result<Opened> {
    let kind = match tokenizer.get_model() {
        ModelWrapper::WordPiece(_) => TokenizerKind::WordPiece,
        ModelWrapper::WordLevel(_) => TokenizerKind::WordLevel,
        ModelWrapper::BPE(_) => TokenizerKind::BytePair,
        ModelWrapper::Unigram(_) => TokenizerKind::Unigram,
    };
    if let Some(PreTokenizerWrapper::ByteLevel(bytes)) = tokenizer.get_pre_tokenizer() {
        let mut bytes = *bytes;
        bytes.add_prefix_space = files.settings.add_prefix_space.unwrap_or(files.running_text);
        tokenizer.with_pre_tokenizer(Some(bytes));
    }
    add_pieces(&mut tokenizer, files.added, path)?;
    if let Some(lowercase) = lowercase {
        fold_case(&mut tokenizer, lowercase, path)?;
    }
    let usual = files.class.map_or_else(PieceNames::default, PieceNames::of_class);
    Ok(Opened::new(tokenizer, kind, files.named.or(usual)))
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

/// Who decides about case: what the user asks for goes first, then what `tokenizer_config.json`
/// says, then the vocabulary itself.
#[derive(Clone, Copy)]
struct Folding {
    /// What the user asks for.
    asked: Option<bool>,
    /// The normaliser of a `tokenizer.json`.
    stated: Option<BertNormalizer>,
}

/// Opens the lines of a `vocab.txt`: BERT's WordPiece, unless the files beside it name another
/// class.
fn open_vocabulary(path: &Path, lines: Vec<String>, lowercase: Option<bool>) -> Result<Opened> {
    let files = TokenizerFiles::read(path.parent().unwrap_or(Path::new("")))?;
    let needs = match files.builder() {
        None | Some(Class::Bert | Class::Mpnet) => None,
        Some(Class::Roberta) => Some("RoBERTa's tokeniser needs vocab.json and merges.txt"),
        Some(_) => Some("a vocab.txt is not what the family of this folder is tokenised with"),
    };
    if let Some(needs) = needs {
        return Err(DataError::new(path, needs)
            .hint("compare tokenizer_class and model_type with the files of the folder")
            .into());
    }
    let (pieces, twice) = number(lines);
    let mut opened = bert(path, pieces, &files, Folding { asked: lowercase, stated: None })?;
    if let Some((piece, count)) = twice {
        opened.warnings.push(format!(
            "{}: {count} pieces come twice, such as `{piece}`; the later line counts",
            path.display()
        ));
    }
    Ok(opened)
}

/// BERT's WordPiece tokeniser, as transformers builds it from a vocabulary and the settings.
fn bert(
    path: &Path,
    pieces: AHashMap<String, u32>,
    files: &TokenizerFiles,
    case: Folding,
) -> Result<Opened> {
    let mut warnings = Vec::new();
    let settings = &files.settings;
    let capitals = pieces.keys().filter(|piece| has_capitals(piece)).count();
    let lowercase = case.asked.or(settings.do_lower_case).unwrap_or_else(|| {
        if (capitals as f64) < CASED * pieces.len() as f64 {
            return true;
        }
        let folded = case.stated.is_some_and(|bert| bert.lowercase);
        if !folded {
            warnings.push(format!(
                "{}: {capitals} pieces have capitals, so case is kept; transformers would fold it, \
                 since no tokenizer_config.json says `do_lower_case`",
                path.display()
            ));
        }
        folded
    });
    let mpnet = files.builder() == Some(Class::Mpnet);
    // MPNet's class does not compare this setting with its tokenizer.json.
    let stated_blanks = case.stated.filter(|_| mpnet).map(|bert| bert.handle_chinese_chars);
    let normalizer = BertNormalizer::new(
        true,
        stated_blanks.unwrap_or(settings.tokenize_chinese_chars),
        settings.strip_accents,
        lowercase,
    );
    let named = files.named.clone();
    let named = if mpnet { named.or(PieceNames::of_class(Class::Mpnet)) } else { named };
    let changed = |piece: &&String| !is_special(piece) && changes(&normalizer, piece);
    let unreachable = pieces.keys().filter(changed).count();
    if unreachable as f64 > MAX_UNREACHABLE * pieces.len() as f64 {
        warnings.push(format!(
            "{}: folding makes {unreachable} of {} pieces unreachable: is the vocabulary cased?",
            path.display(),
            pieces.len()
        ));
    }
    let model = WordPiece::builder()
        .vocab(pieces)
        .unk_token(named.unk.clone().unwrap_or_else(|| "[UNK]".to_owned()))
        .continuing_subword_prefix("##".into())
        .max_input_chars_per_word(MAX_WORD_CHARS)
        .build()
        .map_err(|error| broken(path, &error, HINT_VOCABULARY))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    let mut opened = finish(tokenizer, TokenizerKind::WordPiece, named);
    add_pieces(&mut opened.tokenizer, files.added.clone(), path)?;
    opened.warnings = warnings;
    Ok(opened)
}

/// Whether a piece stands for something else than text.
fn is_special(piece: &str) -> bool {
    (piece.starts_with('[') && piece.ends_with(']'))
        || (piece.starts_with('<') && piece.ends_with('>'))
}

/// Whether a piece holds letters that folding case changes; ℝ, for one, stays.
fn has_capitals(piece: &str) -> bool {
    !is_special(piece) && piece.to_lowercase() != piece
}

/// Whether a normaliser changes more of a piece than the blanks around Han characters.
fn changes(normalizer: &BertNormalizer, piece: &str) -> bool {
    let mut text = NormalizedString::from(piece);
    normalizer.normalize(&mut text).is_ok() && text.get().replace(' ', "") != piece
}

/// RoBERTa's byte-level BPE from `vocab.json` and `merges.txt`. A word is tokenised without a blank
/// before it, unless the settings say `add_prefix_space`.
fn byte_pairs(folder: &Path, lowercase: Option<bool>) -> Result<Opened> {
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    if !merges.is_file() {
        return Err(Error::recipe(format!(
            "{} has a vocab.json, but no merges.txt",
            folder.display()
        ))
        .with_hint("byte-level BPE needs both"));
    }
    let files = TokenizerFiles::read(folder)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let model = BPE::from_file(&text(&vocab), &text(&merges))
        .build()
        .map_err(|error| broken(&vocab, &error, HINT_BYTE_PAIRS))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let prefix = files.settings.add_prefix_space.unwrap_or(false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix, true, true)));
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
    add_pieces(&mut tokenizer, files.added, folder)?;
    if let Some(lowercase) = lowercase {
        fold_case(&mut tokenizer, lowercase, &vocab)?;
    }
    Ok(Opened::new(tokenizer, TokenizerKind::BytePair, files.named))
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
    Ok(finish(tokenizer, TokenizerKind::WordLevel, PieceNames::default()))
}

/// Marks the special pieces as such and frames sequences by the first and the last of them, for
/// others who open the saved tokeniser.
fn finish(mut tokenizer: tokenizers::Tokenizer, kind: TokenizerKind, named: PieceNames) -> Opened {
    let name = |name: &Option<String>, usual: &str| name.clone().unwrap_or(usual.to_owned());
    let (cls, sep) = (name(&named.cls, "[CLS]"), name(&named.sep, "[SEP]"));
    if cls == "[CLS]" {
        let present = SPECIAL.into_iter().filter(|piece| tokenizer.token_to_id(piece).is_some());
        let special: Vec<AddedToken> = present.map(|piece| AddedToken::from(piece, true)).collect();
        tokenizer.add_special_tokens(&special);
    }
    let special = named.present(&tokenizer);
    tokenizer.add_special_tokens(&special);
    if let (Some(start), Some(end)) = (tokenizer.token_to_id(&cls), tokenizer.token_to_id(&sep)) {
        tokenizer.with_post_processor(Some(BertProcessing::new((sep, end), (cls, start))));
    }
    Opened::new(tokenizer, kind, named)
}

/// Numbers the lines of a vocabulary. Of a piece that comes twice the later line counts, as in
/// transformers, and the earlier line becomes `[missingN]`, so that every number has a piece. The
/// first such piece is returned, and how many there are.
fn number(lines: Vec<String>) -> (AHashMap<String, u32>, Option<(String, usize)>) {
    let mut pieces = AHashMap::with_capacity(lines.len());
    let mut twice: Option<(String, usize)> = None;
    for (row, piece) in (0u32..).zip(lines) {
        if let Some(earlier) = pieces.insert(piece.clone(), row) {
            pieces.insert(format!("[missing{earlier}]"), earlier);
            twice.get_or_insert((piece, 0)).1 += 1;
        }
    }
    (pieces, twice)
}

/// Whether the first line is the header of word2vec and fastText: the number of words and the
/// width.
fn is_vector_header(lines: &[String]) -> bool {
    let [first, second, ..] = lines else { return false };
    let numbers: Vec<usize> =
        first.split_whitespace().map_while(|field| field.parse().ok()).collect();
    numbers.len() == 2
        && first.split_whitespace().count() == 2
        && numbers[1] == num_values(second)
        && numbers[1] > 0
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
