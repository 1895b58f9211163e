//! The losses of a step as sums over its micro-batches.
//!
//! Reading a number of a GPU waits for everything that it still computes, so sums stay there until
//! one read at the end of the step. Not for what is summed (`objective`).

use tch::{Kind, Tensor};

use crate::Result;

/// Sums of slots, leaf by leaf.
pub(super) struct LossSums {
    sums: Vec<f64>,
    /// What is on a GPU and not yet added: the first slot, and numbers `[slots]`.
    pending: Vec<(usize, Tensor)>,
}

impl LossSums {
    /// So many zeros.
    pub fn new(count: usize) -> Self {
        Self { sums: vec![0.0; count], pending: Vec::new() }
    }

    /// Adds fp32 `values` `[slots]` to the slots from `first` on.
    pub fn add(&mut self, first: usize, values: Tensor) -> Result<()> {
        if values.device().is_cuda() {
            self.pending.push((first, values));
            return Ok(());
        }
        self.add_numbers(first, &Vec::<f32>::try_from(values)?);
        Ok(())
    }

    fn add_numbers(&mut self, first: usize, values: &[f32]) {
        let slots = self.sums[first..].iter_mut();
        slots.zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
    }

    /// The sums, and a `norm` that a GPU has computed, by one read.
    pub fn read(mut self, norm: Option<Tensor>) -> Result<(Vec<f64>, Option<f64>)> {
        let pending = std::mem::take(&mut self.pending);
        let mut parts: Vec<Tensor> =
            pending.iter().map(|(_, values)| values.shallow_clone()).collect();
        if let Some(norm) = &norm {
            parts.push(norm.f_to_kind(Kind::Float)?.f_view([1])?);
        }
        if parts.is_empty() {
            return Ok((self.sums, None));
        }
        let numbers = Vec::<f32>::try_from(Tensor::f_cat(&parts, 0)?)?;
        let mut rest = &numbers[..];
        for (first, values) in &pending {
            let (own, others) = rest.split_at(values.numel());
            self.add_numbers(*first, own);
            rest = others;
        }
        let norm = norm.and_then(|_| rest.first()).map(|&norm| f64::from(norm));
        Ok((self.sums, norm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_on_a_device_is_added_where_it_belongs() {
        let row = |values: [f32; 2]| Tensor::from_slice(&values);
        let mut sums = LossSums::new(4);
        sums.add(0, row([1.0, 2.0])).unwrap();
        sums.pending.extend([(2, row([3.0, 4.0])), (0, row([10.0, 20.0])), (2, row([0.5, 0.5]))]);
        let norm = Tensor::from(7f32);
        let expected = (vec![11.0, 22.0, 3.5, 4.5], Some(7.0));
        assert_eq!(sums.read(Some(norm)).unwrap(), expected);
        assert_eq!(LossSums::new(1).read(None).unwrap(), (vec![0.0], None));
    }
}
