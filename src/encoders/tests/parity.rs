//! States of the reference implementations: |x − ref| ≤ 2e-5 + 1e-4 |ref|.

use crate::torch::nn::{LstmShape, PackedLstm, Packing};
use std::collections::BTreeMap;
use std::path::Path;

use super::*;

type Tensors = BTreeMap<String, Tensor>;

/// The reference encoder, loaded through a folder as users do.
fn reference_encoder(shared: &Path) -> (Parameters, Box<dyn Encoder>) {
    let dir = tempfile::tempdir().unwrap();
    fs_err::copy(shared.join("parity/encoder.safetensors"), dir.path().join("model.safetensors"))
        .unwrap();
    let config = json!({
        "model_type": "bert", "vocab_size": 30522, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 512,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    });
    fs_err::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut params = Parameters::new(1, Device::Cpu);
    let encoder = build(&EncoderSpec::Folder(dir.path().to_owned()), 30522, &mut params).unwrap();
    (params, encoder)
}

/// The tokens under the mask, document by document.
fn unmasked(ids: &Tensor, mask: &Tensor) -> Vec<Vec<i64>> {
    (0..ids.size()[0])
        .map(|row| {
            Vec::<i64>::try_from(ids.get(row).masked_select(&mask.get(row).to_kind(Kind::Bool)))
                .unwrap()
        })
        .collect()
}

fn assert_close(what: &str, ours: &Tensor, reference: &Tensor) {
    assert_eq!(ours.size(), reference.size(), "{what}");
    let excess = (ours - reference).abs() - reference.abs() * 1e-4 - 2e-5;
    assert!(
        excess.max().double_value(&[]) <= 0.0,
        "{what}: largest difference {}",
        largest_difference(ours, reference)
    );
}

fn check_case(shared: &Path, case: &str, suffixes: &[&str]) {
    let (_params, encoder) = reference_encoder(shared);
    let read =
        |file: &str| hf::read_safetensors(&shared.join("parity").join(case).join(file)).unwrap();
    let (inputs, outputs): (Tensors, Tensors) =
        (read("inputs.safetensors"), read("outputs.safetensors"));
    for suffix in suffixes {
        let mask = &inputs[&format!("attMask{suffix}")];
        let documents = unmasked(&inputs[&format!("doc{suffix}")], mask);
        let reference = outputs[&format!("hidden{suffix}")].view([-1, 32]);
        let reference = reference.index_select(0, &mask.view(-1).nonzero().view(-1));
        let packed = encode(&*encoder, &documents);
        assert_close(&format!("{case}, hidden{suffix}"), &packed, &reference);
        let alone = encode_alone(&*encoder, &documents);
        assert_eq!(packed, alone, "{case}: packed and alone differ");
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn ranker_states_match_the_reference() {
    let shared = crate::reference_data();
    check_case(&shared, "dsdocre-ranker", &[""]);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn pretraining_states_match_the_reference() {
    let shared = crate::reference_data();
    check_case(&shared, "dsdocre-pretrain", &["1", "2"]);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn bf16_states_stay_near_the_reference() {
    let shared = crate::reference_data();
    let (_params, encoder) = reference_encoder(&shared);
    let inputs =
        hf::read_safetensors(&shared.join("parity/dsdocre-ranker/inputs.safetensors")).unwrap();
    let documents = unmasked(&inputs["doc"], &inputs["attMask"]);
    let full = encode(&*encoder, &documents);
    let half = tch::no_grad(|| {
        encoder.encode(&stream(&documents), &Pass::inference(Precision::Bf16)).unwrap()
    });
    assert_eq!(half.kind(), Kind::Float);
    let relative = ((&half - &full).norm() / full.norm()).double_value(&[]);
    // bfloat16 keeps 8 bits: 2⁻⁹ a rounding, a few of them in a row. Zero would mean that nothing
    // was rounded.
    assert!(relative > 1e-5 && relative < 2e-2, "relative distance {relative}");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn bilstm_states_match_the_docred_baseline() {
    let shared = crate::reference_data();
    let read = |file: &str| {
        hf::read_safetensors(&shared.join("parity/baseline-bilstm").join(file)).unwrap()
    };
    let (weights, inputs, outputs) =
        (read("weights.safetensors"), read("inputs.safetensors"), read("outputs.safetensors"));
    let mut params = Parameters::new(1, Device::Cpu);
    let shape = LstmShape { input: 38, hidden: 16, layers: 1, bidirectional: true };
    let lstm = PackedLstm::declare("rnn", shape, &mut params).unwrap();
    for parameter in params.iter() {
        params.assign(&parameter.name, &weights[&parameter.name]).unwrap();
    }
    let table = |name: &str, rows: &str| weights[name].index_select(0, &inputs[rows].view(-1));
    let features = [
        table("word_emb.weight", "context_idxs"),
        table("entity_embed.weight", "context_pos"),
        table("ner_emb.weight", "context_ner"),
    ];
    let lengths = Vec::<i64>::try_from(&inputs["input_lengths"]).unwrap();
    let width = inputs["context_idxs"].size()[1];
    let rows: Vec<i64> = (0..)
        .zip(&lengths)
        .flat_map(|(document, length)| (0..*length).map(move |at| document * width + at))
        .collect();
    let rows = Tensor::from_slice(&rows);
    let documents: Vec<Vec<i64>> = lengths.iter().map(|&length| vec![0; length as usize]).collect();
    let packing = Packing::new(&stream(&documents).segments, Device::Cpu).unwrap();
    let states = lstm
        .forward(&Tensor::cat(&features, 1).index_select(0, &rows), &packing, None, 0, false)
        .unwrap();
    assert_close(
        "lstm_output",
        &states,
        &outputs["lstm_output"].view([-1, 32]).index_select(0, &rows),
    );
}
