//! Pairs that a person should look at: those with a relation whose calibrated probability is
//! neither small nor large (docs/formats.md, "Review files").
//!
//! Not for: the form of a line, or taking answers back as labels (`corpus::label`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::Path;

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

/// What was predicted of documents, document by document.
#[derive(Clone, Copy)]
pub struct ReviewSource<'a> {
    /// The documents.
    pub documents: &'a [Document],
    /// Their scores.
    pub scores: &'a [DocumentScores],
    /// The facts that are written as predictions.
    pub predictions: &'a [Vec<Prediction>],
    /// How scores become probabilities.
    pub calibrated: Calibrated<'a>,
    /// The relations of the classes.
    pub relations: &'a RelationSet,
    /// Whether evidence was predicted.
    pub tells_evidence: bool,
}

/// A pair with an uncertain relation.
struct UncertainPair {
    document: usize,
    /// Its place in the scores of the document.
    place: usize,
    /// Distance of its most uncertain relation from one half.
    distance: f64,
}

impl ReviewSource<'_> {
    /// The pairs with a relation in the band, at most `limit` of them (0: all): the most uncertain
    /// ones. Pairs of a document stay together, and in it the two pairs of the same entities; each
    /// group stands where its most uncertain pair belongs. Also returns how many there are without
    /// the limit.
    pub fn pairs(&self, band: ReviewBand, limit: usize) -> (Vec<ReviewPair>, usize) {
        let mut uncertain = self.uncertain(band);
        let found = uncertain.len();
        // A stable sort: among equals, the order of the documents and of their pairs.
        uncertain.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        uncertain.truncate(if limit == 0 { usize::MAX } else { limit });
        let (mut documents, mut couples) = (HashMap::new(), HashMap::new());
        for (place, pair) in uncertain.iter().enumerate() {
            documents.entry(pair.document).or_insert(place);
            couples.entry(self.couple(pair)).or_insert(place);
        }
        uncertain.sort_by_key(|pair| (documents[&pair.document], couples[&self.couple(pair)]));
        (uncertain.iter().map(|pair| self.described(pair, band)).collect(), found)
    }

    /// The two entities of a pair in either order.
    fn couple(&self, pair: &UncertainPair) -> (usize, u32, u32) {
        let (head, tail) = self.scores[pair.document].pairs[pair.place];
        (pair.document, head.min(tail), head.max(tail))
    }

    fn uncertain(&self, band: ReviewBand) -> Vec<UncertainPair> {
        let mut uncertain = Vec::new();
        for (document, scores) in self.scores.iter().enumerate() {
            for (place, (_, row)) in self.calibrated.decider.rows(scores).enumerate() {
                let inside = self.calibrated.row(row).filter(|share| band.holds(*share));
                let distance = inside.map(|share| (share - 0.5).abs()).min_by(f64::total_cmp);
                uncertain.extend(distance.map(|distance| UncertainPair {
                    document,
                    place,
                    distance,
                }));
            }
        }
        uncertain
    }

    /// The line of a pair. Its candidates are all relations that are not improbable, and those that
    /// were predicted.
    fn described(&self, uncertain: &UncertainPair, band: ReviewBand) -> ReviewPair {
        let UncertainPair { document, place, .. } = *uncertain;
        let scores = &self.scores[document];
        let pair: Pair = scores.pairs[place];
        let (head, tail) = (pair.0 as usize, pair.1 as usize);
        let own = || {
            let predictions = self.predictions[document].iter();
            predictions.filter(move |one| (one.h_idx, one.t_idx) == (head, tail))
        };
        let predicted: HashSet<&str> = own().map(|one| one.r.as_str()).collect();
        let classes = self.calibrated.decider.classes.count();
        let row = &scores.logits[place * classes..(place + 1) * classes];
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
            let of_pair = self.calibrated.decider.evidence(scores, place);
            let named: BTreeSet<usize> =
                own().flat_map(|one| one.evidence.iter().copied()).chain(of_pair).collect();
            named.into_iter().collect()
        };
        let evidence = self.tells_evidence.then(evidence);
        let line = ReviewPair::of(&self.documents[document], head, tail);
        ReviewPair { candidates, evidence, ..line }
    }

    /// Writes the pairs to a file, one a line, and says what a reviewer should know; returns their
    /// number.
    ///
    /// # Errors
    /// The disk; a file that was there is then as before.
    pub fn write(&self, path: &Path, band: ReviewBand, limit: usize) -> Result<usize> {
        let (pairs, found) = self.pairs(band, limit);
        let mut file = TextFile::create(path)?;
        for pair in &pairs {
            file.write_all(&to_json(pair)?)?;
            file.write_all(b"\n")?;
        }
        file.finish()?;
        let (file, count, ReviewBand { low, high }) = (path.display(), pairs.len(), band);
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
    fn with_source(test: impl Fn(&ReviewSource)) {
        let documents = [three("one", &[]), three("two", &[])];
        let mut first = scored(&[((0, 1), row([0.95, 0.4, 0.01])), ((1, 0), row([0.1, 0.9, 0.2]))]);
        first.evidence = vec![0.1, 0.8, 0.1, 0.5, 0.5, 0.0];
        let second =
            scored(&[((0, 2), row([0.31, 0.02, 0.02])), ((2, 0), row([0.01, 0.51, 0.02]))]);
        let evidence = Some(EvidenceRule { threshold: 0.2, most: 0, fusion: None });
        let adaptive = decider(DecisionRule::Adaptive { top: 0 }, NaClass::First);
        let calibration = Calibration::plain(3);
        let decider = super::super::predictor::Decider { evidence, ..adaptive };
        let predictions = [vec![fact(1, "P17", &[2]), fact(1, "P27", &[])], vec![]];
        test(&ReviewSource {
            documents: &documents,
            scores: &[first, second],
            predictions: &predictions,
            calibrated: Calibrated { calibration: &calibration, decider },
            relations: &relations(),
            tells_evidence: true,
        });
    }

    fn pairs(lines: &[ReviewPair]) -> Vec<(&str, usize, usize)> {
        lines.iter().map(|line| (line.title.as_str(), line.head.entity, line.tail.entity)).collect()
    }

    #[test]
    fn uncertain_pairs_come_document_by_document_and_the_most_uncertain_first() {
        let band = ReviewBand::parse(&[]).unwrap();
        with_source(|source| {
            let (lines, found) = source.pairs(band, 0);
            // `two` has the most uncertain pair; its other pair follows, then `one`.
            assert_eq!(pairs(&lines), [("two", 2, 0), ("two", 0, 2), ("one", 0, 1)]);
            assert_eq!(found, 3);
            let (lines, found) = source.pairs(band, 2);
            assert_eq!((pairs(&lines), found), (vec![("two", 2, 0), ("one", 0, 1)], 3));
        });
    }

    /// The couple of entities 0 and 1 comes first, although (2, 0) is less uncertain than (1, 0).
    #[test]
    fn both_pairs_of_the_same_entities_stand_together() {
        let [sure, unsure, between] = [0.35, 0.5, 0.45].map(|share| row([share, 0.01, 0.01]));
        let scores = [scored(&[((2, 0), between), ((1, 0), sure), ((0, 1), unsure)])];
        with_source(|source| {
            let predictions = [vec![]];
            let source = ReviewSource { scores: &scores, predictions: &predictions, ..*source };
            let (lines, _) = source.pairs(ReviewBand::parse(&[]).unwrap(), 0);
            assert_eq!(pairs(&lines), [("one", 0, 1), ("one", 1, 0), ("one", 2, 0)]);
        });
    }

    #[test]
    fn candidates_are_what_is_possible_and_what_was_predicted() {
        with_source(|source| {
            let (lines, _) = source.pairs(ReviewBand::parse(&[0.3, 0.7]).unwrap(), 0);
            let one = &lines[2];
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
            assert_eq!(lines[0].evidence, Some(vec![]));
            assert_eq!((one.head.name.as_str(), one.tail.name.as_str()), ("Paris", "France"));
            let silent = ReviewSource { tells_evidence: false, ..*source };
            assert_eq!(silent.pairs(ReviewBand::parse(&[]).unwrap(), 0).0[2].evidence, None);
        });
    }

    #[test]
    fn a_file_has_a_line_for_each_pair() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/review.jsonl");
        with_source(|source| {
            assert_eq!(source.write(&path, ReviewBand::parse(&[]).unwrap(), 0).unwrap(), 3);
            let text = fs_err::read_to_string(&path).unwrap();
            let lines: Vec<ReviewPair> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines, source.pairs(ReviewBand::parse(&[]).unwrap(), 0).0);
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
