//! Reading a case and comparing with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::Comparison;
use crate::corpus::Format;
use crate::corpus::formats::{ReadOptions, load_relations};
use crate::corpus::{Document, RelationSet};
use crate::text::{TokenizedDocument, Tokenizer, tokenize};
use crate::torch::Parameters;
use crate::{DataError, Error, Result};

/// An open case with the comparisons made so far.
pub struct Case {
    /// Name.
    pub name: String,
    folder: PathBuf,
    json: Value,
    inputs: HashMap<String, Tensor>,
    outputs: HashMap<String, Tensor>,
    comparisons: Vec<Comparison>,
}

/// Reads a safetensors file of any number type into float or int64 tensors.
fn read(path: &Path) -> Result<HashMap<String, Tensor>> {
    let bytes = fs_err::read(path)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| DataError::new(path, error.to_string()))?;
    file.tensors()
        .into_iter()
        .map(|(name, view)| Ok((name.clone(), tensor(path, &name, &view)?)))
        .collect()
}

/// Numbers of a byte slice that need not be aligned.
fn numbers<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn tensor(path: &Path, name: &str, view: &TensorView) -> Result<Tensor> {
    let shape: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
    let flat = match view.dtype() {
        Dtype::F32 => Tensor::f_from_slice(&numbers::<f32>(view.data()))?,
        Dtype::F64 => Tensor::f_from_slice(&numbers::<f64>(view.data()))?,
        Dtype::I64 => Tensor::f_from_slice(&numbers::<i64>(view.data()))?,
        Dtype::I32 => Tensor::f_from_slice(&numbers::<i32>(view.data()))?.f_to_kind(Kind::Int64)?,
        Dtype::U8 | Dtype::BOOL => Tensor::f_from_slice(view.data())?.f_to_kind(Kind::Int64)?,
        other => {
            return Err(
                DataError::new(path, format!("tensor `{name}` has number type {other:?}")).into()
            );
        }
    };
    Ok(flat.f_view(shape.as_slice())?)
}

