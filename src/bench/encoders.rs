//! `bench encoders`: tokens a second of encoders beside the first one, on random pieces. Rounds go
//! through all encoders in turn, so that a busy machine slows all of them.
//!
//! Not for: what their states are worth.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};
use tch::{Cuda, Device, Kind, Tensor};

use crate::encoders::{Encoder, EncoderSpec, Pass, TokenStream, build};
use crate::torch::Parameters;
use crate::torch::dropout::Dropout;
use crate::torch::precision::Precision;
use crate::torch::rng::Generator;
use crate::{Error, Result};

/// Pieces of the vocabulary: enough that lookups miss the cache, few enough to build quickly.
const VOCABULARY: i64 = 8192;
/// Tokens of a pass at least.
const TOKENS: i64 = 4096;
/// Rounds that are measured, after one that is not.
const ROUNDS: usize = 5;

/// What is measured.
#[derive(Clone, Debug)]
pub struct EncodersBench {
    /// Presets or folders. The first one is what the others are compared with.
    pub encoders: Vec<String>,
    /// Keys of `config.json` and their values, in every row.
    pub settings: Map<String, Value>,
    /// A key of `config.json` and a value each: every preset that has the key is measured with it
    /// too.
    pub variants: Vec<(String, Value)>,
    /// Pieces of each document.
    pub length: usize,
    /// Dropout of states and of attention in training.
    pub dropout: f64,
}

/// An encoder's speed.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderRow {
    /// The encoder.
    pub encoder: String,
    /// Millions of parameters.
    pub parameters: f64,
    /// Tokens a second forward.
    pub forward: f64,
    /// Tokens a second forward and backward.
    pub training: f64,
    /// Both as shares of the first encoder's, medians over rounds of one round's share.
    pub shares: [f64; 2],
}

/// All encoders.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderTable {
    /// Pieces of each document.
    pub length: usize,
    /// Dropout in training.
    pub dropout: f64,
    /// Number format of the products.
    pub precision: String,
    /// Keys of `config.json` that differ from the presets in every row.
    pub settings: Map<String, Value>,
    /// The rows.
    pub rows: Vec<EncoderRow>,
}

impl fmt::Display for EncoderTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, dropout, precision, settings, rows } = self;
        let settings: String =
            settings.iter().map(|(key, value)| format!("{key} = {value}, ")).collect();
        let dropout = match dropout {
            0.0 => String::new(),
            p => format!("dropout {p}, "),
        };
        writeln!(
            f,
            "documents of {length} pieces, {precision}, {dropout}{settings}tokens a second"
        )?;
        let first = rows.first().map_or("", |row| row.encoder.as_str());
        let names = rows.iter().map(|row| row.encoder.len());
        let width = 2 + names.max().unwrap_or(0);
        write!(
            f,
            "{:<width$}{:>12}{:>12}{:>12}  of {first}",
            "", "M parameters", "forward", "training"
        )?;
        for row in rows {
            let EncoderRow { encoder, parameters, forward, training, shares: [a, b] } = row;
            write!(f, "\n{encoder:<width$}{parameters:>12.1}{forward:>12.0}{training:>12.0}")?;
            write!(f, "  {a:.2}, {b:.2}")?;
        }
        Ok(())
    }
}

struct Entrant {
    name: String,
    encoder: Box<dyn Encoder>,
    parameters: f64,
    seconds: [Vec<f64>; 2],
}

impl EncodersBench {
    /// Measures all of them.
    ///
    /// # Errors
    /// An encoder that cannot be built, or does not take documents of that length.
    pub fn run(&self, device: Device, precision: Precision) -> Result<EncoderTable> {
        let mut entrants = self.entrants(device)?;
        let stream = stream(self.length as i64, device)?;
        let passes = [Pass::inference(precision), self.training(&stream, precision)?];
        for round in 0..=ROUNDS {
            for entrant in &mut entrants {
                for (seconds, pass) in entrant.seconds.iter_mut().zip(&passes) {
                    let took = time(&*entrant.encoder, &stream, pass)?;
                    if round > 0 {
                        seconds.push(took);
                    }
                }
            }
        }
        let tokens = stream.segments.tokens() as f64;
        let Some(first) = entrants.first().map(|entrant| entrant.seconds.clone()) else {
            return Err(Error::recipe("no encoder is named"));
        };
        let rows = entrants.iter().map(|entrant| {
            let rate = |index: usize| tokens / median(&entrant.seconds[index]);
            let share = |index: usize| {
                let pairs = first[index].iter().zip(&entrant.seconds[index]);
                median(&pairs.map(|(first, own)| first / own).collect::<Vec<f64>>())
            };
            EncoderRow {
                encoder: entrant.name.clone(),
                parameters: entrant.parameters,
                forward: rate(0),
                training: rate(1),
                shares: [share(0), share(1)],
            }
        });
        Ok(EncoderTable {
            length: self.length,
            dropout: self.dropout,
            precision: format!("{precision:?}"),
            settings: self.settings.clone(),
            rows: rows.collect(),
        })
    }
}

impl EncodersBench {
    fn training(&self, stream: &TokenStream, precision: Precision) -> Result<Pass> {
        let tokens = stream.segments.tokens();
        let keys: Vec<i64> =
            (0..tokens).map(|at| Dropout::token_key(1, 0, 0, at.cast_unsigned())).collect();
        let keys = Tensor::f_from_slice(&keys)?;
        let masks = || Dropout::new(self.dropout, keys.shallow_clone()).map(Some);
        let (hidden_dropout, attention_dropout) = (masks()?, masks()?);
        Ok(Pass { train: true, hidden_dropout, attention_dropout, precision })
    }

