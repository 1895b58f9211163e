//! Tests of the encoders: parity with reference states, packing, round trips, gradients.

mod bert;
mod bilstm;
mod families;
mod parity;
pub(super) mod toy;
mod word_vectors;
mod words;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::*;
use crate::torch::hf;

/// A stream of documents given as lists of vocabulary rows.
fn stream(documents: &[Vec<i64>]) -> TokenStream {
    let ids: Vec<i64> = documents.concat();
    let positions: Vec<i64> =
        documents.iter().flat_map(|document| 0..document.len() as i64).collect();
    let mut offsets = vec![0];
    for document in documents {
        offsets.push(offsets[offsets.len() - 1] + document.len() as i64);
    }
    TokenStream {
        ids: Tensor::from_slice(&ids),
        positions: Tensor::from_slice(&positions),
        segments: Segments::new(&offsets, Device::Cpu).unwrap(),
    }
}

fn small_overrides() -> Value {
    json!({
        "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 12,
    })
}

fn small_bert(seed: u64) -> (Parameters, Box<dyn Encoder>) {
    let mut params = Parameters::new(seed, Device::Cpu);
    let encoder = build(&EncoderSpec::preset("tiny", small_overrides()), 50, &mut params).unwrap();
    (params, encoder)
}

fn documents() -> Vec<Vec<i64>> {
    vec![vec![1, 5, 9, 2], vec![7], vec![3, 3, 8, 49, 0, 11, 12], vec![10, 4]]
}

/// Vectors for every second of 50 entries.
fn vectors() -> WordVectors {
    let found: Vec<bool> = (0..50).map(|row| row % 2 == 0).collect();
    let mask = Tensor::from_slice(&found).unsqueeze(1).to_kind(Kind::Float);
    let table = (Tensor::arange(300, (Kind::Float, Device::Cpu)).view([50, 6]) * 0.37).sin() * mask;
    WordVectors { dim: 6, found, table }
}

/// A preset over these word vectors.
fn over(
    preset: &str,
    overrides: Value,
    vectors: WordVectors,
    special_rows: Vec<i64>,
) -> EncoderSpec {
    let EncoderSpec::New(new) = EncoderSpec::preset(preset, overrides) else { unreachable!() };
    let words = WordStart { vectors, vocabulary: Vec::new(), special_rows, seed: 7 };
    EncoderSpec::New(NewEncoder { words: Some(words), ..new })
}

fn encode(encoder: &dyn Encoder, documents: &[Vec<i64>]) -> Tensor {
    tch::no_grad(|| encoder.encode(&stream(documents), &Pass::inference(Precision::Fp32)).unwrap())
}

fn encode_alone(encoder: &dyn Encoder, documents: &[Vec<i64>]) -> Tensor {
    let states: Vec<Tensor> =
        documents.iter().map(|document| encode(encoder, std::slice::from_ref(document))).collect();
    Tensor::cat(&states, 0)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// Writes the encoder's folder and builds it again from there, under another seed.
fn saved_and_loaded(
    params: &Parameters,
    encoder: &dyn Encoder,
    vocab_size: i64,
) -> (tempfile::TempDir, Parameters, Box<dyn Encoder>) {
    let dir = tempfile::tempdir().unwrap();
    let tensors = params.iter().map(|entry| (entry.name.as_str(), &entry.tensor));
    hf::write_folder(dir.path(), &encoder.config(), tensors).unwrap();
    let mut again = Parameters::new(999, Device::Cpu);
    let loaded =
        build(&EncoderSpec::parse(dir.path().to_str().unwrap()).unwrap(), vocab_size, &mut again)
            .unwrap();
    (dir, again, loaded)
}
