//! Prediction: class probabilities of the chosen pairs, a decision rule, and `result.json`.

use std::path::{Path, PathBuf};

use tch::Kind;

use super::model::LoadedModel;
use super::score::{Keep, Ranking};
use super::session::Session;
use crate::corpus::{ReadOptions, RelationSet, read_documents};
use crate::eval::{Prediction, write_predictions, write_zip};
use crate::recipe::{Decision, Switches};
use crate::systems::DocumentViews;
use crate::systems::Forward;
use crate::systems::dsdocre::{FinetuneBatch, PairChoice, Part, paired_view};
use crate::text::{EncodedDocument, Tokenizer, View, encode, split_by_tokens};
use crate::torch::precision::Precision;
use crate::train::{Checkpoint, Progress};
use crate::{DataError, Error, Result};

/// Class probabilities of one document's chosen pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentScores {
    /// The pairs.
    pub pairs: Vec<(u32, u32)>,
    /// Sigmoid probabilities [pairs × classes], row-major; the last class is NA.
    pub probabilities: Vec<f32>,
}

impl DocumentScores {
    /// Classes, NA included.
    fn classes(&self) -> usize {
        self.probabilities.len() / self.pairs.len().max(1)
    }

    /// Every (pair, relation class, probability) without NA.
    pub fn relations(&self) -> impl Iterator<Item = ((u32, u32), usize, f32)> {
        let classes = self.classes();
        let rows = self.probabilities.chunks(classes.max(1));
        self.pairs
            .iter()
            .zip(rows)
            .flat_map(move |(&pair, row)| row.iter().take(classes - 1).enumerate().map(move |(class, &p)| (pair, class, p)))
    }

    /// The facts that the decision rule takes.
    pub fn decide(&self, title: &str, relations: &RelationSet, decision: Decision, threshold: f64) -> Vec<Prediction> {
        let classes = self.classes();
        let mut taken = Vec::new();
        for (&pair, row) in self.pairs.iter().zip(self.probabilities.chunks(classes.max(1))) {
            let chosen: Vec<usize> = match decision {
                Decision::ArgMax => {
                    let best = (0..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
                    if best + 1 == classes { Vec::new() } else { vec![best] }
                }
                Decision::Threshold => (0..classes - 1).filter(|&class| f64::from(row[class]) > threshold).collect(),
            };
            taken.extend(chosen.into_iter().filter_map(|class| prediction(title, pair, relations, class, row[class])));
        }
        taken
    }

    /// As bytes for the wire.
    pub fn encode(all: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for scores in all {
            bytes.extend((scores.pairs.len() as u32).to_le_bytes());
            bytes.extend((scores.probabilities.len() as u32).to_le_bytes());
            bytes.extend(scores.pairs.iter().flat_map(|pair| [pair.0.to_le_bytes(), pair.1.to_le_bytes()]).flatten());
            bytes.extend(scores.probabilities.iter().flat_map(|p| p.to_le_bytes()));
        }
        bytes
    }

    /// The inverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Vec<Self> {
        let mut words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut all = Vec::new();
        while let (Some(pairs), Some(values)) = (words.next(), words.next()) {
            let pairs = (0..pairs).map(|_| (words.next().unwrap_or_default(), words.next().unwrap_or_default())).collect();
            let probabilities = (0..values).map(|_| f32::from_bits(words.next().unwrap_or_default())).collect();
            all.push(Self { pairs, probabilities });
        }
        all
    }
}

fn prediction(title: &str, pair: (u32, u32), relations: &RelationSet, class: usize, score: f32) -> Option<Prediction> {
    let relation = relations.get(class)?;
    Some(Prediction {
        title: title.to_owned(),
        h_idx: pair.0 as usize,
        t_idx: pair.1 as usize,
        r: relation.id.clone(),
        evidence: Vec::new(),
        score: Some(f64::from(score)),
    })
}

