//! The recipe: what the user wrote in TOML, checked and completed into the plan that the stages
//! follow.
//!
//! A recipe is laid over the defaults of its profile (`fixed`, `paper` or `code`), `--set
//! key=value` is laid over the recipe, and the result is read into typed structs. Unknown keys are
//! answered with the nearest known one. Not for: opening the files that a recipe names.

mod data;
mod encoder;
mod overlay;
mod schema;

use std::path::{Path, PathBuf};

pub use data::{DataPlan, LabelPlan, SplitPlan, SynthPlan};
pub use encoder::EncoderPlan;
pub use schema::{Choice, choices, described_keys, recipe_schema};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::atlop::AtlopSettings;
use crate::systems::baselines::{BaselineSettings, Network};
use crate::systems::docre_ii::DocreIiSettings;
use crate::systems::dsdocre::DsdocreSettings;
use crate::systems::evidence::EvidenceSettings;
use crate::systems::glre::{Corpus, GlreSettings};
use crate::systems::hin::HinSettings;
use crate::systems::{
    Profile, Settings, finetune_schedule, glre_schedule, inference_schedule, pretrain_schedule,
    rank_schedule,
};
use crate::train::Schedule;
use crate::{Error, Result};

/// The whole pipeline, resolved and complete: written to the run folder as `recipe.toml`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Recipe {
    /// A name for people and for the default run folder.
    pub name: String,
    /// Which published reading of DSDocRE the defaults come from.
    pub profile: Profile,
    /// The seed of every random choice.
    pub seed: u64,
    /// The system that is fine-tuned.
    pub system: String,
    /// Which rows of the results table to produce.
    pub variants: Vec<Variant>,
    /// Threads a rank; 0 divides the machine's cores among the ranks of the host.
    pub threads: usize,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Add gradients in one order, so that weights have the same bits for every number of ranks; on
    /// the CPU only.
    pub deterministic: bool,
    /// Seconds without progress after which a rank counts as hung (the first step, and steps that
    /// are long by nature, get more).
    pub hang_limit_s: u64,
    /// URL of a second place for checkpoints: `file:///folder`, or a bucket of an object store,
    /// such as `s3://bucket/prefix` (feature `cloud`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_mirror: Option<String>,
    /// Where documents come from.
    pub data: DataPlan,
    /// The text encoder and its start.
    pub encoder: EncoderPlan,
    /// DSDocRE's settings (docs/systems.md, "D. DSDocRE").
    pub dsdocre: DsdocreSettings,
    /// ATLOP's settings.
    pub atlop: AtlopSettings,
    /// DocRE-II's settings.
    #[serde(rename = "docre-ii")]
    pub docre_ii: DocreIiSettings,
    /// HIN's settings.
    pub hin: HinSettings,
    /// GLRE's settings.
    pub glre: GlreSettings,
    /// Settings of the DocRED baselines, BERT-RE and BERT-TS; the defaults follow the system.
    pub baseline: BaselineSettings,
    /// Settings of LSTM-SP, the evidence predictor.
    #[serde(rename = "lstm-sp")]
    pub lstm_sp: EvidenceSettings,
    /// Stage 1: the pre-denoising ranker.
    pub rank: Schedule,
    /// Stage 2: pre-training on distant supervision.
    pub pretrain: Schedule,
    /// Stage 3: fine-tuning on human annotation.
    pub finetune: Schedule,
    /// DocRE-II's second stage: the inference module over the fine-tuned base.
    pub inference: Schedule,
}

/// The corpus that GLRE's defaults are for; a wrong one is told when the table is read.
fn corpus_of(user: &toml::Table) -> Corpus {
    let named = user.get("glre").and_then(|glre| glre.get("corpus"));
    named.and_then(|corpus| corpus.clone().try_into().ok()).unwrap_or_default()
}

/// A row of the paper's results table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Fine-tuning alone: no ranker, no pre-training ("BERT").
    Baseline,
    /// Ranker and fine-tuning ("BERT+D").
    Denoised,
    /// Ranker, pre-training and fine-tuning ("BERT+D+P").
    Pretrained,
}

