//! Prediction: a file of documents into `result.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::calibrate::{Calibrated, calibration_of, needed_calibration};
use super::data::InputFile;
use super::evidence::add_evidence;
use super::fusion::Fusion;
use super::model::{LoadedExtractor, LoadedModel};
use super::predictor::{Decider, DocumentScores, PREDICT_TOKENS, Predictor};
use super::review::{ReviewBand, ReviewSource};
use super::score::LoadedRanker;
use super::session::Session;
use crate::base::{Progress, say};
use crate::corpus::formats::ReadOptions;
use crate::corpus::{Document, Format};
use crate::distant::Calibration;
use crate::eval::{Prediction, ScoreRow, ScoreWriter, write_predictions, write_zip};
use crate::systems::EvidenceRule;
use crate::systems::dsdocre::{DsdocreSettings, ModelKind};
use crate::text::{TokenizedDocument, Tokenizer, tokenize};
use crate::train::{Checkpoint, PrecisionChoice, TrainerState};
use crate::{DataError, Error, Result};

/// What to predict, as the flags of `predict` say it.
#[derive(Clone, Debug, Args)]
pub struct PredictOptions {
    /// Fine-tuned checkpoint, or an export of one
    #[arg(long, value_name = "C")]
    pub checkpoint: PathBuf,
    /// Checkpoint of the ranker, if it has moved since fine-tuning
    #[arg(long, value_name = "C")]
    pub ranker: Option<PathBuf>,
    /// Documents, labelled or not
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Format of the input
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    pub format: Format,
    /// Predictions to write
    #[arg(long, value_name = "result.json")]
    pub output: PathBuf,
    /// Also write result.zip beside the output, and check it by reading it again
    #[arg(long)]
    pub zip: bool,
    /// Also write the scores of all pairs and relations (Parquet), for `evaluate --scores`
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Decision threshold in place of the one chosen on dev (systems with one threshold, and fused
    /// scores)
    #[arg(long, value_name = "P")]
    pub threshold: Option<f64>,
    /// Write only facts with at least this calibrated probability
    #[arg(long, value_name = "P")]
    pub min_confidence: Option<f64>,
    /// Also write the uncertain pairs for a person to judge, one a line, for `label --reviewed`
    #[arg(long, value_name = "FILE.jsonl")]
    pub review: Option<PathBuf>,
    /// Calibrated probabilities that are uncertain [default: 0.3,0.7]
    #[arg(long, value_name = "LOW,HIGH", value_delimiter = ',', requires = "review")]
    pub review_band: Vec<f64>,
    /// The most pairs to write for review, the most uncertain ones; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0, requires = "review")]
    pub review_limit: usize,
    /// Truncate documents that are too long for the model instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    /// Iterations of inference in place of those of the checkpoint; 0 for the base module alone
    /// (DocRE-II)
    #[arg(long, value_name = "K")]
    pub iterations: Option<usize>,
    /// Predict after every number of iterations, from 0 to --iterations or that of the checkpoint;
    /// writes result-k0.json, result-k1.json …
    #[arg(long)]
    pub all_iterations: bool,
    /// Checkpoint of `finetune --system lstm-sp` that predicts the evidence sentences of each fact
    #[arg(long, value_name = "C")]
    pub evidence: Option<PathBuf>,
    /// Predict as evidence the sentences that hold more than this share of a pair's attention, in
    /// place of the checkpoint's own threshold (systems that attend; DREEAM's release has 0.2)
    #[arg(long, value_name = "S", conflicts_with = "evidence")]
    pub evidence_threshold: Option<f64>,
    /// Predict from whole documents alone, without the second run over their evidence (DREEAM)
    #[arg(long)]
    pub without_fusion: bool,
}

/// What was predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PredictReport {
    /// Documents.
    pub documents: usize,
    /// Facts in them; after the last iteration where there are several files.
    pub facts: usize,
    /// Facts that were left out because of `--min-confidence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_confidence: Option<usize>,
    /// Pairs that were written for review.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review: Option<usize>,
    /// What was predicted after each number of iterations, with `--all-iterations`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub iterations: Vec<IterationReport>,
}

/// What was predicted after some iterations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IterationReport {
    /// Their number.
    pub iterations: usize,
    /// Facts.
    pub facts: usize,
    /// Where they are.
    pub output: PathBuf,
}

