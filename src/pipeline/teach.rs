//! Teaching: a fine-tuned system judges the pairs of distant documents, and what it says is stored
//! beside them (docs/systems.md, V.1–V.3).
//!
//! Not for: what becomes of the labels (`distant::LabelRules`, when something is trained).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use clap::Args;
use half::f16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::calibrate::observations;
use super::model::LoadedExtractor;
use super::predictor::{Decider, DocumentScores, Predictor, shared_scores};
use super::session::Session;
use super::training_shards::same_relations;
use crate::base::{Progress, say};
use crate::distant::{
    ByRelation, Calibration, CalibrationFit, ClassThresholds, CrossFit, DistantSettings, FOLDS,
    PassStatistics, PseudoLabel, RuleThresholds, ThresholdSums,
};
use crate::eval::{ScoredFact, reliability};
use crate::sampling::Pair;
use crate::shards::{
    DocumentStore, ShardManifest, StoreOptions, Taught, TaughtDocument, TaughtGroup, TaughtShards,
};
use crate::systems::visit;
use crate::text::{TaughtPair, TaughtRelation, TokenizedDocument};
use crate::train::{Checkpoint, PrecisionChoice};
use crate::{DataError, Error, Result};

/// Documents whose logits are in memory at a time, on each rank.
const CHUNK: usize = 128;

/// Who teaches what, as the flags of `teach` say it.
#[derive(Clone, Debug, Args)]
pub struct TeachTask {
    /// Fine-tuned checkpoint of the teacher, any system
    #[arg(long, value_name = "C")]
    pub checkpoint: PathBuf,
    /// Distant shards
    #[arg(long, value_name = "SHARDS")]
    pub input: PathBuf,
    /// Shards to write: the input with what the teacher says of its pairs
    #[arg(long, value_name = "SHARDS")]
    pub output: PathBuf,
    /// Human-annotated shards that the teacher was not trained on, for probabilities that hold and
    /// for the thresholds of the rules
    #[arg(long, value_name = "SHARDS")]
    pub dev: Option<PathBuf>,
    /// The documents of --dev with distant labels: how much such a label says
    #[arg(long, value_name = "SHARDS", requires = "dev")]
    pub dev_labels: Option<PathBuf>,
}

/// What was taught.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeachReport {
    /// Documents.
    pub documents: usize,
    /// Bytes of the teacher's column, by document.
    pub bytes_per_document: f64,
    /// How well the probabilities hold, where that could be judged.
    pub fit: Option<CalibrationFit>,
    /// Whether the output was complete before, and nothing had to be done.
    pub was_there: bool,
}

impl fmt::Display for TeachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { documents, bytes_per_document: bytes, fit, .. } = self;
        write!(f, "{documents} documents, {bytes:.0} bytes each for what the teacher says")?;
        fit.map_or(Ok(()), |fit| write!(f, "; {fit}"))
    }
}

/// What makes two pieces of work the same.
#[derive(Serialize)]
struct Identity<'a> {
    checkpoint: &'a str,
    input: String,
    settings: &'a DistantSettings,
    calibration: &'a Calibration,
}

