//! A probe for other programs: the pieces of a few words and the encoder's states on them, to be compared with what they compute.

use std::path::Path;

use tch::{Kind, Tensor};

use super::model::{Description, LoadedModel};
use crate::systems::Forward;
use crate::text::{View, pack};
use crate::torch::encoder::{Pass, TokenStream};
use crate::torch::{Precision, Segments, hf};
use crate::train::{Checkpoint, write_whole};
use crate::{Error, Result};

/// Words with accents, digits, punctuation, pieces outside ASCII, and one that looks like a special piece.
const WORDS: [&str; 14] =
    ["The", "unaffable", "Zoë", "moved", "to", "São", "Paulo", "in", "1998", ",", "東京", "co-operates", "[SEP]", "."];

/// Writes `FOLDER/probe.safetensors` (`ids`, shape `[T]`, and `states`, `[T, d]`) and `FOLDER/words.json` (words and their pieces) for a checkpoint.
///
/// # Errors
/// A damaged checkpoint, the disk.
pub fn probe(checkpoint: &Path, folder: &Path) -> Result<()> {
    let description: Description = Checkpoint::open(checkpoint)?.description()?;
    let mut loaded = LoadedModel::open(checkpoint, description.model.part, tch::Device::Cpu)?;
    let mut pieces = Vec::new();
    for word in WORDS {
        pieces.extend_from_slice(loaded.tokenizer.encode_word(word)?);
    }
    let special = loaded.tokenizer.special();
    let ids: Vec<u32> = [special.cls].into_iter().chain(pieces.iter().copied()).chain([special.sep]).collect();
    let packed = pack(&[View { ids, ..View::default() }]);
    let stream = TokenStream {
        ids: Tensor::f_from_slice(&packed.ids)?,
        positions: Tensor::f_from_slice(&packed.positions)?,
        segments: Segments::new(&packed.offsets, tch::Device::Cpu)?,
    };
    let forward = Forward { train: false, precision: Precision::Fp32 };
    let states = tch::no_grad(|| loaded.model.encoder.encode(&stream, &Pass::inference(forward.precision)))?;
    fs_err::create_dir_all(folder)?;
    let states = states.f_to_kind(Kind::Float)?;
    hf::write_safetensors(&folder.join("probe.safetensors"), [("ids", &stream.ids), ("states", &states)])?;
    let words = serde_json::json!({ "words": WORDS, "pieces": pieces });
    write_whole(&folder.join("words.json"), &serde_json::to_vec(&words).map_err(|error| Error::Bug(error.to_string()))?)
}
