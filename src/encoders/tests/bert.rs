//! BERT: packing, names, growth, refusals.

use super::*;
use crate::Error;

#[test]
fn packed_documents_do_not_see_each_other() {
    let (_params, encoder) = small_bert(3);
    let packed = encode(&*encoder, &documents());
    assert_eq!(packed.size(), [14, 16]);
    assert_eq!(packed, encode_alone(&*encoder, &documents()));
    // And a changed token changes its own document only.
    let mut changed = documents();
    changed[0][1] = 6;
    let difference = (encode(&*encoder, &changed) - packed).abs().amax([1].as_slice(), false);
    assert!(difference.narrow(0, 0, 4).min().double_value(&[]) > 0.0);
    assert_eq!(difference.narrow(0, 4, 10).max().double_value(&[]), 0.0);
}

#[test]
fn a_document_longer_than_the_positions_is_refused() {
    let (_params, encoder) = small_bert(3);
    let error =
        encoder.encode(&stream(&[vec![2; 13]]), &Pass::inference(Precision::Fp32)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a document of 13 pieces does not fit the encoder, which has 12 positions"
    );
    assert!(error.hint().is_some());
    assert!(encoder.encode(&stream(&[vec![1; 12]]), &Pass::inference(Precision::Fp32)).is_ok());
}

#[test]
fn presets_have_the_published_sizes() {
    // Parameters of google/bert_uncased_L-2_H-128_A-2, L-4_H-256_A-4 and bert-base-uncased, pooler
    // included.
    for (name, published) in [("tiny", 4_385_920), ("mini", 11_170_560), ("base", 109_482_240)] {
        let mut params = Parameters::new(0, Device::Cpu);
        build(&EncoderSpec::preset(name, Value::Null), 30522, &mut params).unwrap();
        let numbers: usize = params.iter().map(|entry| entry.tensor.numel()).sum();
        assert_eq!(numbers, published, "{name}");
    }
}

#[test]
fn gradients_reach_every_trained_parameter() {
    let (params, encoder) = small_bert(4);
    let pass = Pass { train: true, ..Pass::inference(Precision::Fp32) };
    encoder.encode(&stream(&documents()), &pass).unwrap().square().sum(Kind::Float).backward();
    for parameter in params.iter() {
        let pooler = parameter.name.starts_with("pooler.");
        assert_eq!(parameter.trainable, !pooler, "{}", parameter.name);
        assert_eq!(parameter.tensor.grad().defined(), !pooler, "{}", parameter.name);
    }
}

#[test]
fn saved_and_loaded_is_the_same_encoder() {
    let (params, encoder) = small_bert(5);
    let (dir, again, loaded) = saved_and_loaded(&params, &*encoder, 50);
    assert_eq!(
        largest_difference(&encode(&*encoder, &documents()), &encode(&*loaded, &documents())),
        0.0
    );
    assert_eq!(loaded.config(), encoder.config());
    assert!(loaded.facts().notes.is_empty());
    let pooler = "pooler.dense.weight";
    assert_eq!(params.get(pooler).unwrap(), again.get(pooler).unwrap());
    let config: Value =
        serde_json::from_str(&fs_err::read_to_string(dir.path().join("config.json")).unwrap())
            .unwrap();
    assert_eq!(
        (&config["architectures"], &config["model_type"]),
        (&json!(["BertModel"]), &json!("bert"))
    );
}

#[test]
fn a_larger_vocabulary_adds_rows() {
    let (params, encoder) = small_bert(5);
    let (_dir, again, grown) = saved_and_loaded(&params, &*encoder, 60);
    assert_eq!((&grown.config()["vocab_size"], grown.facts().notes.len()), (&json!(60), 1));
    let note = &grown.facts().notes[0];
    assert!(note.contains("10 rows were added"), "{note}");
    let table = again.get("embeddings.word_embeddings.weight").unwrap();
    assert_eq!(table.narrow(0, 0, 50), *params.get("embeddings.word_embeddings.weight").unwrap());
    let std = table.narrow(0, 50, 10).std(false).double_value(&[]);
    assert!((std - 0.02).abs() < 0.005, "{std}");
}

#[test]
fn missing_and_ill_shaped_weights_are_named() {
    let (params, encoder) = small_bert(5);
    let dir = tempfile::tempdir().unwrap();
    let without = |absent: &str| {
        let tensors = params
            .iter()
            .filter(|entry| entry.name != absent)
            .map(|entry| (entry.name.as_str(), &entry.tensor));
        hf::write_folder(dir.path(), &encoder.config(), tensors).unwrap();
        build(&EncoderSpec::Folder(dir.path().to_owned()), 50, &mut Parameters::new(1, Device::Cpu))
    };
    let error = without("encoder.layer.1.output.dense.bias").err().unwrap();
    assert!(
        matches!(error, Error::Data(_))
            && error.to_string().contains("lack `encoder.layer.1.output.dense.bias`"),
        "{error}"
    );
    assert!(without("pooler.dense.bias").unwrap().facts().notes[0].contains("pooler.dense.bias"));
    let mut config = encoder.config();
    config["intermediate_size"] = json!(25);
    fs_err::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let error = build(
        &EncoderSpec::Folder(dir.path().to_owned()),
        50,
        &mut Parameters::new(1, Device::Cpu),
    )
    .err()
    .unwrap();
    assert!(
        error.to_string().contains("[24, 16]") && error.to_string().contains("[25, 16]"),
        "{error}"
    );
}

