use super::*;
use crate::ranks::failure::{Event, Recorder};

/// A text that would do something if a page or a terminal took it for more than text.
pub(super) const EVIL: &str = "<img src=x onerror=alert(1)>";

/// A run of one rank, in the middle of step 4 of 10.
pub(super) fn made_up_run() -> tempfile::TempDir {
    let run = tempfile::tempdir().unwrap();
    fs_err::write(run.path().join(run_files::IDENTITY), "{}").unwrap();
    let mut writer = MetricsWriter::open(&MetricsWriter::path(run.path())).unwrap();
    (1..=3).for_each(|step| writer.write(&line(step)).unwrap());
    writer.write(&line(3).with("dev/f1", 0.5)).unwrap();
    let recorder = Recorder::create(run.path(), 0, 1).unwrap();
    let step = "step 4 of pretrain".to_owned();
    recorder.enter(Event { section: 0, documents: 8, step: 4, text: step, ..Event::default() });
    recorder.enter(Event { section: 1, step: 4, text: EVIL.to_owned(), ..Event::default() });
    run
}

fn line(step: u64) -> MetricLine {
    let line = MetricLine {
        stage: format!("pretrain {EVIL}"),
        step,
        loss: Some(4.0 - step as f64),
        documents_per_s: Some(8.0),
        ..MetricLine::default()
    };
    line.with("total_steps", 10)
        .with("eta_s", 10.0 - step as f64)
        .with("memory/host", 2_000_000_000_u64)
        .with("memory/host_peak", 3_000_000_000_u64)
        .with("share/compute", 0.75)
}

#[test]
fn a_repeated_step_replaces_itself_and_what_came_after_it() {
    let run = made_up_run();
    let mut watched = WatchedRun::open(run.path()).unwrap();
    let look = watched.look().unwrap();
    assert!(look.state.at_work());
    assert_eq!(look.state.stages.len(), 1);
    let of = |watched: &WatchedRun, name| watched.curves()[0].curve(name).unwrap().to_vec();
    let loss = |watched: &WatchedRun| of(watched, "loss");
    assert_eq!(loss(&watched), [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]);
    assert_eq!(of(&watched, "dev/f1"), [(3.0, 0.5)]);
    let mut writer = MetricsWriter::open(&MetricsWriter::path(run.path())).unwrap();
    writer.write(&MetricLine { loss: Some(9.0), ..line(2) }).unwrap();
    let look = watched.look().unwrap();
    assert_eq!(loss(&watched), [(1.0, 3.0), (2.0, 9.0)]);
    assert_eq!((look.state.stages[0].step, look.state.stages.len()), (2, 1));
    assert!(of(&watched, "dev/f1").is_empty());
}

#[test]
fn a_look_in_one_line_names_ranks_that_are_not_well() {
    let run = made_up_run();
    let mut watched = WatchedRun::open(run.path()).unwrap();
    let said = watched.look().unwrap().state.in_one_line();
    assert!(said.contains(" step 3 of 10, loss 1.0000, dev F1 0.5000, 8.0 documents/s"), "{said}");
    assert!(said.ends_with("7.0 s left; 1 of 1 ranks at work"), "{said}");
    Recorder::create(run.path(), 1, 2).unwrap().ended(71);
    let said = watched.look().unwrap().state.in_one_line();
    assert!(said.contains("1 of 2 ranks at work; rank 1 on "), "{said}");
    assert!(said.ends_with("ended with exit code 71") && !said.contains('\n'), "{said}");
}

#[test]
fn a_folder_without_a_run_is_refused_and_one_that_has_not_begun_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(WatchedRun::open(folder.path()).unwrap_err().exit_code(), 65);
    fs_err::write(folder.path().join(run_files::IDENTITY), "{}").unwrap();
    let state = WatchedRun::open(folder.path()).unwrap().look().unwrap().state;
    assert_eq!((state.stages.len(), state.at_work()), (0, false));
    assert_eq!(state.in_one_line(), "no step is done yet; 0 of 0 ranks at work");
}
