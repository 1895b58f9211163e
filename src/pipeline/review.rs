//! Pairs that a person should look at: those with a relation whose calibrated probability is
//! neither small nor large (docs/formats.md, "Review files").
//!
//! Not for: the form of a line, or taking answers back as labels (`corpus::label`).

use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::calibrate::Calibrated;
use super::predictor::DocumentScores;
use crate::base::text_file::TextFile;
use crate::base::{say, to_json};
use crate::corpus::label::{ReviewCandidate, ReviewPair};
use crate::corpus::{Document, RelationSet};
use crate::eval::Prediction;
use crate::systems::Pair;
use crate::{Error, Result};

/// Probabilities are written to the fourth digit.
const DIGITS: f64 = 1e4;

/// The probabilities that are uncertain, ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReviewBand {
    low: f64,
    high: f64,
}

impl ReviewBand {
    /// The band of `--review-band`; that from 0.3 to 0.7 where nothing is given.
    ///
    /// # Errors
    /// [`Error::Recipe`] unless there are two probabilities in rising order.
    pub fn parse(ends: &[f64]) -> Result<Self> {
        match *ends {
            [] => Ok(Self { low: 0.3, high: 0.7 }),
            [low, high] if 0.0 <= low && low <= high && high <= 1.0 => Ok(Self { low, high }),
            _ => {
                let given: Vec<String> = ends.iter().map(f64::to_string).collect();
                Err(Error::recipe(format!("--review-band {}", given.join(","))).with_hint(
                    "give two probabilities from 0 to 1, the smaller one first: 0.3,0.7",
                ))
            }
        }
    }

    fn holds(self, probability: f64) -> bool {
        (self.low..=self.high).contains(&probability)
    }
}

/// What was predicted of a document.
#[derive(Clone, Copy)]
pub struct ReviewSource<'a> {
    /// The document.
    pub document: &'a Document,
    /// Its scores.
    pub scores: &'a DocumentScores,
    /// The facts that are written as predictions.
    pub facts: &'a [Prediction],
    /// How scores become probabilities.
    pub calibrated: Calibrated<'a>,
    /// The relations of the classes.
    pub relations: &'a RelationSet,
    /// Whether evidence was predicted.
    pub tells_evidence: bool,
}

/// A pair with an uncertain relation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UncertainPair {
    /// Distance of its most uncertain relation from one half.
    pub distance: f64,
    /// Its line.
    pub pair: ReviewPair,
}

/// The uncertain pairs of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UncertainPairs {
    /// How many there are.
    pub found: usize,
    /// Those that may be written, in the order of the document's pairs.
    pub pairs: Vec<UncertainPair>,
}

/// The pairs with a relation in the band, document by document; with a `limit` only those that are
/// the most uncertain ones of all these documents.
pub fn uncertain_pairs(
    sources: &[ReviewSource],
    band: ReviewBand,
    limit: Option<usize>,
) -> Vec<UncertainPairs> {
    let distances: Vec<Vec<(f64, usize)>> =
        sources.iter().map(|source| source.distances(band)).collect();
    let mut all: Vec<(f64, usize, usize)> = distances
        .iter()
        .enumerate()
        .flat_map(|(document, own)| own.iter().map(move |&(far, place)| (far, document, place)))
        .collect();
    // A stable sort: among equals, the order of the documents and of their pairs.
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.truncate(limit.unwrap_or(usize::MAX));
    all.sort_by_key(|&(_, document, place)| (document, place));
    let mut kept = all.into_iter().peekable();
    let of_document = |(document, source): (usize, &ReviewSource)| {
        let mut pairs = Vec::new();
        while let Some((distance, _, place)) = kept.next_if(|(_, owner, _)| *owner == document) {
            pairs.push(UncertainPair { distance, pair: source.described(place, band) });
        }
        UncertainPairs { found: distances[document].len(), pairs }
    };
    sources.iter().enumerate().map(of_document).collect()
}

