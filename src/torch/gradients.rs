//! Gradients as views into a few flat buckets: one norm, one all-reduce and one fill a bucket. On a
//! GPU backward makes gradients anew, and they move to the buckets only where ranks add them up.
//!
//! Not for: summing them over ranks (`ranks`) or using them (`optimizer`).

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::fresh_gradients::FreshGradients;
use super::shim::{check, docre_set_grad, docre_square_sum};
use crate::{Error, Result};

/// The gradients of a list of parameters, grouped in reverse order of declaration: the order in
/// which backward finishes them.
#[derive(Debug)]
pub struct GradientBuckets {
    /// Flat tensors that gradients are views into; none on a GPU without other ranks.
    buckets: Vec<Tensor>,
    bucket_of: Vec<usize>,
    /// The gradients of a GPU.
    fresh: Option<Arc<FreshGradients>>,
}

/// A bucket on a GPU: its flat tensor if ranks add up there, and its parameters with their parts.
type FreshBucket = (Option<Tensor>, Vec<(Tensor, Option<Tensor>)>);

impl GradientBuckets {
    /// Plans buckets; one is closed before it exceeds `bucket_bytes`, but holds at least one
    /// parameter. `shared` says whether ranks add gradients up.
    ///
    /// On the CPU every parameter has a zero gradient inside a bucket, to which backward adds in
    /// place. On a GPU parameters have no gradient until backward, and [`Self::fresh`] moves them.
    /// A gradient must not be replaced or unset from then on.
    ///
    /// # Errors
    /// [`Error::Bug`] for a parameter that is not fp32 (master weights are).
    pub fn new(parameters: &[(String, Tensor)], bucket_bytes: usize, shared: bool) -> Result<Self> {
        let plan = plan(parameters, bucket_bytes);
        let mut bucket_of = vec![0; parameters.len()];
        for (bucket, members) in plan.iter().enumerate() {
            members.iter().for_each(|&member| bucket_of[member] = bucket);
        }
        if let Some((name, parameter)) = parameters.iter().find(|(_, p)| p.kind() != Kind::Float) {
            return Err(Error::Bug(format!(
                "parameter `{name}` is {:?}, but master weights are fp32",
                parameter.kind()
            )));
        }
        if parameters.first().is_some_and(|(_, parameter)| parameter.device().is_cuda()) {
            let buckets: Vec<FreshBucket> = plan
                .iter()
                .map(|members| fresh_bucket(parameters, members, shared))
                .collect::<Result<_>>()?;
            let (flat, members): (Vec<_>, Vec<_>) = buckets.into_iter().unzip();
            let fresh = FreshGradients::new(bucket_of.clone(), members);
            let buckets = flat.into_iter().flatten().collect();
            return Ok(Self { buckets, bucket_of, fresh: Some(Arc::new(fresh)) });
        }
        let buckets =
            plan.iter().map(|members| install(parameters, members)).collect::<Result<_>>()?;
        Ok(Self { buckets, bucket_of, fresh: None })
    }

    /// What moves gradients into the buckets on a GPU.
    pub fn fresh(&self) -> Option<&Arc<FreshGradients>> {
        self.fresh.as_ref()
    }

    /// The bytes of each bucket that [`Self::new`] would make.
    pub fn sizes(parameters: &[(String, Tensor)], bucket_bytes: usize) -> Vec<usize> {
        let bytes = |member: &usize| 4 * parameters[*member].1.numel();
        let buckets = plan(parameters, bucket_bytes).into_iter();
        buckets.map(|members| members.iter().map(bytes).sum()).collect()
    }

    /// The flat tensors, fp32 `[numbers]`, in the order in which backward fills them.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.buckets.iter()
    }

    /// As [`Self::tensors`], as handles of their own.
    pub fn list(&self) -> Vec<Tensor> {
        self.tensors().map(Tensor::shallow_clone).collect()
    }

    /// The bucket that holds the gradient of a parameter.
    pub fn bucket_of(&self, parameter: usize) -> usize {
        self.bucket_of[parameter]
    }

    /// Sets all gradients to zero.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn zero(&self) -> Result<()> {
        if let Some(fresh) = &self.fresh {
            return fresh.clear();
        }
        self.tensors().try_for_each(|flat| Ok(flat.shallow_clone().f_zero_().map(drop)?))
    }

    /// The global 2-norm; on the CPU its bits do not depend on the number of threads. Not finite
    /// when a gradient is not.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn norm(&self) -> Result<f64> {
        if let Some(norm) = self.norm_on_device()? {
            return Ok(f64::try_from(norm)?);
        }
        let mut squares = 0.0;
        for flat in self.tensors() {
            let mut sum = 0.0;
            // SAFETY: the tensor is alive and the number is ours.
            check(unsafe { docre_square_sum(flat.as_ptr(), &raw mut sum) })?;
            squares += sum;
        }
        Ok(squares.sqrt())
    }

    /// On a GPU the global 2-norm as a scalar that is still being computed.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn norm_on_device(&self) -> Result<Option<Tensor>> {
        self.fresh.as_ref().map(|fresh| fresh.norm()).transpose()
    }

    /// Multiplies all gradients in the buckets by `factor`. On a GPU the optimiser divides them
    /// ([`Adam::step`](super::Adam::step)).
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn scale(&self, factor: f64) -> Result<()> {
        self.tensors()
            .try_for_each(|flat| Ok(flat.shallow_clone().f_mul_scalar_(factor).map(drop)?))
    }
}

