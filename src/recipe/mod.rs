//! The recipe: what the user wrote in TOML, checked and completed.
//!
//! A recipe is laid over the defaults of its profile (`fixed`, `paper` or `code`), `--set
//! key=value` is laid over the recipe, and the result is read into typed structs. Unknown keys are
//! answered with the nearest known one. Not for: opening the files that a recipe names.

mod built_in;
mod data;
mod encoder;
mod memory;
mod overlay;
mod paths;
mod schema;
mod sources;
mod systems;

use std::path::{Path, PathBuf};

use built_in::built_in;
use paths::Places;

pub use data::{CorpusName, DataSources, SplitSource};
pub use encoder::{EncoderChoice, EncoderInit};
pub use overlay::{check_keys, settings_of_table};
pub use schema::{Choice, choices, described_keys};
pub use sources::{NamedSource, SourceKind};
pub use systems::SystemTables;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::distant::DistantSettings;
use crate::systems::dsdocre::{pretrain_schedule, rank_schedule};
use crate::systems::{Profile, Settings, System, TeacherColumn, Variant, default_system, find};
use crate::train::{CommunicationSettings, Schedule, WirePrecision};
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
    pub data: DataSources,
    /// How gradients travel between ranks.
    pub communication: CommunicationSettings,
    /// Distant documents that a teacher judges.
    pub distant: DistantSettings,
    /// The text encoder and its start.
    pub encoder: EncoderChoice,
    /// The settings of each system, in tables of the top level.
    #[serde(flatten)]
    pub systems: SystemTables,
    /// Stage 1: the pre-denoising ranker.
    pub rank: Schedule,
    /// Stage 2: pre-training on distant supervision.
    pub pretrain: Schedule,
    /// Stage 3: fine-tuning on human annotation.
    pub finetune: Schedule,
    /// A student on documents that a teacher has judged. A key that is not given here is that of
    /// `finetune`, or, for a system that has such a stage of its own, its schedule's.
    pub student: Schedule,
    /// Fine-tuning that goes on from a student, with defaults as `student` has them.
    pub refine: Schedule,
    /// DocRE-II's second stage: the inference module over the fine-tuned base.
    pub inference: Schedule,
    /// What its author should know of how it was read.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// Keys that change no result.
const FREE: [&str; 5] = ["name", "hang_limit_s", "threads", "checkpoint_mirror", "data.disk"];

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

/// Whether a key (dotted) changes no result beyond rounding.
fn is_free(key: &str) -> bool {
    FREE.contains(&key) || FREE_IN_STAGES.contains(&key.rsplit('.').next().unwrap_or_default())
}

/// The JSON schema of a whole recipe, which is also `schemas/recipe.json`.
pub fn recipe_schema() -> serde_json::Value {
    schemars::schema_for!(Recipe).to_value()
}

