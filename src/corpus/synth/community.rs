//! A community: two families, their companies and books, and the cities they live in. Each document
//! is about one community.
//!
//! A community is a pure function of (seed, pool, index), so the knowledge base of a world of any
//! size is never held in memory.

use rand::{Rng, RngExt, seq::IndexedRandom};

use super::{
    atlas::{Atlas, Link, Thing, known, link},
    names,
    schema::{COMPOSITIONS, Kind, Rel},
};

const COMPANIES: usize = 4;
const WORKS: usize = 4;
const CITIES: usize = 4;
/// Parents are born within a few years of each other, their children a generation later.
const GENERATION: u32 = 8;
const AGE_AT_BIRTH: std::ops::Range<u32> = 22..37;
const AGE_AT_FOUNDING: std::ops::Range<u32> = 22..51;
const AGE_AT_WRITING: std::ops::Range<u32> = 20..61;

/// Things and the facts between them. Inverse facts are not listed; composed ones are.
#[derive(Clone, Debug, Default)]
pub(super) struct Community {
    pub things: Vec<Thing>,
    pub links: Vec<Link>,
    /// Persons by family.
    pub families: Vec<Vec<usize>>,
}

impl Community {
    pub(super) fn new<R: Rng>(atlas: &Atlas, rng: &mut R) -> Self {
        let mut community = Self::default();
        let (cities, universities) = community.add_places(atlas, rng);
        let persons = community.add_families(rng);
        let companies = community.add_companies(&cities, &persons, rng);
        community.add_lives(&persons, &cities, &companies, &universities, rng);
        community.add_works(&persons, &companies, rng);
        community.compose(rng);
        community
    }

    fn thing(&mut self, thing: Thing) -> usize {
        self.things.push(thing);
        self.things.len() - 1
    }

    fn relate<R: Rng>(&mut self, head: usize, rel: Rel, tail: usize, rng: &mut R) {
        self.links.push(link(head, rel, tail, known(rng)));
    }

    /// Two cities in each of two countries; the first of each is often the capital.
    fn add_places<R: Rng>(&mut self, atlas: &Atlas, rng: &mut R) -> (Vec<usize>, Vec<usize>) {
        let (mut cities, mut universities, mut twins) = (Vec::new(), Vec::new(), Vec::new());
        let first = rng.random_range(0..atlas.countries.len());
        let second = (first + rng.random_range(1..atlas.countries.len())) % atlas.countries.len();
        for country in [first, second] {
            let state = self.thing(atlas.countries[country].clone());
            let start = if rng.random_bool(0.5) {
                0
            } else {
                rng.random_range(0..atlas.cities[country].len())
            };
            for offset in 0..CITIES / 2 {
                let at = (start + offset * 3) % atlas.cities[country].len();
                let city = &atlas.cities[country][at];
                let place = self.thing(city.place.clone());
                self.links.push(link(place, Rel::Country, state, city.known[0]));
                let population = self.thing(city.population.clone());
                self.links.push(link(place, Rel::Population, population, city.known[1]));
                if at == 0 {
                    self.links.push(link(state, Rel::Capital, place, city.known[3]));
                }
                if let Some(university) = &city.university {
                    let university = self.thing(university.clone());
                    self.links.push(link(university, Rel::Headquarters, place, city.known[4]));
                    universities.push(university);
                }
                cities.push(place);
                twins.push((city.twin_offset, city.known[2]));
            }
        }
        // Both cities decide on a twin, so that it is the same in every community that has both.
        for (left, right) in [(0, 2), (1, 3)] {
            if (twins[left].0 + twins[right].0).is_multiple_of(2) {
                self.links.push(link(
                    cities[left],
                    Rel::TwinCity,
                    cities[right],
                    twins[left].1 && twins[right].1,
                ));
            }
        }
        (cities, universities)
    }

