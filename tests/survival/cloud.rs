//! Checkpoints in an object store, under several ranks.

use super::disk::lost_and_resumed;
use super::exact::results;
use super::fake_bucket::{FakeBucket, Fault, Speech};
use super::place::Place;

#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn a_run_comes_back_from_an_object_store_and_outlives_it() {
    let mut place = Place::new();
    place.prepared(2);
    let server = FakeBucket::new(Speech::Amazon);
    place.environment = server.environment();
    server.fail("PUT runs/a/rank", 2, Fault::Status(503));
    // The weights are longer than a part.
    server.fail("partNumber=2", 2, Fault::Cut);
    let mut resumed = lost_and_resumed(&place, "s3://bucket/runs/a");
    assert!(
        server.reset().iter().filter(|said| said.contains("partNumber=2")).count() > 2,
        "nothing was sent in parts"
    );
    place.await_step("r", 30, &mut resumed);
    assert!(server.contents().0.contains(&"runs/a/recipe.toml".to_owned()));
    drop(server);
    let ended = place.end(resumed);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(
        ended.said.contains("pretrain is not at s3://bucket/runs/a")
            && ended.said.contains("hint: "),
        "{}",
        ended.said
    );
    assert!(
        place.metrics("r")[&40]["unmirrored"].as_f64().is_some_and(|count| count >= 1.0),
        "{}",
        place.metrics("r")[&40]
    );
    assert_eq!(place.final_hashes("r"), place.final_hashes("calm2"));
}

/// A pre-training over shards in a bucket, in windows, whose server now and then fails.
#[test]
#[cfg_attr(not(mpirun), ignore = "mpirun is not on PATH, or MPI is not built in")]
fn shards_in_an_object_store_give_the_same_bits_as_those_of_a_folder() {
    let mut place = Place::new();
    place.verb(1, "synth --output world --distant 1600 --human 4 --dev 4 --test 4");
    place.verb(
        1,
        "prepare --format docred --input world/train_distant.json --output shards \
         --tokenizer world/tokenizer --relations world/rel_info.json",
    );
    let server = FakeBucket::new(Speech::Amazon);
    for inside in ["", "tokenizer/"] {
        for entry in fs_err::read_dir(place.path("shards").join(inside)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                server.put(&format!("corpus/{inside}{name}"), fs_err::read(&path).unwrap());
            }
        }
    }
    place.environment = server.environment();
    let cache = place.path("cache");
    place.environment.push(("DOCRE_CACHE".into(), cache.to_string_lossy().into_owned()));
    server.fail("GET corpus/train-", 2, Fault::Status(503));
    let pretrain = |shards: &str, run: &str| {
        place.verb(
            2,
            &format!(
                "pretrain --distant {shards} --encoder tiny --run-dir {run} --device cpu \
                 --threads 1 --set dsdocre.k_pretrain=0 --set pretrain.batch=8 \
                 --set pretrain.steps=6 --set data.memory=8MB --set deterministic=true"
            ),
        )
    };
    pretrain("shards", "here");
    let said = pretrain("s3://bucket/corpus", "there");
    assert!(said.contains("of s3://bucket/corpus"), "{said}");
    let (here, there) = (results(&place.path("here")), results(&place.path("there")));
    assert!(here == there && !here.is_empty(), "{:?} {:?}", here.keys(), there.keys());
    assert!(server.reset().iter().any(|said| said.starts_with("GET corpus/train-")));
    pretrain("s3://bucket/corpus --set data.disk=1GB", "again");
    let again = server.reset();
    let fetched = again.iter().filter(|said| said.starts_with("GET corpus/train-")).count();
    assert_eq!(fetched, 0, "what is on this machine is not fetched again: {again:?}");
    // The limit of the disk is no part of what was computed.
    let said = pretrain("s3://bucket/corpus --resume --set data.disk=2GB", "again");
    assert!(!said.contains("error"), "{said}");
    place.verb(1, "inspect s3://bucket/corpus");
}