    /// The encoders, each with its variants behind it.
    fn entrants(&self, device: Device) -> Result<Vec<Entrant>> {
        let mut entrants = Vec::new();
        let mut unknown: Vec<&str> = self.variants.iter().map(|(key, _)| key.as_str()).collect();
        for name in &self.encoders {
            let own = entrant(name.clone(), &self.spec(name, None)?, device)?;
            let config = own.encoder.config();
            entrants.push(own);
            if !EncoderSpec::is_preset(name) {
                continue;
            }
            for (key, value) in self.variants.iter().filter(|(key, _)| config.get(key).is_some()) {
                let spec = self.spec(name, Some((key, value)))?;
                entrants.push(entrant(format!("{name}, {key} = {value}"), &spec, device)?);
                unknown.retain(|other| other != key);
            }
        }
        match unknown.first() {
            Some(key) => Err(Error::recipe(format!("--variant: no preset has the key `{key}`"))
                .with_hint("take a key of the config.json of a preset that --encoder names")),
            None => Ok(entrants),
        }
    }

    fn spec(&self, name: &str, variant: Option<(&String, &Value)>) -> Result<EncoderSpec> {
        if EncoderSpec::is_preset(name) {
            let mut settings = self.settings.clone();
            settings.extend(variant.map(|(key, value)| (key.clone(), value.clone())));
            return Ok(EncoderSpec::preset(name, settings.into()));
        }
        match self.settings.keys().next() {
            Some(key) => {
                Err(Error::recipe(format!("--set {key}: {name} has a config.json already"))
                    .with_hint("name presets alone as --encoder, or leave --set out"))
            }
            None => EncoderSpec::parse(name),
        }
    }
}

fn entrant(name: String, spec: &EncoderSpec, device: Device) -> Result<Entrant> {
    let mut parameters = Parameters::new(1, device);
    let encoder = build(spec, VOCABULARY, &mut parameters)?;
    let count: usize = parameters.iter().map(|parameter| parameter.tensor.numel()).sum();
    Ok(Entrant { name, encoder, parameters: count as f64 / 1e6, seconds: [vec![], vec![]] })
}

/// Documents of random pieces.
fn stream(length: i64, device: Device) -> Result<TokenStream> {
    let documents = (TOKENS + length - 1) / length;
    let total = documents * length;
    let ids =
        Generator::new(7)?.uniform(&[total], 0.0, VOCABULARY as f64)?.f_to_kind(Kind::Int64)?;
    let ids: Vec<i64> = Vec::try_from(ids.f_clamp(0, VOCABULARY - 1)?)?;
    let positions: Vec<i64> = (0..total).map(|at| at % length).collect();
    let offsets: Vec<i64> = (0..=documents).map(|document| document * length).collect();
    TokenStream::new(&ids, &positions, &offsets, device)
}

/// The seconds of one pass.
fn time(encoder: &dyn Encoder, stream: &TokenStream, pass: &Pass) -> Result<f64> {
    let start = Instant::now();
    if pass.train {
        encoder.encode(stream, pass)?.f_sum(Kind::Float)?.f_backward()?;
    } else {
        let _states = tch::no_grad(|| encoder.encode(stream, pass))?;
    }
    if let Device::Cuda(index) = stream.ids.device() {
        Cuda::synchronize(index as i64);
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The middle of some numbers.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bench(encoders: &[&str], settings: &Value, variants: &[(&str, i64)]) -> EncodersBench {
        EncodersBench {
            encoders: encoders.iter().map(|&name| name.to_owned()).collect(),
            settings: settings.as_object().unwrap().clone(),
            variants: variants.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect(),
            length: 64,
            dropout: 0.1,
        }
    }

    #[test]
    fn encoders_stand_beside_the_first_one_with_their_variants() {
        let variants = [("global_attn_every_n_layers", 1), ("local_attention", 32)];
        let settings = json!({ "num_hidden_layers": 3 });
        let bench = bench(&["tiny", "modernbert-tiny"], &settings, &variants);
        let table = bench.run(Device::Cpu, Precision::Fp32).unwrap();
        let names: Vec<&str> = table.rows.iter().map(|row| row.encoder.as_str()).collect();
        assert_eq!(
            names,
            [
                "tiny",
                "modernbert-tiny",
                "modernbert-tiny, global_attn_every_n_layers = 1",
                "modernbert-tiny, local_attention = 32"
            ]
        );
        assert_eq!(table.rows[0].shares, [1.0, 1.0]);
        assert!(table.rows.iter().all(|row| row.forward > row.training && row.training > 0.0));
        let told = table.to_string();
        assert!(
            told.contains("of tiny")
                && told.contains("dropout 0.1, ")
                && told.contains("num_hidden_layers = 3, "),
            "{told}"
        );
        let layers = bench.entrants(Device::Cpu).unwrap();
        assert!(layers.iter().all(|row| row.encoder.facts().layers == Some(3)));
    }

    #[test]
    fn keys_that_no_row_has_are_refused() {
        let refused = |bench: EncodersBench, text: &str| {
            let error = bench.entrants(Device::Cpu).err().unwrap();
            assert!(error.to_string().contains(text) && error.hint().is_some(), "{error}");
        };
        refused(bench(&["tiny"], &json!({}), &[("global_rope", 1)]), "no preset has the key");
        refused(bench(&["tiny"], &json!({ "n_layer": 3 }), &[]), "unknown encoder key `n_layer`");
        refused(bench(&["/nowhere"], &json!({ "n_layer": 3 }), &[]), "has a config.json already");
    }
}
