//! Text as names are compared, with the place where each character stood.
//!
//! The text is in Unicode's form NFC. A blank stands only between two words, so that `IL-2` and the
//! words `IL`, `-`, `2` are the same, and a line break in a name is no difference. Not for: the
//! words that a model reads (`formats::segment`).

use std::ops::Range;

use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::is_combining_mark;

use crate::corpus::formats::scripts::{continues, is_blank_line, is_word_alone, without_words};

/// Stands between sentences and paragraphs; no name holds it.
pub(super) const BREAK: char = '\n';

/// What a document is made of, and what mentions are spans of.
#[derive(Clone, Copy)]
pub(in crate::corpus) enum Units<'a> {
    /// Characters of running text.
    Characters(&'a [char]),
    /// Words by sentence, counted through the document, and the number of the first word of each.
    Words(&'a [Vec<String>], &'a [usize]),
}

impl Units<'_> {
    /// The text of some units, with single blanks.
    pub(in crate::corpus) fn name(self, range: Range<usize>) -> String {
        match self {
            Self::Characters(text) => one_line(&text[range].iter().collect::<String>()),
            Self::Words(sentences, starts) => {
                let sentence = starts.partition_point(|start| *start <= range.start) - 1;
                let start = range.start - starts[sentence];
                sentences[sentence][start..start + range.len()].join(" ")
            }
        }
    }
}

/// Text with single blanks alone.
pub(in crate::corpus) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where blanks stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blanks {
    /// Between two words alone, as names are compared.
    BetweenWords,
    /// Wherever the text has some.
    Everywhere,
}

/// One character of the normalised text.
#[derive(Clone, Copy)]
struct Place {
    /// Its first byte.
    byte: usize,
    /// Its first unit, and one past its last.
    first: usize,
    end: usize,
}

/// Normalised text.
pub(super) struct Normal {
    pub(super) text: String,
    places: Vec<Place>,
    /// Whether mentions begin and end at the edges of units; otherwise they do at those of words.
    pub(super) whole_units: bool,
}

impl Normal {
    pub(super) fn new(units: Units<'_>, blanks: Blanks) -> Self {
        let mut source = Vec::new();
        match units {
            Units::Characters(text) => {
                source.extend(text.iter().copied().enumerate().map(|(at, c)| (c, at)));
                mark_paragraphs(&mut source);
            }
            Units::Words(sentences, _) => words_of(sentences, &mut source),
        }
        let whole_units = matches!(units, Units::Words(..));
        let mut normal = Self { text: String::new(), places: Vec::new(), whole_units };
        let (mut at, mut gap) = (0, None);
        for (c, change) in source.iter().map(|(c, _)| *c).nfc() {
            // The iterator says by how many characters the text has grown.
            let taken = usize::try_from(1 - change).unwrap_or_default();
            let first = source[if taken == 0 { at - 1 } else { at }].1;
            at += taken;
            let end = source[at - 1].1 + 1;
            match plain(c) {
                Some(BREAK) => gap = Some(BREAK),
                Some(c) if c.is_whitespace() => gap = gap.or(Some(' ')),
                Some(c) => {
                    normal.push_gap(gap.take(), c, blanks, first);
                    normal.push(c, first, end);
                }
                None => {}
            }
        }
        normal
    }

    fn push_gap(&mut self, gap: Option<char>, next: char, blanks: Blanks, unit: usize) {
        let Some(before) = self.text.chars().next_back() else { return };
        match gap {
            Some(BREAK) => self.push(BREAK, unit, unit),
            Some(_) if blanks == Blanks::Everywhere || (joins(before) && joins(next)) => {
                self.push(' ', unit, unit);
            }
            _ => {}
        }
    }

    fn push(&mut self, c: char, first: usize, end: usize) {
        self.places.push(Place { byte: self.text.len(), first, end });
        self.text.push(c);
    }

    /// The text without regard to case.
    pub(super) fn folded(&self) -> Self {
        let mut folded =
            Self { text: String::new(), places: Vec::new(), whole_units: self.whole_units };
        for (c, place) in self.text.chars().zip(&self.places) {
            for lower in fold(c) {
                folded.push(lower, place.first, place.end);
            }
        }
        folded
    }

    /// The units of a range of bytes.
    pub(super) fn units(&self, bytes: Range<usize>) -> Range<usize> {
        let first = self.places.partition_point(|place| place.byte < bytes.start);
        let last = self.places.partition_point(|place| place.byte < bytes.end);
        let ends = self.places[first..last].iter().map(|place| place.end);
        self.places[first].first..ends.max().unwrap_or_default()
    }

    /// Whether a mention may begin at a byte.
    pub(super) fn is_start(&self, byte: usize) -> bool {
        let (before, next) = self.around(byte);
        if self.whole_units { self.is_edge(byte) } else { is_boundary(before, next) }
    }

    /// Whether a mention may end before a byte. Particles follow Korean names without a blank.
    pub(super) fn is_end(&self, byte: usize) -> bool {
        if self.whole_units {
            return self.is_edge(byte);
        }
        let (before, next) = self.around(byte);
        let before_particle = || {
            let last = self.text[..byte].chars().rev().take(2);
            next.is_some_and(is_hangul) && last.filter(|c| is_hangul(*c)).count() == 2
        };
        is_boundary(before, next) || before_particle()
    }

    fn around(&self, byte: usize) -> (Option<char>, Option<char>) {
        (self.text[..byte].chars().next_back(), self.text[byte..].chars().next())
    }

    fn is_edge(&self, byte: usize) -> bool {
        let next = self.places.partition_point(|place| place.byte < byte);
        next == 0
            || self.places.get(next).is_none_or(|place| self.places[next - 1].end <= place.first)
    }
}

