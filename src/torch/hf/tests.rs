//! Tests of folders and archives: hand-made files, hostile ones among them.

mod handmade;

use serde_json::json;
use tch::Device;

use super::*;
use crate::torch::{Init, Slot};
use handmade::{archive, old_file, state_dict, tensor, text};

fn folder(config: &Value, weights: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    fs_err::write(dir.path().join(PYTORCH), weights).unwrap();
    dir
}

fn refusal(weights: &[u8]) -> String {
    let dir = folder(&json!({}), weights);
    let error = read_folder(dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    error.to_string()
}

fn floats(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

#[test]
fn a_torch_archive_is_read() {
    let pickle = state_dict(&[
        ("bert.embeddings.LayerNorm.gamma", tensor("FloatStorage", "0", 6, 0, &[2, 3], &[3, 1])),
        ("bert.embeddings.LayerNorm.beta", tensor("FloatStorage", "0", 6, 1, &[2, 2], &[1, 3])),
        ("bert.half", tensor("HalfStorage", "1", 2, 0, &[2], &[1])),
        ("bert.brain", tensor("BFloat16Storage", "2", 1, 0, &[1], &[1])),
        ("bert.embeddings.position_ids", tensor("LongStorage", "3", 1, 0, &[1, 1], &[1, 1])),
        ("cls.predictions.bias", tensor("FloatStorage", "0", 6, 0, &[6], &[1])),
    ]);
    let half: Vec<u8> = [half::f16::from_f32(1.5), half::f16::from_f32(-2.0)]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let weights = archive(&[
        ("data.pkl", &pickle),
        ("byteorder", b"little"),
        ("data/0", &floats(&[0., 1., 2., 3., 4., 5.])),
        ("data/1", &half),
        ("data/2", &half::bf16::from_f32(0.25).to_le_bytes()),
        ("data/3", &7i64.to_le_bytes()),
    ]);
    let dir = folder(&json!({"model_type": "bert"}), &weights);
    let mut read = read_folder(dir.path()).unwrap();
    let slot = |name: &str, shape: &[i64]| Slot::new(name, shape, Init::Zeros);
    let slots = [
        slot("embeddings.LayerNorm.weight", &[2, 3]),
        slot("embeddings.LayerNorm.bias", &[2, 2]),
        slot("half", &[2]),
        slot("brain", &[1]),
    ];
    let notes = load::check(&mut read, &slots).unwrap();
    assert_eq!(
        read.tensors.keys().collect::<Vec<_>>(),
        ["brain", "embeddings.LayerNorm.bias", "embeddings.LayerNorm.weight", "half"]
    );
    let expect = |name: &str, values: &[f32], shape: &[i64]| {
        assert_eq!(read.tensors[name], Tensor::from_slice(values).view(shape), "{name}");
    };
    expect("embeddings.LayerNorm.weight", &[0., 1., 2., 3., 4., 5.], &[2, 3]);
    expect("embeddings.LayerNorm.bias", &[1., 4., 2., 5.], &[2, 2]);
    expect("half", &[1.5, -2.0], &[2]);
    expect("brain", &[0.25], &[1]);
    assert_eq!(notes, ["in the weights, but not used: `cls.predictions.bias`"]);
}

#[test]
fn a_file_from_before_pytorch_1_6_is_read() {
    let state = state_dict(&[
        ("a", tensor("FloatStorage", "94000000", 6, 0, &[2, 3], &[3, 1])),
        ("b", tensor("LongStorage", "94000001", 2, 0, &[2], &[1])),
        ("c", tensor("FloatStorage", "94000000", 6, 1, &[2], &[3])),
    ]);
    let numbers = floats(&[0., 1., 2., 3., 4., 5.]);
    let whole = [7i64, 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let storages = [("94000000", 6, numbers.clone()), ("94000001", 2, whole)];
    let file = old_file(&state, &storages);
    let read = read_folder(folder(&json!({}), &file).path()).unwrap();
    let expect = |name: &str, values: &Tensor| assert_eq!(&read.tensors[name], values, "{name}");
    expect("a", &Tensor::from_slice(&[0f32, 1., 2., 3., 4., 5.]).view([2, 3]));
    expect("b", &Tensor::from_slice(&[7i64, 8]));
    expect("c", &Tensor::from_slice(&[1f32, 4.]));
    for length in (0..file.len()).step_by(7) {
        let error = refusal(&file[..length]);
        assert!(error.contains("is not read") || error.contains("torch.save"), "{error}");
    }
    let error = refusal(&old_file(&state, &storages[..1]));
    assert!(error.contains("storage `94000001` is not in the file"), "{error}");
    let error = refusal(&old_file(&state, &[("94000000", 5, numbers), storages[1].clone()]));
    assert!(error.contains("storage"), "{error}");
}

#[test]
fn weights_that_are_something_else_are_named() {
    let named = |file: &str, bytes: &[u8], problem: &str, way_out: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join(CONFIG), "{}").unwrap();
        fs_err::write(dir.path().join(file), bytes).unwrap();
        let error = read_folder(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(error.to_string().contains(problem), "{error}");
        assert!(error.hint().unwrap().contains(way_out), "{:?}", error.hint());
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440473133\n";
    named(SAFETENSORS, pointer, "Git LFS pointer", "git lfs pull");
    named(PYTORCH, pointer, "Git LFS pointer", "git lfs pull");
    named(SAFETENSORS, b"<!doctype html>", "a web page", "download");
    named(PYTORCH, b"\0\0", "torch.save", "cut short");
    named("tf_model.h5", b"", "TensorFlow weights alone (tf_model.h5)", "from_tf=True");
    named("flax_model.msgpack", b"", "Flax weights alone", "from_flax=True");
    named("model.safetensors.index.json", b"{}", "is not an index", "belong together");
}

#[test]
fn a_pickle_that_calls_anything_else_is_refused() {
    let call = [b"cos\nsystem\n(".to_vec(), text("true"), b"tR".to_vec()].concat();
    let error = refusal(&archive(&[("data.pkl", &state_dict(&[("x", call)]))]));
    assert!(error.contains("`os.system`"), "{error}");
    // The same by protocol 4's instruction, and by instructions that make objects.
    let stacked = [text("builtins"), text("eval"), b"\x93.".to_vec()].concat();
    assert!(refusal(&archive(&[("data.pkl", &stacked)])).contains("`builtins.eval`"));
    for object in [b"(ios\nsystem\n.".as_slice(), b"\x82\x01.", b")\x81."] {
        assert!(refusal(&archive(&[("data.pkl", object)])).contains("has no place"), "{object:?}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused_before_anything_is_allocated() {
    let data = floats(&[1., 2., 3., 4.]);
    let with = |described: Vec<u8>| {
        refusal(&archive(&[("data.pkl", &state_dict(&[("x", described)])), ("data/0", &data)]))
    };
    // A storage far beyond its record.
    assert!(
        with(tensor("FloatStorage", "0", i32::MAX, 0, &[i32::MAX], &[1]))
            .contains("its record 16 bytes")
    );
    // A product that overflows, a reach beyond the storage, one number read as many, negative
    // sizes.
    let huge = [i32::MAX; 4];
    for (offset, size, stride) in [
        (0, &huge[..], &huge[..]),
        (1, &[4], &[1]),
        (0, &[2, 2], &[3, 1]),
        (0, &[8], &[0]),
        (0, &[-1], &[1]),
        (9, &[0], &[1]),
        (0, &[2, 2], &[1]),
    ] {
        let error = with(tensor("FloatStorage", "0", 4, offset, size, stride));
        assert!(
            error.contains("does not lie in its storage") || error.contains("a size of"),
            "{error}"
        );
    }
    assert!(with(tensor("FloatStorage", "0", 3, 0, &[3], &[1])).contains("its record 16 bytes"));
}

#[test]
fn truncated_and_twisted_archives_are_refused() {
    let whole = archive(&[
        ("data.pkl", &state_dict(&[("x", tensor("FloatStorage", "0", 1, 0, &[1], &[1]))])),
        ("data/0", &floats(&[1.])),
    ]);
    assert!(read_folder(folder(&json!({}), &whole).path()).is_ok());
    for length in [0, 1, 30, whole.len() / 2, whole.len() - 1] {
        refusal(&whole[..length]);
    }
    assert!(refusal(&archive(&[("data.pkl", b"}.")])[..10]).contains("is not a torch archive"));
    assert!(refusal(&archive(&[("other", b"")])).contains("0 records called data.pkl"));
    assert!(
        refusal(&archive(&[("data.pkl", b"}."), ("byteorder", b"big")])).contains("big-endian")
    );
    let absent = state_dict(&[("x", tensor("FloatStorage", "9", 1, 0, &[1], &[1]))]);
    assert!(refusal(&archive(&[("data.pkl", &absent)])).contains("data/9"));
}

#[test]
fn every_cut_of_a_pickle_is_refused_without_a_panic() {
    let whole = state_dict(&[("x", tensor("FloatStorage", "0", 4, 0, &[2, 2], &[2, 1]))]);
    assert!(pickle::run(&whole).unwrap().tensors().is_ok());
    for length in 0..whole.len() {
        assert!(pickle::run(&whole[..length]).is_err(), "cut at {length}");
    }
    for (at, byte) in (0..whole.len()).flat_map(|at| {
        [0x00, b'.', b'R', b'Q', b't', b'b', b'u', b's', 0xff].map(|byte| (at, byte))
    }) {
        let mut twisted = whole.clone();
        twisted[at] = byte;
        let _ = pickle::run(&twisted).and_then(|pickled| pickled.tensors());
    }
    // Deep nesting must not exhaust the stack when it is dropped.
    let deep = [b")".to_vec(), vec![0x85; 1 << 20], b".".to_vec()].concat();
    assert!(pickle::run(&deep).unwrap().tensors().is_err());
}

#[test]
fn half_precision_safetensors_are_widened() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = [half::bf16::from_f32(1.0), half::bf16::from_f32(-0.5)]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![2], &bytes).unwrap();
    fs_err::write(
        dir.path().join(SAFETENSORS),
        safetensors::serialize([("bert.x", view)], None).unwrap(),
    )
    .unwrap();
    fs_err::write(dir.path().join(CONFIG), "{}").unwrap();
    let read = read_folder(dir.path()).unwrap();
    assert_eq!(read.tensors["bert.x"], Tensor::from_slice(&[1.0f32, -0.5]));
}

#[test]
fn written_files_carry_what_transformers_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).transpose(0, 1);
    write_folder(dir.path(), &json!({"model_type": "bert"}), [("a.weight", &tensor)]).unwrap();
    let bytes = fs_err::read(dir.path().join(SAFETENSORS)).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    assert_eq!(read_folder(dir.path()).unwrap().tensors["a.weight"], tensor);
}

#[test]
fn folders_without_weights_or_with_damaged_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read_folder(dir.path()).unwrap_err().exit_code(), 74);
    fs_err::write(dir.path().join(CONFIG), "[]").unwrap();
    assert!(read_folder(dir.path()).unwrap_err().to_string().contains("not a JSON object"));
    fs_err::write(dir.path().join(CONFIG), "{}").unwrap();
    assert!(read_folder(dir.path()).unwrap_err().to_string().contains("holds neither"));
    for bytes in [b"".as_slice(), b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x02\0\0\0\0\0\0\0{]"] {
        fs_err::write(dir.path().join(SAFETENSORS), bytes).unwrap();
        assert!(
            read_folder(dir.path()).unwrap_err().to_string().contains("is not a safetensors file")
        );
    }
}

