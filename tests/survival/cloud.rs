//! Checkpoints in an object store, under several ranks.

use super::disk::lost_and_resumed;
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