impl Variant {
    /// The rows that a system is run for unless the recipe says otherwise.
    fn of_system(system: &str) -> Vec<Self> {
        if system == "dsdocre" {
            vec![Self::Baseline, Self::Denoised, Self::Pretrained]
        } else {
            vec![Self::Baseline]
        }
    }

    /// The name used in folders and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Denoised => "denoised",
            Self::Pretrained => "pretrained",
        }
    }

    /// The row's label in the paper.
    pub fn label(self) -> &'static str {
        match self {
            Self::Baseline => "no pre-training",
            Self::Denoised => "+D",
            Self::Pretrained => "+D+P",
        }
    }
}

/// Keys of the top level that change no result.
const FREE: [&str; 4] = ["name", "hang_limit_s", "threads", "checkpoint_mirror"];

/// Keys of stages that change no result beyond rounding.
const FREE_IN_STAGES: [&str; 7] = [
    "tokens_per_micro_batch",
    "checkpoint_steps",
    "keep_checkpoints",
    "keep_every_steps",
    "compare_ranks_steps",
    "non_finite",
    "non_finite_limit",
];

impl Recipe {
    /// Reads a recipe file and lays `settings` (`key=value`) over it. Paths inside are taken
    /// relative to the current folder.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the file, the key and, for an unknown key, the nearest known one.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self> {
        let text = fs_err::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::recipe(format!("there is no recipe at {}", path.display()))
                    .with_hint("the built-in one is jobs/quickstart.toml")
            }
            std::io::ErrorKind::InvalidData => {
                Error::recipe(format!("{} is no text in UTF-8", path.display()))
            }
            _ => Error::from(error),
        })?;
        Self::parse(&text, &path.display().to_string(), settings)
    }

    /// As [`Self::load`], from text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, origin: &str, settings: &[String]) -> Result<Self> {
        let mut user: toml::Table = toml::from_str(text).map_err(|error| {
            Error::recipe(format!("{origin}: {}", error.to_string().trim_end()))
        })?;
        overlay::apply_settings(&mut user, settings)?;
        let profile = overlay::profile_of(&user, origin)?;
        let system =
            user.get("system").and_then(toml::Value::as_str).unwrap_or("dsdocre").to_owned();
        let mut defaults = Self {
            glre: GlreSettings::on(corpus_of(&user), profile),
            ..Self::defaults(profile, &system)
        };
        if system == "glre" {
            defaults.finetune = glre_schedule(defaults.glre.corpus);
        }
        let mut table = overlay::table_of(&defaults)?;
        overlay::check_keys(&user, origin)?;
        overlay::merge(&mut table, user);
        let mut recipe: Self =
            table.try_into().map_err(|error| overlay::wrong_value(&error, origin))?;
        for plan in
            [&mut recipe.rank, &mut recipe.pretrain, &mut recipe.finetune, &mut recipe.inference]
        {
            plan.deterministic = recipe.deterministic;
        }
        recipe.check()?;
        Ok(recipe)
    }

    /// The defaults of a profile, with the schedule of the system that is fine-tuned.
    pub fn defaults(profile: Profile, system: &str) -> Self {
        Self {
            name: "run".into(),
            profile,
            seed: 1,
            system: system.to_owned(),
            variants: Variant::of_system(system),
            threads: 0,
            device: "auto".into(),
            deterministic: false,
            hang_limit_s: 60,
            checkpoint_mirror: None,
            data: DataPlan::default(),
            encoder: EncoderPlan::default(),
            dsdocre: DsdocreSettings::of(profile),
            atlop: AtlopSettings::of(profile),
            docre_ii: DocreIiSettings::of(profile),
            hin: HinSettings::of(profile),
            glre: GlreSettings::of(profile),
            baseline: match Settings::of(system, profile) {
                Ok(Settings::Baseline(settings) | Settings::TwoStep(settings)) => settings,
                _ => BaselineSettings::of(Network::default(), profile),
            },
            lstm_sp: EvidenceSettings::of(profile),
            rank: rank_schedule(),
            pretrain: pretrain_schedule(),
            finetune: finetune_schedule(system, profile),
            inference: inference_schedule(profile),
        }
    }

    /// The system that is fine-tuned, with its settings.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a system that there is not.
    pub fn settings(&self) -> Result<Settings> {
        match self.system.as_str() {
            "dsdocre" => Ok(Settings::Dsdocre(Box::new(self.dsdocre.clone()))),
            "atlop" => Ok(Settings::Atlop(self.atlop.clone())),
            "docre-ii" => Ok(Settings::DocreIi(Box::new(self.docre_ii.clone()))),
            "hin" => Ok(Settings::Hin(Box::new(self.hin.clone()))),
            "glre" => Ok(Settings::Glre(Box::new(self.glre.clone()))),
            "bert-ts" => Ok(Settings::TwoStep(self.baseline.clone())),
            "cnn" | "lstm" | "bilstm" | "context-aware" | "bert-re" => {
                Ok(Settings::Baseline(self.baseline.clone()))
            }
            "lstm-sp" => Ok(Settings::Evidence(self.lstm_sp.clone())),
            other => Settings::of(other, self.profile),
        }
    }

    fn check(&self) -> Result<()> {
        self.settings()?;
        if self.variants.is_empty() {
            return Err(Error::recipe("variants is empty")
                .with_hint("any of \"baseline\", \"denoised\", \"pretrained\""));
        }
        if self.system != "dsdocre" && self.variants.contains(&Variant::Denoised) {
            let message = format!(
                "variants holds \"denoised\", but system `{}` does not choose pairs by a ranker",
                self.system
            );
            return Err(Error::recipe(message).with_hint(
                "\"baseline\" and \"pretrained\" (DSDocRE's \
                    pre-trained encoder) are for every system",
            ));
        }
        if self.hang_limit_s == 0 {
            return Err(Error::recipe("hang_limit_s = 0, but it must be at least 1"));
        }
        self.data.check()?;
        self.encoder.check()?;
        self.dsdocre.check()?;
        self.rank.check("rank")?;
        self.pretrain.check("pretrain")?;
        self.finetune.check("finetune")?;
        self.inference.check("inference")
    }

    /// The first key in which another recipe asks for another result, with both values; keys that
    /// change no result beyond rounding are passed over, so that a run can go on with other ones.
    ///
    /// # Errors
    /// Never for recipes that were read.
    pub fn difference(&self, other: &Self) -> Result<Option<(String, String, String)>> {
        let (own, others) = (
            overlay::keys_of(&overlay::table_of(self)?),
            overlay::keys_of(&overlay::table_of(other)?),
        );
        let names: std::collections::BTreeSet<&String> = own.keys().chain(others.keys()).collect();
        let free = |name: &str| {
            FREE.contains(&name)
                || FREE_IN_STAGES.contains(&name.rsplit('.').next().unwrap_or_default())
        };
        let differs =
            names.into_iter().find(|name| !free(name) && own.get(*name) != others.get(*name));
        let told = |value: Option<&String>| value.cloned().unwrap_or_else(|| "absent".into());
        Ok(differs.map(|name| (name.clone(), told(own.get(name)), told(others.get(name)))))
    }

    /// Whether a recipe asks for the same results as this one; a text that is not a recipe does
    /// not.
    pub fn asks_for_the_same(&self, text: &str) -> bool {
        Self::parse(text, "recipe.toml", &[])
            .is_ok_and(|other| matches!(other.difference(self), Ok(None)))
    }

    /// The complete recipe as TOML.
    ///
    /// # Errors
    /// Never for a recipe that was read; a bug otherwise.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self)
            .map_err(|error| Error::Bug(format!("the recipe cannot be written: {error}")))
    }

    /// The run folder used when none is named.
    pub fn default_run_dir(&self) -> PathBuf {
        Path::new("runs").join(&self.name)
    }
}
