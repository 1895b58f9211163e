//! Resuming anywhere, and `deterministic = true`: the same bits on every number of ranks.

use std::collections::BTreeMap;
use std::path::Path;

use super::common::{self, copy};
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
pub fn results(run: &Path) -> BTreeMap<String, blake3::Hash> {
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

/// Four blocks of documents, of which two fit: windows of one block, so 512 pairs of documents.
/// Sixteen steps of 40 pairs end in the second window.
#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn documents_that_do_not_fit_give_the_same_bits_on_1_2_and_4_ranks_and_after_a_resume() {
    let place = Place::new();
    place.verb(1, "synth --output world --distant 3200 --human 4 --dev 4 --test 4");
    place.verb(
        1,
        "prepare --format docred --input world/train_distant.json --output shards \
         --tokenizer world/tokenizer --relations world/rel_info.json",
    );
    let pretrain = |ranks, run: &str, more: &str| {
        place.verb(
            ranks,
            &format!(
                "pretrain --distant shards --encoder tiny --run-dir {run} --device cpu --threads 1 \
                 --set dsdocre.k_pretrain=0 --set pretrain.batch=40 --set pretrain.steps=16 \
                 --set pretrain.checkpoint_steps=7 --set pretrain.keep_checkpoints=9 \
                 --set deterministic=true {more}"
            ),
        )
    };
    let small = "--set data.memory=8MB";
    let said = pretrain(1, "one", small);
    assert!(said.contains("in the first of 4 windows"), "{said}");
    let one = results(&place.path("one"));
    assert!(one.keys().any(|name| name.contains("step-00000016/optimizer")), "{one:?}");
    let order =
        |run: &str| common::metrics(&place.path(run), "pretrain")[&16]["order_hash"].clone();
    pretrain(2, "two", small);
    assert!(results(&place.path("two")) == one && order("two") == order("one"));
    // From the second window, on another number of ranks.
    let checkpoint = |step: u64| format!("checkpoints/pretrain/step-{step:08}");
    copy(&place.path("two"), &place.path("four"));
    fs_err::remove_dir_all(place.path("four").join(checkpoint(16))).unwrap();
    assert!(place.path("four").join(checkpoint(14)).is_dir());
    pretrain(4, "four", &format!("{small} --resume"));
    let four = results(&place.path("four"));
    let last = |results: &BTreeMap<String, blake3::Hash>| -> Vec<blake3::Hash> {
        let last = results.iter().filter(|(name, _)| name.contains("step-00000016"));
        last.map(|(_, hash)| *hash).collect()
    };
    assert!(last(&four) == last(&one) && order("four") == order("one"));
    // Another limit is another order, which the middle of a run cannot change to.
    fs_err::remove_dir_all(place.path("four").join(checkpoint(16))).unwrap();
    let other = "--set data.memory=40MB --resume";
    let ended = place.end(place.mpirun(&format!(
        "-n 1 {} pretrain --distant shards --encoder tiny --run-dir four --device cpu --threads 1 \
         --set dsdocre.k_pretrain=0 --set pretrain.batch=40 --set pretrain.steps=16 \
         --set pretrain.checkpoint_steps=7 --set pretrain.keep_checkpoints=9 \
         --set deterministic=true {other}",
        common::program().display()
    )));
    assert_eq!(ended.code, Some(64), "{}", ended.said);
    assert!(ended.said.contains("data.memory"), "{}", ended.said);
}
