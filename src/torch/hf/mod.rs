//! Hugging Face folders: `config.json` with weights in `model.safetensors` or `pytorch_model.bin`,
//! each whole or split over several files.
//!
//! Reading never runs code from a file and checks every size before it allocates. Not for: what the
//! tensors mean (`encoders`), or making a checkpoint atomic (`train`).

pub mod load;
mod names;
mod pickle;
mod shards;
mod storages;
mod tensors;
#[cfg(test)]
mod tests;
mod torch_pickles;
mod torch_zip;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Kind, Tensor};

pub use tensors::{read_safetensors, safetensors_bytes, write_safetensors};

use crate::base::foreign::{explain, first_bytes};
use crate::hub::WEIGHTS;
use crate::{DataError, Error, Result};

const CONFIG: &str = "config.json";
const SAFETENSORS: &str = WEIGHTS[0];
const PYTORCH: &str = WEIGHTS[2];

/// The content of a folder.
#[derive(Debug)]
pub struct ModelFolder {
    /// The folder.
    pub path: PathBuf,
    /// The content of `config.json`.
    pub config: Value,
    /// Tensors by name, on the CPU; floating-point numbers in 32 bits.
    pub tensors: BTreeMap<String, Tensor>,
}

impl ModelFolder {
    /// An error about this folder.
    pub fn error(&self, problem: impl Into<String>) -> DataError {
        DataError::new(&self.path, problem)
    }

    /// Turns a complaint about a configuration into one about this folder's `config.json`.
    pub fn in_config(&self, error: &Error) -> Error {
        let mut data = DataError::new(self.path.join(CONFIG), error.to_string());
        data.hint = error.hint().map(str::to_owned);
        data.into()
    }
}

/// Reads a folder. Its tensors keep the names of the file; [`load`] finds those that an encoder
/// needs.
///
/// # Errors
/// [`Error::Data`] naming the file for damaged files; [`Error::Io`] where one cannot be opened.
pub fn read_folder(dir: &Path) -> Result<ModelFolder> {
    let config = read_config(&dir.join(CONFIG))?;
    let tensors = read_weights(dir)?
        .into_iter()
        .map(|(name, tensor)| Ok((name, to_single(tensor)?)))
        .collect::<Result<_>>()?;
    Ok(ModelFolder { path: dir.to_owned(), config, tensors })
}

fn read_config(path: &Path) -> Result<Value> {
    let config: Value = serde_json::from_slice(&fs_err::read(path)?)
        .map_err(|cause| DataError::new(path, format!("is not JSON: {cause}")))?;
    if config.is_object() {
        Ok(config)
    } else {
        Err(DataError::new(path, "is not a JSON object").into())
    }
}

fn read_weights(dir: &Path) -> Result<BTreeMap<String, Tensor>> {
    let [whole, split, pickled, split_pickled] = WEIGHTS.map(|name| dir.join(name));
    if whole.is_file() {
        return read_safetensors(&whole);
    }
    if split.is_file() {
        return shards::read(&split, read_safetensors);
    }
    if pickled.is_file() {
        return read_pytorch(&pickled);
    }
    if split_pickled.is_file() {
        return shards::read(&split_pickled, read_pytorch);
    }
    let (problem, hint) = match OTHER_WEIGHTS.iter().find(|(file, ..)| dir.join(file).exists()) {
        Some((file, kind, hint)) => (format!("holds {kind} weights alone ({file})"), *hint),
        None => (
            format!("holds neither {SAFETENSORS} nor {PYTORCH}"),
            "name a folder that save_pretrained wrote, or a copy of the files of a model",
        ),
    };
    Err(DataError::new(dir, problem).hint(hint).into())
}

/// Weights that are not read: the file that gives them away, their kind, and the way out.
const OTHER_WEIGHTS: [(&str, &str, &str); 3] = [
    ("tf_model.h5", "TensorFlow", CONVERT),
    ("model.ckpt.index", "TensorFlow", CONVERT),
    ("flax_model.msgpack", "Flax", CONVERT),
];
const CONVERT: &str = "load it in transformers with from_tf=True or from_flax=True, and \
    save_pretrained it as model.safetensors";

/// Reads a file of `torch.save`, of either form.
fn read_pytorch(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let start = first_bytes(path);
    if torch_pickles::is_such(&start) {
        return torch_pickles::read(path);
    }
    if start.starts_with(b"PK") {
        return torch_zip::read(path);
    }
    let other = DataError::new(path, "is not a file that torch.save wrote")
        .hint("it may be cut short: compare its size with the original's, and copy it again");
    Err(explain(path, other).into())
}

fn to_single(tensor: Tensor) -> Result<Tensor> {
    match tensor.kind() {
        Kind::Half | Kind::BFloat16 | Kind::Double => Ok(tensor.f_to_kind(Kind::Float)?),
        _ => Ok(tensor),
    }
}

/// Writes `config.json` and `model.safetensors` into `dir`, which must exist, as `from_pretrained`
/// wants them. Not atomic.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write_folder<'a>(
    dir: &Path,
    config: &Value,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let text = serde_json::to_string_pretty(config)
        .map_err(|cause| Error::Bug(format!("config.json: {cause}")))?;
    fs_err::write(dir.join(CONFIG), text + "\n")?;
    write_safetensors(&dir.join(SAFETENSORS), tensors)
}
