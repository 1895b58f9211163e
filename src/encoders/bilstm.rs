//! The BiLSTM encoder of the DocRED baselines (Yao et al. 2019), fed with the marked token stream
//! instead of separate feature tables.
//!
//! Word vectors → locked dropout → BiLSTM → linear map → ReLU. A frozen word table can keep chosen
//! rows trainable: the markers, which no file of word vectors knows.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;

use super::{Encoder, Pass, TokenStream, WordVectors};
use crate::torch::hf::Folder;
use crate::torch::hf::load::{self, check_positive, check_rates};
use crate::torch::nn::{Linear, LstmShape, PackedLstm, Packing, lookup};
use crate::torch::{Init, Parameters, Slot};
use crate::{Error, Result};

/// The `model_type` of its `config.json`.
pub(super) const MODEL_TYPE: &str = "docre-bilstm";

const WORD_TABLE: &str = "word_emb.weight";
const TRAINED_ROWS: &str = "word_emb.trained_rows";

/// Dimensions and rates, under the names that `config.json` uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BiLstmConfig {
    /// Rows of the word table.
    pub vocab_size: i64,
    /// Width of a word vector; that of the file where one is given.
    pub embedding_size: i64,
    /// Width of an LSTM state, per direction.
    pub lstm_hidden_size: i64,
    /// LSTM layers.
    pub num_hidden_layers: i64,
    /// Width d of a state that the encoder gives back.
    pub hidden_size: i64,
    /// `relu` or `none`, after the last linear map.
    pub activation: String,
    /// Rate of the locked dropout on the input of each LSTM layer.
    pub locked_dropout_prob: f64,
    /// Whether the word table stays as it is; by default exactly if it comes from a file.
    pub frozen_vectors: Option<bool>,
    /// Rows of a frozen word table that are trained all the same.
    pub trained_rows: Vec<i64>,
}

impl Default for BiLstmConfig {
    fn default() -> Self {
        Self {
            vocab_size: 0,
            embedding_size: 100,
            lstm_hidden_size: 128,
            num_hidden_layers: 1,
            hidden_size: 128,
            activation: "relu".into(),
            locked_dropout_prob: 0.2,
            frozen_vectors: None,
            trained_rows: Vec::new(),
        }
    }
}

impl BiLstmConfig {
    fn validate(&self) -> Result<()> {
        check_positive(&[
            ("vocab_size", self.vocab_size),
            ("embedding_size", self.embedding_size),
            ("lstm_hidden_size", self.lstm_hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("hidden_size", self.hidden_size),
        ])?;
        check_rates(&[("locked_dropout_prob", self.locked_dropout_prob)])?;
        if !["relu", "none"].contains(&self.activation.as_str()) {
            return Err(Error::recipe(format!(
                "encoder key `activation` is `{}`",
                self.activation
            ))
            .with_hint("use relu or none"));
        }
        match self.trained_rows.iter().find(|row| !(0..self.vocab_size).contains(row)) {
            Some(row) => Err(Error::recipe(format!(
                "`trained_rows` names row {row} of a vocabulary of {}",
                self.vocab_size
            ))),
            None => Ok(()),
        }
    }

    fn shape(&self) -> LstmShape {
        LstmShape {
            input: self.embedding_size,
            hidden: self.lstm_hidden_size,
            layers: self.num_hidden_layers,
            bidirectional: true,
        }
    }

    fn frozen(&self) -> bool {
        self.frozen_vectors.unwrap_or(false)
    }

    /// Word rows that no file fills are drawn from N(0, `word_std`²).
    fn slots(&self, word_std: f64) -> Vec<Slot> {
        let words = Init::Normal { std: word_std };
        let table = Slot::new(WORD_TABLE, &[self.vocab_size, self.embedding_size], words);
        let mut slots = vec![if self.frozen() { table.frozen() } else { table }];
        if self.frozen() && !self.trained_rows.is_empty() {
            slots.push(Slot::new(
                TRAINED_ROWS,
                &[self.trained_rows.len() as i64, self.embedding_size],
                words,
            ));
        }
        slots.extend(self.shape().slots("rnn"));
        let inputs = 2 * self.lstm_hidden_size;
        let bound = Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() };
        slots.extend(Linear::slots("linear_re", inputs, self.hidden_size, [bound; 2]));
        slots
    }
}

/// A BiLSTM encoder.
#[derive(Debug)]
pub struct BiLstm {
    config: BiLstmConfig,
    words: Tensor,
    trained: Option<TrainedRows>,
    lstm: PackedLstm,
    output: Linear,
    names: Vec<String>,
    notes: Vec<String>,
}

