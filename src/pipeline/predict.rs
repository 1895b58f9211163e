//! Prediction: class logits of the chosen pairs, a decision rule, and `result.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tch::Kind;

use super::evidence::add_evidence;
use super::input::Input;
use super::model::{LoadedExtractor, LoadedModel};
use super::score::{Keep, Ranking};
use super::session::Session;
use crate::base::Progress;
use crate::corpus::RelationSet;
use crate::corpus::formats::ReadOptions;
use crate::eval::{Prediction, ScoreRow, ScoreWriter, write_predictions, write_zip};
use crate::systems::dsdocre::{DsdocreSettings, Part};
use crate::systems::{Classes, DecisionRule, Example, Extractor, Layout, Pair, RelationBatch};
use crate::text::{TokenizedDocument, Tokenizer, split_by_tokens, tokenize};
use crate::torch::precision::Precision;
use crate::train::{Checkpoint, Forward, PrecisionChoice};
use crate::{DataError, Error, Result};

/// Class logits of one document's pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentScores {
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// Logits [pairs × classes], row-major.
    pub logits: Vec<f32>,
}

/// How logits become facts.
#[derive(Clone, Copy, Debug)]
pub struct Decider {
    /// What the columns mean.
    pub classes: Classes,
    /// The rule.
    pub rule: DecisionRule,
    /// Smallest probability of a fact, for [`DecisionRule::Threshold`].
    pub threshold: f64,
}

impl Decider {
    /// The decider of a model; `threshold` as found on dev.
    pub fn of(extractor: &dyn Extractor, threshold: Option<f64>) -> Self {
        Self {
            classes: extractor.classes(),
            rule: extractor.decision(),
            threshold: threshold.unwrap_or(0.5),
        }
    }

    /// Probability of a class: σ(l_r), or σ(l_r − l_TH) where a threshold class decides.
    fn probability(self, row: &[f32], class: usize) -> f32 {
        let reference = match (self.rule, self.classes.na()) {
            (DecisionRule::Adaptive { .. }, Some(threshold)) => row[threshold],
            _ => 0.0,
        };
        1.0 / (1.0 + (reference - row[class]).exp())
    }

    fn rows(self, scores: &DocumentScores) -> impl Iterator<Item = (Pair, &[f32])> {
        scores.pairs.iter().copied().zip(scores.logits.chunks_exact(self.classes.count().max(1)))
    }

    /// Every (pair, relation, probability), NA left out.
    pub fn relations(self, scores: &DocumentScores) -> impl Iterator<Item = (Pair, usize, f32)> {
        self.rows(scores).flat_map(move |(pair, row)| {
            (0..self.classes.relations).map(move |relation| {
                (pair, relation, self.probability(row, self.classes.of_relation(relation)))
            })
        })
    }

    /// The classes that the rule takes from a row of logits.
    fn taken(self, row: &[f32]) -> Vec<usize> {
        let relations =
            || (0..self.classes.relations).map(|relation| self.classes.of_relation(relation));
        match self.rule {
            DecisionRule::ArgMax => {
                let best = (0..row.len())
                    .fold(0, |best, class| if row[class] > row[best] { class } else { best });
                Some(best).filter(|&class| Some(class) != self.classes.na()).into_iter().collect()
            }
            DecisionRule::Threshold => relations()
                .filter(|&class| f64::from(self.probability(row, class)) > self.threshold)
                .collect(),
            DecisionRule::Adaptive { top } => {
                let threshold = self.classes.na().map_or(0.0, |class| row[class]);
                let mut above: Vec<usize> =
                    relations().filter(|&class| row[class] > threshold).collect();
                above.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                above.truncate(if top == 0 { usize::MAX } else { top });
                above
            }
        }
    }

