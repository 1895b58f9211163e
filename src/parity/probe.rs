//! A probe for other programs: the pieces of a few words and the encoder's states on them, to be
//! compared with what they compute.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::base::{to_json, write_whole};
use crate::encoders::{self, EncoderSpec, Pass, TokenStream};
use crate::text::{Tokenizer, View, pack};
use crate::torch::kernels::Segments;
use crate::torch::{Parameters, Precision, hf};
use crate::train::Checkpoint;

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

/// Writes `FOLDER/probe.safetensors` (`ids`, shape `[T]`, and `states`, `[T, d]`) and
/// `FOLDER/words.json` (words and their pieces) for a checkpoint.
///
/// # Errors
/// A damaged checkpoint, the disk.
pub fn probe(checkpoint: &Path, folder: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    let mut tokenizer = Tokenizer::load(checkpoint.path(), None)?;
    let spec = EncoderSpec::Folder(checkpoint.path().to_owned());
    let mut parameters = Parameters::new(0, Device::Cpu);
    let encoder = encoders::build(&spec, tokenizer.vocab_size() as i64, &mut parameters)?;
    let mut pieces = Vec::new();
    for word in WORDS {
        pieces.extend_from_slice(tokenizer.tokenize_word(word)?);
    }
    let special = tokenizer.special();
    let ids = [&special.prefix[..], &pieces, &special.suffix].concat();
    let packed = pack(&[View { ids, ..View::default() }]);
    let stream = TokenStream {
        ids: Tensor::f_from_slice(&packed.ids)?,
        positions: Tensor::f_from_slice(&packed.positions)?,
        segments: Segments::new(&packed.offsets, Device::Cpu)?,
    };
    let states = tch::no_grad(|| encoder.encode(&stream, &Pass::inference(Precision::Fp32)))?;
    fs_err::create_dir_all(folder)?;
    let states = states.f_to_kind(Kind::Float)?;
    let tensors = [("ids", &stream.ids), ("states", &states)];
    hf::write_safetensors(&folder.join("probe.safetensors"), tensors)?;
    let words = serde_json::json!({ "words": WORDS, "pieces": pieces });
    write_whole(&folder.join("words.json"), &to_json(&words)?)
}
