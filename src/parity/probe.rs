//! A probe for other programs: the pieces of a few words, and the encoder's states on them and on
//! given texts, to be compared with what they compute.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind};

use crate::base::text_file::read_whole;
use crate::base::{to_json, write_whole};
use crate::encoders::{self, EncoderSpec, Pass, TokenStream};
use crate::text::{Tokenizer, View, pack};
use crate::torch::{Parameters, Precision, hf, on};
use crate::train::Checkpoint;
use crate::{DataError, Result};

/// Words with accents, digits, punctuation, pieces outside ASCII, and one that looks like a special
/// piece.
const WORDS: [&str; 14] = [
    "The",
    "unaffable",
    "Zoë",
    "moved",
    "to",
    "São",
    "Paulo",
    "in",
    "1998",
    ",",
    "東京",
    "co-operates",
    "[SEP]",
    ".",
];

/// A text that is given.
#[derive(Deserialize)]
struct Text {
    words: Vec<String>,
    /// Most pieces of it, special pieces included.
    pieces: usize,
}

/// Writes `FOLDER/probe.safetensors` and `FOLDER/words.json` (a few words and their pieces) for a
/// checkpoint. The first holds documents one after the other, those words and then the texts of a
/// JSON file: `ids` `[T]`, `offsets` [documents + 1] and `states` [T, d]. A text is cut to the
/// pieces that are asked for and that the encoder can read.
///
/// # Errors
/// A damaged checkpoint or file of texts, the disk.
pub fn probe(checkpoint: &Path, texts: Option<&Path>, folder: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    let mut tokenizer = Tokenizer::load(checkpoint.path(), None)?;
    let spec = EncoderSpec::Folder(checkpoint.path().to_owned());
    let mut parameters = Parameters::new(0, Device::Cpu);
    let encoder = encoders::build(&spec, tokenizer.vocab_size() as i64, &mut parameters)?;
    let words: Vec<String> = WORDS.map(str::to_owned).into();
    let pieces = pieces_of(&mut tokenizer, &words)?;
    let mut documents = vec![framed(&tokenizer, pieces.clone(), usize::MAX)];
    for Text { words, pieces } in texts.map(read_texts).transpose()?.unwrap_or_default() {
        let most = encoder.facts().max_positions.into_iter().fold(pieces, usize::min);
        let pieces = pieces_of(&mut tokenizer, &words)?;
        documents.push(framed(&tokenizer, pieces, most));
    }
    let packed = pack(&documents);
    let stream = TokenStream::new(&packed.ids, &packed.positions, &packed.offsets, Device::Cpu)?;
    let states = tch::no_grad(|| encoder.encode(&stream, &Pass::inference(Precision::Fp32)))?;
    fs_err::create_dir_all(folder)?;
    let states = states.f_to_kind(Kind::Float)?;
    let offsets = on(&packed.offsets, Device::Cpu)?;
    let tensors = [("ids", &stream.ids), ("offsets", &offsets), ("states", &states)];
    hf::write_safetensors(&folder.join("probe.safetensors"), tensors)?;
    let words = serde_json::json!({ "words": WORDS, "pieces": pieces });
    write_whole(&folder.join("words.json"), &to_json(&words)?)
}

fn read_texts(path: &Path) -> Result<Vec<Text>> {
    let hint = r#"it must hold a list of {"words": ["A", "word"], "pieces": 512}"#;
    serde_json::from_slice(&read_whole(path)?)
        .map_err(|error| DataError::new(path, error.to_string()).hint(hint).into())
}

fn pieces_of(tokenizer: &mut Tokenizer, words: &[String]) -> Result<Vec<u32>> {
    let mut pieces = Vec::new();
    for word in words {
        pieces.extend_from_slice(tokenizer.tokenize_word(word)?);
    }
    Ok(pieces)
}

/// A document of at most `most` pieces, special pieces included.
fn framed(tokenizer: &Tokenizer, mut pieces: Vec<u32>, most: usize) -> View {
    let special = tokenizer.special();
    pieces.truncate(most.saturating_sub(special.frame_len()));
    let ids = [&special.prefix[..], &pieces, &special.suffix].concat();
    View { ids, ..View::default() }
}
