//! DocRED's evidence predictor: its training batch, and its test routine over predicted facts.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tch::Tensor;

use crate::Result;
use crate::parity::{Case, WEIGHTS, lengths, padded};
use crate::systems::Profile;
use crate::systems::cases::foundation::{DIFFERENTIATED, EVALUATION};
use crate::systems::cases::words::WordCase;
use crate::systems::evidence::{
    EvidenceBatch, EvidenceItem, EvidencePredictor, EvidenceSettings, ScoredSentence,
    best_threshold, evidence, rank_sentences,
};
use crate::text::TokenizedFact;
use crate::train::{MicroBatch, Objective};

/// Words of a scoring pass.
const BUDGET: usize = 4096;

/// Our name of a parameter.
fn rename(name: &str) -> Option<String> {
    Some(if name == "word_emb.weight" { name.to_owned() } else { format!("heads.{name}") })
}

/// Compares the case.
pub(crate) fn evidence_predictor(case: &mut Case) -> Result<()> {
    let words = WordCase::open(case)?;
    let dims = |key: &str| case.number(&format!("/dims/{key}"));
    let settings = EvidenceSettings {
        position_width: dims("coref")?,
        type_width: dims("ner")?,
        hidden: dims("H")?,
        locked_dropout: 0.0,
        ..EvidenceSettings::of(Profile::Code)
    };
    let model = EvidencePredictor::new(words.table(dims("word")?)?, &settings)?;
    case.load_weights(model.parameters(), WEIGHTS, rename)?;
    compare_batch(case, &words, &model)?;
    compare_routine(case, &words, &model)
}

fn number(value: &Value, key: &str) -> u32 {
    value[key].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX)
}

