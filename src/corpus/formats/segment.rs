//! Sentences and words of running text, and mentions as spans of words.
//!
//! The rules for abstracts lead to the sentences and words in which CDR is passed around (made with
//! GENIA's splitter and tokeniser; docs/formats.md, "CDR and GDA"): a sentence ends at a word with
//! a full stop, unless the word is an abbreviation that goes on. Other text has initials and
//! titles, which end no sentence. A mention is never cut. Each character of Han and Kana is a word,
//! as in Chinese and Japanese corpora, and full stops of other scripts (`scripts`) end a sentence
//! wherever they stand. Not for: word pieces (`text`).

use std::ops::Range;

use super::scripts::{closes, continues, is_blank_line, is_full_stop, is_word_alone};
use crate::corpus::spans::Occupied;

/// Running text, cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Segmented {
    /// Words by sentence.
    pub sentences: Vec<Vec<String>>,
    /// Sentence, first word and one past the last word (in the sentence) of each mention; `None`
    /// for one that covers no word.
    pub spans: Vec<Option<(usize, usize, usize)>>,
    /// Whether given sentences were joined, because a mention lies in both.
    pub joined: bool,
}

/// Abbreviations that are followed by more of their sentence whatever it begins with.
const GOES_ON: [&str; 1] = ["vs"];
/// Abbreviations that are followed by more of their sentence unless that begins with a capital
/// letter.
const MAY_GO_ON: [&str; 6] = ["i.e", "e.g", "al", "Gm", "mEq", "M.S"];
/// Abbreviations of titles, which a name follows.
const BEFORE_NAME: [&str; 2] = ["St", "S"];

/// Titles, which a name follows, in text that is no abstract.
const TITLES: [&str; 24] = [
    "St", "Ste", "Dr", "Mr", "Mrs", "Ms", "Mme", "Mlle", "Prof", "Gen", "Col", "Capt", "Cpt", "Lt",
    "Sgt", "Maj", "Rev", "Sen", "Gov", "Rep", "Hon", "Pres", "Mt", "Ft",
];
/// Other abbreviations, which end a sentence before a capital letter alone.
const ABBREVIATIONS: [&str; 50] = [
    "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec", "No",
    "Nos", "no", "Nr", "Fig", "Figs", "fig", "figs", "Eq", "eq", "Sec", "sec", "Ch", "ch", "Vol",
    "vol", "p", "pp", "ed", "eds", "Inc", "Ltd", "Co", "Corp", "Bros", "Jr", "Sr", "al", "etc",
    "cf", "ca", "c", "approx", "resp", "Ph.D", "Abb", "bzw", "Bd",
];

/// What ends a sentence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Prose {
    /// Text of any kind.
    #[default]
    General,
    /// Abstracts, as GENIA's splitter cuts them.
    Abstract,
}

/// How a text is cut: words and sentences that another program has made, where it has.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub prose: Prose,
    /// The words, in order, without overlaps.
    pub words: Option<Vec<Range<usize>>>,
    /// Where sentences begin, in order.
    pub sentences: Option<Vec<usize>>,
}

/// Cuts `text`. Mentions are spans of characters, inside the text and not empty. `title` characters
/// come before the body, which begins with a sentence of its own one character later; 0 for text
/// without a title. A given sentence stays one although it has no word.
pub(super) fn segment(
    text: &[char],
    title: usize,
    mentions: &[Range<usize>],
    cut: &Cut,
) -> Segmented {
    let mut starts = match &cut.sentences {
        Some(starts) => starts.iter().skip(1).copied().collect(),
        None => own_starts(text, title, cut.prose),
    };
    let (all, occupied) = (starts.len(), Occupied::new(mentions.iter().cloned()));
    starts.retain(|&start| !occupied.cross(start));
    let joined = cut.sentences.is_some() && starts.len() < all;
    let spans = vec![None; mentions.len()];
    let mut segmented = Segmented { spans, joined, ..Segmented::default() };
    let mut order: Vec<usize> = (0..mentions.len()).collect();
    order.sort_by_key(|&mention| mentions[mention].start);
    starts.push(text.len());
    let mut first = 0;
    for end in starts {
        let words = match &cut.words {
            Some(all) => {
                let place = |at: usize| all.partition_point(|word| word.start < at);
                all[place(first)..place(end)].to_vec()
            }
            None => words(text, first..end),
        };
        if !words.is_empty() || cut.sentences.is_some() {
            let place = |at: usize| order.partition_point(|&mention| mentions[mention].start < at);
            segmented.push(text, &words, mentions, &order[place(first)..place(end)]);
        }
        first = end;
    }
    segmented
}

