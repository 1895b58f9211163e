//! Disentangled attention: score(i, j) = (q_i·k_j + q_i·K\[r\] + k_j·Q\[r\]) / √(d·f), where K and
//! Q are projections of the table of relative positions, r is the row of j − i, and f counts the
//! terms (He et al. 2021, eq. 4).

use tch::{Kind, Tensor};

use super::config::{DebertaKeys, NAMES, OWN_PROJECTIONS, RELATIVE, RELATIVE_NORM};
use crate::Result;
use crate::encoders::transformer::{AttentionScores, LayerScores};
use crate::encoders::{Pass, TokenStream};
use crate::torch::Parameters;
use crate::torch::dropout::dropout;
use crate::torch::kernels::scores::{DistanceIndex, ScoreTerms};
use crate::torch::nn::{LayerNorm, Linear};

/// Number of the first mask of the table, beyond those of layers.
const TABLE_SALT: u64 = 1 << 20;

/// The terms of all layers.
#[derive(Debug)]
pub(super) struct Disentangled {
    keys: DebertaKeys,
    /// [2 · span, d]
    table: Tensor,
    norm: Option<LayerNorm>,
    /// For each layer the projections of the table for queries (`c2p`) and for keys (`p2c`).
    projections: Vec<[Option<Linear>; 2]>,
}

impl Disentangled {
    /// The terms over parameters that were declared; `None` where there are none.
    ///
    /// # Errors
    /// If one was not declared.
    pub fn get(keys: &DebertaKeys, params: &Parameters) -> Result<Option<Self>> {
        if keys.terms() == 0 {
            return Ok(None);
        }
        let [query, key, _] = NAMES.projections;
        let names = if keys.share_att_key { [key, query] } else { OWN_PROJECTIONS };
        let of_layer = |layer: String| -> Result<[Option<Linear>; 2]> {
            let get = |index: usize| {
                let name = format!("{layer}.{}", names[index]);
                keys.has_terms()[index].then(|| Linear::get(params, &name)).transpose()
            };
            Ok([get(0)?, get(1)?])
        };
        let norm = || LayerNorm::get(params, RELATIVE_NORM, keys.layer_norm_eps);
        Ok(Some(Self {
            table: params.handle(RELATIVE)?,
            norm: keys.norms_table().then(norm).transpose()?,
            projections: keys.layer_names().map(of_layer).collect::<Result<_>>()?,
            keys: keys.clone(),
        }))
    }
}

impl AttentionScores for Disentangled {
    fn of_pass<'a>(&'a self, stream: &'a TokenStream, pass: &'a Pass) -> Result<LayerScores<'a>> {
        let (longest, keys) = (stream.segments.longest.max(1), &self.keys);
        let first = keys.row(1 - longest);
        let index = DistanceIndex::new(longest, |distance| keys.row(distance) - first)?;
        // Only rows that some distance reaches, in the order of distances.
        let rows = keys.reached_rows(longest);
        let table = self.table.f_flip([0])?.f_narrow(0, first, rows)?;
        let table = match &self.norm {
            Some(norm) => norm.forward(&table)?,
            None => table,
        };
        let masks = pass.hidden_dropout.as_ref().map(|masks| masks.of_rows(rows)).transpose()?;
        let shape = [rows, keys.num_attention_heads, keys.head_width()];
        let scale = 1.0 / ((keys.head_width() as usize * (1 + keys.terms())) as f64).sqrt();
        Ok(Box::new(move |layer| {
            let table = dropout(&table, masks.as_ref(), TABLE_SALT + layer as u64)?;
            let projected = |part: usize| -> Result<Option<Tensor>> {
                let Some(map) = &self.projections[layer][part] else { return Ok(None) };
                let rows = map.forward_in(&table, pass.precision)?.f_to_kind(Kind::Float)?;
                Ok(Some(rows.f_view(shape)?))
            };
            Ok(ScoreTerms {
                scale,
                index: Some(index.shallow_clone()),
                key_table: projected(0)?,
                query_table: projected(1)?,
                ..ScoreTerms::plain(1)
            })
        }))
    }
}
