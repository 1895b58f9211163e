//! The graph of a document and the relational graph network over it (docs/systems.md, G.3–G.7; Wang
//! et al. 2020, eq. 2).
//!
//! Nodes are the entities, then the mentions, then the sentences of a batch. All sums over
//! neighbours of all nodes and relations are one call; a layer is one product, with the maps of the
//! five relations and of the node itself side by side. Edges never leave a document.

use tch::{Kind, Tensor};

use super::{GlreSettings, RgcnNorm};
use crate::Result;
use crate::torch::dropout::dropout;
use crate::torch::kernels::bags::Bags;
use crate::torch::kernels::products::{linear, matmul};
use crate::torch::{Dropout, Init, Parameters, on};

/// Kinds of edges: mentions of one sentence, mention and entity, sentences, mention and sentence,
/// entity and sentence.
pub const RELATIONS: usize = 5;

/// Nodes of one document by their numbers in the batch, and what contains what.
#[derive(Clone, Debug, Default)]
pub struct DocumentNodes {
    /// First entity node and number of entities.
    pub entities: (i64, usize),
    /// For each mention node its entity and its sentence, from 0 inside the document.
    pub mentions: Vec<(usize, usize)>,
    /// Number of the first mention node.
    pub first_mention: i64,
    /// First sentence node and number of sentences.
    pub sentences: (i64, usize),
}

impl DocumentNodes {
    /// Neighbours of every node by relation, entities first, then mentions, then sentences; rising.
    pub fn neighbours(&self, self_loops: bool) -> Vec<[Vec<i64>; RELATIONS]> {
        let mut entities = vec![<[Vec<i64>; RELATIONS]>::default(); self.entities.1];
        let mut mentions = vec![<[Vec<i64>; RELATIONS]>::default(); self.mentions.len()];
        let mut sentences = vec![<[Vec<i64>; RELATIONS]>::default(); self.sentences.1];
        let mut by_sentence = vec![Vec::new(); self.sentences.1];
        for (index, &(_, sentence)) in self.mentions.iter().enumerate() {
            by_sentence[sentence].push(index);
        }
        for (index, &(entity, sentence)) in self.mentions.iter().enumerate() {
            let (mention_node, sentence_node) =
                (self.first_mention + index as i64, self.sentences.0 + sentence as i64);
            let others =
                by_sentence[sentence].iter().filter(|&&other| self_loops || other != index);
            mentions[index][0] = others.map(|&other| self.first_mention + other as i64).collect();
            mentions[index][1] = vec![self.entities.0 + entity as i64];
            mentions[index][3] = vec![sentence_node];
            entities[entity][1].push(mention_node);
            entities[entity][4].push(sentence_node);
            sentences[sentence][3].push(mention_node);
            sentences[sentence][4].push(self.entities.0 + entity as i64);
        }
        for (sentence, neighbours) in sentences.iter_mut().enumerate() {
            let others = (0..self.sentences.1).filter(|&other| self_loops || other != sentence);
            neighbours[2] = others.map(|other| self.sentences.0 + other as i64).collect();
        }
        let mut all: Vec<_> = entities.into_iter().chain(mentions).chain(sentences).collect();
        for list in all.iter_mut().flatten() {
            list.sort_unstable();
            list.dedup();
        }
        all
    }
}

/// The edges of a batch; host data.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// A bag of neighbours for every node and relation, the relations of a node side by side.
    neighbours: Bags,
    /// What each relation's bias counts at each node; [nodes × 5].
    bias_weights: Vec<f32>,
    /// What a node's sum is multiplied with; `[nodes]`, empty for 1.
    scales: Vec<f32>,
}

