//! The tensor half of GLRE: from word states to class logits (docs/systems.md, G.1–G.13).

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::graph::{NodeDropout, Rgcn};
use super::layout::{GlreLayout, GlreTables};
use super::local::{LocalAttention, LocalDropout, LocalInputs};
use super::{ContextMatrix, GlreSettings, Query};
use crate::Result;
use crate::systems::words::{DistanceTable, PairAttention, Rows, padded_rows, padded_table};
use crate::systems::{
    BertMode, Classes, Extractor, Foundation, Layout, NaClass, RelationBatch, SystemSettings, on,
    row_dropout, tables,
};
use crate::torch::dropout::dropout;
use crate::torch::kernels::Segments;
use crate::torch::kernels::bags::take;
use crate::torch::nn::{Linear, LstmShape, PackedLstm};
use crate::torch::{Dropout, Init, Parameters, Slot};
use crate::train::Forward;

/// Places of dropout masks; the graph and the two local attentions use the numbers after theirs as
/// well.
#[derive(Clone, Copy)]
#[repr(u64)]
enum GlreMask {
    Words = 1,
    LocalHeads = 2,
    LocalTails = 4,
    Classifier = 6,
    Graph = 16,
}

/// Domains of dropout keys, beside those of word tables.
const ENTITIES: u64 = 16;
const MENTIONS: u64 = 17;
const SENTENCES: u64 = 18;
const HEAD_ENTRIES: u64 = 19;
const TAIL_ENTRIES: u64 = 20;

/// The global-to-local network.
pub struct Glre {
    foundation: Foundation,
    settings: GlreSettings,
    layout: Arc<GlreLayout>,
    /// Embedding of entity types beside word vectors, where there is no text encoder.
    word_types: Option<Tensor>,
    lstm: Option<PackedLstm>,
    word_map: Linear,
    /// Embedding of the three node types; [3, width].
    node_types: Tensor,
    rgcn: Rgcn,
    local: Option<[LocalAttention; 2]>,
    distances: DistanceTable,
    context: Option<PairAttention>,
    hidden: Option<Linear>,
    output: Linear,
}

/// Everything that is computed on the way to the logits; parts that the settings leave out are
/// `None`.
#[derive(Debug)]
pub struct GlreStates {
    /// States of the encoder's pieces; [T, …].
    pub pieces: Tensor,
    /// States of words, zero where none stands for a word; [W, …].
    pub words: Tensor,
    /// States of the BiLSTM, where there is one; [W, 2 d].
    pub read: Option<Tensor>,
    /// Words after the linear map (G.2); [W, d].
    pub mapped: Tensor,
    /// Entity, mention and sentence nodes (G.3); [E, d], [M, d], [S, d].
    pub nodes: [Tensor; 3],
    /// All nodes with the embedding of their type (G.4); [E + M + S, d + t].
    pub typed: Tensor,
    /// All nodes after the graph network (G.6, G.7); [E + M + S, d].
    pub graph: Tensor,
    /// Local representations of heads and tails (G.9); [P, d] each.
    pub local: Option<[Tensor; 2]>,
    /// Pairs o_r (G.11); [P, d_r].
    pub pairs: Tensor,
    /// Context o_c (G.12); [P, d_r].
    pub context: Option<Tensor>,
    /// The classifier's hidden layer (G.13), of the pairs that were asked for.
    pub hidden: Option<Tensor>,
    /// Class logits of these.
    pub logits: Tensor,
}

