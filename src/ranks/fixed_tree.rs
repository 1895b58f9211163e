//! Sums the gradients of a global batch in one order, whatever the number of ranks.
//!
//! Floating-point addition is not associative: the rounding of a sum depends on the order of the
//! additions, and with the usual all-reduce that depends on the number of ranks. Here the batch is
//! divided into the leaves of a binary tree, whose shape depends on the number of leaves alone:
//! neighbours are added if they fill an aligned block of 2, 4, 8 … leaves; the blocks that are left
//! at the end are added from the last to the first. A rank holds neighbouring leaves and adds up
//! the blocks that lie in them; blocks travel unchanged (for every number of the message, only one
//! rank sends something other than zero), and each rank finishes the tree by itself.
//!
//! Not for speed: [`GradientReducer`](super::GradientReducer) sends half as much, and sends it
//! while the backward pass is still running.

use std::ops::Range;

use tch::Tensor;

use super::Communicator;
use crate::{Error, Result};

/// Most numbers of one message; each rank has a buffer of this size.
const MESSAGE: usize = 8 << 20;

/// Returns which of `leaves` belong to `rank` of `world`: neighbours, evenly divided.
pub fn leaves_of(rank: usize, world: usize, leaves: usize) -> Range<usize> {
    leaves * rank / world..leaves * (rank + 1) / world
}

/// The tree of one model's gradients. A step is one [`add`](Self::add) for each leaf of this rank
/// in rising order, then [`finish`](Self::finish).
pub struct FixedTree {
    leaves: usize,
    done: Vec<Subtree<Vec<Tensor>>>,
    /// Sums of earlier steps, to be written over.
    spare: Vec<Vec<Tensor>>,
}

/// The sum over the block of `size` leaves from `first` on.
struct Subtree<T> {
    first: usize,
    size: usize,
    sum: T,
}

impl<T> Subtree<T> {
    /// Whether this and the `size` leaves from `first` on are the halves of an aligned block.
    fn completes(&self, first: usize, size: usize) -> bool {
        self.size == size && self.first + size == first && self.first.is_multiple_of(2 * size)
    }
}

impl FixedTree {
    /// A tree over this number of leaves a step.
    pub fn new(leaves: usize) -> Self {
        Self { leaves, done: Vec::new(), spare: Vec::new() }
    }

    /// Adds the gradients of a leaf, by bucket; the buckets can be used again afterwards.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn add(&mut self, leaf: usize, buckets: &[Tensor]) -> Result<()> {
        let (mut first, mut size, mut sum) = (leaf, 1, None::<Vec<Tensor>>);
        while let Some(left) = self.done.pop_if(|left| left.completes(first, size)) {
            add_to(&left.sum, sum.as_deref().unwrap_or(buckets))?;
            self.spare.extend(sum.replace(left.sum));
            (first, size) = (left.first, 2 * size);
        }
        let sum = match sum {
            Some(sum) => sum,
            None => self.copy(buckets)?,
        };
        self.done.push(Subtree { first, size, sum });
        Ok(())
    }

    fn copy(&mut self, buckets: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut copy = match self.spare.pop() {
            Some(spare) => spare,
            None => {
                buckets.iter().map(|bucket| Ok(bucket.f_empty_like()?)).collect::<Result<_>>()?
            }
        };
        copy.iter_mut().zip(buckets).try_for_each(|(to, from)| to.f_copy_(from))?;
        Ok(copy)
    }

    /// Replaces the buckets by the sums over all leaves of all ranks; every rank calls it.
    ///
    /// # Errors
    /// A bug (70) if this rank's leaves were not added, each once and in order; the communicator's
    /// errors.
    pub fn finish(&mut self, comm: &dyn Communicator, buckets: &[Tensor]) -> Result<()> {
        let own = std::mem::take(&mut self.done);
        let shapes: Vec<Vec<Range<usize>>> = (0..comm.size())
            .map(|rank| blocks_of(leaves_of(rank, comm.size(), self.leaves)))
            .collect();
        let mine = &shapes[comm.rank()];
        if own.len() != mine.len()
            || own
                .iter()
                .zip(mine)
                .any(|(block, range)| (block.first..block.first + block.size) != *range)
        {
            return Err(Error::Bug(format!(
                "the leaves of rank {} were not added in order",
                comm.rank()
            )));
        }
        let before = shapes[..comm.rank()].iter().map(Vec::len).sum();
        let all: Vec<Range<usize>> = shapes.into_iter().flatten().collect();
        for (index, bucket) in buckets.iter().enumerate() {
            let sums: Vec<&Tensor> = own.iter().map(|block| &block.sum[index]).collect();
            finish_bucket(comm, &all, before, &sums, bucket)?;
        }
        self.spare.extend(own.into_iter().map(|block| block.sum));
        Ok(())
    }
}