impl Graph {
    /// The graph of a batch; `nodes` gives the neighbours of each node in the order of the nodes.
    pub(super) fn new<'a>(
        nodes: impl Iterator<Item = &'a [Vec<i64>; RELATIONS]>,
        norm: RgcnNorm,
    ) -> Self {
        let mut graph = Self::default();
        for neighbours in nodes {
            let degrees = neighbours.each_ref().map(Vec::len);
            for (list, &degree) in neighbours.iter().zip(&degrees) {
                let (weight, bias) = match norm {
                    RgcnNorm::PerRelation => {
                        (1.0 / degree.max(1) as f32, f32::from(u8::from(degree > 0)))
                    }
                    RgcnNorm::TotalDegree => (1.0, degree as f32),
                };
                graph.neighbours.push(list.iter().map(|&node| (node, weight)));
                graph.bias_weights.push(bias);
            }
            if norm == RgcnNorm::TotalDegree {
                graph.scales.push(1.0 / (1 + degrees.iter().sum::<usize>()) as f32);
            }
        }
        graph
    }
}

/// One layer: the maps W_x of the relations and W_0 of the node itself.
#[derive(Debug)]
struct RgcnLayer {
    /// W_1 … W_5, W_0; [out, in] each.
    weights: Vec<Tensor>,
    /// Their biases, in the same order; empty without.
    biases: Vec<Tensor>,
}

/// The graph network.
#[derive(Debug)]
pub(super) struct Rgcn(Vec<RgcnLayer>);

/// Dropout of the nodes: before the first layer, and between layers.
pub(super) struct NodeDropout {
    pub input: Option<Dropout>,
    pub between: Option<Dropout>,
}

impl Rgcn {
    pub fn declare(
        parameters: &mut Parameters,
        settings: &GlreSettings,
        input: i64,
    ) -> Result<Self> {
        let widths = |layer: usize| if layer == 0 { input } else { settings.width };
        let layers = (0..settings.rgcn_layers)
            .map(|layer| RgcnLayer::declare(parameters, settings, layer, widths(layer)));
        Ok(Self(layers.collect::<Result<_>>()?))
    }

    /// Nodes [nodes, in] → [nodes, d]; masks are drawn with salts from `salt` on.
    pub fn forward(
        &self,
        nodes: &Tensor,
        graph: &Graph,
        masks: &NodeDropout,
        salt: u64,
    ) -> Result<Tensor> {
        let mut states = nodes.shallow_clone();
        for (index, layer) in self.0.iter().enumerate() {
            let mask = if index == 0 { &masks.input } else { &masks.between };
            states =
                layer.forward(&dropout(&states, mask.as_ref(), salt + index as u64)?, graph)?;
        }
        Ok(states)
    }
}

impl RgcnLayer {
    fn declare(
        parameters: &mut Parameters,
        settings: &GlreSettings,
        layer: usize,
        input: i64,
    ) -> Result<Self> {
        let bound = Init::Uniform { bound: 1.0 / (input as f64).sqrt() };
        let names =
            (0..RELATIONS).map(|relation| format!("heads.rgcn_layer.W_r.{relation}.{layer}"));
        let names: Vec<String> = names.chain([format!("heads.rgcn_layer.W_0.{layer}")]).collect();
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            weights.push(parameters.declare(
                format!("{name}.weight"),
                &[settings.width, input],
                bound,
            )?);
            if settings.rgcn_bias {
                biases.push(parameters.declare(
                    format!("{name}.bias"),
                    &[settings.width],
                    bound,
                )?);
            }
        }
        Ok(Self { weights, biases })
    }

    fn forward(&self, nodes: &Tensor, graph: &Graph) -> Result<Tensor> {
        let (count, width) = nodes.size2()?;
        let device = nodes.device();
        let sums = graph.neighbours.sum(nodes)?.f_view([count, RELATIONS as i64 * width])?;
        let mut out =
            linear(&Tensor::f_cat(&[&sums, nodes], 1)?, &Tensor::f_cat(&self.weights, 1)?, None)?;
        if let Some((own, relations)) = self.biases.split_last() {
            let counts = on(&graph.bias_weights, device)?.f_view([count, RELATIONS as i64])?;
            out = out.f_add(&matmul(&counts, &Tensor::f_stack(relations, 0)?)?)?.f_add(own)?;
        }
        if !graph.scales.is_empty() {
            out = out.f_mul(&on(&graph.scales, device)?.f_unsqueeze(1)?)?;
        }
        Ok(out.f_to_kind(Kind::Float)?.f_relu()?)
    }
}
