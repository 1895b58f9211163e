//! Where two runs part: keys of their recipes, machines, order of the documents, losses,
//! checkpoints.
//!
//! Not for two checkpoints alone, which `train::compare` takes tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::blame::metrics_of;
use crate::base::{read_json, run_files};
use crate::train::checkpoint::compare;
use crate::train::metrics::MetricLine;
use crate::train::{Checkpoint, folder_of_step, steps_in};
use crate::{Error, Result};

/// How two runs differ. Where both values of something are given, the first is that of the first
/// run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Parting {
    /// Keys of the recipe with both values; null where one has no such key.
    pub recipe: Vec<(String, Value, Value)>,
    /// What `run.json` says of program and world.
    pub run: Vec<(String, Value, Value)>,
    /// Stages that one of them has steps of.
    pub stages: Vec<StageParting>,
}

/// How one stage of two runs differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StageParting {
    /// The stage.
    pub stage: String,
    /// Steps in the metrics.
    pub steps: [usize; 2],
    /// Steps that both have.
    pub common: usize,
    /// The first step that read other documents, or the same in another order.
    pub other_order: Option<u64>,
    /// The first step with another loss, and both losses.
    pub other_loss: Option<(u64, f64, f64)>,
    /// The largest relative difference of losses, and its step.
    pub largest: Option<(u64, f64)>,
    /// Steps of which both have a checkpoint, with the number of tensors that are not equal to the
    /// bit.
    pub checkpoints: Vec<(u64, usize)>,
}

/// Keys that only one of two recipes has, up to which all of them are printed.
const MOST_SINGLE: usize = 10;

/// Compares two run folders by their files; those that only one has count for nothing.
///
/// # Errors
/// Files that cannot be read; a folder without metrics.
pub fn parting(first: &Path, second: &Path) -> Result<Parting> {
    let (metrics, others) = (metrics(first)?, metrics(second)?);
    let mut found = Parting {
        recipe: recipes(first, second)?,
        run: identities(first, second)?,
        stages: Vec::new(),
    };
    let names = metrics.keys().chain(others.keys()).collect::<BTreeSet<_>>();
    let none = Vec::new();
    for name in names {
        let mut stage =
            steps(name, metrics.get(name).unwrap_or(&none), others.get(name).unwrap_or(&none));
        stage.checkpoints = checkpoints(
            &first.join(run_files::CHECKPOINTS).join(name),
            &second.join(run_files::CHECKPOINTS).join(name),
        )?;
        found.stages.push(stage);
    }
    Ok(found)
}

fn metrics(run: &Path) -> Result<BTreeMap<String, Vec<MetricLine>>> {
    let mut stages: BTreeMap<String, Vec<MetricLine>> = BTreeMap::new();
    for line in metrics_of(run)? {
        stages.entry(line.stage.clone()).or_default().push(line);
    }
    Ok(stages)
}

/// Losses and order of the steps that both have.
fn steps(stage: &str, first: &[MetricLine], second: &[MetricLine]) -> StageParting {
    let mut found = StageParting {
        stage: stage.to_owned(),
        steps: [first.len(), second.len()],
        ..StageParting::default()
    };
    let others: BTreeMap<u64, &MetricLine> = second.iter().map(|line| (line.step, line)).collect();
    for (line, other) in first.iter().filter_map(|line| Some((line, *others.get(&line.step)?))) {
        found.common += 1;
        if found.other_order.is_none() && line.order_hash != other.order_hash {
            found.other_order = Some(line.step);
        }
        let (Some(one), Some(two)) = (line.loss, other.loss) else { continue };
        if one.to_bits() != two.to_bits() {
            found.other_loss.get_or_insert((line.step, one, two));
            let apart = (one - two).abs() / one.abs().max(two.abs());
            if found.largest.is_none_or(|(_, largest)| apart > largest) {
                found.largest = Some((line.step, apart));
            }
        }
    }
    found
}

/// Steps of which both folders hold a checkpoint; both are checked.
fn checkpoints(first: &Path, second: &Path) -> Result<Vec<(u64, usize)>> {
    let mut found = Vec::new();
    let others = steps_in(second)?;
    for step in steps_in(first)?.into_iter().filter(|step| others.contains(step)) {
        let open = |stage_folder| Checkpoint::open(&folder_of_step(stage_folder, step));
        found.push((step, compare(&open(first)?, &open(second)?)?.tensors.len()));
    }
    Ok(found)
}

/// Keys whose values differ.
fn recipes(first: &Path, second: &Path) -> Result<Vec<(String, Value, Value)>> {
    let keys = |run: &Path| -> Result<BTreeMap<String, Value>> {
        let path = run.join(run_files::RECIPE);
        let text = fs_err::read_to_string(&path)?;
        let table: Value = toml::from_str(&text)
            .map_err(|error| Error::recipe(format!("{}: {error}", path.display())))?;
        let mut keys = BTreeMap::new();
        flatten("", &table, &mut keys);
        Ok(keys)
    };
    Ok(differences(&keys(first)?, &keys(second)?))
}

fn flatten(prefix: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value.as_object() {
        Some(table) => table.iter().for_each(|(key, value)| {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            flatten(&key, value, keys);
        }),
        None => {
            keys.insert(prefix.to_owned(), value.clone());
        }
    }
}

