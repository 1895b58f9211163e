//! From documents to facts: the pairs that a ranker keeps, scores, fusion, the decision, evidence,
//! and calibrated probabilities, as the flags of `predict` ask for them.
//!
//! Not for: where documents come from and where facts go (`files`, `stream`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::calibrate::{Calibrated, calibration_of, needed_calibration};
use super::super::evidence::EvidenceFinder;
use super::super::fusion::Fusion;
use super::super::model::{LoadedExtractor, LoadedModel};
use super::super::predictor::{Decider, DocumentScores, PREDICT_TOKENS, Predictor};
use super::super::score::LoadedRanker;
use super::super::session::Session;
use super::doubts::PredictDoubts;
use super::options::PredictOptions;
use crate::base::say;
use crate::corpus::{Document, RelationSet};
use crate::distant::Calibration;
use crate::eval::Prediction;
use crate::sampling::KeptPairs;
use crate::systems::dsdocre::{DsdocreSettings, ModelKind};
use crate::text::{TokenizedDocument, Tokenizer};
use crate::torch::Precision;
use crate::train::{Checkpoint, PrecisionChoice, TrainerState};
use crate::{DataError, Error, Result};

/// What a [`FactFinder`] is opened for, beside its options.
#[derive(Clone, Copy, Debug)]
pub struct FinderNeeds {
    /// Iterations of inference in place of those of the checkpoint.
    pub iterations: Option<usize>,
    /// Whether probabilities are needed for a review.
    pub review: bool,
    /// Whether the user is warned of what is doubtful.
    pub speaks: bool,
}

/// A fine-tuned model with all that makes facts of its scores.
pub struct FactFinder {
    options: PredictOptions,
    /// The checkpoints that are in use.
    checkpoints: Vec<PathBuf>,
    loaded: LoadedExtractor,
    precision: Precision,
    ranking: Option<PairRanking>,
    evidence: Option<EvidenceFinder>,
    calibration: Option<Calibration>,
    threshold: Option<f64>,
    doubts: PredictDoubts,
}

/// What was found in a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundFacts {
    /// The logits of its pairs.
    pub scores: DocumentScores,
    /// Its facts.
    pub facts: Vec<Prediction>,
    /// Facts that were left out because of `--min-confidence`.
    pub below: usize,
}

impl FactFinder {
    /// Opens all models.
    ///
    /// # Errors
    /// Options out of range; a checkpoint of another stage; a ranker that cannot be found; no
    /// calibration where one is needed.
    pub fn open(options: &PredictOptions, needs: FinderNeeds, session: &Session) -> Result<Self> {
        options.check()?;
        let (path, device) = (&options.checkpoint, session.device);
        let loaded = LoadedExtractor::open_with(path, device, options.truncate, needs.iterations)?;
        let state = Checkpoint::open(path)?.trainer()?;
        let calibration = calibration(options, needs, &state, &loaded)?;
        let recorded = loaded.description.ranker.as_ref();
        let ranker = recorded.map(|recorded| ranker_of(path, options.ranker.as_deref(), recorded));
        let ranker = ranker.transpose()?;
        let ranking =
            ranker.as_ref().map(|path| PairRanking::open(path, options, &loaded, session));
        let evidence = options.evidence.as_ref().map(|path| EvidenceFinder::open(path, session));
        let used = [Some(path), ranker.as_ref(), options.evidence.as_ref()];
        Ok(Self {
            options: options.clone(),
            checkpoints: used.into_iter().flatten().cloned().collect(),
            precision: session.precision(PrecisionChoice::Auto),
            ranking: ranking.transpose()?,
            evidence: evidence.transpose()?,
            threshold: options.threshold.or(state.threshold),
            calibration,
            loaded,
            doubts: PredictDoubts::default(),
        })
    }

