//! The contrastive loss of stage 2 (docs/systems.md, I.19 and I.22; Zhang et al. 2022, eq. 14): a
//! predictor, and what it is compared with.

use tch::{Kind, Tensor};

use super::eca::DeviceGrids;
use super::settings::DocreIiSettings;
use crate::Result;
use crate::torch::HEADS;
use crate::torch::kernels::products::batched_turned;
use crate::torch::nn::Linear;
use crate::torch::{Init, Parameters};

const BATCH_NORM_EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;
const COSINE_EPS: f64 = 1e-8;
const MASKED: f64 = -1e30;

/// Linear, BatchNorm over all pairs of the batch, ReLU, Linear. The batch statistics are those of a
/// micro-batch: under accumulation or many ranks they differ from one large batch, as they do in
/// the release.
pub(super) struct ContrastPredictor {
    first: Linear,
    scale: Tensor,
    shift: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    last: Linear,
}

impl ContrastPredictor {
    pub(super) fn declare(parameters: &mut Parameters, width: i64) -> Result<Self> {
        let name = |part: &str| format!("{HEADS}CCA.MLP.1.{part}");
        Ok(Self {
            first: Linear::declare(parameters, "heads.CCA.MLP.0", width, width)?,
            scale: parameters.declare(name("weight"), &[width], Init::Ones)?,
            shift: parameters.declare(name("bias"), &[width], Init::Zeros)?,
            running_mean: parameters.declare_frozen(name("running_mean"), &[width], Init::Zeros)?,
            running_variance: parameters.declare_frozen(
                name("running_var"),
                &[width],
                Init::Ones,
            )?,
            last: Linear::declare(parameters, "heads.CCA.MLP.3", width, width)?,
        })
    }

    /// [P, W] → [P, W]; in training with the statistics of these rows, which also move the running
    /// ones. A single row has no variance, so the running statistics serve there.
    pub(super) fn forward(&self, output: &Tensor, train: bool) -> Result<Tensor> {
        let inner = self.first.forward(output)?;
        let (mean, variance) = (Some(&self.running_mean), Some(&self.running_variance));
        let by_batch = train && inner.size()[0] > 1;
        let (scale, shift) = (Some(&self.scale), Some(&self.shift));
        let inner = inner.f_batch_norm(
            scale,
            shift,
            mean,
            variance,
            by_batch,
            MOMENTUM,
            BATCH_NORM_EPS,
            false,
        )?;
        self.last.forward(&inner.f_relu()?)
    }
}

/// Σ over pairs of 2 − 2 cos(prediction, target), without gradient to the target.
pub(super) fn attraction(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    let cosine = Tensor::f_cosine_similarity(prediction, &target.f_detach()?, 1, COSINE_EPS)?;
    Ok(cosine.f_mul_scalar(-2.0)?.f_add_scalar(2.0)?.f_sum(Kind::Float)?)
}

/// Σ over pairs of SimCLR's loss between two views (Chen et al. 2020), both directions, halved: the
/// other view of a pair against all other pairs of its document in both views.
pub(super) fn separation(
    a: &Tensor,
    b: &Tensor,
    grids: &DeviceGrids,
    settings: &DocreIiSettings,
) -> Result<Tensor> {
    let mut sum = a.f_sum(Kind::Float)?.f_mul_scalar(0.0)?;
    let unit = |x: &Tensor| -> Result<Tensor> {
        DeviceGrids::closed(
            &x.f_div(&x.f_norm_scalaropt_dim(2.0, [1], true)?.f_clamp_min(COSINE_EPS)?)?,
        )
    };
    let (a, b) = (unit(a)?, unit(b)?);
    for (grid, cells) in grids.iter() {
        let valid = grids.valid(grid, cells)?.f_view([grid.documents as i64, -1])?; // [G, N²]
        let count = valid.size()[1];
        let take = |rows: &Tensor| -> Result<Tensor> {
            Ok(rows.f_index_select(0, cells)?.f_view([grid.documents as i64, count, -1])?)
        };
        let (a, b) = (take(&a)?, take(&b)?);
        let same = Tensor::f_eye(count, (Kind::Bool, a.device()))?.f_unsqueeze(0)?;
        let absent = valid.f_logical_not()?.f_unsqueeze(1)?;
        let similar = |x: &Tensor, y: &Tensor, hidden: &Tensor| -> Result<Tensor> {
            Ok(batched_turned(x, y)?
                .f_div_scalar(settings.temperature)?
                .f_masked_fill(hidden, MASKED)?)
        };
        let direction = |x: &Tensor, y: &Tensor| -> Result<Tensor> {
            let (other, own) =
                (similar(x, y, &absent)?, similar(x, x, &absent.f_logical_or(&same)?)?);
            let all = Tensor::f_cat(&[&other, &own], 2)?.f_logsumexp(2, false)?;
            let lost = all.f_sub(&other.f_diagonal(0, 1, 2)?)?;
            Ok(lost.f_masked_fill(&valid.f_logical_not()?, 0.0)?.f_sum(Kind::Float)?)
        };
        sum += (direction(&a, &b)? + direction(&b, &a)?) / 2.0;
    }
    Ok(sum)
}
