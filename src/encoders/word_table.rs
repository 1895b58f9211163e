//! The table of word vectors that some encoders are built on: filled from a file of word vectors
//! and then frozen, as in the DocRED baselines (Yao et al. 2019), or random and trained.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::kind::overridden;
use super::{NewEncoder, WordVectors};
use crate::Result;
use crate::torch::hf::ModelFolder;
use crate::torch::hf::load;
use crate::torch::{Init, Parameters, Slot};

const WORD_TABLE: &str = "word_emb.weight";

/// The dimensions of a table, under the names that `config.json` uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WordTable {
    /// Rows of the table.
    pub vocab_size: i64,
    /// Width of a word vector; that of the file where one is given.
    pub embedding_size: i64,
    /// Whether the table is frozen; by default exactly if it comes from a file.
    pub frozen_vectors: Option<bool>,
}

impl Default for WordTable {
    fn default() -> Self {
        Self { vocab_size: 0, embedding_size: 100, frozen_vectors: None }
    }
}

impl WordTable {
    pub(super) fn frozen(&self) -> bool {
        self.frozen_vectors.unwrap_or(false)
    }

    /// Rows that no file fills are drawn from N(0, `std`²).
    pub(super) fn slot(&self, std: f64) -> Slot {
        let shape = [self.vocab_size, self.embedding_size];
        let table = Slot::new(WORD_TABLE, &shape, Init::Normal { std });
        if self.frozen() { table.frozen() } else { table }
    }
}

/// The configuration of an encoder over a table of word vectors.
pub(super) trait OverWords: Default + Serialize + DeserializeOwned {
    fn table(&mut self) -> &mut WordTable;

    /// Takes notice of the pieces that no file of word vectors knows.
    fn train_rows(&mut self, _special: &[i64]) {}

    /// # Errors
    /// [`crate::Error::Recipe`] naming a key whose value cannot be used.
    fn validate(&self) -> Result<()>;

    /// All parameters; word rows that no file fills are drawn from N(0, `std`²).
    fn slots(&self, std: f64) -> Vec<Slot>;
}

/// An encoder's parameters, declared and filled.
pub(super) struct Declared<C> {
    pub config: C,
    /// The word table.
    pub table: Tensor,
    pub notes: Vec<String>,
}

impl<C: OverWords> Declared<C> {
    /// With the given word vectors, or random ones from N(0, 1).
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] for a configuration that cannot be built, or vectors of another
    /// vocabulary.
    pub fn new(new: &NewEncoder, pieces: i64, params: &mut Parameters) -> Result<Self> {
        let mut config = C::default();
        config.table().vocab_size = pieces;
        let mut config = overridden(&config, &new.overrides)?;
        let vectors: Option<&WordVectors> = new.words.as_ref().map(|words| &words.vectors);
        config.table().frozen_vectors.get_or_insert(vectors.is_some());
        let mut std = 1.0;
        if let Some(words) = &new.words {
            config.table().embedding_size = words.vectors.dim;
            config.train_rows(&words.special_rows);
            std = words.vectors.std()?;
        }
        config.validate()?;
        params.declare_all(config.slots(std))?;
        let table = params.handle(WORD_TABLE)?;
        let notes = vectors.map(|vectors| vectors.fill(&table)).transpose()?;
        Ok(Self { config, table, notes: notes.into_iter().collect() })
    }

    /// With the weights of a folder.
    ///
    /// # Errors
    /// [`crate::Error::Data`] where weights are missing, do not fit the configuration, or belong to
    /// a smaller vocabulary.
    pub fn load(folder: &mut ModelFolder, pieces: i64, params: &mut Parameters) -> Result<Self> {
        let mut config: C = load::config(folder)?;
        config.validate().map_err(|error| folder.in_config(&error))?;
        let rows = config.table().vocab_size;
        let notes = load::read(folder, config.slots(1.0), (rows, pieces), params)?;
        Ok(Self { config, table: params.handle(WORD_TABLE)?, notes })
    }
}