/// A folder whose tensors, one number each, have these names.
fn named(names: &[&str]) -> ModelFolder {
    let tensors =
        names.iter().map(|name| ((*name).to_owned(), Tensor::from_slice(&[1f32]))).collect();
    ModelFolder { path: "weights".into(), config: json!({}), tensors }
}

/// What a check of these names says, where `a.weight` and `b.bias` are needed and `p.bias` may be
/// missing; and the names afterwards.
fn checked(names: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
    let mut folder = named(names);
    let slot = |name: &str| Slot::new(name, &[1], Init::Zeros);
    let slots = [slot("a.weight"), slot("b.bias"), slot("p.bias").optional()];
    let notes = load::check(&mut folder, &slots)?;
    Ok((notes, folder.tensors.into_keys().collect()))
}

#[test]
fn any_prefix_that_the_needed_tensors_share_is_taken_off() {
    for prefix in ["bert.", "module.", "module.bert.", "model.encoder.", "_orig_mod.x.y."] {
        let names = ["a.weight", "b.beta", "p.bias"].map(|name| format!("{prefix}{name}"));
        let names: Vec<&str> = names.iter().map(String::as_str).chain(["cls.bias"]).collect();
        let (notes, renamed) = checked(&names).unwrap();
        assert_eq!(renamed, ["a.weight", "b.bias", "p.bias"], "{prefix}");
        assert_eq!(notes, ["in the weights, but not used: `cls.bias`"], "{prefix}");
    }
}

