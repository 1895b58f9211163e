//! Gradients on a GPU: backward makes them anew in every step, where those of the CPU are added to
//! buckets of zeros. That saves a kernel for each parameter, and setting, reading and writing all
//! numbers once more.
//!
//! Not for: the buckets themselves (`gradients`).

use std::sync::Mutex;

use tch::Tensor;

use super::shim::{check, docre_gather, docre_list_norm, docre_set_grad, produce};
use crate::base::lock;
use crate::{Error, Result};

/// A parameter and the place where its gradient goes.
#[derive(Debug)]
struct FreshMember {
    parameter: Tensor,
    /// Its part of the bucket, where ranks add up.
    view: Option<Tensor>,
    /// Zeros for a step without a gradient, made when they are needed.
    zeros: Option<Tensor>,
}

impl FreshMember {
    fn set_grad(&self, grad: &Tensor) -> Result<()> {
        // SAFETY: both tensors are alive; the shim stores a reference of its own.
        check(unsafe { docre_set_grad(self.parameter.shallow_clone().as_mut_ptr(), grad.as_ptr()) })
    }

    /// The gradient of this step: zeros if backward made none.
    fn grad(&mut self) -> Result<Tensor> {
        let grad = self.parameter.f_grad()?;
        if grad.defined() {
            return Ok(grad);
        }
        let zeros = match self.zeros.take() {
            Some(zeros) => zeros,
            None => self.parameter.f_detach()?.f_zeros_like()?,
        };
        let grad = zeros.shallow_clone();
        self.zeros = Some(zeros);
        Ok(grad)
    }
}

/// The parameters of a bucket.
#[derive(Debug)]
struct FreshMembers {
    list: Vec<FreshMember>,
    /// Gradients that the last backward pass of a step still owes.
    missing: usize,
    gathered: bool,
}

#[derive(Debug)]
struct FreshStep {
    armed: bool,
    buckets: Vec<FreshMembers>,
    /// The first error of a call from a hook.
    failed: Option<Error>,
}

/// The gradients of a model by bucket.
#[derive(Debug)]
pub struct FreshGradients {
    bucket_of: Vec<usize>,
    state: Mutex<FreshStep>,
}

impl FreshGradients {
    /// `buckets` holds for each bucket its parameters, each with its part of the flat tensor if
    /// ranks add up there.
    pub(super) fn new(bucket_of: Vec<usize>, buckets: Vec<Vec<(Tensor, Option<Tensor>)>>) -> Self {
        let member = |(parameter, view)| FreshMember { parameter, view, zeros: None };
        let members = |list: Vec<_>| FreshMembers {
            list: list.into_iter().map(member).collect(),
            missing: 0,
            gathered: false,
        };
        let buckets = buckets.into_iter().map(members).collect();
        Self { bucket_of, state: Mutex::new(FreshStep { armed: false, buckets, failed: None }) }
    }

    /// Forgets the gradients of the step before.
    pub(super) fn clear(&self) -> Result<()> {
        let mut state = lock(&self.state);
        state.armed = false;
        let none = Tensor::new();
        for bucket in &mut state.buckets {
            bucket.gathered = false;
            bucket.list.iter().try_for_each(|member| member.set_grad(&none))?;
        }
        Ok(())
    }

    /// Call before the last backward pass of a step: gradients that are reported from here on are
    /// complete.
    pub fn arm(&self) {
        let mut state = lock(&self.state);
        state.armed = true;
        for bucket in &mut state.buckets {
            bucket.missing = bucket.list.len();
        }
    }

    /// Reports a complete gradient; the last one of a bucket moves all of them into it. For hooks:
    /// [`Self::finish`] returns errors.
    pub fn ready(&self, parameter: usize) {
        let mut state = lock(&self.state);
        let FreshStep { armed: true, buckets, failed } = &mut *state else { return };
        let Some(bucket) = self.bucket_of.get(parameter).and_then(|&at| buckets.get_mut(at)) else {
            return;
        };
        bucket.missing = bucket.missing.saturating_sub(1);
        if bucket.missing == 0
            && let Err(error) = bucket.gather()
        {
            failed.get_or_insert(error);
        }
    }

    /// Moves what is left into the buckets, with zeros for parameters without a gradient.
    ///
    /// # Errors
    /// The first error since [`Self::arm`].
    pub fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        state.armed = false;
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        state.buckets.iter_mut().try_for_each(FreshMembers::gather)
    }

    /// The global 2-norm as a scalar on the device, which nobody waits for.
    pub(super) fn norm(&self) -> Result<Tensor> {
        let mut state = lock(&self.state);
        let members = state.buckets.iter_mut().flat_map(|bucket| &mut bucket.list);
        let grads = members.map(FreshMember::grad).collect::<Result<Vec<_>>>()?;
        let pointers: Vec<_> = grads.iter().map(Tensor::as_ptr).collect();
        // SAFETY: an array of as many pointers to tensors that `grads` keeps alive.
        produce(|out| unsafe { docre_list_norm(pointers.as_ptr(), pointers.len(), out) })
    }
}

