//! Cases of the CDR and GDA scripts: the lists of EoG (`CROSS` flags) and GLRE (distances), and the
//! gold lists made from the corpus itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::case::Case;
use super::numbers::{compare, exact, name, of_block};
use crate::corpus::{Format, PairLabel};
use crate::eval::{FactKey, Gold, PairFact, PairScores, Reach, ScoreBlock, Scorer, score_pairs};
use crate::{DataError, Result};

/// (document, first argument, second argument, label)
type Key = (String, String, String, String);

/// The positive label, as in `1:CID:2`, is any but this one.
const NO_RELATION: &str = "1:NR:2";

/// A script by its files.
struct Script {
    /// In the names of files and sets.
    name: &'static str,
    /// What a field of its lines says about the distance.
    reach: fn(&str) -> Option<Reach>,
}

const SCRIPTS: [Script; 2] =
    [Script { name: "eog", reach: flag }, Script { name: "glre", reach: distance }];

fn flag(text: &str) -> Option<Reach> {
    match text {
        "CROSS" => Some(Reach::Inter),
        "NON-CROSS" => Some(Reach::Intra),
        _ => None,
    }
}

fn distance(text: &str) -> Option<Reach> {
    text.parse().ok().map(Reach::Distance)
}

/// Recomputes the sets of both scripts, and both gold lists from the corpus.
///
/// # Errors
/// Malformed files.
pub fn pair_scripts(case: &mut Case, sets: &[Value]) -> Result<()> {
    let tolerance = exact(case);
    for script in &SCRIPTS {
        let gold = read_lines(&case.path(&format!("gold-{}.txt", script.name)), 4, script)?;
        compare_gold(case, script, &gold)?;
        for set in sets {
            let name = name(case, set)?;
            let set_name = name.trim_start_matches("random-");
            let file = case.path(&format!("pred-{set_name}-{}.txt", script.name));
            let scores = score_pairs(&gold, &read_lines(&file, 5, script)?, Scorer::Official);
            let groups = set[script.name]
                .as_object()
                .ok_or_else(|| case.error(format!("{name} expects nothing of {}", script.name)))?;
            for (group, numbers) in groups {
                let block = group_of(&scores, group).ok_or_else(|| {
                    case.error(format!("{name} expects the group {group}, which is not computed"))
                })?;
                let place = format!("{name} {} {group}", script.name);
                compare(case, &place, numbers, tolerance, &|key| of_block(&block, key))?;
            }
        }
    }
    Ok(())
}

fn group_of(scores: &PairScores, group: &str) -> Option<ScoreBlock> {
    match group {
        "Overall" => Some(scores.overall),
        "INTRA" => Some(scores.intra),
        "INTER" => Some(scores.inter),
        "INTER_[1,3)" => scores.near,
        "INTER_[3,max)" => scores.far,
        _ => None,
    }
}

/// The facts of a list of lines `document|argument|argument|flag or distance|…`, whose label stands
/// in column `label`.
fn read_lines(path: &Path, label: usize, script: &Script) -> Result<Vec<PairFact<Key>>> {
    let text = fs_err::read_to_string(path)?;
    let mut facts = Vec::new();
    for (row, line) in text.lines().enumerate() {
        let columns: Vec<&str> = line.trim_end().split('|').collect();
        let bad = |problem: String| DataError::new(path, problem).row(row);
        let [document, first, second, reach, ..] = columns.as_slice() else {
            return Err(bad(format!("{} columns", columns.len())).into());
        };
        let relation =
            columns.get(label).ok_or_else(|| bad(format!("there is no column {}", label + 1)))?;
        let reach = (script.reach)(reach)
            .ok_or_else(|| bad(format!("`{reach}` is no {} field", script.name)))?;
        if *relation != NO_RELATION {
            facts.push(PairFact { key: key(document, first, second, relation), reach });
        }
    }
    Ok(facts)
}

fn key(document: &str, first: &str, second: &str, relation: &str) -> Key {
    [document, first, second, relation].map(str::to_owned).into()
}

/// Compares a gold list with the one that our reader makes of the corpus in the case, where there
/// is one: facts in one and not in the other.
fn compare_gold(case: &mut Case, script: &Script, gold: &[PairFact<Key>]) -> Result<()> {
    let is_corpus = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "data");
    for path in case.files()?.into_iter().filter(is_corpus) {
        let ours: BTreeSet<_> = of_corpus(&path, script)?.into_iter().collect();
        let theirs: BTreeSet<_> = gold.iter().cloned().collect();
        let different = ours.symmetric_difference(&theirs).count();
        let sizes = [ours.len() as i64, different as i64];
        case.compare_integers(
            &format!("gold of {}", script.name),
            &sizes,
            &[theirs.len() as i64, 0],
        );
    }
    Ok(())
}

fn of_corpus(path: &Path, script: &Script) -> Result<Vec<PairFact<Key>>> {
    let read = "cdr".parse::<Format>()?.read_gold(path)?;
    let (documents, lists) = (read.documents, read.pairs.unwrap_or_default());
    let gold = Gold::new(&documents)?;
    let mut facts = Vec::new();
    for (row, (document, pairs)) in documents.iter().zip(&lists).enumerate() {
        let id = |entity: usize| {
            document.entities[entity].knowledge_base_id.as_deref().unwrap_or_default()
        };
        for pair in pairs {
            let PairLabel::Relation(relation) = &pair.label else { continue };
            let fact = FactKey { document: row, head: pair.head, tail: pair.tail, relation };
            let reach = match (script.name, pair.crosses_sentences) {
                ("eog", true) => Reach::Inter,
                ("eog", false) => Reach::Intra,
                _ => gold.distance(&fact).map_or(Reach::Inter, Reach::Distance),
            };
            let label = format!("1:{relation}:2");
            let key = key(&document.title, id(pair.head), id(pair.tail), &label);
            facts.push(PairFact { key, reach });
        }
    }
    Ok(facts)
}
