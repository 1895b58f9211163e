//! The layers that ranker, pre-trainer and fine-tuner share (docs/systems.md, D.1–D.6).

use tch::{Kind, Tensor};

use super::settings::{AlignmentDistance, DsdocreSettings, HeadStart, ModelKind};
use crate::encoders::TokenStream;
use crate::systems::{DocumentTables, Foundation, Model, PackedDocuments};
use crate::torch::kernels::pairs;
use crate::torch::kernels::products;
use crate::torch::nn::{Bilinear, Linear};
use crate::torch::{Arena, HEADS, Parameters, Uploaded};
use crate::train::Forward;
use crate::{Error, Result};

/// The layers above the encoder; a head that a model lacks is `None`.
#[derive(Debug)]
pub struct Heads {
    /// Bilinear_E [w, d, d].
    pub relation: Bilinear,
    /// Ranking score w_n `[1, w]` and b_n `[1]` (equation 3).
    pub rank_score: Option<Linear>,
    /// Alignment score w_s `[1, w]` and b_s `[1]` (equation 4).
    pub align_score: Option<Linear>,
    /// Bilinear_M `[1, d, d]` (equation 1).
    pub mention: Option<Bilinear>,
    /// Classifier [C, w].
    pub classify: Option<Linear>,
}

/// Encoder, heads and their parameters.
pub struct DsdocreModel {
    /// What it was built on; its heads are named `heads.…` among the parameters.
    pub foundation: Foundation,
    /// The heads.
    pub heads: Heads,
}

/// Declares a bilinear layer.
fn bilinear(
    parameters: &mut Parameters,
    name: &str,
    out: i64,
    width: i64,
    start: HeadStart,
) -> Result<Bilinear> {
    let bound = match start {
        HeadStart::Pytorch => 1.0 / (width as f64).sqrt(),
        HeadStart::Unit => 3f64.sqrt() / width as f64,
    };
    Bilinear::declare(parameters, &format!("{HEADS}{name}"), width, out, bound)
}

impl Heads {
    fn declare(
        foundation: &mut Foundation,
        kind: ModelKind,
        settings: &DsdocreSettings,
    ) -> Result<Self> {
        let (width, classes) = (foundation.encoder.facts().width, foundation.relations as i64 + 1);
        let (parameters, w) = (&mut foundation.parameters, settings.relation_width);
        let relation = bilinear(parameters, "relation", w, width, settings.head_start)?;
        let mut linear_if = |wanted: bool, name: &str, out: i64| {
            wanted
                .then(|| Linear::declare(parameters, &format!("{HEADS}{name}"), w, out))
                .transpose()
        };
        let rank_score = linear_if(kind != ModelKind::Finetuner, "rank_score", 1)?;
        let align_score = linear_if(kind == ModelKind::Pretrainer, "align_score", 1)?;
        let classify = linear_if(kind == ModelKind::Finetuner, "classify", classes)?;
        let mention = (kind == ModelKind::Pretrainer)
            .then(|| bilinear(parameters, "mention", 1, width, settings.head_start))
            .transpose()?;
        Ok(Self { relation, rank_score, align_score, mention, classify })
    }
}

/// Weight and bias of a head.
fn present<'a>(head: Option<&'a Linear>, name: &str) -> Result<(&'a Tensor, &'a Tensor)> {
    head.and_then(|layer| Some((&layer.weight, layer.bias.as_ref()?))).ok_or_else(|| absent(name))
}

fn absent(name: &str) -> Error {
    Error::Bug(format!("this model has no `{name}` head"))
}