    /// The facts of a document.
    pub fn decide(
        self,
        scores: &DocumentScores,
        title: &str,
        relations: &RelationSet,
    ) -> Vec<Prediction> {
        let facts = self.rows(scores).flat_map(|(pair, row)| {
            self.taken(row).into_iter().map(move |class| (pair, row, class))
        });
        facts
            .filter_map(|(pair, row, class)| {
                let relation = relations.get(self.classes.relation(class)?)?;
                Some(Prediction {
                    title: title.to_owned(),
                    h_idx: pair.0 as usize,
                    t_idx: pair.1 as usize,
                    r: relation.id.clone(),
                    evidence: Vec::new(),
                    score: Some(f64::from(self.probability(row, class))),
                })
            })
            .collect()
    }
}

impl DocumentScores {
    /// As bytes for the wire.
    pub fn encode(all: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for scores in all {
            bytes.extend((scores.pairs.len() as u32).to_le_bytes());
            bytes.extend((scores.logits.len() as u32).to_le_bytes());
            bytes.extend(
                scores
                    .pairs
                    .iter()
                    .flat_map(|pair| [pair.0.to_le_bytes(), pair.1.to_le_bytes()])
                    .flatten(),
            );
            bytes.extend(scores.logits.iter().flat_map(|logit| logit.to_le_bytes()));
        }
        bytes
    }

    /// The inverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Vec<Self> {
        let mut words = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut all = Vec::new();
        while let (Some(pairs), Some(values)) = (words.next(), words.next()) {
            let pairs = (0..pairs)
                .map(|_| (words.next().unwrap_or_default(), words.next().unwrap_or_default()))
                .collect();
            let logits =
                (0..values).map(|_| f32::from_bits(words.next().unwrap_or_default())).collect();
            all.push(Self { pairs, logits });
        }
        all
    }
}

/// A fine-tuned model ready to score documents.
pub struct Predictor<'a> {
    extractor: &'a dyn Extractor,
    forward: Forward,
    budget: usize,
}

impl<'a> Predictor<'a> {
    /// A predictor over `extractor`; `budget` bounds the cost of a forward pass (tokens, and pairs
    /// where they weigh more).
    pub fn new(extractor: &'a dyn Extractor, precision: Precision, budget: usize) -> Self {
        Self { extractor, forward: Forward { train: false, precision }, budget }
    }

    /// Logits for each document, in the given order.
    ///
    /// # Errors
    /// If a document is over the length limit, or libtorch rejects an operation.
    pub fn scores(
        &self,
        documents: &[Arc<TokenizedDocument>],
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<DocumentScores>> {
        let _guard = tch::no_grad_guard();
        self.extractor.begin_prediction()?;
        let layout = self.extractor.layout();
        let pairs: Vec<Vec<Pair>> = documents
            .iter()
            .map(|document| layout.evaluation_pairs(document))
            .collect::<Result<_>>()?;
        let cost = |index: usize| layout.cost(&documents[index], pairs[index].len());
        // Documents of similar cost share a pass, the dearest first.
        let mut order: Vec<usize> = (0..documents.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(cost(index)));
        let costs: Vec<usize> = order.iter().map(|&index| cost(index)).collect();
        let mut scores = vec![DocumentScores::default(); documents.len()];
        let mut finished = 0;
        for range in split_by_tokens(&costs, self.budget) {
            let chunk = &order[range];
            let example = |&index: &usize| {
                let (document, pairs) = (Arc::clone(&documents[index]), pairs[index].clone());
                Example { document, pairs, visit: 0, train: false }
            };
            let examples: Vec<Example> = chunk.iter().map(example).collect();
            for (&index, result) in chunk.iter().zip(self.pass(&*layout, examples)?) {
                scores[index] = result;
            }
            finished += chunk.len();
            done(finished);
        }
        Ok(scores)
    }

    fn pass(&self, layout: &dyn Layout, examples: Vec<Example>) -> Result<Vec<DocumentScores>> {
        let classes = self.extractor.classes();
        let batch = RelationBatch::new(layout, &examples, classes, self.extractor.loss())?;
        let logits = if batch.pairs == 0 {
            Vec::new()
        } else {
            Vec::<f32>::try_from(
                self.extractor
                    .predict(&batch, self.forward)?
                    .f_to_kind(Kind::Float)?
                    .f_contiguous()?
                    .f_view([-1])?,
            )?
        };
        let mut rest = logits.as_slice();
        let take = |example: Example| {
            let logits = rest
                .split_off(..example.pairs.len() * classes.count())
                .unwrap_or_default()
                .to_vec();
            DocumentScores { pairs: example.pairs, logits }
        };
        Ok(examples.into_iter().map(take).collect())
    }
}

/// Options of `predict`.
pub struct PredictOptions<'a> {
    /// The fine-tuned checkpoint.
    pub checkpoint: &'a Path,
    /// A ranker other than the one the checkpoint names.
    pub ranker: Option<&'a Path>,
    /// Documents, labelled or not.
    pub input: &'a Input,
    /// `result.json`.
    pub output: &'a Path,
    /// Write `result.zip` beside it.
    pub zip: bool,
    /// Where to write the scores of every (pair, relation).
    pub scores: Option<&'a Path>,
    /// Global threshold instead of the checkpoint's.
    pub threshold: Option<f64>,
    /// Cut documents that are too long, whatever the recipe said.
    pub truncate: bool,
    /// An evidence predictor that names the sentences of each predicted fact.
    pub evidence: Option<&'a Path>,
}

