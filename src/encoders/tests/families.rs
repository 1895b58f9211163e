//! What holds for every family of Transformers: packing, gradients, dropout, bf16, round trips.

use super::*;
use crate::text::{PackedWindows, View, WindowRule, pack};
use crate::torch::kernels::context::{AttentionTable, EntityRow};

/// A preset of each family, with what makes it small and shows what it has of its own.
fn families() -> Vec<(&'static str, Value)> {
    vec![
        ("tiny", json!({})),
        ("roberta-tiny", json!({})),
        ("xlm-roberta-tiny", json!({})),
        ("electra-tiny", json!({ "embedding_size": 24 })),
        ("distilbert-tiny", json!({})),
        ("albert-tiny", json!({ "num_hidden_layers": 3, "num_hidden_groups": 2 })),
        ("mpnet-tiny", json!({})),
        ("deberta-tiny", json!({ "position_buckets": 16 })),
        (
            "deberta-tiny",
            json!({
                "position_buckets": 16, "max_relative_positions": 64, "share_att_key": false,
                "conv_kernel_size": 3, "conv_groups": 2, "embedding_size": 24,
            }),
        ),
        (
            "deberta-tiny",
            json!({
                "pos_att_type": ["c2p"], "position_buckets": -1, "max_relative_positions": 40,
                "position_biased_input": true, "type_vocab_size": 2,
            }),
        ),
        ("deberta-tiny", json!({ "pos_att_type": null })),
        ("xlnet-tiny", json!({ "clamp_len": 30 })),
        ("modernbert-tiny", json!({ "num_hidden_layers": 4, "local_attention": 8 })),
        (
            "modernbert-tiny",
            json!({
                "norm_bias": true, "attention_bias": true, "mlp_bias": true,
                "local_rope_theta": null, "hidden_activation": "silu", "local_attention": 9,
            }),
        ),
    ]
}

/// The preset with dropout, over 50 pieces.
fn of(preset: &str, overrides: &Value, seed: u64) -> (Parameters, Box<dyn Encoder>) {
    let mut params = Parameters::new(seed, Device::Cpu);
    let spec = EncoderSpec::preset(preset, overrides.clone());
    let encoder = build(&spec, 50, &mut params).unwrap();
    (params, encoder)
}

/// Documents around the width of a window, the lanes and the block of rows.
fn long_documents() -> Vec<Vec<i64>> {
    let document = |length: i64, step: i64| (0..length).map(|at| (at * step + 3) % 50).collect();
    vec![document(5, 3), document(90, 7), document(1, 1), document(17, 11)]
}

#[test]
fn packed_documents_do_not_see_each_other() {
    for (preset, overrides) in families() {
        let (_params, encoder) = of(preset, &overrides, 1);
        let packed = encode(&*encoder, &long_documents());
        assert_eq!(packed, encode_alone(&*encoder, &long_documents()), "{preset} {overrides}");
    }
}

#[test]
fn gradients_reach_every_trained_parameter_and_change_with_it() {
    for (preset, overrides) in families() {
        let (params, encoder) = of(preset, &overrides, 2);
        let pass = Pass { train: true, ..Pass::inference(Precision::Fp32) };
        let loss = |weight: &Tensor| {
            let states = encoder.encode(&stream(&long_documents()), &pass).unwrap();
            (states * weight).sum(Kind::Double)
        };
        let rows = long_documents().concat().len() as i64;
        let weight = crate::torch::rng::Generator::of_test(3).randn([rows, encoder.facts().width]);
        loss(&weight).backward();
        let mut checked = 0;
        for parameter in params.iter() {
            let name = format!("{preset} {overrides}: {}", parameter.name);
            assert_eq!(parameter.trainable, parameter.tensor.grad().defined(), "{name}");
            if !parameter.trainable {
                continue;
            }
            // The slope along the gradient is its squared length.
            let gradient = parameter.tensor.grad().copy();
            let length = gradient.norm().double_value(&[]);
            let size = parameter.tensor.norm().double_value(&[]) + 0.1;
            let step = (0.02 * size / length).min(1e-2);
            // Changes that rounding would drown say nothing.
            if step * length * length < 1e-2 {
                continue;
            }
            let at = |by: f64| {
                tch::no_grad(|| {
                    let original = parameter.tensor.detach().copy();
                    let _ = parameter.tensor.shallow_clone().f_add_(&(&gradient * by)).unwrap();
                    let loss = loss(&weight).double_value(&[]);
                    parameter.tensor.shallow_clone().copy_(&original);
                    loss
                })
            };
            checked += 1;
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let share = slope / (length * length);
            assert!((share - 1.0).abs() < 0.05, "{name}: {share}");
        }
        assert!(checked >= 10, "{preset} {overrides}: {checked} slopes are large enough");
    }
}

