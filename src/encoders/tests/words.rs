//! The plain table: rows are states, frozen from a file, trained otherwise, round trip.

use super::*;

fn words(vectors: Option<WordVectors>) -> (Parameters, Box<dyn Encoder>) {
    let mut params = Parameters::new(8, Device::Cpu);
    let spec = match vectors {
        Some(vectors) => over("words", Value::Null, vectors, Vec::new()),
        None => EncoderSpec::preset("words", Value::Null),
    };
    let encoder = build(&spec, 50, &mut params).unwrap();
    (params, encoder)
}

#[test]
fn states_are_rows_of_the_table() {
    let (params, encoder) = words(Some(vectors()));
    assert_eq!((encoder.facts().width, encoder.facts().contextual), (6, false));
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
    assert_eq!(encoder.facts().width, 100);
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
    let tensors = params.iter().map(|entry| (entry.name.as_str(), &entry.tensor));
    hf::write_folder(dir.path(), &encoder.config(), tensors).unwrap();
    let spec = EncoderSpec::parse(dir.path().to_str().unwrap()).unwrap();
    let error = build(&spec, 51, &mut Parameters::new(0, Device::Cpu)).err().unwrap();
    assert!(error.to_string().contains("50 rows, but the tokenizer 51 pieces"), "{error}");
}
