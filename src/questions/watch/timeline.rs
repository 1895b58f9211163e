//! What ranks did in the last steps, from their flight recorders: spans of time by kind, and the
//! share of each kind.
//!
//! Not for drawing (`report`), and not for blame (`ranks::failure`).

use std::collections::{BTreeMap, BTreeSet};

use crate::ranks::failure::{Event, Recording, describe};
use crate::report::{GanttBar, GanttRow, gantt};
use crate::train::StepSection;

/// Steps that are shown.
const STEPS: usize = 6;

/// The longest and the shortest time that is shown, in nanoseconds.
const LONGEST_NS: u64 = 600_000_000_000;
const SHORTEST_NS: u64 = 10_000_000;

/// Time without steps that is shown.
const IDLE_NS: u64 = 60_000_000_000;

/// Ranks that are drawn.
const MOST_ROWS: usize = 64;

/// Names of the kinds of work, in the order of [`StepSection`]; the last is everything else.
pub(super) const KINDS: [&str; 5] = ["reading", "compute", "exchange", "update", "other"];

/// Index of work that is no part of a step.
const OTHER: usize = KINDS.len() - 1;

/// What the ranks did last.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Begin and end, nanoseconds since 1970.
    range: (u64, u64),
    rows: Vec<TimelineRow>,
}

/// What one rank did.
#[derive(Debug)]
pub(super) struct TimelineRow {
    pub rank: usize,
    /// The share of each kind in the time shown; together at most 1.
    pub shares: [f64; KINDS.len()],
    spans: Vec<SectionSpan>,
}

/// A section of a recorder with its begin and its end.
#[derive(Clone, Debug, PartialEq)]
struct SectionSpan {
    from: u64,
    to: u64,
    kind: usize,
    /// Whether it goes on beside other work: gradients that travel during the backward pass.
    aside: bool,
    text: String,
    step: u64,
}

impl Timeline {
    /// Takes the last steps of the recordings, until `now` for ranks that have not ended.
    pub fn of(recordings: &[Recording], now: u64) -> Self {
        let running = |recording: &&Recording| recording.ended.is_none();
        let last_sign = recordings.iter().map(|recording| recording.alive_ns).max().unwrap_or(0);
        let silent = now.saturating_sub(last_sign) > LONGEST_NS;
        let any_running = recordings.iter().any(|recording| running(&recording));
        let end = if any_running && !silent { now } else { last_sign };
        let begin = recordings.iter().find_map(|recording| begin_of_last_steps(recording, end));
        let begin = begin.unwrap_or(end.saturating_sub(IDLE_NS));
        let begin = begin.clamp(end.saturating_sub(LONGEST_NS), end.saturating_sub(SHORTEST_NS));
        let range = (begin, end);
        let row = |recording: &Recording| {
            let spans = spans(recording, range);
            TimelineRow { rank: recording.rank, shares: shares(&spans, range), spans }
        };
        Self { range, rows: recordings.iter().map(row).collect() }
    }

    /// The row of a rank.
    pub fn row(&self, rank: usize) -> Option<&TimelineRow> {
        self.rows.iter().find(|row| row.rank == rank)
    }

    /// The drawing, in seconds before its end.
    pub fn draw(&self) -> String {
        let (begin, end) = self.range;
        let before = |time: u64| -(end.saturating_sub(time) as f64) / 1e9;
        let bar = |span: &SectionSpan| {
            let seconds = (span.to - span.from) as f64 / 1e9;
            let step = if span.step > 0 { format!("step {}: ", span.step) } else { String::new() };
            GanttBar {
                span: (before(span.from), before(span.to)),
                kind: span.kind,
                aside: span.aside,
                title: format!("{step}{}, {seconds:.4} s", span.text),
            }
        };
        let row = |row: &TimelineRow| GanttRow {
            name: format!("rank {}", row.rank),
            bars: row.spans.iter().map(bar).collect(),
        };
        let rows: Vec<GanttRow> = self.rows.iter().take(MOST_ROWS).map(row).collect();
        gantt("sections by rank", (before(begin), 0.0), &KINDS, &rows)
    }
}

/// When the last few steps of a rank began; `None` if it is in no step and had none.
fn begin_of_last_steps(recording: &Recording, end: u64) -> Option<u64> {
    let steps: Vec<u64> = recording
        .events
        .iter()
        .filter(|event| is_step(event) && event.time_ns <= end)
        .map(|event| event.time_ns)
        .collect();
    steps.get(steps.len().saturating_sub(STEPS)).copied()
}

/// A step encloses sections that say more.
fn is_step(event: &Event) -> bool {
    !event.ends && event.documents > 0
}

fn kind_of(event: &Event) -> usize {
    let named = StepSection::ALL
        .into_iter()
        .find(|section| event.text.starts_with(section.recorded()))
        .map(|section| section as usize);
    let exchange = (event.collective > 0).then_some(StepSection::Exchange as usize);
    named.or(exchange).unwrap_or(OTHER)
}

/// The sections that reach into a range, outer ones first. The begin of a section may be lost: the
/// recorder keeps the latest events only.
fn spans(recording: &Recording, (begin, end): (u64, u64)) -> Vec<SectionSpan> {
    let span = |event: &Event, to: u64| SectionSpan {
        from: event.time_ns,
        to: to.max(event.time_ns),
        kind: kind_of(event),
        aside: event.bucket.is_some(),
        text: describe(event),
        step: event.step,
    };
    let mut begun: BTreeMap<u64, &Event> = BTreeMap::new();
    let mut found = Vec::new();
    for event in &recording.events {
        if !event.ends {
            begun.insert(event.section, event);
        } else if let Some(first) = begun.remove(&event.section).filter(|event| !is_step(event)) {
            found.push(span(first, event.time_ns));
        }
    }
    let until = if recording.ended.is_some() { recording.alive_ns } else { end };
    let open = recording.open.iter().filter(|event| !is_step(event));
    found.extend(open.map(|event| span(event, until)));
    found.retain(|span| span.to >= begin && span.from <= end);
    found.sort_by_key(|span| (span.from, std::cmp::Reverse(span.to)));
    found
}

