//! What any step of a run reads: the order is arithmetic, so past and future steps can be printed
//! alike.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::base::run_files;
use crate::pipeline::{
    OpenShards, Pretraining, Role, RuledDocuments, TrainingShards, rules_of, sampler, stage_of,
    student_stage_of, training_shards,
};
use crate::recipe::Recipe;
use crate::shards::DocumentStore;
use crate::systems::{TrainingDocuments, TrainingItem, Variant};
use crate::{Error, Result};

/// The global batch of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepContents {
    /// The stage.
    pub stage: String,
    /// The step, from 1.
    pub step: u64,
    /// The epoch, from 1; pre-training has none.
    pub epoch: Option<u64>,
    /// What is read, item by item; rank r of W takes the items r, r + W, …
    pub items: Vec<StepItem>,
}

/// An item of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StepItem {
    /// A document.
    Document {
        /// Number of the item in the step.
        item: u64,
        /// The source, where there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Row of the shards.
        row: usize,
        /// Title.
        title: String,
    },
    /// Two documents of pre-training.
    Pair {
        /// Number of the item in the step.
        item: u64,
        /// Rows of the shards.
        rows: [usize; 2],
        /// Titles.
        titles: [String; 2],
        /// Whether they were drawn because they state one fact.
        same_fact: bool,
        /// Instances of relation detection, inside the documents and across.
        detection: usize,
        /// Instances of mention matching.
        mention: usize,
        /// Pairs of relation alignment.
        alignment: usize,
    },
}

impl StepItem {
    /// Titles of the documents that are read.
    pub fn titles(&self) -> &[String] {
        match self {
            Self::Document { title, .. } => std::slice::from_ref(title),
            Self::Pair { titles, .. } => titles,
        }
    }
}

impl fmt::Display for StepContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}", self.step)?;
        if let Some(epoch) = self.epoch {
            write!(f, ", epoch {epoch}")?;
        }
        self.items.iter().try_for_each(|item| write!(f, "\n{item}"))
    }
}

impl fmt::Display for StepItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document { item, source, row, title } => {
                let source = source.iter().map(|name| format!("{name}  ")).collect::<String>();
                write!(f, "{item:>4}  row {row:>8}  {source}{title}")
            }
            Self::Pair {
                item,
                titles: [first, second],
                same_fact,
                detection,
                mention,
                alignment,
                ..
            } => {
                let kind = if *same_fact { "same fact" } else { "random" };
                write!(
                    f,
                    "{item:>4}  {kind:<10} {first} + {second}: {detection} detection, {mention} \
                     mention, {alignment} alignment rows"
                )
            }
        }
    }
}

