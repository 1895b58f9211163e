use std::collections::BTreeSet;

use super::*;
use crate::sampling::Pair;
use crate::sampling::testing::{
    assert_proportional, assert_rate, assert_uniform, document, facts, keep, mention,
};
use crate::systems::dsdocre::settings::NegativePool;
use crate::text::TokenizedDocument;
use crate::text::testing::{case, json};
use crate::train::Share;

/// Twelve entities, of which the first four have a second mention; names are shared with every
/// other document of this kind. Good pairs: (0, 1) with two relations, (2, 3), (4, 5), (6, 7); (8,
/// 9) is labelled but not kept.
fn rich(title: usize) -> TokenizedDocument {
    let labels = [(0, 1, 0), (0, 1, 1), (2, 3, 2), (4, 5, 0), (6, 7, 3), (8, 9, 2)];
    let kept = [(0, 1), (11, 10), (2, 3), (4, 5), (10, 0), (6, 7), (8, 9)];
    let mut document = keep(facts(document(12), &labels), &kept);
    document.title = format!("{title}");
    for entity in 0..4 {
        document.entities[entity].mentions.push(mention(&format!("alias{entity}"), 11));
    }
    document
}

const GOOD: [Pair; 4] = [(0, 1), (2, 3), (4, 5), (6, 7)];

fn settings() -> DsdocreSettings {
    DsdocreSettings { k_pretrain: 6, ..DsdocreSettings::default() }
}

fn instance(row: u32, (head, tail): Pair, relation: u32) -> FactInstance {
    FactInstance { row, head, tail, relation }
}

/// Key 0 lies in two documents, key 1 in all six.
fn keys() -> Vec<Vec<FactInstance>> {
    vec![
        vec![instance(0, (2, 3), 2), instance(1, (2, 3), 2)],
        (0..6).map(|row| instance(row, (0, 1), 1)).collect(),
    ]
}

fn corpus() -> Vec<TokenizedDocument> {
    (0..6).map(rich).collect()
}

#[test]
fn ratios_are_those_of_the_settings() {
    let corpus = corpus();
    let sampler = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let items: Vec<_> = (0..4000).map(|item| sampler.sample(1, 2, item)).collect();
    assert!((0..).zip(&items).all(|(number, item)| sampler.rows(1, 2, number) == item.rows));
    let same: Vec<_> = items.iter().filter(|item| item.same_fact).collect();
    assert_rate(same.len(), items.len(), 0.6);
    let blanked: Vec<bool> = items
        .iter()
        .flat_map(|item| item.choices.iter().flat_map(|choices| choices.blanked.clone()))
        .collect();
    assert_eq!(blanked.len(), items.len() * 2 * 12);
    assert_rate(blanked.iter().filter(|blanked| **blanked).count(), blanked.len(), 0.2);
    // Keys are drawn uniformly, not by their number of instances.
    let first_key =
        same.iter().filter(|item| item.alignment[0].as_ref().unwrap().query == (2, 3)).count();
    assert_rate(first_key, same.len(), 0.5);
    // Documents that share no fact on purpose are uniform and different.
    let mut rows = [0; 6];
    for item in items.iter().filter(|item| !item.same_fact) {
        assert_ne!(item.rows[0], item.rows[1]);
        item.rows.iter().for_each(|&row| rows[row] += 1);
        assert_eq!(item.alignment, [None, None]);
    }
    assert_uniform(&rows);
}

#[test]
fn mention_matching_masks_three_mentions_and_offers_five_entities() {
    let corpus = corpus();
    let sampler = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let (mut slots, mut entities, mut others) = ([0; 5], [0; 4], [0; 11]);
    for number in 0..2000 {
        let item = sampler.sample(3, 0, number);
        for side in 0..2 {
            let masked = &item.choices[side].masked;
            assert_eq!(masked.iter().collect::<BTreeSet<_>>().len(), 3);
            assert_eq!(item.mention[side].len(), 3);
            for (row, instance) in item.mention[side].iter().enumerate() {
                assert_eq!((instance.query, instance.candidates.len()), (row, 5));
                assert_eq!(instance.candidates.iter().collect::<BTreeSet<_>>().len(), 5);
                assert_eq!(instance.candidates[instance.answer], masked[row].0);
                slots[instance.answer] += 1;
                entities[masked[row].0 as usize] += 1;
            }
            let last = &item.mention[side][2];
            let wrong =
                last.candidates.iter().filter(|&&entity| entity != masked[2].0 && masked[2].0 == 0);
            wrong.for_each(|&entity| others[entity as usize - 1] += 1);
        }
    }
    assert_uniform(&slots);
    assert_uniform(&entities);
    assert_uniform(&others);
}

