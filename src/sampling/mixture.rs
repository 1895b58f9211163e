//! How several sources of documents share the places of an epoch.
//!
//! Each source has a fixed number of visits an epoch, which are spread evenly over its places. A
//! source goes through its documents in a new order each time, and begins again only when all of
//! them were visited, whatever the number of its visits in an epoch. Everything is arithmetic: what
//! stands at a place is a function of (seed, epoch, place). Not for: batches (`order`), or the
//! order of one source (`windows`).

use super::windows::{WindowPass, Windows};

/// A source in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceVisits {
    /// Documents of the source; at least 1.
    pub documents: u64,
    /// Visits that an epoch pays to it; at least 1.
    pub visits: u64,
}

impl SourceVisits {
    /// A source whose documents are visited `weight` times an epoch each, on average.
    pub fn weighted(documents: usize, weight: f64) -> Self {
        let documents = documents as u64;
        Self { documents, visits: (weight * documents as f64).round() as u64 }
    }
}

/// The places of an epoch.
#[derive(Clone, Debug)]
pub struct Mixture {
    sources: Vec<SourceVisits>,
    /// The windows of each source.
    windows: Vec<Windows>,
    visits: u64,
    seed: u64,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The source.
    pub source: usize,
    /// Position in the list of its documents.
    pub row: usize,
    /// How often its documents were all visited before, which is the epoch where each is visited
    /// once an epoch.
    pub pass: u64,
    /// The window of the pass.
    pub window: usize,
}

/// The orders that were used last, one a source: neighbouring places mostly share them.
pub type KnownOrders = Vec<Option<(u64, WindowPass)>>;

impl Mixture {
    /// The places of an epoch that these sources share, each of which has its windows.
    pub fn new(sources: &[SourceVisits], windows: Vec<Windows>, seed: u64) -> Self {
        let visits = sources.iter().map(|source| source.visits).sum();
        Self { sources: sources.to_vec(), windows, visits, seed }
    }

    /// Places of an epoch.
    pub fn visits(&self) -> u64 {
        self.visits
    }

    /// The sources.
    pub fn sources(&self) -> &[SourceVisits] {
        &self.sources
    }

    /// The windows of the sources.
    pub fn windows(&self) -> &[Windows] {
        &self.windows
    }

    /// The order of a source in a pass.
    pub fn pass(&self, source: usize, pass: u64) -> WindowPass {
        // The first source alone has the same order as a corpus by itself.
        self.windows[source].pass(self.seed, pass | (source as u64) << 48)
    }

    /// The source of a place, and how many visits it had before in the epoch. The first source has
    /// the places at which v·i/V, rounded, goes up; the second is spread over the others in the
    /// same way, and so on.
    fn locate(&self, mut place: u64) -> (usize, u64) {
        let mut all = self.visits;
        for (number, source) in self.sources.iter().enumerate() {
            let before = share(place, source.visits, all);
            if share(place + 1, source.visits, all) > before {
                return (number, before);
            }
            place -= before;
            all -= source.visits;
        }
        unreachable!("a place beyond the epoch")
    }

    /// What stands at a place, which must be below [`Self::visits`].
    pub fn at(&self, epoch: u64, place: u64, known: &mut KnownOrders) -> Visit {
        let (source, before) = self.locate(place);
        let SourceVisits { documents, visits } = self.sources[source];
        let number = epoch * visits + before;
        let (pass, position) = (number / documents, number % documents);
        known.resize(self.sources.len(), None);
        let mut order = match known[source].take() {
            Some((of, order)) if of == pass => order,
            _ => self.pass(source, pass),
        };
        let (window, row) = order.at(position);
        known[source] = Some((pass, order));
        Visit { source, row, pass, window }
    }
}

