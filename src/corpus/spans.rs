//! Spans of a text, asked about many times: whether something overlaps one of them.

use std::ops::Range;

/// Spans, in no order, which may overlap each other.
#[derive(Debug, Default)]
pub(in crate::corpus) struct Occupied {
    /// Where they begin, sorted.
    starts: Vec<usize>,
    /// For each the furthest end of it and of those before it.
    ends: Vec<usize>,
}

impl Occupied {
    pub(in crate::corpus) fn new(spans: impl Iterator<Item = Range<usize>>) -> Self {
        let mut spans: Vec<(usize, usize)> = spans.map(|span| (span.start, span.end)).collect();
        spans.sort_unstable();
        let mut furthest = 0;
        let ends = spans.iter().map(|(_, end)| {
            furthest = furthest.max(*end);
            furthest
        });
        let ends = ends.collect();
        Self { starts: spans.into_iter().map(|(start, _)| start).collect(), ends }
    }

    /// Whether a span shares a unit with one of them.
    pub(in crate::corpus) fn overlaps(&self, span: &Range<usize>) -> bool {
        let before = self.starts.partition_point(|start| *start < span.end);
        before > 0 && self.ends[before - 1] > span.start
    }

    /// Whether one of them goes on over a place, beginning before it and ending after it.
    pub(in crate::corpus) fn cross(&self, place: usize) -> bool {
        self.overlaps(&(place..place))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_overlaps_is_what_a_look_at_all_spans_finds(
            spans in prop::collection::vec((0..30_usize, 1..6_usize), 0..8),
            start in 0..36_usize,
            length in 0..6_usize
        ) {
            let spans = spans.into_iter().map(|(start, length)| start..start + length);
            let spans: Vec<_> = spans.collect();
            let occupied = Occupied::new(spans.iter().cloned());
            let asked = start..start + length;
            let any = |test: &dyn Fn(&Range<usize>) -> bool| spans.iter().any(test);
            let overlap = any(&|span| span.start < asked.end && asked.start < span.end);
            prop_assert_eq!(occupied.overlaps(&asked), overlap);
            let crossed = any(&|span| span.start < start && start < span.end);
            prop_assert_eq!(occupied.cross(start), crossed);
        }
    }
}
