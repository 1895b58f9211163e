//! Tokenisers of sentencepiece families from the model file alone, made as transformers makes them:
//! vocabulary and numbers, normaliser, and the frame of a sequence, by class.
//!
//! Where a folder has a `tokenizer.json` too, that file counts. Not for: reading the file
//! (`sentencepiece`).

use std::path::Path;

use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{
    Lowercase, NFKD, Precompiled, Sequence as Normalizers, Strip, StripAccents,
};
use tokenizers::pre_tokenizers::metaspace::Metaspace;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, SplitDelimiterBehavior};

use super::added::{add_pieces, broken};
use super::class::Class;
use super::files::{PieceSettings, TokenizerFiles};
use super::names::PieceNames;
use super::sentencepiece::{CONTROL, PieceModel, ScoredPiece, UNIGRAM, USER_DEFINED};
use super::{Opened, TokenizerKind, charsmap};
use crate::{DataError, Result};

/// What a model file of sentencepiece is called, by family.
pub(super) const MODEL_FILES: [&str; 3] = ["spm.model", "sentencepiece.bpe.model", "spiece.model"];
const HINT: &str =
    "expected the model file of a unigram tokeniser of sentencepiece: copy or download it again";
/// How much less likely a piece is that ends in a digit and a comma (ALBERT, XLNet).
const COMMA_PENALTY: f64 = 100.0;

/// Opens a model file; `lowercase` overrides what the files beside it say about case.
pub(super) fn open(path: &Path, lowercase: Option<bool>) -> Result<Opened> {
    let bytes = fs_err::read(path)?;
    let model = PieceModel::parse(&bytes).map_err(|problem| broken(path, &problem, HINT))?;
    if model.model_type != UNIGRAM {
        let problem = format!("a sentencepiece model of type {}, not unigram", model.model_type);
        return Err(DataError::new(path, problem).hint(HINT).into());
    }
    if !model.charsmap.is_empty() {
        charsmap::check(&model.charsmap).map_err(|problem| broken(path, &problem, HINT))?;
    }
    let files = TokenizerFiles::read(path.parent().unwrap_or(Path::new("")))?;
    let class = class_of(path, &files)?;
    let mut opened = build(path, &model, class, &files, lowercase)?;
    add_pieces(&mut opened.tokenizer, files.added, path)?;
    Ok(opened)
}

/// The family, from the files beside the model or from its name.
fn class_of(path: &Path, files: &TokenizerFiles) -> Result<Class> {
    match files.builder() {
        Some(class @ (Class::DebertaV2 | Class::XlmRoberta | Class::Albert | Class::Xlnet)) => {
            Ok(class)
        }
        None if path.file_name().is_some_and(|name| name == MODEL_FILES[0]) => Ok(Class::DebertaV2),
        None => Err(DataError::new(path, "no file beside it says which family it belongs to")
            .hint(
                "put config.json with its `model_type`, or tokenizer_config.json with its \
                 `tokenizer_class`, beside it",
            )
            .into()),
        Some(_) => Err(DataError::new(
            path,
            "the files beside it name a family without a model of sentencepiece",
        )
        .hint("compare `tokenizer_class` and `model_type` with the files of the folder")
        .into()),
    }
}

fn build(
    path: &Path,
    model: &PieceModel,
    class: Class,
    files: &TokenizerFiles,
    lowercase: Option<bool>,
) -> Result<Opened> {
    let (vocab, unk_id) = vocabulary(model, class).map_err(|text| broken(path, &text, HINT))?;
    let unigram =
        Unigram::from(vocab, Some(unk_id), false).map_err(|error| broken(path, &error, HINT))?;
    let mut tokenizer = tokenizers::Tokenizer::new(unigram);
    let normalizers = normalizers(model, class, &files.settings, lowercase)
        .map_err(|error| broken(path, &error, HINT))?;
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));
    if class == Class::DebertaV2 && files.settings.split_by_punct {
        let punctuation = Punctuation::new(SplitDelimiterBehavior::Isolated);
        let steps = vec![punctuation.into(), Metaspace::default().into()];
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
    } else {
        tokenizer.with_pre_tokenizer(Some(Metaspace::default()));
    }
    tokenizer.with_decoder(Some(Metaspace::default()));
    let added: Vec<AddedToken> = model.pieces.iter().filter_map(|p| added(p, class)).collect();
    tokenizer.add_tokens(&added);
    let named = files.named.clone().or(PieceNames::of_class(class));
    let special = named.present(&tokenizer);
    tokenizer.add_special_tokens(&special);
    let mut opened = Opened::new(tokenizer, TokenizerKind::Unigram, named);
    opened.append_named();
    let template = template(&opened, class).map_err(|error| broken(path, &error, HINT))?;
    opened.tokenizer.with_post_processor(Some(template));
    Ok(opened)
}

type Vocabulary = Vec<(String, f64)>;

