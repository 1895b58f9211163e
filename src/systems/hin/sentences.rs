//! Sentence and document level (docs/systems.md, H.7–H.11; Tang et al. 2020, eq. 6–14): sentence
//! vectors by attention over words, inference of each sentence with the pair, and a BiLSTM with
//! attention over a pair's sentences.
//!
//! A document with P pairs and S sentences has P·S rows here; all rows of all documents of a batch
//! go through one call of each layer. Of G_s over [S_j; I_e; S_j − I_e; S_j ∘ I_e] only the last
//! block has to be multiplied row by row: with G_s = [A B C D], G_s x = (A + C) S_j + (B − C) I_e +
//! D (S_j ∘ I_e), of which the first two are made once a sentence and once a pair.

use tch::{Kind, Tensor};

use super::HinSettings;
use super::reader::HinReader;
use crate::Result;
use crate::torch::kernels::Segments;
use crate::torch::kernels::activations::Activation;
use crate::torch::kernels::bags::{Bags, GroupSoftmax, take};
use crate::torch::kernels::products::{dot, linear};
use crate::torch::nn::Linear;
use crate::torch::{Init, Parameters};

/// Rows of (pair, sentence); host data.
#[derive(Clone, Debug, PartialEq)]
pub struct PairSentences {
    /// Pair of each row. `[P·S]`
    pub pairs: Vec<i64>,
    /// Sentence row of each row. `[P·S]`
    pub sentences: Vec<i64>,
    /// First row of each pair, closed by their number. [P + 1]
    pub offsets: Vec<i64>,
}

impl Default for PairSentences {
    fn default() -> Self {
        Self { pairs: Vec::new(), sentences: Vec::new(), offsets: vec![0] }
    }
}

impl PairSentences {
    /// Appends the rows of a pair, one a sentence.
    pub fn push(&mut self, pair: i64, sentences: &[i64]) {
        self.pairs.resize(self.pairs.len() + sentences.len(), pair);
        self.sentences.extend_from_slice(sentences);
        self.offsets.push(self.sentences.len() as i64);
    }
}

/// Attention with one learned query: softmax over a sequence of uᵀ tanh(W h + b).
#[derive(Debug)]
pub(super) struct Attention {
    map: Linear,
    query: Tensor,
}

impl Attention {
    pub fn declare(parameters: &mut Parameters, name: &str, width: i64) -> Result<Self> {
        let bound = Init::Uniform { bound: 1.0 / (width as f64).sqrt() };
        Ok(Self {
            map: Linear::bias_first(parameters, &format!("{name}.W"), width, width)?,
            query: parameters.declare(format!("{name}.u"), &[width], bound)?,
        })
    }

    /// Rows [n, d] of sequences given by their first rows → one vector a sequence [sequences, d],
    /// and the attention `[n]`.
    pub fn forward(&self, rows: &Tensor, offsets: &[i64]) -> Result<(Tensor, Tensor)> {
        let scores = dot(&Activation::Tanh.apply(&self.map.forward(rows)?)?, &self.query)?;
        let weights =
            GroupSoftmax::new(offsets, 1).forward(&scores.f_unsqueeze(1)?)?.f_view([-1])?;
        Ok((Bags::of_spans(offsets).weighted_sum(rows, &weights)?, weights))
    }
}

/// G_s, H.9.
#[derive(Debug)]
pub(super) struct SentenceInference {
    layer: Linear,
    width: i64,
}

impl SentenceInference {
    pub fn declare(parameters: &mut Parameters, settings: &HinSettings) -> Result<Self> {
        let width = settings.width();
        Ok(Self { layer: Linear::bias_first(parameters, "heads.G_s", 4 * width, width)?, width })
    }

    /// Sentences [S, d] and pairs [P, d] → I_s [P·S, d].
    pub fn forward(
        &self,
        sentences: &Tensor,
        pairs: &Tensor,
        rows: &PairSentences,
    ) -> Result<Tensor> {
        let block = |index: i64| self.layer.weight.f_narrow(1, index * self.width, self.width);
        let (a, b, c, d) = (block(0)?, block(1)?, block(2)?, block(3)?);
        let of_sentences = linear(sentences, &a.f_add(&c)?, self.layer.bias.as_ref())?;
        let of_pairs = linear(pairs, &b.f_sub(&c)?, None)?;
        // A vector and its image are gathered together.
        let sentences = take(&Tensor::f_cat(&[sentences, &of_sentences], 1)?, &rows.sentences)?;
        let pairs = take(&Tensor::f_cat(&[pairs, &of_pairs], 1)?, &rows.pairs)?;
        let half = |tensor: &Tensor, index: i64| tensor.f_narrow(1, index * self.width, self.width);
        let products = linear(&half(&sentences, 0)?.f_mul(&half(&pairs, 0)?)?, &d, None)?;
        Ok(products.f_add(&half(&sentences, 1)?)?.f_add(&half(&pairs, 1)?)?.f_relu()?)
    }
}

/// The layers of H.7–H.11.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub sentence_reader: HinReader,
    pub word_attention: Attention,
    pub inference: Option<SentenceInference>,
    pub document_reader: HinReader,
    pub sentence_attention: Attention,
}

impl Hierarchy {
    pub fn declare(
        parameters: &mut Parameters,
        input: i64,
        settings: &HinSettings,
        salts: [u64; 2],
    ) -> Result<Self> {
        let d = settings.width();
        Ok(Self {
            sentence_reader: HinReader::declare(
                parameters,
                "heads.lstm_s",
                input,
                settings,
                salts[0],
            )?,
            word_attention: Attention::declare(parameters, "heads.att_w", d)?,
            inference: settings
                .sentence_inference
                .then(|| SentenceInference::declare(parameters, settings))
                .transpose()?,
            document_reader: HinReader::declare(parameters, "heads.lstm_d", d, settings, salts[1])?,
            sentence_attention: Attention::declare(parameters, "heads.att_s", d)?,
        })
    }
}

/// The mean over each document's states; [documents, d]. A document without words has zeros.
pub(super) fn document_means(states: &Tensor, documents: &Segments) -> Result<Tensor> {
    let mut bags = Bags::default();
    for pair in documents.offsets.windows(2) {
        bags.push_mean(pair[0]..pair[1], 1.0);
    }
    bags.sum(&states.f_to_kind(Kind::Float)?)
}