impl DsdocreModel {
    /// Puts heads on an encoder.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn new(
        mut foundation: Foundation,
        kind: ModelKind,
        settings: &DsdocreSettings,
    ) -> Result<Self> {
        let heads = Heads::declare(&mut foundation, kind, settings)?;
        Ok(Self { foundation, heads })
    }

    /// Token states [T, d] and entity vectors [E, d].
    ///
    /// # Errors
    /// If libtorch rejects an operation, or a document is longer than the encoder's positions.
    pub fn encode(
        &self,
        documents: &PackedDocuments,
        forward: Forward,
    ) -> Result<(Tensor, Tensor)> {
        let mut arena = Arena::default();
        let tables = documents.lay(&mut arena);
        let uploaded = arena.upload(self.foundation.parameters.device())?;
        self.encode_uploaded(documents, &tables, &uploaded, forward)
    }

    /// The same with tables that reached the device before.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_uploaded(
        &self,
        documents: &PackedDocuments,
        tables: &DocumentTables,
        uploaded: &Uploaded,
        forward: Forward,
    ) -> Result<(Tensor, Tensor)> {
        let pass = self.foundation.pass(forward, || &documents.token_keys)?;
        let stream = TokenStream::uploaded(tables.stream, &documents.views.offsets, uploaded)?;
        let states = self.foundation.encoder.encode(&stream, &pass)?;
        let entities = documents.entity_vectors_at(&states, &uploaded.table(tables.mentions)?)?;
        Ok((states, entities))
    }

    /// Ranking scores s_n `[P]` of pairs of entity rows (equation 3), through the collapsed d×d
    /// matrix.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn ranking_scores(
        &self,
        entities: &Tensor,
        heads: &[i64],
        tails: &[i64],
    ) -> Result<Tensor> {
        let (weight, bias) = present(self.heads.rank_score.as_ref(), "rank_score")?;
        let relation = &self.heads.relation;
        let (matrix, constant) =
            pairs::ranking_matrix(&relation.weight, &relation.bias, weight, bias)?;
        pairs::ranking_scores(entities, heads, tails, &matrix, &constant)
    }

    /// The same through a matrix that was made before, with rows on the device.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn ranking_scores_by(
        &self,
        entities: &Tensor,
        [heads, tails]: [&Tensor; 2],
        matrix: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (weight, bias) = present(self.heads.rank_score.as_ref(), "rank_score")?;
        let relation = &self.heads.relation;
        let (matrix, constant) = match matrix {
            Some(matrix) => {
                (matrix.shallow_clone(), pairs::ranking_constant(&relation.bias, weight, bias)?)
            }
            None => pairs::ranking_matrix(&relation.weight, &relation.bias, weight, bias)?,
        };
        pairs::ranking_scores_of(entities, heads, tails, &matrix, &constant)
    }

    /// On a GPU the products of the relation layer with tails, and the matrix of ranking scores, in
    /// one step backward ([`pairs::tail_products_and_matrix`]).
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn tail_products_and_matrix(&self, tails: &Tensor) -> Result<[Tensor; 2]> {
        let (score, _) = present(self.heads.rank_score.as_ref(), "rank_score")?;
        pairs::tail_products_and_matrix(tails, &self.heads.relation.weight, score)
    }

    /// Mention scores s_m(x, q) = xᵀ W_m q + b (equation 1): queries [R, d] and R·C rows of
    /// `vectors`, those of a query side by side, on the device → [R, C].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn mention_scores(
        &self,
        queries: &Tensor,
        vectors: &Tensor,
        candidates: &Tensor,
    ) -> Result<Tensor> {
        let Bilinear { weight, bias } =
            self.heads.mention.as_ref().ok_or_else(|| absent("mention"))?;
        let candidates = vectors.f_index_select(0, candidates)?;
        let candidates = candidates.f_view([queries.size()[0], -1, vectors.size()[1]])?;
        let projected = products::matmul(queries, &weight.f_squeeze_dim(0)?)?; // [R, d]
        // [R, C, 1]
        let scores = products::batched_turned(&candidates, &projected.f_unsqueeze(1)?)?;
        Ok(scores.f_squeeze_dim(2)?.f_add(bias)?)
    }

    /// Alignment scores s_s(a, b) = w_sᵀ |a − b| + b_s (equation 4), or with (a − b)²: queries [R,
    /// w], candidates [R, C, w] → [R, C].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn alignment_scores(
        &self,
        queries: &Tensor,
        candidates: &Tensor,
        distance: AlignmentDistance,
    ) -> Result<Tensor> {
        let (weight, bias) = present(self.heads.align_score.as_ref(), "align_score")?;
        let difference = candidates.f_sub(&queries.f_unsqueeze(1)?)?;
        let distance = match distance {
            AlignmentDistance::Abs => difference.f_abs()?,
            AlignmentDistance::Squared => difference.f_square()?,
        };
        Ok(products::linear(&distance, weight, Some(bias))?.f_squeeze_dim(2)?)
    }

    /// Class logits [P, C] of relation vectors [P, w].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn classify(&self, relations: &Tensor) -> Result<Tensor> {
        self.heads.classify.as_ref().ok_or_else(|| absent("classify"))?.forward(relations)
    }

    /// Classifier and bilinear layer as one: weight `[C, d, d]`, bias `[C]`.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn fold_classifier(&self) -> Result<(Tensor, Tensor)> {
        let (weight, bias) = present(self.heads.classify.as_ref(), "classify")?;
        let (w, d, _) = self.heads.relation.weight.size3()?;
        tch::no_grad(|| {
            let folded = products::matmul(weight, &self.heads.relation.weight.f_view([w, d * d])?)?
                .f_view([-1, d, d])?;
            let constant = products::dot(weight, &self.heads.relation.bias)?.f_add(bias)?;
            Ok((folded.f_to_kind(Kind::Float)?, constant))
        })
    }
}

impl Model for DsdocreModel {
    fn foundation(&self) -> &Foundation {
        &self.foundation
    }
}
