//! Long documents as overlapping windows (docs/systems.md, C.2): which pieces each window shows,
//! and the windows of many documents as one stream.
//!
//! The first window ends with the end pieces, the last one begins with the start pieces, and those
//! between have both. With two windows this is what ATLOP's release does. Not for: putting states
//! and attention together again (`torch::kernels::context`).

/// How long documents are cut into windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRule {
    /// Most pieces of a window, start and end pieces included: the encoder's positions.
    pub capacity: usize,
    /// Pieces put before a window that does not begin the document (`[CLS]`).
    pub prefix: Vec<u32>,
    /// Pieces put after a window that does not end the document (`[SEP]`; RoBERTa: two `</s>`).
    pub suffix: Vec<u32>,
    /// Largest distance between the starts of two windows; `None` for as few windows as possible
    /// without a gap.
    pub stride: Option<usize>,
    /// Most windows of a document. If it needs more, no window shows the pieces between them.
    pub most: Option<usize>,
}

/// One window of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First piece of the document that it shows.
    pub place: usize,
    /// Number of pieces of the document that it shows.
    pub count: usize,
    /// Start pieces before them.
    pub skip: usize,
    /// End pieces after them.
    pub tail: usize,
}

impl WindowRule {
    /// The windows of a document of `length` pieces, in order.
    pub fn windows(&self, length: usize) -> Vec<Window> {
        let (prefix, suffix) = (self.prefix.len(), self.suffix.len());
        if length <= self.capacity || self.capacity <= prefix + suffix {
            return vec![Window { place: 0, count: length, skip: 0, tail: 0 }];
        }
        let last = length - (self.capacity - prefix);
        let number = self.number(last);
        let window = |index: usize| {
            let place = (index * last + (number - 1) / 2) / (number - 1);
            let skip = if index == 0 { 0 } else { prefix };
            let tail = if index + 1 == number { 0 } else { suffix };
            Window { place, count: (self.capacity - skip - tail).min(length - place), skip, tail }
        };
        (0..number).map(window).collect()
    }

    /// Number of windows (at least two) of a document whose last window starts at `last`.
    fn number(&self, last: usize) -> usize {
        let inner = self.capacity - self.prefix.len() - self.suffix.len();
        // The first window shows more than those between.
        let fits_two = last <= self.capacity - self.suffix.len();
        let gapless = if fits_two { 2 } else { last.div_ceil(inner) + 1 };
        let strided = self.stride.map_or(2, |stride| last.div_ceil(stride.max(1)) + 1);
        gapless.max(strided).min(self.most.unwrap_or(usize::MAX)).max(2)
    }
}

/// The windows of several documents as one stream of pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedWindows {
    /// Pieces of all windows. `[tokens]`
    pub ids: Vec<i64>,
    /// First piece of each window, closed by the number of pieces. [windows + 1]
    pub offsets: Vec<i64>,
    /// Position of each piece in its own window, from 0. `[tokens]`
    pub positions: Vec<i64>,
    /// First window of each document, closed by the number of windows. [documents + 1]
    pub document_windows: Vec<usize>,
    /// Where each window lies in its document. `[windows]`
    pub windows: Vec<Window>,
}

impl PackedWindows {
    /// Cuts documents by `rule`: their pieces, and the first piece of each document, closed by the
    /// number of pieces.
    pub fn new(ids: &[i64], offsets: &[i64], rule: &WindowRule) -> Self {
        let mut packed = Self { offsets: vec![0], document_windows: vec![0], ..Self::default() };
        for document in offsets.windows(2) {
            let ids = &ids[document[0] as usize..document[1] as usize];
            for window in rule.windows(ids.len()) {
                packed.push(ids, window, rule);
            }
            packed.document_windows.push(packed.windows.len());
        }
        packed
    }

    fn push(&mut self, ids: &[i64], window: Window, rule: &WindowRule) {
        let start = self.ids.len();
        self.ids.extend(rule.prefix[..window.skip].iter().map(|&id| i64::from(id)));
        self.ids.extend_from_slice(&ids[window.place..window.place + window.count]);
        self.ids.extend(rule.suffix[..window.tail].iter().map(|&id| i64::from(id)));
        self.positions.extend(0..(self.ids.len() - start) as i64);
        self.offsets.push(self.ids.len() as i64);
        self.windows.push(window);
    }

