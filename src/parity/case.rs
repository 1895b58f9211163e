//! Reading a case: its texts, documents, tensors and weights. Not for: comparing (`compare`).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::base::read_json;
use crate::corpus::formats::{ReadOptions, load_relations};
use crate::corpus::{Format, RelationSet};
use crate::text::{TokenizedDocument, Tokenizer, tokenize};
use crate::torch::hf::read_safetensors;
use crate::torch::{HEADS, Parameters};
use crate::{DataError, Error, Result};

/// One tensor beside its reference.
#[derive(Clone, Debug, Serialize)]
pub struct TensorComparison {
    /// Name in the case.
    pub tensor: String,
    /// Entries compared.
    pub entries: usize,
    /// Largest |x − ref|.
    pub max_abs: f64,
    /// Largest |x − ref| / max |ref|.
    pub max_rel: f64,
    /// Whether every entry is within the case's tolerance.
    pub within: bool,
}

/// An open case with the comparisons made so far.
pub struct Case {
    /// Name.
    pub name: String,
    folder: PathBuf,
    json: Value,
    device: Device,
    inputs: HashMap<String, Tensor>,
    pub(super) outputs: HashMap<String, Tensor>,
    pub(super) comparisons: Vec<TensorComparison>,
}

/// Reads a safetensors file; small integers and booleans become int64.
fn read(path: &Path) -> Result<HashMap<String, Tensor>> {
    let widened = |(name, tensor): (String, Tensor)| {
        let small = matches!(tensor.kind(), Kind::Int | Kind::Uint8 | Kind::Bool);
        Ok((name, if small { tensor.f_to_kind(Kind::Int64)? } else { tensor }))
    };
    read_safetensors(path)?.into_iter().map(widened).collect()
}

impl Case {
    /// Opens a folder, to be recomputed on a device.
    ///
    /// # Errors
    /// Missing or malformed files.
    pub fn open(folder: &Path, device: Device) -> Result<Self> {
        let json: Value = read_json(&folder.join("case.json"))?;
        let name =
            json["case"].as_str().map_or_else(|| folder.display().to_string(), str::to_owned);
        let optional = |file: &str| {
            if folder.join(file).exists() { read(&folder.join(file)) } else { Ok(HashMap::new()) }
        };
        let (inputs, outputs) = (optional("inputs.safetensors")?, optional("outputs.safetensors")?);
        let (folder, comparisons) = (folder.to_owned(), Vec::new());
        Ok(Self { name, folder, json, device, inputs, outputs, comparisons })
    }

    /// Where models of the case live. Inputs and outputs lie on the CPU.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What the case's tolerances are multiplied by: they were set on CPUs, and GPUs add up in
    /// other orders.
    pub(super) fn leniency(&self) -> f64 {
        if self.device.is_cuda() { 10.0 } else { 1.0 }
    }

    /// The path of a file of the case.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The tensors of a file of the case, such as those of a variant.
    ///
    /// # Errors
    /// Missing or malformed files.
    pub fn tensors(&self, file: &str) -> Result<HashMap<String, Tensor>> {
        read(&self.folder.join(file))
    }

    /// A value of `case.json` by JSON pointer; null where absent.
    pub fn at(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// A top-level text.
    pub fn text(&self, key: &str) -> String {
        self.json[key].as_str().unwrap_or_default().to_owned()
    }

    /// A value that the case must state.
    ///
    /// # Errors
    /// If it does not, or states something else.
    pub fn stated<T: DeserializeOwned>(&self, pointer: &str) -> Result<T> {
        serde_json::from_value(self.at(pointer).clone())
            .map_err(|error| self.error(format!("case.json at {pointer}: {error}")))
    }

    /// A number that the case must state.
    ///
    /// # Errors
    /// If it does not.
    pub fn number(&self, pointer: &str) -> Result<i64> {
        self.stated(pointer)
    }

    /// A further JSON file, by its place relative to the case's folder.
    ///
    /// # Errors
    /// If it is not there or malformed.
    pub fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        read_json(&self.folder.join(file))
    }

    /// The relations of the fixtures, in class order (`rel2id.json` beside the cases).
    ///
    /// # Errors
    /// A malformed file.
    pub fn relations(&self) -> Result<RelationSet> {
        load_relations(&self.folder.join("../rel2id.json"))
    }

