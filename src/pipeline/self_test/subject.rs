//! A model of any kind that answers a self-test: a fine-tuned system, an evidence predictor, a
//! ranker or a pre-trained encoder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Device, Kind};

use super::answer::{DocumentAnswer, Recorded, SelfTest};
use super::documents::{ModelTraits, TestDocuments, generated, own_documents};
use crate::base::run_files;
use crate::corpus::Document;
use crate::eval::Prediction;
use crate::pipeline::calibrate::{Calibrated, calibration_of};
use crate::pipeline::fusion::Fusion;
use crate::pipeline::model::{Description, LoadedEvidence, LoadedExtractor, LoadedModel};
use crate::pipeline::predict::ranker_of;
use crate::pipeline::predictor::{Decider, DocumentScores, PREDICT_TOKENS, Predictor};
use crate::pipeline::score::LoadedRanker;
use crate::systems::dsdocre::{DsdocreSettings, ModelKind};
use crate::systems::evidence::{EvidenceItem, EvidenceSettings, evidence, sentences_of};
use crate::systems::{Foundation, Model, Pair};
use crate::text::{ScoredPair, TokenizedDocument, TokenizedFact, Tokenizer, ViewChoices, tokenize};
use crate::torch::Precision;
use crate::train::{Checkpoint, Forward, TrainerState};
use crate::{Error, Result};

/// Class logits of pairs.
pub const LOGITS: &str = "logits";
/// How much of a pair's attention lies in each sentence.
pub const EVIDENCE: &str = "evidence";
/// Scores of the second run, over the evidence alone.
pub const SECOND_RUN: &str = "second run";
/// The ranker's scores of the pairs that it keeps.
pub const KEPT: &str = "kept pairs";
/// The ranker's scores of all ordered pairs.
pub const PAIR_SCORES: &str = "scores of pairs";
/// States of tokens.
pub const STATES: &str = "states";
/// Vectors of entities.
pub const ENTITIES: &str = "entities";
/// Probabilities that sentences are evidence of a fact.
pub const SENTENCES: &str = "sentences";

/// Of the states of tokens, every so-manieth is kept: each depends on all tokens.
const KEPT_STATES: i64 = 8;

/// Facts of a document that an evidence predictor is asked about.
const ASKED_FACTS: usize = 12;

/// A model that is ready to answer.
pub struct Subject {
    model: SubjectModel,
    /// The state of training, which holds threshold and calibration.
    pub state: TrainerState,
    /// The ranker that the model needs.
    pub ranker: Option<PathBuf>,
    precision: Precision,
}

/// The kinds of models.
enum SubjectModel {
    Relations(Box<LoadedExtractor>, Option<Box<LoadedRanker>>),
    Sentences(Box<LoadedEvidence>),
    States(Box<LoadedRanker>),
}

impl Subject {
    /// Opens a checkpoint of any stage, and the ranker that it needs: the one that is `named`, or
    /// where the checkpoint says.
    ///
    /// # Errors
    /// A damaged checkpoint; a ranker that is not there.
    pub fn open(
        checkpoint: &Checkpoint,
        named: Option<&Path>,
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        let path = checkpoint.path();
        let (description, state): (Description, _) =
            (checkpoint.description()?, checkpoint.trainer()?);
        let ranker = description.ranker.as_ref();
        let ranker = ranker.map(|recorded| ranker_of(path, named, recorded)).transpose()?;
        let ready = |path: &Path, kind| -> Result<_> {
            let loaded = LoadedModel::open(path, kind, device)?;
            Ok(Box::new(LoadedRanker::new(loaded, precision)?))
        };
        let model = match description.kind {
            ModelKind::Finetuner if description.settings.get::<EvidenceSettings>().is_some() => {
                SubjectModel::Sentences(Box::new(LoadedEvidence::open(path, device)?))
            }
            ModelKind::Finetuner => {
                let ranker =
                    ranker.as_deref().map(|path| ready(path, ModelKind::Ranker)).transpose()?;
                SubjectModel::Relations(Box::new(LoadedExtractor::open(path, device)?), ranker)
            }
            kind => SubjectModel::States(ready(path, kind)?),
        };
        Ok(Self { model, state, ranker, precision })
    }

