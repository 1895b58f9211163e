//! What rows have in common: the stages of a run, each in a folder that is named by a hash of all
//! that it depends on, and linked into the run folder of every row that agrees.
//!
//! What a stage depends on is a recipe too: that of the row, without the keys that the stage does
//! not read. Not for: running the stages (`work`).

use std::path::{Path, PathBuf};

use crate::base::{entries, run_files};
use crate::distant::KEYS_OF_STUDENTS;
use crate::pipeline::{Milestone, named_tokenizer, stages_of, teachers_of};
use crate::recipe::Recipe;
use crate::systems::Settings;
use crate::systems::dsdocre::{KEYS_OF_FINETUNING, KEYS_OF_PRETRAINING};
use crate::{Error, Result};

/// In a shared folder: the stage is finished.
const FINISHED: &str = "finished";

/// A stage that several rows can use.
#[derive(Clone, Debug)]
pub struct SharedStage {
    /// How far its run goes.
    pub milestone: Milestone,
    /// What it depends on.
    pub recipe: Recipe,
    /// Its folder, a run folder.
    pub folder: PathBuf,
}

/// Whether a key of the recipe (dotted) decides what a run has made until a milestone. `system` is
/// fine-tuned.
fn reads(milestone: Milestone, key: &str, system: &Settings) -> bool {
    let from = |first: Milestone| milestone >= first;
    match key.split_once('.').unwrap_or(("", key)) {
        ("data", _) | ("dsdocre", "pretrain_on_human") | ("", "threads" | "hang_limit_s") => true,
        ("", "seed" | "profile" | "device" | "deterministic") => from(Milestone::Ranker),
        ("communication" | "encoder" | "rank", _) => from(Milestone::Ranker),
        ("dsdocre", key) if KEYS_OF_FINETUNING.contains(&key) => false,
        ("dsdocre", key) if KEYS_OF_PRETRAINING.contains(&key) => from(Milestone::Pretraining),
        ("dsdocre", _) => from(Milestone::Ranker),
        ("pretrain", _) | ("", "variants") => from(Milestone::Pretraining),
        ("finetune", _) | ("", "system") => from(Milestone::FirstStage),
        ("distant", key) if !KEYS_OF_STUDENTS.contains(&key) => from(Milestone::Teacher),
        (table, key) if table == system.system() => {
            from(Milestone::FirstStage) && !system.keys_of_second_stage().contains(&key)
        }
        _ => false,
    }
}

impl SharedStage {
    /// The stages that a recipe comes by before its own fine-tuning, in order.
    ///
    /// # Errors
    /// An encoder that is neither a preset nor a folder.
    pub fn of(recipe: &Recipe, root: &Path) -> Result<Vec<Self>> {
        let mut whole = recipe.clone();
        // The tokenizer may come from the encoder, which is no part of the data.
        whole.data.tokenizer = named_tokenizer(recipe)?;
        let system = recipe.settings()?;
        let milestones = Milestone::of(recipe).into_iter();
        milestones
            .filter(|milestone| *milestone < Milestone::End)
            .map(|milestone| {
                let recipe = whole.part(|key| reads(milestone, key, &system))?;
                let name = format!("{}-{}", name_of(milestone), recipe.fingerprint()?);
                Ok(Self { milestone, folder: root.join("shared").join(name), recipe })
            })
            .collect()
    }

    /// Whether it is finished.
    pub fn is_finished(&self) -> bool {
        self.folder.join(FINISHED).exists()
    }