/// The item of a fact given by the number of its relation, NA being 0.
fn item(
    case: &Case,
    words: &WordCase,
    value: &Value,
    [head, tail, relation]: [&str; 3],
) -> Result<EvidenceItem> {
    let title = value["title"].as_str().unwrap_or_default().to_owned();
    let document = Arc::clone(&words.ordered(case, &[title])?[0]);
    let listed = value["evidence"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .map(|sentence| sentence as u32);
    let fact = TokenizedFact {
        head: number(value, head),
        tail: number(value, tail),
        relation: number(value, relation).wrapping_sub(1),
        evidence: listed.collect(),
    };
    Ok(EvidenceItem { document, fact, visit: 0 })
}

fn compare_batch(case: &mut Case, words: &WordCase, model: &EvidencePredictor) -> Result<()> {
    let instances = case.at("/instances").as_array().cloned().unwrap_or_default();
    let items = instances
        .iter()
        .map(|value| item(case, words, value, ["h", "t", "r_id"]))
        .collect::<Result<Vec<_>>>()?;
    let batch = model.layout.batch(&items)?;
    compare_inputs(case, &batch)?;
    let mut seen = HashMap::new();
    let logits = model.probed(&batch, DIFFERENTIATED, &mut |name, tensor| {
        seen.insert(name, tensor.shallow_clone());
    })?;
    let words = lengths(&batch.tables.word_offsets);
    for name in ["lstm_output", "context_output"] {
        // The case holds the first items only.
        let given = case.output(name)?.size()[0] as usize;
        let rows = batch.tables.word_offsets[given];
        if let Some(ours) = seen.get(name) {
            case.compare_rows(name, &ours.f_narrow(0, 0, rows)?, &words[..given])?;
        }
    }
    let sentences = sentence_counts(&batch);
    if let Some(ours) = seen.get("sent_output") {
        case.compare_rows("sent_output", ours, &sentences)?;
    }
    case.compare_rows("logits", &logits, &sentences)?;
    let loss = model.forward(&batch, DIFFERENTIATED)?.remove(0).f_div_scalar(batch.counts()[0])?;
    case.compare("loss", &loss)?;
    loss.f_backward()?;
    case.compare_gradients("grad.", model.parameters(), rename)
}

fn sentence_counts(batch: &EvidenceBatch) -> Vec<i64> {
    let mut counts = vec![0; batch.relations.len()];
    batch.items.iter().for_each(|&item| counts[item as usize] += 1);
    counts
}

fn compare_inputs(case: &mut Case, batch: &EvidenceBatch) -> Result<()> {
    let tables = &batch.tables;
    for (name, values) in [
        ("context_idxs", &tables.ids),
        ("context_pos", &tables.coref),
        ("context_ner", &tables.types),
    ] {
        let width = case.integers(name)?.1[1] as usize;
        case.compare_input(name, &padded(values, &tables.word_offsets, width))?;
    }
    case.compare_input("input_lengths", &lengths(&tables.word_offsets))?;
    case.compare_input("relation_label", &batch.relations)?;
    let slots = case.integers("sent_mask")?.1[1] as usize;
    let base = |row: usize| tables.word_offsets[batch.items[row] as usize];
    let columns: [(&str, i64, Vec<i64>); 4] = [
        (
            "sent_first_word",
            -1,
            (0..batch.items.len()).map(|row| batch.firsts[row] - base(row)).collect(),
        ),
        (
            "sent_last_word",
            -1,
            (0..batch.items.len()).map(|row| batch.lasts[row] - base(row)).collect(),
        ),
        ("sent_mask", 0, vec![1; batch.items.len()]),
        ("evidence_label", 0, batch.targets.iter().map(|&target| target as i64).collect()),
    ];
    for (name, fill, values) in columns {
        let mut rows = vec![fill; batch.relations.len() * slots];
        for ((item, sentence), value) in batch.items.iter().zip(&batch.sentences).zip(values) {
            rows[*item as usize * slots + sentence] = value;
        }
        case.compare_input(name, &rows)?;
    }
    Ok(())
}

/// The release's routine over predicted facts: θ, F1, AUC, the ranked sentences, the evidence of
/// each fact.
fn compare_routine(case: &mut Case, words: &WordCase, model: &EvidencePredictor) -> Result<()> {
    let triples = case.json::<Vec<Value>>("evidence_triples.json")?;
    let items = triples
        .iter()
        .map(|value| item(case, words, value, ["h_idx", "t_idx", "r_idx"]))
        .collect::<Result<Vec<_>>>()?;
    let scores = model.scores(&items, EVALUATION, BUDGET)?;
    let mut ranked = Vec::new();
    for (fact, (item, scores)) in items.iter().zip(&scores).enumerate() {
        let same = |other: &&TokenizedFact| {
            (other.head, other.tail, other.relation)
                == (item.fact.head, item.fact.tail, item.fact.relation)
        };
        let gold = item.document.facts.iter().rfind(same).map_or(&[][..], |fact| &fact.evidence);
        let rows = scores.iter().enumerate();
        ranked.extend(rows.map(|(sentence, &score)| ScoredSentence {
            fact,
            sentence,
            score,
            gold: gold.contains(&(sentence as u32)),
        }));
    }
    rank_sentences(&mut ranked);
    let total: usize = words
        .documents
        .iter()
        .flat_map(|document| &document.facts)
        .map(|fact| fact.evidence.len())
        .sum();
    let expected_total = case.at("/test_routine/total_evidence_recall").as_f64().unwrap_or(-1.0);
    case.compare_integers(
        "test_routine.total_evidence_recall",
        &[total as i64],
        &[expected_total as i64],
    );
    let Some(best) = best_threshold(&ranked, total) else {
        return Err(case.error("the case names no facts to judge"));
    };
    let prefix = case.number("/test_routine/prefix_index_w")?;
    case.compare_integers("test_routine.prefix_index_w", &[best.prefix as i64], &[prefix]);
    for (key, value) in
        [("theta", f64::from(best.theta)), ("evidence_f1_max", best.f1), ("auc", best.auc)]
    {
        let reference = case.at(&format!("/test_routine/{key}")).as_f64().unwrap_or(f64::NAN);
        case.compare_with(
            &format!("test_routine.{key}"),
            &Tensor::from(value),
            &Tensor::from(reference),
        )?;
    }
    compare_expected(case, &items, &triples, &ranked, best.theta)
}

fn compare_expected(
    case: &mut Case,
    items: &[EvidenceItem],
    triples: &[Value],
    ranked: &[ScoredSentence],
    theta: f32,
) -> Result<()> {
    let expected: Value = case.json("evidence_expected.json")?;
    let reference: Vec<f64> = expected["ranked"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row[1].as_f64())
        .collect();
    let ours: Vec<f64> = ranked.iter().map(|sentence| f64::from(sentence.score)).collect();
    case.compare_with(
        "ranked scores",
        &Tensor::f_from_slice(&ours)?,
        &Tensor::f_from_slice(&reference)?,
    )?;
    let lists = evidence(ranked, items.len(), theta);
    let key = |value: &Value| {
        (
            value["title"].to_string(),
            number(value, "h_idx"),
            number(value, "t_idx"),
            value["r"].to_string(),
        )
    };
    let found: HashMap<_, _> = triples.iter().map(key).zip(lists).collect();
    let results = expected["result"].as_array().cloned().unwrap_or_default();
    let flat = |list: &[usize]| {
        std::iter::once(list.len() as i64)
            .chain(list.iter().map(|&sentence| sentence as i64))
            .collect::<Vec<_>>()
    };
    let ours: Vec<i64> = results
        .iter()
        .flat_map(|value| flat(found.get(&key(value)).map_or(&[][..], Vec::as_slice)))
        .collect();
    let listed = |value: &Value| -> Vec<usize> {
        value["evidence"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .map(|sentence| sentence as usize)
            .collect()
    };
    let reference: Vec<i64> = results.iter().flat_map(|value| flat(&listed(value))).collect();
    case.compare_integers("evidence of predicted facts", &ours, &reference);
    Ok(())
}