/// Predicts a file.
///
/// # Errors
/// If a document is bad, the checkpoint is of another stage, the ranker cannot be found, or a file
/// cannot be written.
pub fn predict_file(options: &PredictOptions, session: &Session) -> Result<PredictReport> {
    let band = options.check()?;
    let loaded = open(options, options.iterations, session)?;
    let state = Checkpoint::open(&options.checkpoint)?.trainer()?;
    let calibration = options.calibration(&state, &loaded, session.is_root())?;
    let input = InputFile { path: options.input.clone(), format: options.format };
    let (mut documents, mut originals) = (Vec::new(), Vec::new());
    let mut tokenizer: Tokenizer = loaded.tokenizer.clone();
    // Labels of the input play no part, so relations that the model does not know are no error
    // here.
    input.read(&ReadOptions::default(), &mut |mut document| {
        document.facts = None;
        documents.push(tokenize(&document, &mut tokenizer, &loaded.description.relations)?);
        originals.extend(options.review.as_ref().map(|_| document));
        Ok(())
    })?;
    if let Some(recorded) = &loaded.description.ranker {
        rank_documents(options, &loaded, recorded, &mut documents, session)?;
    }
    let documents: Vec<Arc<TokenizedDocument>> = documents.into_iter().map(Arc::new).collect();
    let work = PredictWork {
        documents: &documents,
        originals: &originals,
        threshold: options.threshold.or(state.threshold),
        calibration: calibration.as_ref(),
        band,
        session,
    };
    if !options.all_iterations {
        return predict_documents(options, &loaded, &work);
    }
    let mut report = PredictReport::default();
    let most = options.iterations.or(loaded.description.settings.iterations());
    // Without iterations, opening refuses a number of them.
    for number in 0..=most.unwrap_or(0) {
        let loaded = open(options, Some(number), session)?;
        let numbered = options.numbered(number);
        let last = predict_documents(&numbered, &loaded, &work)?;
        let output = numbered.output;
        let iteration = IterationReport { iterations: number, facts: last.facts, output };
        report = PredictReport { iterations: report.iterations, ..last };
        report.iterations.push(iteration);
    }
    Ok(report)
}

fn open(
    options: &PredictOptions,
    iterations: Option<usize>,
    session: &Session,
) -> Result<LoadedExtractor> {
    let (path, device) = (&options.checkpoint, session.device);
    LoadedExtractor::open_with(path, device, options.truncate, iterations)
}

impl PredictOptions {
    /// The same with names of files that say how many iterations there were.
    fn numbered(&self, iterations: usize) -> Self {
        let named = |path: &PathBuf| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = match path.extension() {
                Some(end) => format!("{stem}-k{iterations}.{}", end.to_string_lossy()),
                None => format!("{stem}-k{iterations}"),
            };
            path.with_file_name(name)
        };
        let [scores, review] = [&self.scores, &self.review].map(|path| path.as_ref().map(named));
        Self { output: named(&self.output), scores, review, ..self.clone() }
    }

    /// Refuses probabilities that are none; gives the band of `--review`.
    fn check(&self) -> Result<ReviewBand> {
        if let Some(least) = self.min_confidence.filter(|least| !(0.0..=1.0).contains(least)) {
            return Err(Error::recipe(format!("--min-confidence {least}"))
                .with_hint("a probability lies from 0 to 1"));
        }
        ReviewBand::parse(&self.review_band)
    }

    /// The calibration of the checkpoint, which some flags need.
    fn calibration(
        &self,
        state: &TrainerState,
        loaded: &LoadedExtractor,
        speaks: bool,
    ) -> Result<Option<Calibration>> {
        let relations = &loaded.description.relations;
        let calibration = calibration_of(&self.checkpoint, state, relations)?;
        let flags = [
            self.min_confidence.is_some().then_some("--min-confidence"),
            self.review.is_some().then_some("--review"),
        ];
        let Some(flag) = flags.into_iter().flatten().next() else { return Ok(calibration) };
        needed_calibration(calibration.as_ref(), flag, &self.checkpoint, state, speaks)?;
        if speaks && (self.iterations.is_some() || self.all_iterations) {
            say(format!(
                "warning: {}: the calibration is that of the checkpoint's own number of iterations",
                self.checkpoint.display()
            ));
        }
        Ok(calibration)
    }

    /// How evidence is decided on: as the flags say, or else as the model's own `rule`.
    fn evidence_rule(
        &self,
        rule: Option<EvidenceRule>,
        scores: &[DocumentScores],
        loaded: &LoadedExtractor,
    ) -> Result<Option<EvidenceRule>> {
        let none = EvidenceRule { threshold: 0.0, most: 0, fusion: None };
        let rule = match self.evidence_threshold {
            Some(share) if !(0.0..1.0).contains(&share) => {
                return Err(Error::recipe(format!("--evidence-threshold {share}"))
                    .with_hint("a share of attention lies from 0 to below 1"));
            }
            Some(threshold) => {
                let tells = |scores: &DocumentScores| {
                    scores.pairs.is_empty() || !scores.evidence.is_empty()
                };
                if !scores.iter().all(tells) {
                    let system = loaded.description.settings.system();
                    return Err(Error::recipe(format!("system `{system}` tells no evidence"))
                        .with_hint(
                            "leave --evidence-threshold out; --evidence names a checkpoint of \
                             `lstm-sp` that finds evidence for any system",
                        ));
                }
                Some(EvidenceRule { threshold, ..rule.unwrap_or(none) })
            }
            None => rule,
        };
        let fused = !self.without_fusion;
        Ok(rule.map(|rule| EvidenceRule { fusion: rule.fusion.filter(|_| fused), ..rule }))
    }

    /// Where `--zip` goes: result.zip, or result-k0.zip … beside each file of `--all-iterations`.
    fn zip_file(&self) -> PathBuf {
        if self.all_iterations {
            self.output.with_extension("zip")
        } else {
            self.output.with_file_name("result.zip")
        }
    }
}

