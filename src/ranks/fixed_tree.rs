//! Sums the gradients of the parts of a global batch in one order, whatever number of ranks they
//! were made on.
//!
//! Floating-point addition is not associative: the rounding of a sum depends on who adds what
//! first, and with the usual all-reduce that depends on the number of ranks. Here the parts are the
//! leaves of a binary tree that the number of parts alone decides: neighbours are added where they
//! fill an aligned block of 2, 4, 8 … parts, and the blocks that are left at the end from the last
//! to the first. A rank holds neighbouring parts and adds up the blocks that lie in them; blocks
//! travel unchanged (every number of the message has one rank that does not send zero), and each
//! rank finishes the tree by itself.
//!
//! Not for speed: [`GradientReducer`](super::GradientReducer) sends half as much, and sends it
//! while the backward pass is still running.

use std::ops::Range;

use tch::Tensor;

use super::Communicator;
use crate::{Error, Result};

/// Most numbers of one message; each rank has a buffer of this size.
const MESSAGE: usize = 8 << 20;

/// The parts of `parts` that `rank` of `world` makes: neighbours, as many on each rank as can be.
pub fn parts_of(rank: usize, world: usize, parts: usize) -> Range<usize> {
    parts * rank / world..parts * (rank + 1) / world
}

/// The tree of one model's gradients. A step is one [`add`](Self::add) for each part of this rank
/// in rising order, then [`finish`](Self::finish).
pub struct FixedTree {
    parts: usize,
    done: Vec<Block<Vec<Tensor>>>,
    /// Sums of earlier steps, to be written over.
    spare: Vec<Vec<Tensor>>,
}

/// The sum over `size` parts from `first` on.
struct Block<T> {
    first: usize,
    size: usize,
    sum: T,
}

impl<T> Block<T> {
    /// Whether this and the `size` parts from `first` on are the halves of an aligned block.
    fn completes(&self, first: usize, size: usize) -> bool {
        self.size == size && self.first + size == first && self.first.is_multiple_of(2 * size)
    }
}

impl FixedTree {
    /// A tree over so many parts a step.
    pub fn new(parts: usize) -> Self {
        Self { parts, done: Vec::new(), spare: Vec::new() }
    }

    /// Takes in the gradients of a part, by bucket; the buckets can be used again afterwards.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn add(&mut self, part: usize, buckets: &[Tensor]) -> Result<()> {
        let (mut first, mut size, mut sum) = (part, 1, None::<Vec<Tensor>>);
        while let Some(left) = self.done.pop_if(|left| left.completes(first, size)) {
            add_to(&left.sum, sum.as_deref().unwrap_or(buckets))?;
            self.spare.extend(sum.replace(left.sum));
            (first, size) = (left.first, 2 * size);
        }
        let sum = match sum {
            Some(sum) => sum,
            None => self.copy(buckets)?,
        };
        self.done.push(Block { first, size, sum });
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

