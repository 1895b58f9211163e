//! The tensor half of HIN: from word states to class logits (docs/systems.md, H.1–H.12).

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::HinSettings;
use super::entities::{EntityInference, EntityLevel};
use super::layout::{HinLayout, HinTables};
use super::reader::HinReader;
use super::sentences::{Hierarchy, document_means};
use crate::Result;
use crate::systems::words::{FeatureOrder, Rows, WordFeatures};
use crate::systems::{
    BertMode, Classes, Extractor, Foundation, Layout, NaClass, RelationBatch, SystemSettings,
    row_dropout, tables,
};
use crate::torch::dropout::dropout;
use crate::torch::kernels::Segments;
use crate::torch::kernels::bags::take;
use crate::torch::nn::Linear;
use crate::torch::{Dropout, Parameters};
use crate::train::Forward;

/// Places of dropout masks; each has a salt of its own.
#[derive(Clone, Copy)]
#[repr(u64)]
enum HinMask {
    EntityReader = 1,
    SentenceReader,
    DocumentReader,
    Pairs,
    Sentences,
}

/// Domains of dropout keys, beside those of word tables: (pair, sentence) rows, and the sequences
/// that they form.
const ROWS: u64 = 16;
const SEQUENCES: u64 = 17;

/// How a pair learns of its document.
#[derive(Debug)]
enum DocumentLevel {
    /// H.7–H.11.
    Hierarchy(Box<Hierarchy>),
    /// The mean over the states of one BiLSTM (ablation "hierarchical aggregation").
    Mean(HinReader),
}

/// The hierarchical inference network.
pub struct Hin {
    foundation: Foundation,
    settings: HinSettings,
    layout: Arc<HinLayout>,
    classes: Classes,
    word_map: Option<Linear>,
    features: WordFeatures,
    entity_reader: HinReader,
    entity_inference: EntityInference,
    document_level: DocumentLevel,
    output: Linear,
}

/// Everything that is computed on the way to the logits; parts that the settings leave out are
/// `None`.
#[derive(Debug)]
pub struct HinStates {
    /// Inputs x = [word; type; coreference] (H.1); [W, in].
    pub inputs: Tensor,
    /// States of the entity-level BiLSTM (H.2); [W, d].
    pub words: Tensor,
    /// Entity vectors (H.3); [E, d].
    pub entities: Tensor,
    /// Latent spaces, bi-affine terms and I_e (H.4–H.6).
    pub entity_level: EntityLevel,
    /// Sentence level (H.7–H.9).
    pub sentence_level: Option<SentenceLevel>,
    /// Document vectors I_d (H.11); [P, d].
    pub documents: Tensor,
    /// Class logits (H.12); [P, C].
    pub logits: Tensor,
}

/// What H.7–H.11 compute.
#[derive(Debug)]
pub struct SentenceLevel {
    /// Sentence vectors S_j; [S, d].
    pub sentences: Tensor,
    /// Attention over the words of each sentence; `[W]`.
    pub word_attention: Tensor,
    /// I_s of every (pair, sentence), or S_j of every sentence without sentence inference; [rows,
    /// d].
    pub inferred: Tensor,
    /// Attention over these rows; `[rows]`.
    pub sentence_attention: Tensor,
}

impl Hin {
    /// Puts HIN on an encoder.
    ///
    /// # Errors
    /// Settings that cannot be built, named.
    pub fn new(mut foundation: Foundation, settings: HinSettings) -> Result<Self> {
        settings.check()?;
        let layout = Arc::new(HinLayout::new(&foundation, &settings));
        let (encoder, parameters) = (foundation.encoder.facts(), &mut foundation.parameters);
        if settings.bert_mode == BertMode::Frozen {
            parameters.freeze();
        }
        let width = if encoder.contextual { settings.word_width } else { encoder.width };
        let word_map = encoder
            .contextual
            .then(|| Linear::bias_first(parameters, "heads.word_map", encoder.width, width))
            .transpose()?;
        let coref = ("heads.coref_emb", settings.coreference_rows, settings.coreference_width);
        let rows = foundation.entity_types.len() as i64 + 1;
        let types = ("heads.type_emb", rows, settings.type_width);
        let features = WordFeatures::declare(parameters, coref, types, FeatureOrder::TypeCoref)?;
        let width = width + features.width();
        let na = if settings.na_class { NaClass::First } else { NaClass::Absent };
        let classes = Classes { relations: foundation.relations, na };
        let (d, salt) = (settings.width(), HinMask::EntityReader as u64);
        Ok(Self {
            word_map,
            features,
            entity_reader: HinReader::declare(parameters, "heads.lstm_e", width, &settings, salt)?,
            entity_inference: EntityInference::declare(parameters, &settings)?,
            document_level: DocumentLevel::declare(parameters, width, &settings)?,
            output: Linear::bias_first(parameters, "heads.out", 2 * d, classes.count() as i64)?,
            foundation,
            settings,
            layout,
            classes,
        })
    }

