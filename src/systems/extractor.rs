//! What every system that extracts relations has in common: a host half that lays documents out,
//! and a tensor half that gives logits.
//!
//! A system implements [`Layout`] (no tensors, runs on the thread that prepares batches) and
//! [`Extractor`] (the model). Everything else — order, micro-batches, the loss over classes,
//! decisions, evaluation, checkpoints — is written once, for all systems.

use std::any::Any;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::positive_unlabelled::{RiskRule, RiskTotals, risk_sum};
use super::{AttentionTargets, Classes, EvidenceRule, EvidenceWeights, ScoredBatch, row_dropout};
use crate::distant::{LabelDecision, PairDecisions};
use crate::encoders::{Encoder, Pass};
pub use crate::sampling::Pair;
use crate::text::{SpecialPieces, TokenizedDocument};
use crate::torch::nn::losses::{
    adaptive_threshold_sum, bce_sum, soft_margin_sum, weighted_bce_sum,
};
use crate::torch::{Parameters, on};
use crate::train::{Forward, MicroBatch, Objective};
use crate::{Error, Result};

/// One visit of a system to a document.
#[derive(Clone, Debug)]
pub struct Example {
    /// The document.
    pub document: Arc<TokenizedDocument>,
    /// The ordered pairs that are classified, in order.
    pub pairs: Vec<Pair>,
    /// Identifies this visit among all of the stage: the key of its dropout masks and other draws.
    pub visit: u64,
    /// Whether this is a training visit.
    pub train: bool,
}

/// What a system's host half made of a batch of examples; read back by its tensor half with
/// [`tables`].
pub type Tables = Box<dyn Any + Send>;

/// Reads tables as what the system's own layout wrote.
///
/// # Errors
/// [`Error::Bug`] for the tables of another system.
pub fn tables<T: 'static>(tables: &Tables) -> Result<&T> {
    tables.downcast_ref().ok_or_else(|| {
        Error::Bug(format!("the tables of a batch are no {}", std::any::type_name::<T>()))
    })
}

/// The loss over the classes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelationLoss {
    /// Binary cross-entropy over all classes, Σ / (pairs · C).
    Bce,
    /// Adaptive-threshold loss (ATLOP), Σ / pairs, times a constant.
    AdaptiveThreshold {
        /// The constant (DocRE-II's release: 100).
        scale: f64,
    },
    /// Risks of relations against the threshold class, where a pair without a label is not a
    /// negative; means over the labelled and the other pairs of each relation.
    PositiveUnlabelled(RiskRule),
}

/// How classes are read off the logits of a pair (docs/systems.md, C.14–C.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionRule {
    /// The largest of relations and NA; at most one relation a pair.
    ArgMax,
    /// Every relation whose probability is above one global threshold, the best-F1 prefix of dev.
    Threshold,
    /// Every relation above the threshold class, at most the `top` largest of them (0: no limit).
    Adaptive {
        /// The most relations of a pair.
        top: usize,
    },
}

/// The host half of a system: no tensors.
pub trait Layout: Send + Sync {
    /// The pairs of a document in training, at the visit of `epoch`; all that are asked about
    /// unless the system samples.
    ///
    /// # Errors
    /// A document that lacks what the choice needs, named.
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        _seed: u64,
        _epoch: u64,
        _row: u64,
    ) -> Result<Vec<Pair>> {
        self.evaluation_pairs(document)
    }

    /// The pairs of a document in evaluation; all that are asked about unless the system chooses.
    ///
    /// # Errors
    /// As [`Self::training_pairs`].
    fn evaluation_pairs(&self, document: &TokenizedDocument) -> Result<Vec<Pair>> {
        Ok(crate::sampling::asked_pairs(document))
    }

    /// Looks at all training documents once, before the first step, where a system counts something
    /// in them.
    fn observe(&self, _documents: &mut dyn Iterator<Item = Arc<TokenizedDocument>>) {}

    /// What a document costs in the token budget of a micro-batch; by default its pieces, two
    /// markers a mention, start and end, and as much again as there are pairs: their vectors weigh
    /// as much as a token's.
    fn cost(&self, document: &TokenizedDocument, pairs: usize) -> usize {
        let mentions: usize = document.entities.iter().map(|entity| entity.mentions.len()).sum();
        document.pieces.len() + 2 * mentions + 2 + pairs
    }

    /// Lays examples out.
    ///
    /// # Errors
    /// A document that cannot be laid out, named.
    fn tables(&self, examples: &[Example]) -> Result<Tables>;

    /// Multi-hot targets of a document's pairs, [pairs × C] row-major; by default the relations,
    /// and NA where there is none.
    fn targets(&self, classes: Classes, document: &TokenizedDocument, pairs: &[Pair]) -> Vec<f32> {
        classes.targets(document, pairs)
    }

    /// Denominators of a batch's loss slots where the system has losses of its own (see
    /// [`Extractor::losses`]); `None`: one slot, from [`RelationLoss`].
    fn counts(&self, _tables: &Tables, _targets: &[f32]) -> Option<Vec<f64>> {
        None
    }
}