/// Judges all pairs of the documents; every rank does its share, rank 0 writes. Goes on with work
/// that was broken off.
///
/// # Errors
/// A checkpoint that extracts no relations; shards of another tokenizer or with other relations; a
/// document over the length limit; the disk; errors of another rank.
pub fn teach(
    task: &TeachTask,
    settings: &DistantSettings,
    session: &Session,
) -> Result<TeachReport> {
    settings.check()?;
    if task.output.join("manifest.json").exists() {
        return Ok(report(&ShardManifest::read(&task.output)?, true));
    }
    let teacher = Teacher::open(&task.checkpoint, session)?;
    let shards = TaughtShards::open(&task.input, &task.output)?;
    teacher.check(&task.input, shards.manifest())?;
    let predictor = teacher.predictor(session);
    let learnt = Learnt::of(task, settings, &teacher, &predictor, session)?;
    let identity = Checkpoint::open(&task.checkpoint)?.identity()?;
    let left = session.world.on_root(|| {
        if learnt.fit.is_none() {
            say("warning: without --dev, probabilities are the plain logistic function of the \
                 teacher's margin, and the thresholds of the rules are fixed ones");
        }
        let manifest = serde_json::to_vec(shards.manifest());
        let manifest = manifest.map_err(|error| Error::Bug(format!("a manifest: {error}")))?;
        shards.begin(&Identity {
            checkpoint: &identity,
            input: blake3::hash(&manifest).to_hex().to_string(),
            settings,
            calibration: &learnt.calibration,
        })
    })?;
    let label = format!("teach {}", task.input.file_name().unwrap_or_default().to_string_lossy());
    let _section = session.world.watchdog().unbounded_section(label.clone());
    let teller = teacher.predictor(session).with_tokens(settings.tokens);
    let judge = PairJudge { decider: teacher.decider, settings, learnt: &learnt };
    let lesson = Lesson { predictor: &teller, judge };
    let total = shards.manifest().documents as u64;
    let mut progress = Progress::new(&label, total, 0, session.is_root());
    let mut done = 0;
    for group in 0..shards.num_groups() {
        let documents = shards.documents(group)?;
        if left.binary_search(&group).is_ok() {
            let taught = lesson.group(group, &documents, session)?;
            session.world.on_root(|| shards.keep(group, &taught))?;
        }
        done += documents.len() as u64;
        progress.update(done, String::new);
    }
    progress.finish(&format!("{total} documents are taught"));
    session.world.on_root(|| {
        let taught = Taught {
            checkpoint: identity.clone(),
            system: teacher.loaded.description.settings.system().to_owned(),
            floor: settings.floor,
            top: settings.top,
            passes: settings.passes,
            tokens: settings.tokens,
            logits: settings.logits,
            uncertainty: lesson.uncertainty(&shards)?,
            calibration: learnt.calibration.clone(),
            fit: learnt.fit,
            thresholds: learnt.thresholds.clone(),
            bytes_per_document: 0.0,
        };
        Ok(report(&shards.finish(taught)?, false))
    })
}

fn report(manifest: &ShardManifest, was_there: bool) -> TeachReport {
    let taught = manifest.taught.as_ref();
    TeachReport {
        documents: manifest.documents,
        bytes_per_document: taught.map_or(0.0, |taught| taught.bytes_per_document),
        fit: taught.and_then(|taught| taught.fit),
        was_there,
    }
}

/// A fine-tuned system that judges documents.
struct Teacher {
    path: PathBuf,
    loaded: LoadedExtractor,
    decider: Decider,
}

impl Teacher {
    fn open(path: &Path, session: &Session) -> Result<Self> {
        let loaded = LoadedExtractor::open(path, session.device)?;
        if loaded.description.ranker.is_some() {
            let problem = "predicts for the pairs that a ranker keeps, not for all";
            return Err(DataError::new(path, problem)
                .hint("teach with a model that was fine-tuned without a ranker")
                .into());
        }
        let threshold = Checkpoint::open(path)?.trainer()?.threshold;
        let decider = Decider::of(&*loaded.model, threshold);
        Ok(Self { path: path.to_owned(), loaded, decider })
    }

    fn predictor(&self, session: &Session) -> Predictor<'_> {
        Predictor::new(&*self.loaded.model, session.precision(PrecisionChoice::Auto))
    }

    /// Refuses shards that the teacher cannot read as they are.
    fn check(&self, folder: &Path, manifest: &ShardManifest) -> Result<()> {
        manifest.check_tokenizer(folder, &self.loaded.tokenizer)?;
        if manifest.relations == self.loaded.description.relations {
            return Ok(());
        }
        let message = format!(
            "{} and the teacher {} have different relations",
            folder.display(),
            self.path.display()
        );
        Err(Error::recipe(message)
            .with_hint("prepare the documents with the --relations of the teacher's documents"))
    }
}