    /// Marks it as finished.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(&self) -> Result<()> {
        Ok(fs_err::write(self.folder.join(FINISHED), "")?)
    }

    /// Links what the stage has made into a run folder.
    ///
    /// # Errors
    /// The disk; a run folder that holds another stage's results.
    pub fn link(&self, run: &Path) -> Result<()> {
        let stages = stages_of(self.milestone, &self.recipe).into_iter();
        let made = stages.map(|stage| Path::new(run_files::CHECKPOINTS).join(stage));
        let mut parts: Vec<PathBuf> =
            made.filter(|stage| self.folder.join(stage).exists()).collect();
        match self.milestone {
            Milestone::Data => {
                let data = Path::new(run_files::DATA);
                let names = entries(&self.folder.join(data))?.into_iter().map(|(name, _)| name);
                parts.extend(names.map(|name| data.join(name)));
            }
            Milestone::Ranker => parts.push(PathBuf::from(run_files::SCORED)),
            Milestone::Teacher => {
                let taught = Path::new(run_files::TAUGHT);
                parts.extend(teachers_of(&self.recipe).map(|teacher| taught.join(teacher.name())));
            }
            Milestone::Pretraining | Milestone::FirstStage | Milestone::End => {}
        }
        parts.iter().try_for_each(|part| link(&self.folder.join(part), &run.join(part)))
    }
}

fn name_of(milestone: Milestone) -> &'static str {
    match milestone {
        Milestone::Data => "data",
        Milestone::Ranker => "ranker",
        Milestone::Pretraining => "pretraining",
        Milestone::FirstStage => "first-stage",
        Milestone::Teacher => "teacher",
        Milestone::End => "run",
    }
}

