//! Benchmarks of the stages: documents and tokens a second, share of the machine's matmul rate,
//! peak memory, all in one call.

mod all_reduce;
mod encoders;
mod entrant;
mod selftest;
mod systems;
mod table;
mod trivial;

pub use all_reduce::all_reduce_rates;
pub use encoders::EncodersBench;
pub use entrant::enter;
pub use selftest::{SelftestOptions, give_up, selftest};
pub use systems::{SystemsBench, compare_systems, not_learnt};

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::corpus::formats::{ReadOptions, load_relations};
use crate::corpus::synth::{WorldOptions, write_world};
use crate::corpus::{Document, Fact, Format};
use crate::encoders::encoder_flops;
use crate::eval::{Prediction, write_predictions};
use crate::pipeline::{
    EvaluateTask, InputFile, Loaded, LoadedModel, LoadedRanker, NewModel, PREDICT_TOKENS,
    PrepareJob, RuledDocuments, Session, evaluate, relations_in, sampler,
};
use crate::questions::cost::{finetuning_head_flops, pretraining_head_flops, ranking_flops};
use crate::recipe::Recipe;
use crate::sampling::KeptPairs;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::{DsdocreSettings, ModelKind, PretrainSource, Pretrainer};
use crate::systems::{Extraction, ExtractionSource, Model, TrainingSource};
use crate::text::TokenizedDocument;
use crate::torch::precision::{Precision, matmul_rate};
use crate::torch::{cuda, device};
use crate::train::{
    BatchSource, Objective, PrecisionChoice, RunFolder, StageContext, Trainer, TrainerSettings,
    TrainerState,
};
use crate::{Error, Result};

/// What to measure, as the flags of `bench` say it.
#[derive(Debug, Args)]
pub struct BenchOptions {
    /// Stages to measure: prepare, score, pretrain, finetune, evaluate [default: all]; or
    /// `systems`, a table of all systems on the same documents, or `encoders`, tokens a second of
    /// encoders beside the first one, or `all-reduce`, sums over the ranks of a launcher
    pub names: Vec<String>,
    /// Encoder preset; with `systems` also SYSTEM=E for one of them; several with `encoders`
    #[arg(long = "encoder", value_name = "E", value_delimiter = ',', default_value = "tiny")]
    pub encoders: Vec<String>,
    /// Generated documents [default: 1000; with `systems` 400, with --overfit 40]
    #[arg(long, value_name = "N")]
    pub documents: Option<usize>,
    /// Measure on this file in DocRED's format instead
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Tokenizer for --input
    #[arg(long, value_name = "DIR-or-vocab", requires = "input")]
    pub tokenizer: Option<PathBuf>,
    /// Precision: fp32, bf16 or auto
    #[arg(long, value_name = "P", default_value = "auto")]
    pub precision: PrecisionChoice,
    /// Round the factors of 32-bit products to TF32 (on a GPU)
    #[arg(long)]
    pub tf32: bool,
}

/// One measured stage.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// The stage.
    pub name: String,
    /// Documents a second.
    pub documents_per_s: f64,
    /// Real tokens a second; absent where none are read.
    pub tokens_per_s: Option<f64>,
    /// Milliseconds of a training step; absent elsewhere.
    pub step_ms: Option<f64>,
    /// The arithmetic of encoder and heads a second, without what is computed twice, as a share of
    /// the measured rate of products; absent where there is none.
    pub matmul_share: Option<f64>,
    /// The same as a share of the peak that the manufacturer states; absent where none is known.
    pub peak_share: Option<f64>,
    /// Peak memory of the process so far, in MB.
    pub peak_memory_mb: f64,
}

/// All rows with the machine's rate.
#[derive(Clone, Debug, Serialize)]
pub struct BenchTable {
    /// The device.
    pub device: String,
    /// Encoder.
    pub encoder: String,
    /// Precision.
    pub precision: String,
    /// Floating-point operations a second of a large matrix product, in GFLOP/s, measured in this
    /// call.
    pub matmul_gflops: f64,
    /// The stated peak of the device for products of this precision, in TFLOP/s.
    pub peak_tflops: Option<f64>,
    /// The rows.
    pub rows: Vec<BenchRow>,
}

