//! Products, activations, bags, pairs, recurrent layers and losses.

use tch::{Device, Kind, Tensor};

use super::trial::{Numbers, Trial};
use crate::Result;
use crate::torch::kernels::Segments;
use crate::torch::kernels::activations::{Activation, log_sum_exp};
use crate::torch::kernels::bags::{Bags, GroupSoftmax, take};
use crate::torch::kernels::grouped::grouped_bilinear;
use crate::torch::kernels::pairs::{ranking_matrix, ranking_scores, relation_vectors};
use crate::torch::kernels::products::{batched, batched_turned, dot, linear, matmul};
use crate::torch::nn::losses::{
    FocalWeight, adaptive_focal_sum, adaptive_threshold_sum, bce_sum, cross_entropy_sum,
    soft_margin_sum,
};
use crate::torch::nn::{LayerNorm, LstmShape, PackedLstm, Packing, lookup, lstm_layer};
use crate::torch::plain::recurrent::lstm;
use crate::torch::plain::{double, losses, pairs as plain};
use crate::torch::{Parameters, on};

pub(super) fn checks(trial: &mut Trial) -> Result<()> {
    products(trial)?;
    activations(trial)?;
    norms_and_tables(trial)?;
    bags(trial)?;
    pairs(trial)?;
    recurrent(trial)?;
    all_losses(trial)
}

fn products(trial: &mut Trial) -> Result<()> {
    let precision = trial.numbers.precision();
    let few = move |tensor: &Tensor| tensor.f_to_kind(precision.kind());
    for (rows, inner, columns) in [(127, 300, 65), (5, 17, 1), (0, 3, 4)] {
        let x = trial.normal(&[rows, inner])?;
        let (weight, bias) = (trial.normal(&[columns, inner])?, trial.normal(&[columns])?);
        trial.hold(
            format!("linear, {rows} × {inner} → {columns}"),
            &[x, weight, bias],
            |leaves| Ok(vec![linear(&few(&leaves[0])?, &leaves[1], Some(&leaves[2]))?]),
            |leaves| vec![leaves[0].matmul(&leaves[1].tr()) + &leaves[2]],
        );
    }
    let (x, weight) = (trial.normal(&[70, 130])?, trial.normal(&[130, 40])?);
    trial.hold(
        "matrix product",
        &[x, weight],
        |leaves| Ok(vec![matmul(&few(&leaves[0])?, &few(&leaves[1])?)?]),
        |leaves| vec![leaves[0].matmul(&leaves[1])],
    );
    let (x, vector) = (trial.normal(&[33, 70])?, trial.normal(&[70])?);
    trial.hold(
        "product with a vector",
        &[x, vector],
        |leaves| Ok(vec![dot(&few(&leaves[0])?, &leaves[1])?]),
        |leaves| vec![leaves[0].mv(&leaves[1])],
    );
    let (x, y) = (trial.normal(&[5, 33, 70])?, trial.normal(&[5, 70, 19])?);
    trial.hold(
        "batched products",
        &[x, y],
        |leaves| {
            let (x, y) = (few(&leaves[0])?, few(&leaves[1])?);
            Ok(vec![batched(&x, &y)?, batched_turned(&x, &y.f_transpose(1, 2)?.f_contiguous()?)?])
        },
        |leaves| vec![leaves[0].bmm(&leaves[1]), leaves[0].bmm(&leaves[1])],
    );
    Ok(())
}

/// A function of every element, in doubles.
type Formula = fn(&Tensor) -> Tensor;