    /// What the model is.
    pub fn description(&self) -> &Description {
        match &self.model {
            SubjectModel::Relations(loaded, _) => &loaded.description,
            SubjectModel::Sentences(loaded) => &loaded.description,
            SubjectModel::States(ready) => &ready.loaded.description,
        }
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        match &self.model {
            SubjectModel::Relations(loaded, _) => &loaded.tokenizer,
            SubjectModel::Sentences(loaded) => &loaded.tokenizer,
            SubjectModel::States(ready) => &ready.loaded.tokenizer,
        }
    }

    fn foundation(&self) -> &Foundation {
        match &self.model {
            SubjectModel::Relations(loaded, _) => loaded.model.foundation(),
            SubjectModel::Sentences(loaded) => loaded.model.foundation(),
            SubjectModel::States(ready) => ready.loaded.model.foundation(),
        }
    }

    fn description_mut(&mut self) -> &mut Description {
        match &mut self.model {
            SubjectModel::Relations(loaded, _) => &mut loaded.description,
            SubjectModel::Sentences(loaded) => &mut loaded.description,
            SubjectModel::States(ready) => &mut ready.loaded.description,
        }
    }

    /// Takes the paths of this machine out of the description: of folders, the last name is left.
    /// The ranker lies in a folder of the model.
    pub fn forget_paths(&mut self) {
        let description = self.description_mut();
        let last = |path: &Path| path.file_name().map(PathBuf::from);
        let encoder = &mut description.encoder;
        if Path::new(&encoder.name).is_absolute()
            && let Some(name) = last(Path::new(&encoder.name))
        {
            encoder.name = name.to_string_lossy().into_owned();
        }
        encoder.word_vectors = encoder.word_vectors.as_deref().and_then(last);
        if let Some(ranker) = &mut description.ranker {
            *ranker = run_files::RANKER.into();
        }
    }

    /// Pieces that its encoder reads in one go, where there is a limit.
    pub fn longest(&self) -> Option<usize> {
        let foundation = self.foundation();
        let positions = foundation.encoder.facts().max_positions;
        foundation.max_pieces.into_iter().chain(positions).min()
    }

    /// How logits become facts; `None` for a model that extracts no relations.
    pub fn decider(&self) -> Option<Decider> {
        let SubjectModel::Relations(loaded, _) = &self.model else { return None };
        Some(Decider::of(&*loaded.model, self.state.threshold))
    }

    /// Writes the model without the optimiser, with further files.
    ///
    /// # Errors
    /// I/O errors.
    pub fn save(&self, path: &Path, extra: Vec<(String, Vec<u8>)>) -> Result<()> {
        match &self.model {
            SubjectModel::Relations(loaded, _) => loaded.save(path, &self.state, extra),
            SubjectModel::Sentences(loaded) => loaded.save(path, &self.state, extra),
            SubjectModel::States(ready) => ready.loaded.save(path, &self.state, extra),
        }
    }

    /// The encoder's `config.json`.
    pub fn encoder_config(&self) -> serde_json::Value {
        match &self.model {
            SubjectModel::Relations(loaded, _) => loaded.model.encoder_config(),
            SubjectModel::Sentences(loaded) => loaded.model.encoder_config(),
            SubjectModel::States(ready) => ready.loaded.model.encoder_config(),
        }
    }

    /// A self-test of the model as it is. Generated documents that it refuses, because they are too
    /// long for it, are left out.
    ///
    /// # Errors
    /// Documents of one's own that cannot be read, or that the model refuses; errors of libtorch.
    pub fn self_test(&self, documents: &TestDocuments) -> Result<SelfTest> {
        let (documents, answers) = match documents {
            TestDocuments::Own(path, format) => {
                let documents = own_documents(path, *format)?;
                let answers =
                    self.answers(&documents, None).map_err(|error| error.in_file(path))?;
                (documents, answers)
            }
            TestDocuments::Generated => self.answered(self.generated()?)?,
        };
        let facts = self.decide(&documents, &answers)?;
        let description = self.description();
        let json = serde_json::to_value(description);
        let recorded = Recorded {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            relations: description.relations.clone(),
            tokenizer: description.tokenizer.clone(),
            config: self.encoder_config(),
            description: json.map_err(|error| Error::Bug(error.to_string()))?,
            threshold: self.state.threshold,
            calibration: self.state.calibration.clone(),
            facts,
        };
        Ok(SelfTest { documents, answers, recorded })
    }

