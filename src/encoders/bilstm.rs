//! The BiLSTM encoder of the DocRED baselines (Yao et al. 2019), fed with the marked token stream
//! instead of separate feature tables.
//!
//! Word vectors → locked dropout → BiLSTM → linear map → ReLU. A frozen word table can keep chosen
//! rows trainable: the markers, which no file of word vectors knows.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use super::checks::{check_positive, check_rates};
use super::word_table::{Declared, OverWords, WordTable};
use super::{Encoder, EncoderFacts, EncoderKind, Pass, TokenStream, kind};
use crate::torch::nn::{Linear, LstmShape, PackedLstm, lookup};
use crate::torch::{Init, Parameters, Slot, on};
use crate::{Error, Result};

const TRAINED_ROWS: &str = "word_emb.trained_rows";

/// The registry's entry.
pub(super) const BILSTM: EncoderKind = EncoderKind {
    model_type: "docre-bilstm",
    presets: &["bilstm"],
    reads_words: true,
    create: |new, pieces, params| {
        let declared = Declared::new(new, pieces, params)?;
        Ok(Box::new(BiLstm::new(declared, params)?))
    },
    load: |folder, pieces, params| {
        let declared = Declared::load(folder, pieces, params)?;
        Ok(Box::new(BiLstm::new(declared, params)?))
    },
    size: |config| {
        let number = |key: &str| config.get(key).and_then(Value::as_f64);
        Some([number("hidden_size")?, number("num_hidden_layers").unwrap_or(1.0)])
    },
    flops,
};

/// Two directions of four gates a layer; a layer above the first reads both directions.
fn flops(config: &Value, length: f64) -> Option<f64> {
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let (hidden, layers) = (number("lstm_hidden_size")?, number("num_hidden_layers")?);
    let (input, output) = (number("embedding_size")?, number("hidden_size")?);
    let layer = |input: f64| 2.0 * 2.0 * (input + hidden) * 4.0 * hidden;
    let below = layer(input) + (layers - 1.0) * layer(2.0 * hidden);
    Some(length * (below + 2.0 * 2.0 * hidden * output))
}

/// Dimensions and rates, under the names that `config.json` uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct BiLstmConfig {
    #[serde(flatten)]
    words: WordTable,
    /// Width of an LSTM state, per direction.
    lstm_hidden_size: i64,
    /// LSTM layers.
    num_hidden_layers: i64,
    /// Width d of a state that the encoder gives back.
    hidden_size: i64,
    /// `relu` or `none`, after the last linear map.
    activation: String,
    /// Rate of the locked dropout on the input of each LSTM layer.
    locked_dropout_prob: f64,
    /// Rows of a frozen word table that are trained nevertheless.
    trained_rows: Vec<i64>,
}

impl Default for BiLstmConfig {
    fn default() -> Self {
        Self {
            words: WordTable::default(),
            lstm_hidden_size: 128,
            num_hidden_layers: 1,
            hidden_size: 128,
            activation: "relu".into(),
            locked_dropout_prob: 0.2,
            trained_rows: Vec::new(),
        }
    }
}

impl BiLstmConfig {
    fn shape(&self) -> LstmShape {
        LstmShape {
            input: self.words.embedding_size,
            hidden: self.lstm_hidden_size,
            layers: self.num_hidden_layers,
            bidirectional: true,
        }
    }
}

impl OverWords for BiLstmConfig {
    fn table(&mut self) -> &mut WordTable {
        &mut self.words
    }

    fn train_rows(&mut self, special: &[i64]) {
        special.clone_into(&mut self.trained_rows);
    }

    fn validate(&self) -> Result<()> {
        self.words.validate()?;
        check_positive(
            "encoder key ",
            &[
                ("lstm_hidden_size", self.lstm_hidden_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("hidden_size", self.hidden_size),
            ],
        )?;
        check_rates("encoder key ", &[("locked_dropout_prob", self.locked_dropout_prob)])?;
        if !["relu", "none"].contains(&self.activation.as_str()) {
            return Err(Error::recipe(format!(
                "encoder key `activation` is `{}`",
                self.activation
            ))
            .with_hint("use relu or none"));
        }
        let rows = self.words.vocab_size;
        match self.trained_rows.iter().find(|row| !(0..rows).contains(row)) {
            Some(row) => Err(Error::recipe(format!(
                "`trained_rows` names row {row} of a vocabulary of {rows}"
            ))),
            None => Ok(()),
        }
    }

    fn slots(&self, std: f64) -> Vec<Slot> {
        let mut slots = vec![self.words.slot(std)];
        if self.words.frozen() && !self.trained_rows.is_empty() {
            let shape = [self.trained_rows.len() as i64, self.words.embedding_size];
            slots.push(Slot::new(TRAINED_ROWS, &shape, Init::Normal { std }));
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
struct BiLstm {
    config: BiLstmConfig,
    words: Tensor,
    trained: Option<TrainedRows>,
    lstm: PackedLstm,
    output: Linear,
    facts: EncoderFacts,
}

impl BiLstm {
    fn new(declared: Declared<BiLstmConfig>, params: &Parameters) -> Result<Self> {
        let Declared { config, table, notes } = declared;
        Ok(Self {
            words: table,
            trained: params
                .get(TRAINED_ROWS)
                .map(|rows| TrainedRows::new(rows, &config))
                .transpose()?,
            lstm: PackedLstm::get("rnn", config.shape(), params)?,
            output: Linear::get(params, "linear_re")?,
            facts: EncoderFacts {
                dropout_rates: (config.locked_dropout_prob, 0.0),
                ..EncoderFacts::new(config.hidden_size, notes)
            },
            config,
        })
    }
}

impl Encoder for BiLstm {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn encode(&self, stream: &TokenStream, pass: &Pass) -> Result<Tensor> {
        let mut words = lookup(&self.words, &stream.ids)?;
        if let Some(trained) = &self.trained {
            words = trained.replace(&words, &stream.ids)?;
        }
        let dropout = pass.hidden_dropout.as_ref();
        let states = self.lstm.read(&words, &stream.segments, dropout, 0, pass.train)?;
        let output = self.output.forward(&states)?;
        Ok(if self.config.activation == "relu" { output.f_relu()? } else { output })
    }

    fn config(&self) -> Value {
        kind::to_json(&self.config, "DocreBiLstm", BILSTM.model_type)
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
        let mut places = vec![-1; config.words.vocab_size as usize];
        for (place, &row) in (0..).zip(&config.trained_rows) {
            places[row as usize] = place;
        }
        Ok(Self { rows: rows.shallow_clone(), places: on(&places, rows.device())? })
    }

    /// `vectors` `[T, embedding_size]` with the trained rows put in where `ids` `[T]` name them.
    fn replace(&self, vectors: &Tensor, ids: &Tensor) -> Result<Tensor> {
        let places = self.places.f_index_select(0, ids)?;
        let trained = lookup(&self.rows, &places.f_clamp_min(0)?)?;
        Ok(trained.f_where_self(&places.f_ge(0)?.f_unsqueeze(-1)?, vectors)?)
    }
}