#[test]
fn dropout_depends_on_the_document_alone_and_gradients_flow_through_it() {
    for (preset, overrides) in families() {
        let (params, encoder) = of(preset, &overrides, 4);
        let run = |documents: &[Vec<i64>], first: u64| {
            let keys: Vec<i64> = (first..)
                .zip(documents)
                .flat_map(|(item, document)| {
                    (0..document.len() as u64).map(move |at| Dropout::token_key(5, 0, item, at))
                })
                .collect();
            let masks = || Some(Dropout::new(0.2, Tensor::from_slice(&keys)).unwrap());
            let pass = Pass {
                train: true,
                hidden_dropout: masks(),
                attention_dropout: masks(),
                precision: Precision::Fp32,
            };
            encoder.encode(&stream(documents), &pass).unwrap()
        };
        let (one, again) = (run(&long_documents(), 0), run(&long_documents(), 0));
        assert_eq!(one, again, "{preset}");
        assert_ne!(one, encode(&*encoder, &long_documents()), "{preset}");
        // Tables that all documents share are dropped out by the pass.
        if !["deberta-tiny", "xlnet-tiny"].contains(&preset) {
            let alone = run(&long_documents()[1..2], 1);
            assert_eq!(alone, one.narrow(0, 5, 90), "{preset}");
        }
        one.sum(Kind::Float).backward();
        assert!(params.trainable().all(|parameter| parameter.tensor.grad().defined()));
    }
}

#[test]
fn bf16_stays_near_fp32() {
    for (preset, overrides) in families() {
        let (_params, encoder) = of(preset, &overrides, 5);
        let full = encode(&*encoder, &long_documents());
        let half = tch::no_grad(|| {
            encoder.encode(&stream(&long_documents()), &Pass::inference(Precision::Bf16)).unwrap()
        });
        assert_eq!(half.kind(), Kind::Float);
        let distance = ((&half - &full).norm() / full.norm()).double_value(&[]);
        assert!(distance > 1e-5 && distance < 3e-2, "{preset} {overrides}: {distance}");
    }
}

#[test]
fn saved_and_loaded_is_the_same_encoder_with_room_for_more_pieces() {
    for (preset, overrides) in families() {
        let (params, encoder) = of(preset, &overrides, 6);
        let (_dir, _again, loaded) = saved_and_loaded(&params, &*encoder, 50);
        let states = encode(&*encoder, &long_documents());
        assert_eq!(states, encode(&*loaded, &long_documents()), "{preset}");
        assert_eq!(
            (loaded.config(), loaded.facts().notes.len()),
            (encoder.config(), 0),
            "{preset}"
        );
        let size = encoder_size(&encoder.config()).unwrap();
        let facts = encoder.facts();
        assert_eq!(size, [facts.width as f64, facts.layers.unwrap() as f64], "{preset}");
        assert!(encoder_flops(&encoder.config(), 100.0).unwrap() > 1e6, "{preset}");
        let (_dir, _again, grown) = saved_and_loaded(&params, &*encoder, 60);
        assert!(grown.facts().notes[0].contains("10 rows were added"), "{preset}");
        assert_eq!(grown.config()["vocab_size"], json!(60), "{preset}");
        assert_eq!(states, encode(&*grown, &long_documents()), "{preset}");
    }
}

#[test]
fn attention_rows_are_shares_and_the_mean_of_layers_is_theirs() {
    for (preset, overrides) in families() {
        let (_params, encoder) = of(preset, &overrides, 7);
        let document = long_documents().remove(1);
        let views = [View { ids: vec![0; document.len()], ..View::default() }];
        let packed = pack(&views);
        let rule =
            WindowRule { capacity: 90, prefix: vec![], suffix: vec![], stride: None, most: None };
        let packed = PackedWindows::new(&packed.ids, &packed.offsets, &rule);
        let rows =
            [3, 60].map(|position| EntityRow { entity: position / 60, position, weight: 1.0 });
        let mut plan = AttentionTable::default();
        plan.push(&packed, 90, 2, &rows);
        let (asked, pass) =
            (Attending { layers: 2, plan: Some(&plan) }, Pass::inference(Precision::Fp32));
        let stream = stream(&[document]);
        let attended = tch::no_grad(|| encoder.encode_attended(&stream, &asked, &pass).unwrap());
        let sums =
            attended.attention.unwrap().view([2, 2, 90]).sum_dim_intlist(2, false, Kind::Float);
        assert!(largest_difference(&sums, &sums.ones_like()) < 1e-5, "{preset}");
        let all = tch::no_grad(|| encoder.layer_states(&stream, &pass).unwrap());
        let mean = (&all.layers[all.layers.len() - 2] + &all.last) / 2.0;
        assert!(largest_difference(&attended.states, &mean) < 1e-6, "{preset}");
    }
}