#[test]
fn an_encoder_that_is_not_whole_is_no_second_candidate() {
    let (notes, _) = checked(&["bert.a.weight", "bert.b.bias", "head.a.weight", "p.bias"]).unwrap();
    assert_eq!(
        notes,
        [
            "not in the weights, and read by nothing here: `p.bias`",
            "in the weights, but not used: `head.a.weight`, `p.bias`"
        ]
    );
}

#[test]
fn two_whole_encoders_are_an_error_that_names_both_prefixes() {
    let both = ["bert.a.weight", "bert.b.bias", "teacher.a.weight", "teacher.b.bias"];
    let error = checked(&both).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("under `bert.` and one under `teacher.`"), "{error}");
    assert!(error.hint().is_some());
    let error = checked(&["a.weight", "b.bias", "ema.a.weight", "ema.b.bias"]).unwrap_err();
    assert!(error.to_string().contains("under no prefix and one under `ema.`"), "{error}");
}

#[test]
fn missing_tensors_are_named_as_the_encoder_calls_them() {
    let error = checked(&["module.a.weight", "module.c.bias"]).unwrap_err().to_string();
    assert!(error.contains("lack `b.bias`; not used: `c.bias`"), "{error}");
    let error = checked(&["x", "y"]).unwrap_err().to_string();
    assert!(error.contains("lack `a.weight`, `b.bias`; not used: `x`, `y`"), "{error}");
}

