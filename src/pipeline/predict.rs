//! Prediction: a file of documents into `result.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::data::InputFile;
use super::evidence::add_evidence;
use super::model::{LoadedExtractor, LoadedModel};
use super::predictor::{Decider, DocumentScores, PREDICT_TOKENS, Predictor};
use super::score::LoadedRanker;
use super::session::Session;
use crate::base::Progress;
use crate::corpus::formats::ReadOptions;
use crate::corpus::{Format, RelationSet};
use crate::eval::{Prediction, ScoreRow, ScoreWriter, write_predictions, write_zip};
use crate::systems::dsdocre::{DsdocreSettings, ModelKind};
use crate::text::{TokenizedDocument, Tokenizer, tokenize};
use crate::train::{Checkpoint, PrecisionChoice};
use crate::{DataError, Error, Result};

/// What to predict, as the flags of `predict` say it.
#[derive(Debug, Args)]
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
    /// Decision threshold in place of the one chosen on dev (threshold rule only)
    #[arg(long, value_name = "P")]
    pub threshold: Option<f64>,
    /// Truncate documents that are too long for the model instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    /// Checkpoint of `finetune --system lstm-sp` that predicts the evidence sentences of each fact
    #[arg(long, value_name = "C")]
    pub evidence: Option<PathBuf>,
}

/// What was predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PredictReport {
    /// Documents.
    pub documents: usize,
    /// Facts in them.
    pub facts: usize,
}

/// Predicts a file.
///
/// # Errors
/// If a document is bad, the checkpoint is of another stage, the ranker cannot be found, or a file
/// cannot be written.
pub fn predict_file(options: &PredictOptions, session: &Session) -> Result<PredictReport> {
    let loaded =
        LoadedExtractor::open_to_cut(&options.checkpoint, session.device, options.truncate)?;
    let input = InputFile { path: options.input.clone(), format: options.format };
    let mut documents = Vec::new();
    let mut tokenizer: Tokenizer = loaded.tokenizer.clone();
    // Labels of the input play no part, so relations that the model does not know are no error
    // here.
    input.read(&ReadOptions::default(), &mut |mut document| {
        document.facts = None;
        documents.push(tokenize(&document, &mut tokenizer, &loaded.description.relations)?);
        Ok(())
    })?;
    if let Some(recorded) = &loaded.description.ranker {
        rank_documents(options, &loaded, recorded, &mut documents, session)?;
    }
    let documents: Vec<Arc<TokenizedDocument>> = documents.into_iter().map(Arc::new).collect();
    let predictor = Predictor::new(&*loaded.model, session.precision(PrecisionChoice::Auto));
    let mut progress = Progress::new("predict", documents.len() as u64, 0, session.is_root());
    let scores =
        predictor.scores(&documents, &mut |done| progress.update(done as u64, String::new))?;
    let trainer = Checkpoint::open(&options.checkpoint)?.trainer()?;
    let decider = Decider::of(&*loaded.model, options.threshold.or(trainer.threshold));
    let decide = |(document, scores): (&Arc<TokenizedDocument>, &DocumentScores)| {
        decider.decide(scores, &document.title, &loaded.description.relations)
    };
    let mut predictions: Vec<Vec<Prediction>> = documents.iter().zip(&scores).map(decide).collect();
    if let Some(evidence) = &options.evidence {
        add_evidence(evidence, &input, &mut predictions, session)?;
    }
    let predictions = predictions.concat();
    write_predictions(&options.output, &predictions)?;
    if options.zip {
        write_zip(&options.output.with_file_name("result.zip"), &predictions)?;
    }
    if let Some(path) = &options.scores {
        write_scores(path, decider, &documents, &scores, &loaded.description.relations)?;
    }
    let report = PredictReport { documents: documents.len(), facts: predictions.len() };
    progress.finish(&format!("{} facts in {} documents", report.facts, report.documents));
    Ok(report)
}

fn write_scores(
    path: &Path,
    decider: Decider,
    documents: &[Arc<TokenizedDocument>],
    scores: &[DocumentScores],
    relations: &RelationSet,
) -> Result<()> {
    let mut writer = ScoreWriter::create(path)?;
    for (document, scores) in documents.iter().zip(scores) {
        for ((head, tail), relation, score) in decider.relations(scores) {
            let Some(relation) = relations.get(relation) else { continue };
            writer.push(ScoreRow {
                title: &document.title,
                head,
                tail,
                relation: &relation.id,
                score,
            })?;
        }
    }
    writer.finish()
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
    let kept = ranking.keep(documents, keep, PREDICT_TOKENS, &mut |_| {})?;
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
