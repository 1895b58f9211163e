//! How the classifier's vector of each relation starts: at random, or from the encoded name of the
//! relation.
//!
//! Not for: encoding names (`pipeline`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::Classes;
use crate::torch::rng::Generator;
use crate::{Error, Result};

/// How the vectors of relations start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelationStart {
    /// As the other weights of the classifier.
    #[default]
    Random,
    /// From the encoder's states of the relation's name (docs/systems.md, "Initial values").
    Names,
}

/// Keeps the projection's numbers apart from those of the weights.
const SEED: u64 = 0x006e_616d_6573;

/// Names whose vectors differ less than this share of their length say nothing.
const LEAST_DIFFERENCE: f64 = 1e-6;

/// Writes the rows of relations in a classifier's weight [C, w] from the vectors of their names
/// [relations, d]: without their mean, projected at random, and as long as the row was.
///
/// # Errors
/// [`Error::Recipe`] for a name whose vector is the mean of all; libtorch.
pub fn start_from_names(
    weight: &Tensor,
    classes: Classes,
    names: &Tensor,
    seed: u64,
) -> Result<()> {
    tch::no_grad(|| {
        // In 64 bits on the CPU, so that every rank finds the same 32 bits.
        let names = names.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let (relations, width) = names.size2()?;
        let apart = if relations > 1 {
            names.f_sub(&names.f_mean_dim(&[0i64][..], true, Kind::Double)?)?
        } else {
            names.shallow_clone()
        };
        let [length, least] = [lengths(&apart)?, lengths(&names)?.f_mul_scalar(LEAST_DIFFERENCE)?];
        let lost: Vec<bool> = Vec::try_from(length.f_le_tensor(&least)?.f_view([-1])?)?;
        if let Some(relation) = lost.iter().position(|&lost| lost) {
            return Err(Error::recipe(format!(
                "the name of relation {relation} (in the order of classes) says nothing that the \
                 other names do not say"
            ))
            .with_hint(
                "give the relations names of their own, or set relation_start = \"random\"",
            ));
        }
        let first = classes.of_relation(0) as i64;
        let rows = weight.f_narrow(0, first, relations)?;
        let before = rows.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let shape = [weight.size()[1], width];
        let projection = Generator::new(seed ^ SEED)?.normal(&shape)?.f_to_kind(Kind::Double)?;
        let projected = apart.f_div(&length)?.f_matmul(&projection.f_transpose(0, 1)?)?;
        let scale = lengths(&before)?.f_div(&lengths(&projected)?)?;
        let start = projected.f_mul(&scale)?.f_to_kind(weight.kind())?;
        rows.shallow_clone().f_copy_(&start.f_to_device(weight.device())?)?;
        Ok(())
    })
}

/// Euclidean length of each row; [rows, 1].
fn lengths(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.f_square()?.f_sum_dim_intlist(&[1i64][..], true, Kind::Double)?.f_sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::NaClass;

    const CLASSES: Classes = Classes { relations: 3, na: NaClass::First };

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.detach().to_kind(Kind::Float).contiguous().view([-1])).unwrap()
    }

    #[test]
    fn rows_keep_their_lengths_and_the_angles_of_the_names() {
        let mut generator = Generator::of_test(3);
        let weight = generator.randn([4, 4096]).set_requires_grad(true);
        let before = weight.detach().copy();
        let names = generator.randn([3, 24]);
        start_from_names(&weight, CLASSES, &names, 5).unwrap();
        let after = weight.detach();
        assert_eq!(numbers(&after.get(0)), numbers(&before.get(0)), "the class of NA");
        assert!(weight.requires_grad());
        let cosines = |rows: &Tensor| {
            let unit = rows / rows.square().sum_dim_intlist(&[1i64][..], true, Kind::Float).sqrt();
            numbers(&unit.matmul(&unit.transpose(0, 1)))
        };
        let apart = &names - names.mean_dim(&[0i64][..], true, Kind::Float);
        // A projection to 4,096 numbers keeps a cosine within five standard deviations of 1/64.
        for (ours, named) in cosines(&after.narrow(0, 1, 3)).iter().zip(cosines(&apart)) {
            assert!((ours - named).abs() < 5.0 / 64.0, "{ours} {named}");
        }
        for (ours, old) in numbers(&lengths(&after.to_kind(Kind::Double)).unwrap())
            .iter()
            .zip(numbers(&lengths(&before.to_kind(Kind::Double)).unwrap()))
        {
            assert!((ours - old).abs() < 1e-3, "{ours} {old}");
        }
        // The seed alone decides.
        let again = before.copy();
        start_from_names(&again, CLASSES, &names, 5).unwrap();
        assert_eq!(numbers(&again), numbers(&after));
        let other = before.copy();
        start_from_names(&other, CLASSES, &names, 6).unwrap();
        assert_ne!(numbers(&other), numbers(&after));
    }

    #[test]
    fn the_na_class_may_be_last_and_names_that_say_nothing_are_refused() {
        let mut generator = Generator::of_test(3);
        let weight = generator.randn([4, 6]);
        let before = weight.copy();
        let last = Classes { na: NaClass::Last, ..CLASSES };
        start_from_names(&weight, last, &generator.randn([3, 24]), 5).unwrap();
        assert_eq!(numbers(&weight.get(3)), numbers(&before.get(3)));
        assert_ne!(numbers(&weight.get(0)), numbers(&before.get(0)));
        let same = Tensor::ones([3, 24], (Kind::Float, Device::Cpu));
        let error = start_from_names(&weight, CLASSES, &same, 5).unwrap_err();
        assert!(error.to_string().contains("relation 0") && error.exit_code() == 64, "{error}");
        let one = Classes { relations: 1, ..CLASSES };
        start_from_names(&weight, one, &same.narrow(0, 0, 1), 5).unwrap();
    }
}