    fn generated(&self) -> Result<Vec<Document>> {
        generated(&mut ModelTraits {
            tokenizer: &mut self.tokenizer().clone(),
            types: &self.foundation().entity_types,
            window: self.longest(),
        })
    }

    /// The documents that the model takes, with its answers.
    fn answered(&self, all: Vec<Document>) -> Result<(Vec<Document>, Vec<DocumentAnswer>)> {
        match self.answers(&all, None) {
            Ok(answers) => return Ok((all, answers)),
            Err(Error::Data(_)) => {}
            Err(error) => return Err(error),
        }
        let (mut documents, mut refused) = (Vec::new(), None);
        for document in all {
            match self.answers(std::slice::from_ref(&document), None) {
                Ok(_) => documents.push(document),
                Err(error @ Error::Data(_)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if documents.is_empty() => Err(error.with_hint(
                "name documents that the model takes with --self-test, or leave the \
                            self-test out with --without-self-test",
            )),
            _ => {
                let answers = self.answers(&documents, None)?;
                Ok((documents, answers))
            }
        }
    }

    /// What the model makes of documents. With `given`, choices are taken from there: which pairs
    /// the ranker keeps, and what the evidence is that a second run reads.
    ///
    /// # Errors
    /// A document that the model refuses; errors of libtorch.
    pub fn answers(
        &self,
        documents: &[Document],
        given: Option<&[DocumentAnswer]>,
    ) -> Result<Vec<DocumentAnswer>> {
        let precision = self.precision;
        let relations = self.description().relations.clone();
        let mut tokenizer = self.tokenizer().clone();
        let tokenized: Vec<TokenizedDocument> = documents
            .iter()
            .map(|document| tokenize(document, &mut tokenizer, &relations))
            .collect::<Result<_>>()?;
        match &self.model {
            SubjectModel::Relations(loaded, ranker) => {
                let threshold = self.state.threshold;
                let work = RelationAnswers { loaded, ranker: ranker.as_deref(), threshold, given };
                work.answers(tokenized, precision)
            }
            SubjectModel::Sentences(loaded) => sentences(loaded, tokenized, precision),
            SubjectModel::States(ready) => states(ready, &tokenized, precision),
        }
    }

    /// The facts that the model's rule makes of numbers, with evidence and probabilities. An
    /// evidence predictor gives the facts that it was asked about.
    ///
    /// # Errors
    /// A calibration that does not fit the model.
    pub fn decide(
        &self,
        documents: &[Document],
        answers: &[DocumentAnswer],
    ) -> Result<Vec<Vec<Prediction>>> {
        match &self.model {
            SubjectModel::Relations(loaded, _) => {
                relation_facts(loaded, &self.state, documents, answers, self.precision)
            }
            SubjectModel::Sentences(loaded) => {
                let theta = self.state.threshold.unwrap_or(0.5) as f32;
                sentence_facts(loaded, theta, documents, answers)
            }
            SubjectModel::States(_) => Ok(vec![Vec::new(); documents.len()]),
        }
    }
}

/// How a fine-tuned system answers.
struct RelationAnswers<'a> {
    loaded: &'a LoadedExtractor,
    ranker: Option<&'a LoadedRanker>,
    threshold: Option<f64>,
    given: Option<&'a [DocumentAnswer]>,
}

impl RelationAnswers<'_> {
    fn answers(
        &self,
        mut documents: Vec<TokenizedDocument>,
        precision: Precision,
    ) -> Result<Vec<DocumentAnswer>> {
        let mut answers = vec![DocumentAnswer::default(); documents.len()];
        if let Some(ranker) = self.ranker {
            self.keep(ranker, &mut documents, &mut answers)?;
        }
        let documents: Vec<Arc<TokenizedDocument>> = documents.into_iter().map(Arc::new).collect();
        let predictor = Predictor::new(&*self.loaded.model, precision);
        let scores = predictor.scores(&documents, &mut |_| Ok(()))?;
        for (answer, scores) in answers.iter_mut().zip(&scores) {
            answer.push(LOGITS, scores.pairs.len(), scores.logits.clone());
            answer.push(EVIDENCE, scores.pairs.len(), scores.evidence.clone());
            answer.pairs.insert(LOGITS.to_owned(), scores.pairs.clone());
        }
        let decider = Decider::of(&*self.loaded.model, self.threshold);
        let Some(fusion) = Fusion::of(&predictor, decider)? else { return Ok(answers) };
        let given: Option<Vec<_>> = self.given.map(|given| given.iter().map(first_run).collect());
        let first = given.as_ref().unwrap_or(&scores);
        let first: Vec<_> = documents.iter().cloned().zip(first).collect();
        let second = fusion.second_run(&first, &|| Ok(()))?;
        for (answer, scores) in answers.iter_mut().zip(second) {
            answer.push(SECOND_RUN, scores.pairs.len(), scores.logits);
            answer.pairs.insert(SECOND_RUN.to_owned(), scores.pairs);
        }
        Ok(answers)
    }

