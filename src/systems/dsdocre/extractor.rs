//! Stage 3: fine-tuning on human annotation, restricted to the ranker's top pairs (docs/systems.md,
//! D.20–D.22).

use std::cell::RefCell;
use std::sync::Arc;

use tch::Tensor;

use super::model::DsdocreModel;
use super::rows::PairRows;
use super::settings::{DsdocreSettings, MarkerNumbering, ModelKind};
use crate::sampling::{Purpose, UnlabelledPairs, asked_pairs, kept_pairs, rng, take};
use crate::systems::{
    Classes, DecisionRule, DocumentViews, Example, Extractor, Foundation, Layout, NaClass,
    PackedDocuments, Pair, RelationBatch, RelationStart, SystemSettings, Tables, tables,
};
use crate::text::{Markers, TokenizedDocument, View, ViewChoices};
use crate::torch::kernels::pairs::relation_vectors;
use crate::train::Forward;
use crate::{Error, Result};

/// The host half: marked documents and the rows of their pairs.
pub struct DsdocreLayout {
    views: DocumentViews,
    settings: DsdocreSettings,
    /// Whether the documents carry a ranker's pairs (+D and +D+P).
    ranked: bool,
}

/// Documents with the entity rows of their pairs.
pub struct DsdocreTables {
    /// The documents.
    pub documents: PackedDocuments,
    /// The pairs, `[P]`.
    pub rows: PairRows,
}

impl DsdocreLayout {
    /// The view of a document whose pairs are chosen; the release numbers entities by the kept
    /// pairs.
    ///
    /// # Errors
    /// A document over the length limit where truncation was not asked for.
    pub fn view(&self, document: &TokenizedDocument, pairs: &[Pair]) -> Result<View> {
        let kept = || marker_order(pairs);
        let markers = match self.settings.markers {
            MarkerNumbering::Entity => return self.views.view(document, &ViewChoices::default()),
            MarkerNumbering::KeptEntities => Markers::PerListed(kept()),
            MarkerNumbering::KeptOrder => Markers::Kept(kept()),
        };
        let mut views = self.views.clone();
        views.options.markers = markers;
        views.view(document, &ViewChoices::default())
    }
}

/// Entities by first appearance in a list of pairs, head before tail: the numbering of the
/// release's fine-tuner (docs/systems.md, "D. DSDocRE").
pub(super) fn marker_order(pairs: &[Pair]) -> Vec<u32> {
    let mut order = Vec::new();
    for entity in pairs.iter().flat_map(|&(head, tail)| [head, tail]) {
        if !order.contains(&entity) {
            order.push(entity);
        }
    }
    order
}

/// Training pairs of a document without a ranker: its labelled pairs, then random unlabelled ones,
/// without repetition; a new draw in every epoch. More labelled pairs than the cap are thinned out
/// at random.
pub(super) fn unranked_pairs(
    document: &TokenizedDocument,
    settings: &DsdocreSettings,
    seed: u64,
    epoch: u64,
    row: u64,
) -> Vec<Pair> {
    let mut stream = rng(seed, Purpose::Finetune, epoch, row);
    let mut pairs: Vec<Pair> = document.facts.iter().map(|fact| (fact.head, fact.tail)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    if pairs.len() > settings.baseline_max_pairs {
        return take(&mut stream, &pairs, settings.baseline_max_pairs);
    }
    let negatives = UnlabelledPairs::new(document);
    let wanted = settings.baseline_negatives * pairs.len();
    let count = wanted.min(settings.baseline_max_pairs - pairs.len()).min(negatives.len());
    pairs.extend(negatives.draw(&mut stream, count));
    pairs
}

impl Layout for DsdocreLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        seed: u64,
        epoch: u64,
        row: u64,
    ) -> Result<Vec<Pair>> {
        if self.ranked {
            return kept_pairs(document, self.settings.finetune_pairs());
        }
        Ok(unranked_pairs(document, &self.settings, seed, epoch, row))
    }

    fn evaluation_pairs(&self, document: &TokenizedDocument) -> Result<Vec<Pair>> {
        if self.ranked {
            return kept_pairs(document, self.settings.finetune_pairs());
        }
        Ok(asked_pairs(document))
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        let views: Vec<View> = examples
            .iter()
            .map(|example| self.view(&example.document, &example.pairs))
            .collect::<Result<_>>()?;
        let visits: Vec<u64> = examples.iter().map(|example| example.visit).collect();
        let documents = self.views.pack(&views, &visits);
        let mut rows = PairRows::default();
        for (index, example) in examples.iter().enumerate() {
            rows.extend_pairs(&example.pairs, documents.entity_base(index));
        }
        Ok(Box::new(DsdocreTables { documents, rows }))
    }
}

/// The fine-tuned extractor: relation vectors of the chosen pairs, classified; Σ binary
/// cross-entropy / (pairs · classes).
pub struct Dsdocre {
    /// Encoder and heads.
    pub model: DsdocreModel,
    layout: Arc<DsdocreLayout>,
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
            settings.view_options(foundation.max_pieces, foundation.truncate, ModelKind::Finetuner);
        let (pieces, seed) = (foundation.pieces.clone(), foundation.seed);
        let views = DocumentViews { pieces, options, seed };
        let model = DsdocreModel::new(foundation, ModelKind::Finetuner, settings)?;
        let layout = Arc::new(DsdocreLayout { views, settings: settings.clone(), ranked });
        Ok(Self { model, layout, folded: RefCell::new(None) })
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
        let relations =
            self.model.heads.relation.forward(&entities, &tables.rows.heads, &tables.rows.tails)?;
        let logits = self.model.classify(&relations)?;
        Ok((relations, logits))
    }
}

impl Extractor for Dsdocre {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<DsdocreLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        Classes { relations: self.model.foundation.relations, na: NaClass::Last }
    }

    fn decision(&self) -> DecisionRule {
        self.layout.settings.decision
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        Ok(self.vectors_and_logits(batch, forward)?.1)
    }

    fn rows_from_names(&self) -> Option<&Tensor> {
        let asked = self.layout.settings.relation_start == RelationStart::Names;
        self.model.heads.classify.as_ref().filter(|_| asked).map(|layer| &layer.weight)
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
        let (weight, bias) = folded;
        relation_vectors(&entities, &tables.rows.heads, &tables.rows.tails, weight, bias)
    }

    fn foundation(&self) -> &Foundation {
        &self.model.foundation
    }
}
