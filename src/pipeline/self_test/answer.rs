//! What a model made of the documents, and the files that keep it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::base::{read_json, run_files, to_json, to_pretty_json};
use crate::corpus::formats::ReadOptions;
use crate::corpus::{Document, Format, RelationSet};
use crate::distant::Calibration;
use crate::eval::Prediction;
use crate::systems::Pair;
use crate::torch::hf;
use crate::{DataError, Error, Result};

/// The documents, in the form of `jsonl`.
const DOCUMENTS: &str = "documents.jsonl";
/// What is written down in words: labels, configuration, facts.
const EXPECTED: &str = "expected.json";
/// The numbers.
const NUMBERS: &str = "expected.safetensors";

/// The format in which the documents are kept.
const FORMAT: &str = "jsonl";

/// Starts the names of tensors that hold pairs.
const PAIRS: &str = "pairs of ";

/// What a model makes of one document: numbers and the pairs that they belong to, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentAnswer {
    /// Numbers.
    pub numbers: BTreeMap<String, NumberTable>,
    /// Pairs of entities.
    pub pairs: BTreeMap<String, Vec<Pair>>,
}

/// Numbers in rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NumberTable {
    /// Numbers of a row.
    pub columns: usize,
    /// All numbers, row by row.
    pub values: Vec<f32>,
}

impl DocumentAnswer {
    /// Adds numbers in so many rows; no numbers are left out.
    pub fn push(&mut self, name: &str, rows: usize, values: Vec<f32>) {
        if !values.is_empty() {
            let columns = values.len() / rows.max(1);
            self.numbers.insert(name.to_owned(), NumberTable { columns, values });
        }
    }

    /// The numbers of a name; none where there are none.
    pub fn values(&self, name: &str) -> Vec<f32> {
        self.numbers.get(name).map_or_else(Vec::new, |table| table.values.clone())
    }

    /// The pairs of a name; none where there are none.
    pub fn pairs_of(&self, name: &str) -> Vec<Pair> {
        self.pairs.get(name).cloned().unwrap_or_default()
    }
}

/// What is recorded beside the numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Version of the program.
    pub program: String,
    /// The relations in class order.
    pub relations: RelationSet,
    /// Identity of the tokenizer.
    pub tokenizer: String,
    /// `config.json` of the encoder.
    pub config: Value,
    /// `docre.json`.
    pub description: Value,
    /// The decision threshold, where there is one.
    pub threshold: Option<f64>,
    /// How margins become probabilities, where that is known.
    pub calibration: Option<Calibration>,
    /// The facts of each document.
    pub facts: Vec<Vec<Prediction>>,
}

/// Documents with what a model made of them.
#[derive(Clone, Debug, Default)]
pub struct SelfTest {
    /// The documents.
    pub documents: Vec<Document>,
    /// The numbers of each.
    pub answers: Vec<DocumentAnswer>,
    /// The rest.
    pub recorded: Recorded,
}

impl SelfTest {
    /// The files of the self-test, with the name of its folder.
    ///
    /// # Errors
    /// [`Error::Bug`] for what the files cannot hold.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut lines = Vec::new();
        for document in &self.documents {
            lines.extend(to_json(document)?);
            lines.push(b'\n');
        }
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (index, answer) in self.answers.iter().enumerate() {
            for (name, table) in &answer.numbers {
                let columns = table.columns.max(1);
                let shape = [(table.values.len() / columns) as i64, columns as i64];
                let tensor = Tensor::from_slice(&table.values).f_view(shape)?;
                tensors.push((format!("{index}.{name}"), tensor));
            }
            for (name, pairs) in answer.pairs.iter().filter(|(_, pairs)| !pairs.is_empty()) {
                let flat: Vec<i64> =
                    pairs.iter().flat_map(|pair| [pair.0.into(), pair.1.into()]).collect();
                let tensor = Tensor::from_slice(&flat).f_view([pairs.len() as i64, 2])?;
                tensors.push((format!("{index}.{PAIRS}{name}"), tensor));
            }
        }
        let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let files = [
            (DOCUMENTS, lines),
            (EXPECTED, to_pretty_json(&self.recorded)?),
            (NUMBERS, hf::safetensors_bytes(named)?),
        ];
        Ok(files.map(|(name, bytes)| (format!("{}/{name}", run_files::SELF_TEST), bytes)).into())
    }

    /// Whether an export has a self-test.
    pub fn is_in(export: &Path) -> bool {
        export.join(run_files::SELF_TEST).join(EXPECTED).exists()
    }

    /// Reads the self-test of an export.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file that cannot be read as it was written.
    pub fn read(export: &Path) -> Result<Self> {
        let folder = export.join(run_files::SELF_TEST);
        let recorded: Recorded = read_json(&folder.join(EXPECTED))?;
        let path = folder.join(DOCUMENTS);
        let (documents, _) = kept_format()?.read_all(&path, &ReadOptions::default())?;
        if documents.len() != recorded.facts.len() {
            let (found, facts) = (documents.len(), recorded.facts.len());
            let problem = format!("holds {found} documents, but {EXPECTED} the facts of {facts}");
            return Err(DataError::new(path, problem).into());
        }
        let path = folder.join(NUMBERS);
        let mut answers = vec![DocumentAnswer::default(); documents.len()];
        for (name, tensor) in hf::read_safetensors(&path)? {
            let place = name.split_once('.').and_then(|(number, rest)| {
                Some((answers.get_mut(number.parse::<usize>().ok()?)?, rest))
            });
            let Some((answer, name)) = place else {
                let problem = format!("tensor `{name}` belongs to none of the documents");
                return Err(DataError::new(path, problem).into());
            };
            take(answer, name, &tensor)
                .map_err(|error| DataError::new(&path, format!("tensor `{name}`: {error}")))?;
        }
        Ok(Self { documents, answers, recorded })
    }
}

fn kept_format() -> Result<Format> {
    let found = Format::all().iter().find(|format| format.name() == FORMAT);
    found.copied().ok_or_else(|| Error::Bug(format!("there is no format {FORMAT}")))
}

/// Puts a tensor of the file where it belongs.
fn take(answer: &mut DocumentAnswer, name: &str, tensor: &Tensor) -> Result<()> {
    let flat = tensor.f_contiguous()?.f_view([-1])?;
    if let Some(name) = name.strip_prefix(PAIRS) {
        let flat = Vec::<i64>::try_from(flat.f_to_kind(Kind::Int64)?)?;
        let pair = |pair: &[i64]| (pair[0] as u32, pair[1] as u32);
        answer.pairs.insert(name.to_owned(), flat.chunks_exact(2).map(pair).collect());
        return Ok(());
    }
    let columns = tensor.size().last().map_or(1, |&columns| columns as usize);
    let values = Vec::<f32>::try_from(flat.f_to_kind(Kind::Float)?)?;
    answer.numbers.insert(name.to_owned(), NumberTable { columns, values });
    Ok(())
}
