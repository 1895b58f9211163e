//! Tests of the encoders: parity with reference states, packing, round trips, gradients.

mod bert;
mod bilstm;
mod parity;
mod word_vectors;
mod words;

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use super::*;

/// Folder of the reference cases, or `None` with a line that says so.
fn shared() -> Option<PathBuf> {
    let found = std::env::var_os("DOCRE_SHARED").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: DOCRE_SHARED is not set");
    }
    found
}

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

fn small_overrides() -> Map<String, Value> {
    let Value::Object(map) = json!({
        "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 12,
    }) else {
        unreachable!()
    };
    map
}

fn small_bert(seed: u64) -> (Parameters, Box<dyn Encoder>) {
    let mut params = Parameters::new(seed, Device::Cpu);
    let spec = EncoderSpec::Preset { name: "tiny".into(), overrides: small_overrides() };
    let encoder = build(&spec, 50, &mut params).unwrap();
    (params, encoder)
}

fn documents() -> Vec<Vec<i64>> {
    vec![vec![1, 5, 9, 2], vec![7], vec![3, 3, 8, 49, 0, 11, 12], vec![10, 4]]
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
    let tensors =
        encoder.parameter_names().iter().map(|name| (name.as_str(), params.get(name).unwrap()));
    hf::write_folder(dir.path(), &encoder.config(), tensors).unwrap();
    let mut again = Parameters::new(999, Device::Cpu);
    let loaded =
        build(&EncoderSpec::parse(dir.path().to_str().unwrap()).unwrap(), vocab_size, &mut again)
            .unwrap();
    (dir, again, loaded)
}
