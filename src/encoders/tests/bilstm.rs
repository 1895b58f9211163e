//! BiLSTM: packing, frozen rows, round trip.

use super::*;

fn config() -> Value {
    json!({ "embedding_size": 6, "lstm_hidden_size": 5, "num_hidden_layers": 2, "hidden_size": 7 })
}

fn bilstm(trained_rows: Vec<i64>) -> (Parameters, Box<dyn Encoder>) {
    let mut params = Parameters::new(8, Device::Cpu);
    let spec = over("bilstm", config(), vectors(), trained_rows);
    let encoder = build(&spec, 50, &mut params).unwrap();
    (params, encoder)
}

#[test]
fn packed_documents_equal_documents_alone() {
    let (_params, encoder) = bilstm(vec![]);
    let packed = encode(&*encoder, &documents());
    assert_eq!(packed.size(), [14, 7]);
    assert!(packed.abs().max().double_value(&[]) > 0.01);
    assert_eq!(packed, encode_alone(&*encoder, &documents()));
}

#[test]
fn empty_documents_and_empty_streams_are_no_trouble() {
    let (_params, encoder) = bilstm(vec![]);
    let with_empty = [vec![], vec![1, 2, 3], vec![], vec![4]];
    let without = [vec![1, 2, 3], vec![4]];
    assert_eq!(encode(&*encoder, &with_empty), encode(&*encoder, &without));
    assert_eq!(encode(&*encoder, &[]).size(), [0, 7]);
}

/// One step of gradient descent on the sum of squares.
fn step(params: &Parameters, encoder: &dyn Encoder) {
    let pass = Pass { train: true, ..Pass::inference(Precision::Fp32) };
    encoder.encode(&stream(&documents()), &pass).unwrap().square().sum(Kind::Float).backward();
    for parameter in params.trainable() {
        let gradient = parameter.tensor.grad();
        assert!(
            gradient.defined() && gradient.abs().max().double_value(&[]) > 0.0,
            "{} gets no gradient",
            parameter.name
        );
        let _ =
            tch::no_grad(|| parameter.tensor.shallow_clone().f_sub_(&(gradient * 0.5))).unwrap();
    }
}

#[test]
fn only_the_chosen_rows_of_a_frozen_table_change() {
    let (params, encoder) = bilstm(vec![49, 3]);
    let table = params.get("word_emb.weight").unwrap().copy();
    let rows = params.get("word_emb.trained_rows").unwrap().copy();
    let before = encode(&*encoder, &[vec![49], vec![3]]);
    step(&params, &*encoder);
    assert_eq!(*params.get("word_emb.weight").unwrap(), table);
    assert!(largest_difference(params.get("word_emb.trained_rows").unwrap(), &rows) > 0.0);
    assert!(largest_difference(&encode(&*encoder, &[vec![49], vec![3]]), &before) > 0.0);
}

#[test]
fn trained_rows_stand_where_their_entries_are() {
    // With the trained rows overwritten by table rows 1 and 0, entries 49 and 3 must behave like
    // entries 1 and 0.
    let (params, encoder) = bilstm(vec![49, 3]);
    let table = params.get("word_emb.weight").unwrap();
    params
        .assign(
            "word_emb.trained_rows",
            &Tensor::cat(&[table.narrow(0, 1, 1), table.narrow(0, 0, 1)], 0),
        )
        .unwrap();
    assert_eq!(encode(&*encoder, &[vec![49, 3, 7]]), encode(&*encoder, &[vec![1, 0, 7]]));
}

#[test]
fn random_vectors_are_trained_and_file_vectors_are_copied() {
    let mut params = Parameters::new(8, Device::Cpu);
    let encoder = build(&EncoderSpec::preset("bilstm", config()), 50, &mut params).unwrap();
    assert_eq!(encoder.config()["frozen_vectors"], json!(false));
    step(&params, &*encoder);
    let (params, encoder) = bilstm(vec![]);
    assert_eq!(encoder.config()["frozen_vectors"], json!(true));
    let table = params.get("word_emb.weight").unwrap();
    assert_eq!(table.get(4), vectors().table.get(4));
    assert!(
        table.get(5).abs().min().double_value(&[]) > 0.0,
        "a row without a vector must not be zero"
    );
}

#[test]
fn saved_and_loaded_is_the_same_encoder() {
    let (params, encoder) = bilstm(vec![3, 49]);
    let (_dir, _again, loaded) = saved_and_loaded(&params, &*encoder, 50);
    assert_eq!(loaded.config()["model_type"], json!("docre-bilstm"));
    assert_eq!(loaded.config(), encoder.config());
    assert_eq!(encode(&*encoder, &documents()), encode(&*loaded, &documents()));
}