#[test]
fn two_tensors_for_one_name_are_refused() {
    let error = checked(&["bert.a.gamma", "bert.a.weight", "bert.b.bias"]).unwrap_err();
    assert!(error.to_string().contains("two tensors stand for `a.weight`"), "{error}");
}

/// A folder with weights in two files of safetensors, `x` and `y` in the first, `z` in the second.
fn split_folder(map: &serde_json::Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join(CONFIG), "{}").unwrap();
    let [x, y, z] = [1f32, 2., 3.].map(|value| Tensor::from_slice(&[value]));
    let file = |name: &str| dir.path().join(name);
    write_safetensors(&file("a.safetensors"), [("x", &x), ("y", &y)]).unwrap();
    // A second `x` elsewhere does not count.
    write_safetensors(&file("b.safetensors"), [("z", &z), ("x", &z)]).unwrap();
    let index = json!({ "metadata": { "total_size": 12 }, "weight_map": map }).to_string();
    fs_err::write(file("model.safetensors.index.json"), index).unwrap();
    dir
}

#[test]
fn weights_split_over_files_are_read_by_their_index() {
    let (a, b) = ("a.safetensors", "b.safetensors");
    let dir = split_folder(&json!({ "x": a, "y": a, "z": b }));
    let read = read_folder(dir.path()).unwrap().tensors;
    let values: Vec<(String, f64)> =
        read.iter().map(|(name, tensor)| (name.clone(), tensor.double_value(&[0]))).collect();
    assert_eq!(values, [("x", 1.), ("y", 2.), ("z", 3.)].map(|(name, v)| (name.to_owned(), v)));
    // The form of `torch.save`, where nothing else is there.
    let pickled = state_dict(&[("x", tensor("HalfStorage", "0", 1, 0, &[1], &[1]))]);
    let half = half::f16::from_f32(1.5).to_le_bytes();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs_err::write(dir.path().join(name), bytes).unwrap();
    write(CONFIG, b"{}");
    write("part-1.bin", &archive(&[("data.pkl", &pickled), ("data/0", &half)]));
    write(WEIGHTS[3], br#"{"weight_map": {"x": "part-1.bin"}}"#);
    let read = read_folder(dir.path()).unwrap();
    assert_eq!(read.tensors["x"], Tensor::from_slice(&[1.5f32]));
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let (a, b) = ("a.safetensors", "b.safetensors");
    for (map, problem) in [
        (json!({ "x": a, "w": b }), "tensor `w` should be in `b.safetensors`"),
        (json!({ "x": a, "z": "c.safetensors" }), "1 of its 2 files are missing, `c.safetensors`"),
        (json!({ "x": "../a.safetensors" }), "not a file beside it"),
        (json!({ "x": "" }), "not a file beside it"),
        (json!({}), "names no tensors"),
        (json!({ "x": 3 }), "is not an index of weights"),
    ] {
        let dir = split_folder(&map);
        let error = read_folder(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), 65, "{error}");
        let text = error.to_string();
        assert!(text.contains(problem) && text.contains("index.json"), "{text}");
        assert!(error.hint().is_some(), "{text}");
    }
}

