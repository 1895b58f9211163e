//! The inference module (docs/systems.md, I.6–I.14; Zhang et al. 2022, eq. 5–12): N_I layers over
//! the feature matrix F and the relation matrix R, and a classifier.
//!
//! Matrices are rows of pairs, [P, W]; only attention sees them as grids.

use tch::Tensor;

use super::base::NORM_EPS;
use super::eca::{DeviceGrids, Eca, PairDropout};
use super::settings::DocreIiSettings;
use crate::Result;
use crate::torch::dropout::dropout;
use crate::torch::kernels::activations::Activation;
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Init, Parameters};

/// Places of dropout in one layer.
const SALTS_A_LAYER: u64 = 8;

/// The inference module.
pub(super) struct InferenceModule {
    reduce: Linear,
    /// Embeddings of the relations; [C, W].
    pub(super) relations: Tensor,
    layers: Vec<InferenceLayer>,
    dense: Option<(Linear, LayerNorm)>,
    pub(super) classifier: Linear,
}

/// A run of the module over one batch: its grids, dropout, and where its masks begin.
pub(super) struct ModulePass<'a> {
    pub grids: &'a DeviceGrids<'a>,
    pub drop: Option<&'a PairDropout>,
    pub salt: u64,
}

/// Linear layer, dropout, norm over [F; R].
fn project(
    part: &(Linear, LayerNorm),
    first: &Tensor,
    second: &Tensor,
    run: &ModulePass,
    salt: u64,
) -> Result<Tensor> {
    let inner = part.0.forward_parts(&[(first, None), (second, None)])?;
    part.1.forward(&dropout(&inner, run.drop.map(|drop| &drop.pairs), salt)?)
}

fn projection(parameters: &mut Parameters, name: &str, width: i64) -> Result<(Linear, LayerNorm)> {
    let linear = Linear::declare(parameters, &format!("{name}.0"), 2 * width, width)?;
    Ok((linear, LayerNorm::declare(parameters, &format!("{name}.2"), width, NORM_EPS)?))
}

impl InferenceModule {
    /// Declares the module; `input` is the width of the base module's features.
    pub(super) fn declare(
        parameters: &mut Parameters,
        settings: &DocreIiSettings,
        input: i64,
        classes: i64,
    ) -> Result<Self> {
        let width = settings.inference_width;
        let xavier = Init::Uniform { bound: (6.0 / (classes + width) as f64).sqrt() };
        let layer = |index: usize, parameters: &mut Parameters| {
            InferenceLayer::declare(
                parameters,
                &format!("heads.CCA.Online_inference.Layers.{index}"),
                settings,
            )
        };
        let dense = settings
            .project_inputs
            .then(|| projection(parameters, "heads.CCA.Online_inference.dense", width))
            .transpose()?;
        Ok(Self {
            reduce: Linear::without_bias(
                parameters,
                "heads.CCA.Reduce_dense.0.weight",
                input,
                width,
            )?,
            relations: parameters.declare("heads.CCA.relation_rep1", &[classes, width], xavier)?,
            layers: (0..settings.inference_layers)
                .map(|index| layer(index, parameters))
                .collect::<Result<_>>()?,
            classifier: Linear::declare(
                parameters,
                "heads.CCA.relation_layer",
                Self::output_width(settings),
                classes,
            )?,
            dense,
        })
    }

    /// Width of the module's output O.
    pub(super) fn output_width(settings: &DocreIiSettings) -> i64 {
        if settings.project_inputs {
            settings.inference_width
        } else {
            2 * settings.inference_width
        }
    }

    /// F_0 of the base module's features; [P, W].
    pub(super) fn reduce(
        &self,
        features: &Tensor,
        drop: Option<&PairDropout>,
        salt: u64,
    ) -> Result<Tensor> {
        dropout(&self.reduce.forward(features)?, drop.map(|drop| &drop.pairs), salt)
    }