/// What the teacher's margins mean, and the thresholds of the rules.
struct Learnt {
    calibration: Calibration,
    thresholds: Vec<RuleThresholds>,
    fit: Option<CalibrationFit>,
}

impl Learnt {
    fn of(
        task: &TeachTask,
        settings: &DistantSettings,
        teacher: &Teacher,
        predictor: &Predictor,
        session: &Session,
    ) -> Result<Self> {
        let relations = teacher.decider.classes.relations;
        let Some(folder) = &task.dev else {
            return Ok(Self {
                calibration: Calibration::plain(relations),
                thresholds: vec![RuleThresholds::FIXED; relations],
                fit: None,
            });
        };
        let dev = DocumentStore::open(folder, StoreOptions::default())?;
        teacher.check(folder, dev.manifest())?;
        let labels =
            task.dev_labels.as_deref().map(|path| DevLabels::read(path, &dev)).transpose()?;
        let scores = shared_scores(predictor, &dev, session)?;
        let labelled: Vec<usize> = (0..dev.len()).filter(|&row| dev.get(row).labelled).collect();
        let documents = labelled.len();
        let number = FOLDS.min(documents);
        let has_label = |row: usize, pair: Pair, relation: usize| {
            let of_row = labels.as_ref().map(|labels| &labels.rows[row]);
            of_row.is_some_and(|labels| labels.contains(&(pair, relation as u32)))
        };
        let fold = |fold: usize| {
            let rows = labelled.iter().skip(fold).step_by(number);
            let mut part = rows.map(|&row| (row, &scores[row]));
            observations(&mut part, &dev, teacher.decider, &has_label)
        };
        let folds: Vec<ByRelation> = (0..number).map(fold).collect();
        if documents < 2 {
            return Err(Error::recipe(format!(
                "{}: {documents} labelled documents, but at least 2 are needed to learn from",
                folder.display()
            ))
            .with_hint("leave --dev out, or give more documents"));
        }
        let found = CrossFit::new(&folds, relations, settings.floor);
        let fit = Some(judge_fit(documents, &folds, &found));
        Ok(Self { calibration: found.calibration, thresholds: found.thresholds, fit })
    }
}

/// How well probabilities hold on documents that they were not fitted on.
fn judge_fit(documents: usize, folds: &[ByRelation], found: &CrossFit) -> CalibrationFit {
    let entry = |probability: f64, correct, weight: f32| {
        let one = ScoredFact { score: probability as f32, correct, in_train: false };
        std::iter::repeat_n(one, weight as usize)
    };
    let plain = Calibration::plain(0);
    let before =
        folds.iter().flatten().flatten().flat_map(|one| {
            entry(plain.probability(0, one.margin, false), one.is_true, one.weight)
        });
    let after =
        found.judged.iter().flatten().flat_map(|one| entry(one.probability, one.is_true, 1.0));
    let (before, after): (Vec<ScoredFact>, Vec<ScoredFact>) = (before.collect(), after.collect());
    let [before, after] = [before, after].map(|all| reliability(&all, 0).unwrap_or_default());
    CalibrationFit {
        documents,
        candidates: after.candidates,
        error: after.ece,
        log_loss: after.log_loss,
        error_of_margins: before.ece,
    }
}

/// Distant labels of the documents that calibration learns from.
struct DevLabels {
    /// Of each row of the annotated documents.
    rows: Vec<AHashSet<(Pair, u32)>>,
}

impl DevLabels {
    fn read(folder: &Path, dev: &DocumentStore) -> Result<Self> {
        let store = DocumentStore::open(folder, StoreOptions::default())?;
        same_relations(&store, dev)?;
        let mut missing = 0;
        let mut of_row = |row: usize| {
            let title = &dev.title(row);
            let Some(place) = store.find_title(title) else {
                missing += 1;
                return Ok(AHashSet::new());
            };
            let (own, other) = (dev.get(row), store.get(place));
            if own.entities != other.entities {
                let problem = "has other entities than the annotated document of this title";
                return Err(DataError::new(folder, problem)
                    .title(title)
                    .hint("label the documents of --dev themselves")
                    .into());
            }
            Ok(other.facts.iter().map(|fact| ((fact.head, fact.tail), fact.relation)).collect())
        };
        let rows: Vec<AHashSet<_>> = (0..dev.len()).map(&mut of_row).collect::<Result<_>>()?;
        if missing > 0 {
            let error = DataError::new(
                folder,
                format!("{missing} of the {} documents of --dev are not here", dev.len()),
            );
            return Err(error.hint("label all documents of --dev").into());
        }
        Ok(Self { rows })
    }
}

