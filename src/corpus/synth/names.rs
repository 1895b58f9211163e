//! Names of the generated world, put together from parts (`names.txt`), so that names repeat,
//! resemble each other and give no hint of a relation.

use std::sync::LazyLock;

use rand::{Rng, RngExt, seq::IndexedRandom};

use super::lists::TextLists;

static NAMES: LazyLock<TextLists> =
    LazyLock::new(|| TextLists::new(include_str!("names.txt"), char::is_whitespace));

/// All parts of one kind, by a heading of `names.txt`.
pub(super) fn parts(heading: &str) -> &'static [&'static str] {
    NAMES.of(heading)
}

fn pick<R: Rng>(rng: &mut R, heading: &str) -> &'static str {
    parts(heading).choose(rng).copied().unwrap_or_default()
}

fn syllables<R: Rng>(rng: &mut R, ends: &str) -> String {
    let middle = if rng.random_bool(0.6) { pick(rng, "middle syllables") } else { "" };
    format!("{}{middle}{}", pick(rng, "first syllables"), pick(rng, ends))
}

/// A family name, such as `Norenwick`.
pub(super) fn family<R: Rng>(rng: &mut R) -> String {
    syllables(rng, "ends of families")
}

/// The name of a city. Some of the ends are those of families too.
pub(super) fn city<R: Rng>(rng: &mut R) -> String {
    syllables(rng, "ends of cities")
}

/// The name of a country.
pub(super) fn country<R: Rng>(rng: &mut R) -> String {
    syllables(rng, "ends of countries")
}

/// The names of a person: full, with an initial, family name alone.
pub(super) fn person<R: Rng>(rng: &mut R, female: bool, family: &str) -> Vec<String> {
    let given = pick(rng, if female { "women" } else { "men" });
    let initial = given.chars().next().unwrap_or('X');
    vec![format!("{given} {family}"), format!("{initial}. {family}"), family.to_owned()]
}

/// The names of a company. A third are named after a place or a family, the rest after a thing.
pub(super) fn company<R: Rng>(rng: &mut R, publishes: bool, eponyms: &[String]) -> Vec<String> {
    let head = match eponyms.choose(rng) {
        Some(eponym) if rng.random_bool(0.35) => eponym.clone(),
        _ => format!("{} {}", pick(rng, "heads of companies"), pick(rng, "first syllables")),
    };
    let end = pick(rng, if publishes { "ends of publishers" } else { "ends of companies" });
    vec![format!("{head} {end}"), format!("{head} {end} Ltd")]
}

/// The names of a university in `city`.
pub(super) fn university(city: &str) -> Vec<String> {
    vec![format!("University of {city}"), format!("{city} University")]
}

/// The title of a book.
pub(super) fn work<R: Rng>(rng: &mut R, eponyms: &[String]) -> Vec<String> {
    let title = format!("The {} {}", pick(rng, "adjectives of works"), pick(rng, "nouns of works"));
    match eponyms.choose(rng) {
        Some(eponym) if rng.random_bool(0.4) => vec![format!("{title} of {eponym}")],
        _ => vec![title],
    }
}

/// A date of that year in two spellings.
pub(super) fn date<R: Rng>(rng: &mut R, year: u32) -> Vec<String> {
    let (day, month) = (rng.random_range(1..29), pick(rng, "months"));
    vec![format!("{day} {month} {year}"), format!("{month} {day} , {year}")]
}

/// A count with a thousands separator inside one word.
pub(super) fn number<R: Rng>(rng: &mut R, thousands: std::ops::Range<u32>) -> Vec<String> {
    vec![format!("{},{:03}", rng.random_range(thousands), rng.random_range(0..1000))]
}
