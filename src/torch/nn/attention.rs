//! Self-attention over packed sequences.

use tch::Tensor;

use super::Linear;
use crate::Result;
use crate::torch::{Parameters, Precision};

/// The projections of multi-head self-attention (Vaswani et al. 2017).
#[derive(Debug)]
pub struct SelfAttention {
    /// Query, key, value.
    projections: [Linear; 3],
    heads: i64,
}

impl SelfAttention {
    /// A layer over linear maps to queries, keys and values, called `names`, which were declared
    /// before.
    ///
    /// # Errors
    /// If one was not.
    pub fn get(parameters: &Parameters, names: [&str; 3], heads: i64) -> Result<Self> {
        let [query, key, value] = names.map(|name| Linear::get(parameters, name));
        Ok(Self { projections: [query?, key?, value?], heads })
    }

    /// Queries, keys and values by one product, as the attention kernels take them: [T, d] → [T, 3,
    /// heads, head width]. Joining the weights copies 3 d² numbers, far less than the product reads
    /// and writes.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn qkv(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        let parts = self.projections.each_ref();
        let biases: Vec<&Tensor> = parts.iter().filter_map(|part| part.bias.as_ref()).collect();
        let joined = Linear {
            weight: Tensor::f_cat(&parts.map(|part| &part.weight), 0)?,
            bias: Some(Tensor::f_cat(&biases, 0)?),
        };
        let width = x.size()[1];
        Ok(joined.forward_in(x, precision)?.f_view([-1, 3, self.heads, width / self.heads])?)
    }
}