/// A micro-batch of any system: host data.
pub struct RelationBatch {
    /// What the system's layout made.
    pub tables: Tables,
    /// Multi-hot targets [P × C]; empty at prediction.
    pub targets: Vec<f32>,
    /// Number of pairs P over all documents.
    pub pairs: usize,
    /// What a teacher attends to, for a system that learns it; filled by whoever stored it.
    pub attention: Option<AttentionTargets>,
    /// A teacher's logits [P × C], for a system that learns them.
    pub teacher_logits: Option<Vec<f32>>,
    classes: usize,
    documents: usize,
    tokens: usize,
    counts: Vec<f64>,
    risk: Option<Arc<RiskTotals>>,
    /// Weights of the targets [P × C], where these are soft.
    pub weights: Option<Vec<f32>>,
}

impl RelationBatch {
    /// Lays `examples` out, with targets where they are training visits.
    ///
    /// # Errors
    /// As [`Layout::tables`].
    pub fn new(
        layout: &dyn Layout,
        examples: &[Example],
        classes: Classes,
        loss: RelationLoss,
    ) -> Result<Self> {
        let tables = layout.tables(examples)?;
        let pairs = examples.iter().map(|example| example.pairs.len()).sum();
        let train = examples.iter().filter(|example| example.train);
        let targets: Vec<f32> = train
            .flat_map(|example| layout.targets(classes, &example.document, &example.pairs))
            .collect();
        let own = layout.counts(&tables, &targets);
        let counts = own.unwrap_or_else(|| match loss {
            RelationLoss::Bce => vec![targets.len() as f64],
            RelationLoss::AdaptiveThreshold { .. } | RelationLoss::PositiveUnlabelled(_) => {
                vec![pairs as f64]
            }
        });
        let tokens = examples.iter().map(|example| example.document.pieces.len()).sum();
        Ok(Self {
            tables,
            targets,
            pairs,
            attention: None,
            teacher_logits: None,
            classes: classes.count(),
            documents: examples.len(),
            tokens,
            counts,
            risk: None,
            weights: None,
        })
    }

    /// Replaces the targets of documents that a teacher has judged by soft ones: `decisions` of
    /// each example, `None` for a document that it has not judged.
    ///
    /// # Errors
    /// A system whose targets are no relations.
    pub fn with_soft_targets(
        self,
        decisions: &[Option<PairDecisions>],
        examples: &[Example],
        classes: Classes,
    ) -> Result<Self> {
        let mut targets = self.targets;
        if targets.len() != self.pairs * classes.count() {
            return Err(Error::recipe(
                "this system does not learn relations by class, as soft labels need",
            )
            .with_hint("distant.rule = \"hard\" keeps, drops and adds labels"));
        }
        let mut weights = vec![1.0; targets.len()];
        let rows = targets.chunks_exact_mut(classes.count());
        let mut rows = rows.zip(weights.chunks_exact_mut(classes.count()));
        for (example, decisions) in examples.iter().zip(decisions) {
            let decisions: Option<ahash::AHashMap<Pair, &[LabelDecision]>> = decisions
                .as_ref()
                .map(|all| all.iter().map(|(pair, decisions)| (*pair, &**decisions)).collect());
            for (pair, (targets, weights)) in example.pairs.iter().zip(&mut rows) {
                let Some(decisions) = &decisions else { continue };
                targets.fill(0.0);
                let mut likeliest = 0.0f32;
                for decision in decisions.get(pair).copied().into_iter().flatten() {
                    let class = classes.of_relation(decision.relation.into());
                    (targets[class], weights[class]) = (decision.target, decision.weight);
                    likeliest = likeliest.max(decision.target);
                }
                if let Some(na) = classes.na() {
                    targets[na] = 1.0 - likeliest;
                }
            }
        }
        Ok(Self { targets, weights: Some(weights), ..self })
    }

    /// Adds what [`RelationLoss::PositiveUnlabelled`] needs of the global batch that this is part
    /// of.
    #[must_use]
    pub fn with_risk(self, totals: Arc<RiskTotals>) -> Self {
        Self { risk: Some(totals), ..self }
    }

