//! A word-piece tokenizer for the generated world: lower-cased, in BERT's file layout, made of the
//! world's own words.
//!
//! The vocabulary is counted, not trained: frequent words are pieces of their own, and all others
//! are made of the syllables of names and of single characters. This is exact, fast and the same on
//! every machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ahash::AHashMap;
use serde_json::json;
use tokenizers::{
    AddedToken, Tokenizer, decoders::wordpiece::WordPiece as Decoder, models::wordpiece::WordPiece,
    normalizers::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer,
    processors::bert::BertProcessing,
};

use super::{
    generator::{Split, WorldGenerator},
    names,
    options::WorldOptions,
};
use crate::base::files::write_whole;
use crate::{Error, Result};

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const UNUSED: usize = 400;
const VOCABULARY: usize = 4_000;
/// Documents whose words are counted, and the size of their world: a small world has too few names
/// to fill a vocabulary.
const SAMPLE: usize = 1_000;
const SAMPLED_WORLD: usize = 20_000;
const MAX_CHARS_PER_WORD: usize = 100;
const MODEL_MAX_LENGTH: usize = 512;
const CONTINUES: &str = "##";

/// Writes `tokenizer.json`, `vocab.txt` and `tokenizer_config.json` into `folder`; returns the size
/// of the vocabulary.
pub(super) fn write(options: &WorldOptions, folder: &Path) -> Result<usize> {
    let generator =
        WorldGenerator::new(&WorldOptions { distant: SAMPLED_WORLD, ..options.clone() });
    let vocabulary = vocabulary(&generator)?;
    let tokenizer = build(&vocabulary)?;
    let text = tokenizer.to_string(true).map_err(bug)?;
    write_whole(&folder.join("vocab.txt"), (vocabulary.join("\n") + "\n").as_bytes())?;
    write_whole(&folder.join("tokenizer_config.json"), format!("{:#}\n", config()).as_bytes())?;
    write_whole(&folder.join("tokenizer.json"), text.as_bytes())?;
    Ok(vocabulary.len())
}

fn bug(error: impl std::fmt::Display) -> Error {
    Error::Bug(format!("the world's tokenizer could not be built: {error}"))
}

fn config() -> serde_json::Value {
    json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": true,
        "model_max_length": MODEL_MAX_LENGTH,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    })
}

/// Special pieces, unused pieces, characters, syllables, then words by falling frequency.
fn vocabulary(generator: &WorldGenerator) -> Result<Vec<String>> {
    let counts = count_words(generator)?;
    let mut pieces: Vec<String> = SPECIAL.iter().map(|piece| (*piece).to_owned()).collect();
    pieces.extend((0..UNUSED).map(|number| format!("[unused{number}]")));
    let mut seen: BTreeSet<String> = pieces.iter().cloned().collect();
    let mut by_count: Vec<(&String, &usize)> = counts.iter().collect();
    by_count.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let words = by_count.into_iter().map(|(word, _)| word.clone());
    for piece in characters(&counts).into_iter().chain(syllables()).chain(words) {
        if pieces.len() < VOCABULARY && seen.insert(piece.clone()) {
            pieces.push(piece);
        }
    }
    Ok(pieces)
}

/// Words as the normaliser and pre-tokeniser of [`build`] see them.
fn count_words(generator: &WorldGenerator) -> Result<BTreeMap<String, usize>> {
    use tokenizers::{
        NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
        PreTokenizer,
    };
    let mut counts = BTreeMap::new();
    for index in 0..SAMPLE {
        for sentence in generator.tell(Split::Distant, index).document.sentences {
            let mut text = NormalizedString::from(sentence.join(" "));
            normalizer().normalize(&mut text).map_err(bug)?;
            let mut text = PreTokenizedString::from(text);
            BertPreTokenizer.pre_tokenize(&mut text).map_err(bug)?;
            for (word, _, _) in text.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(counts)
}

fn characters(counts: &BTreeMap<String, usize>) -> Vec<String> {
    let mut characters: BTreeSet<char> = counts.keys().flat_map(|word| word.chars()).collect();
    characters.extend('a'..='z');
    characters.extend('0'..='9');
    let alone = characters.iter().map(char::to_string);
    alone.chain(characters.iter().map(|character| format!("{CONTINUES}{character}"))).collect()
}

fn syllables() -> Vec<String> {
    let later = ["middle syllables", "ends of families", "ends of cities", "ends of countries"];
    let later = later.iter().flat_map(|heading| names::parts(heading));
    // The normaliser strips accents, so the pieces have none.
    let later = later.map(|syllable| format!("{CONTINUES}{}", syllable.replace('ö', "o")));
    let first = names::parts("first syllables").iter().map(|syllable| syllable.to_lowercase());
    first.chain(later).collect()
}

fn normalizer() -> BertNormalizer {
    BertNormalizer::new(true, true, None, true)
}

fn build(vocabulary: &[String]) -> Result<Tokenizer> {
    let ids: AHashMap<String, u32> =
        vocabulary.iter().enumerate().map(|(id, piece)| (piece.clone(), id as u32)).collect();
    let id = |piece: &str| ids.get(piece).copied().unwrap_or_default();
    let (cls, sep) = (("[CLS]".to_owned(), id("[CLS]")), ("[SEP]".to_owned(), id("[SEP]")));
    let model = WordPiece::builder()
        .vocab(ids.clone())
        .unk_token("[UNK]".to_owned())
        .max_input_chars_per_word(MAX_CHARS_PER_WORD)
        .build();
    let mut tokenizer = Tokenizer::new(model.map_err(bug)?);
    tokenizer.with_normalizer(Some(normalizer()));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
    tokenizer.with_decoder(Some(Decoder::default()));
    tokenizer.add_special_tokens(&SPECIAL.map(|piece| AddedToken::from(piece, true)));
    Ok(tokenizer)
}
