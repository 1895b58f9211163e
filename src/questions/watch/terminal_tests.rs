use super::super::tests::{EVIL, made_up_run};
use super::*;

fn page(columns: usize, rows: usize) -> Vec<String> {
    let folder = made_up_run();
    let mut run = WatchedRun::open(folder.path()).unwrap();
    let look = run.look().unwrap();
    TerminalPage { run: &run, look: &look, now_ns: now_ns() }.lines(columns, rows)
}

#[test]
fn the_page_tells_progress_curves_and_ranks() {
    let lines = page(160, 40);
    let text = lines.join("\n");
    let stage = format!("pretrain {EVIL}");
    let bar = format!("{stage} {}{} 3/10 30 %, 7.0 s left", "█".repeat(9), "░".repeat(23));
    for part in [
        bar.as_str(),
        "loss 1.0000, dev F1 50.00, 8.0 documents/s",
        "host 2.00 GB (peak 3.00 GB)",
        "rank machine",
        "step 4 of pretrain > ",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // Three losses in six rows: 3, 2, 1.
    let top = lines.iter().position(|line| line.contains('█') && !line.contains('%')).unwrap();
    assert!(lines[top].ends_with("█  ") && lines[top + 5].ends_with("██▁"), "{text}");
}

#[test]
fn the_page_fits_every_window() {
    use unicode_width::UnicodeWidthStr as _;
    for (columns, rows) in [(80, 24), (40, 10), (20, 3), (1, 1), (0, 0), (300, 100)] {
        let lines = page(columns, rows);
        assert!(lines.len() <= rows, "{columns}x{rows}: {} lines", lines.len());
        assert!(lines.iter().all(|line| line.width() <= columns), "{columns}x{rows}: {lines:?}");
    }
    assert!(page(80, 5)[4].contains("more lines"));
}

#[test]
fn texts_of_others_cannot_control_the_terminal() {
    assert_eq!(fit("a\x1b[2Jb\r\n\u{9b}c", 80), "a·[2Jb···c");
    // Wide characters take two columns.
    assert_eq!(fit("文書文書", 5), "文書");
}

#[test]
fn a_rank_that_is_not_well_comes_first_with_its_reason() {
    let mut rank = RankState {
        rank: 3,
        world: 4,
        host: "node".into(),
        process: 1,
        at_work: false,
        exit_code: None,
        alive_ns: 0,
        sections: vec!["step 4 of rank".into()],
        memory: None,
        said: String::new(),
    };
    assert_eq!(section(&rank), "silent in step 4 of rank");
    rank.exit_code = Some(71);
    assert_eq!((section(&rank).as_str(), is_well(&rank)), ("ended with exit code 71", false));
    rank.exit_code = Some(0);
    assert!(is_well(&rank));
}
