//! Reads the parity fixtures: documents in pieces, and tensors. Only for tests.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use crate::text::{SpecialPieces, TokenizedDocument, TokenizedEntity, TokenizedMention, Tokenizer};

/// The folder of a case of the reference data.
pub(crate) fn case(name: &str) -> PathBuf {
    crate::reference_data().join("parity").join(name)
}

pub(crate) fn json(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&fs_err::read(folder.join(file)).unwrap()).unwrap()
}

/// A tensor's shape and its numbers; integers are exact in f64.
pub(crate) struct FixtureTensor {
    pub(crate) shape: Vec<usize>,
    numbers: Vec<f64>,
}

impl FixtureTensor {
    pub(crate) fn read(folder: &Path, name: &str) -> Self {
        let bytes = fs_err::read(folder.join("inputs.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let numbers = match tensor.dtype() {
            safetensors::Dtype::I64 => tensor
                .data()
                .chunks(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                .collect(),
            safetensors::Dtype::F32 => tensor
                .data()
                .chunks(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect(),
            other => panic!("{name} has dtype {other:?}"),
        };
        Self { shape: tensor.shape().to_vec(), numbers }
    }

    /// The numbers below the given leading indices.
    pub(crate) fn row(&self, at: &[usize]) -> &[f64] {
        let width: usize = self.shape[at.len()..].iter().product();
        let row = at.iter().zip(&self.shape).fold(0, |row, (i, size)| row * size + i);
        &self.numbers[row * width..(row + 1) * width]
    }

    pub(crate) fn ints(&self, at: &[usize]) -> Vec<i64> {
        self.row(at).iter().map(|&x| x as i64).collect()
    }
}

/// The reference vocabulary.
pub(crate) struct Vocabulary {
    tokenizer: tokenizers::Tokenizer,
    pub(crate) special: SpecialPieces,
}

impl Vocabulary {
    pub(crate) fn beside(case: &Path) -> Self {
        let file = case.with_file_name("vocab.txt");
        let model =
            WordPiece::from_file(file.to_str().unwrap()).unk_token("[UNK]".into()).build().unwrap();
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)));
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        let special = Tokenizer::load(&file, Some(true)).unwrap().special().clone();
        Self { tokenizer, special }
    }

    /// A DocRED document in pieces; without facts.
    pub(crate) fn tokenize(&self, document: &Value) -> TokenizedDocument {
        let mut tokenized = TokenizedDocument {
            title: document["title"].as_str().unwrap().into(),
            word_starts: vec![0],
            ..Default::default()
        };
        for sentence in document["sents"].as_array().unwrap() {
            tokenized.sentence_starts.push(tokenized.num_words() as u32);
            for word in sentence.as_array().unwrap() {
                let pieces = self.tokenizer.encode(word.as_str().unwrap(), false).unwrap();
                tokenized.pieces.extend_from_slice(pieces.get_ids());
                tokenized.word_starts.push(tokenized.pieces.len() as u32);
            }
        }
        tokenized.sentence_starts.push(tokenized.num_words() as u32);
        let number = |value: &Value| value.as_u64().unwrap() as u32;
        for entity in document["vertexSet"].as_array().unwrap() {
            let mention = |m: &Value| {
                let first = tokenized.sentence_starts[number(&m["sent_id"]) as usize];
                let (start, end) = (first + number(&m["pos"][0]), first + number(&m["pos"][1]));
                TokenizedMention {
                    name: m["name"].as_str().unwrap().into(),
                    sentence: number(&m["sent_id"]),
                    start,
                    end,
                    ..TokenizedMention::default()
                }
            };
            let mentions = entity.as_array().unwrap().iter().map(mention).collect();
            tokenized.entities.push(TokenizedEntity { entity_type: String::new(), mentions });
        }
        tokenized
    }
}
