//! Resuming anywhere, and `deterministic = true`: the same bits on every number of ranks.

use std::collections::BTreeMap;
use std::path::Path;

use super::common::copy;
use super::place::{By, Place, setting};

/// Forty steps over all stages, with a checkpoint at each.
const FORTY: &str = "--set rank.steps=8 --set pretrain.steps=24 --set finetune.steps=8 \
    --set rank.checkpoint_steps=1 --set pretrain.checkpoint_steps=1 \
    --set finetune.checkpoint_steps=1 \
    --set rank.keep_checkpoints=99 --set pretrain.keep_checkpoints=99 \
    --set finetune.keep_checkpoints=99";

/// The stages of such a run with their steps.
const STAGES: [(&str, u64); 3] = [("rank", 8), ("pretrain", 24), ("finetune-pretrained", 8)];

/// All weights and moments, scored pairs and predictions of a run: name in the run folder → hash.
fn results(run: &Path) -> BTreeMap<String, blake3::Hash> {
    let mut results = BTreeMap::new();
    let mut folders = vec![run.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(run).unwrap().to_string_lossy().into_owned();
            let wanted = ["checkpoints/", "data/scored/", "predictions/"]
                .iter()
                .any(|start| name.starts_with(start));
            if path.is_dir() {
                folders.push(path);
            } else if wanted
                && [".safetensors", ".parquet", ".json"].iter().any(|end| name.ends_with(end))
            {
                // Times and what names them are no results.
                if !["trainer.json", "MANIFEST.json", "manifest.json", "docre.json"]
                    .iter()
                    .any(|end| name.ends_with(end))
                {
                    results.insert(name, blake3::hash(&fs_err::read(path).unwrap()));
                }
            }
        }
    }
    results
}

/// Makes `run` a copy of a finished run of [`FORTY`] as it was after `step` (1 to 39) of its forty
/// steps.
fn as_after(place: &Place, finished: &str, run: &str, mut step: u64) {
    copy(&place.path(finished), &place.path(run));
    let mut reached = false;
    for (stage, steps) in STAGES {
        let folder = place.path(run).join("checkpoints").join(stage);
        if reached {
            fs_err::remove_dir_all(folder).unwrap();
        } else if step < steps {
            (step + 1..=steps).for_each(|later| {
                fs_err::remove_dir_all(folder.join(format!("step-{later:08}"))).unwrap();
            });
            reached = true;
        } else {
            step -= steps;
        }
        if reached && stage == "rank" {
            fs_err::remove_dir_all(place.path(run).join("data/scored")).unwrap();
        }
    }
    fs_err::remove_dir_all(place.path(run).join("predictions")).unwrap();
}

/// Every step with `DOCRE_RESUME_EVERY=1`; usually one in seven, with both edges between stages.
#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_run_resumed_at_any_step_of_any_stage_ends_with_the_same_bits() {
    let place = Place::new();
    place.finish(1, "calm", FORTY);
    let calm = results(&place.path("calm"));
    assert!(
        calm.keys().any(|name| name.contains("finetune-pretrained/step-00000008/optimizer")),
        "{calm:?}"
    );
    let every = setting("DOCRE_RESUME_EVERY", 7);
    for step in (1..40).filter(|step| step % every == 0 || [8, 32].contains(step)) {
        as_after(&place, "calm", "r", step);
        place.finish(1, "r", &format!("{FORTY} --resume"));
        assert!(results(&place.path("r")) == calm, "resumed after step {step} of 40");
        fs_err::remove_dir_all(place.path("r")).unwrap();
    }
}

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_deterministic_run_has_the_same_bits_on_1_2_and_4_ranks_and_when_the_number_changes() {
    let mut place = Place::new();
    let settings = format!("{FORTY} --set deterministic=true");
    place.finish(1, "one", &settings);
    let one = results(&place.path("one"));
    let same = |place: &Place, run: &str| {
        let other = results(&place.path(run));
        let differing: Vec<&String> = one
            .iter()
            .filter(|(name, hash)| other.get(*name) != Some(*hash))
            .map(|(name, _)| name)
            .collect();
        assert!(differing.is_empty() && other.len() == one.len(), "{run}: {differing:?}");
    };
    place.finish(2, "two", &settings);
    same(&place, "two");
    // 2 → 4 → 1.
    as_after(&place, "two", "four", 3);
    place.finish(4, "four", &format!("{settings} --resume"));
    same(&place, "four");
    as_after(&place, "four", "last", 20);
    place.finish(1, "last", &format!("{settings} --resume"));
    same(&place, "last");
    // Another library, which adds in the same order, for the second half.
    place.by = By::Launch;
    as_after(&place, "four", "other", 20);
    place.finish(4, "other", &format!("{settings} --resume"));
    same(&place, "other");
}