    /// Whether some document has more than one window.
    pub fn is_cut(&self) -> bool {
        self.windows.len() + 1 > self.document_windows.len()
    }

    /// For every piece that a window shows: its place in the stream of windows, its place in the
    /// stream of documents, and 1 over the number of windows that show it.
    pub fn covers(&self, documents: &[i64]) -> (Vec<i64>, Vec<i64>, Vec<f32>) {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (document, range) in self.document_windows.windows(2).enumerate() {
            for index in range[0]..range[1] {
                let window = self.windows[index];
                let (first, place) = (
                    self.offsets[index] + window.skip as i64,
                    documents[document] + window.place as i64,
                );
                from.extend((0..window.count as i64).map(|at| first + at));
                to.extend((0..window.count as i64).map(|at| place + at));
            }
        }
        let mut shown = vec![0u32; documents.last().copied().unwrap_or(0) as usize];
        to.iter().for_each(|&at| shown[at as usize] += 1);
        let weights = to.iter().map(|&at| 1.0 / shown[at as usize] as f32).collect();
        (from, to, weights)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::{View, pack};

    fn rule(capacity: usize, suffix: usize) -> WindowRule {
        WindowRule {
            capacity,
            prefix: vec![901],
            suffix: vec![902; suffix],
            stride: None,
            most: None,
        }
    }

    #[test]
    fn two_windows_are_those_of_the_release() {
        // Pieces 0..511 and the last 511 of 600; two end pieces leave room for 510 in the first.
        let window = |place, count, skip, tail| Window { place, count, skip, tail };
        assert_eq!(rule(512, 1).windows(600), [window(0, 511, 0, 1), window(89, 511, 1, 0)]);
        assert_eq!(rule(512, 2).windows(600), [window(0, 510, 0, 2), window(89, 511, 1, 0)]);
        assert_eq!(rule(512, 1).windows(512), [window(0, 512, 0, 0)]);
    }

    #[test]
    fn windows_become_one_stream_and_say_who_covers_what() {
        let view = |n: u32| View { ids: (0..n).collect(), ..View::default() };
        let views = pack(&[view(4), view(6)]);
        let packed = PackedWindows::new(&views.ids, &views.offsets, &rule(5, 1));
        assert_eq!(packed.ids, [0, 1, 2, 3, 0, 1, 2, 3, 902, 901, 2, 3, 4, 5]);
        assert_eq!(
            (packed.offsets.as_slice(), packed.document_windows.as_slice()),
            (&[0, 4, 9, 14][..], &[0, 1, 3][..])
        );
        assert_eq!(packed.positions, [0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        let (from, to, weights) = packed.covers(&views.offsets);
        assert_eq!(from, [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13]);
        assert_eq!(to, [0, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9]);
        assert_eq!(weights, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0]);
        assert!(packed.is_cut());
    }

    #[test]
    fn with_too_few_windows_the_middle_is_shown_by_none() {
        let two = WindowRule { most: Some(2), ..rule(10, 1) };
        let windows = two.windows(30);
        assert_eq!(windows.len(), 2);
        assert_eq!(
            (windows[0].place + windows[0].count, windows[1].place, windows[1].count),
            (9, 21, 9)
        );
    }

    proptest! {
        #[test]
        fn windows_fit_and_leave_no_gap(
            length in 1_usize..3000,
            capacity in 4_usize..600,
            prefix in 0_usize..2,
            suffix in 1_usize..3,
            stride in prop::option::of(1_usize..400),
        ) {
            let prefix = vec![901; prefix];
            let rule = WindowRule { stride, prefix, ..rule(capacity, suffix) };
            let windows = rule.windows(length);
            prop_assert!(
                windows.iter().all(|window| window.skip + window.count + window.tail <= capacity)
            );
            prop_assert_eq!(windows[0].place, 0);
            let last = windows[windows.len() - 1];
            prop_assert_eq!(last.place + last.count, length);
            for two in windows.windows(2) {
                prop_assert!(two[1].place <= two[0].place + two[0].count, "{:?}", windows);
                prop_assert!(stride.is_none_or(|stride| two[1].place - two[0].place <= stride));
            }
        }
    }
}