#[test]
fn presets_can_start_local_or_say_that_they_do_not() {
    for (preset, overrides) in families() {
        let EncoderSpec::New(mut new) = EncoderSpec::preset(preset, overrides) else {
            unreachable!()
        };
        new.local = true;
        let mut params = Parameters::new(1, Device::Cpu);
        let encoder = build(&EncoderSpec::New(new), 50, &mut params).unwrap();
        let keys = params.iter().find(|entry| entry.name.ends_with("0.attention.self.key.weight"));
        let said = encoder.facts().notes.len();
        match keys {
            Some(key) if said == 0 => {
                let query = params.get(&key.name.replace("key", "query")).unwrap();
                assert_eq!(*query, key.tensor, "{preset}");
            }
            _ => assert!(said == 1 || !["tiny", "roberta-tiny"].contains(&preset), "{preset}"),
        }
    }
}

/// Rows as `create_position_ids_from_input_ids` of transformers gives them. MPNet counts without
/// piece 1 there, whatever the configuration says.
#[test]
fn positions_are_counted_without_the_padding_piece() {
    let documents = [vec![5, 1, 7], vec![1], vec![6, 4, 1, 8], vec![9, 10]];
    let without_1 = [2, 1, 3, 1, 2, 3, 1, 4, 2, 3];
    let without_4 = [5, 6, 7, 5, 5, 4, 6, 7, 5, 6];
    for (preset, padding, rows) in [
        ("roberta-tiny", 1, without_1),
        ("xlm-roberta-tiny", 4, without_4),
        ("roberta-tiny", 4, without_4),
        ("mpnet-tiny", 4, without_1),
    ] {
        let (params, encoder) = of(preset, &json!({ "pad_token_id": padding }), 9);
        let pass = Pass::inference(Precision::Fp32);
        let found = tch::no_grad(|| encoder.layer_states(&stream(&documents), &pass).unwrap());
        let rows_of = |name: &str, rows: &[i64]| {
            let table = params.get(&format!("embeddings.{name}_embeddings.weight")).unwrap();
            table.index_select(0, &Tensor::from_slice(rows))
        };
        let mut sum = rows_of("word", &documents.concat()) + rows_of("position", &rows);
        if preset != "mpnet-tiny" {
            sum += rows_of("token_type", &[0]);
        }
        let eps = encoder.config()["layer_norm_eps"].as_f64().unwrap();
        let normed = sum.layer_norm([128], None::<Tensor>, None::<Tensor>, eps, false);
        let difference = largest_difference(&found.embedding, &normed);
        assert!(difference < 1e-6, "{preset} {padding}: {difference}");
        let notes = &encoder.facts().notes;
        let expected = usize::from((preset, padding) == ("mpnet-tiny", 4));
        assert_eq!(notes.len(), expected, "{preset} {padding}: {notes:?}");
    }
    let spec = EncoderSpec::preset("roberta-tiny", json!({ "pad_token_id": -1 }));
    let error = build(&spec, 50, &mut Parameters::new(1, Device::Cpu)).err().unwrap();
    assert!(error.to_string().contains("`pad_token_id` is -1") && error.hint().is_some());
}

#[test]
fn counts_below_1_and_rates_from_1_on_are_refused_by_their_keys() {
    // Keys that are no counts, or counts that may be 0.
    let free = ["pad_token_id", "max_relative_positions", "position_buckets", "conv_kernel_size"];
    for (preset, overrides) in families() {
        let (_params, encoder) = of(preset, &overrides, 11);
        let config = encoder.config();
        let wrong = config.as_object().unwrap().iter().filter_map(|(key, value)| {
            let named = |part: &str| key.contains(part);
            let free = free.contains(&key.as_str()) || named("clamp_len");
            let none = key == "type_vocab_size" && ["deberta-tiny", "mpnet-tiny"].contains(&preset);
            match value {
                Value::Number(count) if count.is_i64() && !free && !none => Some((key, json!(0))),
                Value::Number(_) if named("dropout") => Some((key, json!(1.0))),
                _ => None,
            }
        });
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.len() >= 6, "{preset}: {wrong:?}");
        for (key, value) in wrong {
            let mut overrides = overrides.clone();
            overrides[key] = value;
            let spec = EncoderSpec::preset(preset, overrides);
            let error = build(&spec, 50, &mut Parameters::new(1, Device::Cpu)).err();
            let error = error.unwrap_or_else(|| panic!("{preset}: {key}")).to_string();
            assert!(error.contains(&format!("`{key}` is ")), "{preset}: {error}");
        }
    }
}