#[test]
fn too_few_maskable_mentions_repeat_the_first_and_none_give_no_row() {
    let mut corpus = corpus();
    for document in &mut corpus {
        document.entities[2..].iter_mut().for_each(|entity| entity.mentions.truncate(1));
    }
    let draw = |corpus: &Vec<TokenizedDocument>| {
        PretrainSampler::new(corpus, keys(), settings()).unwrap().sample(1, 1, 1)
    };
    let item = draw(&corpus);
    let masked = &item.choices[0].masked;
    assert_eq!(masked.len(), 3);
    assert!(masked[0] == masked[2] && masked[0].0 != masked[1].0);
    assert!(
        item.mention[0]
            .iter()
            .zip(masked)
            .all(|(instance, mask)| instance.candidates[instance.answer] == mask.0)
    );
    corpus.iter_mut().for_each(|document| {
        document.entities.iter_mut().for_each(|entity| entity.mentions.truncate(1));
    });
    let item = draw(&corpus);
    assert!(
        item.choices.iter().all(|choices| choices.masked.is_empty())
            && item.mention.iter().all(Vec::is_empty)
    );
}

#[test]
fn cross_matching_asks_for_a_shared_name_among_eight_entities() {
    let mut corpus = corpus();
    // Only one name is known to every document, each time for another entity.
    for (row, document) in corpus.iter_mut().enumerate() {
        for (e, entity) in document.entities.iter_mut().enumerate() {
            entity.mentions.iter_mut().for_each(|mention| mention.name = format!("{row}/{e}"));
        }
        document.entities[(row + 5) % 12].mentions[0].name = "shared".into();
    }
    let none = DsdocreSettings { tasks: vec![Task::XMenMat], ..settings() };
    let sampler = PretrainSampler::new(&corpus, keys(), none).unwrap();
    let mut slots = [0; 8];
    for number in 0..2000 {
        let item = sampler.sample(4, 0, number);
        let shared = item.rows.map(|row| (row as u32 + 5) % 12);
        for (from, to) in [(0, 1), (1, 0)] {
            let instance = item.cross_mention[from].as_ref().unwrap();
            assert_eq!(
                (instance.query, instance.candidates[instance.answer]),
                (shared[from], shared[to])
            );
            assert_eq!(
                (
                    instance.candidates.len(),
                    instance.candidates.iter().collect::<BTreeSet<_>>().len()
                ),
                (8, 8)
            );
            slots[instance.answer] += 1;
        }
    }
    assert_uniform(&slots);
}

#[test]
fn a_masked_mention_lends_its_name_to_no_match() {
    let mut corpus = corpus();
    for (row, document) in corpus.iter_mut().enumerate() {
        for (e, entity) in document.entities.iter_mut().enumerate() {
            entity.mentions.truncate(1);
            entity.mentions[0].name = format!("{row}/{e}");
        }
        document.entities[3].mentions.push(mention("shared", 3));
    }
    let sampler = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let (mut hidden, trials) = (0, 1000);
    for number in 0..trials {
        let item = sampler.sample(5, 0, number);
        let masked = item.choices.iter().any(|choices| choices.masked[0] == (3, 1));
        assert_eq!(item.cross_mention[0].is_none(), masked);
        hidden += usize::from(masked);
    }
    assert_rate(hidden, trials as usize, 0.75);
}

#[test]
fn detection_offers_one_good_pair_among_eight() {
    let corpus = corpus();
    let sampler = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let (mut slots, mut positives) = ([0; 8], [0; 4]);
    for number in 0..1500 {
        for instance in sampler.sample(6, 0, number).detection.iter().flatten() {
            assert_eq!(
                (instance.pairs.len(), instance.pairs.iter().collect::<BTreeSet<_>>().len()),
                (8, 8)
            );
            for (slot, pair) in instance.pairs.iter().enumerate() {
                assert_eq!(GOOD.contains(pair), slot == instance.answer);
                assert_ne!(
                    *pair,
                    (8, 9),
                    "a label that was not kept is neither positive nor negative"
                );
            }
            slots[instance.answer] += 1;
            positives
                [GOOD.iter().position(|pair| *pair == instance.pairs[instance.answer]).unwrap()] +=
                1;
        }
    }
    assert_eq!(slots.iter().sum::<u32>(), 1500 * 2 * 3);
    assert_uniform(&slots);
    assert_uniform(&positives);
}

