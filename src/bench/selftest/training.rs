//! Dropout, gradient hooks, buckets, norms and the optimiser.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tch::{Kind, Tensor};

use super::trial::{Numbers, Trial};
use crate::Result;
use crate::torch::dropout::{Dropout, dropout};
use crate::torch::hooks::on_gradient_ready;
use crate::torch::kernels::Segments;
use crate::torch::kernels::attention::varlen_attention;
use crate::torch::kernels::scores::ScoreTerms;
use crate::torch::nn::Packing;
use crate::torch::plain::adam::adam;
use crate::torch::plain::attention::attention;
use crate::torch::plain::far;
use crate::torch::{Adam, AdamSettings, GradientBuckets, ParameterGroup, on};

/// Probability of dropping. Salts name places in a network.
const P: f64 = 0.25;

pub(super) fn checks(trial: &mut Trial) -> Result<()> {
    dropout_of_states(trial)?;
    dropout_of_attention(trial)?;
    if trial.numbers == Numbers::Fp32 {
        locked_dropout(trial);
        hooks(trial);
        buckets(trial)?;
        optimiser(trial)?;
    }
    Ok(())
}

/// Keys of so many tokens, on the device.
fn active(trial: &mut Trial, tokens: u64) -> Result<Dropout> {
    let seed = trial.seed();
    let keys: Vec<i64> = (0..tokens).map(|at| Dropout::token_key(seed, 1, 0, at)).collect();
    Dropout::new(P, on(&keys, trial.device)?)
}

/// Five standard deviations of the share of `count` numbers that are kept.
fn spread(count: i64) -> f64 {
    5.0 * (P * (1.0 - P) / count as f64).sqrt()
}

/// The share of numbers above 0.
fn kept(numbers: &Tensor) -> Result<f64> {
    Ok(numbers.f_gt(0.0)?.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?.f_double_value(&[])?)
}

fn dropout_of_states(trial: &mut Trial) -> Result<()> {
    let kind = trial.numbers.precision().kind();
    let (tokens, width) = (1000, 76);
    let active = active(trial, tokens as u64)?;
    trial.check("dropout keeps the right share", spread(tokens * width), |trial| {
        let ones = Tensor::f_ones([tokens, width], (kind, trial.device))?;
        Ok((kept(&dropout(&ones, Some(&active), 3)?)? - (1.0 - P)).abs())
    });
    trial.check("dropout favours no channel", spread(tokens), |trial| {
        let ones = Tensor::f_ones([tokens, width], (kind, trial.device))?;
        let of_channels = dropout(&ones, Some(&active), 3)?
            .f_gt(0.0)?
            .f_to_kind(Kind::Double)?
            .f_mean_dim(0, false, Kind::Double)?;
        Ok((of_channels - (1.0 - P)).f_abs()?.f_max()?.f_double_value(&[])?)
    });
    // y = x·m and dy/dx = m, where m is 0 or 1/(1 − p).
    trial.check("the gradient of dropout is its mask", trial.numbers.tolerance(), |trial| {
        let x = trial.normal(&[tokens, width])?.f_to_device(trial.device)?.f_to_kind(kind)?;
        let x = x.f_abs()?.f_add_scalar(0.5)?.set_requires_grad(true);
        let y = dropout(&x, Some(&active), 4)?;
        y.f_sum(Kind::Float)?.f_backward()?;
        let mask = x.grad();
        let factor = mask.f_gt(0.0)?.f_to_kind(Kind::Double)? * (1.0 / (1.0 - P));
        let of_values = x.detach().f_mul(&mask)?;
        Ok(far(&mask, &factor).max(far(&y, &of_values)))
    });
    Ok(())
}