impl Recipe {
    /// Reads a recipe file and lays `settings` (`key=value`) over it. Paths inside start at its
    /// folder, or at the working directory if they are only there; those of `settings` start at the
    /// working directory. Where there is no file, `quickstart` and `smoke` are inside the program.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the file, the key and, for an unknown key, the nearest known one.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self> {
        use std::io::ErrorKind;
        let text = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error) => match (error.kind(), built_in(path)) {
                (ErrorKind::NotFound, Some(text)) => text.to_owned(),
                (ErrorKind::NotFound, None) => {
                    let message = format!("there is no recipe at {}", path.display());
                    return Err(Error::recipe(message).with_hint(built_in::HINT));
                }
                (ErrorKind::IsADirectory, _) => {
                    let message = format!("{} is a folder, not a recipe", path.display());
                    return Err(Error::recipe(message).with_hint(
                        "name a file; the recipe of a run folder is recipe.toml in it",
                    ));
                }
                (ErrorKind::InvalidData, _) => {
                    return Err(Error::recipe(format!("{} is not valid UTF-8", path.display())));
                }
                _ => return Err(error.into()),
            },
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::read(&text, &path.display().to_string(), folder, settings)
    }

    /// As [`Self::load`], from text, whose paths start at the working directory; `origin` names it
    /// in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, origin: &str, settings: &[String]) -> Result<Self> {
        Self::read(text, origin, Path::new(""), settings)
    }

    fn read(text: &str, origin: &str, folder: &Path, settings: &[String]) -> Result<Self> {
        let mut user: toml::Table = toml::from_str(text).map_err(|error| {
            Error::recipe(format!("{origin}: {}", error.to_string().trim_end()))
        })?;
        let here = Path::new("");
        let elsewhere = Places { folder, otherwise: Some(here) }.resolve(&mut user);
        let mut over = overlay::settings_table(settings)?;
        Places { folder: here, otherwise: None }.resolve(&mut over);
        overlay::merge(&mut user, over);
        let profile = overlay::profile_of(&user, origin)?;
        let system = match user.get("system").and_then(toml::Value::as_str) {
            Some(name) => find(name)?,
            None => default_system(),
        };
        let schema = recipe_schema();
        overlay::check_keys(&user, &schema, "", origin)?;
        let mut defaults = Self::defaults(profile, system, &user)?;
        defaults.follow_finetune(&mut user);
        let systems = std::mem::take(&mut defaults.systems).overlay(&mut user, &schema, origin)?;
        let mut table = overlay::table_of(&defaults)?;
        overlay::merge(&mut table, user);
        let read = table
            .try_into()
            .map_err(|error| overlay::wrong_value(&error, &schema, origin, None))?;
        let note = |keys: Vec<&str>| {
            format!(
                "note: {origin}: {} not in the folder of the recipe; what is in the working \
                 directory is read",
                keys.join(", ")
            )
        };
        let notes = Some(elsewhere).filter(|keys| !keys.is_empty()).map(note);
        let read = Self { systems, ..read };
        let notes = notes.into_iter().chain(read.encoder.warning()).collect();
        let recipe = Self { notes, ..read };
        recipe.check()?;
        Ok(recipe)
    }

    /// The defaults of a profile for the system that is fine-tuned. `user` holds the tables that
    /// the recipe's author wrote.
    ///
    /// # Errors
    /// [`Error::Bug`] if no system has a second stage, whose schedule is needed.
    pub fn defaults(profile: Profile, system: &'static System, user: &toml::Table) -> Result<Self> {
        let tables = SystemTables::defaults(profile, system, user);
        let mut staged = std::iter::once(system).chain(crate::systems::systems());
        let second = staged.find_map(|system| tables.of(system).ok()?.second_schedule(profile));
        Ok(Self {
            name: "run".into(),
            profile,
            seed: 1,
            system: system.info().name.to_owned(),
            variants: system.info().variants.to_vec(),
            threads: 0,
            device: "auto".into(),
            deterministic: false,
            hang_limit_s: 60,
            checkpoint_mirror: None,
            data: DataSources::default(),
            communication: CommunicationSettings::default(),
            distant: DistantSettings::default(),
            encoder: EncoderChoice::default(),
            rank: rank_schedule(),
            pretrain: pretrain_schedule(),
            finetune: tables.of(system)?.schedule(&system.info(), profile),
            student: tables.of(system)?.student().schedule(&system.info(), profile),
            refine: tables.of(system)?.refined().schedule(&system.info(), profile),
            inference: second.ok_or_else(|| Error::Bug("no system has a second stage".into()))?,
            systems: tables,
            notes: Vec::new(),
        })
    }

    /// Lets the stages of a student follow what the recipe says of `finetune`, for a system whose
    /// schedules are the same in all of them.
    fn follow_finetune(&self, user: &mut toml::Table) {
        let Some(finetune) = user.get("finetune").cloned() else { return };
        for (table, schedule) in [("student", &self.student), ("refine", &self.refine)] {
            if *schedule == self.finetune {
                let mut followed = finetune.clone();
                if let Some(own) = user.remove(table) {
                    overlay::merge_value(&mut followed, own);
                }
                user.insert(table.to_owned(), followed);
            }
        }
    }

    /// The system that is fine-tuned, with its settings.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown system.
    pub fn settings(&self) -> Result<Settings> {
        self.systems.of(find(&self.system)?).cloned()
    }

    /// The settings of type `T`, whichever system is fine-tuned.
    ///
    /// # Errors
    /// [`Error::Bug`] if no system has such settings.
    pub fn settings_of<T: 'static>(&self) -> Result<&T> {
        let name = std::any::type_name::<T>();
        self.systems.get().ok_or_else(|| Error::Bug(format!("no system has settings {name}")))
    }

    fn check(&self) -> Result<()> {
        if self.variants.is_empty() {
            return Err(Error::recipe("variants is empty")
                .with_hint("any of \"baseline\", \"denoised\", \"pretrained\""));
        }
        let settings = self.settings()?;
        if !settings.info().uses_ranker() && self.variants.contains(&Variant::Denoised) {
            let message = format!(
                "variants holds \"denoised\", but system `{}` does not choose pairs by a ranker",
                self.system
            );
            return Err(Error::recipe(message).with_hint(
                "\"baseline\" and \"pretrained\" (DSDocRE's \
                    pre-trained encoder) are for every system",
            ));
        }
        let has_students = self.variants.iter().any(|variant| variant.teacher().is_some());
        if has_students && settings.first_stage().is_some() {
            let message = format!(
                "variants holds a student, but system `{}` is trained in two stages of its own",
                self.system
            );
            return Err(Error::recipe(message)
                .with_hint(format!("{}.stage = \"base\" trains one stage", self.system)));
        }
        if has_students {
            self.check_teacher(&settings)?;
        }
        if self.hang_limit_s == 0 {
            return Err(Error::recipe("hang_limit_s = 0, but it must be at least 1"));
        }
        if self.deterministic && self.communication.precision != WirePrecision::Fp32 {
            return Err(Error::recipe(
                "communication.precision = \"bf16\", but deterministic = true adds gradients in \
                 one order without rounding them",
            )
            .with_hint("leave one of the two out"));
        }
        self.data.check()?;
        self.distant.check()?;
        self.systems.check()?;
        self.rank.check("rank")?;
        self.pretrain.check("pretrain")?;
        self.finetune.check("finetune")?;
        self.student.check("student")?;
        self.refine.check("refine")?;
        self.inference.check("inference")
    }

    /// Refuses a student whose teacher does not store what it learns.
    fn check_teacher(&self, settings: &Settings) -> Result<()> {
        if settings.student().learns() == Some(TeacherColumn::Logits)
            && self.distant.human_weight > 0.0
        {
            let message = format!(
                "distant.human_weight is {}, but a student of `{}` learns logits, which annotated \
                 documents do not have",
                self.distant.human_weight, self.system
            );
            return Err(Error::recipe(message).with_hint("set distant.human_weight = 0"));
        }
        let missing = match settings.student().learns() {
            Some(TeacherColumn::Tokens) if self.distant.tokens == 0 => "distant.tokens = 32",
            Some(TeacherColumn::Logits) if !self.distant.logits => "distant.logits = true",
            _ => return Ok(()),
        };
        let message = format!(
            "a student of `{}` learns what its teacher does not store: {} is not set",
            self.system,
            missing.split(' ').next().unwrap_or_default()
        );
        Err(Error::recipe(message).with_hint(format!("set {missing}")))
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
        let differs =
            names.into_iter().find(|name| !is_free(name) && own.get(*name) != others.get(*name));
        let told = |value: Option<&String>| value.cloned().unwrap_or_else(|| "absent".into());
        Ok(differs.map(|name| (name.clone(), told(own.get(name)), told(others.get(name)))))
    }

    /// The part of a recipe whose keys (dotted) are wanted; all others have their defaults.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a part that is no recipe.
    pub fn part(&self, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let keys = overlay::keys_of(&overlay::table_of(self)?);
        let kept = keys.into_iter().filter(|(key, _)| wanted(key));
        let settings: Vec<String> = kept.map(|(key, value)| format!("{key}={value}")).collect();
        Self::parse("", "a part of a recipe", &settings)
    }

    /// A hash of all keys that change a result beyond rounding: twelve hexadecimal digits.
    ///
    /// # Errors
    /// Never for a recipe that was read.
    pub fn fingerprint(&self) -> Result<String> {
        let keys = overlay::keys_of(&overlay::table_of(self)?);
        let lines: String = keys
            .into_iter()
            .filter(|(key, _)| !is_free(key))
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        Ok(blake3::hash(lines.as_bytes()).to_hex()[..12].to_owned())
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
