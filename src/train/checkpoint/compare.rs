//! Where two checkpoints differ, tensor by tensor.
//!
//! Not for whether they are whole: opening them checks that.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::folder::{Checkpoint, TRAINER};
use crate::Result;
use crate::torch::hf::read_safetensors;

/// The difference of one tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorDifference {
    /// File and name.
    pub name: String,
    /// What is different.
    pub difference: Difference,
}

/// How two tensors differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Only the first checkpoint has it.
    OnlyFirst,
    /// Only the second has it.
    OnlySecond,
    /// Shapes or kinds differ.
    Shape {
        /// Of the first.
        first: Vec<i64>,
        /// Of the second.
        second: Vec<i64>,
    },
    /// Numbers differ.
    Numbers {
        /// How many differ.
        count: usize,
        /// Of how many.
        of: usize,
        /// The largest absolute difference; infinite where one side is not a number.
        largest: f64,
    },
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckpointDifference {
    /// Number of tensors whose bits are equal.
    pub equal_tensors: usize,
    /// The tensors that differ.
    pub tensors: Vec<TensorDifference>,
    /// Other files that differ or that only one of the two has.
    pub files: Vec<String>,
    /// Fields of `trainer.json` with both values.
    pub trainer: Vec<(String, Value, Value)>,
}

/// Compares two checkpoints.
///
/// # Errors
/// If a file cannot be read.
pub fn compare(first: &Checkpoint, second: &Checkpoint) -> Result<CheckpointDifference> {
    let mut found = CheckpointDifference::default();
    let (files, others) = (first.files()?, second.files()?);
    for name in files.keys().chain(others.keys()).collect::<BTreeSet<_>>() {
        if name.ends_with(".safetensors") {
            let read = |checkpoint: &Checkpoint, files: &BTreeMap<String, String>| match files
                .contains_key(name)
            {
                true => read_safetensors(&checkpoint.path().join(name)),
                false => Ok(BTreeMap::new()),
            };
            tensors(name, &read(first, &files)?, &read(second, &others)?, &mut found)?;
        } else if name != TRAINER && files.get(name) != others.get(name) {
            found.files.push(name.clone());
        }
    }
    found.trainer =
        fields(&serde_json::json!(first.trainer()?), &serde_json::json!(second.trainer()?));
    Ok(found)
}

type Tensors = BTreeMap<String, Tensor>;

fn tensors(
    file: &str,
    first: &Tensors,
    second: &Tensors,
    found: &mut CheckpointDifference,
) -> Result<()> {
    for name in first.keys().chain(second.keys()).collect::<BTreeSet<_>>() {
        let difference = match (first.get(name), second.get(name)) {
            (Some(one), Some(other)) => numbers(one, other)?,
            (Some(_), None) => Some(Difference::OnlyFirst),
            _ => Some(Difference::OnlySecond),
        };
        match difference {
            Some(difference) => {
                found
                    .tensors
                    .push(TensorDifference { name: format!("{file}: {name}"), difference });
            }
            None => found.equal_tensors += 1,
        }
    }
    Ok(())
}

fn numbers(one: &Tensor, other: &Tensor) -> Result<Option<Difference>> {
    if one.size() != other.size() || one.f_kind()? != other.f_kind()? {
        return Ok(Some(Difference::Shape { first: one.size(), second: other.size() }));
    }
    let (one, other) = (one.f_to_kind(Kind::Double)?, other.f_to_kind(Kind::Double)?);
    let count = i64::try_from(one.f_ne_tensor(&other)?.f_sum(Kind::Int64)?)? as usize;
    if count == 0 {
        return Ok(None);
    }
    let apart = f64::try_from(
        one.f_sub(&other)?
            .f_abs()?
            .f_nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY)?
            .f_max()?,
    )?;
    Ok(Some(Difference::Numbers { count, of: one.numel(), largest: apart }))
}

/// Fields of two objects that differ. The seconds of training do not count.
fn fields(first: &Value, second: &Value) -> Vec<(String, Value, Value)> {
    let names = first
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .filter(|name| *name != "seconds");
    names
        .filter(|name| first[*name] != second[*name])
        .map(|name| (name.clone(), first[name].clone(), second[name].clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_and_measured() {
        let one = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        assert_eq!(numbers(&one, &one.copy()).unwrap(), None);
        let other = Tensor::from_slice(&[1f32, 2.5, 1.0]);
        assert_eq!(
            numbers(&one, &other).unwrap(),
            Some(Difference::Numbers { count: 2, of: 3, largest: 2.0 })
        );
        let broken = Tensor::from_slice(&[1f32, f32::NAN, 3.0]);
        assert_eq!(
            numbers(&one, &broken).unwrap(),
            Some(Difference::Numbers { count: 1, of: 3, largest: f64::INFINITY })
        );
        let shape = Some(Difference::Shape { first: vec![3], second: vec![3, 1] });
        assert_eq!(numbers(&one, &other.view([3, 1])).unwrap(), shape);
        assert_eq!(
            numbers(&Tensor::from_slice(&[0i64; 0]), &Tensor::from_slice(&[0i64; 0])).unwrap(),
            None
        );
    }

    #[test]
    fn fields_and_missing_tensors_are_told() {
        let (first, second) = (
            serde_json::json!({"step": 3, "stage": "a", "seconds": 1.0}),
            serde_json::json!({"step": 4, "stage": "a", "seconds": 2.0}),
        );
        assert_eq!(fields(&first, &second), [("step".to_owned(), Value::from(3), Value::from(4))]);
        let (mut one, mut other) = (Tensors::new(), Tensors::new());
        one.insert("a".into(), Tensor::from_slice(&[1f32]));
        other.insert("b".into(), Tensor::from_slice(&[1f32]));
        let mut found = CheckpointDifference::default();
        tensors("heads", &one, &other, &mut found).unwrap();
        let told: Vec<_> = found
            .tensors
            .iter()
            .map(|entry| (entry.name.as_str(), entry.difference.clone()))
            .collect();
        assert_eq!(
            told,
            [("heads: a", Difference::OnlyFirst), ("heads: b", Difference::OnlySecond)]
        );
    }
}