impl Segmented {
    /// Adds a sentence, in which some of the mentions begin.
    fn push(
        &mut self,
        text: &[char],
        words: &[Range<usize>],
        mentions: &[Range<usize>],
        own: &[usize],
    ) {
        for &number in own {
            let mention = &mentions[number];
            let first = words.partition_point(|word| word.end <= mention.start);
            let end = words.partition_point(|word| word.start < mention.end);
            self.spans[number] = (first < end).then_some((self.sentences.len(), first, end));
        }
        self.sentences.push(words.iter().map(|word| text[word.clone()].iter().collect()).collect());
    }
}

fn own_starts(text: &[char], title: usize, prose: Prose) -> Vec<usize> {
    let body = if title == 0 { 0 } else { (title + 1).min(text.len()) };
    let mut starts = match prose {
        Prose::Abstract => sentence_starts(text, body),
        Prose::General => prose_starts(text),
    };
    starts.extend(starts_behind_full_stops(text));
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Characters of text of any kind at which a sentence begins, without the first one.
fn prose_starts(text: &[char]) -> Vec<usize> {
    let blocks: Vec<Range<usize>> = blocks(text, 0..text.len());
    let mut starts = Vec::new();
    let mut opens_paragraph = true;
    for pair in blocks.windows(2) {
        let (block, next) = (&pair[0], &pair[1]);
        let ends_paragraph = is_blank_line(text[block.end..next.start].iter().copied());
        // A number such as `1.` at the start of a paragraph belongs to what follows.
        let is_number = opens_paragraph && text[block.start].is_ascii_digit();
        let ends = || ends_prose(&text[block.clone()], &text[next.clone()]);
        if ends_paragraph || (!is_number && ends()) {
            starts.push(next.start);
        }
        opens_paragraph = ends_paragraph;
    }
    starts
}

/// Whether a sentence ends after a run of characters without white space, before the next one.
fn ends_prose(block: &[char], next: &[char]) -> bool {
    let opens = |c: &char| "([{\"'“‘„«‹¿¡".contains(*c);
    let Some(first) = next.iter().find(|c| !opens(c)) else { return false };
    let Some(last) = block.iter().rposition(|c| !closes(*c)) else { return false };
    match block[last] {
        _ if first.is_lowercase() => false,
        '!' | '?' | '…' => true,
        '.' => {
            let word: String = block[..last].iter().skip_while(|c| opens(c)).collect();
            let mut parts = word.split('.').map(|part| part.chars().collect::<Vec<_>>());
            let is_initials = parts.all(|part| matches!(part[..], [c] if c.is_alphabetic()));
            let goes_on = is_initials
                || [&TITLES[..], &GOES_ON[..]].iter().any(|list| list.contains(&word.as_str()));
            !goes_on && (first.is_uppercase() || !ABBREVIATIONS.contains(&word.as_str()))
        }
        _ => false,
    }
}

/// Characters of an abstract at which a sentence begins, without the first one.
fn sentence_starts(text: &[char], body: usize) -> Vec<usize> {
    let blocks: Vec<Range<usize>> = blocks(text, 0..text.len());
    let mut starts = Vec::new();
    for pair in blocks.windows(2) {
        let (block, next) = (&pair[0], pair[1].start);
        let leaves_title = body > 0 && block.end <= body && body <= next;
        if leaves_title
            || ends_sentence(
                &text[block.clone()],
                text[next],
                block.start == 0 || block.start == body,
                next > body,
            )
        {
            starts.push(next);
        }
    }
    starts
}

/// Characters at which a sentence begins behind a full stop of another script, or behind an ASCII
/// one between characters of Han or Kana. Quotes and brackets that close belong to the sentence.
fn starts_behind_full_stops(text: &[char]) -> Vec<usize> {
    let mut starts = Vec::new();
    for (at, &c) in text.iter().enumerate() {
        let is_ascii = at > 0 && matches!(c, '.' | '!' | '?') && is_word_alone(text[at - 1]);
        if !is_ascii && !is_full_stop(c) {
            continue;
        }
        let is_part = |&next: &usize| {
            closes(text[next]) || is_full_stop(text[next]) || text[next].is_whitespace()
        };
        let mut behind = (at + 1..text.len()).skip_while(is_part);
        let Some(start) = behind.next() else { break };
        let between_digits = c == '．' && start == at + 1 && text[start].is_numeric();
        if !between_digits && (!is_ascii || is_word_alone(text[start])) {
            starts.push(start);
        }
    }
    starts
}

/// Whether a sentence ends after a run of characters without white space, before one that begins
/// with `next`.
fn ends_sentence(block: &[char], next: char, opens_passage: bool, in_body: bool) -> bool {
    let Some((last, before)) = block.split_last() else { return false };
    if matches!(last, '?' | '!') {
        return in_body && next.is_uppercase();
    }
    let word: String = before.iter().skip_while(|c| "([{\"'".contains(**c)).collect();
    // A number such as `1.` at the start of a passage belongs to what follows.
    if *last != '.' || word.is_empty() || opens_passage || GOES_ON.contains(&word.as_str()) {
        return false;
    }
    let may_go_on = MAY_GO_ON.contains(&word.as_str())
        || (before.len() <= 2 && word.len() == 1 && word.chars().all(|c| c.is_ascii_uppercase()));
    let before_name = BEFORE_NAME.contains(&word.as_str());
    if next.is_uppercase() { !before_name } else { !may_go_on }
}

/// Runs of characters that are not white space.
fn blocks(text: &[char], range: Range<usize>) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut start = None;
    for at in range.clone() {
        match (text[at].is_whitespace(), start) {
            (false, None) => start = Some(at),
            (true, Some(first)) => {
                blocks.push(first..at);
                start = None;
            }
            _ => {}
        }
    }
    blocks.extend(start.map(|first| first..range.end));
    blocks
}

