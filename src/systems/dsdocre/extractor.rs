//! Stage 3: fine-tuning on human annotation, restricted to the ranker's top pairs (docs/systems.md,
//! D.20–D.22).

use std::cell::RefCell;
use std::sync::Arc;

use tch::Tensor;

use super::model::{DsdocreModel, ModelConfig, Part};
use super::settings::{DsdocreSettings, MarkerNumbering};
use crate::sampling::{self, BaselineSettings, KeepRule};
use crate::systems::{
    Classes, DecisionRule, DocumentViews, Example, Extractor, Foundation, Layout, NaClass,
    PackedDocuments, Pair, RelationBatch, Tables, tables,
};
use crate::text::{Markers, TokenizedDocument, View, ViewChoices};
use crate::torch::Parameters;
use crate::train::Forward;
use crate::{Error, Result};

/// Which pairs of a document take part.
#[derive(Clone, Debug)]
pub enum PairChoice {
    /// The ranker's best, by a rule (+D and +D+P).
    Kept(KeepRule),
    /// No ranker: positives and sampled negatives in training, all pairs in evaluation.
    Sampled(BaselineSettings),
}

/// The host half: marked documents and the rows of their pairs.
pub struct DsdocreLayout {
    views: DocumentViews,
    markers: MarkerNumbering,
    pairs: PairChoice,
}

/// Documents with the entity rows of their pairs.
pub struct DsdocreTables {
    /// The documents.
    pub documents: PackedDocuments,
    /// Head entity rows, `[P]`.
    pub heads: Vec<i64>,
    /// Tail entity rows, `[P]`.
    pub tails: Vec<i64>,
}

impl DsdocreLayout {
    /// A layout over views with all entities marked.
    pub fn new(views: DocumentViews, markers: MarkerNumbering, pairs: PairChoice) -> Self {
        Self { views, markers, pairs }
    }

    /// The view of a document whose pairs are chosen; the release numbers entities by the kept
    /// pairs.
    ///
    /// # Errors
    /// A document over the length limit where truncation was not asked for.
    pub fn view(&self, document: &TokenizedDocument, pairs: &[Pair]) -> Result<View> {
        let kept = || sampling::marker_order(pairs);
        let markers = match self.markers {
            MarkerNumbering::Entity => return self.views.view(document, &ViewChoices::default()),
            MarkerNumbering::KeptEntities => Markers::PerListed(kept()),
            MarkerNumbering::KeptOrder => Markers::Kept(kept()),
        };
        let mut views = self.views.clone();
        views.options.markers = markers;
        views.view(document, &ViewChoices::default())
    }
}

impl Layout for DsdocreLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        seed: u64,
        epoch: u64,
        row: u64,
    ) -> Result<Vec<Pair>> {
        match &self.pairs {
            PairChoice::Kept(rule) => sampling::kept_pairs(document, *rule),
            PairChoice::Sampled(settings) => {
                Ok(sampling::baseline_pairs(document, settings, seed, epoch, row))
            }
        }
    }

    fn evaluation_pairs(&self, document: &TokenizedDocument) -> Result<Vec<Pair>> {
        match &self.pairs {
            PairChoice::Kept(rule) => sampling::kept_pairs(document, *rule),
            PairChoice::Sampled(_) => Ok(sampling::asked_pairs(document)),
        }
    }

    /// Pieces, two markers a mention, `[CLS]` and `[SEP]`; pairs cost as well as tokens, and a
    /// budget over both keeps the largest document from deciding the memory.
    fn cost(&self, document: &TokenizedDocument, pairs: usize) -> usize {
        let mentions: usize = document.entities.iter().map(|entity| entity.mentions.len()).sum();
        document.pieces.len() + 2 * mentions + 2 + pairs
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        let views: Vec<View> = examples
            .iter()
            .map(|example| self.view(&example.document, &example.pairs))
            .collect::<Result<_>>()?;
        let visits: Vec<u64> = examples.iter().map(|example| example.visit).collect();
        let documents = self.views.pack(&views, &visits);
        let (mut heads, mut tails) = (Vec::new(), Vec::new());
        for (index, example) in examples.iter().enumerate() {
            let base = documents.entity_base(index);
            heads.extend(example.pairs.iter().map(|pair| base + i64::from(pair.0)));
            tails.extend(example.pairs.iter().map(|pair| base + i64::from(pair.1)));
        }
        Ok(Box::new(DsdocreTables { documents, heads, tails }))
    }
}