/// The embedding of the reference from weights in every form in which they lie around: half
/// precision, the form from before PyTorch 1.6 with column-major views, old names, `module.`, and
/// several files.
#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn weights_in_every_form_give_the_embedding_of_the_reference() {
    for form in ["fp16", "legacy-bin", "module-prefix", "old-names", "sharded"] {
        let case = crate::reference_data().join(format!("parity-encoders/encoder-bert-{form}"));
        let mut folder = read_folder(&case.join("model")).unwrap();
        let size = |key: &str| folder.config[key].as_i64().unwrap();
        let width = size("hidden_size");
        let slot = |name: &str, shape: &[i64]| Slot::new(name, shape, Init::Zeros);
        let slots = [
            slot("embeddings.word_embeddings.weight", &[size("vocab_size"), width]),
            slot(
                "embeddings.position_embeddings.weight",
                &[size("max_position_embeddings"), width],
            ),
            slot("embeddings.token_type_embeddings.weight", &[size("type_vocab_size"), width]),
            slot("embeddings.LayerNorm.weight", &[width]),
            slot("embeddings.LayerNorm.bias", &[width]),
            slot("encoder.layer.1.output.dense.weight", &[width, size("intermediate_size")]),
        ];
        let eps = folder.config["layer_norm_eps"].as_f64().unwrap_or(1e-12);
        load::check(&mut folder, &slots).unwrap();
        let tensor = |number: usize| &folder.tensors[&slots[number].name];
        let inputs = read_safetensors(&case.join("inputs.safetensors")).unwrap();
        let rows = |table: &Tensor, name: &str| table.index_select(0, &inputs[name]);
        let sum = rows(tensor(0), "input_ids") + rows(tensor(1), "position_ids") + tensor(2).get(0);
        let ours = sum.layer_norm([width], Some(tensor(3)), Some(tensor(4)), eps, false);
        let reference = &read_safetensors(&case.join("outputs.safetensors")).unwrap()["embedding"];
        assert_eq!(ours.size(), reference.size(), "{form}");
        let largest = (ours - reference).abs().max().double_value(&[]);
        assert!(largest <= 1e-5, "{form}: {largest}, where sums of three in fp32 differ by less");
    }
}