/// What is predicted, after any number of iterations.
struct PredictWork<'a> {
    documents: &'a [Arc<TokenizedDocument>],
    /// The same as they were read, where they are written for review.
    originals: &'a [Document],
    threshold: Option<f64>,
    calibration: Option<&'a Calibration>,
    band: ReviewBand,
    session: &'a Session,
}

/// Predicts documents and writes what is asked for.
fn predict_documents(
    options: &PredictOptions,
    loaded: &LoadedExtractor,
    work: &PredictWork,
) -> Result<PredictReport> {
    let PredictWork { documents, session, threshold, .. } = *work;
    let predictor = Predictor::new(&*loaded.model, session.precision(PrecisionChoice::Auto));
    let mut progress = Progress::new("predict", documents.len() as u64, 0, session.is_root());
    let scores = predictor.scores(documents, &mut |done| {
        progress.update(done as u64, String::new);
        Ok(())
    })?;
    let mut decider = Decider::of(&*loaded.model, threshold);
    decider.evidence = options.evidence_rule(decider.evidence, &scores, loaded)?;
    let relations = &loaded.description.relations;
    let titled = || documents.iter().map(|document| &*document.title).zip(&scores);
    let mut predictions: Vec<Vec<Prediction>> = match Fusion::of(&predictor, decider)? {
        Some(fusion) => {
            let first: Vec<_> = documents.iter().map(Arc::clone).zip(&scores).collect();
            let mut again = Progress::new("fuse", documents.len() as u64, 0, session.is_root());
            let second =
                fusion.second_run(&first, &mut |done| again.update(done as u64, String::new))?;
            again.finish("pseudo documents are scored");
            let fused = fusion.facts(&scores, &second);
            fusion.predictions(&fused, threshold, titled(), relations)
        }
        None => {
            let decide = |(title, scores)| decider.decide(scores, title, relations);
            titled().map(decide).collect()
        }
    };
    if let Some(evidence) = &options.evidence {
        let input = InputFile { path: options.input.clone(), format: options.format };
        add_evidence(evidence, &input, &mut predictions, session)?;
    }
    let calibrated = work.calibration.map(|calibration| Calibrated { calibration, decider });
    if let Some(calibrated) = calibrated {
        for (facts, scores) in predictions.iter_mut().zip(&scores) {
            calibrated.judge(facts, scores, relations);
        }
    }
    let below_confidence =
        options.min_confidence.map(|least| keep_confident(&mut predictions, least));
    let scored = ScoredDocuments { options, loaded, work, decider, calibrated, scores: &scores };
    let (facts, review) = session.world.on_root(|| scored.write(&predictions))?;
    progress.finish(&format!("{facts} facts in {} documents", documents.len()));
    if let (Some(left_out), Some(least)) = (below_confidence, options.min_confidence)
        && session.is_root()
    {
        say(format!("{left_out} facts with a calibrated probability below {least} are left out"));
    }
    Ok(PredictReport {
        documents: documents.len(),
        facts,
        below_confidence,
        review,
        iterations: Vec::new(),
    })
}