/// Scores documents and judges them.
struct Lesson<'a> {
    predictor: &'a Predictor<'a>,
    judge: PairJudge<'a>,
}

/// How scores become what is said of a document.
#[derive(Clone, Copy)]
struct PairJudge<'a> {
    decider: Decider,
    settings: &'a DistantSettings,
    learnt: &'a Learnt,
}

impl Lesson<'_> {
    /// What the teacher says of the documents of a row group, on rank 0; nothing on the others.
    fn group(
        &self,
        group: usize,
        documents: &[TokenizedDocument],
        session: &Session,
    ) -> Result<TaughtGroup> {
        let shares = session.gather(self.share_of(group, documents, session))?;
        let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
        let mut take = |item: usize| shares.get_mut(item % session.world.size())?.next();
        Ok((0..documents.len()).filter_map(&mut take).collect())
    }

    /// What the teacher says of this rank's share of them.
    fn share_of(
        &self,
        group: usize,
        documents: &[TokenizedDocument],
        session: &Session,
    ) -> Result<TaughtGroup> {
        let mine: Vec<(usize, Arc<TokenizedDocument>)> =
            session.share(documents.iter().cloned().map(Arc::new).enumerate()).collect();
        let mut taught: TaughtGroup = Vec::new();
        for chunk in mine.chunks(CHUNK) {
            let (rows, chunk): (Vec<usize>, Vec<Arc<TokenizedDocument>>) =
                chunk.iter().cloned().unzip();
            let mut done = |_| session.going_on("while teaching");
            let scores = self.predictor.scores(&chunk, &mut done)?;
            let passes = self.passes(group, &rows, &chunk)?;
            let judge = self.judge;
            let said =
                |index: usize| judge.document(&chunk[index], &scores[index], passes.get(index));
            taught.par_extend((0..chunk.len()).into_par_iter().map(said));
        }
        Ok(taught)
    }

    /// Statistics of the logits over passes with dropout, by document; empty without passes.
    fn passes(
        &self,
        group: usize,
        rows: &[usize],
        documents: &[Arc<TokenizedDocument>],
    ) -> Result<Vec<PassStatistics>> {
        if self.judge.settings.passes == 0 {
            return Ok(Vec::new());
        }
        let mut statistics = vec![PassStatistics::default(); documents.len()];
        for pass in 0..self.judge.settings.passes {
            // Pass and row choose the masks, whatever the number of ranks.
            let step = (group * self.judge.settings.passes + pass) as u64;
            let visits: Vec<u64> = rows.iter().map(|&row| visit(step, row)).collect();
            let scores = self.predictor.scores_with_dropout(documents, &visits)?;
            for (statistics, scores) in statistics.iter_mut().zip(scores) {
                statistics.add(&scores.logits)?;
            }
        }
        Ok(statistics)
    }

    /// The limits of certain predictions by relation, over all documents; `None` for one pass.
    fn uncertainty(&self, shards: &TaughtShards) -> Result<Option<ClassThresholds>> {
        if self.judge.settings.passes == 0 {
            return Ok(None);
        }
        let mut sums = ThresholdSums::new(self.judge.decider.classes.relations);
        for group in 0..shards.num_groups() {
            for pair in shards.kept(group)?.iter().flat_map(|document| &document.pairs) {
                let predicted = pair.relations.iter().filter(|one| one.predicted);
                sums.add(&predicted.map(PseudoLabel::of).collect::<Vec<_>>());
            }
        }
        Ok(Some(sums.finish()))
    }
}

