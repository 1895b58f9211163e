//! The reader of word vectors, and BERT started from them.

use std::io::Write;

use super::*;

fn vocabulary(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|&entry| entry.to_owned()).collect()
}

fn load(text: &str) -> crate::Result<WordVectors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.txt");
    fs_err::write(&path, text).unwrap();
    WordVectors::load(&path, &vocabulary(&["[CLS]", "cat", "dog", "##s"]))
}

#[test]
fn vectors_go_to_the_rows_of_their_words() {
    let vectors = load("the 9 9 9\ndog 1 -2.5 3e-1\nDog 7 7 7\ncat 4 5 6\ndog 8 8 8\n").unwrap();
    assert_eq!((vectors.dim, vectors.num_found()), (3, 2));
    assert_eq!(vectors.found, [false, true, true, false]);
    let expected =
        Tensor::from_slice(&[0f32, 0., 0., 4., 5., 6., 1., -2.5, 0.3, 0., 0., 0.]).view([4, 3]);
    assert_eq!(vectors.table, expected);
}

#[test]
fn damaged_files_name_the_line() {
    for (text, problem) in [
        ("cat 1 2 3\ndog 1 2\n", "line 2 has 3 columns, but line 1 has 4"),
        ("cat 1 2 3\ndog 1 x 3\n", "line 2, column 3: `x` is not a finite number"),
        ("cat 1 nan 3\n", "line 1, column 3: `nan` is not a finite number"),
        ("400000 50\ncat 1 2\n", "line 1 is `400000 50`"),
        ("bird 1 2 3\n", "no entry of the vocabulary"),
        ("", "no entry of the vocabulary"),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.to_string().contains(problem), "{text:?}: {error}");
        assert_eq!(error.exit_code(), 65);
    }
}

#[test]
fn compressed_files_are_read_and_truncated_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.txt.gz");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"cat 1 2\ndog 3 4\n").unwrap();
    let bytes = encoder.finish().unwrap();
    fs_err::write(&path, &bytes).unwrap();
    assert_eq!(
        WordVectors::load(&path, &vocabulary(&["dog"])).unwrap().table,
        Tensor::from_slice(&[3f32, 4.]).view([1, 2])
    );
    fs_err::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert_eq!(WordVectors::load(&path, &vocabulary(&["dog"])).unwrap_err().exit_code(), 65);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn glove_is_read() {
    let shared = crate::reference_data();
    let path = shared.join("data/glove/glove.6B.50d.first150k.txt.gz");
    let vectors = WordVectors::load(&path, &vocabulary(&["the", "zzzzzz", ","])).unwrap();
    assert_eq!((vectors.dim, &vectors.found[..]), (50, &[true, false, true][..]));
    assert_eq!(vectors.table.double_value(&[0, 0]) as f32, 0.418);
    assert_eq!(vectors.table.double_value(&[2, 0]) as f32, 0.013441);
}

#[test]
fn bert_can_start_from_projected_vectors() {
    let (params, _encoder) = small_bert(2);
    let name = "embeddings.word_embeddings.weight";
    let table = params.get(name).unwrap();
    let before = table.copy();
    let entries: Vec<String> = (0..50)
        .map(|row| match row {
            0 => "[CLS]".to_owned(),
            1 => "##ly".to_owned(),
            _ => format!("word{row}"),
        })
        .collect();
    let raw =
        (Tensor::arange(400, (Kind::Float, Device::Cpu)).view([50, 8]).square() * 0.11).sin() + 3.0;
    let vectors = WordVectors {
        dim: 8,
        found: (0..50).map(|row| row < 40).collect(),
        table: raw.shallow_clone(),
    };
    assert_eq!(
        crate::encoders::word_vectors::embed_projected(table, &vectors, &entries, 0.02, 7).unwrap(),
        38
    );
    let after = params.get(name).unwrap();
    let untouched = Tensor::from_slice(&[0i64, 1, 40, 49]);
    assert_eq!(after.index_select(0, &untouched), before.index_select(0, &untouched));
    let rows = after.narrow(0, 2, 38);
    assert!((rows.std(false).double_value(&[]) - 0.02).abs() < 1e-6);
    // Width 16 holds 8 dimensions without loss: all distances shrink by one factor.
    let distance =
        |table: &Tensor, a: i64, b: i64| (table.get(a) - table.get(b)).norm().double_value(&[]);
    let factor = distance(after, 2, 3) / distance(&raw, 2, 3);
    for (a, b) in [(4, 30), (5, 39), (17, 18)] {
        assert!((distance(after, a, b) / distance(&raw, a, b) / factor - 1.0).abs() < 1e-4);
    }
}
