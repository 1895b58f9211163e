//! Sums over chosen rows of a table, and softmax over ragged groups: means over mentions
//! (docs/systems.md, H.3 and G.3), edges of a graph (G.6), attention over a few entries (G.8, H.8,
//! H.11).
//!
//! A bag is a list of (row, weight); all bags of a batch are summed in one call, each in its own
//! order, so that a bag's sum has the same bits whatever shares the batch. Not for: long sequences
//! that attend to themselves (`attention`).

use tch::{Kind, Tensor};

use crate::torch::on;
use crate::{Error, Result};

/// Bags of weighted rows; host data.
#[derive(Clone, Debug, PartialEq)]
pub struct Bags {
    /// Rows of the table, bag after bag; `[n]`.
    pub rows: Vec<i64>,
    /// One weight a row; `[n]`.
    pub weights: Vec<f32>,
    /// First entry of each bag, closed by n; [bags + 1].
    pub offsets: Vec<i64>,
}

impl Default for Bags {
    fn default() -> Self {
        Self { rows: Vec::new(), weights: Vec::new(), offsets: vec![0] }
    }
}

impl Bags {
    /// Appends a bag; an empty one sums to zero.
    pub fn push(&mut self, entries: impl IntoIterator<Item = (i64, f32)>) {
        for (row, weight) in entries {
            self.rows.push(row);
            self.weights.push(weight);
        }
        self.offsets.push(self.rows.len() as i64);
    }

    /// Bags of the rows from each offset to the next.
    pub fn of_spans(offsets: &[i64]) -> Self {
        let mut bags = Self::default();
        for span in offsets.windows(2) {
            bags.push((span[0]..span[1]).map(|row| (row, 1.0)));
        }
        bags
    }

    /// Appends a bag that is the mean of a range of rows, times `weight`.
    pub fn push_mean(&mut self, rows: std::ops::Range<i64>, weight: f32) {
        let weight = weight / (rows.end - rows.start).max(1) as f32;
        self.push(rows.map(|row| (row, weight)));
    }

    /// Number of bags.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Σ weight · `table`\[row\] of each bag; `table` [rows, width] → [bags, width].
    ///
    /// # Errors
    /// If a row does not exist.
    pub fn sum(&self, table: &Tensor) -> Result<Tensor> {
        let weights = on(&self.weights, table.device())?;
        self.weighted_sum(table, &weights)
    }

    /// The same with other weights, through which gradients flow; `[n]`.
    ///
    /// # Errors
    /// If a row does not exist, or the weights are of another number.
    pub fn weighted_sum(&self, table: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let (width, device) = (table.size2()?.1, table.device());
        let table = table.f_to_kind(Kind::Float)?;
        if self.rows.is_empty() || width == 0 {
            return Ok(table.f_new_zeros([self.len() as i64, width], (Kind::Float, device))?);
        }
        let count = table.size()[0];
        if let Some(row) = self.rows.iter().find(|row| !(0..count).contains(*row)) {
            return Err(Error::Bug(format!("a bag names row {row} of a table of {count}")));
        }
        let (rows, offsets) = (on(&self.rows, device)?, on(&self.offsets, device)?);
        let weights = weights.f_to_kind(Kind::Float)?;
        let (sums, ..) = Tensor::f_embedding_bag(
            &table.f_contiguous()?,
            &rows,
            &offsets,
            false,
            SUM,
            false,
            Some(&weights),
            true,
        )?;
        Ok(sums)
    }
}

/// libtorch's number for bags that are summed.
const SUM: i64 = 0;

/// Score of a slot without an entry: its probability is exactly 0.
const ABSENT: f64 = -1e30;

/// Rows of padded groups have a multiple of this many slots, so that how a row is summed does not
/// depend on the longest row of the batch.
const SLOTS: usize = 16;

/// Softmax inside groups of different sizes, for `heads` scores an entry (docs/systems.md, G.8);
/// host data.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSoftmax {
    /// For every slot of [groups, heads, slots] the flat score that stands in it; `entries · heads`
    /// where there is none.
    gather: Vec<i64>,
    /// For every flat score its slot; [entries · heads].
    back: Vec<i64>,
    slots: i64,
    heads: i64,
}