    /// Adds a teacher's logits [P × C] of the batch's pairs.
    ///
    /// # Errors
    /// [`Error::Bug`] for logits that are not one finite number for each class of each pair.
    pub fn with_teacher_logits(&mut self, logits: Vec<f32>) -> Result<()> {
        let expected = self.pairs * self.classes;
        if logits.len() != expected || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::Bug(format!(
                "a teacher gives {} logits where {expected} finite ones are needed",
                logits.len()
            )));
        }
        self.teacher_logits = Some(logits);
        Ok(())
    }

    /// Sum of a loss over the pairs of the batch; `logits`: [P, C].
    ///
    /// # Errors
    /// As [`relation_loss_sum`].
    pub fn loss_sum(&self, loss: RelationLoss, logits: &Tensor) -> Result<Tensor> {
        let targets = on(&self.targets, logits.device())?.f_view_as(logits)?;
        if let Some(weights) = &self.weights {
            let weights = on(weights, logits.device())?.f_view_as(logits)?;
            return soft_loss_sum(loss, logits, &targets, &weights);
        }
        match (loss, &self.risk) {
            (RelationLoss::PositiveUnlabelled(rule), Some(totals)) => {
                risk_sum(&rule, logits, &targets, totals)
            }
            _ => relation_loss_sum(loss, logits, &targets),
        }
    }

    /// Whether the targets are soft, so that [`Self::loss_sum`] alone can learn them.
    pub fn is_soft(&self) -> bool {
        self.weights.is_some()
    }

    /// Refuses targets that a loss over labels would read as labels.
    ///
    /// # Errors
    /// [`Error::Recipe`] for soft targets.
    pub fn refuse_soft_targets(&self) -> Result<()> {
        if !self.is_soft() {
            return Ok(());
        }
        Err(Error::recipe("this system's loss takes labels, not probabilities")
            .with_hint("distant.rule = \"hard\" keeps, drops and adds labels"))
    }

    /// The targets as a tensor [P, C] on `device`, for a system with a loss of its own.
    ///
    /// # Errors
    /// [`Error::Recipe`] for soft targets; if libtorch rejects an operation.
    pub fn targets_like(&self, logits: &Tensor) -> Result<Tensor> {
        self.refuse_soft_targets()?;
        Ok(on(&self.targets, logits.device())?.f_view_as(logits)?)
    }
}

impl MicroBatch for RelationBatch {
    fn counts(&self) -> &[f64] {
        &self.counts
    }
    fn documents(&self) -> usize {
        self.documents
    }
    fn tokens(&self) -> usize {
        self.tokens
    }
}

/// What every system is built on: an encoder whose parameters are declared, and what the corpus
/// says of classes and types.
pub struct Foundation {
    /// The encoder: BERT, a BiLSTM over word pieces, or a plain table of word vectors.
    pub encoder: Box<dyn Encoder>,
    /// The encoder's parameters; the system declares its own in it, named `heads.…`.
    pub parameters: Parameters,
    /// Number of relations, NA not counted.
    pub relations: usize,
    /// Entity types in the order of their embedding rows, from row 1 (row 0 is "no entity").
    pub entity_types: Vec<String>,
    /// Special pieces of the tokenizer.
    pub pieces: SpecialPieces,
    /// Longest document in pieces; the encoder's own limit, or less.
    pub max_pieces: Option<usize>,
    /// Whether longer documents are cut.
    pub truncate: bool,
    /// Dropout of the encoder in place of its own rates.
    pub dropout: Option<f64>,
    /// Seed of the stage's dropout masks and other draws.
    pub seed: u64,
    /// A second encoder of the same kind, with parameters of its own, for systems of two networks.
    pub twin: Option<Box<Self>>,
}

impl Foundation {
    /// A pass through the encoder; `keys` are the dropout keys of its tokens.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn pass<K: AsRef<[i64]>>(&self, forward: Forward, keys: impl Fn() -> K) -> Result<Pass> {
        let mask = |p| match self.parameters.device() {
            Device::Cpu => row_dropout(p, forward, Device::Cpu, &keys),
            // A GPU draws masks without keys.
            _ => row_dropout(p, forward, Device::Cpu, || [0; 0]),
        };
        Pass::new(&*self.encoder, self.dropout, (forward.train, forward.precision), mask)
    }
}

/// A model that a checkpoint can hold.
pub trait Model {
    /// What it was built on, the parameters above the encoder included.
    fn foundation(&self) -> &Foundation;
    /// All parameters.
    fn parameters(&self) -> &Parameters {
        &self.foundation().parameters
    }
    /// The encoder's `config.json`.
    fn encoder_config(&self) -> serde_json::Value {
        self.foundation().encoder.config()
    }
}

impl Model for Box<dyn Extractor> {
    fn foundation(&self) -> &Foundation {
        self.as_ref().foundation()
    }
    fn parameters(&self) -> &Parameters {
        self.as_ref().parameters()
    }
}

/// The tensor half of a system.
pub trait Extractor {
    /// The host half.
    fn layout(&self) -> Arc<dyn Layout>;