/// Pieces with their scores, and the number of the unknown piece.
fn vocabulary(model: &PieceModel, class: Class) -> Result<(Vocabulary, usize), String> {
    let score = |piece: &ScoredPiece| match class {
        Class::Albert | Class::Xlnet if ends_in_digit_and_comma(&piece.text) => {
            f64::from(piece.score) - COMMA_PENALTY
        }
        _ => f64::from(piece.score),
    };
    let scored = model.pieces.iter().map(|piece| (piece.text.clone(), score(piece)));
    if class != Class::XlmRoberta {
        let count = model.pieces.len();
        if model.unk_id >= count {
            return Err(format!("the unknown piece is number {} of {count}", model.unk_id));
        }
        return Ok((scored.collect(), model.unk_id));
    }
    // The file begins with <unk>, <s> and </s>.
    let first: Vec<&str> = model.pieces.iter().take(3).map(|piece| piece.text.as_str()).collect();
    if first != ["<unk>", "<s>", "</s>"] {
        return Err(format!("begins with the pieces {first:?}, not with <unk>, <s> and </s>"));
    }
    let special = |name: &str| (name.to_owned(), 0.0);
    let start = ["<s>", "<pad>", "</s>", "<unk>"].map(special);
    Ok((start.into_iter().chain(scored.skip(3)).chain([special("<mask>")]).collect(), 3))
}

fn ends_in_digit_and_comma(piece: &str) -> bool {
    let mut last = piece.chars().rev();
    last.next() == Some(',') && last.next().is_some_and(char::is_numeric)
}

fn normalizers(
    model: &PieceModel,
    class: Class,
    settings: &PieceSettings,
    lowercase: Option<bool>,
) -> tokenizers::Result<Vec<NormalizerWrapper>> {
    let text = |pattern: &str| ReplacePattern::String(pattern.to_owned());
    let blanks = || ReplacePattern::Regex(" {2,}".to_owned());
    let folds = lowercase.or(settings.do_lower_case).unwrap_or(class == Class::Albert);
    let map = match model.charsmap.as_slice() {
        [] => None,
        map => Some(Precompiled::from(map).map_err(|error| error.to_string())?.into()),
    };
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    match class {
        Class::Albert | Class::Xlnet => {
            steps.push(Replace::new(text("``"), "\"")?.into());
            steps.push(Replace::new(text("''"), "\"")?.into());
            if !settings.keep_accents {
                steps.push(NFKD.into());
                steps.push(StripAccents.into());
            }
            steps.extend(folds.then(|| Lowercase.into()));
            steps.extend(map);
            steps.push(Replace::new(blanks(), " ")?.into());
        }
        Class::DebertaV2 => {
            steps.extend(folds.then(|| Lowercase.into()));
            steps.push(Strip::new(true, true).into());
            steps.extend(map);
            steps.push(Replace::new(blanks(), " ")?.into());
        }
        // XLM-RoBERTa, whose class knows nothing of case.
        _ => {
            steps.extend(lowercase.unwrap_or(false).then(|| Lowercase.into()));
            steps.extend(map);
            steps.push(Strip::new(false, true).into());
            steps.push(Replace::new(blanks(), "▁")?.into());
        }
    }
    Ok(steps)
}

/// A piece of the file that is no ordinary one. The given pieces of ALBERT and XLNet stay ordinary
/// ones of score 0, as in their published `tokenizer.json`.
fn added(piece: &ScoredPiece, class: Class) -> Option<AddedToken> {
    match piece.kind {
        CONTROL => Some(AddedToken::from(piece.text.as_str(), true)),
        USER_DEFINED if matches!(class, Class::DebertaV2 | Class::XlmRoberta) => {
            Some(AddedToken::from(piece.text.as_str(), false).normalized(false))
        }
        _ => None,
    }
}

/// How a text and a pair of texts are framed.
fn template(opened: &Opened, class: Class) -> Result<TemplateProcessing, String> {
    let named = [&opened.named.cls, &opened.named.sep];
    let [cls, sep] = named.map(|name| name.as_deref().unwrap_or_default());
    let number = |name: &str| {
        let id = opened.tokenizer.token_to_id(name);
        id.map(|id| (name.to_owned(), id)).ok_or_else(|| format!("no piece `{name}`"))
    };
    let (single, pair) = match class {
        Class::Xlnet => {
            (format!("$A:0 {sep}:0 {cls}:2"), format!("$A:0 {sep}:0 $B:1 {sep}:1 {cls}:2"))
        }
        Class::XlmRoberta => (format!("{cls} $A {sep}"), format!("{cls} $A {sep} {sep} $B {sep}")),
        _ => (format!("{cls}:0 $A:0 {sep}:0"), format!("{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")),
    };
    TemplateProcessing::builder()
        .try_single(single)
        .and_then(|builder| builder.try_pair(pair))
        .map(|builder| builder.special_tokens(vec![number(cls)?, number(sep)?]).build())?
        .map_err(|error| error.to_string())
}
