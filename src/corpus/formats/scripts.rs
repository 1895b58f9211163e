//! Scripts that do not put blanks between words, and full stops beside those of ASCII.
//!
//! Han and Kana can be cut into characters, as BERT's tokenizers and Chinese and Japanese corpora
//! do. Words of Thai and others cannot be found without a dictionary.

/// Scripts without blanks whose characters are no words.
const WITHOUT_WORDS: [(&str, u32, u32); 11] = [
    ("Thai", 0x0E00, 0x0E7F),
    ("Lao", 0x0E80, 0x0EFF),
    ("Tibetan", 0x0F00, 0x0FFF),
    ("Burmese", 0x1000, 0x109F),
    ("Khmer", 0x1780, 0x17FF),
    ("Tai Le", 0x1950, 0x197F),
    ("New Tai Lue", 0x1980, 0x19DF),
    ("Tai Tham", 0x1A20, 0x1AAF),
    ("Balinese", 0x1B00, 0x1B7F),
    ("Javanese", 0xA980, 0xA9DF),
    ("Burmese", 0xAA60, 0xAA7F),
];
/// The way out for such text.
pub(in crate::corpus) const GIVE_SENTENCES: &str =
    "cut the text into words yourself, and give them as `sentences` in --format jsonl";

/// Han, Kana, Bopomofo and Yi, with their punctuation and that of full width.
const WORDS_ALONE: [(u32, u32); 12] = [
    (0x2E80, 0x2FDF),
    (0x3001, 0x33FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0xA4CF),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF01, 0xFF0F),
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF9F),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
];

/// The first letter of a script whose words cannot be found, with the name of the script.
pub(in crate::corpus) fn without_words(text: &str) -> Option<(char, &'static str)> {
    text.chars().find_map(|c| {
        let script =
            WITHOUT_WORDS.iter().find(|(_, first, last)| (*first..=*last).contains(&u32::from(c)));
        script.map(|(name, ..)| (c, *name))
    })
}

/// The problem with such text.
pub(in crate::corpus) fn no_words(letter: char, script: &str) -> String {
    format!("`{letter}` is {script}, which has no blanks between words")
}

/// Whether a character is a word of its own.
pub(in crate::corpus) fn is_word_alone(c: char) -> bool {
    WORDS_ALONE.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

/// Whether a character belongs to the one before it: voicing marks of Kana, selectors of variants.
pub(in crate::corpus) fn continues(c: char) -> bool {
    matches!(u32::from(c), 0x3099 | 0x309A | 0xFE00..=0xFE0F | 0xE0100..=0xE01EF)
}

/// Full stops, question and exclamation marks of other scripts: CJK, Devanagari, Arabic, Urdu,
/// Ethiopic, Armenian.
pub(in crate::corpus) fn is_full_stop(c: char) -> bool {
    "。！？｡．।॥؟۔።։‼⁇⁈⁉".contains(c)
}

/// Quotes and brackets that close.
pub(in crate::corpus) fn closes(c: char) -> bool {
    "”’」』）】》〉〕｣)]\"'»".contains(c)
}

/// Whether white space holds a blank line.
pub(in crate::corpus) fn is_blank_line(blanks: impl Iterator<Item = char>) -> bool {
    let mut lines = 0;
    for c in blanks {
        lines += match c {
            '\n' | '\u{85}' | '\u{2028}' => 1,
            '\u{2029}' => 2,
            _ => 0,
        };
    }
    lines > 1
}
