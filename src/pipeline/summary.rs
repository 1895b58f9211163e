//! The end of a run: predictions, scores, the table on the terminal and the report.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::calibrate::{Calibrated, calibrated_facts};
use super::data::{Role, RunData};
use super::evaluate::{document_of, gold_of};
use super::fusion::Fusion;
use super::ledger::{LedgerSource, write_ledger};
use super::model::LoadedExtractor;
use super::predictor::{
    Decider, DocumentScores, Predictor, gold_facts, ranked_facts, shared_scores,
};
use super::rules::rules_of;
use super::training::ActiveRun;
use super::training_shards::OpenShards;
use crate::Result;
use crate::base::{run_files, say, to_json, to_pretty_json, write_whole};
use crate::corpus::synth::Truth;
use crate::eval::{
    EvaluateOptions, FactSet, FactSets, Gold, KEPT_IN_REPORTS, Prediction, RankedDocument,
    RankedFact, RecallAt, Scores, best_prefix, evaluate, precision_recall, recall_at, reliability,
    write_predictions, write_zip,
};
use crate::recipe::CorpusName;
use crate::report::{
    DroppedLabel, LossCurve, NamedValue, ReportData, Series, StageTime, VariantScores,
    published_results, sentences_of_pair, write_report,
};
use crate::sampling::{KeptPairs, RowSet};
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::DsdocreSettings;
use crate::systems::{TrainingDocuments, Variant};
use crate::text::TokenizedDocument;
use crate::train::metrics::{MetricsWriter, read_metrics};
use crate::train::{Checkpoint, TrainerState};

/// Collects what the run gave.
pub struct Summary<'a> {
    run: &'a ActiveRun<'a>,
    data: &'a RunData,
    train_facts: FactSet,
    scores: BTreeMap<String, Scores>,
    report: ReportData,
    /// The best checkpoint of each variant, by the name of its row.
    best: Vec<(String, PathBuf)>,
}

/// Points of a plotted curve at most.
const CURVE_POINTS: usize = 200;
/// Examples of dropped labels in the report.
const DROPPED_EXAMPLES: usize = 12;

