//! Sentences and words of running text, and mentions as spans of words.
//!
//! The rules lead to the sentences and words in which CDR is passed around (made with GENIA's
//! splitter and tokeniser; docs/formats.md, "CDR and GDA"): a sentence ends at a word with a full
//! stop, unless the word is an abbreviation that goes on; a mention is never cut. Each character of
//! Han and Kana is a word, as in Chinese and Japanese corpora, and full stops of other scripts
//! (`scripts`) end a sentence wherever they stand. Not for: word pieces (`text`).

use std::ops::Range;

use super::scripts::{closes, continues, is_full_stop, is_word_alone};

/// Running text, cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Segmented {
    /// Words by sentence.
    pub sentences: Vec<Vec<String>>,
    /// Sentence, first word and one past the last word (in the sentence) of each mention; `None`
    /// for one that covers no word.
    pub spans: Vec<Option<(usize, usize, usize)>>,
}

/// Abbreviations that are followed by more of their sentence whatever it begins with.
const GOES_ON: [&str; 1] = ["vs"];
/// Abbreviations that are followed by more of their sentence unless that begins with a capital
/// letter.
const MAY_GO_ON: [&str; 6] = ["i.e", "e.g", "al", "Gm", "mEq", "M.S"];
/// Abbreviations of titles, which a name follows.
const BEFORE_NAME: [&str; 2] = ["St", "S"];

/// Cuts `text`. Mentions are spans of characters, inside the text and not empty. `title` characters
/// come before the body, which begins with a sentence of its own one character later; 0 for text
/// without a title.
pub(crate) fn segment(text: &str, title: usize, mentions: &[Range<usize>]) -> Segmented {
    let text: Vec<char> = text.chars().collect();
    let body = if title == 0 { 0 } else { (title + 1).min(text.len()) };
    let mut starts = sentence_starts(&text, body);
    starts.extend(starts_behind_full_stops(&text));
    starts.sort_unstable();
    starts.dedup();
    starts.retain(|&start| {
        !mentions.iter().any(|mention| mention.start < start && start < mention.end)
    });
    let mut segmented = Segmented { spans: vec![None; mentions.len()], ..Segmented::default() };
    starts.push(text.len());
    let mut first = 0;
    for end in starts {
        let words = words(&text, first..end);
        if !words.is_empty() {
            segmented.push(&text, first..end, &words, mentions);
        }
        first = end;
    }
    segmented
}

impl Segmented {
    fn push(
        &mut self,
        text: &[char],
        range: Range<usize>,
        words: &[Range<usize>],
        mentions: &[Range<usize>],
    ) {
        for (mention, span) in mentions.iter().zip(&mut self.spans) {
            if range.contains(&mention.start) {
                let first = words.partition_point(|word| word.end <= mention.start);
                let end = words.partition_point(|word| word.start < mention.end);
                *span = (first < end).then_some((self.sentences.len(), first, end));
            }
        }
        self.sentences.push(words.iter().map(|word| text[word.clone()].iter().collect()).collect());
    }
}

/// Characters at which a sentence begins, without the first one.
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
    "-/+.=*(),;:[]{}?!\"'<>%&$#@`".contains(c) || is_full_stop(c) || is_word_alone(c)
}

fn word_end(text: &[char], at: usize, limit: usize) -> usize {
    if text[at] == '\''
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

    fn cut(text: &str, title: usize) -> Vec<String> {
        segment(text, title, &[]).sentences.iter().map(|words| words.join(" ")).collect()
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
        let spans = segment(text, 0, &[0..3, 15..26, 20..22, 39..41, 22..23]).spans;
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
            segment(text, 0, &[0..3, 11..12, 14..16, 17..20]).spans,
            [Some((0, 0, 3)), Some((1, 0, 1)), Some((1, 3, 5)), Some((2, 0, 1))]
        );
        // A mention is not cut by a full stop inside of it.
        let mention = 0..6;
        let found = segment("早安。少女组来了。", 0, std::slice::from_ref(&mention));
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
    fn offsets_count_characters() {
        let cut = segment("Ünï é. Ω here.", 0, &[7..8, 0..1]);
        assert_eq!(cut.spans, [Some((1, 0, 1)), Some((0, 0, 1))]);
        assert_eq!(cut.sentences[1][0], "Ω");
    }
}
