//! Entity-level inference (docs/systems.md, H.4–H.6; Tang et al. 2020, eq. 3–5): entities in K
//! latent spaces, translation and bi-affine terms, and the pair vector I_e.
//!
//! The pair layer G_e is one linear map over [bi-affine; E_b − E_a; E_a; E_b] of every space and
//! the difference of two distance rows. All of its input but the bi-affine term is a sum of
//! something of the head, something of the tail and something of the distance, so these parts are
//! multiplied once an entity or distance instead of once a pair.

use tch::{Kind, Tensor};

use super::HinSettings;
use crate::systems::on;
use crate::systems::words::{DistanceTable, WordTables};
use crate::torch::kernels::bags::take;
use crate::torch::kernels::pairs::relation_vectors;
use crate::torch::kernels::products::linear;
use crate::torch::nn::Linear;
use crate::torch::{Init, Parameters};
use crate::{Error, Result};

/// Distances run from −9 to 9 in bins.
const FARTHEST_BIN: i64 = 9;

/// One latent space.
#[derive(Debug)]
struct Space {
    /// W0 [d, d] and W1 [k, d].
    projection: Option<(Linear, Linear)>,
    /// R [k, k, k]: component, head, tail.
    bilinear: Option<Tensor>,
}

/// The layers of H.4–H.6.
#[derive(Debug)]
pub(super) struct EntityInference {
    spaces: Vec<Space>,
    distances: DistanceTable,
    pair: Linear,
    latent: i64,
    translation: bool,
}

/// What H.4–H.6 give.
#[derive(Debug)]
pub struct EntityLevel {
    /// E_a^q of every space; [E, k] each.
    pub spaces: Vec<Tensor>,
    /// The bi-affine term of every space; [P, k] each.
    pub biaffine: Vec<Tensor>,
    /// Pair vectors I_e [P, d].
    pub pairs: Tensor,
}

impl EntityInference {
    pub fn declare(parameters: &mut Parameters, settings: &HinSettings) -> Result<Self> {
        let (d, k) = (settings.width(), settings.latent_width());
        let spaces = (0..settings.latent_spaces())
            .map(|q| Space::declare(parameters, q, settings))
            .collect::<Result<Vec<_>>>()?;
        let terms = 2 + i64::from(settings.translation) + i64::from(settings.bilinear);
        let inputs = terms * k * spaces.len() as i64 + settings.distance_width;
        Ok(Self {
            distances: DistanceTable::declare(
                parameters,
                "heads.dist_emb",
                settings.distance_width,
            )?,
            pair: Linear::bias_first(parameters, "heads.G_e", inputs, d)?,
            spaces,
            latent: k,
            translation: settings.translation,
        })
    }

    /// Entity vectors [E, d] → pair vectors.
    /// `pairs` are rows of the entity vectors, with their distance bins.
    pub fn forward(&self, entities: &Tensor, pairs: &WordTables) -> Result<EntityLevel> {
        let spaces =
            self.spaces.iter().map(|space| space.project(entities)).collect::<Result<Vec<_>>>()?;
        let terms = self
            .spaces
            .iter()
            .zip(&spaces)
            .filter_map(|(space, projected)| space.biaffine(projected, pairs).transpose());
        let biaffine = terms.collect::<Result<Vec<_>>>()?;
        let parts = self.parts()?;
        let joined = Tensor::f_cat(&spaces, 1)?; // [E, K·k]
        let of_heads = take(&linear(&joined, &parts.head, None)?, &pairs.heads)?;
        let of_tails = take(&linear(&joined, &parts.tail, self.pair.bias.as_ref())?, &pairs.tails)?;
        let of_distances = take(
            &linear(&self.distance_differences()?, &parts.distance, None)?,
            &places(&pairs.bins)?,
        )?;
        let mut sum = of_heads.f_add(&of_tails)?.f_add(&of_distances)?;
        if let Some(weight) = &parts.bilinear {
            sum = sum.f_add(&linear(&Tensor::f_cat(&biaffine, 1)?, weight, None)?)?;
        }
        Ok(EntityLevel { spaces, biaffine, pairs: sum.f_relu()? })
    }