impl GroupSoftmax {
    /// Groups given by their first entries, closed by the number of entries.
    pub fn new(offsets: &[i64], heads: usize) -> Self {
        let lengths = offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
        let slots = lengths.clone().max().unwrap_or(0).next_multiple_of(SLOTS).max(SLOTS);
        let entries = offsets.last().map_or(0, |&entries| entries as usize);
        let mut gather = vec![(entries * heads) as i64; lengths.len() * heads * slots];
        let mut back = vec![0; entries * heads];
        for (group, pair) in offsets.windows(2).enumerate() {
            for (slot, entry) in (pair[0] as usize..pair[1] as usize).enumerate() {
                for head in 0..heads {
                    let place = (group * heads + head) * slots + slot;
                    gather[place] = (entry * heads + head) as i64;
                    back[entry * heads + head] = place as i64;
                }
            }
        }
        Self { gather, back, slots: slots as i64, heads: heads as i64 }
    }

    /// Scores [entries, heads] → probabilities [entries, heads] that sum to 1 over each group and
    /// head.
    ///
    /// # Errors
    /// If the number of scores does not fit.
    pub fn forward(&self, scores: &Tensor) -> Result<Tensor> {
        let device = scores.device();
        let absent = Tensor::f_full([1], ABSENT, (Kind::Float, device))?;
        let flat = Tensor::f_cat(&[scores.f_to_kind(Kind::Float)?.f_reshape([-1])?, absent], 0)?;
        let padded =
            flat.f_index_select(0, &on(&self.gather, device)?)?.f_view([-1, self.slots])?;
        let probabilities = padded.f_softmax(-1, Kind::Float)?.f_view([-1])?;
        Ok(probabilities.f_index_select(0, &on(&self.back, device)?)?.f_view([-1, self.heads])?)
    }
}

/// Rows of `table` by number on the host.
///
/// # Errors
/// If a row does not exist.
pub fn take(table: &Tensor, rows: &[i64]) -> Result<Tensor> {
    Ok(table.f_index_select(0, &on(rows, table.device())?)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::torch::rng::Generator;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view([-1])).unwrap()
    }

    #[test]
    fn bags_sum_weighted_rows_and_pass_gradients() {
        let table = Tensor::from_slice(&[1f32, 2.0, 10.0, 20.0, 100.0, 200.0])
            .view([3, 2])
            .set_requires_grad(true);
        let mut bags = Bags::default();
        bags.push([(0, 1.0), (2, 0.5)]);
        bags.push([]);
        bags.push_mean(1..3, 2.0);
        let sums = bags.sum(&table).unwrap();
        assert_eq!(numbers(&sums), [51.0, 102.0, 0.0, 0.0, 110.0, 220.0]);
        sums.sum(Kind::Float).backward();
        assert_eq!(numbers(&table.grad()), [1.0, 1.0, 1.0, 1.0, 1.5, 1.5]);
        let weights = Tensor::from_slice(&[1f32, 1.0, 1.0, 1.0]).set_requires_grad(true);
        bags.weighted_sum(&table, &weights).unwrap().sum(Kind::Float).backward();
        assert_eq!(numbers(&weights.grad()), [3.0, 300.0, 30.0, 300.0]);
    }

    #[test]
    fn bags_of_nothing_and_rows_that_do_not_exist() {
        let table = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let mut bags = Bags::default();
        assert_eq!(bags.sum(&table).unwrap().size(), [0, 3]);
        bags.push([]);
        assert_eq!(bags.sum(&table).unwrap(), Tensor::zeros([1, 3], (Kind::Float, Device::Cpu)));
        bags.push([(2, 1.0)]);
        assert!(bags.sum(&table).is_err());
    }

    #[test]
    fn groups_are_normalised_by_themselves() {
        let scores = Tensor::from_slice(&[0f32, 1.0, 3f32.ln(), 1.0, 7.0, -2.0])
            .view([3, 2])
            .set_requires_grad(true);
        let softmax = GroupSoftmax::new(&[0, 2, 2, 3], 2);
        let probabilities = softmax.forward(&scores).unwrap();
        let expected = [0.25, 0.5, 0.75, 0.5, 1.0, 1.0];
        assert!(numbers(&probabilities).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
        (probabilities.select(1, 0).get(0)).backward();
        let gradient = numbers(&scores.grad());
        assert!(
            (gradient[0] - 0.1875).abs() < 1e-6 && (gradient[2] + 0.1875).abs() < 1e-6,
            "{gradient:?}"
        );
    }

    #[test]
    fn a_group_has_the_same_bits_beside_a_longer_one() {
        let scores = Generator::of_test(3).randn([47, 3]);
        let together = GroupSoftmax::new(&[0, 7, 47], 3).forward(&scores).unwrap();
        let alone = GroupSoftmax::new(&[0, 7], 3).forward(&scores.narrow(0, 0, 7)).unwrap();
        assert_eq!(together.narrow(0, 0, 7), alone);
    }
}
