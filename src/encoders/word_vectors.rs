//! Word vectors in GloVe's text format: one word and its numbers a line, plain or gzip-compressed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use tch::{Kind, Tensor};

use crate::base::text_file;
use crate::torch::rng::Generator;
use crate::{DataError, Error, Result};

/// Vectors for the entries of a vocabulary.
#[derive(Debug)]
pub struct WordVectors {
    /// Width of a vector.
    pub dim: i64,
    /// Whether the file has a vector for the entry; `[V]`.
    pub found: Vec<bool>,
    /// The vectors, zero for entries without one; [V, dim], on the CPU.
    pub table: Tensor,
}

impl WordVectors {
    /// Reads the vectors of `vocabulary` from a `.txt` or `.gz` file. Entries are matched as they
    /// are written; the first line of a word wins.
    ///
    /// # Errors
    /// [`DataError`] naming the line that has another number of columns than the first, a value
    /// that is not a finite number, or bytes that are not UTF-8; also if no entry has a vector.
    pub fn load(path: &Path, vocabulary: &[String]) -> Result<Self> {
        VectorReader::new(path, vocabulary).run(BufReader::new(text_file::open(path)?))
    }

    /// Number of entries with a vector.
    pub fn num_found(&self) -> usize {
        self.found.iter().filter(|found| **found).count()
    }

    /// Standard deviation over all numbers of the vectors that were found.
    ///
    /// # Errors
    /// If libtorch rejects the table.
    pub fn std(&self) -> Result<f64> {
        Ok(self
            .table
            .f_index_select(0, &self.found_rows(&self.found)?)?
            .f_std(false)?
            .f_double_value(&[])?)
    }

    /// Copies the vectors that were found over the rows of `table` [V, dim], and says for how many
    /// pieces that was.
    pub(super) fn fill(&self, table: &Tensor) -> Result<String> {
        let rows = self.found_rows(&self.found)?;
        if table.size() != self.table.size() {
            let (have, want) = (self.table.size(), table.size());
            return Err(Error::recipe(format!(
                "the word vectors have shape {have:?}, but the encoder's word table {want:?}"
            )));
        }
        copy_rows(table, &rows, &self.table.f_index_select(0, &rows)?)?;
        Ok(format!(
            "word vectors were found for {} of {} pieces",
            self.num_found(),
            self.found.len()
        ))
    }

    fn found_rows(&self, chosen: &[bool]) -> Result<Tensor> {
        let rows: Vec<i64> =
            (0..).zip(chosen).filter(|(_, chosen)| **chosen).map(|(row, _)| row).collect();
        Ok(Tensor::f_from_slice(&rows)?)
    }
}

fn copy_rows(table: &Tensor, rows: &Tensor, values: &Tensor) -> Result<()> {
    let device = table.device();
    let (rows, values) = (rows.f_to_device(device)?, values.f_to_device(device)?);
    let _ = tch::no_grad(|| table.shallow_clone().f_index_copy_(0, &rows, &values))?;
    Ok(())
}

/// Starts a word-piece table [V, d] from word vectors; returns the number of rows that were set.
///
/// Whole words that have a vector (entries that do not begin with `##` and are not in brackets) are
/// centred, mapped to the encoder's width by a fixed random map, and scaled by one common factor so
/// that all numbers together have standard deviation `std` (the configuration's
/// `initializer_range`). The map has orthonormal rows or columns, so distances keep their ratios
/// exactly where the encoder is at least as wide as the vectors, and in expectation otherwise. All
/// other rows keep their random start. The map depends on `seed` alone.
///
/// # Errors
/// [`Error::Recipe`] where the vocabulary is larger than the table or has no usable word.
pub(super) fn embed_projected(
    table: &Tensor,
    vectors: &WordVectors,
    vocabulary: &[String],
    std: f64,
    seed: u64,
) -> Result<usize> {
    let words: Vec<bool> = vectors
        .found
        .iter()
        .zip(vocabulary)
        .map(|(found, entry)| *found && is_whole_word(entry))
        .collect();
    let count = words.iter().filter(|word| **word).count();
    if count == 0 || words.len() as i64 > table.size()[0] {
        let rows = table.size()[0];
        return Err(Error::recipe(format!(
            "{count} whole words of {} entries cannot start a word table of {rows} rows",
            words.len()
        )));
    }
    let rows = vectors.found_rows(&words)?;
    let chosen = vectors.table.f_index_select(0, &rows)?;
    let centred = chosen.f_sub(&chosen.f_mean_dim(0i64, true, Kind::Float)?)?;
    let projected = centred.f_matmul(&random_map(vectors.dim, table.size()[1], seed)?)?;
    let scale = std / projected.f_std(false)?.f_double_value(&[])?.max(f64::MIN_POSITIVE);
    copy_rows(table, &rows, &projected.f_mul_scalar(scale)?)?;
    Ok(count)
}

