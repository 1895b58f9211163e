//! Cases of the scorers: prediction lists or score lists with the numbers that the published
//! scripts gave for them. No tensors, no models.
//!
//! The expected file decides what is compared: every number in it is looked up in our scores, and
//! one that we do not compute is an error. Not for: lists of pairs (`scorer_pairs`), lists of
//! scores (`scorer_thresholds`).

use serde_json::Value;

use super::case::Case;
use super::numbers::{compare, exact, name, of_block};
use super::scorer_pairs::pair_scripts;
use super::scorer_thresholds::thresholds;
use crate::Result;
use crate::corpus::{Document, Format};
use crate::eval::{
    BreakdownOptions, EvidenceRecall, FactSet, FactSets, Gold, NamedBlock, OfficialScores,
    Prediction, Scorer, breakdown, read_predictions, score,
};

/// Recomputes a case of any scorer; what it is about is seen from the expected numbers of its first
/// set.
///
/// # Errors
/// A malformed case, or one that expects numbers that are not computed.
pub fn scorer(case: &mut Case) -> Result<()> {
    let sets: Vec<Value> = case.json("expected.json")?;
    let first = sets.first().ok_or_else(|| case.error("expected.json holds no set"))?;
    let has = |key: &str| first.get(key).is_some();
    match () {
        () if has("official_evaluate") => redocred(case, &sets),
        () if has("official") => docred(case, &sets),
        () if has("float64") => thresholds(case, &sets),
        () if has("expected") => breakdowns(case, &sets),
        () if has("eog") => pair_scripts(case, &sets),
        () => Err(case
            .error("expected.json is of no known scorer")
            .with_hint("sets hold official, official_evaluate, float64, expected or eog")),
    }
}

fn predictions(case: &Case, name: &str) -> Result<Vec<Prediction>> {
    read_predictions(&case.path(&format!("pred-{name}.json")))
}

fn gold_documents(case: &Case) -> Result<Vec<Document>> {
    Ok(Format::DOCRED.read_gold(&case.path("gold.json"))?.documents)
}

/// The two fact sets of a case.
struct Facts {
    annotated: FactSet,
    distant: FactSet,
}

impl Facts {
    fn load(case: &Case, annotated: &str) -> Result<Self> {
        Ok(Self {
            annotated: FactSet::load(&case.path(annotated))?,
            distant: FactSet::load(&case.path("train_distant.json"))?,
        })
    }

    fn sets(&self) -> FactSets<'_> {
        FactSets { annotated: Some(&self.annotated), distant: Some(&self.distant) }
    }
}

/// Reads and scores the predictions of a set, and compares what the official script counts in them.
fn official(
    case: &mut Case,
    set: &Value,
    gold: &Gold,
    facts: &Facts,
) -> Result<(String, Vec<Prediction>, OfficialScores)> {
    let name = name(case, set)?;
    let predictions = predictions(case, &name)?;
    let scores = score(gold, &predictions, facts.sets(), Scorer::Official);
    let place = format!("{name} counts");
    compare(case, &place, &set["counts"], 0.0, &|key| count(&scores, key))?;
    Ok((name, predictions, scores))
}

fn docred(case: &mut Case, sets: &[Value]) -> Result<()> {
    let (documents, facts) = (gold_documents(case)?, Facts::load(case, "train_annotated.json")?);
    let (gold, tolerance) = (Gold::new(&documents)?, exact(case));
    let sizes = case.at("/fact_set_sizes").clone();
    if sizes.is_object() {
        let size = |key: &str| match key {
            "annotated" => Some(facts.annotated.len() as f64),
            "distant" => Some(facts.distant.len() as f64),
            _ => None,
        };
        compare(case, "fact sets", &sizes, 0.0, &size)?;
    }
    for set in sets {
        let (name, predictions, official) = official(case, set, &gold, &facts)?;
        let port = score(&gold, &predictions, facts.sets(), Scorer::Atlop);
        for (part, scores) in [("derived", &official), ("official", &official), ("atlop", &port)] {
            // Where the script divides by zero there is nothing to compare with.
            if part == "atlop" || !set[part].is_null() {
                let place = format!("{name} {part}");
                compare(case, &place, &set[part], tolerance, &|key| of_script(scores, key))?;
            }
        }
    }
    Ok(())
}

fn count(scores: &OfficialScores, key: &str) -> Option<f64> {
    let counts = &scores.counts;
    let count = match key {
        "submitted" => counts.submitted,
        "gold" => counts.gold,
        "correct" => counts.correct,
        "unknown_title" => counts.unknown_title,
        "correct_in_train_annotated" => counts.correct_in_annotated,
        "correct_in_train_distant" => counts.correct_in_distant,
        // Re-DocRED's script starts at 1, which its own count leaves out.
        "evidence_gold" => counts.evidence_gold,
        "evidence_pred" => counts.evidence_predicted,
        "evidence_correct" => counts.evidence_correct,
        _ => return None,
    };
    Some(count as f64)
}

