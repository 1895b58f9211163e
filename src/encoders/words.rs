//! The encoder of systems that read word vectors themselves: a plain table, one state a piece, no
//! network (docs/systems.md, H.1 and B.1).
//!
//! The table comes from a file of word vectors and then stays as it is, as in the DocRED baselines
//! (Yao et al. 2019), or starts from N(0, 1) and is trained. Not for: what is put beside a word's
//! vector and what reads it (`systems`).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;

use super::{Encoder, Pass, TokenStream, WordVectors};
use crate::Result;
use crate::torch::hf::Folder;
use crate::torch::hf::load::{self, check_positive};
use crate::torch::nn::lookup;
use crate::torch::{Init, Parameters, Slot};

/// The `model_type` of its `config.json`.
pub(super) const MODEL_TYPE: &str = "docre-words";

const WORD_TABLE: &str = "word_emb.weight";

/// The dimensions of a table, under the names that `config.json` uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WordsConfig {
    /// Rows of the table.
    pub vocab_size: i64,
    /// Width of a word vector; that of the file where one is given.
    pub embedding_size: i64,
    /// Whether the table stays as it is; by default exactly if it comes from a file.
    pub frozen_vectors: Option<bool>,
}

impl Default for WordsConfig {
    fn default() -> Self {
        Self { vocab_size: 0, embedding_size: 100, frozen_vectors: None }
    }
}

impl WordsConfig {
    fn validate(&self) -> Result<()> {
        check_positive(&[("vocab_size", self.vocab_size), ("embedding_size", self.embedding_size)])
    }

    /// Rows that no file fills are drawn from N(0, `std`²).
    fn slots(&self, std: f64) -> Vec<Slot> {
        let table =
            Slot::new(WORD_TABLE, &[self.vocab_size, self.embedding_size], Init::Normal { std });
        vec![if self.frozen_vectors.unwrap_or(false) { table.frozen() } else { table }]
    }
}

/// A table of word vectors.
#[derive(Debug)]
pub struct Words {
    config: WordsConfig,
    table: Tensor,
    names: Vec<String>,
    notes: Vec<String>,
}

impl Words {
    /// A table of the given word vectors, or of random ones from N(0, 1).
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] for a table without rows or columns, or vectors of another
    /// vocabulary.
    pub fn declare(
        mut config: WordsConfig,
        vectors: Option<&WordVectors>,
        params: &mut Parameters,
    ) -> Result<Self> {
        config.frozen_vectors.get_or_insert(vectors.is_some());
        let mut std = 1.0;
        if let Some(vectors) = vectors {
            config.embedding_size = vectors.dim;
            std = vectors.std()?;
        }
        config.validate()?;
        let names = params.declare_all(config.slots(std))?;
        let mut encoder =
            Self { table: params.handle(WORD_TABLE)?, config, names, notes: Vec::new() };
        if let Some(vectors) = vectors {
            encoder.notes.push(vectors.fill(&encoder.table, "words")?);
        }
        Ok(encoder)
    }

    /// The table of a folder.
    ///
    /// # Errors
    /// [`crate::Error::Data`] where it is missing, does not fit the configuration, or belongs to a
    /// smaller vocabulary.
    pub fn from_folder(folder: &Folder, vocab_size: i64, params: &mut Parameters) -> Result<Self> {
        let config: WordsConfig = load::config(folder)?;
        config.validate().map_err(|error| folder.in_config(&error))?;
        let (names, notes) =
            load::read(folder, config.slots(1.0), (config.vocab_size, vocab_size), params)?;
        Ok(Self { table: params.handle(WORD_TABLE)?, config, names, notes })
    }
}

impl Encoder for Words {
    fn width(&self) -> i64 {
        self.config.embedding_size
    }

    fn vocab_size(&self) -> i64 {
        self.config.vocab_size
    }

    fn max_positions(&self) -> Option<i64> {
        None
    }

    fn dropout_rates(&self) -> (f64, f64) {
        (0.0, 0.0)
    }

    fn contextual(&self) -> bool {
        false
    }

    fn encode(&self, stream: &TokenStream, _pass: &Pass) -> Result<Tensor> {
        lookup(&self.table, &stream.ids)
    }

    fn config(&self) -> Value {
        let mut config = serde_json::to_value(&self.config).unwrap_or_default();
        config["architectures"] = json!(["DocreWords"]);
        config["model_type"] = json!(MODEL_TYPE);
        config
    }

    fn parameter_names(&self) -> &[String] {
        &self.names
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