    /// Lets the ranker choose pairs. The documents get those that are given, where there are any.
    fn keep(
        &self,
        ranker: &LoadedRanker,
        documents: &mut [TokenizedDocument],
        answers: &mut [DocumentAnswer],
    ) -> Result<()> {
        let settings = DsdocreSettings::within(&self.loaded.description.settings)?;
        let keep = settings.finetune_pairs();
        let kept = ranker.keep(documents, keep, PREDICT_TOKENS, &mut |_| Ok(()))?;
        for (answer, kept) in answers.iter_mut().zip(&kept) {
            answer.push(KEPT, kept.len(), kept.iter().map(|pair| pair.score).collect());
            let pairs = kept.iter().map(|pair| (pair.head, pair.tail)).collect();
            answer.pairs.insert(KEPT.to_owned(), pairs);
        }
        let chosen = self.given.unwrap_or(&*answers);
        for (document, answer) in documents.iter_mut().zip(chosen) {
            let pairs = answer.pairs_of(KEPT).into_iter().zip(answer.values(KEPT));
            let scored = |((head, tail), score): (Pair, f32)| ScoredPair { head, tail, score };
            document.kept = Some(pairs.map(scored).collect());
        }
        Ok(())
    }
}

/// The scores of the first run in an answer.
fn first_run(answer: &DocumentAnswer) -> DocumentScores {
    DocumentScores {
        pairs: answer.pairs_of(LOGITS),
        logits: answer.values(LOGITS),
        evidence: answer.values(EVIDENCE),
        ..DocumentScores::default()
    }
}

fn relation_facts(
    loaded: &LoadedExtractor,
    state: &TrainerState,
    documents: &[Document],
    answers: &[DocumentAnswer],
    precision: Precision,
) -> Result<Vec<Vec<Prediction>>> {
    let relations = &loaded.description.relations;
    let decider = Decider::of(&*loaded.model, state.threshold);
    let scores: Vec<DocumentScores> = answers.iter().map(first_run).collect();
    let titled = || documents.iter().map(|document| document.title.as_str()).zip(&scores);
    let predictor = Predictor::new(&*loaded.model, precision);
    let mut facts: Vec<Vec<Prediction>> = match Fusion::of(&predictor, decider)? {
        Some(fusion) => {
            let second = |answer: &DocumentAnswer| DocumentScores {
                pairs: answer.pairs_of(SECOND_RUN),
                logits: answer.values(SECOND_RUN),
                ..DocumentScores::default()
            };
            let second: Vec<DocumentScores> = answers.iter().map(second).collect();
            let fused = fusion.facts(&scores, &second);
            fusion.predictions(&fused, state.threshold, titled(), relations)
        }
        None => titled().map(|(title, scores)| decider.decide(scores, title, relations)).collect(),
    };
    let calibration = calibration_of(Path::new("trainer.json"), state, relations)?;
    if let Some(calibration) = &calibration {
        let calibrated = Calibrated { calibration, decider };
        for (facts, scores) in facts.iter_mut().zip(&scores) {
            calibrated.judge(facts, scores, relations);
        }
    }
    Ok(facts)
}