/// Words: runs without white space, with punctuation apart and `cannot` in two.
fn words(text: &[char], range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    for block in blocks(text, range) {
        let mut at = block.start;
        while at < block.end {
            let end = word_end(text, at, block.end);
            let is_cannot = end - at == 6
                && text[at..end]
                    .iter()
                    .zip("cannot".chars())
                    .all(|(a, b)| a.eq_ignore_ascii_case(&b));
            if is_cannot {
                words.push(at..at + 3);
                at += 3;
            }
            words.push(at..end);
            at = end;
        }
    }
    words
}

fn is_apart(c: char) -> bool {
    "-/+.=*(),;:[]{}?!\"'<>%&$#@`“”‘’„‚«»‹›–—…‐‑−".contains(c)
        || is_full_stop(c)
        || is_word_alone(c)
}

fn word_end(text: &[char], at: usize, limit: usize) -> usize {
    if matches!(text[at], '\'' | '’')
        && at + 1 < limit
        && text[at + 1] == 's'
        && text.get(at + 2).is_none_or(|c| !c.is_alphanumeric() && *c != '_')
    {
        return at + 2;
    }
    if is_apart(text[at]) {
        return (at + 1..limit).find(|&next| !continues(text[next])).unwrap_or(limit);
    }
    (at..limit).find(|&next| is_apart(text[next])).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segmented(text: &str, title: usize, mentions: &[Range<usize>]) -> Segmented {
        let cut = Cut { prose: Prose::Abstract, ..Cut::default() };
        segment(&text.chars().collect::<Vec<_>>(), title, mentions, &cut)
    }

    fn cut_prose(text: &str) -> Vec<String> {
        let text: Vec<char> = text.chars().collect();
        let sentences = segment(&text, 0, &[], &Cut::default()).sentences;
        sentences.iter().map(|words| words.join(" ")).collect()
    }

    fn cut(text: &str, title: usize) -> Vec<String> {
        segmented(text, title, &[]).sentences.iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn sentences_end_at_full_stops() {
        let text = "A title. 1. It fell (by 0.2 mg/kg, i.v.) vs. 3 at St. Mary's. Why? So it ended \
            i.e. there. 2. The end.";
        let expected = [
            "A title .",
            "1 . It fell ( by 0 . 2 mg / kg , i . v . ) vs . 3 at St . Mary 's .",
            "Why ?",
            "So it ended i . e . there .",
            "2 .",
            "The end .",
        ];
        assert_eq!(cut(text, 8), expected);
    }

    #[test]
    fn white_space_alone_makes_no_sentence() {
        assert_eq!(cut("  \n ", 0), Vec::<String>::new());
        assert_eq!(cut("", 0), Vec::<String>::new());
        assert_eq!(cut("A  b. ", 0), ["A b ."]);
        assert_eq!(cut(" Only a body.", 0), ["Only a body ."]);
    }

    #[test]
    fn a_mention_is_whole_words_of_one_sentence() {
        let text = "One cannot see anti-X. Y disease here. It's Z.";
        let spans = segmented(text, 0, &[0..3, 15..26, 20..22, 39..41, 22..23]).spans;
        assert_eq!(
            spans,
            [Some((0, 0, 1)), Some((0, 4, 10)), Some((0, 6, 8)), Some((1, 0, 1)), None]
        );
    }

    #[test]
    fn han_and_kana_are_words_each_and_their_full_stops_end_sentences() {
        let text = "王小明说：“我来了。”他住在北京！ABC公司？是的。";
        assert_eq!(
            cut(text, 0),
            ["王 小 明 说 ： “ 我 来 了 。 ”", "他 住 在 北 京 ！", "ABC 公 司 ？", "是 的 。"]
        );
        assert_eq!(
            cut("東京タワーへ行く。「ﾃｽﾄ」です｡", 0),
            ["東 京 タ ワ ー へ 行 く 。", "「 ﾃ ｽ ﾄ 」 で す ｡"]
        );
        assert_eq!(
            cut("他来了!她走了.价格3.5元", 0),
            ["他 来 了 !", "她 走 了 .", "价 格 3 . 5 元"]
        );
        assert_eq!(cut("约３．５元。Ok. 好", 0), ["约 ３ ． ５ 元 。", "Ok . 好"]);
        assert_eq!(
            segmented(text, 0, &[0..3, 11..12, 14..16, 17..20]).spans,
            [Some((0, 0, 3)), Some((1, 0, 1)), Some((1, 3, 5)), Some((2, 0, 1))]
        );
        // A mention is not cut by a full stop inside of it.
        let mention = 0..6;
        let found = segmented("早安。少女组来了。", 0, std::slice::from_ref(&mention));
        assert_eq!(found.sentences.len(), 1);
        // A mark that belongs to a character stays with it.
        assert_eq!(cut("か\u{3099}き", 0), ["か\u{3099} き"]);
    }

    #[test]
    fn scripts_with_blanks_have_full_stops_of_their_own() {
        assert_eq!(cut("राम घर गया। सीता आई॥", 0), ["राम घर गया ।", "सीता आई ॥"]);
        assert_eq!(cut("کیا ہے؟ اچھا ہے۔ ہاں", 0), ["کیا ہے ؟", "اچھا ہے ۔", "ہاں"]);
    }

    #[test]
    fn initials_titles_and_abbreviations_end_no_sentence_of_prose() {
        for (text, expected) in [
            ("A title\n\nIts text\ngoes on", vec!["A title", "Its text goes on"]),
            (
                "Dr. J. J. Ross met Mr. Fox. He left.",
                vec!["Dr . J . J . Ross met Mr . Fox .", "He left ."],
            ),
            (
                "The U.S. Army, approx. 5 men. Then 6.",
                vec!["The U . S . Army , approx . 5 men .", "Then 6 ."],
            ),
            (
                "On Jan. 5 (fig. 2). Acme Inc. lost.",
                vec!["On Jan . 5 ( fig . 2 ) .", "Acme Inc . lost ."],
            ),
            (
                "“Go,” he said. “Why?” “No…” Ada’s end.",
                vec!["“ Go , ” he said .", "“ Why ? ”", "“ No … ”", "Ada ’s end ."],
            ),
            ("1. The first. 2. The next.", vec!["1 . The first .", "2 .", "The next ."]),
            (
                "It cost 3.5 in 1998. 12 came! and went",
                vec!["It cost 3 . 5 in 1998 .", "12 came ! and went"],
            ),
            ("Acme Inc. The end... Or not", vec!["Acme Inc .", "The end . . .", "Or not"]),
            ("Élan vital. Ça va? Ωmega.", vec!["Élan vital .", "Ça va ?", "Ωmega ."]),
        ] {
            assert_eq!(cut_prose(text), expected, "{text}");
        }
    }

    #[test]
    fn offsets_count_characters() {
        let cut = segmented("Ünï é. Ω here.", 0, &[7..8, 0..1]);
        assert_eq!(cut.spans, [Some((1, 0, 1)), Some((0, 0, 1))]);
        assert_eq!(cut.sentences[1][0], "Ω");
    }
}
