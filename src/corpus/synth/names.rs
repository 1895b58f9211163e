//! Names of the generated world, put together from parts, so that names repeat, resemble each other
//! and leave no hint of a relation.

use rand::{Rng, RngExt, seq::IndexedRandom};

pub(super) const FEMALE: [&str; 48] = [
    "Alda", "Brina", "Cora", "Delia", "Edda", "Flora", "Greta", "Hilma", "Ilse", "Jolana",
    "Katrin", "Liora", "Maren", "Nelda", "Olga", "Petra", "Runa", "Selma", "Tilda", "Ulla", "Vera",
    "Wanda", "Yrsa", "Zelda", "Anouk", "Bettina", "Clara", "Dorit", "Elin", "Frida", "Gisela",
    "Hanna", "Ines", "Judith", "Kaja", "Lotte", "Mira", "Nora", "Oda", "Paula", "Rosa", "Sanna",
    "Thea", "Undine", "Vilma", "Wilma", "Ylva", "Zita",
];

pub(super) const MALE: [&str; 48] = [
    "Aldo", "Bram", "Casper", "Dirk", "Emil", "Fabian", "Gerd", "Hugo", "Ivo", "Jonas", "Karel",
    "Lorenz", "Magnus", "Niels", "Otto", "Pavel", "Rasmus", "Stellan", "Tobias", "Ulrich",
    "Viktor", "Wendel", "Yorick", "Zeno", "Anton", "Boris", "Conrad", "Detlef", "Edgar", "Felix",
    "Gustav", "Henrik", "Ignaz", "Jakob", "Klemens", "Ludwig", "Moritz", "Nathan", "Oskar",
    "Philip", "Ruben", "Sander", "Thilo", "Urban", "Valentin", "Walter", "Xaver", "Yannis",
];

/// First, middle and last syllables of families and places.
pub(super) const ONSETS: [&str; 40] = [
    "Bal", "Bren", "Cal", "Cor", "Dal", "Dren", "Eld", "Fen", "Gar", "Glen", "Hal", "Har", "Jor",
    "Kel", "Kor", "Lan", "Lor", "Mar", "Mel", "Mor", "Nar", "Nor", "Ol", "Or", "Pel", "Quen",
    "Ral", "Ros", "Sal", "Sten", "Tal", "Tor", "Ul", "Val", "Ver", "Wal", "Wes", "Yar", "Zan",
    "Zor",
];
pub(super) const MIDDLES: [&str; 16] =
    ["a", "e", "i", "o", "an", "en", "in", "er", "ar", "is", "ol", "um", "and", "est", "ick", "ov"];
pub(super) const FAMILY_ENDS: [&str; 20] = [
    "berg", "by", "dal", "dine", "feld", "gren", "holt", "kin", "land", "lund", "mann", "mere",
    "ner", "ric", "sen", "stad", "ström", "ton", "vik", "wick",
];
pub(super) const CITY_ENDS: [&str; 16] = [
    "borough", "bridge", "burg", "dale", "fold", "ford", "grad", "ham", "haven", "minster",
    "mouth", "port", "stead", "ville", "well", "wick",
];
pub(super) const COUNTRY_ENDS: [&str; 8] =
    ["avia", "enia", "istan", "land", "mark", "onia", "oria", "ovia"];

pub(super) const COMPANY_HEADS: [&str; 40] = [
    "Amber", "Anchor", "Atlas", "Aurora", "Beacon", "Bishop", "Bronze", "Cedar", "Comet", "Copper",
    "Crown", "Delta", "Eagle", "Ember", "Falcon", "Granite", "Harbour", "Heron", "Iris", "Iron",
    "Ivory", "Juniper", "Kestrel", "Lantern", "Linden", "Marble", "Meridian", "North", "Onyx",
    "Orchard", "Pioneer", "Quarry", "Raven", "Sable", "Silver", "Summit", "Thistle", "Tidal",
    "Union", "Willow",
];
pub(super) const COMPANY_ENDS: [&str; 16] = [
    "Works",
    "Holdings",
    "Foundry",
    "Shipping",
    "Mills",
    "Motors",
    "Bank",
    "Laboratories",
    "Textiles",
    "Optics",
    "Railways",
    "Instruments",
    "Breweries",
    "Energy",
    "Films",
    "Group",
];
pub(super) const PUBLISHER_ENDS: [&str; 8] =
    ["Press", "Publishing", "Books", "Editions", "Media", "Verlag", "Printers", "House"];