    /// Replaces the buckets by the sums over all parts of all ranks; every rank calls it.
    ///
    /// # Errors
    /// A bug (70) if this rank's parts were not added, each once and in order; the communicator's
    /// errors.
    pub fn finish(&mut self, comm: &dyn Communicator, buckets: &[Tensor]) -> Result<()> {
        let own = std::mem::take(&mut self.done);
        let shapes: Vec<Vec<Range<usize>>> = (0..comm.size())
            .map(|rank| blocks_of(parts_of(rank, comm.size(), self.parts)))
            .collect();
        let mine = &shapes[comm.rank()];
        if own.len() != mine.len()
            || own
                .iter()
                .zip(mine)
                .any(|(block, range)| (block.first..block.first + block.size) != *range)
        {
            return Err(Error::Bug(format!(
                "the parts of rank {} were not added in order",
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

/// The blocks that a rank is left with after `parts`.
fn blocks_of(parts: Range<usize>) -> Vec<Range<usize>> {
    let mut blocks: Vec<Block<()>> = Vec::new();
    for part in parts {
        let (mut first, mut size) = (part, 1);
        while let Some(left) = blocks.pop_if(|left| left.completes(first, size)) {
            (first, size) = (left.first, 2 * size);
        }
        blocks.push(Block { first, size, sum: () });
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
    let mut blocks: Vec<Block<Tensor>> = Vec::new();
    for (range, mut sum) in all.iter().zip(rows) {
        let (mut first, mut size) = (range.start, range.len());
        while let Some(left) = blocks.pop_if(|left| left.completes(first, size)) {
            add_to(std::slice::from_ref(&left.sum), std::slice::from_ref(&sum))?;
            (first, size, sum) = (left.first, 2 * size, left.sum);
        }
        blocks.push(Block { first, size, sum });
    }
    let mut sums = blocks.into_iter().rev().map(|block| block.sum);
    let Some(last) = sums.next() else { return Ok(None) };
    sums.try_fold(last, |sum, left| {
        add_to(std::slice::from_ref(&left), std::slice::from_ref(&sum)).map(|()| left)
    })
    .map(Some)
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
    fn gradient(part: usize, length: usize) -> Vec<f32> {
        let value = |index: usize| {
            let digest = blake3::hash(format!("{part} {index}").as_bytes());
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
    fn two_steps(comm: &dyn Communicator, parts: usize, lengths: &[usize]) -> [Vec<u32>; 2] {
        let (mut tree, buckets) = (FixedTree::new(parts), zeros(lengths));
        [0, 1000].map(|step| {
            for part in parts_of(comm.rank(), comm.size(), parts) {
                for (bucket, &length) in buckets.iter().zip(lengths) {
                    bucket
                        .shallow_clone()
                        .copy_(&Tensor::from_slice(&gradient(step + part, length)));
                }
                tree.add(part, &buckets).unwrap();
            }
            tree.finish(comm, &buckets).unwrap();
            bits(&buckets)
        })
    }

    /// The tree by its definition: halves of the next power of two, missing parts left out.
    fn by_definition(parts: Range<usize>, span: usize, length: usize) -> Option<Vec<f32>> {
        if parts.is_empty() {
            return None;
        }
        if span == 1 {
            return Some(gradient(parts.start, length));
        }
        let middle = parts.start + span / 2;
        let left = by_definition(parts.start..parts.end.min(middle), span / 2, length)?;
        let Some(right) = by_definition(middle..parts.end.max(middle), span / 2, length) else {
            return Some(left);
        };
        Some(left.iter().zip(&right).map(|(a, b)| a + b).collect())
    }

    #[test]
    fn every_number_of_ranks_has_the_bits_of_the_definition() {
        let lengths = [70, 3];
        for parts in [1, 2, 5, 8, 13, 16] {
            let expected: Vec<u32> = lengths
                .iter()
                .flat_map(|&length| {
                    by_definition(0..parts, parts.next_power_of_two(), length).unwrap()
                })
                .map(f32::to_bits)
                .collect();
            let alone = two_steps(&SingleProcess, parts, &lengths);
            assert_eq!(alone[0], expected, "{parts} parts");
            for world in [2, 3, 4, 5, 16] {
                let results = Mutex::new(Vec::new());
                std::thread::scope(|scope| {
                    for comm in simulated_world(world) {
                        let results = &results;
                        scope.spawn(move || {
                            let steps = two_steps(&comm, parts, &lengths);
                            results.lock().unwrap().push((comm, steps));
                        });
                    }
                });
                for (comm, steps) in results.into_inner().unwrap() {
                    assert_eq!(steps, alone, "{parts} parts, rank {} of {world}", comm.rank());
                }
            }
        }
    }

    #[test]
    fn the_order_matters_for_these_numbers() {
        let in_order = (1..16).fold(gradient(0, 70), |sum, part| {
            sum.iter().zip(gradient(part, 70)).map(|(a, b)| a + b).collect()
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
            let all: Vec<usize> = (0..world).flat_map(|rank| parts_of(rank, world, 16)).collect();
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
