//! Distant labels beside human ones: how many are right, and which of them a denoiser keeps
//! (docs/scores.md, "Noise audit"). Not for: making scores of labels, reading files.

use std::collections::BTreeMap;
use std::fmt;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use super::block::ratio;
use super::{FactKey, FactKeySet, Gold};
use crate::corpus::{Document, Entity};
use crate::{DataError, Result};

/// The most points of a curve.
const MOST_POINTS: usize = 200;
/// Shares of the true labels at which tables say what else is kept.
pub const TRUE_SHARES: [f64; 3] = [0.9, 0.7, 0.5];

/// Distant labels of documents whose human labels are known.
#[derive(Debug)]
pub struct DistantLabels<'a> {
    gold: &'a Gold<'a>,
    labels: FactKeySet<'a>,
    /// Gold rows of the documents, sorted; a document may have no distant label.
    rows: Vec<usize>,
    left_out: usize,
}

impl<'a> DistantLabels<'a> {
    /// The distinct labels of `documents`, which are found in `gold` by their titles.
    ///
    /// # Errors
    /// No document of both; entities of a document that are not those of its gold.
    pub fn new(gold: &'a Gold<'a>, documents: &'a [Document]) -> Result<Self> {
        let (mut labels, mut rows, mut left_out) = (FactKeySet::new(), Vec::new(), 0);
        let labelled = |row: &usize| gold.documents()[*row].facts.is_some();
        for document in documents {
            let row = gold.row(&document.title).filter(labelled);
            let Some(row) = row.filter(|_| document.facts.is_some()) else {
                left_out += 1;
                continue;
            };
            rows.push(row);
            check_entities(document, &gold.documents()[row])?;
            labels.extend(document.facts().iter().map(|fact| FactKey {
                document: row,
                head: fact.head,
                tail: fact.tail,
                relation: &fact.relation,
            }));
        }
        if labels.is_empty() {
            let source = documents.first().map(|first| first.provenance.file.clone());
            let problem = "no distant label belongs to a document with human labels";
            let hint = "both files must hold the same documents under the same titles";
            return Err(DataError::new(source.unwrap_or_default(), problem).hint(hint).into());
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(Self { gold, labels, rows, left_out })
    }

    /// The labels, in order.
    pub fn keys(&self) -> &FactKeySet<'a> {
        &self.labels
    }

    /// The documents with their human labels.
    pub fn gold(&self) -> &'a Gold<'a> {
        self.gold
    }

    fn is_right(&self, label: &FactKey<'a>) -> bool {
        self.gold.facts().contains_key(label)
    }