#[test]
fn encoders_of_distances_alone_read_documents_of_any_length() {
    let buckets = json!({ "position_buckets": 16 });
    let single = json!({ "position_buckets": -1 });
    let table = json!({ "position_buckets": 16, "position_biased_input": true });
    let long = stream(&[(0..700).map(|at| at * 7 % 50).collect()]);
    let pass = Pass::inference(Precision::Fp32);
    for (preset, overrides, limit) in [
        ("deberta-tiny", &buckets, None),
        ("xlnet-tiny", &json!({}), None),
        ("deberta-tiny", &single, Some(512)),
        ("deberta-tiny", &table, Some(512)),
    ] {
        let (mut params, mut encoder) = of(preset, overrides, 10);
        assert_eq!(encoder.facts().max_positions, limit, "{preset} {overrides}");
        let states = tch::no_grad(|| encoder.encode(&long, &pass));
        if overrides == &table {
            let error = states.unwrap_err();
            assert!(error.to_string().contains("has 512 positions"), "{error}");
            let short =
                stream(&[(0..400).collect::<Vec<i64>>().iter().map(|at| at % 50).collect()]);
            let read =
                |encoder: &dyn Encoder, of| tch::no_grad(|| encoder.encode(of, &pass).unwrap());
            let before = read(&*encoder, &short);
            encoder.extend_positions(0.4, &mut params).unwrap();
            assert_eq!(encoder.facts().max_positions, Some(1536));
            let (_dir, _again, loaded) = saved_and_loaded(&params, &*encoder, 50);
            assert_eq!(before, read(&*loaded, &short), "distances stay as they were");
            assert_eq!(read(&*encoder, &long), read(&*loaded, &long));
            continue;
        }
        assert!(states.unwrap().isfinite().all().int64_value(&[]) == 1, "{preset} {overrides}");
        encoder.extend_positions(0.4, &mut params).unwrap();
        let extended = encoder.facts().max_positions;
        assert_eq!(extended, limit.map(|most| 3 * most), "{preset} {overrides}");
    }
}

/// docs/formats.md: newer releases of transformers write two keys of ModernBERT in another way.
#[test]
fn both_ways_of_writing_the_layers_of_modernbert_are_read() {
    let overrides = json!({ "num_hidden_layers": 4, "local_attention": 8 });
    let (params, encoder) = of("modernbert-tiny", &overrides, 8);
    let (dir, ..) = saved_and_loaded(&params, &*encoder, 50);
    let states = encode(&*encoder, &long_documents());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut config = encoder.config();
        for key in ["global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"] {
            config.as_object_mut().unwrap().remove(key);
        }
        let kinds = ["full", "sliding", "sliding", "full"].map(|kind| format!("{kind}_attention"));
        config["layer_types"] = json!(kinds);
        config["rope_parameters"] = json!({
            "full_attention": { "rope_theta": 160000.0, "rope_type": "default" },
            "sliding_attention": { "rope_theta": 10000.0, "rope_type": "default" },
        });
        change(&mut config);
        fs_err::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let spec = EncoderSpec::Folder(dir.path().to_owned());
        build(&spec, 50, &mut Parameters::new(1, Device::Cpu))
    };
    let same = with(&|_| ()).unwrap();
    assert_eq!(states, encode(&*same, &long_documents()));
    let other = with(&|config| config["layer_types"][1] = json!("full_attention")).unwrap();
    assert_ne!(states, encode(&*other, &long_documents()));
    let turned = with(&|config| {
        config["rope_parameters"]["full_attention"]["rope_theta"] = json!(500.0);
    });
    assert_ne!(states, encode(&*turned.unwrap(), &long_documents()));
    let error = with(&|config| config["layer_types"] = json!(["full_attention"])).err().unwrap();
    assert!(error.to_string().contains("1 entries for 4 layers"), "{error}");
    let error = with(&|config| {
        config["rope_parameters"]["full_attention"]["rope_type"] = json!("yarn");
    });
    assert!(error.err().unwrap().to_string().contains("`rope_type` is `yarn`"));
}