/// Peaks of products of dense matrices in bfloat16, in TFLOP/s, as the data sheets of these GPUs
/// state them (SXM).
const PEAKS: [(&str, f64); 3] = [("H100", 989.0), ("H200", 989.0), ("A100", 312.0)];

/// The stated peak of a device, by what [`device::described`] calls it.
fn peak_tflops(device: &str, precision: Precision) -> Option<f64> {
    let known = PEAKS.iter().find(|(name, _)| device.contains(name))?;
    (precision == Precision::Bf16).then_some(known.1)
}

impl fmt::Display for BenchTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "encoder {}, {}, on {}, matmul rate {:.0} GFLOP/s",
            self.encoder, self.precision, self.device, self.matmul_gflops
        )?;
        write!(
            f,
            "{:<12}{:>14}{:>14}{:>10}{:>16}{:>9}{:>12}",
            "", "documents/s", "tokens/s", "step ms", "of matmul rate", "of peak", "peak MB"
        )?;
        for row in &self.rows {
            let percent = |share: Option<f64>| {
                share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share))
            };
            let (share, of_peak) = (percent(row.matmul_share), percent(row.peak_share));
            let tokens = row.tokens_per_s.map_or_else(String::new, |tokens| format!("{tokens:.0}"));
            let step = row.step_ms.map_or_else(String::new, |ms| format!("{ms:.1}"));
            let (name, documents, peak) = (&row.name, row.documents_per_s, row.peak_memory_mb);
            write!(f, "\n{name:<12}{documents:>14.1}{tokens:>14}{step:>10}")?;
            write!(f, "{share:>16}{of_peak:>9}{peak:>12.0}")?;
        }
        Ok(())
    }
}

const ALL: [&str; 5] = ["prepare", "score", "pretrain", "finetune", "evaluate"];
/// Steps before the clock starts, and steps that are measured.
const WARM_UP: u64 = 2;
const STEPS: u64 = 12;
/// Times that the documents are scored.
const EVALUATIONS: u32 = 5;
/// The generated corpus and the documents of it that are measured.
const WORLD: &str = "world";
const TRAIN: &str = "train_distant.json";

/// Tables of the recipe that decide what stages cost.
const MEASURED_TABLES: [&str; 4] = ["encoder", "pretrain", "finetune", "dsdocre"];

/// Refuses settings that would change nothing here.
fn check_settings(settings: &[String]) -> Result<()> {
    for setting in settings {
        let key = setting.split('=').next().unwrap_or_default().trim();
        let (table, rest) = key.split_once('.').unwrap_or((key, ""));
        if rest == "precision" {
            return Err(Error::recipe(format!("--set {setting}: the flag --precision decides"))
                .with_hint("use --precision instead"));
        }
        if !MEASURED_TABLES.contains(&table) || rest.is_empty() {
            let message = format!("--set {setting} changes nothing that this measures");
            return Err(Error::recipe(message)
                .with_hint(format!("set keys of the tables {}", MEASURED_TABLES.join(", "))));
        }
    }
    Ok(())
}

/// Measures the stages, with `settings` of the recipe (`key=value`).
///
/// # Errors
/// An unknown name; a setting that means nothing here; what a stage meets.
pub fn bench(options: &BenchOptions, settings: &[String], session: &Session) -> Result<BenchTable> {
    if let Some(unknown) = options.names.iter().find(|name| !ALL.contains(&name.as_str())) {
        return Err(Error::recipe(format!("there is no benchmark `{unknown}`"))
            .with_hint(format!("one of {}", ALL.join(", "))));
    }
    check_settings(settings)?;
    let precision = session.precision(options.precision);
    if session.device.is_cuda() {
        cuda::allow_tf32(options.tf32)?;
    }
    let (on, rate) = (device::described(session.device), matmul_rate(session.device, precision)?);
    let peak_tflops = peak_tflops(&on, precision);
    let folder = tempfile::tempdir()?;
    let mut bench = Bench {
        options,
        session,
        precision,
        rate,
        peak: peak_tflops.map(|peak| peak * 1e12),
        recipe: Recipe::parse("", "bench", settings)?,
        rows: Vec::new(),
    };
    let encoder = options.encoders.join(",");
    bench.recipe.encoder.name.clone_from(&encoder);
    bench.recipe.encoder.truncate = true;
    let store = bench.prepare(folder.path())?;
    for name in ALL.iter().skip(1).filter(|name| {
        options.names.is_empty() || options.names.iter().any(|asked| asked == **name)
    }) {
        match *name {
            "score" => bench.score(&store)?,
            "pretrain" => bench.pretrain(&store, folder.path())?,
            "finetune" => bench.finetune(&store, folder.path())?,
            _ => bench.evaluate(folder.path())?,
        }
    }
    Ok(BenchTable {
        device: on,
        encoder,
        precision: format!("{precision:?}"),
        matmul_gflops: rate / 1e9,
        peak_tflops,
        rows: bench.rows,
    })
}