/// What both runs say of program and world; `id` and `starts` are their own.
fn identities(first: &Path, second: &Path) -> Result<Vec<(String, Value, Value)>> {
    let keys = |run: &Path| -> Result<BTreeMap<String, Value>> {
        let path = run.join(run_files::IDENTITY);
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let found: BTreeMap<String, Value> = read_json(&path)?;
        Ok(found.into_iter().filter(|(key, _)| key != "id" && key != "starts").collect())
    };
    let (first, second) = (keys(first)?, keys(second)?);
    Ok(if first.is_empty() || second.is_empty() {
        Vec::new()
    } else {
        differences(&first, &second)
    })
}

fn differences(
    first: &BTreeMap<String, Value>,
    second: &BTreeMap<String, Value>,
) -> Vec<(String, Value, Value)> {
    let keys = first.keys().chain(second.keys()).collect::<BTreeSet<_>>();
    let value = |of: &BTreeMap<String, Value>, key: &str| of.get(key).cloned().unwrap_or_default();
    let differing = keys.into_iter().filter(|key| first.get(*key) != second.get(*key));
    differing.map(|key| (key.clone(), value(first, key), value(second, key))).collect()
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recipes: {}\nprograms and worlds: {}", listed(&self.recipe), listed(&self.run))?;
        self.stages.iter().try_for_each(|stage| write!(f, "\n{stage}"))
    }
}

/// Keys with both values. Those that only one side has are counted where they are many, as between
/// two versions of the program.
fn listed(list: &[(String, Value, Value)]) -> String {
    if list.is_empty() {
        return "alike".to_owned();
    }
    let (single, both): (Vec<_>, Vec<_>) =
        list.iter().partition(|(_, one, two)| one.is_null() || two.is_null());
    let told = |(key, one, two): &(String, Value, Value)| format!("\n  {key} = {one} | {two}");
    let mut text: String = both.into_iter().map(told).collect();
    match single.as_slice() {
        [first, .., last] if single.len() > MOST_SINGLE => {
            let count = single.len();
            let (first, last) = (&first.0, &last.0);
            text += &format!("\n  {count} keys, {first} to {last}, are in one of them alone");
        }
        few => text.extend(few.iter().copied().map(told)),
    }
    text
}

impl fmt::Display for StageParting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stage,
            steps: [one, two],
            common,
            other_order,
            other_loss,
            largest,
            checkpoints,
        } = self;
        write!(f, "{stage}: {one} and {two} steps")?;
        if *common == 0 {
            return Ok(());
        }
        match other_order {
            Some(step) => write!(f, "; other documents from step {step} on")?,
            None => write!(f, "; the same documents in the same order")?,
        }
        match (other_loss, largest) {
            (Some((step, one, two)), Some((at, apart))) => {
                write!(
                    f,
                    "; losses part at step {step} ({one} and {two}) and are at most {apart:.1e} \
                     apart, relatively, at step {at}"
                )?;
            }
            _ => write!(f, "; losses equal to the bit")?,
        }
        checkpoints.iter().try_for_each(|(step, tensors)| match tensors {
            0 => write!(f, "\n  checkpoint of step {step}: all tensors equal to the bit"),
            _ => write!(f, "\n  checkpoint of step {step}: {tensors} tensors differ"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, loss: f64, order: &str) -> MetricLine {
        MetricLine {
            stage: "rank".into(),
            step,
            loss: Some(loss),
            order_hash: Some(order.into()),
            ..MetricLine::default()
        }
    }

    #[test]
    fn steps_part_where_they_first_differ() {
        let first = [line(1, 2.0, "a"), line(2, 1.5, "b"), line(3, 1.0, "c")];
        let equal = steps("rank", &first, &first);
        assert_eq!(
            (equal.common, equal.other_order, equal.other_loss, equal.largest),
            (3, None, None, None)
        );
        let found =
            steps("rank", &first, &[line(2, 1.5, "b"), line(3, 1.25, "x"), line(4, 9.0, "y")]);
        assert_eq!((found.steps, found.common, found.other_order), ([3, 3], 2, Some(3)));
        assert_eq!((found.other_loss, found.largest), (Some((3, 1.0, 1.25)), Some((3, 0.2))));
        assert!(found.to_string().contains("other documents from step 3 on"), "{found}");
    }

    #[test]
    fn keys_are_told_with_both_values() {
        let keys = |text: &str| {
            let mut keys = BTreeMap::new();
            flatten("", &toml::from_str(text).unwrap(), &mut keys);
            keys
        };
        let found = differences(
            &keys("seed = 1\n[rank]\nbatch = 4\nsteps = 2"),
            &keys("seed = 1\n[rank]\nbatch = 8\n[pretrain]\nsteps = 3"),
        );
        let told: Vec<String> =
            found.iter().map(|(key, one, two)| format!("{key} {one} {two}")).collect();
        assert_eq!(told, ["pretrain.steps null 3", "rank.batch 4 8", "rank.steps 2 null"]);
        let new = (10..30).map(|key| (format!("atlop.k{key}"), Value::from(1), Value::Null));
        let all: Vec<_> = found.into_iter().chain(new).collect();
        let text = listed(&all);
        assert!(text.contains("rank.batch = 4 | 8") && text.contains("22 keys, "), "{text}");
        assert!(!text.contains("atlop.k11"), "{text}");
    }
}