    /// M(d_ba) − M(d_ab) of every bin from −9 to 9; [19, width].
    fn distance_differences(&self) -> Result<Tensor> {
        let bins: Vec<i64> = (-FARTHEST_BIN..=FARTHEST_BIN).collect();
        let bins = on(&bins, self.distances.weight.device())?;
        Ok(self.distances.of_tails(&bins)?.f_sub(&self.distances.of_heads(&bins)?)?)
    }

    /// G_e's weight by what it is multiplied with.
    fn parts(&self) -> Result<Parts> {
        let bilinear = self.spaces.iter().any(|space| space.bilinear.is_some());
        let (mut of_bilinear, mut of_head, mut of_tail) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = 0;
        let mut next = |width: i64| {
            at += width;
            self.pair.weight.f_narrow(1, at - width, width)
        };
        for _ in &self.spaces {
            if bilinear {
                of_bilinear.push(next(self.latent)?);
            }
            let translation = if self.translation { Some(next(self.latent)?) } else { None };
            let (head, tail) = (next(self.latent)?, next(self.latent)?);
            of_head.push(
                translation.as_ref().map_or_else(|| Ok(head.shallow_clone()), |t| head.f_sub(t))?,
            );
            of_tail.push(
                translation.as_ref().map_or_else(|| Ok(tail.shallow_clone()), |t| tail.f_add(t))?,
            );
        }
        let bilinear = if bilinear { Some(Tensor::f_cat(&of_bilinear, 1)?) } else { None };
        Ok(Parts {
            bilinear,
            head: Tensor::f_cat(&of_head, 1)?,
            tail: Tensor::f_cat(&of_tail, 1)?,
            distance: next(self.distances.weight.size()[1])?,
        })
    }
}

/// Columns of G_e, those of all spaces side by side; [d, K·k], the last [d, distance width].
struct Parts {
    bilinear: Option<Tensor>,
    head: Tensor,
    tail: Tensor,
    distance: Tensor,
}

impl Space {
    fn declare(parameters: &mut Parameters, q: usize, settings: &HinSettings) -> Result<Self> {
        let (d, k) = (settings.width(), settings.latent_width());
        let projection = settings.multi_space.then(|| -> Result<_> {
            let first = Linear::without_bias(parameters, &format!("heads.W0.{q}"), d, d)?;
            Ok((first, Linear::without_bias(parameters, &format!("heads.W1.{q}"), d, k)?))
        });
        let projection = projection.transpose()?;
        let bound = Init::Uniform { bound: 1.0 / (k as f64).sqrt() };
        let bilinear = settings
            .bilinear
            .then(|| parameters.declare(format!("heads.R.{q}"), &[k, k, k], bound))
            .transpose()?;
        Ok(Self { projection, bilinear })
    }

    /// E^q = W1 ReLU(W0 E); [E, k]
    fn project(&self, entities: &Tensor) -> Result<Tensor> {
        match &self.projection {
            Some((first, second)) => second.forward(&first.forward(entities)?.f_relu()?),
            None => Ok(entities.shallow_clone()),
        }
    }

    /// E_aᵀ R E_b; [P, k]
    fn biaffine(&self, projected: &Tensor, pairs: &WordTables) -> Result<Option<Tensor>> {
        let Some(weight) = &self.bilinear else { return Ok(None) };
        let no_bias = Tensor::f_zeros([weight.size()[0]], (Kind::Float, weight.device()))?;
        relation_vectors(projected, &pairs.heads, &pairs.tails, weight, &no_bias).map(Some)
    }
}

/// Bins as rows of [`EntityInference::distance_differences`].
fn places(bins: &[i64]) -> Result<Vec<i64>> {
    if let Some(bin) = bins.iter().find(|bin| bin.abs() > FARTHEST_BIN) {
        return Err(Error::Bug(format!(
            "distance bin {bin} is not one of −{FARTHEST_BIN}..={FARTHEST_BIN}"
        )));
    }
    Ok(bins.iter().map(|bin| bin + FARTHEST_BIN).collect())
}