/// With the identity as values and equal scores, attention shows which probabilities it keeps. The
/// same draw then decides what random numbers must give.
fn dropout_of_attention(trial: &mut Trial) -> Result<()> {
    let (length, heads) = (64, 2);
    let (kind, device) = (trial.numbers.precision().kind(), trial.device);
    let seed = trial.seed().cast_signed();
    let active = active(trial, length as u64)?;
    let segments = Segments::new(&[0, length], device)?;
    let terms = ScoreTerms::plain(length);
    let attended = |stream: &Tensor| {
        // CUDA draws masks from libtorch's generator, the CPU from the keys.
        tch::manual_seed(seed);
        varlen_attention(&stream.f_to_kind(kind)?, &segments, &terms, Some(&active), 11)
    };
    let probe = Tensor::f_zeros([length, 3, heads, length], (Kind::Float, device))?;
    let identity = Tensor::f_eye(length, (Kind::Float, device))?.f_unsqueeze(1)?;
    probe.f_select(1, 2)?.f_copy_(&identity.f_expand([length, heads, length], false)?)?;
    let seen = attended(&probe)?.f_to_kind(Kind::Double)? * length as f64;
    let seen = seen.f_to_device(tch::Device::Cpu)?.f_view([length, heads, length])?;
    let share = spread(length * length * heads);
    trial.check("attention keeps the right share", share, |_| Ok((kept(&seen)? - (1.0 - P)).abs()));
    // [heads, L, L], free of rounding.
    let keep = seen.f_gt(0.0)?.f_transpose(0, 1)?.f_to_kind(Kind::Double)? * (1.0 / (1.0 - P));
    let stream = trial.normal(&[length, 3, heads, length])?;
    trial.hold(
        "attention with dropout",
        &[stream],
        |leaves| Ok(vec![attended(&leaves[0])?]),
        |leaves| vec![attention(&leaves[0], &[0, length], &terms, Some(&keep))],
    );
    Ok(())
}

fn locked_dropout(trial: &mut Trial) {
    trial.that("locked dropout has one mask a sequence", |trial| {
        let offsets = [0i64, 9, 9, 10, 30];
        let active = active(trial, 30)?;
        let segments = Segments::new(&offsets, trial.device)?;
        let locked = Packing::new(&segments, trial.device)?.lock(&active)?;
        let ones = Tensor::f_ones([30, 64], (Kind::Float, trial.device))?;
        let masked = dropout(&ones, Some(&locked), 5)?;
        for range in offsets.windows(2).filter(|range| range[0] < range[1]) {
            let first = masked.f_narrow(0, range[0], 1)?;
            let own = masked.f_narrow(0, range[0], range[1] - range[0])?;
            if !own.f_equal(&first.f_expand_as(&own)?)? {
                return Ok(Err(format!("tokens {} to {} differ", range[0], range[1])));
            }
        }
        let different = !masked.f_get(0)?.f_equal(&masked.f_get(29)?)?;
        Ok(if different { Ok(()) } else { Err("two sequences have the same mask".into()) })
    });
}

fn hooks(trial: &mut Trial) {
    trial.that("a gradient is reported once, when it is complete", |trial| {
        let x = Tensor::f_ones([300], (Kind::Float, trial.device))?.set_requires_grad(true);
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let guard =
            on_gradient_ready(&x, Arc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)))?;
        for expected in 1..=2 {
            (&x * 2.0 + &x).f_sum(Kind::Float)?.f_backward()?;
            let found = calls.load(Ordering::Relaxed);
            if found != expected {
                return Ok(Err(format!("{found} calls after {expected} backward passes")));
            }
        }
        drop(guard);
        let sum = x.grad().f_sum(Kind::Double)?.f_double_value(&[])?;
        Ok(if sum == 1800.0 { Ok(()) } else { Err(format!("the gradients' sum is {sum}")) })
    });
}

/// Parameters on the device with random values.
fn parameters(trial: &mut Trial, shapes: &[&[i64]]) -> Result<Vec<(String, Tensor)>> {
    let mut list = Vec::new();
    for (index, shape) in shapes.iter().enumerate() {
        let value = trial.normal(shape)?.f_to_device(trial.device)?;
        list.push((format!("p{index}"), value.set_requires_grad(true)));
    }
    Ok(list)
}