/// The facts of a document that an evidence predictor is asked about: some pairs, each with a
/// relation in turn.
fn asked(document: &Arc<TokenizedDocument>, relations: usize) -> Vec<EvidenceItem> {
    let pairs = crate::sampling::asked_pairs(document).into_iter().take(ASKED_FACTS).enumerate();
    let item = |(number, (head, tail)): (usize, Pair)| EvidenceItem {
        document: Arc::clone(document),
        fact: TokenizedFact {
            head,
            tail,
            relation: (number % relations.max(1)) as u32,
            evidence: Vec::new(),
        },
        visit: 0,
    };
    pairs.map(item).collect()
}

fn sentences(
    loaded: &LoadedEvidence,
    documents: Vec<TokenizedDocument>,
    precision: Precision,
) -> Result<Vec<DocumentAnswer>> {
    let relations = loaded.description.relations.len();
    let forward = Forward { train: false, precision };
    let answer = |document| {
        let items = asked(&Arc::new(document), relations);
        let scores = loaded.model.scores(&items, forward, PREDICT_TOKENS)?;
        let mut answer = DocumentAnswer::default();
        answer.push(SENTENCES, items.len(), scores.concat());
        let pairs = items.iter().map(|item| (item.fact.head, item.fact.tail)).collect();
        answer.pairs.insert(SENTENCES.to_owned(), pairs);
        Ok(answer)
    };
    documents.into_iter().map(answer).collect()
}

fn sentence_facts(
    loaded: &LoadedEvidence,
    theta: f32,
    documents: &[Document],
    answers: &[DocumentAnswer],
) -> Result<Vec<Vec<Prediction>>> {
    let relations = &loaded.description.relations;
    let mut tokenizer = loaded.tokenizer.clone();
    let facts = |(document, answer): (&Document, &DocumentAnswer)| {
        let items =
            asked(&Arc::new(tokenize(document, &mut tokenizer, relations)?), relations.len());
        let columns = answer.numbers.get(SENTENCES).map_or(1, |table| table.columns.max(1));
        let rows = answer.values(SENTENCES).chunks(columns).map(<[f32]>::to_vec).collect();
        let found = evidence(&sentences_of(&items, rows), items.len(), theta);
        let fact = |(item, mut evidence): (&EvidenceItem, Vec<usize>)| {
            evidence.sort_unstable();
            let relation = relations.get(item.fact.relation as usize);
            Prediction {
                title: document.title.clone(),
                h_idx: item.fact.head as usize,
                t_idx: item.fact.tail as usize,
                r: relation.map_or_else(String::new, |relation| relation.id.clone()),
                evidence,
                ..Prediction::default()
            }
        };
        Ok(items.iter().zip(found).map(fact).collect())
    };
    documents.iter().zip(answers).map(facts).collect()
}

/// States of tokens and entities, and the scores of all ordered pairs.
fn states(
    ready: &LoadedRanker,
    documents: &[TokenizedDocument],
    precision: Precision,
) -> Result<Vec<DocumentAnswer>> {
    let _guard = tch::no_grad_guard();
    let views = ready.loaded.views(0)?;
    let answer = |document: &TokenizedDocument| {
        let view = views.view(document, &ViewChoices::default())?;
        let packed = views.pack(&[view], &[0]);
        let forward = Forward { train: false, precision };
        let (states, entities) = ready.loaded.model.encode(&packed, forward)?;
        let mut answer = DocumentAnswer::default();
        let kept = states.f_slice(0, 0, states.size()[0], KEPT_STATES)?;
        for (name, tensor) in [(STATES, kept), (ENTITIES, entities)] {
            let rows = tensor.size()[0] as usize;
            let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
            answer.push(name, rows, Vec::try_from(flat.f_contiguous()?.f_view([-1])?)?);
        }
        let scores = ready.scores(&[document])?.concat();
        answer.push(PAIR_SCORES, scores.len(), scores);
        Ok(answer)
    };
    documents.iter().map(answer).collect()
}