impl FreshMembers {
    /// Makes the parts of the bucket the gradients, with their numbers. Without a bucket it gives
    /// zeros to parameters without a gradient.
    fn gather(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.gathered, true) {
            return Ok(());
        }
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for member in &mut self.list {
            let grad = member.grad()?;
            let Some(view) = &member.view else {
                member.set_grad(&grad)?;
                continue;
            };
            from.push(grad);
            to.push(view.shallow_clone());
            member.set_grad(view)?;
        }
        let pointers = |list: &[Tensor]| list.iter().map(Tensor::as_ptr).collect::<Vec<_>>();
        if from.is_empty() {
            return Ok(());
        }
        let (to, from) = (pointers(&to), pointers(&from));
        // SAFETY: two arrays of as many pointers to tensors that live until the end.
        check(unsafe { docre_gather(to.as_ptr(), from.as_ptr(), from.len()) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tch::{Device, Kind};

    use super::*;
    use crate::torch::GradientBuckets;
    use crate::torch::hooks::on_gradient_ready;
    use crate::torch::mock_gpu::{GPU, GpuWork, with_mock_gpu};

    fn parameters(device: Device) -> Vec<(String, Tensor)> {
        let one =
            |shape: &[i64]| Tensor::ones(shape, (Kind::Float, device)).set_requires_grad(true);
        let shapes: [&[i64]; 4] = [&[2, 3], &[4], &[5], &[3]];
        shapes.iter().enumerate().map(|(i, shape)| (format!("p{i}"), one(shape))).collect()
    }

    /// The gradients of two backward passes, of which the second adds to the first. The third
    /// parameter gets none.
    fn gradients(
        list: &[(String, Tensor)],
        buckets: &GradientBuckets,
        last: impl FnOnce(),
    ) -> Vec<Vec<f32>> {
        let loss = |factor: f64| {
            let used = list.iter().enumerate().filter(|(i, _)| *i != 2);
            let terms = used.map(|(i, (_, p))| p.sum(Kind::Float) * (factor * (i as f64 + 1.0)));
            terms.reduce(|a, b| a + b).unwrap()
        };
        buckets.zero().unwrap();
        loss(1.0).backward();
        last();
        loss(0.5).backward();
        if let Some(fresh) = buckets.fresh() {
            fresh.finish().unwrap();
        }
        let numbers = |p: &Tensor| Vec::try_from(p.grad().to(Device::Cpu).flatten(0, -1)).unwrap();
        list.iter().map(|(_, p)| numbers(p)).collect()
    }

    #[test]
    fn gradients_of_a_gpu_are_those_of_the_cpu() {
        let name = concat!(module_path!(), "::gradients_of_a_gpu_are_those_of_the_cpu");
        with_mock_gpu(name, || {
            let list = parameters(Device::Cpu);
            let buckets = GradientBuckets::new(&list, 40, false).unwrap();
            let (expected, norm) = (gradients(&list, &buckets, || ()), buckets.norm().unwrap());
            for shared in [false, true] {
                let list = parameters(GPU);
                let buckets = GradientBuckets::new(&list, 40, shared).unwrap();
                let fresh = Arc::clone(buckets.fresh().unwrap());
                let hooks: Vec<_> = list
                    .iter()
                    .enumerate()
                    .map(|(index, (_, parameter))| {
                        let fresh = Arc::clone(&fresh);
                        let ready = Arc::new(move || fresh.ready(index));
                        on_gradient_ready(parameter, ready).unwrap()
                    })
                    .collect();
                // Steps after the first forget the gradients of the one before.
                for _ in 0..3 {
                    assert_eq!(gradients(&list, &buckets, || fresh.arm()), expected);
                    assert!((buckets.norm().unwrap() - norm).abs() < 1e-5);
                }
                assert_eq!(buckets.tensors().len(), if shared { 2 } else { 0 });
                // Buckets hold parameters in reverse order of declaration.
                let mut all = buckets
                    .tensors()
                    .flat_map(|flat| Vec::<f32>::try_from(flat.to(Device::Cpu)).unwrap());
                let held = expected.iter().rev().flatten().filter(|_| shared);
                assert!(held.copied().eq(&mut all));
                drop(hooks);
                GpuWork::take();
                drop(gradients(&list, &buckets, || fresh.arm()));
                let launches = GpuWork::take().launches;
                // Two additions in each loss, and three gradients that the second pass adds. The
                // first one adds to nothing.
                assert_eq!(launches.get("aten::add.out"), Some(&7), "{launches:?}");
            }
        });
    }
}