    /// Precision and recall of the labels, in all and by relation.
    pub fn audit(&self) -> Audit {
        let mut relations: BTreeMap<&str, AuditedRelation> = BTreeMap::new();
        let mut row = |relation: &'a str, add: fn(&mut AuditedRelation)| {
            add(relations.entry(relation).or_insert_with(|| AuditedRelation {
                relation: relation.to_owned(),
                ..AuditedRelation::default()
            }));
        };
        let in_both = |key: &&FactKey<'a>| self.rows.binary_search(&key.document).is_ok();
        let facts: Vec<&FactKey<'a>> = self.gold.facts().keys().filter(in_both).collect();
        for label in &self.labels {
            row(label.relation, |relation| relation.labels += 1);
            if self.is_right(label) {
                row(label.relation, |relation| relation.right += 1);
            }
        }
        facts.iter().for_each(|fact| row(fact.relation, |relation| relation.facts += 1));
        let mut pairs: Vec<_> =
            facts.iter().map(|fact| (fact.document, fact.head, fact.tail)).collect();
        pairs.dedup();
        let related = |label: &&FactKey<'a>| {
            pairs.binary_search(&(label.document, label.head, label.tail)).is_ok()
        };
        let mut relations: Vec<AuditedRelation> = relations.into_values().collect();
        relations.sort_by_key(|relation| std::cmp::Reverse(relation.labels));
        Audit {
            documents: self.rows.len(),
            left_out: self.left_out,
            labels: self.labels.len(),
            right: self.labels.iter().filter(|label| self.is_right(label)).count(),
            facts: facts.len(),
            on_related_pairs: self.labels.iter().filter(related).count(),
            relations,
            denoisers: Vec::new(),
        }
    }

    /// What keeping the labels with the highest scores keeps. Labels without a score come last, all
    /// at once.
    pub fn denoiser(&self, name: &str, scores: &AHashMap<FactKey<'_>, f64>) -> AuditedDenoiser {
        let mut ranked: Vec<(f64, bool)> = (self.labels.iter())
            .map(|label| {
                let score = scores.get(label).copied().unwrap_or(f64::NEG_INFINITY);
                (score, self.is_right(label))
            })
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let total = Kept::count(&ranked);
        let (mut kept, mut area, mut points) = (Kept::default(), 0.0, vec![Kept::default()]);
        for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
            let more = Kept::count(tied);
            area += more.wrong as f64 * (kept.right as f64 + more.right as f64 / 2.0);
            kept = Kept { right: kept.right + more.right, wrong: kept.wrong + more.wrong };
            points.push(kept);
        }
        let share = |part: usize, of: usize| ratio(part as f64, of as f64);
        let point = |kept: &Kept| KeptPoint {
            true_share: share(kept.right, total.right),
            false_share: share(kept.wrong, total.wrong),
            precision: share(kept.right, kept.right + kept.wrong),
        };
        let reached = |wanted: f64| {
            points.iter().find(|kept| share(kept.right, total.right) >= wanted).map(point)
        };
        let stride = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len() - 1;
        let drawn = (points.iter().enumerate())
            .filter(|(place, _)| place % stride == 0 || *place == last)
            .map(|(_, kept)| point(kept));
        let added: Vec<&FactKey<'_>> =
            scores.keys().filter(|key| !self.labels.contains(*key)).collect();
        AuditedDenoiser {
            name: name.to_owned(),
            scored: ranked.iter().filter(|(score, _)| score.is_finite()).count(),
            area: ratio(area, total.right as f64 * total.wrong as f64),
            at: TRUE_SHARES.iter().filter_map(|&wanted| reached(wanted)).collect(),
            curve: drawn.collect(),
            choice: None,
            added: added.len(),
        }
    }

    /// What a list of facts keeps of the labels, and what it adds to them.
    pub fn choice(&self, name: &str, kept: &FactKeySet<'_>) -> AuditedDenoiser {
        let scores = kept.iter().map(|key| (*key, 1.0)).collect();
        let mut denoiser = self.denoiser(name, &scores);
        let right = kept.iter().filter(|key| self.gold.facts().contains_key(*key)).count();
        denoiser.choice = Some(AuditedChoice { facts: kept.len(), right });
        denoiser
    }
}

/// Refuses a document whose entities are not those of its gold.
fn check_entities(document: &Document, gold: &Document) -> Result<()> {
    let places = |entity: &Entity| {
        let mut spans: Vec<_> =
            entity.mentions.iter().map(|m| (m.sentence, m.start, m.end)).collect();
        spans.sort_unstable();
        spans
    };
    let same = document.entities.len() == gold.entities.len()
        && document.entities.iter().zip(&gold.entities).all(|(a, b)| places(a) == places(b));
    if same {
        return Ok(());
    }
    let problem = format!(
        "its {} entities are not the {} of the same title with human labels",
        document.entities.len(),
        gold.entities.len()
    );
    let at = DataError::new(&document.provenance.file, problem)
        .row(document.provenance.row)
        .title(&document.title);
    Err(at
        .hint("label the documents of the human file: `label --input HUMAN.json --facts …`")
        .into())
}

/// Labels by their truth.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    right: usize,
    wrong: usize,
}

impl Kept {
    fn count(labels: &[(f64, bool)]) -> Self {
        let right = labels.iter().filter(|(_, right)| *right).count();
        Self { right, wrong: labels.len() - right }
    }
}

/// How noisy distant labels are, and what denoisers keep of them. A label is right if a human
/// stated the same fact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Documents with both kinds of labels.
    pub documents: usize,
    /// Documents with distant labels that lack labels in one of the files.
    pub left_out: usize,
    /// Distinct distant labels.
    pub labels: usize,
    /// Those that are right.
    pub right: usize,
    /// Distinct human facts of the same documents.
    pub facts: usize,
    /// Labels on a pair of entities between which a human stated any relation.
    pub on_related_pairs: usize,
    /// By relation, the most frequent labels first.
    pub relations: Vec<AuditedRelation>,
    /// What each denoiser keeps.
    pub denoisers: Vec<AuditedDenoiser>,
}