impl ReviewSource<'_> {
    /// How far each pair with a relation in the band is from one half, with its place.
    fn distances(&self, band: ReviewBand) -> Vec<(f64, usize)> {
        let rows = self.calibrated.decider.rows(self.scores).enumerate();
        let distance = |(place, (_, row)): (usize, (Pair, &[f32]))| {
            let inside = self.calibrated.row(row).filter(|share| band.holds(*share));
            let distance = inside.map(|share| (share - 0.5).abs()).min_by(f64::total_cmp);
            distance.map(|distance| (distance, place))
        };
        rows.filter_map(distance).collect()
    }

    /// The line of a pair. Its candidates are all relations that are not improbable, and those that
    /// were predicted.
    fn described(&self, place: usize, band: ReviewBand) -> ReviewPair {
        let pair: Pair = self.scores.pairs[place];
        let (head, tail) = (pair.0 as usize, pair.1 as usize);
        let own = || self.facts.iter().filter(move |one| (one.h_idx, one.t_idx) == (head, tail));
        let predicted: HashSet<&str> = own().map(|one| one.r.as_str()).collect();
        let classes = self.calibrated.decider.classes.count();
        let row = &self.scores.logits[place * classes..(place + 1) * classes];
        let candidate = |(relation, probability): (usize, f64)| {
            let relation = self.relations.get(relation)?;
            let predicted = predicted.contains(relation.id.as_str());
            (predicted || probability >= band.low).then(|| ReviewCandidate {
                relation: relation.id.clone(),
                name: relation.name.clone(),
                probability: (probability * DIGITS).round() / DIGITS,
                predicted,
            })
        };
        let mut candidates: Vec<ReviewCandidate> =
            self.calibrated.row(row).enumerate().filter_map(candidate).collect();
        candidates.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        let evidence = || {
            let of_pair = self.calibrated.decider.evidence(self.scores, place);
            let named: BTreeSet<usize> =
                own().flat_map(|one| one.evidence.iter().copied()).chain(of_pair).collect();
            named.into_iter().collect()
        };
        let evidence = self.tells_evidence.then(evidence);
        let line = ReviewPair::of(self.document, head, tail);
        ReviewPair { candidates, evidence, ..line }
    }
}

/// The order of a review file, found without its lines: `P` says where those of a document are.
///
/// The most uncertain pairs come first. Pairs of a document stay together, and in it the two pairs
/// of the same entities; each group stands where its most uncertain pair belongs.
pub struct ReviewOrder<P> {
    limit: Option<usize>,
    found: usize,
    documents: usize,
    kept: BinaryHeap<ReviewPlace<P>>,
}

/// A pair in the order, the most uncertain first; among equals, the order of the documents and of
/// their pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReviewPlace<P> {
    /// Bits of the distance, which no number below zero is: they are in the order of the numbers.
    distance: u64,
    document: usize,
    /// Which of the pairs that its document keeps it is.
    pub number: usize,
    couple: (usize, usize),
    /// Where its document is.
    pub place: P,
}

impl<P: Ord + Copy> ReviewOrder<P> {
    /// An order of at most `limit` pairs.
    pub fn new(limit: Option<usize>) -> Self {
        Self { limit, found: 0, documents: 0, kept: BinaryHeap::new() }
    }

    /// Takes the pairs of the next document.
    pub fn take(&mut self, place: P, uncertain: &UncertainPairs) {
        self.found += uncertain.found;
        for (number, UncertainPair { distance, pair }) in uncertain.pairs.iter().enumerate() {
            let (head, tail) = (pair.head.entity, pair.tail.entity);
            self.kept.push(ReviewPlace {
                distance: distance.to_bits(),
                document: self.documents,
                number,
                couple: (head.min(tail), head.max(tail)),
                place,
            });
            if self.limit.is_some_and(|limit| self.kept.len() > limit) {
                self.kept.pop();
            }
        }
        self.documents += 1;
    }

    /// The pairs in their order, and how many there are without the limit.
    pub fn finish(self) -> (Vec<ReviewPlace<P>>, usize) {
        let mut ordered = self.kept.into_sorted_vec();
        let (mut documents, mut couples) = (HashMap::new(), HashMap::new());
        for (rank, pair) in ordered.iter().enumerate() {
            documents.entry(pair.document).or_insert(rank);
            couples.entry((pair.document, pair.couple)).or_insert(rank);
        }
        ordered.sort_by_key(|pair| {
            (documents[&pair.document], couples[&(pair.document, pair.couple)])
        });
        (ordered, self.found)
    }
}

/// A review file under way, a pair a line; it appears when it is finished.
pub struct ReviewWriter {
    file: TextFile,
    pairs: usize,
}