/// The fine-tuned extractor: relation vectors of the chosen pairs, classified; Σ binary
/// cross-entropy / (pairs · classes).
pub struct Dsdocre {
    /// Encoder and heads.
    pub model: DsdocreModel,
    layout: Arc<DsdocreLayout>,
    decision: DecisionRule,
    /// Classifier and bilinear layer as one, while a series of predictions lasts.
    folded: RefCell<Option<(Tensor, Tensor)>>,
}

impl Dsdocre {
    /// Puts the fine-tuner's heads on an encoder; `ranked` says whether the documents carry a
    /// ranker's pairs.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(foundation: Foundation, settings: &DsdocreSettings, ranked: bool) -> Result<Self> {
        settings.check()?;
        let options =
            settings.view_options(foundation.max_pieces, foundation.truncate, Part::Finetuner);
        let views = DocumentViews { pieces: foundation.pieces, options, seed: foundation.seed };
        let pairs = if ranked {
            PairChoice::Kept(settings.finetune_rule())
        } else {
            PairChoice::Sampled(settings.baseline_settings())
        };
        let config = ModelConfig::of(Part::Finetuner, settings, foundation.relations);
        let model = DsdocreModel::new(
            foundation.encoder,
            foundation.parameters,
            config,
            foundation.dropout,
        )?;
        let layout = Arc::new(DsdocreLayout::new(views, settings.markers, pairs));
        Ok(Self { model, layout, decision: settings.decision, folded: RefCell::new(None) })
    }

    /// How a document is laid out with its pairs.
    ///
    /// # Errors
    /// As [`DsdocreLayout::view`].
    pub fn view(&self, document: &TokenizedDocument, pairs: &[Pair]) -> Result<View> {
        self.layout.view(document, pairs)
    }

    /// Relation vectors [P, w] and class logits [P, C] of a batch.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn vectors_and_logits(
        &self,
        batch: &RelationBatch,
        forward: Forward,
    ) -> Result<(Tensor, Tensor)> {
        let tables: &DsdocreTables = tables(&batch.tables)?;
        let (_, entities) = self.model.encode(&tables.documents, forward)?;
        let relations = self.model.relation_vectors(&entities, &tables.heads, &tables.tails)?;
        let logits = self.model.classify(&relations)?;
        Ok((relations, logits))
    }
}

impl Extractor for Dsdocre {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<DsdocreLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        Classes { relations: self.model.config.classes as usize - 1, na: NaClass::Last }
    }

    fn decision(&self) -> DecisionRule {
        self.decision
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        Ok(self.vectors_and_logits(batch, forward)?.1)
    }

    fn begin_prediction(&self) -> Result<()> {
        self.folded.replace(Some(self.model.fold_classifier()?));
        Ok(())
    }

    fn predict(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        let tables: &DsdocreTables = tables(&batch.tables)?;
        let folded = self.folded.borrow();
        let folded = folded
            .as_ref()
            .ok_or_else(|| Error::Bug("a prediction began without `begin_prediction`".into()))?;
        let (_, entities) = self.model.encode(&tables.documents, forward)?;
        self.model.folded_logits(&entities, &tables.heads, &tables.tails, folded)
    }

    fn parameters(&self) -> &Parameters {
        &self.model.parameters
    }

    fn encoder_config(&self) -> serde_json::Value {
        self.model.encoder.config()
    }
}