/// The blocks that a rank is left with after its leaves.
fn blocks_of(leaves: Range<usize>) -> Vec<Range<usize>> {
    let mut blocks: Vec<Subtree<()>> = Vec::new();
    for leaf in leaves {
        let (mut first, mut size) = (leaf, 1);
        while let Some(left) = blocks.pop_if(|left| left.completes(first, size)) {
            (first, size) = (left.first, 2 * size);
        }
        blocks.push(Subtree { first, size, sum: () });
    }
    blocks.into_iter().map(|block| block.first..block.first + block.size).collect()
}

/// Exchanges the blocks of one bucket, `own` of them from number `before` of `all` on, and ends the
/// tree.
fn finish_bucket(
    comm: &dyn Communicator,
    all: &[Range<usize>],
    before: usize,
    own: &[&Tensor],
    bucket: &Tensor,
) -> Result<()> {
    let total = bucket.numel();
    let alone = comm.size() == 1;
    let width = if alone { total.max(1) } else { (MESSAGE / all.len().max(1)).max(1) };
    for start in (0..total).step_by(width) {
        let (at, count) = (start as i64, width.min(total - start) as i64);
        let mut rows =
            own.iter().map(|sum| Ok(sum.f_narrow(0, at, count)?)).collect::<Result<Vec<_>>>()?;
        let mut target = bucket.f_narrow(0, at, count)?;
        if !alone {
            // Adding zeros to a number leaves its bits alone: gradients are never -0, for they were
            // added to 0.
            let message =
                Tensor::f_zeros([all.len() as i64, count], (target.kind(), target.device()))?;
            for (number, row) in rows.iter().enumerate() {
                message.f_get((before + number) as i64)?.f_copy_(row)?;
            }
            comm.all_reduce_tensor(&message)?;
            rows = (0..all.len())
                .map(|number| Ok(message.f_get(number as i64)?))
                .collect::<Result<_>>()?;
        }
        if let Some(sum) = end_tree(all, rows)? {
            target.f_copy_(&sum)?;
        }
    }
    Ok(())
}

/// Adds neighbours that fill an aligned block, then what is left from the last to the first; the
/// rows are overwritten.
fn end_tree(all: &[Range<usize>], rows: Vec<Tensor>) -> Result<Option<Tensor>> {
    let mut blocks: Vec<Subtree<Tensor>> = Vec::new();
    for (range, mut sum) in all.iter().zip(rows) {
        let (mut first, mut size) = (range.start, range.len());
        while let Some(left) = blocks.pop_if(|left| left.completes(first, size)) {
            add_to(std::slice::from_ref(&left.sum), std::slice::from_ref(&sum))?;
            (first, size, sum) = (left.first, 2 * size, left.sum);
        }
        blocks.push(Subtree { first, size, sum });
    }
    let mut sums = blocks.into_iter().rev().map(|block| block.sum);
    let Some(last) = sums.next() else { return Ok(None) };
    sums.try_fold(last, |sum, left| {
        add_to(std::slice::from_ref(&left), std::slice::from_ref(&sum)).map(|()| left)
    })
    .map(Some)
}

/// Adds up one tensor of each rank, by rank, in the tree of as many leaves; the rows are
/// overwritten.
///
/// # Errors
/// If libtorch rejects an operation.
pub(super) fn sum_in_order(rows: Vec<Tensor>) -> Result<Option<Tensor>> {
    let leaves: Vec<Range<usize>> = (0..rows.len()).map(|leaf| leaf..leaf + 1).collect();
    end_tree(&leaves, rows)
}