impl<'a> Summary<'a> {
    /// Starts a summary; measures what the ranker keeps where there is one.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(
        run: &'a ActiveRun<'a>,
        data: &'a RunData,
        scored: Option<&RunData>,
    ) -> Result<Self> {
        let (train_facts, scores) = (FactSet::default(), BTreeMap::new());
        let (report, best) = (ReportData::default(), Vec::new());
        let mut summary = Self { run, data, train_facts, scores, report, best };
        run.session.world.on_root(|| {
            summary.add_training_documents()?;
            scored.map_or(Ok(()), |scored| summary.add_ranker(scored))
        })?;
        Ok(summary)
    }

    /// Takes from the documents that were trained on what Ign F1 ignores, and what the reader of
    /// scores on dev must know.
    fn add_training_documents(&mut self) -> Result<()> {
        let recipe = self.run.recipe;
        let train = OpenShards::open(&self.data.training(&recipe.data)?, recipe.data.memory())?;
        let dev = DocumentStore::open(&self.data.need(Role::Dev)?, StoreOptions::default())?;
        self.train_facts = train.known_facts(self.data.train_facts.as_deref())?;
        self.report.notes.extend(train.trained_on_dev(&dev));
        self.report.notes.extend(self.data.human_share.map(|share| share.to_string()));
        Ok(())
    }

    /// Predicts dev and test with the best checkpoint of a variant, and scores them (all ranks
    /// predict, rank 0 writes).
    ///
    /// # Errors
    /// Errors of prediction or of the disk.
    pub fn add(&mut self, variant: Variant, checkpoint: &Checkpoint, data: &RunData) -> Result<()> {
        let loaded = LoadedExtractor::open(checkpoint.path(), self.run.session.device)?;
        let state = checkpoint.trainer()?;
        let learning = Series { name: self.row(variant)?, points: whole_curve(checkpoint)? };
        self.report.learning.push(learning);
        self.best.push((self.row(variant)?, checkpoint.path().to_owned()));
        for role in [Role::Dev, Role::Test] {
            if let Some(folder) = data.shards_of(role) {
                self.add_split(variant, role.name(), &folder, &loaded, &state)?;
            }
        }
        Ok(())
    }

    /// The name of a variant's row.
    fn row(&self, variant: Variant) -> Result<String> {
        Ok(self.run.recipe.settings()?.info().row(variant))
    }

    fn add_split(
        &mut self,
        variant: Variant,
        split: &str,
        folder: &Path,
        loaded: &LoadedExtractor,
        state: &TrainerState,
    ) -> Result<()> {
        let ActiveRun { recipe, session, .. } = self.run;
        let store = DocumentStore::open(folder, StoreOptions::default())?;
        let precision = session.precision(recipe.finetune.precision);
        let predictor = Predictor::new(&*loaded.model, precision);
        let scores = shared_scores(&predictor, &store, session)?;
        let decider = Decider::of(&*loaded.model, state.threshold);
        let titles: Vec<String> = (0..store.len()).map(|row| store.title(row)).collect();
        let titled = || titles.iter().map(String::as_str).zip(&scores);
        let relations = store.relations();
        let mut facts: Vec<Vec<Prediction>> = match Fusion::of(&predictor, decider)? {
            Some(fusion) => {
                let fused = fusion.shared_facts(&scores, &store, session)?;
                fusion.predictions(&fused, state.threshold, titled(), relations)
            }
            None => {
                titled().map(|(title, scores)| decider.decide(scores, title, relations)).collect()
            }
        };
        let calibration = state.calibration.as_ref();
        let calibrated = calibration.map(|calibration| Calibrated { calibration, decider });
        if let Some(calibrated) = calibrated {
            for (facts, scores) in facts.iter_mut().zip(&scores) {
                calibrated.judge(facts, scores, relations);
            }
        }
        let (predicted, how) = ((scores.as_slice(), facts.concat()), (decider, calibrated));
        session
            .world
            .on_root(|| self.judge_split(variant, split, (predicted.0, &predicted.1), &store, how))
    }

    /// Writes the predictions of a split and scores them, on rank 0.
    fn judge_split(
        &mut self,
        variant: Variant,
        split: &str,
        (scores, predictions): (&[DocumentScores], &[Prediction]),
        store: &DocumentStore,
        (decider, calibrated): (Decider, Option<Calibrated>),
    ) -> Result<()> {
        let name = format!("{}-{split}", variant.name());
        let folder = self.run.folder.path().join(run_files::PREDICTIONS);
        write_predictions(&folder.join(format!("{name}.json")), predictions)?;
        if split == Role::Test.name() && self.run.recipe.variants.last() == Some(&variant) {
            write_zip(&folder.join("result.zip"), predictions)?;
        }
        let gold = gold_of(store);
        if gold.iter().all(|document| document.facts.is_none()) {
            return Ok(());
        }
        let facts = FactSets { annotated: Some(&self.train_facts), distant: None };
        let options = EvaluateOptions { facts, ..EvaluateOptions::default() };
        let mut result = evaluate(split, &Gold::new(&gold)?, predictions, &options);
        let ranked = ranked_facts(scores, store, decider, &self.train_facts);
        result.threshold = best_prefix(&ranked, gold_facts(&gold));
        result.curve = precision_recall(&ranked, gold_facts(&gold), CURVE_POINTS);
        result.reliability = reliability(&ranked, predictions.len());
        result.calibrated = calibrated
            .map(|calibrated| calibrated_facts(&ranked, scores, calibrated))
            .and_then(|facts| reliability(&facts, predictions.len()));
        result.ranker = recall_of_gold(self.dsdocre()?, store);
        self.report.scores.push(VariantScores {
            variant: self.row(variant)?,
            split: split.into(),
            f1: result.official.f1,
            f1_sd: None,
            ign_f1: result.official.ign_annotated.map(|ign| ign.f1),
            precision: result.official.precision,
            recall: result.official.recall,
            seeds: 1,
        });
        // The last variant of the recipe is the one the report looks into.
        if split == "test" || self.report.curve.is_empty() {
            self.report.curve.clone_from(&result.curve);
            self.report.reliability.clone_from(&result.reliability);
            self.report.calibrated.clone_from(&result.calibrated);
            self.report.breakdown = Some(result.breakdown.clone());
            self.report.confusion.clone_from(&result.confusion);
        }
        self.scores.insert(name, result);
        Ok(())
    }

    /// Recall of the ranker by k on the gold facts of dev and on the distant labels (with their
    /// truth, where it is known), and examples of what it dropped.
    fn add_ranker(&mut self, scored: &RunData) -> Result<()> {
        if let Some(folder) = scored.shards_of(Role::Dev) {
            let dev = DocumentStore::open(&folder, StoreOptions::default())?;
            self.report.ranker_gold = recall_of_gold(self.dsdocre()?, &dev);
        }
        let Some(folder) = scored.shards_of(Role::Distant) else { return Ok(()) };
        let store = DocumentStore::open(
            &folder,
            StoreOptions { with_words: true, ..self.run.recipe.data.store_options() },
        )?;
        let truth = self.data.truth.as_deref().map(Truth::load).transpose()?;
        let ranked = |row| ranked_document(&store.get(row), truth.as_ref());
        let dsdocre = self.dsdocre()?;
        self.report.ranker = recall_at((0..store.len()).map(ranked), &keeps_in_reports(dsdocre));
        let source =
            LedgerSource { store: &store, settings: dsdocre, rules: None, truth: truth.as_ref() };
        self.report.relation_labels =
            write_ledger(&source, &self.run.folder.path().join(run_files::LABELS))?.relations;
        self.report.dropped = dropped(dsdocre.k_pretrain(), &store, truth.as_ref());
        Ok(())
    }

    /// The ledger of the documents that a teacher has judged, where no ranker has given one.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn add_taught(&mut self, taught: &Path) -> Result<()> {
        if !self.report.relation_labels.is_empty() {
            return Ok(());
        }
        let output = self.run.folder.path().join(run_files::LABELS);
        self.report.relation_labels = self.run.session.world.on_root(|| {
            let store = DocumentStore::open(taught, self.run.recipe.data.store_options())?;
            let truth = self.data.truth.as_deref().map(Truth::load).transpose()?;
            let rules = rules_of(&store, &self.run.recipe.distant)?;
            let source = LedgerSource {
                store: &store,
                settings: &self.dsdocre()?.without_ranker(),
                rules: rules.as_ref(),
                truth: truth.as_ref(),
            };
            Ok(write_ledger(&source, &output)?.relations)
        })?;
        Ok(())
    }

    fn dsdocre(&self) -> Result<&'a DsdocreSettings> {
        self.run.recipe.settings_of()
    }

    /// Writes `scores.json` and `report.html` and prints the table, on rank 0.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(mut self) -> Result<()> {
        self.run.session.world.on_root(|| self.write())
    }

    fn write(&mut self) -> Result<()> {
        let (session, folder) = (self.run.session, self.run.folder.path());
        let _section = session.world.watchdog().unbounded_section("writing scores and report");
        write_whole(&folder.join(run_files::SCORES), &to_pretty_json(&self.scores)?)?;
        self.add_run_facts()?;
        let report = folder.join(run_files::REPORT);
        write_whole(&folder.join("report.json"), &to_json(&self.report)?)?;
        write_report(&report, &self.report)?;
        match writeln!(std::io::stdout().lock(), "{}", self.table()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(error.into());
            }
            _ => {}
        }
        for (row, checkpoint) in &self.best {
            say(format!("best checkpoint of {row}: {}", checkpoint.display()));
        }
        say(format!("report: {}", report.display()));
        Ok(())
    }

    fn table(&self) -> String {
        let mut text =
            format!("{:<18}{:>8}{:>9}{:>9}{:>9}{:>9}", "", "split", "F1", "Ign F1", "P", "R");
        for row in &self.report.scores {
            let ign = row.ign_f1.map_or_else(String::new, |f1| format!("{:.2}", 100.0 * f1));
            let (f1, p, r) = (100.0 * row.f1, 100.0 * row.precision, 100.0 * row.recall);
            text +=
                &format!("\n{:<18}{:>8}{f1:>9.2}{ign:>9}{p:>9.2}{r:>9.2}", row.variant, row.split);
        }
        let usual = |at: &&RecallAt| at.keep == KeptPairs::times(2);
        if let Some(at) = self.report.ranker_gold.iter().find(usual) {
            text += &format!(
                "\nranker keeps {:.1} % of the gold facts of dev at k = {}",
                100.0 * at.labels.share,
                at.k()
            );
        }
        for at in &self.report.ranker {
            if let (Some(right), Some(wrong)) = (&at.true_labels, &at.false_labels) {
                let (right, wrong) = (100.0 * right.share, 100.0 * wrong.share);
                text += &format!(
                    "\nranker keeps {right:.1} % of the true and {wrong:.1} % of the false distant \
                     labels at k = {}",
                    at.k()
                );
            }
        }
        text
    }

    fn add_run_facts(&mut self) -> Result<()> {
        let ActiveRun { recipe, folder, session, .. } = self.run;
        self.report.title.clone_from(&recipe.name);
        let train = OpenShards::open(&self.data.training(&recipe.data)?, recipe.data.memory())?;
        let documents =
            TrainingDocuments::new(&train.sources(), recipe.seed, recipe.finetune.batch)?;
        let relations = train.first().relations().iter().map(|relation| relation.id.as_str());
        if recipe.data.corpus(relations) == CorpusName::Docred {
            self.report.reference = published_results(&recipe.settings()?.info());
        }
        self.report.summary = format!(
            "{}, profile {}, encoder {}, seed {}",
            recipe.system,
            format!("{:?}", recipe.profile).to_lowercase(),
            recipe.encoder.name,
            recipe.seed
        );
        let lines = read_metrics(&MetricsWriter::path(folder.path()))?;
        let mut curves: BTreeMap<(String, String), Vec<(f64, f64)>> = BTreeMap::new();
        let mut stages: Vec<StageTime> = Vec::new();
        for line in &lines {
            let mut push = |task: &str, value: f64| {
                curves
                    .entry((line.stage.clone(), task.into()))
                    .or_default()
                    .push((line.step as f64, value));
            };
            line.tasks().for_each(|(task, value)| push(task, value));
            if let Some(loss) = line.loss {
                push("", loss);
            }
            if stages.last().is_none_or(|stage| stage.stage != line.stage) {
                stages.push(StageTime { stage: line.stage.clone(), ..StageTime::default() });
            }
        }
        self.report.losses = curves
            .into_iter()
            .map(|((stage, task), points)| LossCurve { stage, task, points: thin(&points) })
            .collect();
        for stage in &mut stages {
            if let Some(checkpoint) = Checkpoint::latest(&folder.checkpoints(&stage.stage))? {
                let state = checkpoint.trainer()?;
                stage.seconds = state.seconds;
                stage.steps = Some(state.step);
            }
            let rates: Vec<f64> = lines
                .iter()
                .filter(|line| line.stage == stage.stage)
                .filter_map(|line| line.documents_per_s)
                .collect();
            stage.documents_per_s =
                (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64);
        }
        self.report.times = stages;
        self.report.run = vec![
            NamedValue::new("version", env!("CARGO_PKG_VERSION")),
            NamedValue::new("libtorch", env!("DOCRE_LIBTORCH")),
            NamedValue::new("ranks", session.world.size()),
            NamedValue::new("device", format!("{:?}", session.device)),
            NamedValue::new("seed", recipe.seed),
            NamedValue::new("trained on", &documents),
        ];
        self.report.recipe = recipe
            .to_toml()?
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(key, value)| NamedValue::new(key, value))
            .collect();
        Ok(())
    }
}