/// A score by the name that one of the scripts gives it.
fn of_script(scores: &OfficialScores, key: &str) -> Option<f64> {
    match key {
        "precision" | "re_p" => Some(scores.precision),
        "recall" | "re_r" => Some(scores.recall),
        "f1" | "RE_F1" | "re_f1" => Some(scores.f1),
        "Evi_F1" | "evi_f1" => Some(scores.evidence_f1),
        "RE_ignore_annotated_F1" | "re_f1_ignore_train_annotated" => {
            scores.ign_annotated.map(|ign| ign.f1)
        }
        "RE_ignore_distant_F1" | "re_f1_ignore_train" => scores.ign_distant.map(|ign| ign.f1),
        _ => None,
    }
}

fn redocred(case: &mut Case, sets: &[Value]) -> Result<()> {
    let (documents, facts) = (gold_documents(case)?, Facts::load(case, "train_revised.json")?);
    let (gold, tolerance) = (Gold::new(&documents)?, exact(case));
    for set in sets {
        let (name, predictions, _) = official(case, set, &gold, &facts)?;
        let port = score(&gold, &predictions, facts.sets(), Scorer::Redocred);
        let (place, script) = (format!("{name} script"), &set["official_evaluate"]);
        compare(case, &place, script, tolerance, &|key| of_script(&port, key))?;
        // The script's benchmark function takes a list of one prediction for an empty one.
        let seen = if predictions.len() == 1 { &[] } else { predictions.as_slice() };
        let port = score(&gold, seen, facts.sets(), Scorer::Redocred);
        let groups = breakdown(&gold, seen, &BreakdownOptions::default());
        let ours = |key: &str| match key {
            "re_f1_intra" => Some(groups.intra.f1),
            "re_f1_inter" => Some(groups.inter.f1),
            "re_f1_freq" => Some(groups.frequent.f1),
            "re_p_freq" => Some(groups.frequent.precision),
            "re_r_freq" => Some(groups.frequent.recall),
            "re_f1_long_tail" => Some(groups.long_tail.f1),
            "re_p_long_tail" => Some(groups.long_tail.precision),
            "re_r_long_tail" => Some(groups.long_tail.recall),
            other => of_script(&port, other),
        };
        let benchmark = &set["official_evaluate_benchmark"];
        compare(case, &format!("{name} benchmark"), benchmark, tolerance, &ours)?;
    }
    Ok(())
}

fn breakdowns(case: &mut Case, sets: &[Value]) -> Result<()> {
    let documents = gold_documents(case)?;
    let (gold, tolerance) = (Gold::new(&documents)?, exact(case));
    for set in sets {
        let (name, theirs) = (name(case, set)?, &set["expected"]);
        let predictions = predictions(case, &name)?;
        let ours = breakdown(&gold, &predictions, &BreakdownOptions::default());
        let infer = &ours.infer;
        let blocks = [
            ("/overall", &ours.overall),
            ("/intra", &ours.intra),
            ("/inter", &ours.inter),
            ("/infer/members-strict", &infer.members_strict),
            ("/infer/members-loose", &infer.members_loose),
            ("/infer/conclusion", &infer.conclusion),
            ("/infer/goldpairs", &infer.gold_pairs),
        ];
        for (pointer, block) in blocks {
            let expected = theirs.pointer(pointer).unwrap_or(&Value::Null);
            compare(case, &format!("{name}{pointer}"), expected, tolerance, &|key| {
                of_block(block, key)
            })?;
        }
        named(case, &format!("{name} distance"), &theirs["entity_distance"], &ours.distance)?;
        named(case, &format!("{name} mentions"), &theirs["mention_number"], &ours.mentions)?;
        evidence(case, &name, &theirs["recall_by_evidence_count"], &ours.evidence)?;
    }
    Ok(())
}

fn named(case: &mut Case, place: &str, expected: &Value, ours: &[NamedBlock]) -> Result<()> {
    let groups =
        expected.as_object().ok_or_else(|| case.error(format!("{place} is not an object")))?;
    for (group, numbers) in groups {
        let name = if group == ">5" { "[6,∞)".to_owned() } else { group.replace("inf", "∞") };
        let block = ours.iter().find(|named| named.name == name);
        let block = block
            .ok_or_else(|| case.error(format!("{place}: the group {group} is not computed")))?;
        let number = |key: &str| of_block(&block.block, key);
        compare(case, &format!("{place} {group}"), numbers, exact(case), &number)?;
    }
    Ok(())
}

fn evidence(case: &mut Case, place: &str, expected: &Value, ours: &[EvidenceRecall]) -> Result<()> {
    let groups = expected
        .as_object()
        .ok_or_else(|| case.error(format!("{place}: no recall by evidence")))?;
    for (group, numbers) in groups {
        let row = ours.iter().find(|row| row.evidence == group.replace(">=", "≥"));
        let row =
            row.ok_or_else(|| case.error(format!("{place}: no recall for {group} sentences")))?;
        let number = |key: &str| match key {
            "gold" => Some(row.gold as f64),
            "hit" => Some(row.found as f64),
            "recall" => row.recall,
            _ => None,
        };
        compare(case, &format!("{place} evidence {group}"), numbers, exact(case), &number)?;
    }
    Ok(())
}