    /// Output classes.
    fn classes(&self) -> Classes;

    /// The loss over the classes; binary cross-entropy unless the system has another.
    fn loss(&self) -> RelationLoss {
        RelationLoss::Bce
    }

    /// The decision rule; one global threshold unless the system has another.
    fn decision(&self) -> DecisionRule {
        DecisionRule::Threshold
    }

    /// Class logits of all pairs of a batch, in order; [P, C], 32 bits.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor>;

    /// Final logits in evaluation, where they differ from one forward pass (iterated inference,
    /// folded layers); [P, C].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn predict(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        self.logits(batch, forward)
    }

    /// [`Self::predict`] with the evidence of the pairs from the same forward pass, for a system
    /// whose attention tells it.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn scored(&self, batch: &RelationBatch, forward: Forward) -> Result<ScoredBatch> {
        Ok(ScoredBatch { logits: self.predict(batch, forward)?, evidence: None })
    }

    /// [`Self::scored`] with the pairs' attention to single tokens, for a student that learns it.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a system that does not attend; if libtorch rejects an operation.
    fn scored_with_tokens(
        &self,
        _batch: &RelationBatch,
        _forward: Forward,
    ) -> Result<(ScoredBatch, EvidenceWeights)> {
        Err(Error::recipe("this system does not tell how a pair attends to single tokens")
            .with_hint("teach with `atlop` or `dreeam`, or set distant.tokens = 0"))
    }

    /// How sentences are read off [`ScoredBatch::evidence`]; `None`: predictions name none.
    fn evidence(&self) -> Option<EvidenceRule> {
        None
    }

    /// The classifier's weight [C, w], if its rows of relations start from the encoded names of the
    /// relations.
    fn rows_from_names(&self) -> Option<&Tensor> {
        None
    }

    /// Called before a series of predictions with one set of weights.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn begin_prediction(&self) -> Result<()> {
        Ok(())
    }

    /// Names of the loss slots.
    fn slots(&self) -> &[&'static str] {
        &["relation"]
    }

    /// Loss sums, one a slot; by default the loss over the classes.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    fn losses(&self, batch: &RelationBatch, forward: Forward) -> Result<Vec<Tensor>> {
        let logits = self.logits(batch, forward)?.f_to_kind(Kind::Float)?;
        Ok(vec![batch.loss_sum(self.loss(), &logits)?])
    }

    /// What it was built on, its own parameters included.
    fn foundation(&self) -> &Foundation;

    /// All parameters; those of the system itself are named `heads.…`, the encoder's have their
    /// Hugging Face names.
    fn parameters(&self) -> &Parameters {
        &self.foundation().parameters
    }

    /// Learning rate of a parameter as a multiple of its group's (encoder or heads).
    fn rate(&self, _name: &str) -> f64 {
        1.0
    }
}

/// Sum of a loss over pairs; the batch divides by its count.
///
/// # Errors
/// If libtorch rejects an operation.
pub fn relation_loss_sum(loss: RelationLoss, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    match loss {
        RelationLoss::Bce => bce_sum(logits, targets),
        RelationLoss::AdaptiveThreshold { scale } => {
            Ok(adaptive_threshold_sum(logits, targets)?.f_mul_scalar(scale)?)
        }
        RelationLoss::PositiveUnlabelled(_) => {
            Err(Error::Bug("a batch came without the totals that its loss needs".into()))
        }
    }
}

/// Sum of the loss over soft targets that stands in the place of `loss`.
fn soft_loss_sum(
    loss: RelationLoss,
    logits: &Tensor,
    targets: &Tensor,
    weights: &Tensor,
) -> Result<Tensor> {
    match loss {
        RelationLoss::Bce => weighted_bce_sum(logits, targets, weights),
        RelationLoss::AdaptiveThreshold { scale } => {
            Ok(soft_margin_sum(logits, targets, weights)?.f_mul_scalar(scale)?)
        }
        RelationLoss::PositiveUnlabelled(_) => {
            Err(Error::recipe("the loss for unlabelled pairs takes labels, not probabilities")
                .with_hint("distant.rule = \"hard\", \"drop\" or \"as-is\" gives labels"))
        }
    }
}

/// Any extractor as what the step loop trains.
pub struct Extraction<'a>(pub &'a dyn Extractor);

impl Objective for Extraction<'_> {
    type Batch = RelationBatch;

    fn slots(&self) -> &[&'static str] {
        self.0.slots()
    }

    fn forward(&self, batch: &RelationBatch, forward: Forward) -> Result<Vec<Tensor>> {
        self.0.losses(batch, forward)
    }

    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }

    fn rate(&self, name: &str) -> f64 {
        self.0.rate(name)
    }
}