/// Titles (and, in pre-training, what is asked about them) of the global batches of `steps`, from
/// 1, in a run of the whole pipeline or in the folder `shards`.
///
/// # Errors
/// A folder without the stage's shards; an unknown stage.
pub fn describe_batches(
    recipe: &Recipe,
    run: &Path,
    shards: Option<&Path>,
    stage: &str,
    steps: &[u64],
) -> Result<Vec<StepContents>> {
    let folder = |role: Role, scored: bool| {
        let kind = if scored { run_files::SCORED } else { run_files::SHARDS };
        shards.map_or_else(|| run.join(kind).join(role.name()), Path::to_owned)
    };
    let (memory, options) = (recipe.data.memory(), recipe.data.store_options());
    let open = |role, scored| DocumentStore::open(&folder(role, scored), options);
    let contents =
        |(step, (epoch, items))| StepContents { stage: stage.to_owned(), step, epoch, items };
    if let Some(how) = Pretraining::of_stage(stage) {
        let store = match how {
            Pretraining::Taught => {
                let taught = run.join(run_files::TAUGHT).join(Variant::Baseline.name());
                let folder = shards.map_or(taught, Path::to_owned);
                DocumentStore::open(&folder, options)?
            }
            Pretraining::Denoised | Pretraining::Unranked => {
                open(Role::Distant, how == Pretraining::Denoised)?
            }
        };
        let described = pretrain(recipe, &store, how, steps)?;
        return Ok(steps.iter().copied().zip(described).map(contents).collect());
    }
    let described = match stage {
        "rank" => {
            let human = [TrainingShards::alone(folder(Role::Human, false))];
            epochwise(&OpenShards::open(&human, memory)?, recipe.seed, recipe.rank.batch, steps)?
        }
        other if let Some(taught) = taught_by(other) => {
            let folder = shards
                .map_or_else(|| run.join(run_files::TAUGHT).join(taught.name()), Path::to_owned);
            let train = OpenShards::open(&[TrainingShards::alone(folder)], memory)?;
            let train = train.with_rules(&recipe.distant)?;
            epochwise(&train, recipe.seed, recipe.student.batch, steps)?
        }
        other if other.starts_with("finetune") => {
            // A second stage has a schedule of its own.
            let second = recipe.settings()?.second_stage() && !other.ends_with("-base");
            let refines = Variant::ALL
                .into_iter()
                .any(|variant| variant.is_student() && stage_of(variant) == other);
            let schedule = match (second, refines) {
                (true, _) => &recipe.inference,
                (false, true) => &recipe.refine,
                (false, false) => &recipe.finetune,
            };
            let batch = schedule.batch;
            let train = match shards {
                Some(folder) => vec![TrainingShards::alone(folder)],
                None => trained_on(recipe, run),
            };
            epochwise(&OpenShards::open(&train, memory)?, recipe.seed, batch, steps)?
        }
        other => {
            return Err(Error::recipe(format!("unknown stage `{other}`")).with_hint(
                "one of rank, pretrain, pretrain-unranked, student-distant, finetune; \
                 `inspect RUN` lists those of a run",
            ));
        }
    };
    Ok(steps.iter().copied().zip(described).map(contents).collect())
}

/// Epoch, from 1, and items of a step.
type Described = (Option<u64>, Vec<StepItem>);

/// The variant that teaches the documents of a student's stage.
fn taught_by(stage: &str) -> Option<Variant> {
    let mut students = Variant::ALL.into_iter().filter(|variant| variant.is_student());
    students.find(|&variant| student_stage_of(variant) == stage)?.teacher()
}

/// The shards that fine-tuning of a run trains on.
fn trained_on(recipe: &Recipe, run: &Path) -> Vec<TrainingShards> {
    let folder = run.join(run_files::SHARDS);
    let human = folder.join(Role::Human.name()).join("manifest.json");
    training_shards(&recipe.data, &folder, recipe.data.source.is_empty() || human.exists())
}

fn epochwise(train: &OpenShards, seed: u64, batch: usize, steps: &[u64]) -> Result<Vec<Described>> {
    let documents = TrainingDocuments::new(&train.sources(), seed, batch)?;
    let several = documents.sources().len() > 1;
    let item = |item: TrainingItem| {
        let (source, row) = documents.locate(item.row);
        StepItem::Document {
            item: item.item,
            source: several.then(|| source.name.to_owned()),
            row,
            title: source.store.title(row),
        }
    };
    let step = |step: u64| {
        let epoch = documents.order().epoch(step) + 1;
        (Some(epoch), documents.items(step).into_iter().map(item).collect())
    };
    Ok(steps.iter().map(|from_one| step(from_one - 1)).collect())
}

fn pretrain(
    recipe: &Recipe,
    store: &DocumentStore,
    how: Pretraining,
    steps: &[u64],
) -> Result<Vec<Described>> {
    let settings = how.settings(recipe.settings_of()?);
    let documents = RuledDocuments::new(store, rules_of(store, &recipe.distant)?);
    let sampler = sampler(&documents, (recipe.seed, recipe.pretrain.batch), &settings)?;
    let pair = |step: u64, index| {
        let item = sampler.sample(recipe.seed, step - 1, index);
        StepItem::Pair {
            item: index,
            rows: item.rows,
            titles: item.rows.map(|row| store.title(row)),
            same_fact: item.same_fact,
            detection: item.detection[0].len() + item.detection[1].len(),
            mention: item.mention[0].len() + item.mention[1].len(),
            alignment: item.alignment.iter().flatten().count(),
        }
    };
    Ok(steps
        .iter()
        .map(|&step| {
            (None, (0..recipe.pretrain.batch as u64).map(|index| pair(step, index)).collect())
        })
        .collect())
}