/// A name as it is compared.
pub(super) fn normal_name(name: &str) -> String {
    let characters: Vec<char> = one_line(name).chars().collect();
    Normal::new(Units::Characters(&characters), Blanks::BetweenWords).text
}

/// A normalised name without regard to case.
pub(super) fn folded_name(name: &str) -> String {
    name.chars().flat_map(fold).collect()
}

fn fold(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().map(|lower| if lower == 'ς' { 'σ' } else { lower })
}

/// Puts [`BREAK`] where a blank line stands, and a blank for every other line break.
fn mark_paragraphs(source: &mut [(char, usize)]) {
    let mut at = 0;
    while at < source.len() {
        let run = source[at..].iter().take_while(|(c, _)| c.is_whitespace()).count();
        let is_break = is_blank_line(source[at..at + run].iter().map(|(c, _)| *c));
        for (c, _) in &mut source[at..at + run] {
            *c = if is_break { BREAK } else { ' ' };
        }
        at += run + 1;
    }
}

/// The characters of sentences of words, each with the number of its word in the document.
fn words_of(sentences: &[Vec<String>], source: &mut Vec<(char, usize)>) {
    let mut number = 0;
    for sentence in sentences {
        for word in sentence {
            source.extend(
                word.chars()
                    .map(|c| if c.is_whitespace() { ' ' } else { c })
                    .zip(std::iter::repeat(number)),
            );
            source.push((' ', number));
            number += 1;
        }
        source.push((BREAK, number.saturating_sub(1)));
    }
}

/// A character without differences of typesetting; `None` for one that nobody sees.
fn plain(c: char) -> Option<char> {
    match c {
        '’' | '‘' | 'ʼ' => Some('\''),
        '\u{2010}' | '\u{2011}' => Some('-'),
        '\u{AD}' | '\u{200B}' | '\u{2060}' | '\u{FEFF}' => None,
        c => Some(c),
    }
}

/// Whether a character makes one word with another such character beside it.
fn joins(c: char) -> bool {
    (c.is_alphanumeric() || c == '_' || is_combining_mark(c))
        && !is_word_alone(c)
        && without_words(c.encode_utf8(&mut [0; 4])).is_none()
}

fn is_boundary(before: Option<char>, next: Option<char>) -> bool {
    let Some(next) = next else { return true };
    let belongs = is_combining_mark(next) || continues(next);
    let is_one_word = joins(next) && before.is_some_and(joins);
    !belongs && !is_one_word
}

fn is_hangul(c: char) -> bool {
    matches!(u32::from(c), 0xAC00..=0xD7A3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> Normal {
        Normal::new(Units::Characters(&text.chars().collect::<Vec<_>>()), Blanks::BetweenWords)
    }

    #[test]
    fn blanks_stay_between_words_alone_and_blank_lines_break() {
        for (text, expected) in [
            (" Ada\n  Byron ", "Ada Byron"),
            ("St . Mary 's", "St.Mary's"),
            ("IL - 2", "IL-2"),
            ("王 小 明 Ada", "王小明Ada"),
            ("one\r\n\r\ntwo", "one\ntwo"),
            ("Alzheimer\u{2019}s co\u{AD}op 1\u{2010}2", "Alzheimer's coop 1-2"),
            ("u\u{308}ber", "über"),
            ("서울 시", "서울 시"),
        ] {
            assert_eq!(normal(text).text, expected, "{text:?}");
        }
        let sentences = [vec!["IL".to_owned(), "-".into(), "2".into()], vec!["x".into()]];
        let words = Normal::new(Units::Words(&sentences, &[0, 3, 4]), Blanks::BetweenWords);
        assert_eq!(
            (words.text.as_str(), words.units(0..4), words.units(5..6)),
            ("IL-2\nx", 0..3, 3..4)
        );
        let spaced = Normal::new(Units::Words(&sentences, &[0, 3, 4]), Blanks::Everywhere);
        assert_eq!(spaced.text, "IL - 2\nx");
    }

    #[test]
    fn words_begin_and_end_where_their_script_says() {
        let text = normal("ABC公司 서울에서 e\u{301}a abc");
        let find = |part: &str| text.text.find(part).unwrap();
        assert!(text.is_start(find("公")) && text.is_end(find("公")));
        assert!(text.is_end(find("에")) && !text.is_start(find("에")) && !text.is_end(find("울")));
        assert!(!text.is_start(find("bc")) && !text.is_end(find("BC")));
        let mark = normal("q\u{301}a");
        assert!(!mark.is_end(1) && !mark.is_start(1));
    }

    proptest! {
        /// Every character of the normalised text lies where its characters stood.
        #[test]
        fn offsets_hold_in_all_planes(
            text in "(\\PC| |\u{301}|\u{323}|\u{3099}|か|ᄀ|ᅡ|ᆨ|\u{958}|\u{1D15E}|𐐷|e){0,24}"
        ) {
            let characters: Vec<char> = text.chars().collect();
            let normal = Normal::new(Units::Characters(&characters), Blanks::Everywhere);
            let (mut start, mut end) = (0, 0);
            for (at, c) in normal.text.char_indices().filter(|(_, c)| *c != ' ' && *c != BREAK) {
                let units = normal.units(at..at + c.len_utf8());
                prop_assert!(start <= units.start && units.start < units.end);
                (start, end) = (units.start, units.end);
            }
            let is_seen = |c: &char| !c.is_whitespace() && plain(*c).is_some();
            let visible = characters.iter().rposition(is_seen);
            prop_assert_eq!(end, visible.map_or(0, |last| last + 1));
        }
    }
}
