//! How much a trained layer makes of each of the parts that it reads (`inspect --weights`): the
//! mean absolute weight of each part's columns, as in figure 5 of DocRE-II's paper.

use std::fmt;

use serde::Serialize;
use tch::{Kind, Tensor};

use crate::pipeline::Description;
use crate::systems::WeightPart;
use crate::train::Checkpoint;
use crate::{DataError, Result};

/// The weights of the parts of a checkpoint's joint layer.
#[derive(Clone, Debug, Serialize)]
pub struct PartWeights {
    parts: Vec<PartWeight>,
}

/// A part, and what the layer makes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct PartWeight {
    part: &'static str,
    tensor: &'static str,
    mean_absolute_weight: f64,
}

impl PartWeights {
    /// Reads the layer that a system names.
    ///
    /// # Errors
    /// A system without such a layer; a checkpoint that cannot be read.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let settings = checkpoint.description::<Description>()?.settings;
        let parts = settings.weight_parts();
        if parts.is_empty() {
            let system = settings.system();
            let problem = format!("holds system `{system}`, which has no layer that joins parts");
            return Err(DataError::new(checkpoint.path(), problem)
                .hint("name a checkpoint of docre-ii's second stage")
                .into());
        }
        let heads = checkpoint.heads()?;
        let weigh = |part: &WeightPart| {
            let lacking = || DataError::new(checkpoint.path(), format!("lacks `{}`", part.tensor));
            let found = heads.iter().find(|(name, _)| name == part.tensor);
            Ok(PartWeight {
                part: part.name,
                tensor: part.tensor,
                mean_absolute_weight: mean_absolute(&found.ok_or_else(lacking)?.1, part)?,
            })
        };
        Ok(Self { parts: parts.iter().map(weigh).collect::<Result<_>>()? })
    }
}

fn mean_absolute(weight: &Tensor, part: &WeightPart) -> Result<f64> {
    let count = part.columns.end - part.columns.start;
    let columns = weight.f_narrow(1, part.columns.start, count)?;
    Ok(columns.f_abs()?.f_mean(Kind::Double)?.f_double_value(&[])?)
}

impl fmt::Display for PartWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.parts.iter().map(|part| {
            let PartWeight { part, tensor, mean_absolute_weight } = part;
            format!("{part}: mean absolute weight {mean_absolute_weight:.4} in `{tensor}`")
        });
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_goes_over_the_columns_of_a_part() {
        let weight = Tensor::from_slice(&[1f32, -3.0, 10.0, 2.0, 4.0, -20.0]).view([2, 3]);
        let part = |columns| WeightPart { name: "F", tensor: "w", columns };
        assert_eq!(mean_absolute(&weight, &part(0..2)).unwrap(), 2.5);
        assert_eq!(mean_absolute(&weight, &part(2..3)).unwrap(), 15.0);
    }
}
