//! A step of pre-training on a GPU: what it computes, and what it starts and waits for.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::*;
use crate::base::Progress;
use crate::ranks::{World, simulated_world};
use crate::torch::mock_gpu::{GPU, GpuWork, with_mock_gpu};
use crate::train::{
    Boundary, RunFolder, Schedule, Signals, StageContext, Trainer, TrainerSettings, TrainerState,
    WirePrecision,
};

/// As many layers as BERT-base has; kernels do not depend on widths.
const LAYERS: i64 = 12;
const WIDTH: i64 = 32;
const DOCUMENT_PAIRS: usize = 3;

fn deep_model(device: Device, dropout: f64) -> DsdocreModel {
    let sizes = json!({
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 16,
    });
    let mut parameters = Parameters::new(5, device);
    let encoder = build(&EncoderSpec::preset("tiny", sizes), 50, &mut parameters).unwrap();
    let foundation = foundation_of(encoder, parameters, &[]);
    let foundation = Foundation { dropout: Some(dropout), ..foundation };
    let settings = DsdocreSettings { relation_width: 8, ..DsdocreSettings::default() };
    DsdocreModel::new(foundation, ModelKind::Pretrainer, &settings).unwrap()
}

/// The same micro-batch at every step.
struct Same;

impl BatchSource for Same {
    type Batch = PretrainBatch;

    fn prepare(&self, _step: u64, _share: Share) -> Result<StepBatches<PretrainBatch>> {
        let items: Vec<_> = (0..DOCUMENT_PAIRS).map(|number| (number, item(number))).collect();
        let micro = vec![batch(&items, MentionVectors::Entities)];
        Ok(StepBatches { micro, rows: (0..2 * DOCUMENT_PAIRS).collect() })
    }
}

struct Nothing;

impl Boundary for Nothing {
    fn reached(&mut self, _: &mut TrainerState, _: &Progress) -> Result<bool> {
        Ok(false)
    }
    fn save(&mut self, _: &TrainerState, _: Vec<(String, Tensor)>) -> Result<()> {
        Ok(())
    }
}

/// Trains for some steps; the weights afterwards.
fn trained(model: &DsdocreModel, steps: u64, precision: Precision) -> Vec<(String, Tensor)> {
    let settings = DsdocreSettings::default();
    let pretrainer = Pretrainer { model, settings: &settings };
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(Arc::new(simulated_world(1).remove(0)));
    let (run, signals) = (RunFolder::shared(folder.path()), Signals::default());
    let context = StageContext { stage: "pretrain", world: &world, run: &run, signals: &signals };
    let schedule = Schedule { learning_rate: 1e-3, clip: 0.5, ..Schedule::base() };
    let settings = TrainerSettings {
        schedule,
        total_steps: steps,
        boundary_steps: 0,
        precision,
        deterministic: false,
        wire: WirePrecision::Fp32,
        seed: 1,
    };
    let state = TrainerState { total_steps: steps, ..TrainerState::default() };
    let mut trainer = Trainer::new(&pretrainer, settings, &world, state).unwrap();
    trainer.run(&Same, &context, &mut None, &mut Nothing).unwrap();
    let parameters = model.foundation.parameters.iter();
    parameters.map(|entry| (entry.name.clone(), entry.tensor.detach().to(Device::Cpu))).collect()
}

/// What one step does: the work of three steps less that of one, halved.
fn work_of_a_step() -> GpuWork {
    let work_of = |steps| {
        let model = deep_model(GPU, 0.1);
        GpuWork::take();
        trained(&model, steps, Precision::Bf16);
        GpuWork::take()
    };
    let one = work_of(1);
    let mut two = work_of(3).minus(&one);
    for list in [&mut two.launches, &mut two.uploads, &mut two.waits] {
        list.values_mut().for_each(|count| *count /= 2);
    }
    two
}

#[test]
fn a_step_starts_few_kernels_and_seldom_waits() {
    with_mock_gpu(concat!(module_path!(), "::a_step_starts_few_kernels_and_seldom_waits"), || {
        let work = work_of_a_step();
        println!("{work}");
        assert!(work.started() <= 900 && work.waited() <= 3, "{work}");
    });
}

/// Sums of the slots, and the gradient as one vector on the CPU.
fn losses_and_gradient(device: Device, precision: Precision) -> (Vec<f64>, Tensor) {
    let (model, settings) = (deep_model(device, 0.0), DsdocreSettings::default());
    let pretrainer = Pretrainer { model: &model, settings: &settings };
    let micro = Same.prepare(0, Share { rank: 0, world: 1 }).unwrap().micro.remove(0);
    let slots = pretrainer.forward(&micro, Forward { train: true, precision }).unwrap();
    let sums = slots.iter().map(|slot| slot.double_value(&[])).collect();
    slots.iter().map(Tensor::shallow_clone).sum::<Tensor>().backward();
    let gradients = model.foundation.parameters.trainable().map(|parameter| {
        let gradient = parameter.tensor.grad();
        let none = || parameter.tensor.detach().zeros_like();
        let gradient = if gradient.defined() { gradient } else { none() };
        gradient.to(Device::Cpu).flatten(0, -1)
    });
    (sums, Tensor::cat(&gradients.collect::<Vec<_>>(), 0))
}

#[test]
fn a_gpu_computes_the_losses_and_the_gradient_of_the_cpu() {
    let name = concat!(module_path!(), "::a_gpu_computes_the_losses_and_the_gradient_of_the_cpu");
    with_mock_gpu(name, || {
        // Sums of 32 bits in other orders; numbers of 8 bits through twelve layers.
        for (precision, of_losses, of_gradient) in
            [(Precision::Fp32, 1e-5, 1e-4), (Precision::Bf16, 0.02, 0.1)]
        {
            let (expected, gradient) = losses_and_gradient(Device::Cpu, precision);
            let (sums, on_gpu) = losses_and_gradient(GPU, precision);
            for (slot, (sum, expected)) in SLOTS.iter().zip(sums.iter().zip(&expected)) {
                let far = (sum - expected).abs() / expected;
                assert!(far < of_losses, "{slot} in {precision:?}: {sum}, not {expected}");
            }
            let far = (&on_gpu - &gradient).norm().double_value(&[]);
            let share = far / gradient.norm().double_value(&[]);
            assert!(share < of_gradient, "{precision:?}: {share}");
        }
    });
}

#[test]
fn a_gpu_clips_and_updates_as_the_cpu_does() {
    let name = concat!(module_path!(), "::a_gpu_clips_and_updates_as_the_cpu_does");
    with_mock_gpu(name, || {
        let [expected, on_gpu] =
            [Device::Cpu, GPU].map(|device| trained(&deep_model(device, 0.0), 1, Precision::Fp32));
        for ((name, expected), (_, on_gpu)) in expected.iter().zip(&on_gpu) {
            // Adam moves a weight by up to 1e-3. A gradient near ε = 1e-6 is not exact enough to
            // say by how much.
            let far = (on_gpu - expected).abs();
            let many = far.gt(2e-5).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!(many < 0.02, "{name}: {many}");
        }
    });
}