/// The first `lengths[i]` rows of each part i of a padded reference [parts, rows, …], one after the
/// other.
///
/// # Errors
/// If libtorch rejects an operation.
pub(crate) fn unpadded(reference: &Tensor, lengths: &[i64]) -> Result<Tensor> {
    let parts = (0..)
        .zip(lengths)
        .map(|(part, &length)| Ok(reference.f_get(part)?.f_narrow(0, 0, length)?));
    Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

impl Case {
    /// Opens a folder.
    ///
    /// # Errors
    /// Missing or malformed files.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("case.json");
        let json: Value = serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|error| DataError::new(&path, error.to_string()))?;
        let name =
            json["case"].as_str().map_or_else(|| folder.display().to_string(), str::to_owned);
        let optional = |file: &str| {
            if folder.join(file).exists() { read(&folder.join(file)) } else { Ok(HashMap::new()) }
        };
        let (inputs, outputs) = (optional("inputs.safetensors")?, optional("outputs.safetensors")?);
        Ok(Self { name, folder: folder.to_owned(), json, inputs, outputs, comparisons: Vec::new() })
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

    /// A number that the case must state.
    ///
    /// # Errors
    /// It does not.
    pub fn number(&self, pointer: &str) -> Result<i64> {
        self.at(pointer)
            .as_i64()
            .ok_or_else(|| self.error(format!("case.json has no number at {pointer}")))
    }

    /// A list of texts that the case must hold.
    ///
    /// # Errors
    /// It does not.
    pub fn texts(&self, pointer: &str) -> Result<Vec<String>> {
        let list = self
            .at(pointer)
            .as_array()
            .ok_or_else(|| self.error(format!("case.json has no list at {pointer}")))?;
        Ok(list.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect())
    }

    /// A further JSON file of the case.
    ///
    /// # Errors
    /// It is not there, or malformed.
    pub fn object(&self, file: &str) -> Result<Value> {
        let path = self.folder.join(file);
        Ok(serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|error| DataError::new(&path, error.to_string()))?)
    }

    /// A further JSON file of the case that holds a list.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub fn list(&self, file: &str) -> Result<Vec<Value>> {
        self.object(file)?
            .as_array()
            .cloned()
            .ok_or_else(|| self.error(format!("{file} holds no list")))
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
    /// It is not there.
    pub fn integers(&self, name: &str) -> Result<(Vec<i64>, Vec<i64>)> {
        let tensor = self
            .inputs
            .get(name)
            .ok_or_else(|| self.error(format!("there is no input `{name}`")))?;
        Ok((Vec::try_from(tensor.f_to_kind(Kind::Int64)?.f_view([-1])?)?, tensor.size()))
    }

    /// A float input, flat.
    ///
    /// # Errors
    /// It is not there.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self
            .inputs
            .get(name)
            .ok_or_else(|| self.error(format!("there is no input `{name}`")))?;
        Ok(Vec::try_from(tensor.f_to_kind(Kind::Float)?.f_view([-1])?)?)
    }

    /// An input as it is.
    ///
    /// # Errors
    /// It is not there.
    pub fn input(&self, name: &str) -> Result<Tensor> {
        self.inputs
            .get(name)
            .map(Tensor::shallow_clone)
            .ok_or_else(|| self.error(format!("there is no input `{name}`")))
    }

    /// Whether an output is there.
    pub fn has_output(&self, name: &str) -> bool {
        self.outputs.contains_key(name)
    }

    /// A reference output.
    ///
    /// # Errors
    /// It is not there.
    pub fn output(&self, name: &str) -> Result<&Tensor> {
        self.outputs.get(name).ok_or_else(|| self.error(format!("there is no output `{name}`")))
    }

    /// The documents and the tokenizer of the fixtures.
    ///
    /// # Errors
    /// Malformed files.
    pub fn documents(
        &self,
        relations: &RelationSet,
    ) -> Result<(Vec<TokenizedDocument>, Tokenizer)> {
        self.encoded(relations, Tokenizer::load(&self.folder.join("../vocab.txt"), Some(true))?)
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
        let words: HashMap<String, u32> = serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|error| DataError::new(&path, error.to_string()))?;
        let special = |word: String| match word.as_str() {
            "BLANK" => "[PAD]".to_owned(),
            "UNK" => "[UNK]".to_owned(),
            _ => word,
        };
        self.encoded(
            relations,
            Tokenizer::of_words(words.into_iter().map(|(word, id)| (special(word), id)), &path)?,
        )
    }

    fn encoded(
        &self,
        relations: &RelationSet,
        mut tokenizer: Tokenizer,
    ) -> Result<(Vec<TokenizedDocument>, Tokenizer)> {
        let (documents, _): (Vec<Document>, _) =
            Format::DOCRED.read_all(&self.folder.join("docs.json"), &ReadOptions::default())?;
        let mut encoded = Vec::new();
        for document in documents {
            let known = |id: &str| relations.index_of(id).is_some();
            let mut document = document;
            if let Some(facts) = &mut document.facts {
                facts.retain(|fact| known(&fact.relation));
            }
            encoded.push(tokenize(&document, &mut tokenizer, relations)?);
        }
        Ok((encoded, tokenizer))
    }

    /// Copies the case's weights into `parameters`; `rename` maps a reference name without the
    /// shared prefix to ours, or to nothing where the model at hand has no such layer.
    ///
    /// # Errors
    /// Names or shapes that do not fit.
    pub fn load_weights(
        &self,
        parameters: &Parameters,
        rename: impl Fn(&str) -> String,
    ) -> Result<()> {
        let prefix = self.at("/weights/shared_prefix").as_str().unwrap_or_default();
        self.load_shared(parameters)?;
        for (name, value) in read(&self.folder.join("weights.safetensors"))? {
            let own = name.strip_prefix(prefix).map_or_else(|| rename(&name), str::to_owned);
            if !own.is_empty() {
                parameters.assign(&own, &value)?;
            }
        }
        Ok(())
    }

    /// Copies the weights that several cases share, but for those that the case has in another
    /// shape.
    ///
    /// # Errors
    /// Malformed files.
    pub fn load_shared(&self, parameters: &Parameters) -> Result<()> {
        let shared = self.at("/weights/shared_file").as_str().unwrap_or_default();
        if shared.is_empty() {
            return Ok(());
        }
        for (name, value) in read(&self.folder.join(shared))? {
            if parameters.get(&name).is_some_and(|parameter| parameter.size() == value.size()) {
                parameters.assign(&name, &value)?;
            }
        }
        Ok(())
    }

    /// Copies the case's weights to the parameters that `rename` maps them to (`None`: left out); a
    /// table with fewer rows than ours fills the first ones.
    ///
    /// # Errors
    /// Names or shapes that do not fit; a parameter outside the encoder that the case does not
    /// give.
    pub fn load_named(
        &self,
        parameters: &Parameters,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let mut loaded = std::collections::HashSet::new();
        for (name, value) in read(&self.folder.join("weights.safetensors"))? {
            let Some(own) = rename(&name) else { continue };
            let target = parameters
                .get(&own)
                .ok_or_else(|| self.error(format!("no parameter is called `{own}`")))?;
            let rows = value.size().first().copied().unwrap_or(0);
            let fits = target.size().get(1..) == value.size().get(1..)
                && target.size().first() >= Some(&rows);
            if !fits {
                return Err(self.error(format!(
                    "`{own}` has shape {:?}, the case's `{name}` {:?}",
                    target.size(),
                    value.size()
                )));
            }
            tch::no_grad(|| target.f_narrow(0, 0, rows)?.f_copy_(&value))?;
            loaded.insert(own);
        }
        match parameters.iter().find(|parameter| {
            parameter.name.starts_with("heads.") && !loaded.contains(&parameter.name)
        }) {
            Some(parameter) => {
                Err(self.error(format!("the case gives no weights for `{}`", parameter.name)))
            }
            None => Ok(()),
        }
    }

    /// Compares every gradient of the case with those in `parameters`; where `rename` gives `None`
    /// the reference must be zero.
    ///
    /// # Errors
    /// A gradient of a parameter that the model lacks.
    pub fn compare_named_gradients(
        &mut self,
        parameters: &Parameters,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let prefix = self.text("gradient_prefix");
        let mut names: Vec<String> =
            self.outputs.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        names.sort();
        for name in names {
            let gradient = match rename(&name[prefix.len()..]) {
                Some(own) => gradient_of(
                    parameters
                        .get(&own)
                        .ok_or_else(|| self.error(format!("no parameter is called `{own}`")))?,
                )?,
                None => self.output(&name)?.f_zeros_like()?,
            };
            self.compare(&name, &gradient, true)?;
        }
        Ok(())
    }

    /// A JSON file by its place relative to the case's folder.
    ///
    /// # Errors
    /// A file that is missing or no JSON.
    pub fn beside(&self, file: &str) -> Result<Value> {
        let path = self.folder.join(file);
        serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|error| DataError::new(&path, error.to_string()).into())
    }

    /// Compares rows with the real rows of a padded reference [parts, rows, …].
    ///
    /// # Errors
    /// The reference is not there.
    pub fn compare_rows(&mut self, name: &str, ours: &Tensor, lengths: &[i64]) -> Result<()> {
        let reference = unpadded(self.output(name)?, lengths)?;
        self.compare_with(name, ours, &reference, false)
    }

    /// Compares integers, which must be equal.
    pub fn compare_integers(&mut self, name: &str, ours: &[i64], reference: &[i64]) {
        let different = ours.iter().zip(reference).filter(|(a, b)| a != b).count()
            + ours.len().abs_diff(reference.len());
        let largest =
            ours.iter().zip(reference).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0) as f64;
        self.comparisons.push(Comparison {
            tensor: name.to_owned(),
            entries: ours.len(),
            max_abs: largest,
            max_rel: different as f64 / reference.len().max(1) as f64,
            within: different == 0,
        });
    }

    /// Compares (ours, reference) numbers within an absolute tolerance.
    pub fn compare_numbers(&mut self, name: &str, pairs: &[(f64, f64)], tolerance: f64) {
        let largest = pairs.iter().fold(0f64, |most, (_, reference)| most.max(reference.abs()));
        let max_abs =
            pairs.iter().fold(0f64, |most, (ours, reference)| most.max((ours - reference).abs()));
        self.comparisons.push(Comparison {
            tensor: name.to_owned(),
            entries: pairs.len(),
            max_abs,
            max_rel: max_abs / largest.max(f64::MIN_POSITIVE),
            // Written so that NaN is outside.
            within: pairs.iter().all(|(ours, reference)| (ours - reference).abs() <= tolerance),
        });
    }

    /// The files of the case, by name.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files: Vec<_> = fs_err::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        files.sort();
        Ok(files)
    }

    /// Compares a tensor with the reference of that name, flat; `gradient` chooses the gradient
    /// tolerance.
    ///
    /// # Errors
    /// The reference is not there.
    pub fn compare(&mut self, name: &str, ours: &Tensor, gradient: bool) -> Result<()> {
        let reference = self.output(name)?.shallow_clone();
        self.compare_with(name, ours, &reference, gradient)
    }

    /// Compares a tensor with a part of a reference.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn compare_with(
        &mut self,
        name: &str,
        ours: &Tensor,
        reference: &Tensor,
        gradient: bool,
    ) -> Result<()> {
        let flat = |tensor: &Tensor| -> Result<Vec<f64>> {
            Ok(Vec::try_from(
                tensor
                    .detach()
                    .f_to_device(Device::Cpu)?
                    .f_to_kind(Kind::Double)?
                    .f_contiguous()?
                    .f_view([-1])?,
            )?)
        };
        let (ours, reference) = (flat(ours)?, flat(reference)?);
        let key = |key: &str| {
            if gradient { format!("/accept/grad_{key}") } else { format!("/accept/{key}") }
        };
        let value = |name: &str, default: f64| self.at(&key(name)).as_f64().unwrap_or(default);
        let largest = reference.iter().fold(0f64, |most, x| most.max(x.abs()));
        let atol = value("atol", 0.0).max(value("atol_relative_to_max", 0.0) * largest);
        let rtol = value("rtol", 0.0);
        let mut comparison = Comparison {
            tensor: name.to_owned(),
            entries: ours.len(),
            max_abs: 0.0,
            max_rel: 0.0,
            within: ours.len() == reference.len(),
        };
        for (x, r) in ours.iter().zip(&reference) {
            let difference = (x - r).abs();
            comparison.max_abs = comparison.max_abs.max(difference);
            // Written so that NaN is outside.
            comparison.within &= difference <= atol + rtol * r.abs();
        }
        comparison.max_rel = comparison.max_abs / largest.max(f64::MIN_POSITIVE);
        self.comparisons.push(comparison);
        Ok(())
    }

    /// Compares every gradient under `prefix` with the gradients in `parameters`.
    ///
    /// # Errors
    /// A gradient of a parameter that the model lacks.
    pub fn compare_gradients(
        &mut self,
        prefix: &str,
        parameters: &Parameters,
        rename: impl Fn(&str) -> String,
    ) -> Result<()> {
        let shared = self.at("/weights/shared_prefix").as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> =
            self.outputs.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.sort();
        for name in names {
            let reference_name = &name[prefix.len()..];
            let own = reference_name
                .strip_prefix(&shared)
                .map_or_else(|| rename(reference_name), str::to_owned);
            let parameter = parameters
                .get(&own)
                .ok_or_else(|| self.error(format!("no parameter is called `{own}`")))?;
            let gradient = gradient_of(parameter)?;
            self.compare(&name, &gradient, true)?;
        }
        Ok(())
    }

    /// All comparisons made.
    pub fn into_comparisons(self) -> Vec<Comparison> {
        self.comparisons
    }
}

/// The gradient of a parameter; zeros for one that took no part.
fn gradient_of(parameter: &Tensor) -> Result<Tensor> {
    let gradient = parameter.grad();
    Ok(if gradient.defined() { gradient } else { parameter.f_zeros_like()? })
}
