//! The tensor half of the evidence predictor.

use tch::{Kind, Tensor};

use super::{EvidenceBatch, EvidenceItem, EvidenceLayout, EvidenceSettings};
use crate::Result;
use crate::systems::words::{FeatureOrder, WordFeatures, padded_rows, padded_table};
use crate::systems::{Foundation, Model, SystemSettings, on};
use crate::text::split_by_tokens;
use crate::torch::Parameters;
use crate::torch::kernels::activations::Activation;
use crate::torch::nn::losses::bce_sum;
use crate::torch::nn::{Linear, LstmShape, PackedLstm};
use crate::train::{Forward, Objective};

/// LSTM-SP over any encoder.
pub struct EvidencePredictor {
    foundation: Foundation,
    features: WordFeatures,
    lstm: PackedLstm,
    map: Linear,
    /// A row a relation, from row 1; [R + 1, hidden].
    relations: Tensor,
    judge: Linear,
    /// The host half.
    pub layout: EvidenceLayout,
    locked_dropout: f64,
}

impl EvidencePredictor {
    /// Declares the layers above an encoder, named as in the release.
    ///
    /// # Errors
    /// If no model can be built from the settings, or libtorch rejects an operation.
    pub fn new(mut foundation: Foundation, settings: &EvidenceSettings) -> Result<Self> {
        settings.check()?;
        let layout = EvidenceLayout::new(&foundation, settings);
        let (parameters, hidden) = (&mut foundation.parameters, settings.hidden);
        let coref = ("heads.coref_embed", settings.position_rows, settings.position_width);
        let rows = foundation.entity_types.len() as i64 + 1;
        let types = ("heads.ner_emb", rows, settings.type_width);
        let features = WordFeatures::declare(parameters, coref, types, FeatureOrder::CorefType)?;
        let input = foundation.encoder.facts().width + features.width();
        let shape = LstmShape { input, hidden, layers: 1, bidirectional: true };
        let rows = foundation.relations as i64 + 1;
        Ok(Self {
            features,
            lstm: PackedLstm::declare("heads.rnn", shape, parameters)?,
            relations: padded_table(parameters, "heads.relation_embed", rows, hidden, 0)?,
            map: Linear::bias_first(parameters, "heads.linear_t", 2 * hidden, hidden)?,
            judge: Linear::bias_first(parameters, "heads.linear_re", 3 * hidden, 1)?,
            layout,
            locked_dropout: settings.locked_dropout,
            foundation,
        })
    }

    /// Logits of all sentences, `[S]`; `probe` is shown what lies between.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn probed(
        &self,
        batch: &EvidenceBatch,
        forward: Forward,
        probe: &mut dyn FnMut(&'static str, &Tensor),
    ) -> Result<Tensor> {
        let (tables, device) = (&batch.tables, self.foundation.parameters.device());
        let words = tables.word_states(&self.foundation, forward)?;
        let words = self.features.beside(&words, tables)?;
        let states = tables.read(&self.lstm, &words, (self.locked_dropout, 0), forward)?;
        probe("lstm_output", &states);
        let context = self.map.forward(&states)?.f_relu()?;
        probe("context_output", &context);
        let ends =
            |rows: &[i64]| -> Result<Tensor> { Ok(context.f_index_select(0, &on(rows, device)?)?) };
        let relations: Vec<i64> =
            batch.items.iter().map(|&item| batch.relations[item as usize]).collect();
        let relations = padded_rows(&self.relations, &on(&relations, device)?, 0)?;
        let sentences = Tensor::f_cat(&[ends(&batch.firsts)?, ends(&batch.lasts)?, relations], 1)?;
        probe("sent_output", &sentences);
        Ok(self.judge.forward(&sentences)?.f_squeeze_dim(1)?)
    }

    /// The probability that a sentence is evidence, for every sentence of every item; 0 for one
    /// behind the cut. `budget` bounds the words of a forward pass.
    ///
    /// # Errors
    /// If an item cannot be laid out, or libtorch rejects an operation.
    pub fn scores(
        &self,
        items: &[EvidenceItem],
        forward: Forward,
        budget: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let _guard = tch::no_grad_guard();
        let sentences = |item: &EvidenceItem| item.document.sentence_starts.len().saturating_sub(1);
        let mut scores: Vec<Vec<f32>> =
            items.iter().map(|item| vec![0.0; sentences(item)]).collect();
        let costs: Vec<usize> = items.iter().map(|item| item.document.num_words()).collect();
        for range in split_by_tokens(&costs, budget) {
            let first = range.start;
            let batch = self.layout.batch(&items[range])?;
            if batch.items.is_empty() {
                continue;
            }
            let logits = self.probed(&batch, forward, &mut |_, _| {})?;
            let values: Vec<f32> =
                Vec::try_from(Activation::Sigmoid.apply(&logits.f_to_kind(Kind::Float)?)?)?;
            for ((item, sentence), value) in batch.items.iter().zip(&batch.sentences).zip(values) {
                scores[first + *item as usize][*sentence] = value;
            }
        }
        Ok(scores)
    }
}

impl Objective for EvidencePredictor {
    type Batch = EvidenceBatch;

    fn slots(&self) -> &[&'static str] {
        &["evidence"]
    }

    fn forward(&self, batch: &EvidenceBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let logits = self.probed(batch, forward, &mut |_, _| {})?;
        let targets = on(&batch.targets, logits.device())?;
        Ok(vec![bce_sum(&logits, &targets)?])
    }

    fn parameters(&self) -> &Parameters {
        &self.foundation.parameters
    }
}

impl Model for EvidencePredictor {
    fn foundation(&self) -> &Foundation {
        &self.foundation
    }
}
