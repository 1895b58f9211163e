//! Embeddings and layers that all follow one plan.

use super::block::PostNormPlan;
use super::embeddings::EmbeddingPlan;
use super::local_start::start_local;
use super::network::{AttentionScores, EncoderNetwork, Plain};
use crate::Result;
use crate::torch::{Parameters, Slot};

/// The plan of a network of post-norm layers.
#[derive(Clone, Debug)]
pub(in crate::encoders) struct Stack {
    /// The embedding.
    pub embeddings: EmbeddingPlan,
    /// Every layer.
    pub layer: PostNormPlan,
    /// The name of each layer; layers of one name share their weights.
    pub names: Vec<String>,
}

impl Stack {
    /// All parameters: the embedding's, then those of the layers.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = self.embeddings.slots();
        for (index, name) in self.names.iter().enumerate() {
            if !self.names[..index].contains(name) {
                slots.extend(self.layer.slots(name));
            }
        }
        slots
    }

    /// The network over parameters that were declared.
    ///
    /// # Errors
    /// If one was not.
    pub fn network(
        &self,
        params: &Parameters,
        scores: Box<dyn AttentionScores>,
    ) -> Result<EncoderNetwork> {
        let layers = self.names.iter().map(|name| Ok(Box::new(self.layer.get(params, name)?) as _));
        Ok(EncoderNetwork {
            embeddings: self.embeddings.get(params)?,
            layers: layers.collect::<Result<_>>()?,
            scores,
            norm: None,
            drops_output: false,
        })
    }

    /// The network whose scores are products alone.
    ///
    /// # Errors
    /// If a parameter was not declared.
    pub fn plain_network(&self, params: &Parameters) -> Result<EncoderNetwork> {
        let head_width = self.layer.width / self.layer.heads;
        self.network(params, Box::new(Plain { head_width }))
    }

    /// Makes the attention of new weights look nearby. Whether that can be done: it needs a table
    /// of positions as wide as the states.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn start_local(&self, params: &Parameters) -> Result<bool> {
        let Some(positions) = self.embeddings.positions else { return Ok(false) };
        if self.embeddings.width != self.layer.width {
            return Ok(false);
        }
        let [query, key, _] = self.layer.names.projections;
        let of_layer = |name: &String| [query, key].map(|part| format!("{name}.{part}.weight"));
        let projections: Vec<_> = self.names.iter().map(of_layer).collect();
        start_local(params, positions.name, &projections, self.embeddings.std)?;
        Ok(true)
    }
}