/// Labels of one relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedRelation {
    /// Its identifier.
    pub relation: String,
    /// Distinct distant labels.
    pub labels: usize,
    /// Those that are right.
    pub right: usize,
    /// Distinct human facts.
    pub facts: usize,
}

/// What a denoiser keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditedDenoiser {
    /// Its name.
    pub name: String,
    /// Labels that it scored.
    pub scored: usize,
    /// The area under the curve of kept true labels by kept false ones: how often a true label has
    /// a higher score than a false one, ties counted half. 0.5 is chance.
    pub area: f64,
    /// The first points that keep [`TRUE_SHARES`] of the true labels.
    pub at: Vec<KeptPoint>,
    /// The curve, from nothing to everything.
    pub curve: Vec<KeptPoint>,
    /// What it chose, where it chooses and does not score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<AuditedChoice>,
    /// Facts that it names and that are no labels.
    pub added: usize,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptPoint {
    /// Kept share of the true labels.
    pub true_share: f64,
    /// Kept share of the false labels.
    pub false_share: f64,
    /// Share of the kept labels that is true.
    pub precision: f64,
}

/// The facts of a denoiser that chooses, its additions included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedChoice {
    /// Facts.
    pub facts: usize,
    /// Those that are right.
    pub right: usize,
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: usize, of: usize| 100.0 * ratio(part as f64, of as f64);
        write!(
            f,
            "{} distant labels in {} documents: {:.1} % are right, {:.1} % of {} human facts are \
             among them, {:.1} % lie on a related pair",
            self.labels,
            self.documents,
            percent(self.right, self.labels),
            percent(self.right, self.facts),
            self.facts,
            percent(self.on_related_pairs, self.labels)
        )?;
        if !self.denoisers.is_empty() {
            let widest = self.denoisers.iter().map(|one| one.name.chars().count()).max();
            let wide = widest.unwrap_or(0).max("denoiser".len());
            write!(f, "\n\nfalse labels kept with so many of the true ones, in per cent")?;
            write!(f, "\n{:<wide$}{:>8}{:>8}", "denoiser", "scored", "area")?;
            TRUE_SHARES.iter().try_for_each(|share| write!(f, "{:>8.0}", 100.0 * share))?;
            for one in &self.denoisers {
                write!(f, "\n{:<wide$}{:>8}{:>8.3}", one.name, one.scored, one.area)?;
                one.at.iter().try_for_each(|at| write!(f, "{:>8.1}", 100.0 * at.false_share))?;
                if let (Some(choice), Some(kept)) = (one.choice, one.curve.get(1)) {
                    write!(
                        f,
                        "  keeps {:.1} of the true and {:.1} of the false, adds {}: {:.1} of {} \
                         facts are right",
                        100.0 * kept.true_share,
                        100.0 * kept.false_share,
                        one.added,
                        percent(choice.right, choice.facts),
                        choice.facts
                    )?;
                }
            }
        }
        write!(f, "\n\n{:>8}{:>9}{:>8}{:>9}  relation", "labels", "right %", "facts", "found %")?;
        for one in &self.relations {
            let AuditedRelation { relation, labels, right, facts } = one;
            let (precision, recall) = (percent(*right, *labels), percent(*right, *facts));
            write!(f, "\n{labels:>8}{precision:>9.1}{facts:>8}{recall:>9.1}  {relation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn document(title: &str, entities: usize, facts: &[(usize, usize, &str)]) -> Document {
        let fact = |&(head, tail, relation): &(usize, usize, &str)| {
            testing::fact(head, tail, relation, &[])
        };
        let facts = Some(facts.iter().map(fact).collect());
        Document { facts, ..testing::document(title, &vec![&[0][..]; entities]) }
    }

    fn key(document: usize, head: usize, tail: usize, relation: &str) -> FactKey<'_> {
        FactKey { document, head, tail, relation }
    }

    /// Labels of one document: two right (0-1 P1, 1-0 P2), three wrong.
    fn files() -> (Vec<Document>, Vec<Document>) {
        let human = document("a", 3, &[(0, 1, "P1"), (1, 0, "P2"), (1, 2, "P1")]);
        let labels = [(0, 1, "P1"), (1, 0, "P2"), (0, 2, "P1"), (1, 2, "P2"), (2, 0, "P3")];
        (vec![human], vec![document("a", 3, &labels), document("b", 2, &[(0, 1, "P1")])])
    }

    #[test]
    fn labels_by_hand() {
        let (human, labelled) = files();
        let gold = Gold::new(&human).unwrap();
        let audit = DistantLabels::new(&gold, &labelled).unwrap().audit();
        assert_eq!((audit.documents, audit.left_out), (1, 1));
        assert_eq!((audit.labels, audit.right, audit.facts), (5, 2, 3));
        // 0-1, 1-0 and 1-2 are related.
        assert_eq!(audit.on_related_pairs, 3);
        let p1 = audit.relations.iter().find(|one| one.relation == "P1").unwrap();
        assert_eq!((p1.labels, p1.right, p1.facts), (2, 1, 2));
        assert!(audit.to_string().contains("40.0 % are right, 66.7 % of 3 human facts"));
    }

    /// Facts that no distant label found count in the recall, and a document that nobody has
    /// labelled says nothing about its distant labels.
    #[test]
    fn documents_without_labels_count_as_what_they_are() {
        let (mut human, mut labelled) = files();
        human.push(document("c", 2, &[(0, 1, "P1")]));
        labelled.push(document("c", 2, &[]));
        human.push(Document { facts: None, ..document("b", 2, &[]) });
        let gold = Gold::new(&human).unwrap();
        let audit = DistantLabels::new(&gold, &labelled).unwrap().audit();
        assert_eq!((audit.documents, audit.left_out), (2, 1));
        assert_eq!((audit.labels, audit.right, audit.facts), (5, 2, 4));
    }

    /// The area is the share of (true, false) couples in the right order, ties half.
    #[test]
    fn the_area_counts_couples_in_the_right_order() {
        let (human, labelled) = files();
        let gold = Gold::new(&human).unwrap();
        let labels = DistantLabels::new(&gold, &labelled).unwrap();
        let scores: AHashMap<_, _> = [
            (key(0, 0, 1, "P1"), 0.9),
            (key(0, 0, 2, "P1"), 0.9),
            (key(0, 1, 2, "P2"), 0.5),
            (key(0, 1, 0, "P2"), 0.4),
            (key(0, 2, 1, "P9"), 0.1),
        ]
        .into_iter()
        .collect();
        // True: 0.9 and 0.4; false: 0.9, 0.5 and none.
        let couples: [f64; 6] = [0.5, 1.0, 1.0, 0.0, 0.0, 1.0];
        let denoiser = labels.denoiser("by hand", &scores);
        let area: f64 = couples.iter().sum::<f64>() / 6.0;
        assert!((denoiser.area - area).abs() < 1e-12, "{}", denoiser.area);
        assert_eq!((denoiser.scored, denoiser.added), (4, 1));
        // Half of the true labels come with a third of the false ones, both with two thirds.
        let false_shares: Vec<f64> = denoiser.at.iter().map(|at| at.false_share).collect();
        assert_eq!(false_shares, [2.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0]);
        let (first, last) = (denoiser.curve[0], denoiser.curve[denoiser.curve.len() - 1]);
        assert_eq!((first.true_share, last.true_share, last.precision), (0.0, 1.0, 0.4));
    }

    #[test]
    fn a_choice_is_one_point_and_may_add() {
        let (human, labelled) = files();
        let gold = Gold::new(&human).unwrap();
        let labels = DistantLabels::new(&gold, &labelled).unwrap();
        let kept = [key(0, 0, 1, "P1"), key(0, 2, 0, "P3"), key(0, 1, 2, "P1")];
        let choice = labels.choice("rule", &kept.into_iter().collect());
        assert_eq!(choice.choice, Some(AuditedChoice { facts: 3, right: 2 }));
        let point = choice.curve[1];
        assert_eq!((point.true_share, point.false_share, choice.added), (0.5, 1.0 / 3.0, 1));
    }

    #[test]
    fn other_entities_and_no_common_document_are_errors() {
        let (human, _) = files();
        let gold = Gold::new(&human).unwrap();
        for (labelled, part) in [
            (document("a", 2, &[(0, 1, "P1")]), "its 2 entities are not the 3"),
            (document("c", 2, &[(0, 1, "P1")]), "no distant label belongs to"),
        ] {
            let error = DistantLabels::new(&gold, &[labelled]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