/// The share of each kind in a range. Where sections lie inside of each other, the innermost
/// counts; what goes on beside other work does not.
fn shares(spans: &[SectionSpan], (begin, end): (u64, u64)) -> [f64; KINDS.len()] {
    let mut edges = BTreeMap::<u64, (Vec<usize>, Vec<usize>)>::new();
    for (index, span) in spans.iter().enumerate().filter(|(_, span)| !span.aside) {
        let (from, to) = (span.from.clamp(begin, end), span.to.clamp(begin, end));
        edges.entry(from).or_default().0.push(index);
        edges.entry(to).or_default().1.push(index);
    }
    let mut totals = [0_u64; KINDS.len()];
    // `spans` are sorted with inner ones last, so the largest index is the innermost.
    let (mut open, mut last) = (BTreeSet::new(), begin);
    for (time, (begins, ends)) in edges {
        if let Some(&innermost) = open.last() {
            let kind: &SectionSpan = &spans[innermost];
            totals[kind.kind] += time - last;
        }
        last = time;
        open.extend(begins);
        open.retain(|index| !ends.contains(index));
    }
    totals.map(|total| total as f64 / end.saturating_sub(begin).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A made-up recording: sections as (section, begin, end, event) in milliseconds.
    fn recording(rank: usize, sections: &[(u64, u64, Event)]) -> Recording {
        let mut events = Vec::new();
        for (number, (from, to, event)) in sections.iter().enumerate() {
            let section = number as u64;
            let begin = Event { section, time_ns: from * MS, ..event.clone() };
            let end = Event { section, time_ns: to * MS, ends: true, ..Event::default() };
            events.extend([begin, end]);
        }
        events.sort_by_key(|event| (event.time_ns, event.ends));
        let alive_ns = events.iter().map(|event| event.time_ns).max().unwrap();
        Recording { rank, world: 1, events, alive_ns, ended: Some(0), ..Recording::default() }
    }

    fn named(text: &str) -> Event {
        Event { text: text.into(), ..Event::default() }
    }

    fn one_step() -> Vec<(u64, u64, Event)> {
        let collective = |bucket| Event { collective: 1, bucket, ..named("all-reduce") };
        vec![
            (1000, 2000, Event { documents: 4, ..named("step 3 of rank") }),
            (1000, 1050, collective(None)),
            (1050, 1650, named("forward and backward")),
            (1400, 1700, collective(Some(0))),
            (1650, 1750, named("waiting for the sums of gradients")),
            (1750, 1850, named("updating the weights")),
            (1850, 1950, named("the checkpoint of step 3")),
            (1900, 1930, collective(None)),
            (1950, 2000, named("reading the documents of step 4 of rank")),
        ]
    }

    #[test]
    fn a_made_up_recording_has_known_shares() {
        let timeline = Timeline::of(&[recording(0, &one_step())], 9000 * MS);
        assert_eq!(timeline.range, (1000 * MS, 2000 * MS));
        let row = timeline.row(0).unwrap();
        // A barrier inside of a checkpoint is exchange; a bucket beside the backward pass is none.
        let expected = [0.05, 0.6, 0.05 + 0.1 + 0.03, 0.1, 0.07];
        for (kind, (share, expected)) in row.shares.iter().zip(expected).enumerate() {
            assert!((share - expected).abs() < 1e-9, "{}: {share}", KINDS[kind]);
        }
        assert!(row.shares.iter().sum::<f64>() <= 1.0 + 1e-9);
    }

    #[test]
    fn shares_never_exceed_the_whole_whatever_overlaps() {
        let overlapping: Vec<(u64, u64, Event)> =
            (0..40).map(|n| (1000 + 37 * n % 500, 1500 + 91 * n % 700, named("a"))).collect();
        let recording = recording(0, &overlapping);
        let range = (1100 * MS, 1900 * MS);
        let shares = shares(&spans(&recording, range), range);
        assert!((0.0..=1.0).contains(&shares.iter().sum::<f64>()), "{shares:?}");
    }

    #[test]
    fn open_sections_reach_until_now_and_lost_beginnings_are_left_out() {
        let mut recording = recording(2, &one_step());
        recording.ended = None;
        recording.open = vec![Event { section: 99, time_ns: 2000 * MS, ..named("waiting") }];
        let lost = Event { section: 77, time_ns: 1200 * MS, ends: true, ..Event::default() };
        recording.events.push(lost);
        let timeline = Timeline::of(&[recording], 2500 * MS);
        assert_eq!(timeline.range.1, 2500 * MS);
        let spans = &timeline.row(2).unwrap().spans;
        assert_eq!((spans.len(), spans.last().unwrap().to), (9, 2500 * MS));
    }

    #[test]
    fn texts_of_a_recording_are_escaped_in_the_drawing() {
        let evil = [(1000, 2000, named("</title><script>alert(1)</script>"))];
        let svg = Timeline::of(&[recording(0, &evil)], 9000 * MS).draw();
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"), "{svg}");
        assert_eq!(Timeline::of(&[], 5).draw(), "");
    }
}