#[test]
fn unusable_specifications_are_refused() {
    let refused = |key: &str, value: Value| {
        let mut overrides = small_overrides();
        overrides[key] = value;
        let spec = EncoderSpec::preset("tiny", overrides);
        build(&spec, 50, &mut Parameters::new(1, Device::Cpu)).err().unwrap().to_string()
    };
    assert!(refused("hidden_sise", json!(1)).contains("hidden_sise"));
    assert!(refused("num_attention_heads", json!(3)).contains("not a multiple"));
    assert!(refused("hidden_act", json!("cosine")).contains("cosine"));
    assert!(refused("hidden_dropout_prob", json!(1.0)).contains("[0, 1)"));
    assert!(EncoderSpec::parse("gigantic").unwrap_err().to_string().contains("gigantic"));
}

#[test]
fn another_architecture_is_one_clear_error() {
    let (params, encoder) = small_bert(5);
    let (dir, ..) = saved_and_loaded(&params, &*encoder, 50);
    fs_err::write(dir.path().join("config.json"), r#"{"model_type": "t5"}"#).unwrap();
    let error = build(
        &EncoderSpec::Folder(dir.path().to_owned()),
        50,
        &mut Parameters::new(1, Device::Cpu),
    )
    .err()
    .unwrap();
    assert!(error.to_string().contains("`t5`"), "{error}");
    assert_eq!(error.exit_code(), 65);
}

#[test]
fn a_roberta_is_a_bert_whose_positions_begin_later() {
    let of = |preset: &str, rows: i64| {
        let sizes = json!({
            "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32,
            "max_position_embeddings": rows, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
        });
        let mut params = Parameters::new(1, Device::Cpu);
        let encoder = build(&EncoderSpec::preset(preset, sizes), 50, &mut params).unwrap();
        (encoder, params)
    };
    let (roberta, of_roberta) = of("roberta-tiny", 14);
    let (bert, of_bert) = of("tiny", 12);
    let table = "embeddings.position_embeddings.weight";
    of_bert.assign(table, &of_roberta.get(table).unwrap().narrow(0, 2, 12)).unwrap();
    let pass = Pass::inference(Precision::Fp32);
    let long = [(2..14).collect::<Vec<i64>>()];
    assert_eq!(
        roberta.encode(&stream(&long), &pass).unwrap(),
        bert.encode(&stream(&long), &pass).unwrap()
    );
    assert!(roberta.encode(&stream(&[vec![2; 13]]), &pass).is_err());
    assert_eq!(
        (roberta.facts().max_positions, roberta.config()["model_type"].as_str()),
        (Some(12), Some("roberta"))
    );
}

#[test]
fn attention_of_layers_that_are_not_there_is_refused() {
    use crate::encoders::Attending;
    let (_params, encoder) = small_bert(2);
    let error = encoder.encode_attended(
        &stream(&documents()),
        &Attending { layers: 9, plan: None },
        &Pass::inference(Precision::Fp32),
    );
    assert!(error.unwrap_err().to_string().contains("mean of 9 layers"));
}

#[test]
fn positions_are_extended_once_by_their_hierarchy() {
    let mut own = Parameters::new(0, Device::Cpu);
    let short = EncoderSpec::preset("tiny", json!({ "max_position_embeddings": 4 }));
    let mut bert = build(&short, 9, &mut own).unwrap();
    let table = "embeddings.position_embeddings.weight";
    let before = own.get(table).unwrap().copy();
    bert.extend_positions(0.4, &mut own).unwrap();
    bert.extend_positions(0.4, &mut own).unwrap();
    let after = own.get(table).unwrap();
    assert_eq!((after.size()[0], bert.facts().max_positions), (12, Some(12)));
    assert_eq!(after.narrow(0, 0, 4), before);
    // Row 4·2 + 3: α u_2 + (1 − α) u_3 with u_i = (p_i − α p_0) / (1 − α).
    let u = |i: i64| (before.get(i) - before.get(0) * 0.4) / 0.6;
    assert!((after.get(11) - (u(2) * 0.4 + u(3) * 0.6)).abs().max().double_value(&[]) < 1e-6);
    assert!(after.requires_grad());
}
