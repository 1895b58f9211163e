//! The plain table: rows are states, frozen from a file, trained otherwise, round trip.

use super::*;

/// Vectors for every second of 50 entries.
fn vectors() -> WordVectors {
    let found: Vec<bool> = (0..50).map(|row| row % 2 == 0).collect();
    let mask = Tensor::from_slice(&found).unsqueeze(1).to_kind(Kind::Float);
    let table = (Tensor::arange(300, (Kind::Float, Device::Cpu)).view([50, 6]) * 0.37).sin() * mask;
    WordVectors { dim: 6, found, table }
}

fn words(vectors: Option<WordVectors>) -> (Parameters, Box<dyn Encoder>) {
    let mut params = Parameters::new(8, Device::Cpu);
    let encoder =
        build(&EncoderSpec::Words { config: WordsConfig::default(), vectors }, 50, &mut params)
            .unwrap();
    (params, encoder)
}

#[test]
fn states_are_rows_of_the_table() {
    let (params, encoder) = words(Some(vectors()));
    assert_eq!((encoder.width(), encoder.vocab_size(), encoder.contextual()), (6, 50, false));
    let table = params.get("word_emb.weight").unwrap();
    let states = encode(&*encoder, &documents());
    assert_eq!(states, table.index_select(0, &stream(&documents()).ids));
    assert_eq!(table.get(8), vectors().table.get(8));
    assert!(
        table.get(9).abs().min().double_value(&[]) > 0.0,
        "a row without a vector must not be zero"
    );
}

#[test]
fn vectors_of_a_file_are_frozen_and_random_ones_are_trained() {
    let (params, encoder) = words(Some(vectors()));
    assert_eq!(
        (params.trainable().count(), &encoder.config()["frozen_vectors"]),
        (0, &json!(true))
    );
    let (params, encoder) = words(None);
    assert_eq!(
        (params.trainable().count(), &encoder.config()["frozen_vectors"]),
        (1, &json!(false))
    );
    assert_eq!(encoder.width(), 100);
}

#[test]
fn saved_and_loaded_is_the_same_table() {
    let (params, encoder) = words(Some(vectors()));
    let (_dir, again, loaded) = saved_and_loaded(&params, &*encoder, 50);
    assert_eq!(loaded.config()["model_type"], json!("docre-words"));
    assert_eq!(loaded.config(), encoder.config());
    assert_eq!(again.trainable().count(), 0);
    assert_eq!(encode(&*encoder, &documents()), encode(&*loaded, &documents()));
}

#[test]
fn a_larger_vocabulary_than_the_table_is_an_error() {
    let (params, encoder) = words(Some(vectors()));
    let dir = tempfile::tempdir().unwrap();
    let tensors =
        encoder.parameter_names().iter().map(|name| (name.as_str(), params.get(name).unwrap()));
    hf::write_folder(dir.path(), &encoder.config(), tensors).unwrap();
    let spec = EncoderSpec::parse(dir.path().to_str().unwrap()).unwrap();
    let error = build(&spec, 51, &mut Parameters::new(0, Device::Cpu)).err().unwrap();
    assert!(error.to_string().contains("50 rows, but the tokenizer 51 pieces"), "{error}");
}
