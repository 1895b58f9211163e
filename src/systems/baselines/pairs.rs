//! The bilinear layer over pairs [entity; distance row], without ever making a pair × width × width
//! tensor (docs/systems.md, B.5 and B.6).
//!
//! With s = [h; d] and t = [e; d′] the form sᵀWt falls into four: hᵀW₁₁e, which contracts the
//! weight with the distinct tails first; hᵀW₁₂d′ and dᵀW₂₁e, where a distance row is one of 20, so
//! that entities × 20 values cover all pairs; and dᵀW₂₂d′, 20 values. Exact algebra, a tenth of the
//! products.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::systems::on;
use crate::systems::words::{DISTANCE_ROWS, DistanceTable, NO_DISTANCE, WordTables, padded_rows};
use crate::torch::Parameters;
use crate::torch::kernels::pairs::relation_vectors;
use crate::torch::kernels::products::{batched_turned, linear, matmul};
use crate::torch::nn::{Bilinear, lookup};

/// A bilinear layer [out, d + m, d + m] over pairs of entities of width d with distance rows of
/// width m.
#[derive(Debug)]
pub struct PairBilinear {
    layer: Bilinear,
    distances: DistanceTable,
    /// Width d.
    entity: i64,
}

impl PairBilinear {
    /// Declares `heads.dis_embed` and `heads.bili`: weight and bias ~ U(−1/√(d + m), 1/√(d + m)).
    ///
    /// # Errors
    /// If a name is taken.
    pub fn declare(
        parameters: &mut Parameters,
        entity: i64,
        distance: i64,
        out: i64,
    ) -> Result<Self> {
        let width = entity + distance;
        let bound = 1.0 / (width as f64).sqrt();
        Ok(Self {
            distances: DistanceTable::declare(parameters, "heads.dis_embed", distance)?,
            layer: Bilinear::declare(parameters, "heads.bili", width, out, bound)?,
            entity,
        })
    }

    /// The two sides of each pair, [entity; distance row]; [P, d + m] each.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn sides(&self, entities: &Tensor, tables: &WordTables) -> Result<(Tensor, Tensor)> {
        let device = entities.device();
        let bins = on(&tables.bins, device)?;
        let side = |rows: &[i64], distance: Tensor| -> Result<Tensor> {
            Ok(Tensor::f_cat(&[entities.f_index_select(0, &on(rows, device)?)?, distance], 1)?)
        };
        Ok((
            side(&tables.heads, self.distances.of_heads(&bins)?)?,
            side(&tables.tails, self.distances.of_tails(&bins)?)?,
        ))
    }

    /// The layer's value for all pairs of a batch; `entities`: [E, d], the result [P, out].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn forward(&self, entities: &Tensor, tables: &WordTables) -> Result<Tensor> {
        let part = |head: i64, tail: i64| -> Result<Tensor> {
            let size = |side: i64| {
                if side == 0 { self.entity } else { self.layer.weight.size()[1] - self.entity }
            };
            Ok(self.layer.weight.f_narrow(1, head * self.entity, size(head))?.f_narrow(
                2,
                tail * self.entity,
                size(tail),
            )?)
        };
        let plain = relation_vectors(
            entities,
            &tables.heads,
            &tables.tails,
            &part(0, 0)?,
            &self.layer.bias,
        )?;
        if tables.pairs() == 0 {
            return Ok(plain);
        }
        let device = entities.device();
        let rows = self.distance_rows(device)?; // [20, m]
        let mirrored = rows.f_index_select(0, &mirror(device)?)?;
        // Row r of a head meets row 20 − r of its tail.
        let both = batched_turned(
            &by_rows(&rows, &part(1, 1)?.f_transpose(0, 1)?)?,
            &mirrored.f_unsqueeze(1)?,
        )?
        .f_squeeze_dim(2)?; // [20, out]
        let of_heads =
            entities_by_rows(entities, &by_rows(&mirrored, &part(0, 1)?.f_permute([2, 0, 1])?)?)?;
        let of_tails =
            entities_by_rows(entities, &by_rows(&rows, &part(1, 0)?.f_transpose(0, 1)?)?)?
                .f_add(&both)?;
        let terms = take(&of_heads, &tables.heads, &tables.bins)?.f_add(&take(
            &of_tails,
            &tables.tails,
            &tables.bins,
        )?)?;
        Ok(plain.f_add(&terms)?)
    }

    /// All distance rows; the padding row gets no gradient. [20, m]
    fn distance_rows(&self, device: Device) -> Result<Tensor> {
        padded_rows(
            &self.distances.weight,
            &Tensor::f_arange(DISTANCE_ROWS, (Kind::Int64, device))?,
            NO_DISTANCE,
        )
    }
}

/// The row of the tail for each row of the head; row 0 never occurs. `[20]`
fn mirror(device: Device) -> Result<Tensor> {
    let rows: Vec<i64> =
        (0..DISTANCE_ROWS).map(|row| (2 * NO_DISTANCE - row) % DISTANCE_ROWS).collect();
    on(&rows, device)
}

/// Contracts distance rows [20, m] with the first axis of a weight [m, out, k]; [20, out, k].
fn by_rows(rows: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (inner, out, width) = weight.size3()?;
    Ok(matmul(rows, &weight.f_reshape([inner, out * width])?)?.f_view([
        DISTANCE_ROWS,
        out,
        width,
    ])?)
}

/// Entities [E, d] with [20, out, d]: [E, 20, out].
fn entities_by_rows(entities: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (rows, out, width) = weight.size3()?;
    Ok(linear(entities, &weight.f_view([rows * out, width])?, None)?.f_view([-1, rows, out])?)
}

/// The value of each pair: entity `rows` and head row 10 + bin of [E, 20, out]; [P, out].
fn take(values: &Tensor, rows: &[i64], bins: &[i64]) -> Result<Tensor> {
    let places: Vec<i64> =
        rows.iter().zip(bins).map(|(row, bin)| row * DISTANCE_ROWS + NO_DISTANCE + bin).collect();
    let flat = values.f_view([-1, values.size()[2]])?;
    lookup(&flat, &on(&places, values.device())?)
}