impl Glre {
    /// Puts GLRE on an encoder.
    ///
    /// # Errors
    /// Settings that cannot be built, named.
    pub fn new(mut foundation: Foundation, settings: GlreSettings) -> Result<Self> {
        settings.check()?;
        let layout = Arc::new(GlreLayout::new(&foundation, &settings));
        if settings.bert_mode == BertMode::Frozen {
            foundation.parameters.freeze();
        }
        let classes = foundation.relations as i64 + 1;
        let types = foundation.entity_types.len() as i64 + 1;
        let (encoder, parameters) = (foundation.encoder.facts(), &mut foundation.parameters);
        let (d, t) = (settings.width, settings.type_width);
        let on_words = !encoder.contextual;
        let word_types = on_words
            .then(|| padded_table(parameters, "heads.ner_emb.embedding", types, t, 0))
            .transpose()?;
        let mut words = encoder.width + if on_words { t } else { 0 };
        let lstm = (settings.more_lstm || on_words)
            .then(|| declare_lstm(parameters, words, d))
            .transpose()?;
        if lstm.is_some() {
            words = 2 * d;
        }
        let sides = i64::from(settings.global_rep) + i64::from(settings.local_rep);
        let pair = 2 * (d * sides + settings.distance_width);
        let joined = if settings.context { 2 * pair } else { pair };
        let inner = Some(settings.classifier_width).filter(|&inner| inner > 0);
        let normal = Init::Normal { std: 1.0 };
        Ok(Self {
            word_types,
            lstm,
            word_map: Linear::bias_first(parameters, "heads.pretrain_l_m_linear_re", words, d)?,
            node_types: parameters.declare("heads.type_embed.embedding.weight", &[3, t], normal)?,
            rgcn: Rgcn::declare(parameters, &settings, d + t)?,
            local: settings
                .local_rep
                .then(|| -> Result<_> {
                    let input = if settings.local_type_embedding { d + t } else { d };
                    let mut attention =
                        |name: &str| LocalAttention::declare(parameters, name, input, &settings);
                    Ok([attention("multiheadattention")?, attention("multiheadattention1")?])
                })
                .transpose()?,
            distances: DistanceTable::declare(
                parameters,
                "heads.dist_embed_dir.embedding",
                settings.distance_width,
            )?,
            context: settings
                .context
                .then(|| match settings.context_matrix {
                    ContextMatrix::Diagonal => PairAttention::diagonal(parameters, pair),
                    ContextMatrix::Full => PairAttention::full(parameters, pair),
                })
                .transpose()?,
            hidden: inner
                .map(|inner| Linear::bias_first(parameters, "heads.out_mlp.0", joined, inner))
                .transpose()?,
            output: Linear::bias_first(
                parameters,
                "heads.classifier.lin",
                inner.unwrap_or(joined),
                classes,
            )?,
            foundation,
            settings,
            layout,
        })
    }

    /// Everything on the way to the logits of a batch.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn states(&self, tables: &GlreTables, forward: Forward) -> Result<GlreStates> {
        GlreRun { model: self, tables, forward, device: self.foundation.parameters.device() }
            .states()
    }
}

/// Weights ~ N(0, 0.1²), biases and initial states 0 (docs/systems.md, "Encoding").
fn declare_lstm(parameters: &mut Parameters, input: i64, hidden: i64) -> Result<PackedLstm> {
    const NAME: &str = "heads.encoder";
    let shape = LstmShape { input, hidden, layers: 1, bidirectional: true };
    let weights = Init::Normal { std: 0.1 };
    parameters.declare_all(shape.slots(NAME).into_iter().map(|slot| {
        let init = if slot.name.contains(".weight_") { weights } else { Init::Zeros };
        Slot { init, ..slot }
    }))?;
    PackedLstm::get(NAME, shape, parameters)
}

/// One forward pass.
struct GlreRun<'a> {
    model: &'a Glre,
    tables: &'a GlreTables,
    forward: Forward,
    device: Device,
}