/// Makes `place` a relative link to `target`, so that the folder that holds both can be moved.
fn link(target: &Path, place: &Path) -> Result<()> {
    let folder = place.parent().unwrap_or(Path::new(""));
    fs_err::create_dir_all(folder)?;
    let (from, to) = (fs_err::canonicalize(folder)?, fs_err::canonicalize(target)?);
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.components().count() - common);
    let link: PathBuf =
        up.collect::<PathBuf>().join(to.components().skip(common).collect::<PathBuf>());
    match fs_err::read_link(place) {
        Ok(found) if found == link => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(fs_err::os::unix::fs::symlink(&link, place)?)
        }
        _ => Err(Error::recipe(format!(
            "{} is there already and does not come from {}",
            place.display(),
            target.display()
        ))
        .with_hint("name another --run-dir")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "[data.synth]\ndistant = 9\n[encoder]\nname = \"tiny\"";

    /// The names of the shared folders of a recipe with settings.
    fn folders(settings: &[&str]) -> Vec<String> {
        let settings: Vec<String> = settings.iter().map(|&text| text.to_owned()).collect();
        let recipe = Recipe::parse(RECIPE, "r.toml", &settings).unwrap();
        let stages = SharedStage::of(&recipe, Path::new("R")).unwrap();
        stages.iter().map(|stage| stage.folder.display().to_string()).collect()
    }

    /// Which of data, ranker and pre-training agree with those of the recipe as it is.
    fn agree(settings: &[&str]) -> Vec<bool> {
        folders(&[]).iter().zip(folders(settings)).map(|(a, b)| *a == b).collect()
    }

    #[test]
    fn a_stage_is_shared_by_all_rows_that_agree_in_what_it_reads() {
        let names = folders(&[]);
        let kinds = ["R/shared/data-", "R/shared/ranker-", "R/shared/pretraining-"];
        assert!(names.iter().zip(kinds).all(|(name, kind)| name.starts_with(kind)), "{names:?}");
        // What only fine-tuning reads leaves everything shared.
        for setting in [
            "finetune.learning_rate=0.5",
            "dsdocre.decision=threshold",
            "dsdocre.k_finetune_per_entity=5",
            "name=other",
            "pretrain.tokens_per_micro_batch=99",
            "atlop.num_labels=1",
        ] {
            assert_eq!(agree(&[setting]), [true; 3], "{setting}");
        }
        for setting in ["dsdocre.tasks=[\"RelDet\"]", "pretrain.steps=3", "dsdocre.k_pretrain=7"] {
            assert_eq!(agree(&[setting]), [true, true, false], "{setting}");
        }
        for setting in ["rank.batch=3", "seed=2", "dsdocre.rank_instances=9", "encoder.name=mini"] {
            assert_eq!(agree(&[setting]), [true, false, false], "{setting}");
        }
        for setting in ["data.synth.dev=3", "dsdocre.pretrain_on_human=true"] {
            assert_eq!(agree(&[setting]), [false; 3], "{setting}");
        }
    }

    #[test]
    fn a_row_without_a_ranker_shares_the_data_alone() {
        let baseline = folders(&["variants=[\"baseline\"]"]);
        assert_eq!(baseline, folders(&[])[..1]);
        assert_eq!(folders(&["variants=[\"denoised\"]"]), folders(&[])[..2]);
        let atlop = folders(&["system=atlop", "variants=[\"baseline\"]"]);
        assert_eq!(atlop, baseline);
    }

    #[test]
    fn students_of_one_teacher_share_it_whatever_they_make_of_the_labels() {
        let of = |setting: &str| {
            folders(&["system=atlop", "variants=[\"student\"]", setting]).split_off(1)
        };
        let own = of("seed=1");
        assert!(own.len() == 1 && own[0].starts_with("R/shared/teacher-"), "{own:?}");
        let of_students =
            ["distant.rule=hard", "distant.soft_weight=0.5", "student.epochs=2", "refine.batch=3"];
        for setting in of_students {
            assert_eq!(of(setting), own, "{setting}");
        }
        for setting in
            ["distant.floor=0.1", "distant.passes=3", "finetune.epochs=2", "atlop.num_labels=1"]
        {
            assert_ne!(of(setting), own, "{setting}");
        }
    }

    #[test]
    fn rows_of_a_system_with_two_stages_share_the_first() {
        let of = |setting: &str| {
            folders(&["system=docre-ii", "variants=[\"baseline\"]", setting]).split_off(1)
        };
        let own = of("seed=1");
        assert!(own.len() == 1 && own[0].starts_with("R/shared/first-stage-"), "{own:?}");
        for setting in [
            "docre-ii.iterations=1",
            "docre-ii.inference_layers=2",
            "docre-ii.noise_rate=[0.1,0.2]",
            "inference.learning_rate=0.5",
            "atlop.num_labels=1",
        ] {
            assert_eq!(of(setting), own, "{setting}");
        }
        for setting in [
            "docre-ii.emb_size=128",
            "docre-ii.preset=cdr",
            "finetune.learning_rate=0.5",
            "encoder.name=mini",
            "seed=2",
            "profile=paper",
        ] {
            assert_ne!(of(setting), own, "{setting}");
        }
        assert_eq!(of("docre-ii.pretrained_base=false"), [""; 0]);
    }

    #[test]
    fn the_keys_that_a_stage_does_not_read_are_keys_of_the_table() {
        let schema = crate::recipe::recipe_schema();
        let of_pretrainer = KEYS_OF_FINETUNING.iter().chain(&KEYS_OF_PRETRAINING).copied();
        let recipe = Recipe::parse(RECIPE, "r.toml", &["system=docre-ii".to_owned()]).unwrap();
        let second = recipe.settings().unwrap().keys_of_second_stage();
        for (table, keys) in [
            ("dsdocre", of_pretrainer.collect()),
            ("docre-ii", second.to_vec()),
            ("distant", KEYS_OF_STUDENTS.to_vec()),
        ] {
            let known = crate::recipe::described_keys(&schema, table);
            for key in keys {
                assert!(known.iter().any(|(name, _)| name == key), "{table}.{key}");
            }
        }
    }

    #[test]
    fn links_are_relative_and_never_change_what_a_run_was_made_of() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("shared/a/x"), root.path().join("shared/b/x"));
        let place = root.path().join("rows/r/seed-1/x");
        for folder in [&a, &b] {
            fs_err::create_dir_all(folder).unwrap();
        }
        link(&a, &place).unwrap();
        link(&a, &place).unwrap();
        assert_eq!(fs_err::read_link(&place).unwrap(), Path::new("../../../shared/a/x"));
        let error = link(&b, &place).unwrap_err();
        assert!(error.exit_code() == 64 && error.to_string().contains("there already"), "{error}");
    }
}
