//! What a model makes of its self-test now, beside what was recorded: a row for each thing that
//! must hold.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::answer::{DocumentAnswer, SelfTest};
use super::subject::{KEPT, SECOND_RUN, Subject};
use crate::eval::Prediction;
use crate::systems::Pair;
use crate::torch::Precision;
use crate::train::Checkpoint;
use crate::{DataError, Result};

/// By how much numbers may differ, as a share of the largest. Another processor adds the terms of a
/// product in another order: with 24 bits and sums of thousands of terms, through a dozen layers,
/// that is about 1e-5 of the largest logit; ten times as much is taken.
const FP32_TOLERANCE: f64 = 1e-4;

/// The same of products in bfloat16, which has 8 bits: 4e-3 a number, through a dozen layers.
const BF16_TOLERANCE: f64 = 5e-2;

/// What is added to the tolerance, for numbers that are all about 0.
const LEAST_TOLERANCE: f64 = 1e-7;

/// Of the scores of a second run, the largest of a pair are kept. One at the edge may be there or
/// not: so large a share of them.
const AT_THE_EDGE: f64 = 0.01;

/// A difference of probabilities that comes from another library of functions.
const ROUNDING: f64 = 1e-6;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// The folder.
    pub model: PathBuf,
    /// Short hash that identifies the weights.
    pub identity: String,
    /// The system and the kind of model.
    pub what: String,
    /// Where it was computed, and with which numbers.
    pub computed: String,
    /// Whether everything holds.
    pub good: bool,
    /// What was looked at.
    pub rows: Vec<SelfTestRow>,
    /// What is no fault, but worth knowing.
    pub notes: Vec<String>,
}

/// One thing that must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SelfTestRow {
    /// What it is.
    pub what: String,
    /// What was found.
    pub found: String,
    /// The largest difference, for numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// The largest difference that is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// Whether it holds.
    pub good: bool,
}

impl SelfTestRow {
    /// A row without numbers.
    pub fn new(what: &str, good: bool, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), found: found.into(), good, ..Self::default() }
    }

    /// A row that holds where there is no difference.
    fn equal(what: &str, as_recorded: impl Into<String>, difference: Option<String>) -> Self {
        match difference {
            None => Self::new(what, true, as_recorded),
            Some(difference) => Self::new(what, false, difference),
        }
    }

    /// A row of numbers.
    fn measured(what: &str, difference: f64, tolerance: f64, good: bool) -> Self {
        let found = format!("largest difference {difference:.1e}, allowed {tolerance:.1e}");
        let (difference, tolerance) = (Some(difference), Some(tolerance));
        Self { difference, tolerance, ..Self::new(what, good, found) }
    }
}

impl CheckReport {
    /// Adds the rows of a part of the model.
    pub fn add_part(&mut self, name: &str, part: Self) {
        let named = |row: SelfTestRow| SelfTestRow { what: format!("{name}: {}", row.what), ..row };
        self.rows.extend(part.rows.into_iter().map(named));
        self.notes.extend(part.notes.into_iter().map(|note| format!("{name}: {note}")));
    }

    /// An error that names the first thing that does not hold.
    ///
    /// # Errors
    /// A [`DataError`].
    pub fn outcome(&self) -> Result<()> {
        let Some(row) = self.rows.iter().find(|row| !row.good) else { return Ok(()) };
        let problem = format!("does not do what it did at its export: {}: {}", row.what, row.found);
        Err(DataError::new(&self.model, problem)
            .hint("copy or download the export again, or export the checkpoint anew")
            .into())
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}), {}", self.what, self.identity, self.computed)?;
        let width = self.rows.iter().map(|row| row.what.len()).max().unwrap_or_default();
        for row in &self.rows {
            let verdict = if row.good { "good" } else { "BAD" };
            writeln!(f, "  {:<width$}  {verdict:<4}  {}", row.what, row.found)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        write!(f, "{}", if self.good { "the model does what it did" } else { "the model differs" })
    }
}

/// The share of the largest number by which numbers may differ.
pub fn tolerance_of(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => FP32_TOLERANCE,
        Precision::Bf16 => BF16_TOLERANCE,
    }
}