/// Mean number of entities of the documents.
fn mean_entities(store: &DocumentStore) -> f64 {
    let entities = (0..store.len()).map(|row| store.get(row).entities.len());
    entities.sum::<usize>() as f64 / store.len().max(1) as f64
}

/// Width of the states that heads read.
fn width<M: Model>(loaded: &Loaded<M>) -> f64 {
    loaded.model.encoder_config()["hidden_size"].as_f64().unwrap_or(0.0)
}

struct Bench<'a> {
    options: &'a BenchOptions,
    session: &'a Session,
    precision: Precision,
    rate: f64,
    peak: Option<f64>,
    recipe: Recipe,
    rows: Vec<BenchRow>,
}

impl Bench<'_> {
    /// Records a row; `flops` are those of encoder and heads, where there are any.
    fn record(
        &mut self,
        name: &str,
        documents: f64,
        tokens: Option<f64>,
        flops: Option<f64>,
        seconds: f64,
    ) -> Result<()> {
        self.rows.push(BenchRow {
            name: name.into(),
            documents_per_s: documents / seconds,
            tokens_per_s: tokens.map(|tokens| tokens / seconds),
            step_ms: None,
            matmul_share: flops.map(|flops| flops / seconds / self.rate),
            peak_share: flops.zip(self.peak).map(|(flops, peak)| flops / seconds / peak),
            peak_memory_mb: device::peak_memory_bytes(self.session.device)? as f64 / 1e6,
        });
        Ok(())
    }

    fn prepare(&mut self, folder: &Path) -> Result<DocumentStore> {
        let world = folder.join(WORLD);
        let (input, tokenizer, relations) = match (&self.options.input, &self.options.tokenizer) {
            (Some(input), Some(tokenizer)) => {
                let input = InputFile::docred(input);
                let relations =
                    relations_in(std::slice::from_ref(&input), &ReadOptions::default())?;
                (input, tokenizer.clone(), relations)
            }
            (Some(_), None) => return Err(Error::recipe("--input needs --tokenizer")),
            _ => {
                let (distant, few) = (self.options.documents.unwrap_or(1000), 10);
                let small = WorldOptions { human: few, dev: few, test: few, ..Default::default() };
                write_world(&WorldOptions { distant, ..small }, &world)?;
                (
                    InputFile::docred(world.join(TRAIN)),
                    world.join("tokenizer"),
                    load_relations(&world.join("rel_info.json"))?,
                )
            }
        };
        let output = folder.join("shards");
        let started = Instant::now();
        let read = ReadOptions::default();
        PrepareJob::new(&[input], &read, &output, &tokenizer, &relations).run()?;
        let seconds = started.elapsed().as_secs_f64();
        let store = DocumentStore::open(&output, StoreOptions::default())?;
        let tokens: usize = (0..store.len()).map(|row| store.get(row).pieces.len()).sum();
        self.record("prepare", store.len() as f64, Some(tokens as f64), None, seconds)?;
        Ok(store)
    }

    fn new_model(&self) -> NewModel<'_> {
        NewModel {
            encoder: &self.recipe.encoder,
            start: None,
            seed: 1,
            device: self.session.device,
            speaks: false,
        }
    }

    fn model(&self, store: &DocumentStore, kind: ModelKind) -> Result<LoadedModel> {
        self.new_model().dsdocre(store, kind, self.recipe.settings_of()?)
    }

    /// Forward FLOPs of the encoder for documents of these lengths.
    fn encoder_flops<M: Model>(
        loaded: &Loaded<M>,
        lengths: impl Iterator<Item = f64>,
    ) -> Option<f64> {
        let config = loaded.model.encoder_config();
        lengths.map(|length| encoder_flops(&config, length)).sum()
    }

    fn score(&mut self, store: &DocumentStore) -> Result<()> {
        let loaded = self.model(store, ModelKind::Ranker)?;
        let documents: Vec<_> = (0..store.len()).map(|row| store.get(row)).collect();
        let references: Vec<&TokenizedDocument> = documents.iter().map(AsRef::as_ref).collect();
        let views = loaded.views(0)?;
        let lengths: Vec<f64> = references
            .iter()
            .map(|document| Ok(views.view(document, &Default::default())?.ids.len() as f64))
            .collect::<Result<_>>()?;
        let (width, entities) = (width(&loaded), mean_entities(store));
        let heads = ranking_flops(entities, width) * references.len() as f64;
        let flops =
            Self::encoder_flops(&loaded, lengths.iter().copied()).map(|flops| flops + heads);
        let ranking = LoadedRanker::new(loaded, self.precision)?;
        let warm: Vec<&TokenizedDocument> = references.iter().copied().take(32).collect();
        ranking.keep(&warm, KeptPairs::fixed(60), PREDICT_TOKENS, &mut |_| Ok(()))?;
        let started = Instant::now();
        ranking.keep(&references, KeptPairs::fixed(60), PREDICT_TOKENS, &mut |_| Ok(()))?;
        self.record(
            "score",
            references.len() as f64,
            Some(lengths.iter().sum()),
            flops,
            started.elapsed().as_secs_f64(),
        )
    }

    fn pretrain(&mut self, store: &DocumentStore, folder: &Path) -> Result<()> {
        let loaded = self.model(store, ModelKind::Pretrainer)?;
        let settings = DsdocreSettings {
            k_pretrain: 0,
            ..self.recipe.settings_of::<DsdocreSettings>()?.clone()
        };
        let batch = self.recipe.pretrain.batch;
        let documents = RuledDocuments::new(store, None);
        let source = PretrainSource {
            store,
            sampler: sampler(&documents, (1, batch), &settings)?,
            views: loaded.views(1)?,
            batch,
            budget: self.recipe.pretrain.token_budget(self.session.device),
            seed: 1,
        };
        let objective = Pretrainer { model: &loaded.model, settings: &settings };
        let heads = pretraining_head_flops(&settings, mean_entities(store), width(&loaded));
        self.train("pretrain", &loaded, heads, (&objective, &source), folder)
    }

    fn finetune(&mut self, store: &DocumentStore, folder: &Path) -> Result<()> {
        let loaded = self.new_model().extractor(
            std::slice::from_ref(store),
            &self.recipe.settings()?,
            false,
        )?;
        let schedule = &self.recipe.finetune;
        let (batch, budget) = (schedule.batch, schedule.token_budget(self.session.device));
        let alone = TrainingSource::alone(store);
        let source = ExtractionSource::new(&*loaded.model, &alone, batch, budget, 1)?;
        let settings = self.recipe.settings_of::<DsdocreSettings>()?;
        let heads = finetuning_head_flops(settings, mean_entities(store), width(&loaded));
        let objective = Extraction(&*loaded.model);
        self.train("finetune", &loaded, heads, (&objective, &source), folder)
    }

    /// From the two files to all scores: two of three facts are found, and as many wrong ones.
    fn evaluate(&mut self, folder: &Path) -> Result<()> {
        let gold = self.options.input.clone().unwrap_or_else(|| folder.join(WORLD).join(TRAIN));
        let documents = Format::DOCRED.read_gold(&gold)?.documents;
        let guess = |document: &Document, fact: &Fact| {
            let (title, r) = (document.title.clone(), fact.relation.clone());
            let right = Prediction {
                title,
                h_idx: fact.head,
                t_idx: fact.tail,
                r,
                evidence: fact.evidence.clone(),
                score: None,
                confidence: None,
            };
            [Prediction { h_idx: fact.tail, t_idx: fact.head, ..right.clone() }, right]
        };
        let facts = documents
            .iter()
            .flat_map(|document| document.facts().iter().map(move |fact| (document, fact)));
        let guesses: Vec<_> = facts
            .enumerate()
            .filter(|(at, _)| at % 3 > 0)
            .flat_map(|(_, (document, fact))| guess(document, fact))
            .collect();
        let predictions = vec![folder.join("predictions.json")];
        write_predictions(&predictions[0], &guesses)?;
        let task = EvaluateTask { gold, predictions, ..EvaluateTask::default() };
        evaluate(&task)?;
        let started = Instant::now();
        for _ in 0..EVALUATIONS {
            evaluate(&task)?;
        }
        self.record(
            "evaluate",
            documents.len() as f64,
            None,
            None,
            (started.elapsed() / EVALUATIONS).as_secs_f64(),
        )
    }

    /// Measures steps whose batches are prepared before the clock starts, as a thread does in
    /// training. `heads`: forward FLOPs of the heads for one document.
    fn train<O, S, M>(
        &mut self,
        name: &str,
        loaded: &Loaded<M>,
        heads: f64,
        (objective, source): (&O, &S),
        folder: &Path,
    ) -> Result<()>
    where
        M: Model,
        O: Objective,
        S: BatchSource<Batch = O::Batch>,
    {
        let run = RunFolder::shared(folder);
        let context = StageContext {
            stage: name,
            world: &self.session.world,
            run: &run,
            signals: &self.session.signals,
        };
        let recipe = &self.recipe;
        let schedule = if name == "pretrain" { &recipe.pretrain } else { &recipe.finetune };
        let settings = TrainerSettings {
            schedule: schedule.clone(),
            total_steps: WARM_UP + STEPS,
            boundary_steps: 0,
            precision: self.precision,
            deterministic: false,
            wire: recipe.communication.precision,
            seed: 1,
        };
        let mut trainer =
            Trainer::new(objective, settings, &self.session.world, TrainerState::default())?;
        let steps = 0..WARM_UP + STEPS;
        let prepared = steps.map(|step| source.prepare(step, context.share()));
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        let (mut documents, mut tokens, mut started) = (0.0, 0.0, Instant::now());
        for (step, prepared) in (0..).zip(prepared) {
            if step == WARM_UP {
                device::finish(self.session.device);
                (documents, tokens, started) = (0.0, 0.0, Instant::now());
            }
            let report = trainer.step(&prepared.into(), &context)?;
            if !report.finite {
                return Err(Error::NonFinite {
                    stage: name.to_owned(),
                    step: step + 1,
                    culprits: String::new(),
                });
            }
            documents += report.documents;
            tokens += report.tokens;
        }
        device::finish(self.session.device);
        let seconds = started.elapsed().as_secs_f64();
        // The mean length stands for all documents of the measured steps; forward and backward are
        // three forward passes.
        let mean = tokens / f64::max(documents, 1.0);
        let flops = Self::encoder_flops(loaded, std::iter::once(mean))
            .map(|encoder| 3.0 * (encoder + heads) * documents);
        self.record(name, documents, Some(tokens), flops, seconds)?;
        if let Some(row) = self.rows.last_mut() {
            row.step_ms = Some(1e3 * seconds / STEPS as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_change_nothing_are_refused() {
        let check = |text: &str| check_settings(&[text.to_owned()]);
        for used in ["pretrain.batch=128", "pretrain.tokens_per_micro_batch=65536"] {
            assert!(check(used).is_ok(), "{used}");
        }
        for (unused, part) in [
            ("seed=3", "changes nothing"),
            ("data.docred=x", "changes nothing"),
            ("pretrain=1", "changes nothing"),
            ("pretrain.precision=fp32", "--precision"),
        ] {
            assert!(check(unused).unwrap_err().to_string().contains(part), "{unused}");
        }
    }

    #[test]
    fn the_stated_peak_is_that_of_bf16_on_a_known_gpu() {
        assert_eq!(peak_tflops("cuda:0 (NVIDIA H200)", Precision::Bf16), Some(989.0));
        assert_eq!(peak_tflops("cuda:0 (NVIDIA H100 80GB HBM3)", Precision::Bf16), Some(989.0));
        assert_eq!(peak_tflops("cuda:0 (NVIDIA H200)", Precision::Fp32), None);
        assert_eq!(peak_tflops("the CPU", Precision::Bf16), None);
    }
}
