//! Checks that all ranks hold the same weights, bit by bit: this finds a flipped bit in one rank's
//! memory.
//!
//! Not for repairing them: the last checkpoint is good, since the weights are compared before each
//! save.

use tch::{Device, Tensor};

use crate::base::hash_number;
use crate::ranks::{ReduceOp, World};
use crate::{Error, Result};

/// Compares the bits of named fp32 tensors over all ranks; every rank calls it with the same names.
///
/// # Errors
/// A lost rank (71) naming the tensor and the first rank that differs from the most frequent value
/// (from rank 0's if there is none).
pub(super) fn compare(world: &World, tensors: &[(String, Tensor)]) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let hashes = tensors.iter().map(|(_, tensor)| hash(tensor)).collect::<Result<Vec<u64>>>()?;
    let digest = blake3::hash(bytemuck::cast_slice(&hashes));
    // 52 bits fit a float exactly; the smallest and the largest tell whether all are equal.
    let short = (hash_number(&digest) >> 12) as f64;
    let mut extremes = [short, -short];
    world.communicator().all_reduce_f64(&mut extremes, ReduceOp::Max)?;
    if extremes[0] == -extremes[1] {
        return Ok(());
    }
    let all = world.communicator().all_gather(bytemuck::cast_slice(&hashes))?;
    let of = |rank: usize, tensor: usize| all[rank].get(8 * tensor..8 * tensor + 8);
    for (index, (name, _)) in tensors.iter().enumerate() {
        let values: Vec<_> = (0..all.len()).map(|rank| of(rank, index)).collect();
        if let Some(rank) = odd_one(&values) {
            return Err(Error::RankLost {
                rank,
                operation: "the comparison of weights over ranks".into(),
                cause: format!(
                    "its `{name}` differs from the other ranks' (memory or a device is faulty \
                     there)"
                ),
            });
        }
    }
    Err(Error::Bug("the ranks hold different lists of weights".into()))
}

/// The first rank whose value is not the most frequent one; of equally frequent values, that of the
/// lowest rank counts as right.
fn odd_one<T: PartialEq>(values: &[T]) -> Option<usize> {
    let count = |value: &T| values.iter().filter(|other| *other == value).count();
    let most = values.iter().map(count).max()?;
    let right = values.iter().find(|value| count(value) == most)?;
    values.iter().position(|value| value != right)
}

fn hash(tensor: &Tensor) -> Result<u64> {
    let host = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let count = host.numel();
    if count == 0 {
        return Ok(0);
    }
    if host.f_kind()? != tch::Kind::Float {
        return Err(Error::Bug(format!("weights of kind {:?} were to be compared", host.kind())));
    }
    // SAFETY: a contiguous fp32 tensor on the CPU that lives through the call, and nobody writes to
    // weights between steps.
    let bytes = unsafe {
        std::slice::from_raw_parts(
            host.data_ptr().cast::<u8>().cast_const(),
            count * size_of::<f32>(),
        )
    };
    Ok(hash_number(&blake3::hash(bytes)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tch::Kind;

    use super::*;
    use crate::ranks::simulated_world;

    /// What each of `size` ranks says of two tensors, of which `flipped` has one bit of the second
    /// changed.
    fn compared(size: usize, flipped: Option<usize>) -> Vec<Result<()>> {
        std::thread::scope(|scope| {
            let start = |(rank, comm)| {
                scope.spawn(move || {
                    let mut values = [1.0f32, 2.0, 3.0];
                    if flipped == Some(rank) {
                        values[1] = f32::from_bits(values[1].to_bits() ^ 1);
                    }
                    let tensors = [
                        ("a".to_owned(), Tensor::zeros([0], (Kind::Float, Device::Cpu))),
                        ("b".to_owned(), Tensor::from_slice(&values)),
                    ];
                    compare(&World::of(Arc::new(comm)), &tensors)
                })
            };
            let ranks: Vec<_> = simulated_world(size).into_iter().enumerate().map(start).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn equal_weights_pass() {
        for size in [1, 2, 3] {
            assert!(compared(size, None).into_iter().all(|outcome| outcome.is_ok()));
        }
    }

    #[test]
    fn a_flipped_bit_is_named_with_rank_and_tensor() {
        for flipped in 0..3 {
            for outcome in compared(3, Some(flipped)) {
                let error = outcome.unwrap_err();
                assert_eq!(error.exit_code(), 71);
                let text = error.to_string();
                assert!(
                    text.contains(&format!("rank {flipped} ")) && text.contains("`b`"),
                    "{text}"
                );
            }
        }
        assert!(
            compared(2, Some(1))
                .into_iter()
                .all(|outcome| outcome.unwrap_err().to_string().contains("rank 1 "))
        );
    }
}