/// Adds `from` to `to`, tensor by tensor.
fn add_to(to: &[Tensor], from: &[Tensor]) -> Result<()> {
    to.iter().zip(from).try_for_each(|(to, from)| Ok(to.shallow_clone().f_add_(from).map(drop)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tch::{Device, Kind};

    use super::*;
    use crate::ranks::{SingleProcess, simulated_world};

    /// Gradients whose sum depends on the order: magnitudes from 1e-4 to 1e4.
    fn gradient(leaf: usize, length: usize) -> Vec<f32> {
        let value = |index: usize| {
            let digest = blake3::hash(format!("{leaf} {index}").as_bytes());
            let [a, b, ..] = *digest.as_bytes();
            (f32::from(a) - 127.5) * 10f32.powi(i32::from(b % 9) - 6)
        };
        (0..length).map(value).collect()
    }

    fn zeros(lengths: &[usize]) -> Vec<Tensor> {
        lengths
            .iter()
            .map(|&length| Tensor::zeros([length as i64], (Kind::Float, Device::Cpu)))
            .collect()
    }

    fn bits(buckets: &[Tensor]) -> Vec<u32> {
        buckets
            .iter()
            .flat_map(|bucket| Vec::<f32>::try_from(bucket).unwrap())
            .map(f32::to_bits)
            .collect()
    }

    /// Two steps of one rank; the bits of each.
    fn two_steps(comm: &dyn Communicator, leaves: usize, lengths: &[usize]) -> [Vec<u32>; 2] {
        let (mut tree, buckets) = (FixedTree::new(leaves), zeros(lengths));
        [0, 1000].map(|step| {
            for leaf in leaves_of(comm.rank(), comm.size(), leaves) {
                for (bucket, &length) in buckets.iter().zip(lengths) {
                    bucket
                        .shallow_clone()
                        .copy_(&Tensor::from_slice(&gradient(step + leaf, length)));
                }
                tree.add(leaf, &buckets).unwrap();
            }
            tree.finish(comm, &buckets).unwrap();
            bits(&buckets)
        })
    }

    /// The tree by its definition: halves of the next power of two, missing leaves left out.
    fn by_definition(leaves: Range<usize>, span: usize, length: usize) -> Option<Vec<f32>> {
        if leaves.is_empty() {
            return None;
        }
        if span == 1 {
            return Some(gradient(leaves.start, length));
        }
        let middle = leaves.start + span / 2;
        let left = by_definition(leaves.start..leaves.end.min(middle), span / 2, length)?;
        let Some(right) = by_definition(middle..leaves.end.max(middle), span / 2, length) else {
            return Some(left);
        };
        Some(left.iter().zip(&right).map(|(a, b)| a + b).collect())
    }

    #[test]
    fn every_number_of_ranks_has_the_bits_of_the_definition() {
        let lengths = [70, 3];
        for leaves in [1, 2, 5, 8, 13, 16] {
            let expected: Vec<u32> = lengths
                .iter()
                .flat_map(|&length| {
                    by_definition(0..leaves, leaves.next_power_of_two(), length).unwrap()
                })
                .map(f32::to_bits)
                .collect();
            let alone = two_steps(&SingleProcess, leaves, &lengths);
            assert_eq!(alone[0], expected, "{leaves} leaves");
            for world in [2, 3, 4, 5, 16] {
                let results = Mutex::new(Vec::new());
                std::thread::scope(|scope| {
                    for comm in simulated_world(world) {
                        let results = &results;
                        scope.spawn(move || {
                            let steps = two_steps(&comm, leaves, &lengths);
                            results.lock().unwrap().push((comm, steps));
                        });
                    }
                });
                for (comm, steps) in results.into_inner().unwrap() {
                    assert_eq!(steps, alone, "{leaves} leaves, rank {} of {world}", comm.rank());
                }
            }
        }
    }

    #[test]
    fn the_order_matters_for_these_numbers() {
        let in_order = (1..16).fold(gradient(0, 70), |sum, leaf| {
            sum.iter().zip(gradient(leaf, 70)).map(|(a, b)| a + b).collect()
        });
        assert_ne!(
            in_order,
            by_definition(0..16, 16, 70).unwrap(),
            "or the test above shows nothing"
        );
    }

    #[test]
    fn parts_are_divided_without_gap() {
        for world in 1..20 {
            let all: Vec<usize> = (0..world).flat_map(|rank| leaves_of(rank, world, 16)).collect();
            assert_eq!(all, (0..16).collect::<Vec<_>>(), "{world} ranks");
        }
    }

    #[test]
    fn a_part_that_is_missing_is_a_bug() {
        let (mut tree, buckets) = (FixedTree::new(4), zeros(&[2]));
        tree.add(0, &buckets).unwrap();
        tree.add(2, &buckets).unwrap();
        assert_eq!(tree.finish(&SingleProcess, &buckets).unwrap_err().exit_code(), 70);
    }
}