#[test]
fn cross_detection_offers_four_pairs_of_each_document() {
    let corpus = corpus();
    let sampler = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let mut slots = [0; 8];
    for number in 0..1500 {
        for instance in sampler.sample(7, 0, number).cross_detection {
            assert_eq!(instance.pairs.each_ref().map(Vec::len), [4, 4]);
            for (slot, pair) in instance.pairs.iter().flatten().enumerate() {
                assert_eq!(GOOD.contains(pair), slot == instance.answer);
            }
            slots[instance.answer] += 1;
        }
    }
    assert_eq!(slots.iter().sum::<u32>(), 1500 * 3);
    assert_uniform(&slots);
}

#[test]
fn alignment_offers_five_other_facts_and_eight_unlabelled_pairs() {
    let corpus = corpus();
    let sampler = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let (mut slots, mut wrong_slots) = ([0; 14], [0; 14]);
    for item in (0..3000).map(|number| sampler.sample(8, 0, number)).filter(|item| item.same_fact) {
        for instance in item.alignment.iter().flatten() {
            let answer = instance.candidates[instance.answer];
            assert_eq!((answer, instance.candidates.len()), (instance.query, 14));
            slots[instance.answer] += 1;
            // Key 1 is relation 1, which only (0, 1) has; key 0 is relation 2, which only (2, 3)
            // has among the good pairs. So all three other good pairs are hard candidates, five of
            // them from the list taken twice.
            let hard: Vec<_> = instance
                .candidates
                .iter()
                .filter(|pair| GOOD.contains(pair) && **pair != answer)
                .collect();
            assert_eq!((hard.len(), hard.iter().collect::<BTreeSet<_>>().len()), (5, 3));
            let random: BTreeSet<_> =
                instance.candidates.iter().filter(|pair| !GOOD.contains(pair)).collect();
            assert!(random.len() == 8 && !random.contains(&(8, 9)));
            wrong_slots[instance.candidates.iter().position(|pair| *pair == *hard[0]).unwrap()] +=
                1;
        }
    }
    assert_uniform(&slots);
    assert!(wrong_slots[6] > 0, "hard candidates are shuffled among the others");
}

#[test]
fn without_other_facts_alignment_offers_thirteen_unlabelled_pairs() {
    let documents: Vec<_> = (0..2).map(|_| facts(document(6), &[(0, 1, 1), (2, 3, 1)])).collect();
    let keys = vec![vec![instance(0, (0, 1), 1), instance(1, (2, 3), 1)]];
    let always = DsdocreSettings { same_fact_ratio: 1.0, ..settings() };
    let item = PretrainSampler::new(&documents, &keys, always).unwrap().sample(1, 1, 1);
    let instance = item.alignment[0].as_ref().unwrap();
    let unlabelled: BTreeSet<_> =
        instance.candidates.iter().filter(|pair| ![(0, 1), (2, 3)].contains(pair)).collect();
    assert_eq!((instance.candidates.len(), unlabelled.len()), (14, 13));
    let expected = if item.rows[0] == 0 { [(0, 1), (2, 3)] } else { [(2, 3), (0, 1)] };
    assert_eq!([instance.query, instance.candidates[instance.answer]], expected);
}

#[test]
fn keys_need_good_instances_in_two_documents() {
    let mut corpus = corpus();
    corpus.push(facts(document(4), &[(0, 1, 0)]));
    corpus.push(document(12));
    let bad = vec![
        vec![instance(0, (2, 3), 2), instance(0, (0, 1), 2)],
        vec![instance(0, (8, 9), 2), instance(1, (8, 9), 2)],
        vec![instance(0, (0, 1), 0), instance(6, (0, 1), 0)],
        vec![],
        vec![instance(0, (0, 1), 0), instance(1, (8, 9), 0), instance(2, (4, 5), 0)],
    ];
    let sampler = PretrainSampler::new(&corpus, &bad, settings()).unwrap();
    assert_eq!(
        sampler.summary(),
        PretrainSummary { documents: 6, unranked: 0, keys: 1, instances: 2, windows: 1 }
    );
    let nothing: Vec<Vec<FactInstance>> = vec![];
    assert!((0..50).all(|item| {
        !PretrainSampler::new(&corpus, &nothing, settings()).unwrap().sample(1, 1, item).same_fact
    }));
}