/// How pairs are chosen, from the switches and whether there is a ranker.
pub fn pair_choice(switches: &Switches, ranked: bool) -> PairChoice {
    if ranked { PairChoice::Kept(switches.finetune_rule()) } else { PairChoice::Sampled(switches.baseline_settings()) }
}

/// A fine-tuned model ready to score documents.
pub struct Predictor<'a> {
    loaded: &'a LoadedModel,
    views: DocumentViews,
    pairs: PairChoice,
    forward: Forward,
    tokens: usize,
}

impl<'a> Predictor<'a> {
    /// A predictor over `loaded`; `tokens` bounds a forward pass.
    pub fn new(loaded: &'a LoadedModel, pairs: PairChoice, precision: Precision, tokens: usize) -> Self {
        Self { loaded, views: loaded.views(0), pairs, forward: Forward { train: false, precision }, tokens }
    }

    /// Probabilities for each document, in the given order.
    ///
    /// # Errors
    /// A document over the length limit; what libtorch refuses.
    pub fn scores<D: AsRef<EncodedDocument>>(&self, documents: &[D], done: &mut dyn FnMut(usize)) -> Result<Vec<DocumentScores>> {
        let folded = self.loaded.model.fold_classifier()?;
        let documents: Vec<&EncodedDocument> = documents.iter().map(AsRef::as_ref).collect();
        let mut order: Vec<usize> = (0..documents.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(documents[index].pieces.len()));
        let pairs: Vec<Vec<(u32, u32)>> = documents.iter().map(|document| self.pairs.evaluation(document)).collect::<Result<_>>()?;
        // Pairs cost as well as tokens: a budget over both keeps the largest document from deciding the memory.
        let cost = |&index: &usize| documents[index].pieces.len() + 8 * documents[index].entities.len() + pairs[index].len();
        let costs: Vec<usize> = order.iter().map(cost).collect();
        let mut scores = vec![DocumentScores::default(); documents.len()];
        let mut finished = 0;
        for range in split_by_tokens(&costs, self.tokens) {
            let chunk = &order[range];
            let sources: Vec<(&EncodedDocument, Vec<(u32, u32)>)> =
                chunk.iter().map(|&index| (documents[index], pairs[index].clone())).collect();
            for (&index, result) in chunk.iter().zip(self.pass(&sources, &folded)?) {
                scores[index] = result;
            }
            finished += chunk.len();
            done(finished);
        }
        Ok(scores)
    }

    fn pass(&self, sources: &[(&EncodedDocument, Vec<(u32, u32)>)], folded: &(tch::Tensor, tch::Tensor)) -> Result<Vec<DocumentScores>> {
        let markers = self.loaded.description.switches.markers;
        let views: Vec<View> =
            sources.iter().map(|(document, pairs)| paired_view(&self.views, markers, document, pairs)).collect::<Result<_>>()?;
        let batch = FinetuneBatch::new(self.views.pack(&views, &vec![0; views.len()]), sources, 0);
        let classes = self.loaded.model.config.classes as usize;
        let probabilities = if batch.heads.is_empty() {
            Vec::new()
        } else {
            let _guard = tch::no_grad_guard();
            let (_, entities) = self.loaded.model.encode(&batch.documents, self.forward)?;
            let logits = self.loaded.model.folded_logits(&entities, &batch.heads, &batch.tails, folded)?;
            Vec::<f32>::try_from(logits.f_to_kind(Kind::Float)?.f_sigmoid()?.f_view([-1])?)?
        };
        let mut rest = probabilities.as_slice();
        let take = |(_, pairs): &(&EncodedDocument, Vec<(u32, u32)>)| DocumentScores {
            pairs: pairs.clone(),
            probabilities: rest.split_off(..pairs.len() * classes).unwrap_or_default().to_vec(),
        };
        Ok(sources.iter().map(take).collect())
    }
}

/// Options of `predict`.
pub struct PredictOptions<'a> {
    /// The fine-tuned checkpoint.
    pub checkpoint: &'a Path,
    /// A ranker other than the one the checkpoint names.
    pub ranker: Option<&'a Path>,
    /// Documents in DocRED form, labelled or not.
    pub input: &'a Path,
    /// `result.json`.
    pub output: &'a Path,
    /// Write `result.zip` beside it.
    pub zip: bool,
    /// Global threshold instead of the checkpoint's.
    pub threshold: Option<f64>,
}

