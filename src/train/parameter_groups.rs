//! How parameters are grouped for the optimiser.

use tch::Tensor;

use super::objective::Objective;
use super::schedule::{OptimizerKind, Schedule};
use crate::torch::{AdamSettings, HEADS, ParameterGroup};

/// Groups of parameters that share a learning rate and a weight decay, in order of their first
/// member.
pub(super) fn groups<O: Objective>(
    parameters: &[(String, Tensor)],
    schedule: &Schedule,
    objective: &O,
) -> Vec<ParameterGroup> {
    let mut groups: Vec<ParameterGroup> = Vec::new();
    for (name, tensor) in parameters {
        let rate =
            objective.rate(name) * if name.starts_with(HEADS) { schedule.head_rate } else { 1.0 };
        let decays = !schedule.no_decay.iter().any(|part| name.contains(part.as_str()));
        let settings = AdamSettings {
            lr: schedule.learning_rate * rate,
            betas: (0.9, 0.999),
            eps: schedule.epsilon,
            weight_decay: if decays { schedule.weight_decay } else { 0.0 },
            decoupled: schedule.optimizer == OptimizerKind::Adamw,
            amsgrad: schedule.amsgrad,
        };
        let member = (name.clone(), tensor.shallow_clone());
        match groups.iter_mut().find(|group| group.settings == settings) {
            Some(group) => group.parameters.push(member),
            None => groups.push(ParameterGroup { parameters: vec![member], settings }),
        }
    }
    groups
}