    /// Everything on the way to the logits of a batch.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn states(&self, tables: &HinTables, forward: Forward) -> Result<HinStates> {
        let run = HinRun { model: self, tables, forward };
        let inputs = run.inputs()?;
        let words = run.read(&self.entity_reader, &inputs, &run.documents()?)?;
        let entities = tables.words.averages.sum(&words)?;
        let mut entity_level = self.entity_inference.forward(&entities, &tables.words)?;
        entity_level.pairs = dropout(
            &entity_level.pairs,
            run.dropout(Rows::Pairs)?.as_ref(),
            HinMask::Pairs as u64,
        )?;
        let (documents, sentence_level) = match &self.document_level {
            DocumentLevel::Mean(reader) => {
                let segments = run.documents()?;
                let means = document_means(&run.read(reader, &inputs, &segments)?, &segments)?;
                (take(&means, &tables.documents)?, None)
            }
            DocumentLevel::Hierarchy(layers) => {
                run.hierarchy(layers, &inputs, &entity_level.pairs)?
            }
        };
        let logits = self.output.forward(&Tensor::f_cat(&[&entity_level.pairs, &documents], 1)?)?;
        Ok(HinStates { inputs, words, entities, entity_level, sentence_level, documents, logits })
    }
}

impl DocumentLevel {
    fn declare(parameters: &mut Parameters, input: i64, settings: &HinSettings) -> Result<Self> {
        let (sentences, documents) =
            (HinMask::SentenceReader as u64, HinMask::DocumentReader as u64);
        if settings.hierarchy {
            return Ok(Self::Hierarchy(Box::new(Hierarchy::declare(
                parameters,
                input,
                settings,
                [sentences, documents],
            )?)));
        }
        Ok(Self::Mean(HinReader::declare(
            parameters,
            "heads.lstm_doc",
            input,
            settings,
            documents,
        )?))
    }
}

/// One forward pass.
struct HinRun<'a> {
    model: &'a Hin,
    tables: &'a HinTables,
    forward: Forward,
}

impl HinRun<'_> {
    fn device(&self) -> Device {
        self.model.foundation.parameters.device()
    }

    fn documents(&self) -> Result<Segments> {
        Segments::new(&self.tables.words.word_offsets, self.device())
    }

    fn dropout(&self, rows: Rows) -> Result<Option<Dropout>> {
        self.tables.words.dropout(rows, self.model.settings.dropout, self.forward, self.device())
    }

    /// Reads words, in documents or in sentences.
    fn read(&self, reader: &HinReader, inputs: &Tensor, segments: &Segments) -> Result<Tensor> {
        let dropout = self.dropout(Rows::Words)?;
        reader.forward(inputs, segments, dropout.as_ref(), self.forward.train)
    }

    /// H.1: [word; type; coreference].
    fn inputs(&self) -> Result<Tensor> {
        let model = self.model;
        // Features that are fixed come from an encoder that is not in training: without its dropout
        // and without a graph.
        let frozen = model.settings.bert_mode == BertMode::Frozen;
        let forward = Forward { train: self.forward.train && !frozen, ..self.forward };
        let states = || self.tables.words.word_states(&model.foundation, forward);
        let mut words = model.settings.bert_mode.run(states)?.f_to_kind(Kind::Float)?;
        if let Some(map) = &model.word_map {
            words = map.forward(&words)?;
        }
        model.features.beside(&words, &self.tables.words)
    }

    /// H.7–H.11: I_d of every pair, and what leads there.
    fn hierarchy(
        &self,
        layers: &Hierarchy,
        inputs: &Tensor,
        pairs: &Tensor,
    ) -> Result<(Tensor, Option<SentenceLevel>)> {
        let device = self.device();
        let segments = Segments::new(&self.tables.words.sentence_offsets, device)?;
        let states = self.read(&layers.sentence_reader, inputs, &segments)?;
        let (sentences, word_attention) =
            layers.word_attention.forward(&states, &segments.offsets)?;
        let rows = &self.tables.rows;
        let keys = self.row_dropout()?;
        let inferred = match &layers.inference {
            Some(inference) => {
                let inferred = inference.forward(&sentences, pairs, rows)?;
                dropout(&inferred, keys.as_ref().map(|(own, _)| own), HinMask::Sentences as u64)?
            }
            None => take(&sentences, &rows.sentences)?,
        };
        let segments = Segments::new(&rows.offsets, device)?;
        let locked = keys.as_ref().map(|(_, locked)| locked);
        let states =
            layers.document_reader.forward(&inferred, &segments, locked, self.forward.train)?;
        let (read, sentence_attention) =
            layers.sentence_attention.forward(&states, &segments.offsets)?;
        let documents =
            if layers.inference.is_some() { read } else { take(&read, &self.tables.documents)? };
        Ok((
            documents,
            Some(SentenceLevel { sentences, word_attention, inferred, sentence_attention }),
        ))
    }

    /// Dropout of the rows of (pair, sentence): one key a row, and one key a pair for the locked
    /// masks.
    fn row_dropout(&self) -> Result<Option<(Dropout, Dropout)>> {
        let dropout = |keys: &dyn Fn() -> Vec<i64>| {
            row_dropout(self.model.settings.dropout, self.forward, self.device(), keys)
        };
        let own = dropout(&|| self.tables.words.keys(ROWS, &self.tables.row_offsets))?;
        let locked = dropout(&|| {
            let sequences = self.tables.words.keys(SEQUENCES, &self.tables.sequence_offsets);
            self.tables.rows.pairs.iter().map(|&sequence| sequences[sequence as usize]).collect()
        })?;
        Ok(own.zip(locked))
    }
}

impl Extractor for Hin {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::clone(&self.layout) as Arc<dyn Layout>
    }

    fn classes(&self) -> Classes {
        self.classes
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        Ok(self.states(tables(&batch.tables)?, forward)?.logits)
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }
}