    /// An error about this case.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        DataError::new(&self.folder, problem).into()
    }

    /// Whether an input is there.
    pub fn has_input(&self, name: &str) -> bool {
        self.inputs.contains_key(name)
    }

    /// Whether the case has outputs whose names begin so.
    pub fn has_outputs(&self, prefix: &str) -> bool {
        self.outputs.keys().any(|name| name.starts_with(prefix))
    }

    /// An integer input, flat, with its shape.
    ///
    /// # Errors
    /// If it is not there.
    pub fn integers(&self, name: &str) -> Result<(Vec<i64>, Vec<i64>)> {
        let tensor = self.input(name)?;
        Ok((Vec::try_from(tensor.f_to_kind(Kind::Int64)?.f_view([-1])?)?, tensor.size()))
    }

    /// A float input, flat.
    ///
    /// # Errors
    /// If it is not there.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        Ok(Vec::try_from(self.input(name)?.f_to_kind(Kind::Float)?.f_view([-1])?)?)
    }

    /// An input as it is.
    ///
    /// # Errors
    /// If it is not there.
    pub fn input(&self, name: &str) -> Result<Tensor> {
        let input = self.inputs.get(name).map(Tensor::shallow_clone);
        input.ok_or_else(|| self.error(format!("there is no input `{name}`")))
    }

    /// Whether an output is there.
    pub fn has_output(&self, name: &str) -> bool {
        self.outputs.contains_key(name)
    }

    /// A reference output.
    ///
    /// # Errors
    /// If it is not there.
    pub fn output(&self, name: &str) -> Result<&Tensor> {
        self.outputs.get(name).ok_or_else(|| self.error(format!("there is no output `{name}`")))
    }

    /// The files of the case, by name.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = fs_err::read_dir(&self.folder)?.map(|entry| Ok(entry?.path()));
        let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }

    /// The names in an object of `case.json`, sorted.
    pub fn keys(&self, pointer: &str) -> Vec<String> {
        let object = self.at(pointer).as_object().into_iter().flatten();
        let mut keys: Vec<String> = object.map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    }

    /// The documents and the tokenizer of the fixtures.
    ///
    /// # Errors
    /// Malformed files.
    pub fn documents(
        &self,
        relations: &RelationSet,
    ) -> Result<(Vec<TokenizedDocument>, Tokenizer)> {
        self.encoded(relations, self.pieces()?, |_| ())
    }

    /// The same documents with words that `change` has changed.
    ///
    /// # Errors
    /// Malformed files.
    pub fn changed_documents(
        &self,
        relations: &RelationSet,
        change: impl Fn(&mut String),
    ) -> Result<(Vec<TokenizedDocument>, Tokenizer)> {
        self.encoded(relations, self.pieces()?, change)
    }

    fn pieces(&self) -> Result<Tokenizer> {
        Tokenizer::load(&self.folder.join("../vocab.txt"), Some(true))
    }

    /// The documents with one piece a word, numbered as in the case's `word2id.json` (BLANK is
    /// `[PAD]`, UNK is `[UNK]`).
    ///
    /// # Errors
    /// Malformed files.
    pub fn word_documents(
        &self,
        relations: &RelationSet,
    ) -> Result<(Vec<TokenizedDocument>, Tokenizer)> {
        let path = self.folder.join("word2id.json");
        let words: HashMap<String, u32> = read_json(&path)?;
        let special = |word: String| match word.as_str() {
            "BLANK" => "[PAD]".to_owned(),
            "UNK" => "[UNK]".to_owned(),
            _ => word,
        };
        let words = words.into_iter().map(|(word, id)| (special(word), id));
        self.encoded(relations, Tokenizer::of_words(words, &path)?, |_| ())
    }

    fn encoded(
        &self,
        relations: &RelationSet,
        mut tokenizer: Tokenizer,
        change: impl Fn(&mut String),
    ) -> Result<(Vec<TokenizedDocument>, Tokenizer)> {
        let path = self.folder.join("docs.json");
        let (documents, _) = Format::DOCRED.read_all(&path, &ReadOptions::default())?;
        let mut encoded = Vec::new();
        for mut document in documents {
            if let Some(facts) = &mut document.facts {
                facts.retain(|fact| relations.index_of(&fact.relation).is_some());
            }
            document.sentences.iter_mut().flatten().for_each(&change);
            encoded.push(tokenize(&document, &mut tokenizer, relations)?);
        }
        Ok((encoded, tokenizer))
    }

    /// Our name of a tensor of the reference: without the prefix of the weights that cases share,
    /// or as `rename` says.
    pub(super) fn own_name(
        &self,
        name: &str,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let shared = self.at("/weights/shared_prefix").as_str().filter(|prefix| !prefix.is_empty());
        let own = shared.and_then(|prefix| name.strip_prefix(prefix));
        own.map_or_else(|| rename(name), |own| Some(own.to_owned()))
    }

    /// Copies the weights of `files` into `parameters`, later files over earlier ones, after those
    /// that several cases share. `rename` maps names of the reference to ours, or to nothing. A
    /// tensor that the model does not have is left out; a table with fewer rows than ours fills
    /// the first ones.
    ///
    /// # Errors
    /// If shapes do not fit, or a parameter above the encoder is not given.
    pub fn load_weights(
        &self,
        parameters: &Parameters,
        files: &[&str],
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        self.load_shared(parameters)?;
        let mut given = HashSet::new();
        for (index, file) in files.iter().enumerate() {
            for (name, value) in self.tensors(file)? {
                let Some(own) = self.own_name(&name, &rename) else { continue };
                let Some(target) = parameters.get(&own) else { continue };
                let (size, rows) = (target.size(), value.size().first().copied().unwrap_or(0));
                let fits = size.get(1..) == value.size().get(1..) && size.first() >= Some(&rows);
                if fits {
                    tch::no_grad(|| target.f_narrow(0, 0, rows)?.f_copy_(&value))?;
                    given.insert(own);
                } else if index + 1 == files.len() {
                    // The base file of a variant can hold the same layer in another shape.
                    let problem =
                        format!("`{own}` has shape {size:?}, `{name}` {:?}", value.size());
                    return Err(self.error(problem));
                }
            }
        }
        let lacks = |name: &str| name.starts_with(HEADS) && !given.contains(name);
        match parameters.iter().find(|parameter| lacks(&parameter.name)) {
            Some(parameter) => {
                Err(self.error(format!("the case gives no weights for `{}`", parameter.name)))
            }
            None => Ok(()),
        }
    }

    /// Copies the weights that several cases share, but for those that the case has in another
    /// shape.
    ///
    /// # Errors
    /// Malformed files.
    pub fn load_shared(&self, parameters: &Parameters) -> Result<()> {
        let Some(file) = self.at("/weights/shared_file").as_str().filter(|file| !file.is_empty())
        else {
            return Ok(());
        };
        for (name, value) in self.tensors(file)? {
            if parameters.get(&name).is_some_and(|parameter| parameter.size() == value.size()) {
                parameters.assign(&name, &value)?;
            }
        }
        Ok(())
    }
}