    /// Families of two parents and two children. The eldest children of the two families may be
    /// married.
    fn add_families<R: Rng>(&mut self, rng: &mut R) -> Vec<usize> {
        let era = rng.random_range(1880..1930);
        for _ in 0..2 {
            let family = names::family(rng);
            let parents =
                [era + rng.random_range(0..GENERATION), era + rng.random_range(0..GENERATION)];
            let children =
                [(); 2].map(|()| parents[0].max(parents[1]) + rng.random_range(AGE_AT_BIRTH));
            let genders = [true, false, rng.random_bool(0.5), rng.random_bool(0.5)];
            let people = genders.into_iter().zip(parents.into_iter().chain(children));
            let members: Vec<usize> =
                people.map(|(female, born)| self.add_person(female, born, &family, rng)).collect();
            let &[mother, father, elder, younger] = members.as_slice() else { continue };
            self.relate(mother, Rel::Spouse, father, rng);
            self.relate(elder, Rel::Sibling, younger, rng);
            for (child, parent) in
                [(elder, mother), (elder, father), (younger, mother), (younger, father)]
            {
                self.relate(child, Rel::Parent, parent, rng);
            }
            self.families.push(members);
        }
        let (left, right) = (self.families[0][2], self.families[1][2]);
        if rng.random_bool(0.6) {
            self.relate(left, Rel::Spouse, right, rng);
        }
        self.families.iter().flatten().copied().collect()
    }

    fn add_person<R: Rng>(&mut self, female: bool, born: u32, family: &str, rng: &mut R) -> usize {
        let taken =
            |things: &[Thing], name: &str| things.iter().any(|thing| thing.names[0] == name);
        let mut names = names::person(rng, female, family);
        while taken(&self.things, &names[0]) {
            names = names::person(rng, female, family);
        }
        self.thing(Thing { kind: Kind::Person, names, female, born })
    }

    fn add_companies<R: Rng>(
        &mut self,
        cities: &[usize],
        persons: &[usize],
        rng: &mut R,
    ) -> Vec<usize> {
        let mut eponyms: Vec<String> =
            cities.iter().map(|city| self.things[*city].names[0].clone()).collect();
        eponyms
            .extend(persons.iter().filter_map(|person| self.things[*person].names.last().cloned()));
        let mut companies = Vec::new();
        for number in 0..COMPANIES {
            let company = self.thing(Thing::new(
                Kind::Company,
                names::company(rng, is_publisher(number), &eponyms),
            ));
            self.relate_to_any(company, Rel::Headquarters, cities, rng);
            let founder = self.relate_to_any(company, Rel::FoundedBy, persons, rng);
            let year = self.year_of_life(founder, AGE_AT_FOUNDING, rng);
            self.add_leaf(company, Rel::Inception, Kind::Date, names::date(rng, year), rng);
            self.add_leaf(company, Rel::Employees, Kind::Number, names::number(rng, 1..80), rng);
            companies.push(company);
        }
        self.relate(companies[1], Rel::ParentCompany, companies[0], rng);
        let holder = companies[rng.random_range(0..3)];
        self.relate(companies[3], Rel::ParentCompany, holder, rng);
        companies
    }

    fn add_lives<R: Rng>(
        &mut self,
        persons: &[usize],
        cities: &[usize],
        companies: &[usize],
        universities: &[usize],
        rng: &mut R,
    ) {
        for &person in persons {
            self.relate_to_any(person, Rel::BirthPlace, cities, rng);
            self.add_leaf(
                person,
                Rel::BirthDate,
                Kind::Date,
                names::date(rng, self.things[person].born),
                rng,
            );
            self.relate_to_any(person, Rel::Employer, companies, rng);
            if rng.random_bool(0.6) {
                self.relate_to_any(person, Rel::EducatedAt, universities, rng);
            }
        }
    }

    fn add_works<R: Rng>(&mut self, persons: &[usize], companies: &[usize], rng: &mut R) {
        let publishers: Vec<usize> = (0..)
            .zip(companies)
            .filter(|(number, _)| is_publisher(*number))
            .map(|(_, company)| *company)
            .collect();
        let is_eponym =
            |thing: &&Thing| matches!(thing.kind, Kind::Person | Kind::City | Kind::Country);
        let eponyms: Vec<String> =
            self.things.iter().filter(is_eponym).map(|thing| thing.names[0].clone()).collect();
        for _ in 0..WORKS {
            let work = self.thing(Thing::new(Kind::Work, names::work(rng, &eponyms)));
            let author = self.relate_to_any(work, Rel::Author, persons, rng);
            self.relate_to_any(work, Rel::Publisher, &publishers, rng);
            let year = self.year_of_life(author, AGE_AT_WRITING, rng);
            self.add_leaf(work, Rel::PublicationDate, Kind::Date, names::date(rng, year), rng);
        }
    }