/// Dev F1 by epoch of the stage of a checkpoint, after that checkpoint too.
fn whole_curve(best: &Checkpoint) -> Result<Vec<(f64, f64)>> {
    let newest = best.path().parent().map(Checkpoint::latest).transpose()?.flatten();
    Ok(newest.as_ref().unwrap_or(best).trainer()?.curve)
}

/// The k of the report's tables: the usual ones, and that of pre-training.
fn keeps_in_reports(settings: &DsdocreSettings) -> Vec<KeptPairs> {
    let mut keeps = KEPT_IN_REPORTS.to_vec();
    let own = settings.k_pretrain().map(KeptPairs::fixed);
    keeps.extend(own.filter(|k| !keeps.contains(k)));
    keeps
}

/// Recall by k of the gold facts of a store; empty where no ranker has scored it.
fn recall_of_gold(settings: &DsdocreSettings, store: &DocumentStore) -> Vec<RecallAt> {
    if store.manifest().scored.is_none() {
        return Vec::new();
    }
    let ranked = (0..store.len()).map(|row| ranked_document(&store.get(row), None));
    recall_at(ranked, &keeps_in_reports(settings))
}

/// A document with its ranking; one that was not ranked has no facts.
fn ranked_document(document: &TokenizedDocument, truth: Option<&Truth>) -> RankedDocument {
    // Annotated documents that take part in pre-training are not ranked.
    let is_ranked = document.labelled && document.kept.is_some();
    let labelled = if is_ranked { document.facts.as_slice() } else { &[] };
    let facts = labelled.iter().enumerate().map(|(index, fact)| RankedFact {
        head: fact.head as usize,
        tail: fact.tail as usize,
        truth: truth.and_then(|truth| truth.of(&document.title, index)),
    });
    let pairs = document.kept.iter().flatten();
    RankedDocument {
        entities: document.entities.len(),
        ranking: pairs.map(|pair| (pair.head as usize, pair.tail as usize)).collect(),
        facts: facts.collect(),
    }
}