/// Compares what is written down: labels, tokenizer, configuration and what decides.
///
/// # Errors
/// Files that cannot be read.
pub fn compare_records(
    test: &SelfTest,
    subject: &Subject,
    checkpoint: &Checkpoint,
) -> Result<Vec<SelfTestRow>> {
    let (recorded, description) = (&test.recorded, subject.description());
    let (config, whole) = (checkpoint.encoder_config()?, checkpoint.description::<Value>()?);
    let labels = recorded.relations.iter().zip(description.relations.iter());
    let moved = labels.enumerate().find(|(_, (was, is))| was != is).map(|(class, (was, is))| {
        format!("class {class} is {} ({}), and was {} ({})", is.id, is.name, was.id, was.name)
    });
    let (was, is) = (recorded.relations.len(), description.relations.len());
    let moved = moved.or_else(|| (was != is).then(|| format!("{is} relations, and were {was}")));
    let tokenizer = subject.tokenizer().identity();
    let other = (tokenizer != recorded.tokenizer).then(|| {
        let short = |text: &str| text.chars().take(16).collect::<String>();
        format!("is {}, and was {}", short(tokenizer), short(&recorded.tokenizer))
    });
    let state = &subject.state;
    let threshold = (state.threshold != recorded.threshold).then(|| {
        let told =
            |value: Option<f64>| value.map_or_else(|| "none".into(), |value| format!("{value}"));
        format!("is {}, and was {}", told(state.threshold), told(recorded.threshold))
    });
    let calibration = match (&state.calibration, &recorded.calibration) {
        (None, Some(_)) => Some("is missing".to_owned()),
        (is, was) if is != was => Some("is not the one that was recorded".to_owned()),
        _ => None,
    };
    let calibrated = if recorded.calibration.is_some() { "as recorded" } else { "none" };
    Ok(vec![
        SelfTestRow::equal("label map", format!("{is} relations in order"), moved),
        SelfTestRow::equal("tokenizer", "as recorded", other),
        SelfTestRow::equal("config.json", "as recorded", difference("", &config, &recorded.config)),
        SelfTestRow::equal(
            "docre.json",
            "as recorded",
            difference("", &whole, &recorded.description),
        ),
        SelfTestRow::equal("threshold", "as recorded", threshold),
        SelfTestRow::equal("calibration", calibrated, calibration),
    ])
}

