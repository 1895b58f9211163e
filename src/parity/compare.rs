//! Comparing with a case, and the forms in which references hold rows of different lengths.

use tch::{Device, Kind, Tensor};

use super::case::{Case, TensorComparison};
use crate::Result;
use crate::torch::Parameters;

/// Lengths of the ranges between offsets.
pub(crate) fn lengths(offsets: &[i64]) -> Vec<i64> {
    offsets.windows(2).map(|range| range[1] - range[0]).collect()
}

/// The values between offsets as rows of at least `width`, filled up with 0.
pub(crate) fn padded(values: &[i64], offsets: &[i64], width: usize) -> Vec<i64> {
    let row = |range: &[i64]| {
        let row = &values[range[0] as usize..range[1] as usize];
        row.iter().copied().chain(std::iter::repeat(0)).take(width.max(row.len()))
    };
    offsets.windows(2).flat_map(row).collect()
}

/// The first `lengths[i]` rows of each part i of a padded reference [parts, rows, …], one after the
/// other.
///
/// # Errors
/// If libtorch rejects an operation.
pub(crate) fn unpadded(reference: &Tensor, lengths: &[i64]) -> Result<Tensor> {
    let parts = (0..)
        .zip(lengths)
        .map(|(part, &length)| Ok(reference.f_get(part)?.f_narrow(0, 0, length)?));
    Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

impl Case {
    /// Compares integers, which must be equal.
    pub fn compare_integers(&mut self, name: &str, ours: &[i64], reference: &[i64]) {
        let pairs = || ours.iter().zip(reference);
        let different =
            pairs().filter(|(a, b)| a != b).count() + ours.len().abs_diff(reference.len());
        let largest = pairs().map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        self.comparisons.push(TensorComparison {
            tensor: name.to_owned(),
            entries: ours.len(),
            max_abs: largest as f64,
            max_rel: different as f64 / reference.len().max(1) as f64,
            within: different == 0,
        });
    }

    /// Compares integers with the input of that name.
    ///
    /// # Errors
    /// If it is not there.
    pub fn compare_input(&mut self, name: &str, ours: &[i64]) -> Result<()> {
        let (reference, _) = self.integers(name)?;
        self.compare_integers(name, ours, &reference);
        Ok(())
    }

    /// Compares numbers; `tolerances` gives the absolute and the relative tolerance, by the largest
    /// |reference|.
    pub fn compare_numbers(
        &mut self,
        name: &str,
        ours: &[f64],
        reference: &[f64],
        tolerances: impl FnOnce(f64) -> (f64, f64),
    ) {
        let largest = reference.iter().fold(0f64, |most, r| most.max(r.abs()));
        let (atol, rtol) = tolerances(largest);
        let pairs = || ours.iter().zip(reference).map(|(x, r)| ((x - r).abs(), r.abs()));
        let max_abs = pairs().fold(0f64, |most, (difference, _)| most.max(difference));
        // Written so that NaN is outside.
        let close = |(difference, r): (f64, f64)| difference <= atol + rtol * r;
        self.comparisons.push(TensorComparison {
            tensor: name.to_owned(),
            entries: ours.len(),
            max_abs,
            max_rel: max_abs / largest.max(f64::MIN_POSITIVE),
            within: ours.len() == reference.len() && pairs().all(close),
        });
    }

    /// Compares a tensor with the output of that name, flat.
    ///
    /// # Errors
    /// If the output is not there.
    pub fn compare(&mut self, name: &str, ours: &Tensor) -> Result<()> {
        let reference = self.output(name)?.shallow_clone();
        self.compare_with(name, ours, &reference)
    }

    /// Compares rows with the real rows of a padded output [parts, rows, …].
    ///
    /// # Errors
    /// If the output is not there.
    pub fn compare_rows(&mut self, name: &str, ours: &Tensor, lengths: &[i64]) -> Result<()> {
        let reference = unpadded(self.output(name)?, lengths)?;
        self.compare_with(name, ours, &reference)
    }

    /// Compares the rows between offsets with one output a document, `docN.NAME`.
    ///
    /// # Errors
    /// If an output is not there.
    pub fn compare_documents(&mut self, name: &str, ours: &Tensor, offsets: &[i64]) -> Result<()> {
        (0..).zip(offsets.windows(2)).try_for_each(|(index, rows): (usize, _)| {
            let own = ours.f_narrow(0, rows[0], rows[1] - rows[0])?;
            self.compare(&format!("doc{index}.{name}"), &own)
        })
    }

    /// Compares a tensor with a part of a reference.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn compare_with(&mut self, name: &str, ours: &Tensor, reference: &Tensor) -> Result<()> {
        self.compare_within(name, ours, reference, "/accept/")
    }

    /// Compares tensors within the tolerances of `case.json` whose pointers begin with `accept`.
    fn compare_within(
        &mut self,
        name: &str,
        ours: &Tensor,
        reference: &Tensor,
        accept: &str,
    ) -> Result<()> {
        let (ours, reference) = (flat(ours)?, flat(reference)?);
        let value = |key: &str| self.at(&format!("{accept}{key}")).as_f64().unwrap_or(0.0);
        let (atol, rtol, of_largest) =
            (value("atol"), value("rtol"), value("atol_relative_to_max"));
        let leniency = self.leniency();
        self.compare_numbers(name, &ours, &reference, |largest| {
            (leniency * atol.max(of_largest * largest), leniency * rtol)
        });
        Ok(())
    }

    /// The outputs whose names begin so, sorted.
    pub fn output_names(&self, prefix: &str) -> Vec<String> {
        let outputs = self.outputs.keys().filter(|name| name.starts_with(prefix));
        let mut names: Vec<String> = outputs.cloned().collect();
        names.sort();
        names
    }

    /// Compares the gradient of a parameter with the output of that name, or with 0 where the
    /// reference is rounding alone.
    ///
    /// # Errors
    /// If the output is not there.
    pub(crate) fn compare_gradient(
        &mut self,
        name: &str,
        parameter: &Tensor,
        is_zero: bool,
    ) -> Result<()> {
        let mut reference = self.output(name)?.shallow_clone();
        if is_zero {
            reference = reference.f_zeros_like()?;
        }
        self.compare_within(name, &gradient_of(parameter)?, &reference, "/accept/grad_")
    }

    /// Compares every output under `prefix`, a gradient, with those in `parameters`; where `rename`
    /// gives `None` the reference must be zero. Names with a further `/` are those of a variant,
    /// which has a prefix of its own.
    ///
    /// # Errors
    /// If the model lacks a parameter.
    pub fn compare_gradients(
        &mut self,
        prefix: &str,
        parameters: &Parameters,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let of_variant = |name: &String| name[prefix.len()..].contains('/');
        let names = self.output_names(prefix).into_iter().filter(|name| !of_variant(name));
        for name in names.collect::<Vec<_>>() {
            let reference = self.output(&name)?.shallow_clone();
            let gradient = match self.own_name(&name[prefix.len()..], &rename) {
                Some(own) => gradient_of(
                    parameters
                        .get(&own)
                        .ok_or_else(|| self.error(format!("no parameter is called `{own}`")))?,
                )?,
                None => reference.f_zeros_like()?,
            };
            self.compare_within(&name, &gradient, &reference, "/accept/grad_")?;
        }
        Ok(())
    }
}

fn flat(tensor: &Tensor) -> Result<Vec<f64>> {
    let tensor = tensor.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    Ok(Vec::try_from(tensor.f_contiguous()?.f_view([-1])?)?)
}

/// The gradient of a parameter; zeros for one that took no part.
fn gradient_of(parameter: &Tensor) -> Result<Tensor> {
    let gradient = parameter.grad();
    Ok(if gradient.defined() { gradient } else { parameter.f_zeros_like()? })
}
