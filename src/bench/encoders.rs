//! `bench encoders`: tokens a second of encoders beside the first one, on random pieces. Rounds go
//! through all encoders in turn, so that a busy machine slows all of them.
//!
//! Not for: what their states are worth.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use tch::{Cuda, Device, Kind};

use crate::encoders::{Encoder, EncoderSpec, Pass, TokenStream, build};
use crate::torch::Parameters;
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
    /// A key of `config.json` and a value: each preset that has the key is measured with it too.
    pub variant: Option<(String, Value)>,
    /// Pieces of each document.
    pub length: usize,
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
    /// Number format of the products.
    pub precision: String,
    /// The rows.
    pub rows: Vec<EncoderRow>,
}

impl fmt::Display for EncoderTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, precision, rows } = self;
        writeln!(f, "documents of {length} pieces, {precision}, tokens a second")?;
        let first = rows.first().map_or("", |row| row.encoder.as_str());
        write!(
            f,
            "{:<44}{:>12}{:>12}{:>12}  of {first}",
            "", "M parameters", "forward", "training"
        )?;
        for row in rows {
            let EncoderRow { encoder, parameters, forward, training, shares: [a, b] } = row;
            write!(
                f,
                "\n{encoder:<44}{parameters:>12.1}{forward:>12.0}{training:>12.0}  {a:.2}, {b:.2}"
            )?;
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
        let mut entrants = Vec::new();
        for name in &self.encoders {
            entrants.push(entrant(name.clone(), &EncoderSpec::parse(name)?, device)?);
            let Some((key, value)) = &self.variant else { continue };
            let has = entrants.last().is_some_and(|of| of.encoder.config().get(key).is_some());
            if has {
                let spec = EncoderSpec::preset(name, serde_json::json!({ key: value }));
                entrants.push(entrant(format!("{name}, {key} = {value}"), &spec, device)?);
            }
        }
        let stream = stream(self.length as i64, device)?;
        for round in 0..=ROUNDS {
            for entrant in &mut entrants {
                for (seconds, train) in entrant.seconds.iter_mut().zip([false, true]) {
                    let took = pass(&*entrant.encoder, &stream, train, precision)?;
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
            precision: format!("{precision:?}"),
            rows: rows.collect(),
        })
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
fn pass(
    encoder: &dyn Encoder,
    stream: &TokenStream,
    train: bool,
    precision: Precision,
) -> Result<f64> {
    let start = Instant::now();
    let pass = Pass { train, ..Pass::inference(precision) };
    if train {
        encoder.encode(stream, &pass)?.f_sum(Kind::Float)?.f_backward()?;
    } else {
        let _states = tch::no_grad(|| encoder.encode(stream, &pass))?;
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
    use super::*;

    #[test]
    fn encoders_stand_beside_the_first_one_with_their_variants() {
        let bench = EncodersBench {
            encoders: vec!["tiny".into(), "modernbert-tiny".into()],
            variant: Some(("global_attn_every_n_layers".into(), serde_json::json!(1))),
            length: 64,
        };
        let table = bench.run(Device::Cpu, Precision::Fp32).unwrap();
        let names: Vec<&str> = table.rows.iter().map(|row| row.encoder.as_str()).collect();
        assert_eq!(
            names,
            ["tiny", "modernbert-tiny", "modernbert-tiny, global_attn_every_n_layers = 1"]
        );
        assert_eq!(table.rows[0].shares, [1.0, 1.0]);
        assert!(table.rows.iter().all(|row| row.forward > row.training && row.training > 0.0));
        assert!(table.to_string().contains("of tiny"), "{table}");
    }
}
