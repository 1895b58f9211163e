//! Cases of threshold selection: lists of scores with the best prefixes that DocRED's trainer and
//! GLRE find in them.

use std::collections::HashMap;

use serde_json::Value;
use tch::{Kind, Tensor};

use super::case::Case;
use super::numbers::{compare, exact, name, of_block};
use crate::Result;
use crate::eval::{AtTheta, BestPrefix, ScoreBlock, ScoredFact, at_theta, best_prefix};

/// Recomputes every list: its best prefix, the scores at a threshold from elsewhere, and those of
/// buckets of distances.
///
/// # Errors
/// Malformed files; numbers that are not computed.
pub fn thresholds(case: &mut Case, sets: &[Value]) -> Result<()> {
    let lists = case.tensors("lists.safetensors")?;
    for set in sets {
        let name = name(case, set)?;
        let list = ScoreList::new(case, &name, scored_facts(case, &lists, &name)?, set)?;
        list.compare(case, set)?;
        if let Some(buckets) = set["buckets_score_gt_theta"].as_object() {
            let distances = numbers(case, &lists, &format!("{name}.distance"))?;
            for (bucket, expected) in buckets {
                let block = list.bucket(case, bucket, &set["bucket_totals"], &distances)?;
                let place = format!("{name} distance {bucket}");
                compare(case, &place, expected, exact(case), &|key| of_block(&block, key))?;
            }
        }
    }
    Ok(())
}

/// The numbers of one of the lists; a double holds each exactly.
fn numbers(case: &Case, lists: &HashMap<String, Tensor>, name: &str) -> Result<Vec<f64>> {
    let list = lists.get(name).ok_or_else(|| case.error(format!("there is no list `{name}`")))?;
    Ok(Vec::try_from(list.f_to_kind(Kind::Double)?)?)
}

/// The list of a set: scores, whether they are of gold facts, and whether training has these.
fn scored_facts(
    case: &Case,
    lists: &HashMap<String, Tensor>,
    name: &str,
) -> Result<Vec<ScoredFact>> {
    let list = |part: &str| numbers(case, lists, &format!("{name}.{part}"));
    let (scores, flags) = (list("scores")?, list("correct")?.into_iter().zip(list("in_train")?));
    let fact = |(score, (correct, known))| ScoredFact {
        score: score as f32,
        correct: correct == 1.0,
        in_train: known == 1.0,
    };
    Ok(scores.into_iter().zip(flags).map(fact).collect())
}

/// One list with what we compute of it.
struct ScoreList {
    name: String,
    entries: Vec<ScoredFact>,
    best: BestPrefix,
    /// The scores above the best prefix's θ.
    above: AtTheta,
    /// The best entry by itself: where nothing is above θ, the scripts stay there.
    top: AtTheta,
    fixed_theta: Option<f64>,
    fixed: AtTheta,
}

impl ScoreList {
    fn new(case: &Case, name: &str, entries: Vec<ScoredFact>, set: &Value) -> Result<Self> {
        let total = set["total_recall"]
            .as_u64()
            .ok_or_else(|| case.error(format!("{name} has no total_recall")))?
            as usize;
        let best =
            best_prefix(&entries, total).ok_or_else(|| case.error(format!("{name} is empty")))?;
        let fixed_theta = set["float64"]["fixed_theta"]["theta"].as_f64();
        let top = entries.iter().rev().max_by(|a, b| a.score.total_cmp(&b.score));
        Ok(Self {
            name: name.to_owned(),
            above: at_theta(&entries, total, best.theta),
            top: at_theta(top, total, f32::NEG_INFINITY),
            fixed: at_theta(&entries, total, fixed_theta.unwrap_or_default() as f32),
            fixed_theta,
            best,
            entries,
        })
    }

    fn compare(&self, case: &mut Case, set: &Value) -> Result<()> {
        let (tolerance, name) = (exact(case), &self.name);
        let single = case.at("/accept/atol_float32_reference").as_f64().unwrap_or(tolerance);
        let best = |key: &str| self.of_best(key);
        let fixed = |key: &str| self.of_fixed(key);
        compare(case, &format!("{name} best"), &set["float64"], tolerance, &best)?;
        compare(case, &format!("{name} script"), &set["reference"], single, &best)?;
        compare(case, &format!("{name} fixed"), &set["float64"]["fixed_theta"], tolerance, &fixed)?;
        match &set["reference"]["fixed_theta"] {
            Value::Null => Ok(()),
            expected => compare(case, &format!("{name} fixed, script"), expected, single, &fixed),
        }
    }

    fn of_best(&self, key: &str) -> Option<f64> {
        let (best, above) = (&self.best, &self.above);
        let ties = || self.entries.iter().filter(|entry| entry.score == best.theta).count();
        Some(match key {
            "theta" => f64::from(best.theta),
            "prefix_index" | "w" => best.prefix as f64,
            "f1" | "f1_max" => best.f1,
            "precision" => best.precision,
            "recall" => best.recall,
            "auc" => best.auc,
            "ign_f1_same_prefix" | "ign_f1_at_w" => best.ign_f1,
            "ign_precision_same_prefix" => best.ign_precision,
            "ign_f1_max" | "returned_f1" => best.ign_f1_max,
            "ign_prefix_index_max" => best.ign_prefix as f64,
            "ign_auc" => best.ign_auc,
            "kept_score_gt_theta" => above.kept as f64,
            "kept_score_ge_theta" => (above.kept + ties()) as f64,
            "w_in_ignore_pass" => above.kept.saturating_sub(1) as f64,
            "ign_f1_at_printed_w" if above.kept > 0 => best.ign_f1_above_theta,
            "ign_f1_at_printed_w" => self.top.ign_f1,
            _ => return None,
        })
    }

    fn of_fixed(&self, key: &str) -> Option<f64> {
        let fixed = &self.fixed;
        let script = if fixed.kept > 0 { fixed } else { &self.top };
        Some(match key {
            "theta" => return self.fixed_theta,
            "kept" => fixed.kept as f64,
            "f1" => fixed.f1,
            "precision" => fixed.precision,
            "recall" => fixed.recall,
            "ign_f1" => fixed.ign_f1,
            "w" => script.kept.saturating_sub(1) as f64,
            "f1_at_w" => script.f1,
            "ign_f1_at_w" => script.ign_f1,
            _ => return None,
        })
    }

    /// The entries above θ of one bucket of distances such as `[1,3)`, against the gold facts of
    /// the bucket.
    fn bucket(
        &self,
        case: &Case,
        bucket: &str,
        totals: &Value,
        distances: &[f64],
    ) -> Result<ScoreBlock> {
        let bad = || case.error(format!("{bucket} is no bucket of distances with a total"));
        let (low, high) = bucket.trim_matches(['[', ')']).split_once(',').ok_or_else(bad)?;
        let first: i32 = low.parse().map_err(|_| bad())?;
        let last: i32 = if high == "inf" { i32::MAX } else { high.parse().map_err(|_| bad())? };
        let gold = totals[format!("{low}-{}", high.replace("inf", "max"))]
            .as_u64()
            .ok_or_else(bad)? as usize;
        let entries = self.entries.iter().zip(distances);
        let inside = entries.filter(|(entry, distance)| {
            entry.score > self.best.theta && (first..last).contains(&(**distance as i32))
        });
        let (kept, correct) = inside.fold((0, 0), |(kept, correct), (entry, _)| {
            (kept + 1, correct + usize::from(entry.correct))
        });
        Ok(ScoreBlock::new(kept, gold, correct))
    }
}