/// Token budget of a prediction pass.
pub const PREDICT_TOKENS: usize = 16_384;

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
/// Bad documents, a checkpoint of another stage, a ranker that cannot be found, the disk.
pub fn predict_file(options: &PredictOptions, session: &Session) -> Result<PredictReport> {
    let loaded =
        LoadedExtractor::open_to_cut(options.checkpoint, session.device, options.truncate)?;
    let mut documents = Vec::new();
    let mut tokenizer: Tokenizer = loaded.tokenizer.clone();
    // Labels of the input play no part, so relations that the model does not know are no error
    // here.
    options.input.read(&ReadOptions::default(), &mut |mut document| {
        document.facts = None;
        documents.push(tokenize(&document, &mut tokenizer, &loaded.description.relations)?);
        Ok(())
    })?;
    if let Some(recorded) = &loaded.description.ranker {
        rank_documents(options, &loaded, recorded, &mut documents, session)?;
    }
    let documents: Vec<Arc<TokenizedDocument>> = documents.into_iter().map(Arc::new).collect();
    let predictor =
        Predictor::new(&*loaded.model, session.precision(PrecisionChoice::Auto), PREDICT_TOKENS);
    let mut progress = Progress::new("predict", documents.len() as u64, 0, session.is_root());
    let scores =
        predictor.scores(&documents, &mut |done| progress.update(done as u64, String::new))?;
    let trainer = Checkpoint::open(options.checkpoint)?.trainer()?;
    let decider = Decider::of(&*loaded.model, options.threshold.or(trainer.threshold));
    let decide = |(document, scores): (&Arc<TokenizedDocument>, &DocumentScores)| {
        decider.decide(scores, &document.title, &loaded.description.relations)
    };
    let mut predictions: Vec<Vec<Prediction>> = documents.iter().zip(&scores).map(decide).collect();
    if let Some(evidence) = options.evidence {
        add_evidence(evidence, None, options.input, &mut predictions, session)?;
    }
    let predictions = predictions.concat();
    write_predictions(options.output, &predictions)?;
    if options.zip {
        write_zip(&options.output.with_file_name("result.zip"), &predictions)?;
    }
    if let Some(path) = options.scores {
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
    let mut ranker = LoadedModel::open(
        &ranker_of(options.checkpoint, options.ranker, recorded)?,
        Part::Ranker,
        session.device,
    )?;
    ranker.description.encoder.truncate |= options.truncate;
    let ranking = Ranking::new(ranker, session.precision(PrecisionChoice::Auto))?;
    if ranking.loaded.tokenizer.identity() != loaded.tokenizer.identity() {
        return Err(Error::recipe(
            "the ranker was trained with another tokenizer than the checkpoint",
        )
        .with_hint("name the ranker of the same run"));
    }
    let settings = DsdocreSettings::within(&loaded.description.settings)?;
    let keep = Keep {
        fixed: settings.k_finetune_cap.unwrap_or(0),
        per_entity: settings.k_finetune_per_entity,
    };
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