/// Token budget of a prediction pass.
pub const PREDICT_TOKENS: usize = 16_384;

/// Predicts a file; returns the number of documents and of facts.
///
/// # Errors
/// Bad documents, a checkpoint of another stage, a ranker that cannot be found, the disk.
pub fn predict_file(options: &PredictOptions, session: &Session) -> Result<(usize, usize)> {
    let loaded = LoadedModel::open(options.checkpoint, Part::Finetuner, session.device)?;
    let mut documents = Vec::new();
    let mut tokenizer: Tokenizer = loaded.tokenizer.clone();
    // Labels of the input play no part, so relations that the model does not know are no error here.
    read_documents(options.input, &ReadOptions::default(), &mut |mut document| {
        document.facts = None;
        documents.push(encode(&document, &mut tokenizer, &loaded.description.relations)?);
        Ok(())
    })?;
    let ranked = loaded.description.ranker.is_some();
    if ranked {
        rank_documents(options, &loaded, &mut documents, session)?;
    }
    let pairs = pair_choice(&loaded.description.switches, ranked);
    let predictor = Predictor::new(&loaded, pairs, session.precision("auto"), PREDICT_TOKENS);
    let mut progress = Progress::new("predict", documents.len() as u64, 0, session.is_root());
    let scores = predictor.scores(&documents, &mut |done| progress.update(done as u64, String::new))?;
    let trainer = Checkpoint::open(options.checkpoint)?.trainer()?;
    let threshold = options.threshold.or(trainer.threshold).unwrap_or(0.5);
    let description = &loaded.description;
    let decide = |(document, scores): (&EncodedDocument, &DocumentScores)| {
        scores.decide(&document.title, &description.relations, description.switches.decision, threshold)
    };
    let predictions: Vec<Prediction> = documents.iter().zip(&scores).flat_map(decide).collect();
    write_predictions(options.output, &predictions)?;
    if options.zip {
        write_zip(&options.output.with_file_name("result.zip"), &predictions)?;
    }
    progress.finish(&format!("{} facts in {} documents", predictions.len(), documents.len()));
    Ok((documents.len(), predictions.len()))
}

fn rank_documents(options: &PredictOptions, loaded: &LoadedModel, documents: &mut [EncodedDocument], session: &Session) -> Result<()> {
    let ranking = Ranking::open(&ranker_of(options.checkpoint, options.ranker, loaded)?, session)?;
    if ranking.loaded.tokenizer.identity() != loaded.tokenizer.identity() {
        return Err(
            Error::recipe("the ranker was trained with another tokenizer than the checkpoint").with_hint("name the ranker of the same run")
        );
    }
    let switches = &loaded.description.switches;
    let keep = Keep { fixed: switches.k_finetune_cap.unwrap_or(0), per_entity: switches.k_finetune_per_entity };
    let kept = ranking.keep(documents, keep, PREDICT_TOKENS, &mut |_| {})?;
    for (document, kept) in documents.iter_mut().zip(kept) {
        document.kept = Some(kept);
    }
    Ok(())
}

/// The ranker that a checkpoint was trained with: named by the user, inside an export, or where the run left it.
///
/// # Errors
/// None of these is there.
pub fn ranker_of(checkpoint: &Path, named: Option<&Path>, loaded: &LoadedModel) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let recorded = loaded.description.ranker.clone().unwrap_or_default();
    let candidates = [checkpoint.join("ranker"), checkpoint.join(&recorded)];
    candidates.into_iter().find(|path| path.join("MANIFEST.json").exists()).ok_or_else(|| {
        let problem = format!("was trained on pairs kept by a ranker, which is not at {}", recorded.display());
        DataError::new(checkpoint, problem).hint("name the ranker's checkpoint with --ranker").into()
    })
}