/// Which parameters share a bucket.
fn plan(parameters: &[(String, Tensor)], bucket_bytes: usize) -> Vec<Vec<usize>> {
    let mut plan: Vec<Vec<usize>> = Vec::new();
    let mut filled = 0;
    for index in (0..parameters.len()).rev() {
        let bytes = parameters[index].1.numel() * size_of::<f32>();
        match plan.last_mut() {
            Some(members) if filled + bytes <= bucket_bytes => {
                members.push(index);
                filled += bytes;
            }
            _ => {
                plan.push(vec![index]);
                filled = bytes;
            }
        }
    }
    plan
}

/// A zeroed flat tensor for the members, and the part of each.
fn flat_bucket(
    parameters: &[(String, Tensor)],
    members: &[usize],
) -> Result<(Tensor, Vec<Tensor>)> {
    let total: usize = members.iter().map(|&member| parameters[member].1.numel()).sum();
    let flat = Tensor::f_zeros([total as i64], (Kind::Float, parameters[members[0]].1.device()))?;
    let (mut offset, mut views) = (0, Vec::new());
    for (_, parameter) in members.iter().map(|&member| &parameters[member]) {
        let count = parameter.numel() as i64;
        views.push(flat.f_narrow(0, offset, count)?.f_view(parameter.size().as_slice())?);
        offset += count;
    }
    Ok((flat, views))
}

fn fresh_bucket(
    parameters: &[(String, Tensor)],
    members: &[usize],
    shared: bool,
) -> Result<FreshBucket> {
    let own = members.iter().map(|&member| parameters[member].1.shallow_clone());
    if !shared {
        return Ok((None, own.map(|parameter| (parameter, None)).collect()));
    }
    let (flat, views) = flat_bucket(parameters, members)?;
    Ok((Some(flat), own.zip(views.into_iter().map(Some)).collect()))
}

/// Makes parts of one zeroed flat tensor the gradients of the members.
fn install(parameters: &[(String, Tensor)], members: &[usize]) -> Result<Tensor> {
    let (flat, views) = flat_bucket(parameters, members)?;
    for (&member, view) in members.iter().zip(views) {
        let parameter = &parameters[member].1;
        // SAFETY: both tensors are alive; the shim stores a reference of its own.
        check(unsafe { docre_set_grad(parameter.shallow_clone().as_mut_ptr(), view.as_ptr()) })?;
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::torch::device::LocalThreads;
    use crate::torch::rng::Generator;

    fn parameters(shapes: &[&[i64]]) -> Vec<(String, Tensor)> {
        let ones = |shape: &&[i64]| {
            Tensor::ones(*shape, (Kind::Float, Device::Cpu)).set_requires_grad(true)
        };
        shapes.iter().enumerate().map(|(i, shape)| (format!("p{i}"), ones(shape))).collect()
    }

    #[test]
    fn backward_adds_into_the_buckets() {
        let list = parameters(&[&[2, 3], &[4], &[5]]);
        let buckets = GradientBuckets::new(&list, 40, false).unwrap();
        assert_eq!(
            (buckets.buckets.len(), [0, 1, 2].map(|parameter| buckets.bucket_of(parameter))),
            (2, [1, 0, 0])
        );
        for _ in 0..2 {
            let loss = list
                .iter()
                .enumerate()
                .map(|(i, (_, p))| p.sum(Kind::Float) * (i as f64 + 1.0))
                .reduce(|a, b| a + b)
                .unwrap();
            loss.backward();
        }
        let values: Vec<Vec<f32>> =
            buckets.tensors().map(|flat| Vec::try_from(flat).unwrap()).collect();
        assert_eq!(values, [vec![6.0, 6.0, 6.0, 6.0, 6.0, 4.0, 4.0, 4.0, 4.0], vec![2.0; 6]]);
        buckets.scale(0.5).unwrap();
        assert_eq!(list[2].1.grad(), Tensor::from_slice(&[3f32; 5]));
        buckets.zero().unwrap();
        assert_eq!(buckets.norm().unwrap(), 0.0);
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        let list = parameters(&[&[3], &[4]]);
        let buckets = GradientBuckets::new(&list, 1, false).unwrap();
        (&list[0].1 * 2.0 + (&list[1].1 * 3.0).sum(Kind::Float)).sum(Kind::Float).backward();
        // Gradients 2 (three times) and 9 (four times).
        assert!((buckets.norm().unwrap() - 336f64.sqrt()).abs() < 1e-9);
        (&list[0].1 * f64::NAN).sum(Kind::Float).backward();
        assert!(buckets.norm().unwrap().is_nan());
    }

    #[test]
    fn the_norm_has_the_same_bits_for_every_number_of_threads() {
        let list = vec![("p".to_owned(), Tensor::zeros([1_000_003], (Kind::Float, Device::Cpu)))];
        let buckets = GradientBuckets::new(&list, 1, false).unwrap();
        buckets
            .tensors()
            .for_each(|flat| flat.shallow_clone().copy_(&Generator::of_test(1).randn(flat.size())));
        let expected = buckets.norm().unwrap();
        for threads in [1, 3] {
            let _threads = LocalThreads::new(threads);
            assert_eq!(buckets.norm().unwrap().to_bits(), expected.to_bits());
        }
        assert!((expected / 1_000_003f64.sqrt() - 1.0).abs() < 0.01);
    }
}