impl ReviewWriter {
    /// Starts a file.
    ///
    /// # Errors
    /// The disk.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: TextFile::create(path)?, pairs: 0 })
    }

    /// Adds a pair.
    ///
    /// # Errors
    /// The disk.
    pub fn push(&mut self, pair: &ReviewPair) -> Result<()> {
        self.pairs += 1;
        self.file.write_all(&to_json(pair)?)?;
        Ok(self.file.write_all(b"\n")?)
    }

    /// Gives the file its name, and says what a reviewer should know of it; gives the number of
    /// pairs. `found` pairs were uncertain.
    ///
    /// # Errors
    /// The disk; a file that was there is then as before.
    pub fn finish(self, path: &Path, band: ReviewBand, found: usize) -> Result<usize> {
        self.file.finish()?;
        let (file, count, ReviewBand { low, high }) = (path.display(), self.pairs, band);
        let more = if count < found { format!(" of {found}") } else { String::new() };
        say(format!("{file}: {count}{more} pairs to review, with a relation of {low} to {high}"));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::calibrate::tests::{decider, scored, three};
    use super::*;
    use crate::distant::Calibration;
    use crate::systems::{DecisionRule, EvidenceRule, NaClass};

    fn relations() -> RelationSet {
        let mut relations = RelationSet::default();
        for (id, name) in [("P17", "country"), ("P19", "born in"), ("P27", "citizen of")] {
            relations.insert(id, name);
        }
        relations
    }

    /// The logit of a probability.
    fn logit(p: f32) -> f32 {
        (p / (1.0 - p)).ln()
    }

    fn row(shares: [f32; 3]) -> [f32; 4] {
        [0.0, logit(shares[0]), logit(shares[1]), logit(shares[2])]
    }

    fn fact(t_idx: usize, r: &str, evidence: &[usize]) -> Prediction {
        Prediction { t_idx, r: r.into(), evidence: evidence.to_vec(), ..Prediction::default() }
    }

    /// Runs `test` over two documents: the pairs of the first are (0, 1) with a certain and an
    /// uncertain relation, and (1, 0) with none; those of the second (0, 2) and (2, 0).
    fn with_sources(test: impl Fn(&[ReviewSource])) {
        let documents = [three("one", &[]), three("two", &[])];
        let mut first = scored(&[((0, 1), row([0.95, 0.4, 0.01])), ((1, 0), row([0.1, 0.9, 0.2]))]);
        first.evidence = vec![0.1, 0.8, 0.1, 0.5, 0.5, 0.0];
        let second =
            scored(&[((0, 2), row([0.31, 0.02, 0.02])), ((2, 0), row([0.01, 0.51, 0.02]))]);
        let evidence = Some(EvidenceRule { threshold: 0.2, most: 0, fusion: None });
        let adaptive = decider(DecisionRule::Adaptive { top: 0 }, NaClass::First);
        let calibration = Calibration::plain(3);
        let decider = super::super::predictor::Decider { evidence, ..adaptive };
        let facts = [vec![fact(1, "P17", &[2]), fact(1, "P27", &[])], vec![]];
        let relations = relations();
        let source = |number: usize, scores| ReviewSource {
            document: &documents[number],
            scores,
            facts: &facts[number],
            calibrated: Calibrated { calibration: &calibration, decider },
            relations: &relations,
            tells_evidence: true,
        };
        test(&[source(0, &first), source(1, &second)]);
    }

    /// The lines of a file over documents that come so many at a time, and how many there are
    /// without the limit.
    fn lines(
        sources: &[ReviewSource],
        band: ReviewBand,
        limit: Option<usize>,
        at_a_time: usize,
    ) -> (Vec<ReviewPair>, usize) {
        let chunks = sources.chunks(at_a_time);
        let all: Vec<_> = chunks.flat_map(|chunk| uncertain_pairs(chunk, band, limit)).collect();
        let mut order = ReviewOrder::new(limit);
        all.iter().enumerate().for_each(|(place, own)| order.take(place, own));
        let (places, found) = order.finish();
        let line = |at: ReviewPlace<usize>| all[at.place].pairs[at.number].pair.clone();
        (places.into_iter().map(line).collect(), found)
    }

    fn pairs(lines: &[ReviewPair]) -> Vec<(&str, usize, usize)> {
        lines.iter().map(|line| (line.title.as_str(), line.head.entity, line.tail.entity)).collect()
    }

    #[test]
    fn uncertain_pairs_come_document_by_document_and_the_most_uncertain_first() {
        let band = ReviewBand::parse(&[]).unwrap();
        with_sources(|sources| {
            for at_a_time in [1, 2] {
                let (all, found) = lines(sources, band, None, at_a_time);
                // `two` has the most uncertain pair; its other pair follows, then `one`.
                assert_eq!(pairs(&all), [("two", 2, 0), ("two", 0, 2), ("one", 0, 1)]);
                assert_eq!(found, 3);
                let (two, found) = lines(sources, band, Some(2), at_a_time);
                assert_eq!((pairs(&two), found), (vec![("two", 2, 0), ("one", 0, 1)], 3));
            }
        });
    }

    /// The couple of entities 0 and 1 comes first, although (2, 0) is less uncertain than (1, 0).
    #[test]
    fn both_pairs_of_the_same_entities_stand_together() {
        let [sure, unsure, between] = [0.35, 0.5, 0.45].map(|share| row([share, 0.01, 0.01]));
        let scores = scored(&[((2, 0), between), ((1, 0), sure), ((0, 1), unsure)]);
        with_sources(|sources| {
            let source = ReviewSource { scores: &scores, facts: &[], ..sources[0] };
            let (all, _) = lines(&[source], ReviewBand::parse(&[]).unwrap(), None, 1);
            assert_eq!(pairs(&all), [("one", 0, 1), ("one", 1, 0), ("one", 2, 0)]);
        });
    }

    #[test]
    fn candidates_are_what_is_possible_and_what_was_predicted() {
        with_sources(|sources| {
            let (all, _) = lines(sources, ReviewBand::parse(&[0.3, 0.7]).unwrap(), None, 2);
            let one = &all[2];
            let candidate = |relation: &str, name: &str, probability, predicted| ReviewCandidate {
                relation: relation.into(),
                name: name.into(),
                probability,
                predicted,
            };
            assert_eq!(
                one.candidates,
                [
                    candidate("P17", "country", 0.95, true),
                    candidate("P19", "born in", 0.4, false),
                    candidate("P27", "citizen of", 0.01, true),
                ]
            );
            assert_eq!(one.relations, None);
            // That of the pair, and that of its predictions.
            assert_eq!(one.evidence, Some(vec![1, 2]));
            assert_eq!(all[0].evidence, Some(vec![]));
            assert_eq!((one.head.name.as_str(), one.tail.name.as_str()), ("Paris", "France"));
            let silent = ReviewSource { tells_evidence: false, ..sources[0] };
            let (all, _) = lines(&[silent], ReviewBand::parse(&[]).unwrap(), None, 1);
            assert_eq!(all[0].evidence, None);
        });
    }

    #[test]
    fn a_file_has_a_line_for_each_pair() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/review.jsonl");
        let band = ReviewBand::parse(&[]).unwrap();
        with_sources(|sources| {
            let (all, found) = lines(sources, band, None, 2);
            let mut writer = ReviewWriter::create(&path).unwrap();
            all.iter().for_each(|pair| writer.push(pair).unwrap());
            assert_eq!(writer.finish(&path, band, found).unwrap(), 3);
            let text = fs_err::read_to_string(&path).unwrap();
            let read: Vec<ReviewPair> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(read, all);
            assert!(text.contains("\"relations\":null"), "{text}");
        });
    }

    #[test]
    fn a_band_is_two_probabilities_in_order() {
        assert_eq!(ReviewBand::parse(&[]).unwrap(), ReviewBand { low: 0.3, high: 0.7 });
        assert_eq!(ReviewBand::parse(&[0.5, 0.5]).unwrap(), ReviewBand { low: 0.5, high: 0.5 });
        for bad in
            [&[0.5][..], &[0.7, 0.3], &[-0.1, 0.5], &[0.5, 1.5], &[0.1, 0.2, 0.3], &[f64::NAN, 0.5]]
        {
            let error = ReviewBand::parse(bad).unwrap_err();
            assert!(error.exit_code() == 64 && error.hint().is_some(), "{error}");
        }
    }
}