pub(super) const WORK_ADJECTIVES: [&str; 36] = [
    "Silent",
    "Broken",
    "Golden",
    "Hidden",
    "Last",
    "Distant",
    "Winter",
    "Burning",
    "Empty",
    "Paper",
    "Crooked",
    "Second",
    "Endless",
    "Glass",
    "Hollow",
    "Quiet",
    "Restless",
    "Salt",
    "Stolen",
    "Velvet",
    "White",
    "Crimson",
    "Patient",
    "Narrow",
    "Borrowed",
    "Early",
    "Final",
    "Gentle",
    "Invisible",
    "Lonely",
    "Painted",
    "Sleeping",
    "Small",
    "Tall",
    "Wandering",
    "Yellow",
];
pub(super) const WORK_NOUNS: [&str; 36] = [
    "Orchard",
    "Harbour",
    "Letter",
    "Garden",
    "Mirror",
    "Staircase",
    "River",
    "Lighthouse",
    "Window",
    "Clock",
    "Island",
    "Bridge",
    "Summer",
    "Promise",
    "Witness",
    "Storm",
    "Tower",
    "Meadow",
    "Orphan",
    "Voyage",
    "Choir",
    "Forest",
    "Ladder",
    "Map",
    "Neighbour",
    "Piano",
    "Question",
    "Road",
    "Shadow",
    "Theatre",
    "Umbrella",
    "Valley",
    "Winter",
    "Wolf",
    "Anthem",
    "Bell",
];
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn pick<'a, R: Rng>(rng: &mut R, words: &[&'a str]) -> &'a str {
    words.choose(rng).copied().unwrap_or_default()
}

fn syllables<R: Rng>(rng: &mut R, ends: &[&str]) -> String {
    let middle = if rng.random_bool(0.6) { pick(rng, &MIDDLES) } else { "" };
    format!("{}{middle}{}", pick(rng, &ONSETS), pick(rng, ends))
}

/// A family name, such as `Norenwick`.
pub(super) fn family<R: Rng>(rng: &mut R) -> String {
    syllables(rng, &FAMILY_ENDS)
}

/// A city; its ends overlap with those of families.
pub(super) fn city<R: Rng>(rng: &mut R) -> String {
    syllables(rng, &CITY_ENDS)
}

/// A country.
pub(super) fn country<R: Rng>(rng: &mut R) -> String {
    syllables(rng, &COUNTRY_ENDS)
}

/// The names of a person: full, with an initial, family name alone.
pub(super) fn person<R: Rng>(rng: &mut R, female: bool, family: &str) -> Vec<String> {
    let given = pick(rng, if female { &FEMALE } else { &MALE });
    let initial = given.chars().next().unwrap_or('X');
    vec![format!("{given} {family}"), format!("{initial}. {family}"), family.to_owned()]
}

/// The names of a company: a third are called after a place or a family, the rest after a thing.
pub(super) fn company<R: Rng>(rng: &mut R, publishes: bool, eponyms: &[String]) -> Vec<String> {
    let head = match eponyms.choose(rng) {
        Some(eponym) if rng.random_bool(0.35) => eponym.clone(),
        _ => format!("{} {}", pick(rng, &COMPANY_HEADS), pick(rng, &ONSETS)),
    };
    let end = pick(rng, if publishes { &PUBLISHER_ENDS } else { &COMPANY_ENDS });
    vec![format!("{head} {end}"), format!("{head} {end} Ltd")]
}

/// The names of a university in `city`.
pub(super) fn university(city: &str) -> Vec<String> {
    vec![format!("University of {city}"), format!("{city} University")]
}

/// The title of a book.
pub(super) fn work<R: Rng>(rng: &mut R, eponyms: &[String]) -> Vec<String> {
    let title = format!("The {} {}", pick(rng, &WORK_ADJECTIVES), pick(rng, &WORK_NOUNS));
    match eponyms.choose(rng) {
        Some(eponym) if rng.random_bool(0.4) => vec![format!("{title} of {eponym}")],
        _ => vec![title],
    }
}

/// A date of that year in two spellings.
pub(super) fn date<R: Rng>(rng: &mut R, year: u32) -> Vec<String> {
    let (day, month) = (rng.random_range(1..29), pick(rng, &MONTHS));
    vec![format!("{day} {month} {year}"), format!("{month} {day} , {year}")]
}

/// A count with a thousands separator inside one word.
pub(super) fn number<R: Rng>(rng: &mut R, thousands: std::ops::Range<u32>) -> Vec<String> {
    vec![format!("{},{:03}", rng.random_range(thousands), rng.random_range(0..1000))]
}
