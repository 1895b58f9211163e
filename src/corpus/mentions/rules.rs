//! Dates and numbers, found by rule.
//!
//! What is taken for a date or a number is in docs/formats.md, "What annotate finds". Not for:
//! durations, times of day, or words such as `yesterday`.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::dictionary::leftmost_longest;
use super::normal::Normal;
use crate::corpus::spans::Occupied;

/// The type of dates, as in DocRED.
pub(super) const DATE_TYPE: &str = "TIME";
/// The type of numbers, as in DocRED.
const NUMBER_TYPE: &str = "NUM";

/// What rules find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Findable {
    /// Dates, months with a year, years and decades, of type TIME
    Dates,
    /// Numbers in digits, percentages, and number words from two to twenty, of type NUM
    Numbers,
}

/// A language whose months and number words are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Language {
    /// English
    #[default]
    En,
    /// German
    De,
    /// French
    Fr,
}

/// What a language writes.
struct LanguageWords {
    months: &'static str,
    /// What may stand between day and month, or after a day.
    day: &'static str,
    numbers: &'static str,
    /// What belongs to a number that it follows.
    scales: &'static str,
    /// What separates thousands, and what the fraction.
    signs: (char, char),
    decade: &'static str,
}

const ENGLISH: LanguageWords = LanguageWords {
    months: "January|February|March|April|May|June|July|August|September|October|November|December\
        |Jan\\.?|Feb\\.?|Mar\\.?|Apr\\.?|Jun\\.?|Jul\\.?|Aug\\.?|Sept?\\.?|Oct\\.?|Nov\\.?|Dec\\.?",
    day: "(?:st|nd|rd|th)?(?: of)?",
    numbers: "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen\
        |sixteen|seventeen|eighteen|nineteen|twenty",
    scales: "percent|per cent|hundred|thousand|million|billion|trillion",
    signs: (',', '.'),
    decade: "(?:[Tt]he )?[12][0-9]{2}0'?s",
};
const GERMAN: LanguageWords = LanguageWords {
    months: "Januar|Jänner|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November\
        |Dezember|Jan\\.|Feb\\.|Apr\\.|Aug\\.|Sept?\\.|Okt\\.|Nov\\.|Dez\\.",
    day: "\\.?",
    numbers: "zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|dreizehn|vierzehn|fünfzehn\
        |sechzehn|siebzehn|achtzehn|neunzehn|zwanzig",
    scales: "Prozent|[Tt]ausend|Millionen|Milliarden|Billionen",
    signs: ('.', ','),
    decade: "(?:[12][0-9])?[0-9]0er(?: Jahren?)?",
};
const FRENCH: LanguageWords = LanguageWords {
    months: "janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre\
        |janv\\.|févr\\.|avr\\.|juil\\.|sept\\.|oct\\.|nov\\.|déc\\.",
    day: "(?:er)?",
    numbers: "dix-sept|dix-huit|dix-neuf|deux|trois|quatre|cinq|six|sept|huit|neuf|dix|onze|douze\
        |treize|quatorze|quinze|seize|vingt",
    scales: "mille|millions?|milliards?|pour cent",
    signs: (' ', ','),
    decade: "[Ll]es années (?:19|20)?[0-9]0",
};

impl Language {
    fn words(self) -> &'static LanguageWords {
        match self {
            Self::En => &ENGLISH,
            Self::De => &GERMAN,
            Self::Fr => &FRENCH,
        }
    }
}

const YEAR: &str = "(?:1[0-9]{3}|20[0-9]{2})";
const DAY: &str = "(?:[12][0-9]|3[01]|0?[1-9])";
const MONTH_NUMBER: &str = "(?:1[0-2]|0?[1-9])";

/// Digits with what may stand between them.
#[expect(clippy::expect_used, reason = "a constant")]
static DIGITS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("[0-9]+(?:[.,][0-9]+)*").expect("a valid pattern"));

/// Something found by a rule.
#[derive(Debug, PartialEq)]
pub(super) struct RuleMatch {
    pub(super) units: Range<usize>,
    pub(super) entity_type: &'static str,
}