    /// The tokenizer of the checkpoint.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.loaded.tokenizer
    }

    /// What tells all of its weights from others.
    ///
    /// # Errors
    /// A checkpoint that is gone.
    pub fn identity(&self) -> Result<Vec<String>> {
        self.checkpoints.iter().map(|path| Checkpoint::open(path)?.identity()).collect()
    }

    /// The relations in class order.
    pub fn relations(&self) -> &RelationSet {
        &self.loaded.description.relations
    }

    /// The iterations of the checkpoint, for a system that has some.
    pub fn iterations(&self) -> Option<usize> {
        self.loaded.description.settings.iterations()
    }

    /// How logits become facts.
    pub fn decider(&self) -> Decider {
        let decider = Decider::of(&*self.loaded.model, self.threshold);
        Decider { evidence: self.options.evidence_rule(decider.evidence), ..decider }
    }

    /// How logits become probabilities, where the checkpoint knows.
    pub fn calibrated(&self) -> Option<Calibrated<'_>> {
        let decider = self.decider();
        self.calibration.as_ref().map(|calibration| Calibrated { calibration, decider })
    }

    /// Whether facts name evidence.
    pub fn tells_evidence(&self) -> bool {
        self.evidence.is_some() || self.decider().evidence.is_some()
    }

    /// Says what was doubtful of the documents so far, those of all ranks.
    ///
    /// # Errors
    /// A rank that is lost.
    pub fn tell_doubts(&self, session: &Session) -> Result<()> {
        let all = PredictDoubts::sum(&session.gather(Ok(self.doubts.clone()))?);
        let told = all.told(&self.loaded.description.asked_types);
        told.into_iter().filter(|_| session.is_root()).for_each(say);
        Ok(())
    }

    /// Whether documents are needed in words, beside their pieces.
    pub fn needs_words(&self) -> bool {
        self.evidence.is_some()
    }

    /// What is found in documents, in their order. `originals` are the same documents, where they
    /// are [needed in words](Self::needs_words). `going_on` is asked after each pass.
    ///
    /// # Errors
    /// A document over the length limit; `--evidence-threshold` for a system that does not attend;
    /// errors of the models and of `going_on`.
    pub fn find(
        &mut self,
        documents: &mut [Arc<TokenizedDocument>],
        originals: &[Document],
        going_on: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<FoundFacts>> {
        self.doubts.restrict(documents, &self.loaded.description.asked_types);
        if let Some(ranking) = &self.ranking {
            ranking.keep(documents, going_on)?;
        }
        let predictor = Predictor::new(&*self.loaded.model, self.precision);
        let scores = predictor.scores(documents, &mut |_| going_on())?;
        self.doubts.count(documents, self.loaded.tokenizer.special().unk);
        self.check_evidence(&scores)?;
        let mut facts = self.decide(&predictor, documents, &scores, going_on)?;
        if let Some(evidence) = &mut self.evidence {
            evidence.add(originals, &mut facts)?;
        }
        let found = |(scores, facts)| self.confident(scores, facts);
        Ok(scores.into_iter().zip(facts).map(found).collect())
    }

    /// The facts of each document.
    fn decide(
        &self,
        predictor: &Predictor,
        documents: &[Arc<TokenizedDocument>],
        scores: &[DocumentScores],
        going_on: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Vec<Prediction>>> {
        let (decider, relations) = (self.decider(), self.relations());
        let titled = || documents.iter().map(|document| &*document.title).zip(scores);
        let Some(fusion) = Fusion::of(predictor, decider)? else {
            return Ok(titled()
                .map(|(title, scores)| decider.decide(scores, title, relations))
                .collect());
        };
        let first: Vec<_> = documents.iter().map(Arc::clone).zip(scores).collect();
        let second = fusion.second_run(&first, going_on)?;
        let fused = fusion.facts(scores, &second);
        Ok(fusion.predictions(&fused, self.threshold, titled(), relations))
    }

    /// Adds probabilities to the facts of a document, and leaves out those that are too small.
    fn confident(&self, scores: DocumentScores, mut facts: Vec<Prediction>) -> FoundFacts {
        if let Some(calibrated) = self.calibrated() {
            calibrated.judge(&mut facts, &scores, self.relations());
        }
        let all = facts.len();
        if let Some(least) = self.options.min_confidence {
            facts.retain(|fact| fact.confidence.is_some_and(|share| share >= least));
        }
        FoundFacts { scores, below: all - facts.len(), facts }
    }

    /// Refuses a threshold of attention for a system that does not attend.
    fn check_evidence(&self, scores: &[DocumentScores]) -> Result<()> {
        let tells =
            |scores: &DocumentScores| scores.pairs.is_empty() || !scores.evidence.is_empty();
        if self.options.evidence_threshold.is_none() || scores.iter().all(tells) {
            return Ok(());
        }
        let system = self.loaded.description.settings.system();
        Err(Error::recipe(format!("system `{system}` tells no evidence")).with_hint(
            "leave --evidence-threshold out; --evidence names a checkpoint of `lstm-sp` that finds \
             evidence for any system",
        ))
    }
}

/// The calibration of the checkpoint, which some flags need.
fn calibration(
    options: &PredictOptions,
    needs: FinderNeeds,
    state: &TrainerState,
    loaded: &LoadedExtractor,
) -> Result<Option<Calibration>> {
    let path = &options.checkpoint;
    let calibration = calibration_of(path, state, &loaded.description.relations)?;
    let flags = [
        options.min_confidence.is_some().then_some("--min-confidence"),
        needs.review.then_some("--review"),
    ];
    let Some(flag) = flags.into_iter().flatten().next() else { return Ok(calibration) };
    needed_calibration(calibration.as_ref(), flag, path, state, needs.speaks)?;
    if needs.speaks && needs.iterations.is_some() {
        say(format!(
            "warning: {}: the calibration is that of the checkpoint's own number of iterations",
            path.display()
        ));
    }
    Ok(calibration)
}

/// The ranker that chooses the pairs of a document.
struct PairRanking {
    ranker: LoadedRanker,
    keep: KeptPairs,
}

impl PairRanking {
    fn open(
        path: &Path,
        options: &PredictOptions,
        loaded: &LoadedExtractor,
        session: &Session,
    ) -> Result<Self> {
        let mut ranker = LoadedModel::open(path, ModelKind::Ranker, session.device)?;
        ranker.description.encoder.truncate |= options.truncate;
        let ranker = LoadedRanker::new(ranker, session.precision(PrecisionChoice::Auto))?;
        if ranker.loaded.tokenizer.identity() != loaded.tokenizer.identity() {
            return Err(Error::recipe(
                "the ranker was trained with another tokenizer than the checkpoint",
            )
            .with_hint("name the ranker of the same run"));
        }
        let keep = DsdocreSettings::within(&loaded.description.settings)?.finetune_pairs();
        Ok(Self { ranker, keep })
    }

    /// Writes the pairs that are kept into documents.
    fn keep(
        &self,
        documents: &mut [Arc<TokenizedDocument>],
        going_on: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut done = |_| going_on();
        let kept = self.ranker.keep(&*documents, self.keep, PREDICT_TOKENS, &mut done)?;
        for (document, kept) in documents.iter_mut().zip(kept) {
            Arc::make_mut(document).kept = Some(kept);
        }
        Ok(())
    }
}

/// The ranker that a checkpoint was trained with: named by the user, inside an export, or where the
/// run left it (`recorded`, relative to the checkpoint).
///
/// # Errors
/// None of these is there.
pub fn ranker_of(checkpoint: &Path, named: Option<&Path>, recorded: &Path) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let candidates = [checkpoint.join("ranker"), checkpoint.join(recorded)];
    candidates.into_iter().find(|path| path.join("MANIFEST.json").exists()).ok_or_else(|| {
        let problem = format!(
            "was trained on pairs kept by a ranker, which is not at {}",
            recorded.display()
        );
        DataError::new(checkpoint, problem)
            .hint("name the ranker's checkpoint with --ranker")
            .into()
    })
}