/// The first place where two values of JSON differ.
fn difference(place: &str, is: &Value, was: &Value) -> Option<String> {
    let inside =
        |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match (is, was) {
        (Value::Object(is), Value::Object(was)) => {
            let keys: BTreeSet<&String> = is.keys().chain(was.keys()).collect();
            let value = |map: &serde_json::Map<String, Value>, key: &String| {
                map.get(key).cloned().unwrap_or_default()
            };
            keys.into_iter()
                .find_map(|key| difference(&inside(key), &value(is, key), &value(was, key)))
        }
        (Value::Array(is), Value::Array(was)) if is.len() == was.len() => is
            .iter()
            .zip(was)
            .enumerate()
            .find_map(|(index, (is, was))| difference(&format!("{place}[{index}]"), is, was)),
        // A number may be written in two ways.
        _ if is == was || (is.is_number() && is.as_f64() == was.as_f64()) => None,
        _ => Some(format!("`{place}` is {}, and was {}", short(is), short(was))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Compares the numbers of all documents, a row for each name.
pub fn compare_numbers(
    was: &[DocumentAnswer],
    is: &[DocumentAnswer],
    precision: Precision,
) -> Vec<SelfTestRow> {
    let names: BTreeSet<&String> = was
        .iter()
        .chain(is)
        .flat_map(|answer| answer.numbers.keys())
        .filter(|name| *name != KEPT)
        .collect();
    let mut rows: Vec<SelfTestRow> = kept_pairs(was, is, precision).into_iter().collect();
    rows.extend(names.into_iter().map(|name| compare_name(name, was, is, precision)));
    rows
}

fn compare_name(
    name: &str,
    was: &[DocumentAnswer],
    is: &[DocumentAnswer],
    precision: Precision,
) -> SelfTestRow {
    let (mut largest, mut apart) = (0f64, 0f64);
    let (mut edge, mut count) = (0u32, 0u32);
    for (index, (was, is)) in was.iter().zip(is).enumerate() {
        let (old, new) = (was.values(name), is.values(name));
        if old.len() != new.len() || was.pairs_of(name) != is.pairs_of(name) {
            let found = format!("other pairs or numbers for document {}", index + 1);
            return SelfTestRow::new(name, false, found);
        }
        for (old, new) in old.into_iter().map(f64::from).zip(new.into_iter().map(f64::from)) {
            if old.is_finite() {
                largest = largest.max(old.abs());
                count += 1;
            }
            if name == SECOND_RUN && (old == f64::NEG_INFINITY) != (new == f64::NEG_INFINITY) {
                edge += 1;
            } else if old != new {
                let difference = (old - new).abs();
                // What is no number is as far away as can be.
                apart = apart.max(if difference.is_nan() { f64::INFINITY } else { difference });
            }
        }
    }
    let tolerance = tolerance_of(precision) * largest + LEAST_TOLERANCE;
    let edge_allowed = (AT_THE_EDGE * f64::from(count)).ceil();
    let good = apart <= tolerance && f64::from(edge) <= edge_allowed;
    let mut row = SelfTestRow::measured(name, apart, tolerance, good);
    if edge > 0 {
        row.found += &format!("; {edge} of {count} at the edge of the largest are there or not");
    }
    row
}

/// Compares which pairs a ranker keeps. Pairs whose scores are within the tolerance of the last
/// that is kept may change places with it.
fn kept_pairs(
    was: &[DocumentAnswer],
    is: &[DocumentAnswer],
    precision: Precision,
) -> Option<SelfTestRow> {
    let all: Vec<f32> = was.iter().flat_map(|answer| answer.values(KEPT)).collect();
    if all.is_empty() && is.iter().all(|answer| answer.values(KEPT).is_empty()) {
        return None;
    }
    let largest = all.iter().fold(0f32, |largest, score| largest.max(score.abs()));
    let tolerance = tolerance_of(precision) * f64::from(largest) + LEAST_TOLERANCE;
    let (mut apart, mut swapped) = (0f64, 0);
    for (was, is) in was.iter().zip(is) {
        let (old, new) = (scored(was), scored(is));
        if old.len() != new.len() {
            let found =
                format!("{} pairs of a document are kept, and were {}", new.len(), old.len());
            return Some(SelfTestRow::new(KEPT, false, found));
        }
        let last = |pairs: &[(Pair, f64)]| pairs.iter().map(|pair| pair.1).fold(f64::MAX, f64::min);
        for (mine, others) in [(&old, &new), (&new, &old)] {
            for &(pair, score) in mine {
                let same = others.iter().find(|(other, _)| *other == pair);
                swapped += usize::from(same.is_none());
                let other = same.map_or_else(|| last(others), |&(_, score)| score);
                let difference = (score - other).abs();
                apart = apart.max(if difference.is_nan() { f64::INFINITY } else { difference });
            }
        }
    }
    let mut row = SelfTestRow::measured(KEPT, apart, tolerance, apart <= tolerance);
    if swapped > 0 {
        row.found += &format!("; {} pairs of equal scores change places", swapped / 2);
    }
    Some(row)
}

fn scored(answer: &DocumentAnswer) -> Vec<(Pair, f64)> {
    answer.pairs_of(KEPT).into_iter().zip(answer.values(KEPT).into_iter().map(f64::from)).collect()
}

/// Compares what the rule makes of the recorded numbers with the recorded facts.
pub fn compare_facts(was: &[Vec<Prediction>], is: &[Vec<Prediction>]) -> SelfTestRow {
    let count: usize = was.iter().map(Vec::len).sum();
    for (index, (was, is)) in was.iter().zip(is).enumerate() {
        let found = |told: String| {
            SelfTestRow::new("facts", false, format!("document {}: {told}", index + 1))
        };
        if was.len() != is.len() {
            return found(format!("{} facts, and were {}", is.len(), was.len()));
        }
        for (was, is) in was.iter().zip(is) {
            if key(was) != key(is) {
                return found(format!("{}, and was {}", told(is), told(was)));
            }
            if was.evidence != is.evidence {
                let (now, then) = (&is.evidence, &was.evidence);
                return found(format!("{}: evidence {now:?}, and was {then:?}", told(is)));
            }
            for (what, was, is) in
                [("score", was.score, is.score), ("confidence", was.confidence, is.confidence)]
            {
                let same = match (was, is) {
                    (Some(was), Some(is)) => (was - is).abs() <= ROUNDING,
                    (was, is) => was.is_none() && is.is_none(),
                };
                if !same {
                    return found(format!("the {what} of a fact is {is:?}, and was {was:?}"));
                }
            }
        }
    }
    SelfTestRow::new("facts", true, format!("{count} facts from the recorded numbers, as recorded"))
}

/// Facts that the numbers of this machine turn into others, which are then within rounding of the
/// threshold.
pub fn other_facts(was: &[Vec<Prediction>], is: &[Vec<Prediction>]) -> usize {
    let all = |facts: &[Vec<Prediction>]| -> BTreeSet<(usize, usize, usize, String)> {
        let of_document = |(index, facts): (usize, &Vec<Prediction>)| {
            facts
                .iter()
                .map(|fact| (index, fact.h_idx, fact.t_idx, fact.r.clone()))
                .collect::<Vec<_>>()
        };
        facts.iter().enumerate().flat_map(of_document).collect()
    };
    all(was).symmetric_difference(&all(is)).count()
}

fn key(fact: &Prediction) -> (usize, usize, &str) {
    (fact.h_idx, fact.t_idx, &fact.r)
}

fn told(fact: &Prediction) -> String {
    format!("fact ({}, {}, {})", fact.h_idx, fact.t_idx, fact.r)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(name: &str, pairs: &[Pair], values: &[f32]) -> Vec<DocumentAnswer> {
        let mut answer = DocumentAnswer::default();
        answer.push(name, pairs.len(), values.to_vec());
        answer.pairs.insert(name.to_owned(), pairs.to_vec());
        vec![answer]
    }

    #[test]
    fn numbers_may_differ_by_the_tolerance_of_the_precision_and_no_more() {
        let was = answer("logits", &[(0, 1)], &[10.0, -20.0]);
        for (values, precision, good) in [
            ([10.0, -20.0], Precision::Fp32, true),
            ([10.001, -20.0], Precision::Fp32, true),
            ([10.01, -20.0], Precision::Fp32, false),
            ([10.5, -20.0], Precision::Bf16, true),
            ([12.0, -20.0], Precision::Bf16, false),
            ([f32::NAN, -20.0], Precision::Bf16, false),
            ([f32::INFINITY, -20.0], Precision::Bf16, false),
        ] {
            let rows = compare_numbers(&was, &answer("logits", &[(0, 1)], &values), precision);
            assert_eq!((rows.len(), rows[0].good), (1, good), "{values:?}: {rows:?}");
        }
        for other in [
            answer("logits", &[(1, 0)], &[10.0, -20.0]),
            answer("logits", &[(0, 1)], &[10.0]),
            vec![DocumentAnswer::default()],
        ] {
            assert!(!compare_numbers(&was, &other, Precision::Bf16)[0].good, "{other:?}");
        }
    }

    #[test]
    fn a_class_at_the_edge_of_the_largest_may_be_absent() {
        let absent = f32::NEG_INFINITY;
        let good = |values: &[f32]| {
            let was = answer(SECOND_RUN, &[(0, 1)], &[1.0, 2.0, absent]);
            let is = answer(SECOND_RUN, &[(0, 1)], values);
            compare_numbers(&was, &is, Precision::Fp32)[0].good
        };
        assert!(good(&[1.0, 2.0, absent]) && good(&[1.0, absent, absent]));
        assert!(!good(&[1.0, absent, 3.0]) && !good(&[1.5, 2.0, absent]));
    }

    #[test]
    fn kept_pairs_change_places_only_within_the_tolerance() {
        let good = |pairs: [Pair; 2], scores: [f32; 2]| {
            let was = answer(KEPT, &[(0, 1), (1, 2)], &[5.0, 1.0]);
            let rows = compare_numbers(&was, &answer(KEPT, &pairs, &scores), Precision::Fp32);
            assert_eq!(rows.len(), 1, "{rows:?}");
            rows[0].good
        };
        assert!(good([(0, 1), (1, 2)], [5.0, 1.0]) && good([(0, 1), (2, 1)], [5.0, 1.0001]));
        assert!(!good([(0, 1), (2, 1)], [5.0, 1.5]) && !good([(0, 1), (1, 2)], [5.0, 1.5]));
    }

    #[test]
    fn facts_are_the_same_to_the_evidence() {
        let fact = |r: &str, evidence: &[usize], score| Prediction {
            r: r.to_owned(),
            evidence: evidence.to_vec(),
            score: Some(score),
            ..Prediction::default()
        };
        let was = [vec![fact("P17", &[1], 0.5)]];
        let good = |is: Vec<Prediction>| compare_facts(&was, &[is]).good;
        assert!(good(vec![fact("P17", &[1], 0.5)]) && good(vec![fact("P17", &[1], 0.500_000_1)]));
        assert!(!good(vec![]) && !good(vec![fact("P19", &[1], 0.5)]));
        assert!(!good(vec![fact("P17", &[2], 0.5)]) && !good(vec![fact("P17", &[1], 0.6)]));
        let certain = Prediction { confidence: Some(0.5), ..fact("P17", &[1], 0.5) };
        assert!(!good(vec![certain]));
        assert_eq!(other_facts(&was, &[vec![fact("P19", &[1], 0.5)]]), 2);
    }

    #[test]
    fn the_first_difference_of_json_is_named() {
        let was = json!({"a": {"b": [1, 2]}, "c": 1.0});
        assert_eq!(difference("", &json!({"a": {"b": [1, 2]}, "c": 1}), &was), None);
        for (is, named) in [
            (json!({"a": {"b": [1, 3]}, "c": 1}), "`a.b[1]` is 3, and was 2"),
            (json!({"a": {"b": [1]}, "c": 1}), "`a.b` is [1], and was [1,2]"),
            (json!({"a": {"b": [1, 2]}}), "`c` is null, and was 1.0"),
        ] {
            assert_eq!(difference("", &is, &was).unwrap(), named);
        }
    }
}
