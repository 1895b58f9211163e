//! Requests to stop that come between training steps.

use std::path::Path;
use std::time::{Duration, Instant};

use super::place::{By, Place};

/// How long a request may take.
const PROMPT: Duration = Duration::from_secs(10);

/// Distant documents enough that preparing and scoring take a while.
const MANY: &str = "--set data.synth.distant=3000 --set data.synth.dev=300 --set pretrain.steps=2 \
    --set rank.steps=2 --set finetune.steps=2";

/// What the program says when it is stopped in a phase; what stands in the run folder once it has
/// begun, and a text in it.
const PHASES: [(&str, &str, &str); 3] = [
    ("while preparing the data", "data/world/rel_info.json", ""),
    ("while scoring", "data/scored/distant.unfinished", ""),
    ("at step 2 of stage `finetune-pretrained`", "metrics.jsonl", "\"finetune-pretrained\""),
];

/// Whether a phase has begun.
fn has_begun(path: &Path, text: &str) -> bool {
    path.exists() && (text.is_empty() || fs_err::read_to_string(path).unwrap().contains(text))
}

#[test]
fn a_request_between_steps_ends_the_run_at_once_and_the_run_goes_on_to_the_same_weights() {
    let place = Place::with(By::Launch);
    place.finish(2, "calm", MANY);
    let mut said = Vec::new();
    for (words, marker, text) in PHASES {
        let mut started = place.start(2, "r", &format!("{MANY} --resume"));
        let limit = Instant::now() + Duration::from_secs(300);
        while !has_begun(&place.path("r").join(marker), text) {
            let over = started.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                over.is_none() && Instant::now() < limit,
                "{marker} never came ({over:?}):\n{}",
                place.said()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        let asked = Instant::now();
        fs_err::write(place.path("r/STOP"), "").unwrap();
        let ended = place.end(started);
        assert_eq!(ended.code, Some(75), "{marker}:\n{}", ended.said);
        assert!(asked.elapsed() < PROMPT, "{marker}: {:?}", asked.elapsed());
        said.push((words, ended.said));
    }
    // A phase may be over before the request is seen, but not all of them.
    let between = said.iter().filter(|(words, said)| said.contains(words)).count();
    assert!(between >= 1, "{said:?}");
    place.finish(2, "r", &format!("{MANY} --resume"));
    let files = ["pretrain/step-00000002/model", "finetune-pretrained/step-00000002/model"];
    let hashes = |run: &str| {
        let weights = |name| place.path(format!("{run}/checkpoints/{name}.safetensors"));
        files.map(|name| blake3::hash(&fs_err::read(weights(name)).unwrap()))
    };
    assert_eq!(hashes("r"), hashes("calm"));
    let scores = |run: &str| fs_err::read_to_string(place.path(format!("{run}/scores.json")));
    assert_eq!(scores("r").unwrap(), scores("calm").unwrap());
}