#[test]
fn a_document_that_no_ranker_has_seen_keeps_all_its_labels() {
    // (8, 9) is labelled, and outside what the ranker kept.
    let key = vec![vec![instance(0, (8, 9), 2), instance(1, (8, 9), 2)]];
    let mut corpus = corpus();
    assert_eq!(PretrainSampler::new(&corpus, &key, settings()).unwrap().summary().keys, 0);
    corpus[..2].iter_mut().for_each(|document| document.kept = None);
    let sampler =
        PretrainSampler::new(&corpus, &key, DsdocreSettings { same_fact_ratio: 1.0, ..settings() })
            .unwrap();
    assert_eq!(
        sampler.summary(),
        PretrainSummary { documents: 6, unranked: 2, keys: 1, instances: 2, windows: 1 }
    );
    let item = sampler.sample(1, 1, 1);
    assert!(item.same_fact && item.alignment[0].as_ref().unwrap().query == (8, 9));
    let sampler = PretrainSampler::new(&corpus, &key, settings()).unwrap();
    let mut detecting = BTreeSet::new();
    for item in (0..400).map(|item| sampler.sample(1, 1, item)) {
        for (row, instances) in item.rows.into_iter().zip(&item.detection) {
            if instances.iter().any(|instance| instance.pairs[instance.answer] == (8, 9)) {
                detecting.insert(row);
            }
        }
    }
    assert_eq!(detecting, BTreeSet::from([0, 1]));
}

#[test]
fn two_instances_of_a_key_always_come_from_different_documents() {
    let corpus = corpus();
    let mut lopsided: Vec<_> =
        GOOD.iter().map(|&pair| instance(0, pair, 0)).cycle().take(400).collect();
    lopsided.push(instance(5, (0, 1), 0));
    let always = DsdocreSettings { same_fact_ratio: 1.0, ..settings() };
    let sampler = PretrainSampler::new(&corpus, vec![lopsided], always).unwrap();
    for number in 0..200 {
        let mut rows = sampler.sample(9, 0, number).rows;
        rows.sort_unstable();
        assert_eq!(rows, [0, 5]);
    }
}

#[test]
fn an_item_is_a_pure_function_and_ranks_share_it() {
    let corpus = corpus();
    let before = corpus.clone();
    let sampler = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let again = PretrainSampler::new(&corpus, keys(), settings()).unwrap();
    let whole: Vec<_> = (0..10).map(|item| sampler.sample(1, 5, item)).collect();
    for world in [1, 2, 3, 4] {
        for rank in (0..world).rev() {
            for item in (0..10).filter(|&item| Share { rank, world }.holds(item)) {
                assert_eq!(again.sample(1, 5, item as u64), whole[item]);
            }
        }
    }
    assert_ne!(sampler.sample(2, 5, 0), whole[0]);
    assert_ne!(sampler.sample(1, 6, 0), whole[0]);
    drop((sampler, again));
    assert_eq!(corpus, before);
}

#[test]
fn leaving_out_a_task_does_not_change_the_others() {
    let corpus = corpus();
    let with = |tasks: &[Task]| {
        let settings = DsdocreSettings { tasks: tasks.to_vec(), ..settings() };
        PretrainSampler::new(&corpus, keys(), settings).unwrap().sample(1, 5, 3)
    };
    let all = with(&[Task::MenMat, Task::XMenMat, Task::RelDet, Task::XRelDet, Task::RelAlign]);
    let some = with(&[Task::RelDet, Task::RelAlign]);
    assert_eq!(
        (&some.rows, &some.detection, &some.alignment),
        (&all.rows, &all.detection, &all.alignment)
    );
    assert!(
        some.mention.iter().all(Vec::is_empty)
            && some.cross_detection.is_empty()
            && some.choices[0].masked.is_empty()
    );
    assert_eq!(some.choices[0].blanked, all.choices[0].blanked);
    assert_eq!(all.intra_alignment, [None, None]);
}

#[test]
fn intra_alignment_joins_two_pairs_with_the_same_relation() {
    let corpus = corpus();
    let only = DsdocreSettings { tasks: vec![Task::IntraAlign], ..settings() };
    let sampler = PretrainSampler::new(&corpus, keys(), only).unwrap();
    let mut directions = [0; 2];
    for number in 0..500 {
        for instance in sampler.sample(1, 0, number).intra_alignment.iter().flatten() {
            // Relation 0 is the only one with two good pairs, (0, 1) and (4, 5).
            let answer = instance.candidates[instance.answer];
            directions[usize::from(instance.query == (0, 1))] += 1;
            assert_eq!(BTreeSet::from([instance.query, answer]), BTreeSet::from([(0, 1), (4, 5)]));
            assert_eq!(instance.candidates.len(), 14);
        }
    }
    assert_proportional(&directions, &[1.0, 1.0]);
}