    /// A year in which a person is of that age.
    fn year_of_life<R: Rng>(
        &self,
        person: Option<usize>,
        ages: std::ops::Range<u32>,
        rng: &mut R,
    ) -> u32 {
        person.map_or(0, |person| self.things[person].born) + rng.random_range(ages)
    }

    fn relate_to_any<R: Rng>(
        &mut self,
        head: usize,
        rel: Rel,
        tails: &[usize],
        rng: &mut R,
    ) -> Option<usize> {
        let tail = tails.choose(rng).copied();
        if let Some(tail) = tail {
            self.relate(head, rel, tail, rng);
        }
        tail
    }

    fn add_leaf<R: Rng>(
        &mut self,
        head: usize,
        rel: Rel,
        kind: Kind,
        names: Vec<String>,
        rng: &mut R,
    ) {
        let leaf = self.thing(Thing::new(kind, names));
        self.relate(head, rel, leaf, rng);
    }

    fn compose<R: Rng>(&mut self, rng: &mut R) {
        let mut composed = Vec::new();
        for (first, second, whole) in COMPOSITIONS {
            for a in self.links.iter().filter(|link| link.triple.rel == first) {
                for b in self
                    .links
                    .iter()
                    .filter(|link| link.triple.rel == second && link.triple.head == a.triple.tail)
                {
                    composed.push((a.triple.head, whole, b.triple.tail));
                }
            }
        }
        for (head, rel, tail) in composed {
            self.relate(head, rel, tail, rng);
        }
    }
}

/// Every other company publishes books.
fn is_publisher(number: usize) -> bool {
    number % 2 == 1
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn communities() -> Vec<Community> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let atlas = Atlas::new(10, &mut rng);
        (0..50).map(|_| Community::new(&atlas, &mut rng)).collect()
    }

    #[test]
    fn lives_take_their_course() {
        let mut checked = 0;
        for community in communities() {
            let tail = |head: usize, rel: Rel| {
                community
                    .links
                    .iter()
                    .find(|l| l.triple.head == head && l.triple.rel == rel)
                    .map(|l| l.triple.tail)
            };
            let year = |date: usize| {
                community.things[date].names[0]
                    .split(' ')
                    .next_back()
                    .and_then(|year| year.parse::<u32>().ok())
            };
            let born = |person: usize| tail(person, Rel::BirthDate).and_then(year).unwrap();
            for fact in community.links.iter().map(|link| link.triple) {
                let (earlier, later) = match fact.rel {
                    Rel::Parent => (born(fact.tail), born(fact.head)),
                    Rel::FoundedBy => {
                        (born(fact.tail), tail(fact.head, Rel::Inception).and_then(year).unwrap())
                    }
                    Rel::Author => (
                        born(fact.tail),
                        tail(fact.head, Rel::PublicationDate).and_then(year).unwrap(),
                    ),
                    _ => continue,
                };
                assert!(
                    (earlier + 20..earlier + 65).contains(&later),
                    "{fact:?}: {earlier}, {later}"
                );
                checked += 1;
            }
        }
        assert!(checked > 500);
    }

    #[test]
    fn books_are_called_after_people_and_places_and_brought_out_by_publishers() {
        for community in communities() {
            for work in community.things.iter().filter(|thing| thing.kind == Kind::Work) {
                let title = &work.names[0];
                assert!(
                    !title.contains(|c: char| c.is_ascii_digit())
                        && title.matches(" of ").count() <= 1,
                    "{title}"
                );
            }
            for fact in community
                .links
                .iter()
                .map(|link| link.triple)
                .filter(|fact| fact.rel == Rel::Publisher)
            {
                let name = &community.things[fact.tail].names[0];
                assert!(
                    names::parts("ends of publishers").iter().any(|end| name.ends_with(end)),
                    "{name}"
                );
            }
        }
    }
}
