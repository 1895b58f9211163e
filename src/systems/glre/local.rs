//! Local representations (docs/systems.md, G.8 and G.9; Wang et al. 2020, eq. 3–5): what an
//! entity's mentions say to the other entity of a pair.
//!
//! For a pair (a, b) the query is b, the keys are the sentences of a's mentions, the values a's
//! mentions. All (pair, mention) entries of a batch lie side by side; there are few, as most
//! entities have one or two mentions. Projections are made once an entity, sentence or mention.

use tch::{Kind, Tensor};

use super::GlreSettings;
use crate::Result;
use crate::torch::dropout::dropout;
use crate::torch::kernels::bags::{Bags, GroupSoftmax, take};
use crate::torch::nn::{LayerNorm, Linear};
use crate::torch::{Dropout, Parameters};

/// PyTorch's default of the layer norm.
const EPSILON: f64 = 1e-5;

/// The entries of one side of all pairs; host data.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalEntries {
    /// Entity that asks, by entry.
    pub queries: Vec<i64>,
    /// Mention that answers, by entry.
    pub mentions: Vec<i64>,
    /// Sentence of that mention, by entry.
    pub sentences: Vec<i64>,
    /// First entry of each pair, closed by their number. [P + 1]
    pub offsets: Vec<i64>,
}

impl Default for LocalEntries {
    fn default() -> Self {
        Self { queries: Vec::new(), mentions: Vec::new(), sentences: Vec::new(), offsets: vec![0] }
    }
}

impl LocalEntries {
    /// Appends a pair: `query` asks the mentions `(mention, sentence)`.
    pub fn push(&mut self, query: i64, mentions: impl IntoIterator<Item = (i64, i64)>) {
        for (mention, sentence) in mentions {
            self.queries.push(query);
            self.mentions.push(mention);
            self.sentences.push(sentence);
        }
        self.offsets.push(self.mentions.len() as i64);
    }
}

/// Nodes that the attention reads.
pub(super) struct LocalInputs<'a> {
    /// What asks; [E, d].
    pub queries: &'a Tensor,
    /// Mention nodes; [M, w].
    pub mentions: &'a Tensor,
    /// Sentence nodes; [S, w].
    pub sentences: &'a Tensor,
}

/// Dropout of entries and of pairs.
pub(super) struct LocalDropout {
    pub entries: Option<Dropout>,
    pub pairs: Option<Dropout>,
}

/// Multi-head attention without a residual connection, then a layer norm.
#[derive(Debug)]
pub(super) struct LocalAttention {
    key: Linear,
    value: Linear,
    query: Linear,
    output: Linear,
    norm: LayerNorm,
    heads: i64,
}

impl LocalAttention {
    /// `inputs`: width of mention and sentence nodes.
    pub fn declare(
        parameters: &mut Parameters,
        name: &str,
        inputs: i64,
        settings: &GlreSettings,
    ) -> Result<Self> {
        let name = format!("heads.local_rep_layer.{name}");
        let width = settings.width;
        let mut map = |part: &str, input: i64| {
            let map = format!("{name}.{part}");
            if settings.local_bias {
                Linear::bias_first(parameters, &map, input, width)
            } else {
                Linear::without_bias(parameters, &format!("{map}.weight"), input, width)
            }
        };
        let (key, value, query) =
            (map("linear_k", inputs)?, map("linear_v", inputs)?, map("linear_q", width)?);
        let output = map("linear_final", width)?;
        let norm = LayerNorm::declare(parameters, &format!("{name}.layer_norm"), width, EPSILON)?;
        Ok(Self { key, value, query, output, norm, heads: settings.heads })
    }

    /// [P, d]; masks are drawn with `salt` and the number after it.
    pub fn forward(
        &self,
        inputs: &LocalInputs,
        entries: &LocalEntries,
        masks: &LocalDropout,
        salt: u64,
    ) -> Result<Tensor> {
        let width = self.output.weight.size()[0];
        let split = |rows: &Tensor| rows.f_view([-1, self.heads, width / self.heads]);
        let queries = split(&take(&self.query.forward(inputs.queries)?, &entries.queries)?)?;
        let keys = split(&take(&self.key.forward(inputs.sentences)?, &entries.sentences)?)?;
        let values = split(&take(&self.value.forward(inputs.mentions)?, &entries.mentions)?)?;
        let scale = ((width / self.heads) as f64).sqrt().recip();
        let scores =
            queries.f_mul(&keys)?.f_sum_dim_intlist(-1, false, Kind::Float)?.f_mul_scalar(scale)?;
        let weights = GroupSoftmax::new(&entries.offsets, self.heads as usize).forward(&scores)?;
        let weights = dropout(&weights, masks.entries.as_ref(), salt)?;
        let weighted = values.f_mul(&weights.f_unsqueeze(-1)?)?.f_view([-1, width])?;
        let output = self.output.forward(&Bags::of_spans(&entries.offsets).sum(&weighted)?)?;
        let output = dropout(&output, masks.pairs.as_ref(), salt + 1)?;
        self.norm.forward(&output)
    }
}