fn buckets(trial: &mut Trial) -> Result<()> {
    let list = parameters(trial, &[&[70, 300], &[11], &[40_000]])?;
    let factors: Vec<Tensor> =
        list.iter().map(|(_, p)| trial.normal(&p.size())).collect::<Result<_>>()?;
    let buckets = GradientBuckets::new(&list, 100_000, true)?;
    let backward = |trial: &Trial| -> Result<()> {
        for ((_, p), factor) in list.iter().zip(&factors) {
            (p * factor.f_to_device(trial.device)?).f_sum(Kind::Float)?.f_backward()?;
        }
        Ok(())
    };
    let flat = |tensors: &[Tensor]| {
        let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten(0, -1)).collect();
        Tensor::cat(&flat, 0).to_kind(Kind::Double)
    };
    let expected = flat(&factors);
    let gradients = || {
        flat(&list.iter().map(|(_, p)| p.grad().to_device(tch::Device::Cpu)).collect::<Vec<_>>())
    };
    trial.check("gradients add up in buckets", 1e-6, |trial| {
        buckets.zero()?;
        backward(trial)?;
        backward(trial)?;
        Ok(far(&gradients(), &(&expected * 2.0)))
    });
    trial.check("the norm of all gradients", 1e-6, |_| {
        let norm = expected.f_norm()?.f_double_value(&[])? * 2.0;
        Ok((buckets.norm()? / norm - 1.0).abs())
    });
    // On a GPU the optimiser divides instead.
    if !trial.device.is_cuda() {
        trial.check("clipping scales all gradients", 1e-6, |_| {
            buckets.scale(0.125)?;
            Ok(far(&gradients(), &(&expected * 0.25)))
        });
    }
    trial.that("a gradient that is not a number shows in the norm", |_| {
        (&list[1].1 * f64::NAN).f_sum(Kind::Float)?.f_backward()?;
        let norm = buckets.norm()?;
        Ok(if norm.is_nan() { Ok(()) } else { Err(format!("the norm is {norm}")) })
    });
    Ok(())
}

const SETTINGS: AdamSettings = AdamSettings {
    lr: 1e-2,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.1,
    decoupled: true,
    amsgrad: false,
};

/// Ten steps on Σ w·p², whose gradient is 2·w·p.
fn optimiser(trial: &mut Trial) -> Result<()> {
    for (name, decoupled, amsgrad) in
        [("AdamW", true, false), ("Adam", false, false), ("AdamW, AMSGrad", true, true)]
    {
        let settings = AdamSettings { decoupled, amsgrad, ..SETTINGS };
        let list = parameters(trial, &[&[70, 30], &[11]])?;
        trial.check(format!("ten steps of {name}"), 1e-5, |trial| {
            let mut starts = Vec::new();
            for (_, p) in &list {
                // Away from 0, where a step's direction hangs on rounding.
                let factor = trial.generator()?.uniform(&p.size(), 0.5, 2.0)?;
                starts.push((p.detach().copy(), factor));
            }
            let buckets = GradientBuckets::new(&list, 1 << 20, true)?;
            let copy = |(name, p): &(String, Tensor)| (name.clone(), p.shallow_clone());
            let parameters = list.iter().map(copy).collect();
            let mut optimizer = Adam::new(&[ParameterGroup { parameters, settings }])?;
            for _ in 0..10 {
                buckets.zero()?;
                for ((_, p), (_, factor)) in list.iter().zip(&starts) {
                    let factor = factor.f_to_device(trial.device)?;
                    p.f_square()?.f_mul(&factor)?.f_sum(Kind::Float)?.f_backward()?;
                }
                optimizer.step(None)?;
            }
            let numbers = |tensor: &Tensor| -> Result<Vec<f64>> {
                let flat = tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?;
                Ok(Vec::try_from(flat.f_flatten(0, -1)?)?)
            };
            let mut largest = 0f64;
            for ((_, p), (start, factor)) in list.iter().zip(&starts) {
                let after: Vec<f64> = numbers(start)?
                    .into_iter()
                    .zip(numbers(factor)?)
                    .map(|(p, w)| adam(&settings, p, |p| 2.0 * w * p, 10))
                    .collect();
                let after = Tensor::f_from_slice(&after)?.f_view_as(p)?;
                largest = largest.max(far(p, &after));
            }
            Ok(largest)
        });
    }
    Ok(())
}