fn is_whole_word(entry: &str) -> bool {
    let special = entry.starts_with('[') && entry.ends_with(']');
    !special && !entry.starts_with("##")
}

/// [from, to], with orthonormal rows or columns, whichever are fewer.
fn random_map(from: i64, to: i64, seed: u64) -> Result<Tensor> {
    let gaussian = Generator::new(seed)?.normal(&[from.max(to), from.min(to)])?;
    let (basis, _) = Tensor::f_linalg_qr(&gaussian, "reduced")?;
    Ok(if from >= to { basis } else { basis.f_transpose(0, 1)? })
}

/// The state of reading one file.
struct VectorReader<'a> {
    path: &'a Path,
    rows: HashMap<&'a str, usize>,
    found: Vec<bool>,
    /// Columns of the first line.
    columns: usize,
    values: Vec<f32>,
}

impl<'a> VectorReader<'a> {
    fn new(path: &'a Path, vocabulary: &'a [String]) -> Self {
        let mut rows = HashMap::with_capacity(vocabulary.len());
        for (row, entry) in vocabulary.iter().enumerate() {
            rows.entry(entry.as_str()).or_insert(row);
        }
        Self { path, rows, found: vec![false; vocabulary.len()], columns: 0, values: Vec::new() }
    }

    fn run(mut self, reader: impl BufRead) -> Result<WordVectors> {
        for (line, bytes) in (1..).zip(reader.split(b'\n')) {
            let bytes = bytes.map_err(|cause| text_file::unreadable(self.path, 0, cause))?;
            let text = std::str::from_utf8(&bytes)
                .map_err(|_| self.error(format!("line {line} is not UTF-8 text")))?;
            self.take(line, text.trim_end_matches('\r'))?;
        }
        if !self.found.contains(&true) {
            return Err(self
                .error("no entry of the vocabulary has a vector in this file".into())
                .hint("is the vocabulary lower-cased like the file?")
                .into());
        }
        let dim = self.columns as i64 - 1;
        let table = Tensor::f_from_slice(&self.values)?.f_view([self.found.len() as i64, dim])?;
        Ok(WordVectors { dim, found: self.found, table })
    }

    /// Takes one line: `word v1 … v_dim`.
    fn take(&mut self, line: usize, text: &str) -> Result<()> {
        let columns = text.split(' ').count();
        if line == 1 {
            self.start(columns, text)?;
        }
        if columns != self.columns {
            return Err(self
                .error(format!(
                    "line {line} has {columns} columns, but line 1 has {}",
                    self.columns
                ))
                .into());
        }
        let (word, numbers) = text.split_once(' ').unwrap_or((text, ""));
        match self.rows.get(word) {
            Some(&row) if !self.found[row] => self.fill(line, row, numbers),
            _ => Ok(()),
        }
    }

    fn start(&mut self, columns: usize, text: &str) -> Result<()> {
        if columns < 3 {
            let shown: String = text.chars().take(40).collect();
            let hint = "every line of a GloVe file is a word and its numbers, separated by single \
                blanks, without a header line";
            return Err(self
                .error(format!("line 1 is `{shown}`, which is not a word vector"))
                .hint(hint)
                .into());
        }
        self.columns = columns;
        self.values = vec![0.0; self.found.len() * (columns - 1)];
        Ok(())
    }

    fn fill(&mut self, line: usize, row: usize, numbers: &str) -> Result<()> {
        let dim = self.columns - 1;
        for (column, number) in numbers.split(' ').enumerate() {
            let value = number.parse::<f32>().ok().filter(|value| value.is_finite());
            let Some(value) = value else {
                return Err(self
                    .error(format!(
                        "line {line}, column {}: `{number}` is not a finite number",
                        column + 2
                    ))
                    .into());
            };
            self.values[row * dim + column] = value;
        }
        self.found[row] = true;
        Ok(())
    }

    fn error(&self, problem: String) -> DataError {
        DataError::new(self.path, problem).hint(
            "a line of word vectors is a word and its numbers, as many in each line, with \
                single blanks between",
        )
    }
}
