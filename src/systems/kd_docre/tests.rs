use tch::{Kind, Tensor};

use super::layout::KdDocreTables;
use super::*;
use crate::systems::reading::testing::{
    EVALUATION, batch, document, documents, foundation, loss, overfit, untouched,
};
use crate::systems::testing::assert_batch_invariant;
use crate::systems::{Extractor, Profile, SystemSettings, tables};
use crate::train::{Forward, MicroBatch};

const TRAINING: Forward = Forward { train: true, ..EVALUATION };

fn sized(settings: &KdDocreSettings) -> KdDocreSettings {
    let own = settings.clone();
    KdDocreSettings { emb_size: 12, block_size: 4, axial_layers: 2, axial_heads: 4, ..own }
}

fn small() -> KdDocreSettings {
    sized(&KdDocreSettings::of(Profile::Fixed))
}

fn released() -> KdDocreSettings {
    KdDocreSettings { grid_size: 5, ..sized(&KdDocreSettings::of(Profile::Code)) }
}

fn system(settings: KdDocreSettings) -> KdDocre {
    KdDocre::new(foundation(32), settings).unwrap()
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn gradients_reach_every_parameter() {
    for settings in [small(), released()] {
        let system = system(settings);
        let batch = batch(&system, &documents(), true);
        loss(&system, &batch, EVALUATION).backward();
        // A key's bias shifts all scores of a row alike, so that softmax does not see it.
        let ignored = ["embeddings.token_type_embeddings.weight"];
        let mut still = untouched(&system);
        still.retain(|name| !ignored.contains(&name.as_str()) && !name.ends_with("key.bias"));
        assert!(still.is_empty(), "{still:?}");
    }
}

#[test]
fn a_document_has_the_same_logits_alone_and_in_any_batch() {
    for settings in [small(), released()] {
        let (system, documents) = (system(settings), documents());
        for train in [false, true] {
            assert_batch_invariant(documents.len(), |numbers| {
                let chosen: Vec<_> =
                    numbers.iter().map(|&number| documents[number].clone()).collect();
                system
                    .logits(&batch(&system, &chosen, train), Forward { train, ..EVALUATION })
                    .unwrap()
            });
        }
    }
}

#[test]
fn documents_without_pairs_are_no_trouble() {
    let system = system(small());
    let none = [document(5, &[], &[]), document(7, &[&[(1, 2)]], &[])];
    let batch_of_none = batch(&system, &none, true);
    assert_eq!(system.logits(&batch_of_none, EVALUATION).unwrap().size(), [0, 6]);
    system.losses(&batch_of_none, EVALUATION).unwrap()[0].backward();
    let mixed = [none[0].clone(), documents()[0].clone(), none[1].clone()];
    let logits = system.logits(&batch(&system, &mixed, true), EVALUATION).unwrap();
    let alone = system.logits(&batch(&system, &mixed[1..2], true), EVALUATION).unwrap();
    assert_eq!(logits, alone);
    assert_eq!(system.logits(&batch(&system, &[], false), EVALUATION).unwrap().size(), [0, 6]);
}

#[test]
fn evidence_adds_up_to_the_attention_on_the_sentences_and_has_no_direction() {
    for settings in [small(), released()] {
        let (system, mut documents) = (system(settings), documents());
        documents[0].sentence_starts = vec![0, 5, 8, 13];
        let batch = batch(&system, &documents, false);
        let scored = system.scored(&batch, EVALUATION).unwrap();
        assert_eq!(scored.logits, system.logits(&batch, EVALUATION).unwrap());
        let rows = scored.evidence.unwrap().to_rows().unwrap();
        assert_eq!(rows.len(), batch.pairs);
        // The last document is read in windows.
        let whole = documents.len() - 1;
        let mut start = 0;
        for (number, document) in documents.iter().enumerate() {
            let pairs = system.layout().evaluation_pairs(document).unwrap();
            let own = &rows[start..start + pairs.len()];
            for row in own {
                let (sum, most) =
                    (row.iter().sum::<f32>(), if number < whole { 0.999 } else { 1.001 });
                assert!(sum > 0.1 && sum < most, "[CLS] and [SEP] hold the rest: {row:?}");
            }
            let of = |head, tail| {
                let place = pairs.iter().position(|&pair| pair == (head, tail)).unwrap();
                &own[place]
            };
            for &(head, tail) in &pairs {
                assert_eq!(of(head, tail), of(tail, head));
                assert_eq!(of(head, tail).len() + 1, document.sentence_starts.len());
            }
            start += pairs.len();
        }
        // A pair of other entities attends elsewhere.
        assert_ne!(rows[0], rows[1]);
    }
}

/// The axial layers of one document written with one loop for each cell.
#[test]
fn a_pair_attends_to_its_row_and_its_column() {
    let system = system(KdDocreSettings { axial_layers: 1, ..small() });
    let documents = &documents()[..1];
    let batch = batch(&system, documents, false);
    let laid: &KdDocreTables = tables(&batch.tables).unwrap();
    let pairs = system.pairs(laid, EVALUATION).unwrap();
    let cells = system.cells(laid, &pairs.projected, EVALUATION).unwrap().detach();
    let [attention, layer] = system.first_layer(laid, &cells, EVALUATION).unwrap().unwrap();
    let parameter = |name: &str| {
        system.parameters().get(&format!("heads.axial_transformer.{name}")).unwrap().detach()
    };
    let entities = documents[0].entities.len() as i64;
    let (width, heads) = (cells.size()[1], 4);
    let along = |axis: i64, head: i64, tail: i64| -> Tensor {
        let of =
            |part: &str| parameter(&format!("axial_attns.0.axial_attentions.{axis}.fn.{part}"));
        let cell = |h: i64, t: i64| cells.get(h * entities + t);
        let (query, key_value) = (of("to_q.weight"), of("to_kv.weight"));
        let query = query.mv(&cell(head, tail));
        let others = (0..entities).map(|i| if axis == 0 { cell(i, tail) } else { cell(head, i) });
        let others: Vec<Tensor> = others.map(|x| key_value.mv(&x)).collect();
        let size = width / heads;
        let parts = (0..heads).map(|number| {
            let own = |x: &Tensor, first: i64| x.narrow(0, first + number * size, size);
            let scores = others.iter().map(|other| own(&query, 0).dot(&own(other, 0)));
            let scores = Tensor::stack(&scores.collect::<Vec<_>>(), 0) / (size as f64).sqrt();
            let shares = scores.softmax(0, Kind::Float);
            let values: Vec<Tensor> = others.iter().map(|other| own(other, width)).collect();
            Tensor::stack(&values, 1).mv(&shares)
        });
        let joined = Tensor::cat(&parts.collect::<Vec<_>>(), 0);
        of("to_out.weight").mv(&joined) + of("to_out.bias")
    };
    let mut rows = Vec::new();
    for head in 0..entities {
        for tail in 0..entities {
            rows.push(along(0, head, tail) + along(1, head, tail));
        }
    }
    let expected = Tensor::stack(&rows, 0);
    assert!(far(&attention, &expected) < 1e-5);
    let inner =
        (&cells + &expected).matmul(&parameter("ffns.0.weight").tr()) + parameter("ffns.0.bias");
    let (weight, bias) = (parameter("lns.0.weight"), parameter("lns.0.bias"));
    let normed = inner.layer_norm([width], Some(&weight), Some(&bias), 1e-5, false);
    assert!(far(&layer, &normed) < 1e-5);
}

/// Nothing masks them: they are keys and values.
#[test]
fn cells_of_no_pair_change_the_logits_of_the_release() {
    let documents = documents();
    let logits = |settings: KdDocreSettings, forward: Forward| {
        let system = system(settings);
        system.logits(&batch(&system, &documents, forward.train), forward).unwrap()
    };
    let larger = KdDocreSettings { grid_size: 7, ..released() };
    assert!(far(&logits(released(), EVALUATION), &logits(larger, EVALUATION)) > 1e-4);
    // Evaluation and training differ by the padding alone: there is no dropout in this encoder.
    let system = KdDocre::new(
        crate::systems::Foundation { dropout: Some(0.0), ..foundation(32) },
        released(),
    )
    .unwrap();
    let batch = batch(&system, &documents, true);
    let (evaluated, trained) =
        (system.logits(&batch, EVALUATION).unwrap(), system.logits(&batch, TRAINING).unwrap());
    assert!(far(&evaluated, &trained) > 1e-4);
}

#[test]
fn a_document_over_the_grid_is_named() {
    let system = system(KdDocreSettings { grid_size: 3, ..released() });
    let large = &documents()[3..];
    let layout = system.layout();
    let examples = crate::systems::reading::testing::visits(&system, large, true);
    let error = layout.tables(&examples).map(|_| ()).unwrap_err();
    assert_eq!(error.exit_code(), 65);
    let told = error.to_string();
    assert!(told.contains("of 40 words") && told.contains("grid_size"), "{told}");
}

#[test]
fn the_mean_counts_the_diagonal_where_the_release_does() {
    let documents = documents();
    let with = system(KdDocreSettings { count_diagonal: true, ..small() });
    let without = system(small());
    let (counted, plain) = (batch(&with, &documents, true), batch(&without, &documents, true));
    let entities: usize = documents.iter().map(|document| document.entities.len()).sum();
    assert_eq!(counted.counts()[0], plain.counts()[0] + entities as f64);
    let sum =
        |system: &KdDocre, batch| system.losses(batch, EVALUATION).unwrap()[0].double_value(&[]);
    let constant = entities as f64 * 6f64.ln();
    let difference = sum(&with, &counted) - sum(&without, &plain);
    assert!((difference - constant).abs() < 1e-3, "{difference} {constant}");
}

#[test]
fn a_student_needs_its_teacher_and_learns_its_logits() {
    let settings = KdDocreSettings { stage: KdDocreStage::Distil, ..small() };
    let student = system(settings);
    let mut batch = batch(&student, &documents(), true);
    let error = student.losses(&batch, EVALUATION).unwrap_err();
    assert!(error.to_string().contains("teacher"), "{error}");
    let numbers = batch.pairs * 6;
    for wrong in [vec![0.0; numbers - 1], vec![f32::NAN; numbers]] {
        assert!(batch.with_teacher_logits(wrong).is_err());
    }
    let own = student.logits(&batch, EVALUATION).unwrap().detach();
    let shifted: Vec<f32> = Vec::try_from((&own + 2.0).reshape([-1])).unwrap();
    batch.with_teacher_logits(shifted).unwrap();
    assert_eq!(student.slots(), ["relation", "distillation"]);
    let sums = student.losses(&batch, EVALUATION).unwrap();
    // Every squared difference is 4.
    let mean = sums[1].double_value(&[]) / batch.counts()[1];
    assert!((mean - 4.0).abs() < 1e-4, "{mean}");
    assert_eq!(batch.counts()[1], numbers as f64);
}

#[test]
fn dropped_pairs_are_the_same_at_every_visit_and_never_labelled() {
    let settings = KdDocreSettings { drop_unlabelled: 0.5, ..small() };
    let system = system(settings);
    let documents = documents();
    let kept = |train: bool| {
        let batch = batch(&system, &documents, train);
        let laid: &KdDocreTables = tables(&batch.tables).unwrap();
        laid.kept.clone().unwrap()
    };
    let first = kept(true);
    assert_eq!(first, kept(true));
    assert!(kept(false).iter().all(|&kept| kept == 1.0));
    let dropped = first.iter().filter(|&&kept| kept == 0.0).count();
    assert!((5..30).contains(&dropped), "{dropped} of {}", first.len());
    let mut place = 0;
    for document in &documents {
        let count = document.entities.len();
        for fact in &document.facts {
            assert_eq!(first[place + fact.head as usize * count + fact.tail as usize], 1.0);
        }
        place += count * count;
    }
}

#[test]
fn settings_that_cannot_be_built_are_named() {
    let refused = |settings: KdDocreSettings, key: &str| {
        let error = settings.check().unwrap_err();
        assert!(error.to_string().contains(key) && error.exit_code() == 64, "{error}");
    };
    refused(KdDocreSettings { block_size: 5, ..small() }, "block_size");
    refused(KdDocreSettings { axial_layers: 0, ..small() }, "axial_layers");
    refused(KdDocreSettings { gamma: f64::NAN, ..small() }, "gamma");
    refused(KdDocreSettings { drop_unlabelled: 1.0, ..small() }, "drop_unlabelled");
    refused(KdDocreSettings { biased_padding: true, ..small() }, "biased_padding");
    let error = KdDocre::new(foundation(32), KdDocreSettings { axial_heads: 5, ..small() });
    assert!(error.map(|_| ()).unwrap_err().to_string().contains("axial_heads"));
}

#[test]
fn the_stage_decides_schedule_and_rate_of_the_axial_layers() {
    let info = KD_DOCRE.info();
    let schedule =
        |stage| KdDocreSettings::staged(Profile::Fixed, stage).schedule(&info, Profile::Fixed);
    let teacher = schedule(KdDocreStage::Teacher);
    assert_eq!((teacher.batch, teacher.epochs, teacher.clip), (8, 50.0, 1.0));
    for stage in [KdDocreStage::Teacher, KdDocreStage::Distil, KdDocreStage::Continue] {
        let settings = sized(&KdDocreSettings::staged(Profile::Fixed, stage));
        let system = system(settings);
        // The axial layers learn as fast as the encoder.
        let rate = schedule(stage).head_rate * system.rate("heads.axial_transformer.lns.0.bias");
        assert!((rate - 1.0).abs() < 1e-6, "{stage:?}: {rate}");
        assert_eq!(system.rate("heads.classifier.weight"), 1.0);
    }
}

#[test]
fn it_learns_four_documents_by_heart() {
    let system = system(small());
    let batch = batch(&system, &documents(), true);
    let (before, after) = overfit(&system, &batch, 200, 1e-2);
    assert!(after < 0.1 * before, "{before} → {after}");
}