/// Leaves out facts with a smaller calibrated probability, and counts them.
fn keep_confident(predictions: &mut [Vec<Prediction>], least: f64) -> usize {
    let confident = |fact: &Prediction| fact.confidence.is_some_and(|share| share >= least);
    let before: usize = predictions.iter().map(Vec::len).sum();
    predictions.iter_mut().for_each(|facts| facts.retain(confident));
    before - predictions.iter().map(Vec::len).sum::<usize>()
}

/// Documents with their scores.
struct ScoredDocuments<'a> {
    options: &'a PredictOptions,
    loaded: &'a LoadedExtractor,
    work: &'a PredictWork<'a>,
    decider: Decider,
    calibrated: Option<Calibrated<'a>>,
    scores: &'a [DocumentScores],
}

impl ScoredDocuments<'_> {
    /// Writes the predictions of each document and what else is asked for; returns the number of
    /// facts, and of pairs for review.
    fn write(&self, predictions: &[Vec<Prediction>]) -> Result<(usize, Option<usize>)> {
        let Self { options, .. } = *self;
        let facts = predictions.concat();
        write_predictions(&options.output, &facts)?;
        if options.zip {
            write_zip(&options.zip_file(), &facts)?;
        }
        if let Some(path) = &options.scores {
            self.write_scores(path)?;
        }
        let mut pairs = None;
        if let (Some(path), Some(calibrated)) = (&options.review, self.calibrated) {
            let source = ReviewSource {
                documents: self.work.originals,
                scores: self.scores,
                predictions,
                calibrated,
                relations: &self.loaded.description.relations,
                tells_evidence: options.evidence.is_some() || self.decider.evidence.is_some(),
            };
            pairs = Some(source.write(path, self.work.band, options.review_limit)?);
        }
        Ok((facts.len(), pairs))
    }

    fn write_scores(&self, path: &Path) -> Result<()> {
        let relations = &self.loaded.description.relations;
        let mut writer = ScoreWriter::create(path, self.calibrated.is_some())?;
        for (document, scores) in self.work.documents.iter().zip(self.scores) {
            let shares = self.calibrated.into_iter().flat_map(|all| all.relations(scores));
            let mut shares = shares.map(|(_, _, share)| share as f32);
            for ((head, tail), relation, score) in self.decider.relations(scores) {
                let calibrated = shares.next();
                let Some(relation) = relations.get(relation) else { continue };
                writer.push(ScoreRow {
                    title: &document.title,
                    head,
                    tail,
                    relation: &relation.id,
                    score,
                    calibrated,
                })?;
            }
        }
        writer.finish()
    }
}

fn rank_documents(
    options: &PredictOptions,
    loaded: &LoadedExtractor,
    recorded: &Path,
    documents: &mut [TokenizedDocument],
    session: &Session,
) -> Result<()> {
    let path = ranker_of(&options.checkpoint, options.ranker.as_deref(), recorded)?;
    let mut ranker = LoadedModel::open(&path, ModelKind::Ranker, session.device)?;
    ranker.description.encoder.truncate |= options.truncate;
    let ranking = LoadedRanker::new(ranker, session.precision(PrecisionChoice::Auto))?;
    if ranking.loaded.tokenizer.identity() != loaded.tokenizer.identity() {
        return Err(Error::recipe(
            "the ranker was trained with another tokenizer than the checkpoint",
        )
        .with_hint("name the ranker of the same run"));
    }
    let keep = DsdocreSettings::within(&loaded.description.settings)?.finetune_pairs();
    let kept = ranking.keep(documents, keep, PREDICT_TOKENS, &mut |_| Ok(()))?;
    for (document, kept) in documents.iter_mut().zip(kept) {
        document.kept = Some(kept);
    }
    Ok(())
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