/// Labels outside the ranker's best k, spread over the corpus.
fn dropped(k: Option<usize>, store: &DocumentStore, truth: Option<&Truth>) -> Vec<DroppedLabel> {
    let Some(k) = k else { return Vec::new() };
    let first_of = |document: &TokenizedDocument| {
        let RankedDocument { ranking, facts, .. } = ranked_document(document, truth);
        let ranked = facts.into_iter().map(|fact| {
            let place = ranking.iter().position(|&pair| pair == (fact.head, fact.tail));
            (fact, place)
        });
        let mut dropped = ranked.filter(|(_, place)| place.is_none_or(|place| place >= k));
        dropped.next()
    };
    let rows = RowSet::of(store.len(), |row| first_of(&store.get(row)).is_some());
    let stride = rows.len().div_ceil(DROPPED_EXAMPLES).max(1);
    let example = |row| {
        let document = store.get(row);
        let (fact, place) = first_of(&document)?;
        let pair = (fact.head as u32, fact.tail as u32);
        let label = document.facts.iter().find(|label| (label.head, label.tail) == pair)?;
        let relation = store.relations().get(label.relation as usize);
        let kept = document.kept.as_ref()?;
        Some(DroppedLabel {
            title: document.title.clone(),
            text: sentences_of_pair(&document_of(store, row), fact.head, fact.tail),
            relation: relation.map_or_else(String::new, |relation| relation.name.clone()),
            score: place.map(|place| f64::from(kept[place].score)),
            rank: place.map(|place| place + 1),
            pairs: document.num_pairs(),
            truth: fact.truth,
        })
    };
    rows.iter().step_by(stride).filter_map(example).collect()
}

/// Means over stretches, so that a long run draws as fast as a short one.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stride = points.len().div_ceil(CURVE_POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    points.chunks(stride).map(mean).collect()
}