#[test]
fn degenerate_documents_give_no_instances_and_no_loop() {
    let complete: Vec<_> =
        crate::sampling::ordered_pairs(3).map(|(head, tail)| (head, tail, 0)).collect();
    let shapes = [
        facts(document(1), &[(0, 0, 0)]),
        facts(document(2), &[(0, 1, 0), (1, 0, 0)]),
        facts(document(3), &complete),
        keep(facts(document(6), &[(0, 1, 0)]), &[]),
        facts(document(2), &[(0, 1, 0)]),
    ];
    let mut tasks = DsdocreSettings::default().tasks;
    tasks.push(Task::IntraAlign);
    for negative_pool in [NegativePool::All, NegativePool::Kept] {
        let settings = DsdocreSettings {
            min_entities: 0,
            same_fact_ratio: 1.0,
            tasks: tasks.clone(),
            negative_pool,
            ..settings()
        };
        for shape in &shapes[..4] {
            let corpus = vec![shape.clone(), shape.clone()];
            let keys = vec![vec![instance(0, (0, 1), 0), instance(1, (0, 1), 0)]];
            let item =
                PretrainSampler::new(&corpus, &keys, settings.clone()).unwrap().sample(1, 1, 1);
            assert!(
                item.detection.iter().all(Vec::is_empty) && item.cross_detection.is_empty(),
                "{item:?}"
            );
            assert!(item.alignment.iter().chain(&item.intra_alignment).all(Option::is_none));
            assert!(item.mention.iter().all(Vec::is_empty));
            assert_eq!(item.cross_mention[0].is_some(), shape.entities.len() > 1);
        }
        let corpus = vec![shapes[4].clone(), shapes[4].clone()];
        let item = PretrainSampler::new(&corpus, Vec::<Vec<FactInstance>>::new(), settings.clone())
            .unwrap()
            .sample(1, 1, 1);
        assert!(
            item.detection[0].iter().all(|instance| instance
                .pairs
                .iter()
                .filter(|pair| **pair == (1, 0))
                .count()
                == 7)
        );
    }
}

#[test]
fn negatives_can_come_from_the_kept_pairs_alone() {
    let corpus = corpus();
    let kept = DsdocreSettings { negative_pool: NegativePool::Kept, ..settings() };
    let item = PretrainSampler::new(&corpus, keys(), kept).unwrap().sample(1, 1, 1);
    for instance in item.detection.iter().flatten() {
        let wrong = instance.pairs.iter().enumerate().filter(|(slot, _)| *slot != instance.answer);
        assert_eq!(
            wrong.map(|(_, pair)| *pair).collect::<BTreeSet<_>>(),
            BTreeSet::from([(11, 10), (10, 0)])
        );
    }
}

#[test]
fn unusable_settings_and_corpora_are_errors() {
    let corpus = corpus();
    let code = |settings| {
        PretrainSampler::new(&corpus, keys(), settings).err().map(|error| error.exit_code())
    };
    assert_eq!(code(DsdocreSettings { blank_probability: 1.5, ..settings() }), Some(64));
    assert_eq!(code(DsdocreSettings { same_fact_ratio: f64::NAN, ..settings() }), Some(64));
    assert_eq!(code(DsdocreSettings { detection_candidates: 0, ..settings() }), Some(64));
    assert_eq!(code(DsdocreSettings { min_entities: 13, ..settings() }), Some(65));
    assert_eq!(code(settings()), None);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn instances_have_the_shapes_of_the_reference() {
    let folder = case("dsdocre-pretrain");
    let inputs = &json(&folder, "case.json")["inputs"];
    let shape = |name: &str| -> Vec<usize> {
        serde_json::from_value(inputs[name]["shape"].clone()).unwrap()
    };
    let corpus = corpus();
    let always = DsdocreSettings { same_fact_ratio: 1.0, ..settings() };
    let item = PretrainSampler::new(&corpus, keys(), always).unwrap().sample(1, 1, 1);
    let alignment = item.alignment[1].as_ref().unwrap();
    assert_eq!(
        [item.mention[0].len(), item.mention[0][0].candidates.len()],
        shape("MenMat_Cand1")[1..]
    );
    assert_eq!(
        [item.cross_mention[0].as_ref().unwrap().candidates.len()],
        shape("XMenMat_Cand2")[1..]
    );
    assert_eq!(
        [item.detection[0].len(), item.detection[0][0].pairs.len()],
        shape("RelDet_Head1")[1..]
    );
    assert_eq!(
        [item.cross_detection.len(), item.cross_detection[0].pairs[0].len()],
        shape("XRelDet_Head1")[1..]
    );
    assert_eq!([alignment.candidates.len()], shape("RelAlign_CandHead1")[1..]);
}
