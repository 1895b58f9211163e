//! Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019) and AMSGrad (Reddi et al. 2018) by
//! libtorch's fused kernels, with moments that can be saved.
//!
//! Not for: gradients (`gradients`) or learning-rate schedules (`train`).

use std::ffi::c_int;

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use super::shim::{check, docre_fused_adam, docre_list_add, pointer};
use crate::{Error, Result};

/// The constants of Adam and its variants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW's decay, multiplied by the learning rate and outside of the moments; otherwise it is
    /// added to the gradient (L2).
    pub decoupled: bool,
    /// AMSGrad: divide by the largest second moment so far.
    pub amsgrad: bool,
}

/// Parameters that share settings.
#[derive(Debug)]
pub struct ParameterGroup {
    /// (name, tensor) in order of declaration.
    pub parameters: Vec<(String, Tensor)>,
    /// Their settings.
    pub settings: AdamSettings,
}

/// A parameter with its moments and its count of steps (an fp32 scalar, as the kernel wants it).
#[derive(Debug)]
struct Moments {
    name: String,
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    /// Largest second moment so far, for AMSGrad.
    largest: Option<Tensor>,
    step: Tensor,
}

impl Moments {
    fn new(name: &str, parameter: &Tensor, amsgrad: bool) -> Result<Self> {
        let value = parameter.f_detach()?;
        let step = Tensor::f_zeros([0i64; 0], (Kind::Float, parameter.device()))?;
        let (mean, square) = (value.f_zeros_like()?, value.f_zeros_like()?);
        let largest = amsgrad.then(|| value.f_zeros_like()).transpose()?;
        Ok(Self {
            name: name.to_owned(),
            parameter: parameter.shallow_clone(),
            mean,
            square,
            largest,
            step,
        })
    }

    /// The state under the names it is saved by.
    fn entries(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let moments = [("exp_avg", Some(&self.mean)), ("exp_avg_sq", Some(&self.square))];
        let rest = [("max_exp_avg_sq", self.largest.as_ref()), ("step", Some(&self.step))];
        let named =
            |(kind, tensor): (&str, Option<_>)| Some((format!("{}.{kind}", self.name), tensor?));
        moments.into_iter().chain(rest).filter_map(named)
    }
}

/// The optimiser: groups of parameters and the state of each.
#[derive(Debug)]
pub struct Adam {
    groups: Vec<(AdamSettings, Vec<Moments>)>,
}

impl Adam {
    /// Several groups, each with its own settings.
    ///
    /// # Errors
    /// If libtorch cannot make the moments.
    pub fn new(groups: &[ParameterGroup]) -> Result<Self> {
        let slots = |group: &ParameterGroup| {
            group
                .parameters
                .iter()
                .map(|(name, tensor)| Moments::new(name, tensor, group.settings.amsgrad))
                .collect::<Result<_>>()
        };
        let groups = groups
            .iter()
            .map(|group| Ok((group.settings, slots(group)?)))
            .collect::<Result<_>>()?;
        Ok(Self { groups })
    }

    /// The settings of each group, to be changed between steps (the learning rate's schedule).
    pub fn settings_mut(&mut self) -> impl Iterator<Item = &mut AdamSettings> {
        self.groups.iter_mut().map(|(settings, _)| settings)
    }

    /// One update of every parameter that has a gradient. With a `divisor`, gradients are divided
    /// by it in the same pass, and keep that value.
    ///
    /// # Errors
    /// If libtorch rejects a tensor.
    pub fn step(&mut self, divisor: Option<f64>) -> Result<()> {
        for (settings, slots) in &self.groups {
            let with_grad: Vec<(&Moments, Tensor)> = slots
                .iter()
                .map(|slot| (slot, slot.parameter.grad()))
                .filter(|(_, grad)| grad.defined())
                .collect();
            update(settings, &with_grad, divisor)?;
        }
        Ok(())
    }