fn activations(trial: &mut Trial) -> Result<()> {
    let precision = trial.numbers.precision();
    let formulas: [(&str, Activation, Formula); 4] = [
        // Φ by the error function; the other GELU by its polynomial.
        ("gelu", Activation::Gelu, |x| x * ((x / 2f64.sqrt()).erf() + 1.0) * 0.5),
        ("gelu, tanh", Activation::GeluTanh, |x| {
            let inner =
                (x + x.pow_tensor_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * (inner.tanh() + 1.0) * 0.5
        }),
        ("tanh", Activation::Tanh, |x| 1.0 - 2.0 / ((x * 2.0).exp() + 1.0)),
        ("sigmoid", Activation::Sigmoid, |x| 1.0 / ((-x).exp() + 1.0)),
    ];
    for (name, activation, formula) in formulas {
        let x = trial.normal(&[61, 37])?;
        trial.hold(
            name,
            &[x],
            |leaves| Ok(vec![activation.apply(&leaves[0].f_to_kind(precision.kind())?)?]),
            |leaves| vec![formula(&leaves[0])],
        );
    }
    let x = trial.normal(&[5, 4, 37])?;
    trial.hold(
        "log of a sum of exponentials",
        &[x],
        |leaves| Ok(vec![log_sum_exp(&leaves[0])?]),
        |leaves| vec![leaves[0].exp().sum_dim_intlist(1, false, Kind::Double).log()],
    );
    Ok(())
}

fn norms_and_tables(trial: &mut Trial) -> Result<()> {
    let device = trial.device;
    let mut parameters = Parameters::new(trial.seed(), device);
    let norm = LayerNorm::declare(&mut parameters, "norm", 48, 1e-12)?;
    let (weight, bias) = (trial.normal(&[48])?, trial.normal(&[48])?);
    parameters.assign("norm.weight", &weight)?;
    parameters.assign("norm.bias", &bias)?;
    let x = trial.normal(&[23, 48])?;
    trial.hold(
        "layer norm",
        &[x],
        |leaves| Ok(vec![norm.forward(&leaves[0])?]),
        |leaves| {
            let mean = leaves[0].mean_dim(1, true, Kind::Double);
            let centred = &leaves[0] - mean;
            let variance = centred.square().mean_dim(1, true, Kind::Double);
            vec![centred / (variance + 1e-12).sqrt() * double(&weight) + double(&bias)]
        },
    );
    let rows = [3i64, 0, 3, 10, 7];
    let table = trial.normal(&[11, 48])?;
    trial.hold(
        "rows of tables",
        &[table],
        |leaves| Ok(vec![lookup(&leaves[0], &on(&rows, device)?)?, take(&leaves[0], &rows)?]),
        |leaves| {
            let rows = leaves[0].index_select(0, &Tensor::from_slice(&rows));
            vec![rows.shallow_clone(), rows]
        },
    );
    Ok(())
}

fn bags(trial: &mut Trial) -> Result<()> {
    // The second bag is empty, and the last.
    let rows = [vec![0i64, 2, 2], vec![], vec![5, 1, 3, 0], vec![]];
    let mut bags = Bags::default();
    rows.iter().for_each(|rows| bags.push(rows.iter().map(|&row| (row, 1.0))));
    let inputs = [trial.normal(&[6, 40])?, trial.normal(&[7])?];
    trial.hold(
        "sums of bags",
        &inputs,
        |leaves| Ok(vec![bags.weighted_sum(&leaves[0], &leaves[1])?, bags.sum(&leaves[0])?]),
        |leaves| {
            let ones = leaves[1].ones_like();
            vec![plain::bags(&leaves[0], &rows, &leaves[1]), plain::bags(&leaves[0], &rows, &ones)]
        },
    );
    let offsets = [0, 7, 7, 47];
    let softmax = GroupSoftmax::new(&offsets, 3);
    let scores = trial.normal(&[47, 3])?;
    trial.hold(
        "softmax of groups",
        &[scores],
        |leaves| Ok(vec![softmax.forward(&leaves[0])?]),
        |leaves| vec![plain::group_softmax(&leaves[0], &offsets)],
    );
    Ok(())
}

fn pairs(trial: &mut Trial) -> Result<()> {
    let precision = trial.numbers.precision();
    for (pairs, classes, blocks, b) in [(130, 97, 3, 64), (7, 9, 4, 5), (0, 5, 4, 2)] {
        let inputs = [
            trial.normal(&[pairs, blocks * b])?,
            trial.normal(&[pairs, blocks * b])?,
            trial.normal(&[classes, blocks * b * b])?,
            trial.normal(&[classes])?,
        ];
        trial.hold(
            format!("grouped bilinear layer, {pairs} pairs"),
            &inputs,
            |leaves| {
                let [heads, tails, weight] = [0, 1, 2].map(|at| &leaves[at]);
                let bias = Some(&leaves[3]);
                Ok(vec![grouped_bilinear(heads, tails, weight, bias, blocks, precision)?])
            },
            |leaves| vec![plain::grouped(&leaves[0], &leaves[1], &leaves[2], blocks) + &leaves[3]],
        );
    }
    let heads = [0, 1, 2, 3, 4, 0, 6, 6, 1, 0, 0];
    let tails = [5, 5, 5, 5, 5, 1, 1, 2, 1, 5, 5];
    let inputs = [
        trial.normal(&[7, 48])?,
        trial.normal(&[20, 48, 48])?,
        trial.normal(&[20])?,
        trial.normal(&[1, 20])?,
        trial.normal(&[1])?,
    ];
    trial.hold(
        "relation vectors and ranking scores",
        &inputs,
        |leaves| {
            let vectors = relation_vectors(&leaves[0], &heads, &tails, &leaves[1], &leaves[2])?;
            let (matrix, constant) =
                ranking_matrix(&leaves[1], &leaves[2], &leaves[3], &leaves[4])?;
            let scores = ranking_scores(&leaves[0], &heads, &tails, &matrix, &constant)?;
            Ok(vec![vectors, scores])
        },
        |leaves| {
            let vectors =
                plain::relation_vectors(&leaves[0], &heads, &tails, &leaves[1], &leaves[2]);
            let scores = vectors.mv(&leaves[3].get(0)) + &leaves[4];
            vec![vectors, scores]
        },
    );
    Ok(())
}

fn recurrent(trial: &mut Trial) -> Result<()> {
    // cuDNN and the kernel compute in 32 bits; models never ask for others.
    if trial.numbers == Numbers::Bf16 {
        return Ok(());
    }
    let (input, hidden, device) = (20, 33, trial.device);
    let offsets = [0, 3, 3, 4, 21, 26, 27, 40];
    let sequences = offsets.len() as i64 - 1;
    let segments = Segments::new(&offsets, device)?;
    let packing = Packing::new(&segments, device)?;
    for directions in [1, 2] {
        let mut inputs = vec![trial.normal(&[40, input])?];
        let scale = 1.0 / (hidden as f64).sqrt();
        for _ in 0..2 {
            inputs.push(trial.normal(&[directions, sequences, hidden])? * 0.5);
        }
        for _ in 0..directions {
            for shape in [&[4 * hidden, input][..], &[4 * hidden, hidden], &[4 * hidden]] {
                inputs.push(trial.normal(shape)? * scale);
            }
            inputs.push(trial.normal(&[4 * hidden])? * scale);
        }
        trial.hold(
            format!("LSTM, {directions} direction{}", if directions == 1 { "" } else { "s" }),
            &inputs,
            |leaves| {
                let weights: Vec<&Tensor> = leaves[3..].iter().collect();
                let start = Some([&leaves[1], &leaves[2]]);
                let out = lstm_layer(&leaves[0], &packing, &weights, start, true)?;
                Ok(vec![out.states, out.hidden, out.cell])
            },
            |leaves| lstm(&leaves[0], &offsets, &leaves[3..], [&leaves[1], &leaves[2]]).into(),
        );
    }
    stack(trial, &segments)
}

/// Two layers as models declare them.
fn stack(trial: &mut Trial, segments: &Segments) -> Result<()> {
    let (input, hidden, device) = (12, 8, trial.device);
    let shape = LstmShape { input, hidden, layers: 2, bidirectional: true };
    let seed = trial.seed();
    let x = trial.normal(&[segments.tokens(), input])?;
    let on_cpu = Parameters::new(seed, Device::Cpu);
    let mut parameters = [Parameters::new(seed, device), on_cpu];
    let stack = PackedLstm::declare("rnn", shape, &mut parameters[0])?;
    PackedLstm::declare("rnn", shape, &mut parameters[1])?;
    let offsets = segments.offsets.clone();
    trial.hold(
        "stack of LSTMs",
        &[x],
        |leaves| Ok(vec![stack.read(&leaves[0], segments, None, 1, true)?]),
        |leaves| {
            let layer = |layer: usize, x: &Tensor| {
                let named = |part: &str| {
                    let own = parameters[1].get(&format!("rnn.{part}"));
                    double(own.unwrap_or_else(|| panic!("rnn.{part} was not declared")))
                };
                let weights: Vec<Tensor> = ["", "_reverse"]
                    .iter()
                    .flat_map(|end| {
                        ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                            .map(|part| named(&format!("rnns.{layer}.{part}_l0{end}")))
                    })
                    .collect();
                let start = ["init_hidden", "init_c"].map(|part| {
                    let state = named(&format!("{part}.{layer}"));
                    state.expand([-1, offsets.len() as i64 - 1, -1], false)
                });
                let [states, ..] = lstm(x, &offsets, &weights, start.each_ref());
                states
            };
            vec![layer(1, &layer(0, &leaves[0]))]
        },
    );
    Ok(())
}

fn all_losses(trial: &mut Trial) -> Result<()> {
    let (pairs, classes, device) = (12, 7, trial.device);
    let answers: Vec<i64> = (0..pairs).map(|pair| (3 * pair) % classes).collect();
    // Several relations, one, none: with the threshold marked or not.
    let held = trial.generator()?.uniform(&[pairs, classes], 0.0, 1.0)?.f_gt(0.7)?;
    let targets = held.f_to_kind(Kind::Float)?;
    let soft = trial.generator()?.uniform(&[pairs, classes], 0.0, 1.0)?;
    let weights = trial.generator()?.uniform(&[pairs, classes], 0.0, 1.0)?;
    let of = |tensor: &Tensor| tensor.f_to_device(device);
    let focal = FocalWeight { base: 1.0, gamma: 2.0 };
    let logits = trial.normal(&[pairs, classes])?;
    trial.hold(
        "losses",
        &[logits],
        |leaves| {
            let logits = &leaves[0];
            Ok(vec![
                cross_entropy_sum(logits, &answers)?,
                bce_sum(logits, &of(&soft)?)?,
                soft_margin_sum(logits, &of(&soft)?, &of(&weights)?)?,
                adaptive_threshold_sum(logits, &of(&targets)?)?,
                adaptive_focal_sum(logits, &of(&targets)?, focal)?,
            ])
        },
        |leaves| {
            let logits = &leaves[0];
            vec![
                losses::cross_entropy_sum(logits, &answers),
                losses::weighted_bce_sum(logits, &soft, &soft.ones_like()),
                losses::soft_margin_sum(logits, &soft, &weights),
                losses::adaptive_threshold_sum(logits, &targets),
                losses::adaptive_focal_sum(logits, &targets, focal),
            ]
        },
    );
    Ok(())
}