    /// O of (F, R); [P, W] (\[F; R\] of the last layer where nothing is projected).
    pub(super) fn forward(
        &self,
        features: &Tensor,
        relations: &Tensor,
        run: &ModulePass,
    ) -> Result<Tensor> {
        let (mut f, mut r) = (features.shallow_clone(), relations.shallow_clone());
        let mut salt = run.salt;
        for layer in &self.layers {
            (f, r) = layer.forward(&f, &r, run, salt)?;
            salt += SALTS_A_LAYER;
        }
        match &self.dense {
            Some(dense) => project(dense, &f, &r, run, salt),
            None => Ok(Tensor::f_cat(&[f, r], 1)?),
        }
    }

    /// Places of dropout that one pass takes.
    pub(super) fn salts(&self) -> u64 {
        SALTS_A_LAYER * self.layers.len() as u64 + 1
    }
}

/// One inference layer.
struct InferenceLayer {
    combine: Option<(Linear, LayerNorm)>,
    features: Eca,
    relations: Eca,
    gate: Option<Linear>,
    features_output: FeedForward,
    relations_output: FeedForward,
}

impl InferenceLayer {
    fn declare(
        parameters: &mut Parameters,
        name: &str,
        settings: &DocreIiSettings,
    ) -> Result<Self> {
        let width = settings.inference_width;
        let keys = InferenceModule::output_width(settings);
        let combine = settings
            .project_inputs
            .then(|| projection(parameters, &format!("{name}.combine"), width))
            .transpose()?;
        let eca = |parameters: &mut Parameters, part: &str| {
            Eca::declare(parameters, &format!("{name}.{part}"), [keys, width], settings)
        };
        let gate = settings
            .fusion
            .then(|| Linear::declare(parameters, &format!("{name}.gate.0"), 2 * width, width))
            .transpose()?;
        Ok(Self {
            combine,
            features: eca(parameters, "Self_Attention")?,
            relations: eca(parameters, "Cross_Attention")?,
            gate,
            features_output: FeedForward::declare(
                parameters,
                &format!("{name}.mid_output"),
                width,
                settings.ffn_width,
            )?,
            relations_output: FeedForward::declare(
                parameters,
                &format!("{name}.mid_output1"),
                width,
                settings.ffn_width,
            )?,
        })
    }

    /// (F, R) → (F', R'); masks are drawn with `salt` and the [`SALTS_A_LAYER`] − 1 numbers after
    /// it.
    fn forward(
        &self,
        f: &Tensor,
        r: &Tensor,
        run: &ModulePass,
        salt: u64,
    ) -> Result<(Tensor, Tensor)> {
        let m = match &self.combine {
            Some(combine) => project(combine, f, r, run, salt)?,
            None => Tensor::f_cat(&[f, r], 1)?,
        };
        let inferred_f = self.features.forward(f, &m, run.grids, run.drop, salt + 1)?;
        let inferred_r = self.relations.forward(r, &m, run.grids, run.drop, salt + 3)?;
        let (to_f, to_r) = match &self.gate {
            Some(gate) => {
                let both = gate.forward_parts(&[(&inferred_f, None), (&inferred_r, None)])?;
                let share = Activation::Sigmoid.apply(&both)?;
                let fused = inferred_r.f_lerp_tensor(&inferred_f, &share)?;
                (fused.shallow_clone(), fused)
            }
            None => (inferred_f, inferred_r),
        };
        Ok((
            self.features_output.forward(f, &to_f, run, salt + 5)?,
            self.relations_output.forward(r, &to_r, run, salt + 6)?,
        ))
    }
}

/// LayerNorm(x + FNN(m)).
struct FeedForward {
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
}

impl FeedForward {
    fn declare(parameters: &mut Parameters, name: &str, width: i64, inner: i64) -> Result<Self> {
        Ok(Self {
            inner: Linear::declare(parameters, &format!("{name}.dense1"), width, inner)?,
            outer: Linear::declare(parameters, &format!("{name}.dense2"), inner, width)?,
            norm: LayerNorm::declare(parameters, &format!("{name}.LayerNorm2"), width, NORM_EPS)?,
        })
    }

    fn forward(&self, x: &Tensor, m: &Tensor, run: &ModulePass, salt: u64) -> Result<Tensor> {
        let inner = self.outer.forward(&self.inner.forward(m)?.f_relu()?)?;
        self.norm.forward_sum(x, &inner, run.drop.map(|drop| &drop.pairs), salt)
    }
}
