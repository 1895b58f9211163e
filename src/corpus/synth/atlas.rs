//! What all documents of the world share: countries, their cities, and universities.

use rand::{Rng, RngExt};

use super::{
    names,
    schema::{Kind, Rel, Triple},
};

/// Something that can be named in a document.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub kind: Kind,
    /// The full name first.
    pub names: Vec<String>,
    /// For persons only: chooses between "she" and "he".
    pub female: bool,
    /// For persons only: the year of birth.
    pub born: u32,
}

impl Thing {
    pub(super) fn new(kind: Kind, names: Vec<String>) -> Self {
        Self { kind, names, female: false, born: 0 }
    }
}

/// A fact of the world, and whether the knowledge base knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub triple: Triple,
    pub known: bool,
}

/// Share of the facts that the knowledge base does not know.
const UNKNOWN_SHARE: f64 = 0.1;
const CITIES_PER_COUNTRY: usize = 8;
/// Communities (of a dozen documents each) per country.
const COMMUNITIES_PER_COUNTRY: usize = 30;
const MIN_COUNTRIES: usize = 12;
const MAX_COUNTRIES: usize = 400;

/// A city and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct City {
    pub place: Thing,
    pub population: Thing,
    pub university: Option<Thing>,
    pub twin_offset: usize,
    /// Whether the knowledge base knows country, population, twin, capital, seat of the university.
    pub known: [bool; 5],
}

/// The shared part of the world.
#[derive(Clone, Debug)]
pub(super) struct Atlas {
    pub countries: Vec<Thing>,
    /// Cities by country; the first is the capital.
    pub cities: Vec<Vec<City>>,
}

/// Draws whether the knowledge base knows a fact.
pub(super) fn known<R: Rng>(rng: &mut R) -> bool {
    !rng.random_bool(UNKNOWN_SHARE)
}

impl Atlas {
    /// An atlas large enough for that many communities.
    pub(super) fn new<R: Rng>(communities: usize, rng: &mut R) -> Self {
        let number = (communities / COMMUNITIES_PER_COUNTRY).clamp(MIN_COUNTRIES, MAX_COUNTRIES);
        let countries =
            (0..number).map(|_| Thing::new(Kind::Country, vec![names::country(rng)])).collect();
        let cities = (0..number)
            .map(|_| (0..CITIES_PER_COUNTRY).map(|_| City::new(rng)).collect())
            .collect();
        Self { countries, cities }
    }
}

impl City {
    fn new<R: Rng>(rng: &mut R) -> Self {
        let name = names::city(rng);
        let university =
            rng.random_bool(0.5).then(|| Thing::new(Kind::University, names::university(&name)));
        Self {
            place: Thing::new(Kind::City, vec![name]),
            population: Thing::new(Kind::Number, names::number(rng, 9..950)),
            university,
            twin_offset: rng.random_range(0..2),
            known: std::array::from_fn(|_| known(rng)),
        }
    }
}

/// A fact of the world as a link.
pub(super) fn link(head: usize, rel: Rel, tail: usize, known: bool) -> Link {
    Link { triple: Triple::new(head, rel, tail), known }
}