impl BiLstm {
    /// A BiLSTM over the given word vectors, or over random ones from N(0, 1).
    ///
    /// # Errors
    /// [`Error::Recipe`] for a configuration that cannot be built, or vectors of another
    /// vocabulary.
    pub fn declare(
        mut config: BiLstmConfig,
        vectors: Option<&WordVectors>,
        params: &mut Parameters,
    ) -> Result<Self> {
        config.frozen_vectors.get_or_insert(vectors.is_some());
        let mut word_std = 1.0;
        if let Some(vectors) = vectors {
            config.embedding_size = vectors.dim;
            word_std = vectors.std()?;
        }
        config.validate()?;
        let names = params.declare_all(config.slots(word_std))?;
        let mut encoder = Self::get(config, names, params)?;
        if let Some(vectors) = vectors {
            encoder.notes.push(vectors.fill(&encoder.words, "pieces")?);
        }
        Ok(encoder)
    }

    /// A BiLSTM with the weights of a folder.
    ///
    /// # Errors
    /// [`Error::Data`] where weights are missing, do not fit the configuration, or belong to a
    /// smaller vocabulary.
    pub fn from_folder(folder: &Folder, vocab_size: i64, params: &mut Parameters) -> Result<Self> {
        let config: BiLstmConfig = load::config(folder)?;
        config.validate().map_err(|error| folder.in_config(&error))?;
        let (names, notes) =
            load::read(folder, config.slots(1.0), (config.vocab_size, vocab_size), params)?;
        Ok(Self { notes, ..Self::get(config, names, params)? })
    }

    fn get(config: BiLstmConfig, names: Vec<String>, params: &Parameters) -> Result<Self> {
        Ok(Self {
            words: params.handle(WORD_TABLE)?,
            trained: params
                .get(TRAINED_ROWS)
                .map(|rows| TrainedRows::new(rows, &config))
                .transpose()?,
            lstm: PackedLstm::get("rnn", config.shape(), params)?,
            output: Linear::get(params, "linear_re")?,
            config,
            names,
            notes: Vec::new(),
        })
    }

    /// [T, embedding_size]
    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let vectors = lookup(&self.words, ids)?;
        match &self.trained {
            Some(trained) => trained.replace(&vectors, ids),
            None => Ok(vectors),
        }
    }
}

impl Encoder for BiLstm {
    fn width(&self) -> i64 {
        self.config.hidden_size
    }

    fn vocab_size(&self) -> i64 {
        self.config.vocab_size
    }

    fn max_positions(&self) -> Option<i64> {
        None
    }

    fn dropout_rates(&self) -> (f64, f64) {
        (self.config.locked_dropout_prob, 0.0)
    }

    fn encode(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor> {
        let packing = Packing::new(&stream.segments, stream.ids.device())?;
        let locked = pass.hidden_dropout.map(|dropout| packing.lock(dropout)).transpose()?;
        let states = self.lstm.forward(
            &self.embed(&stream.ids)?,
            &packing,
            locked.as_ref(),
            0,
            pass.train,
        )?;
        let output = self.output.forward(&states)?;
        Ok(if self.config.activation == "relu" { output.f_relu()? } else { output })
    }

    fn config(&self) -> Value {
        let mut config = serde_json::to_value(&self.config).unwrap_or_default();
        config["architectures"] = json!(["DocreBiLstm"]);
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

/// Trainable rows that stand before rows of the frozen word table.
#[derive(Debug)]
struct TrainedRows {
    /// [rows, embedding_size]
    rows: Tensor,
    /// For every vocabulary row its place in `rows`, or −1; `[V]`.
    places: Tensor,
}

impl TrainedRows {
    fn new(rows: &Tensor, config: &BiLstmConfig) -> Result<Self> {
        let mut places = vec![-1; config.vocab_size as usize];
        for (place, &row) in (0..).zip(&config.trained_rows) {
            places[row as usize] = place;
        }
        Ok(Self {
            rows: rows.shallow_clone(),
            places: Tensor::f_from_slice::<i64>(&places)?.f_to_device(rows.device())?,
        })
    }

    /// `vectors` `[T, embedding_size]` with the trained rows put in where `ids` `[T]` name them.
    fn replace(&self, vectors: &Tensor, ids: &Tensor) -> Result<Tensor> {
        let places = self.places.f_index_select(0, ids)?;
        let trained = lookup(&self.rows, &places.f_clamp_min(0)?)?;
        Ok(trained.f_where_self(&places.f_ge(0)?.f_unsqueeze(-1)?, vectors)?)
    }
}