    /// The moments and counts of steps, by the names `<parameter>.exp_avg`, `.exp_avg_sq` and
    /// `.step`: handles, not copies.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let slots = self.groups.iter().flat_map(|(_, slots)| slots);
        slots
            .flat_map(Moments::entries)
            .map(|(name, tensor)| (name, tensor.shallow_clone()))
            .collect()
    }

    /// Takes over what [`Self::state`] gave; the order does not matter.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming an entry that is missing, unknown or of another shape.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let own = self.state();
        if let Some((name, _)) =
            state.iter().find(|(name, _)| !own.iter().any(|(known, _)| known == name))
        {
            return Err(Error::recipe(format!(
                "optimiser state `{name}` belongs to no parameter of this model"
            )));
        }
        for (name, target) in own {
            let Some((_, value)) = state.iter().find(|(given, _)| *given == name) else {
                return Err(Error::recipe(format!("optimiser state `{name}` is missing")));
            };
            if value.size() != target.size() {
                return Err(Error::recipe(format!(
                    "optimiser state `{name}` has shape {:?}, not {:?}",
                    value.size(),
                    target.size()
                )));
            }
            target.shallow_clone().f_copy_(value)?;
        }
        Ok(())
    }
}

/// Counts the step, and runs the fused kernel over a group's lists.
fn update(
    settings: &AdamSettings,
    slots: &[(&Moments, Tensor)],
    divisor: Option<f64>,
) -> Result<()> {
    fn list<'a>(
        slots: &'a [(&Moments, Tensor)],
        part: impl Fn(&'a (&Moments, Tensor)) -> &'a Tensor,
    ) -> Vec<*const C_tensor> {
        slots.iter().map(|slot| part(slot).as_ptr()).collect()
    }
    let Some((first, _)) = slots.first() else { return Ok(()) };
    // Filling a number waits for nobody, copying one to a GPU would.
    let options = (Kind::Float, first.parameter.device());
    let divisor = divisor.map(|divisor| Tensor::f_full([0i64; 0], divisor, options)).transpose()?;
    let parameters = list(slots, |(slot, _)| &slot.parameter);
    let grads = list(slots, |(_, grad)| grad);
    let means = list(slots, |(slot, _)| &slot.mean);
    let squares = list(slots, |(slot, _)| &slot.square);
    let largest: Vec<_> =
        slots.iter().filter_map(|(slot, _)| slot.largest.as_ref()).map(Tensor::as_ptr).collect();
    let steps = list(slots, |(slot, _)| &slot.step);
    let AdamSettings { lr, betas: (beta1, beta2), eps, weight_decay, decoupled, amsgrad } =
        *settings;
    // SAFETY: arrays of `slots.len()` pointers to tensors that `slots` keeps alive (`largest` only
    // where AMSGrad reads it), and a pointer to a live tensor or null.
    check(unsafe { docre_list_add(steps.as_ptr(), slots.len(), 1.0) })?;
    // SAFETY: as above.
    check(unsafe {
        docre_fused_adam(
            parameters.as_ptr(),
            grads.as_ptr(),
            means.as_ptr(),
            squares.as_ptr(),
            largest.as_ptr(),
            steps.as_ptr(),
            slots.len(),
            pointer(divisor.as_ref()),
            lr,
            beta1,
            beta2,
            weight_decay,
            eps,
            c_int::from(decoupled),
            c_int::from(amsgrad),
        )
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::torch::gradients::GradientBuckets;
    use crate::torch::plain::adam as plain;
    use crate::torch::rng::Generator;

    const SETTINGS: AdamSettings = AdamSettings {
        lr: 1e-2,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.1,
        decoupled: true,
        amsgrad: false,
    };

    fn parameters() -> Vec<(String, Tensor)> {
        let mut generator = Generator::of_test(5);
        let mut random = |shape: &[i64]| generator.randn(shape).set_requires_grad(true);
        vec![("a".into(), random(&[7, 5])), ("b".into(), random(&[3]))]
    }

    /// Loss Σ w·p² with fixed weights; its gradient is 2·w·p.
    fn loss(list: &[(String, Tensor)]) -> Tensor {
        list.iter()
            .map(|(_, p)| (p.square() * weights(p)).sum(Kind::Float))
            .reduce(|a, b| a + b)
            .unwrap()
    }

    fn weights(p: &Tensor) -> Tensor {
        (Tensor::arange(p.numel() as i64, (Kind::Float, Device::Cpu)) - 2.0).view_as(p)
    }

    fn values(list: &[(String, Tensor)]) -> Vec<f64> {
        list.iter()
            .flat_map(|(_, p)| {
                Vec::<f64>::try_from(p.detach().flatten(0, -1).to_kind(Kind::Double)).unwrap()
            })
            .collect()
    }

    fn run(
        list: &[(String, Tensor)],
        buckets: &GradientBuckets,
        optimizer: &mut Adam,
        steps: usize,
    ) {
        for _ in 0..steps {
            buckets.zero().unwrap();
            loss(list).backward();
            optimizer.step(None).unwrap();
        }
    }

    fn adam(list: &[(String, Tensor)], settings: AdamSettings) -> Adam {
        let copy = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.shallow_clone());
        let parameters = list.iter().map(copy).collect();
        Adam::new(&[ParameterGroup { parameters, settings }]).unwrap()
    }

    #[test]
    fn ten_steps_equal_the_algorithms() {
        for (decoupled, amsgrad) in [(true, false), (false, false), (false, true), (true, true)] {
            let settings = AdamSettings { decoupled, amsgrad, ..SETTINGS };
            let list = parameters();
            let weights = list.iter().flat_map(|(_, p)| (0..p.numel()).map(|i| i as f64 - 2.0));
            let after = |(p, w): (f64, f64)| plain::adam(&settings, p, |p| 2.0 * w * p, 10);
            let expected: Vec<f64> = values(&list).into_iter().zip(weights).map(after).collect();
            let buckets = GradientBuckets::new(&list, 1 << 20, false).unwrap();
            run(&list, &buckets, &mut adam(&list, settings), 10);
            for (got, expected) in values(&list).iter().zip(&expected) {
                assert!(
                    (got - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                    "{settings:?}: {got} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn saved_state_continues_bit_for_bit() {
        let list = parameters();
        let buckets = GradientBuckets::new(&list, 8, false).unwrap();
        let mut first = adam(&list, SETTINGS);
        run(&list, &buckets, &mut first, 3);
        let weights: Vec<_> = list.iter().map(|(_, p)| p.detach().copy()).collect();
        let mut state: Vec<_> =
            first.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        run(&list, &buckets, &mut first, 4);
        let expected = values(&list);
        for ((_, p), saved) in list.iter().zip(&weights) {
            tch::no_grad(|| p.shallow_clone().copy_(saved));
        }
        let mut second = adam(&list, SETTINGS);
        state.reverse();
        second.load_state(&state).unwrap();
        run(&list, &buckets, &mut second, 4);
        assert_eq!(values(&list), expected);
    }

    #[test]
    fn state_of_another_model_is_refused() {
        let list = parameters();
        let mut optimizer = adam(&list, SETTINGS);
        let state = optimizer.state();
        assert_eq!(
            state.iter().map(|(name, _)| name.as_str()).take(3).collect::<Vec<_>>(),
            ["a.exp_avg", "a.exp_avg_sq", "a.step"]
        );
        assert!(optimizer.load_state(&state[1..]).is_err());
        let unknown = [("c.step".to_owned(), state[2].1.shallow_clone())];
        assert!(optimizer.load_state(&unknown).is_err());
    }

    #[test]
    fn groups_have_their_own_rates() {
        let list = parameters();
        let before = values(&list);
        let group = |i: usize, lr| ParameterGroup {
            parameters: vec![(list[i].0.clone(), list[i].1.shallow_clone())],
            settings: AdamSettings { lr, weight_decay: 0.0, ..SETTINGS },
        };
        let mut optimizer = Adam::new(&[group(0, 0.0), group(1, 1e-2)]).unwrap();
        let buckets = GradientBuckets::new(&list, 1 << 20, false).unwrap();
        run(&list, &buckets, &mut optimizer, 1);
        let after = values(&list);
        assert_eq!(before[..35], after[..35]);
        // The first step of Adam moves every number by the learning rate (its gradient is not zero
        // here but for weight index 2).
        let moved: Vec<f64> =
            before.iter().zip(&after).skip(35).map(|(a, b)| (a - b).abs()).collect();
        assert!(
            (moved[0] - 1e-2).abs() < 1e-6 && (moved[1] - 1e-2).abs() < 1e-6 && moved[2] == 0.0,
            "{moved:?}"
        );
    }
}