/// The rules that were asked for.
#[derive(Debug)]
pub(super) struct Rules {
    dates: bool,
    numbers: bool,
    date_patterns: Vec<Regex>,
    number_words: Regex,
    /// What belongs to a number that it follows.
    units: Regex,
    signs: Vec<(char, char)>,
}

impl Rules {
    /// # Errors
    /// A bug: a pattern that cannot be compiled.
    pub(super) fn new(find: &[Findable], languages: &[Language]) -> crate::Result<Self> {
        let all: Vec<&LanguageWords> = languages.iter().map(|language| language.words()).collect();
        let join = |part: fn(&LanguageWords) -> &'static str| {
            all.iter().map(|words| part(words)).collect::<Vec<_>>().join("|")
        };
        let months = format!("(?:{})", join(|words| words.months));
        let day = format!("{DAY}(?:{})", join(|words| words.day));
        let whole = |pattern: String| format!("\\b(?:{pattern})\\b");
        let patterns = [
            // 12 March 1998, 12th of March, 12. März 1998, 1er mars
            whole(format!("{day} {months}(?: ?,? ?{YEAR})?")),
            // March 12, 1998; March 12
            whole(format!("{months} {DAY}(?:st|nd|rd|th)?(?: ?, ?{YEAR}| {YEAR})?")),
            whole(format!("{months} ?,? ?{YEAR}")),
            whole(format!("{YEAR}-{MONTH_NUMBER}-{DAY}")),
            whole(format!("{DAY}[./-]{MONTH_NUMBER}[./-]{YEAR}")),
            whole(format!("{MONTH_NUMBER}/{DAY}/{YEAR}")),
            "[0-9０-９]{4} ?年(?: ?[0-9０-９]{1,2} ?月(?: ?[0-9０-９]{1,2} ?日)?)?".to_owned(),
            whole(join(|words| words.decade)),
        ];
        let compile = |pattern: &String| {
            Regex::new(pattern).map_err(|error| crate::Error::Bug(format!("a rule: {error}")))
        };
        // Number words begin a sentence with a capital letter, too.
        let number_words = format!("\\b(?i:{})\\b", join(|words| words.numbers));
        let units = format!("^ ?(?:%|(?:{})\\b)", join(|words| words.scales));
        Ok(Self {
            dates: find.contains(&Findable::Dates),
            numbers: find.contains(&Findable::Numbers),
            date_patterns: patterns.iter().map(compile).collect::<crate::Result<_>>()?,
            number_words: compile(&number_words)?,
            units: compile(&units)?,
            signs: all.iter().map(|words| words.signs).collect(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.dates && !self.numbers
    }

    /// Dates and numbers of a text with all of its blanks, none of which overlaps what is taken. A
    /// date is no number, whether dates were asked for or not.
    pub(super) fn find(&self, text: &Normal, taken: &Occupied) -> Vec<RuleMatch> {
        let mut dates = self.dates_in(text);
        dates.retain(|date| !taken.overlaps(&text.units(date.clone())));
        let dates = leftmost_longest(dates, Range::clone);
        let in_dates = Occupied::new(dates.iter().cloned());
        let mut numbers = if self.numbers { self.numbers_in(text) } else { Vec::new() };
        numbers.retain(|number| {
            !taken.overlaps(&text.units(number.clone())) && !in_dates.overlaps(number)
        });
        let numbers = leftmost_longest(numbers, Range::clone);
        let dates = dates.into_iter().filter(|_| self.dates).map(|date| (date, DATE_TYPE));
        let all = dates.chain(numbers.into_iter().map(|number| (number, NUMBER_TYPE)));
        let mut all: Vec<RuleMatch> = all
            .map(|(bytes, entity_type)| RuleMatch { units: text.units(bytes), entity_type })
            .collect();
        all.sort_by_key(|found| found.units.start);
        all
    }

    fn dates_in(&self, text: &Normal) -> Vec<Range<usize>> {
        let mut dates: Vec<Range<usize>> = Vec::new();
        for pattern in &self.date_patterns {
            dates.extend(pattern.find_iter(&text.text).map(|found| found.range()));
        }
        dates.retain(|date| !is_part_of_number(&text.text, date));
        dates.extend(years(text));
        dates.retain(|date| text.is_start(date.start) && text.is_end(date.end));
        dates
    }

    fn numbers_in(&self, text: &Normal) -> Vec<Range<usize>> {
        let digits = DIGITS.find_iter(&text.text);
        let digits = digits.filter(|digits| self.is_number(digits.as_str()));
        let mut numbers = Vec::new();
        for number in
            digits.chain(self.number_words.find_iter(&text.text)).map(|found| found.range())
        {
            if stands_alone(text, &number) {
                let unit = self.units.find(&text.text[number.end..]);
                numbers.push(number.start..number.end + unit.map_or(0, |unit| unit.end()));
            }
        }
        numbers.retain(|number| text.is_start(number.start) && text.is_end(number.end));
        numbers
    }

    /// Whether digits and signs are one number, in the way of one of the languages.
    fn is_number(&self, digits: &str) -> bool {
        self.signs.iter().any(|&(thousands, fraction)| {
            let (whole, rest) = digits.split_once(fraction).unwrap_or((digits, "0"));
            let mut groups = whole.split(thousands);
            let first = groups.next().unwrap_or_default();
            let is_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
            let first_fits = groups.clone().next().is_none() || first.len() <= 3;
            is_digits(first)
                && is_digits(rest)
                && first_fits
                && groups.all(|group| group.len() == 3 && is_digits(group))
        })
    }
}

/// Four digits from 1000 to 2099 that are no part of something longer.
fn years(text: &Normal) -> impl Iterator<Item = Range<usize>> + '_ {
    DIGITS.find_iter(&text.text).map(|digits| digits.range()).filter(|range| {
        let (before, after) = text.text.split_at(range.start);
        let (year, after) = after.split_at(range.len());
        year.len() == 4
            && matches!(year.parse(), Ok(1000..=2099))
            && stands_alone(text, range)
            && !before.ends_with(['$', '€', '£', '¥'])
            && !after.trim_start_matches(' ').starts_with('%')
    })
}

/// Whether a range is no part of a name or of a longer number, as the digits of `IL-2`, `12-year`,
/// `555-1234` and `1.2.3` are.
fn stands_alone(text: &Normal, range: &Range<usize>) -> bool {
    let (mut before, mut after) = (&text.text[..range.start], &text.text[range.end..]);
    if text.whole_units {
        // The words of a name are apart.
        (before, after) = (before.trim_end_matches(' '), after.trim_start_matches(' '));
    }
    !is_part_of_number(&text.text, range)
        && !is_bound(before.chars().rev())
        && !is_bound(after.chars())
}

/// Whether a sign that joins follows, with a letter or three digits behind it. Between numbers of
/// other lengths it makes a range: `1939-45`, `10-20`.
fn is_bound(mut from: impl Iterator<Item = char>) -> bool {
    match from.next() {
        Some('#') => true,
        Some('-' | '/' | '_') => {
            let mut behind = from.skip_while(|c| *c == ' ').peekable();
            let is_name = behind.peek().is_some_and(|c| c.is_alphabetic());
            is_name || behind.take_while(char::is_ascii_digit).count() == 3
        }
        _ => false,
    }
}

/// Whether digits go on behind a sign, before or after a range.
fn is_part_of_number(text: &str, range: &Range<usize>) -> bool {
    goes_on(text[..range.start].chars().rev()) || goes_on(text[range.end..].chars())
}

fn goes_on(mut from: impl Iterator<Item = char>) -> bool {
    from.next().is_some_and(|c| matches!(c, '.' | ',' | ':'))
        && from.next().is_some_and(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::normal::{Blanks, Units};
    use super::*;

    fn found(text: &str, languages: &[Language]) -> Vec<(String, &'static str)> {
        let rules = Rules::new(&[Findable::Dates, Findable::Numbers], languages).unwrap();
        let characters: Vec<char> = text.chars().collect();
        let normal = Normal::new(Units::Characters(&characters), Blanks::Everywhere);
        let all = rules.find(&normal, &Occupied::default()).into_iter();
        all.map(|found| (characters[found.units].iter().collect(), found.entity_type)).collect()
    }

    fn dates(text: &str, languages: &[Language]) -> Vec<String> {
        let all = found(text, languages).into_iter().filter(|(_, kind)| *kind == DATE_TYPE);
        all.map(|(name, _)| name).collect()
    }

    fn numbers(text: &str, languages: &[Language]) -> Vec<String> {
        let all = found(text, languages).into_iter().filter(|(_, kind)| *kind == NUMBER_TYPE);
        all.map(|(name, _)| name).collect()
    }

    #[test]
    fn dates_of_many_forms_are_found_whole() {
        for date in [
            "12 March 1998",
            "12th of March 1998",
            "March 12, 1998",
            "March 12th, 1998",
            "March 1998",
            "March, 1998",
            "Sept. 3, 1939",
            "1998",
            "1998-03-12",
            "12/03/1998",
            "12.03.1998",
            "the 1990s",
            "1990's",
            "12 March",
            "May 1",
            "31 Dec. 1999",
            "1998年3月12日",
            "1998年",
            "１９９８年３月",
        ] {
            assert_eq!(dates(&format!("It was {date}, they say."), &[Language::En]), [date]);
        }
        for (text, language, date) in [
            ("Am 12. März 1998 kam er.", Language::De, "12. März 1998"),
            ("Im Januar 2001 ging er.", Language::De, "Januar 2001"),
            ("In den 90er Jahren.", Language::De, "90er Jahren"),
            ("Le 1er janvier 1998, il vint.", Language::Fr, "1er janvier 1998"),
            ("en février 1848 .", Language::Fr, "février 1848"),
        ] {
            assert_eq!(dates(text, &[language]), [date], "{text}");
        }
        assert_eq!(dates("From 1939-1945, 1939–45.", &[Language::En]), ["1939", "1945", "1939"]);
        assert_eq!(dates("他于1998年3月12日生于北京。", &[Language::En]), ["1998年3月12日"]);
        for text in [
            "May I march?",
            "Room 21000",
            "1,998 men",
            "call 555-1998",
            "IL-1998",
            "$1998",
            "12 Martins",
            "1998.5",
            "v1998",
            "1998 %",
            "March 45, in",
            "0998",
            "2100",
        ] {
            assert_eq!(dates(text, &[Language::En]), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn numbers_are_no_parts_of_names_dates_or_longer_numbers() {
        for (text, expected) in [
            ("about 1,234 men and 12.5 kg", vec!["1,234", "12.5"]),
            ("12.5 % and 7% or 3 percent", vec!["12.5 %", "7%", "3 percent"]),
            ("two of Seventeen, often one", vec!["two", "Seventeen"]),
            ("12.5 million and two hundred", vec!["12.5 million", "two hundred"]),
            ("IL-2, COVID-19, p53, B12, 12-year-old, 1.2.3, 12th, 10:30", vec![]),
            ("10-20 rats", vec!["10", "20"]),
            ("On 12 March 1998 there were 7.", vec!["7"]),
            ("in 1998, 400 came", vec!["400"]),
            ("12,34", vec![]),
        ] {
            assert_eq!(numbers(text, &[Language::En]), expected, "{text}");
        }
        assert_eq!(numbers("1.234 und 12,5 Prozent", &[Language::De]), ["1.234", "12,5 Prozent"]);
        assert_eq!(
            numbers("dix-sept ou 12,5 pour cent", &[Language::Fr]),
            ["dix-sept", "12,5 pour cent"]
        );
        // A year is no number although dates were not asked for.
        let rules = Rules::new(&[Findable::Numbers], &[Language::En]).unwrap();
        let text: Vec<char> = "in 1998, 5".chars().collect();
        let normal = Normal::new(Units::Characters(&text), Blanks::Everywhere);
        assert_eq!(
            rules.find(&normal, &Occupied::default()),
            [RuleMatch { units: 9..10, entity_type: "NUM" }]
        );
    }
}