impl GlreRun<'_> {
    fn states(&self) -> Result<GlreStates> {
        let model = self.model;
        let pieces = self.pieces()?;
        let words = self.words(&pieces)?;
        let read = model.lstm.as_ref().map(|lstm| self.read(lstm, &words)).transpose()?;
        let mapped = model.word_map.forward(read.as_ref().unwrap_or(&words))?;
        let mentions = self.tables.mentions.sum(&mapped)?;
        let entities = self.tables.entities.sum(&mentions)?;
        let nodes = [entities, mentions, self.tables.sentences.sum(&mapped)?];
        let typed = self.typed(&nodes)?;
        let graph = model.rgcn.forward(
            &typed,
            &self.tables.graph,
            &self.node_dropout()?,
            GlreMask::Graph as u64,
        )?;
        let entities = graph.f_narrow(0, 0, nodes[0].size()[0])?;
        let query = if model.settings.query == Query::Global { &entities } else { &nodes[0] };
        let local = model
            .local
            .as_ref()
            .map(|attention| self.local(attention, query, &nodes, &typed))
            .transpose()?;
        let pairs = self.pairs(&entities, local.as_ref())?;
        let segments = Segments::new(&self.tables.words.pair_offsets, self.device)?;
        let context =
            model.context.as_ref().map(|context| context.forward(&pairs, &segments)).transpose()?;
        let (hidden, logits) = self.classify(&pairs, context.as_ref())?;
        Ok(GlreStates {
            pieces,
            words,
            read,
            mapped,
            nodes,
            typed,
            graph,
            local,
            pairs,
            context,
            hidden,
            logits,
        })
    }

    fn pieces(&self) -> Result<Tensor> {
        let (model, words) = (self.model, &self.tables.words);
        let frozen = model.settings.bert_mode == BertMode::Frozen;
        let train = self.forward.train && (!frozen || model.settings.frozen_dropout);
        let forward = Forward { train, ..self.forward };
        let states = || words.piece_states(&model.foundation, forward);
        Ok(model.settings.bert_mode.run(states)?.f_to_kind(Kind::Float)?)
    }

    /// States of words; beside word vectors the embedding of entity types.
    fn words(&self, pieces: &Tensor) -> Result<Tensor> {
        let words = &self.tables.words;
        let states = words.of_words(pieces)?;
        match &self.model.word_types {
            Some(table) => Ok(Tensor::f_cat(
                &[states, padded_rows(table, &on(&words.types, self.device)?, 0)?],
                1,
            )?),
            None => Ok(states),
        }
    }

    /// The BiLSTM over words.
    fn read(&self, lstm: &PackedLstm, words: &Tensor) -> Result<Tensor> {
        let masks = (self.model.settings.lstm_dropout, GlreMask::Words as u64);
        self.tables.words.read(lstm, words, masks, self.forward)
    }

    /// G.4: each node beside the embedding of its type.
    fn typed(&self, nodes: &[Tensor; 3]) -> Result<Tensor> {
        let kinds: Vec<i64> = nodes
            .iter()
            .zip(0..)
            .flat_map(|(part, kind)| std::iter::repeat_n(kind, part.size()[0] as usize))
            .collect();
        let types = padded_rows(&self.model.node_types, &on(&kinds, self.device)?, -1)?;
        Ok(Tensor::f_cat(&[Tensor::f_cat(nodes, 0)?, types], 1)?)
    }

    fn node_dropout(&self) -> Result<NodeDropout> {
        let (tables, settings) = (self.tables, &self.model.settings);
        let words = &tables.words;
        let parts = [
            (ENTITIES, &words.entity_offsets),
            (MENTIONS, &tables.mention_offsets),
            (SENTENCES, &words.document_sentences),
        ];
        let keys = || {
            parts
                .iter()
                .flat_map(|(domain, offsets)| words.keys(*domain, offsets))
                .collect::<Vec<i64>>()
        };
        let dropout = |p| row_dropout(p, self.forward, self.device, keys);
        Ok(NodeDropout {
            input: dropout(settings.rgcn_input_dropout)?,
            between: dropout(settings.rgcn_dropout)?,
        })
    }

    /// G.9, for heads and for tails.
    fn local(
        &self,
        attention: &[LocalAttention; 2],
        queries: &Tensor,
        nodes: &[Tensor; 3],
        typed: &Tensor,
    ) -> Result<[Tensor; 2]> {
        let [entities, mentions] = [nodes[0].size()[0], nodes[1].size()[0]];
        let keyed = self.model.settings.local_type_embedding;
        let with_types = |first: i64, count: i64| typed.f_narrow(0, first, count);
        let mention_nodes =
            if keyed { with_types(entities, mentions)? } else { nodes[1].shallow_clone() };
        let sentence_nodes = if keyed {
            with_types(entities + mentions, nodes[2].size()[0])?
        } else {
            nodes[2].shallow_clone()
        };
        let inputs = LocalInputs { queries, mentions: &mention_nodes, sentences: &sentence_nodes };
        let masks = [
            self.local_dropout(HEAD_ENTRIES, &self.tables.heads.offsets)?,
            self.local_dropout(TAIL_ENTRIES, &self.tables.tails.offsets)?,
        ];
        let heads = attention[0].forward(
            &inputs,
            &self.tables.heads,
            &masks[0],
            GlreMask::LocalHeads as u64,
        )?;
        let tails = attention[1].forward(
            &inputs,
            &self.tables.tails,
            &masks[1],
            GlreMask::LocalTails as u64,
        )?;
        Ok([heads, tails])
    }

    /// `offsets`: first entry of each pair.
    fn local_dropout(&self, domain: u64, offsets: &[i64]) -> Result<LocalDropout> {
        let (p, words) = (self.model.settings.attention_dropout, &self.tables.words);
        let of_documents =
            || words.pair_offsets.iter().map(|&pair| offsets[pair as usize]).collect::<Vec<i64>>();
        let keys = || words.keys(domain, &of_documents());
        let entries = row_dropout(p, self.forward, self.device, keys)?;
        Ok(LocalDropout {
            entries,
            pairs: words.dropout(Rows::Pairs, p, self.forward, self.device)?,
        })
    }

    /// G.10 and G.11: [e_a; ê_a; Δ(a → b); e_b; ê_b; Δ(b → a)].
    fn pairs(&self, entities: &Tensor, local: Option<&[Tensor; 2]>) -> Result<Tensor> {
        let (model, words) = (self.model, &self.tables.words);
        let bins = on(&words.bins, self.device)?;
        let mut parts = Vec::new();
        let sides = [
            (&words.heads, model.distances.of_heads(&bins)?),
            (&words.tails, model.distances.of_tails(&bins)?),
        ];
        for (side, (rows, distances)) in sides.into_iter().enumerate() {
            if self.model.settings.global_rep {
                parts.push(take(entities, rows)?);
            }
            parts.extend(local.map(|local| local[side].shallow_clone()));
            parts.push(distances);
        }
        Ok(Tensor::f_cat(&parts, 1)?)
    }

    /// G.13, for the pairs that were asked for.
    fn classify(
        &self,
        pairs: &Tensor,
        context: Option<&Tensor>,
    ) -> Result<(Option<Tensor>, Tensor)> {
        let (model, words) = (self.model, &self.tables.words);
        let mut inputs = context.map_or_else(
            || Ok(pairs.shallow_clone()),
            |context| Tensor::f_cat(&[pairs, context], 1),
        )?;
        if let Some(wanted) = &self.tables.wanted {
            inputs = take(&inputs, wanted)?;
        }
        let hidden = model
            .hidden
            .as_ref()
            .map(|layer| Ok::<_, crate::Error>(layer.forward(&inputs)?.f_relu()?))
            .transpose()?;
        let p = self.model.settings.classifier_dropout;
        let mut keys = words.dropout(Rows::Pairs, p, self.forward, self.device)?;
        if let (Some(wanted), Some(all)) = (&self.tables.wanted, &keys) {
            keys = Some(Dropout::new(
                p,
                all.token_keys.f_index_select(0, &on(wanted, self.device)?)?,
            )?);
        }
        let masked = dropout(
            hidden.as_ref().unwrap_or(&inputs),
            keys.as_ref(),
            GlreMask::Classifier as u64,
        )?;
        let logits = model.output.forward(&masked)?;
        Ok((hidden, logits))
    }
}

impl Extractor for Glre {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::clone(&self.layout) as Arc<dyn Layout>
    }

    fn classes(&self) -> Classes {
        Classes { relations: self.foundation.relations, na: NaClass::First }
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        Ok(self.states(tables(&batch.tables)?, forward)?.logits)
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }
}