impl PairJudge<'_> {
    /// The pairs of a document that have a label or a likely relation.
    fn document(
        &self,
        document: &TokenizedDocument,
        scores: &DocumentScores,
        passes: Option<&PassStatistics>,
    ) -> TaughtDocument {
        let classes = self.decider.classes.count();
        let (means, deviations) =
            passes.map(|passes| (passes.means(), passes.deviations())).unzip();
        let means: &[f32] = means.as_deref().unwrap_or(&scores.logits);
        let deviations: Vec<f32> = deviations.unwrap_or_default();
        let mut labels: AHashMap<Pair, Vec<usize>> = AHashMap::new();
        for fact in &document.facts {
            labels.entry((fact.head, fact.tail)).or_default().push(fact.relation as usize);
        }
        let sentences = scores.evidence.len() / scores.pairs.len().max(1);
        let of_pair = |(place, (pair, logits)): (usize, (Pair, &[f32]))| {
            let row = place * classes..(place + 1) * classes;
            let deviations = deviations.get(row.clone()).unwrap_or_default();
            let labels = labels.get(&pair).map_or(&[][..], Vec::as_slice);
            let relations = self.relations(logits, &means[row], deviations, labels);
            let evidence = &scores.evidence[place * sentences..(place + 1) * sentences];
            let attention = scores.attention.get(place).cloned().unwrap_or_default();
            let share = |weight: &f32| TaughtRelation::units((*weight).into());
            (!relations.is_empty()).then(|| TaughtPair {
                head: pair.0,
                tail: pair.1,
                relations,
                evidence: evidence.iter().map(|share| (share * 255.0).round() as u8).collect(),
                weights: attention.weights.iter().map(share).collect(),
                tokens: attention.tokens,
            })
        };
        let mut pairs: Vec<TaughtPair> =
            self.decider.rows(scores).enumerate().filter_map(of_pair).collect();
        pairs.sort_by_key(|pair| (pair.head, pair.tail));
        let half = |logit: &f32| f16::from_f32(*logit).to_bits();
        let logits = self.settings.logits.then(|| scores.logits.iter().map(half).collect());
        TaughtDocument { pairs, logits }
    }

    /// The relations of a pair that have a label, that are predicted, or that are likely.
    fn relations(
        &self,
        logits: &[f32],
        means: &[f32],
        deviations: &[f32],
        labels: &[usize],
    ) -> Vec<TaughtRelation> {
        let (decider, calibration) = (self.decider, &self.learnt.calibration);
        let predicted = decider.taken(means);
        // Nearly all relations are far below the floor.
        let least = (self.settings.floor / (1.0 - self.settings.floor)).ln();
        let judge = |relation: usize| {
            let class = decider.classes.of_relation(relation);
            let margin = decider.margin(logits, relation);
            let (labelled, predicted) = (labels.contains(&relation), predicted.contains(&class));
            let likely = calibration.logit(relation, margin, labelled) >= least;
            if !(labelled || predicted || likely) {
                return None;
            }
            let probability = calibration.probability(relation, margin, labelled);
            let deviation = deviations.get(class).copied().unwrap_or_default();
            let one = TaughtRelation {
                relation: relation as u16,
                probability: TaughtRelation::units(probability),
                predicted,
                deviation: (deviation * TaughtRelation::DEVIATION_UNITS).round() as u16,
            };
            Some((one, labelled, probability))
        };
        let mut kept: Vec<_> = (0..decider.classes.relations).filter_map(judge).collect();
        // Those with labels first, then those that are predicted, then the likeliest.
        kept.sort_by(|(a, a_labelled, p), (b, b_labelled, q)| {
            (b_labelled, b.predicted).cmp(&(a_labelled, a.predicted)).then(q.total_cmp(p))
        });
        let labelled = kept.iter().filter(|(_, labelled, _)| *labelled).count();
        kept.truncate(labelled + self.settings.top);
        let mut relations: Vec<TaughtRelation> = kept.into_iter().map(|(one, ..)| one).collect();
        relations.sort_by_key(|one| one.relation);
        relations
    }
}