/// `place · visits / all`, rounded half up.
fn share(place: u64, visits: u64, all: u64) -> u64 {
    let (place, visits, all) = (u128::from(place), u128::from(visits), u128::from(all));
    ((2 * place * visits + all) / (2 * all)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sampling::rng::Permutation;

    fn mixture(sources: &[(u64, u64)], seed: u64) -> Mixture {
        let of = |&(documents, visits)| SourceVisits { documents, visits };
        let windows = sources.iter().map(|&(documents, _)| Windows::one(documents)).collect();
        Mixture::new(&sources.iter().map(of).collect::<Vec<_>>(), windows, seed)
    }

    fn epoch(mixture: &Mixture, epoch: u64) -> Vec<Visit> {
        let mut known = KnownOrders::new();
        (0..mixture.visits()).map(|place| mixture.at(epoch, place, &mut known)).collect()
    }

    #[test]
    fn a_weight_is_visits_an_epoch() {
        let visits = |documents, weight| SourceVisits::weighted(documents, weight).visits;
        assert_eq!([visits(400, 1.0), visits(1000, 0.2), visits(7, 2.5)], [400, 200, 18]);
    }

    proptest! {
        #[test]
        fn every_source_has_its_visits_spread_evenly_in_every_epoch(
            sources in prop::collection::vec((1_u64..40, 1_u64..60), 1..5),
            seed: u64,
            number in 0_u64..4,
        ) {
            let mixture = mixture(&sources, seed);
            let visits = epoch(&mixture, number);
            let mut counts = vec![0; sources.len()];
            for (place, visit) in (1..).zip(&visits) {
                counts[visit.source] += 1;
                for (&count, &(_, of)) in counts.iter().zip(&sources) {
                    let even = (place * of) as f64 / mixture.visits() as f64;
                    let away = (count as f64 - even).abs();
                    prop_assert!(away <= 0.5 * sources.len() as f64 + 1e-9, "{away} at {place}");
                }
            }
            prop_assert_eq!(counts, sources.iter().map(|source| source.1).collect::<Vec<_>>());
        }

        #[test]
        fn every_document_is_visited_before_one_is_repeated_across_epochs(
            sources in prop::collection::vec((1_u64..30, 1_u64..50), 1..4),
            seed: u64,
        ) {
            let mixture = mixture(&sources, seed);
            let visits: Vec<Visit> = (0..6).flat_map(|number| epoch(&mixture, number)).collect();
            for (source, &(documents, _)) in sources.iter().enumerate() {
                let own: Vec<&Visit> =
                    visits.iter().filter(|visit| visit.source == source).collect();
                for (pass, part) in (0..).zip(own.chunks_exact(documents as usize)) {
                    let mut rows: Vec<_> = part.iter().map(|visit| visit.row as u64).collect();
                    rows.sort_unstable();
                    prop_assert_eq!(rows, (0..documents).collect::<Vec<_>>());
                    prop_assert!(part.iter().all(|visit| visit.pass == pass));
                }
            }
        }
    }

    #[test]
    fn one_source_of_weight_one_is_a_permutation_of_each_epoch() {
        let mixture = mixture(&[(23, 23)], 7);
        for number in [0, 1, 5] {
            let order = Permutation::new(23, 7, number);
            let rows: Vec<usize> = epoch(&mixture, number).iter().map(|visit| visit.row).collect();
            assert_eq!(rows, (0..23).map(|at| order.at(at) as usize).collect::<Vec<_>>());
        }
    }

    #[test]
    fn places_can_be_asked_in_any_order() {
        let mixture = mixture(&[(5, 9), (11, 4), (3, 3)], 3);
        let straight: Vec<Visit> = (0..3).flat_map(|number| epoch(&mixture, number)).collect();
        let mut known = KnownOrders::new();
        for (index, visit) in straight.iter().enumerate().rev() {
            let (number, place) = (index as u64 / 16, index as u64 % 16);
            assert_eq!(mixture.at(number, place, &mut known), *visit);
        }
    }

    #[test]
    fn sources_of_one_size_and_other_seeds_have_orders_of_their_own() {
        let rows = |seed: u64, source: usize| -> Vec<usize> {
            let visits = epoch(&mixture(&[(50, 50), (50, 50)], seed), 0);
            visits.iter().filter(|visit| visit.source == source).map(|visit| visit.row).collect()
        };
        let orders = [rows(1, 0), rows(1, 1), rows(2, 0), rows(2, 1)];
        for (index, first) in orders.iter().enumerate() {
            for second in &orders[index + 1..] {
                // Of two independent orders, one document in 50 stands at the same place.
                let same = first.iter().zip(second).filter(|(a, b)| a == b).count();
                assert!(same < 8, "{same} of 50 stand at the same place");
            }
        }
    }
}
