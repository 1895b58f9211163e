//! Two prediction files beside each other: what A gets and B misses, group by group, and whether
//! the difference in F1 is more than luck. Not for: systems on different documents.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::breakdown::{BreakdownOptions, inside, range_name};
use super::docred::count_by_document;
use super::sections::quoted;
use super::statistics::{Bootstrap, DocumentCounts, Paired, paired_bootstraps};
use super::{FactKey, FactKeySet, Gold, Prediction, ScoreBlock};
use crate::Result;

/// How to compare.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Resamples of the bootstrap.
    pub samples: usize,
    /// Its seed.
    pub seed: u64,
    /// Groups of the break-downs.
    pub groups: BreakdownOptions,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self { samples: 1_000, seed: 1, groups: BreakdownOptions::default() }
    }
}

/// A and B on the same gold documents. Predictions on documents that gold does not have play no
/// part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Resamples of the bootstrap.
    pub samples: usize,
    /// Its seed.
    pub seed: u64,
    /// All facts first, then every group.
    pub groups: Vec<GroupComparison>,
    /// Gold facts that A gets and B misses.
    pub only_a: Vec<FactRow>,
    /// Gold facts that B gets and A misses.
    pub only_b: Vec<FactRow>,
}

/// One group of facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupComparison {
    /// The break-down.
    pub section: String,
    /// The group in it.
    pub name: String,
    /// Gold facts.
    pub gold: usize,
    /// Those that both get.
    pub both: usize,
    /// Those that only A gets.
    pub only_a: usize,
    /// Those that only B gets.
    pub only_b: usize,
    /// F1 of A.
    pub f1_a: f64,
    /// F1 of B.
    pub f1_b: f64,
    /// F1(A) − F1(B), its 95 % interval and p-value, by resampling documents.
    pub bootstrap: Bootstrap,
}

/// A gold fact for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactRow {
    /// Title of the document.
    pub title: String,
    /// Index of the head.
    pub h_idx: usize,
    /// Index of the tail.
    pub t_idx: usize,
    /// Relation.
    pub r: String,
    /// First name of the head.
    pub head: String,
    /// First name of the tail.
    pub tail: String,
    /// Smallest distance in sentences.
    pub distance: Option<usize>,
}

/// The section of all facts together.
const WHOLE: &str = "facts";

/// A group of facts by its members.
struct Group<'a> {
    section: &'static str,
    name: String,
    belongs: Box<dyn Fn(&FactKey<'_>) -> bool + 'a>,
}

impl<'a> Group<'a> {
    fn new(
        section: &'static str,
        name: impl Into<String>,
        belongs: impl Fn(&FactKey<'_>) -> bool + 'a,
    ) -> Self {
        Self { section, name: name.into(), belongs: Box::new(belongs) }
    }
}

/// Compares two lists of predictions.
///
/// # Errors
/// A bug error for no resamples or no documents.
pub fn compare(
    gold: &Gold<'_>,
    a: &[Prediction],
    b: &[Prediction],
    options: &CompareOptions,
) -> Result<Comparison> {
    let (truth, a, b) = (gold.keys(), gold.predicted(a), gold.predicted(b));
    let groups = groups(gold, &options.groups);
    let counts = |facts: &FactKeySet<'_>| {
        groups.iter().map(|group| by_document(gold, group, facts, &truth)).collect::<Vec<_>>()
    };
    let (counts_a, counts_b) = (counts(&a), counts(&b));
    let paired: Vec<_> = counts_a.iter().zip(&counts_b).map(|(a, b)| Paired { a, b }).collect();
    let bootstraps = paired_bootstraps(&paired, options.samples, options.seed)?;
    let rows = groups.iter().zip(&paired).zip(bootstraps);
    let only = |one: &FactKeySet<'_>, other: &FactKeySet<'_>| {
        let found = truth.iter().filter(|fact| one.contains(fact) && !other.contains(fact));
        found.map(|fact| fact_row(gold, fact)).collect()
    };
    Ok(Comparison {
        samples: options.samples,
        seed: options.seed,
        groups: rows
            .map(|((group, paired), bootstrap)| {
                group_row(group, *paired, bootstrap, (&truth, &a, &b))
            })
            .collect(),
        only_a: only(&a, &b),
        only_b: only(&b, &a),
    })
}

fn groups<'a>(gold: &'a Gold<'_>, options: &'a BreakdownOptions) -> Vec<Group<'a>> {
    let frequent = |fact: &FactKey<'_>| options.frequent.iter().any(|id| id == fact.relation);
    let mut groups = vec![
        Group::new(WHOLE, "all facts", |_| true),
        Group::new("intra and inter", "intra-sentence", |fact| gold.distance(fact) == Some(0)),
        Group::new("intra and inter", "inter-sentence", |fact| gold.distance(fact) != Some(0)),
        Group::new("frequency", "frequent relations", frequent),
        Group::new("frequency", "long-tail relations", move |fact| !frequent(fact)),
    ];
    groups.extend(options.distances.iter().map(|&range| {
        Group::new("distance", range_name(range), move |fact| {
            gold.distance(fact).is_some_and(|value| inside(range, value))
        })
    }));
    groups.extend(options.mentions.iter().map(|&range| {
        Group::new("mentions", range_name(range), move |fact| {
            gold.mention_number(fact).is_some_and(|value| inside(range, value))
        })
    }));
    let relations: BTreeSet<&str> = gold.facts().keys().map(|fact| fact.relation).collect();
    groups.extend(
        relations.into_iter().map(|id| Group::new("relation", id, move |fact| fact.relation == id)),
    );
    groups
}

fn by_document(
    gold: &Gold<'_>,
    group: &Group<'_>,
    predicted: &FactKeySet<'_>,
    truth: &FactKeySet<'_>,
) -> Vec<DocumentCounts> {
    // As in the break-downs, predictions on entities that do not exist belong to no group but the
    // whole.
    let exists = |fact: &FactKey<'_>| group.section == WHOLE || gold.distance(fact).is_some();
    let belongs = |fact: &&FactKey<'_>| (group.belongs)(fact);
    let predicted = predicted.iter().filter(|fact| exists(fact)).filter(belongs);
    count_by_document(gold, truth.iter().filter(belongs), predicted)
}

fn group_row(
    group: &Group<'_>,
    paired: Paired<'_>,
    bootstrap: Bootstrap,
    (truth, a, b): (&FactKeySet<'_>, &FactKeySet<'_>, &FactKeySet<'_>),
) -> GroupComparison {
    let mut row = GroupComparison {
        section: group.section.to_owned(),
        name: group.name.clone(),
        bootstrap,
        ..GroupComparison::default()
    };
    for fact in truth.iter().filter(|fact| (group.belongs)(fact)) {
        row.gold += 1;
        match (a.contains(fact), b.contains(fact)) {
            (true, true) => row.both += 1,
            (true, false) => row.only_a += 1,
            (false, true) => row.only_b += 1,
            (false, false) => {}
        }
    }
    (row.f1_a, row.f1_b) = (f1(paired.a), f1(paired.b));
    row
}

fn f1(counts: &[DocumentCounts]) -> f64 {
    let sum = |of: fn(&DocumentCounts) -> usize| counts.iter().map(of).sum();
    ScoreBlock::new(sum(|c| c.predicted), sum(|c| c.gold), sum(|c| c.correct)).f1
}

fn fact_row(gold: &Gold<'_>, fact: &FactKey<'_>) -> FactRow {
    let name = |entity| {
        let entity = gold.entity(fact.document, entity);
        entity
            .and_then(|entity| entity.mentions.first())
            .map_or_else(String::new, |mention| mention.name.clone())
    };
    FactRow {
        title: gold.documents()[fact.document].title.clone(),
        h_idx: fact.head,
        t_idx: fact.tail,
        r: fact.relation.to_owned(),
        head: name(fact.head),
        tail: name(fact.tail),
        distance: gold.distance(fact),
    }
}

/// Relations and facts that a table shows; the JSON and CSV files have all.
const ROWS_SHOWN: usize = 10;

impl Comparison {
    /// The groups as CSV with a line of names.
    pub fn to_csv(&self) -> String {
        let mut out =
            "section,group,gold,both,only_a,only_b,f1_a,f1_b,difference,low,high,p_value\n"
                .to_owned();
        for row in &self.groups {
            let Bootstrap { difference, low, high, p_value } = row.bootstrap;
            let (section, name) = (quoted(&row.section), quoted(&row.name));
            let counts = format!("{},{},{},{}", row.gold, row.both, row.only_a, row.only_b);
            out += &format!(
                "{section},{name},{counts},{},{},{difference},{low},{high},{p_value}\n",
                row.f1_a, row.f1_b
            );
        }
        out
    }

    /// The groups of the table: all but the relations in which A and B differ least.
    fn shown(&self) -> Vec<&GroupComparison> {
        let (mut relations, mut shown): (Vec<_>, Vec<_>) =
            self.groups.iter().partition(|row| row.section == "relation");
        relations.sort_by_key(|row| std::cmp::Reverse(row.only_a + row.only_b));
        shown.extend(relations.into_iter().take(ROWS_SHOWN));
        shown
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\ncomparison: gold facts that A (--predictions) and B (--compare) get; F1(A) − F1(B) \
             in points with its 95 % interval and"
        )?;
        writeln!(
            f,
            "two-sided p-value, by {} resamples of the documents (paired bootstrap, seed {}).",
            self.samples, self.seed
        )?;
        let heads = ["gold", "both", "only A", "only B", "F1 A", "F1 B", "A − B"];
        write!(f, "{:<28}", "")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>8}"))?;
        writeln!(f, "{:>20}{:>8}", "95 % interval", "p")?;
        for row in self.shown() {
            write!(f, "{row}")?;
        }
        list(f, "A gets and B misses", &self.only_a)?;
        list(f, "B gets and A misses", &self.only_b)
    }
}

impl fmt::Display for GroupComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.section == "distance" || self.section == "mentions" {
            format!("{} {}", self.section, self.name)
        } else {
            self.name.clone()
        };
        let Bootstrap { difference, low, high, p_value } = self.bootstrap;
        write!(
            f,
            "{name:<28}{:>8}{:>8}{:>8}{:>8}",
            self.gold, self.both, self.only_a, self.only_b
        )?;
        write!(
            f,
            "{:>8.2}{:>8.2}{:>+8.2}",
            100.0 * self.f1_a,
            100.0 * self.f1_b,
            100.0 * difference
        )?;
        writeln!(f, "{:>20}{p_value:>8.3}", format!("[{:+.2}, {:+.2}]", 100.0 * low, 100.0 * high))
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, facts: &[FactRow]) -> fmt::Result {
    writeln!(f, "\n{title}: {} facts", facts.len())?;
    for fact in facts.iter().take(ROWS_SHOWN) {
        writeln!(
            f,
            "  {}: {} ({}) {} → {} ({})",
            fact.title, fact.r, fact.h_idx, fact.head, fact.tail, fact.t_idx
        )?;
    }
    match facts.len().saturating_sub(ROWS_SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more (--json has all)"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{document, fact};
    use super::super::{breakdown, score};
    use super::*;
    use crate::corpus::Document;

    fn corpus() -> Vec<Document> {
        let labelled = |title: String| {
            let mut one = document(&title, &[&[0], &[0], &[2]]);
            one.facts = Some(vec![fact(0, 1, "P17", &[]), fact(0, 2, "P9", &[])]);
            one
        };
        (0..6).map(|number| labelled(format!("d{number}"))).collect()
    }

    fn predict(document: usize, t_idx: usize, r: &str) -> Prediction {
        Prediction { title: format!("d{document}"), t_idx, r: r.into(), ..Prediction::default() }
    }

    #[test]
    fn what_one_gets_and_the_other_misses() {
        let documents = corpus();
        let gold = Gold::new(&documents).unwrap();
        let a: Vec<_> = (0..6).map(|document| predict(document, 1, "P17")).collect();
        let b: Vec<_> = (0..2)
            .flat_map(|document| [predict(document, 1, "P17"), predict(document, 2, "P9")])
            .collect();
        let compared =
            compare(&gold, &a, &b, &CompareOptions { samples: 100, ..CompareOptions::default() })
                .unwrap();
        let all = &compared.groups[0];
        assert_eq!((all.gold, all.both, all.only_a, all.only_b), (12, 2, 4, 2));
        assert_eq!((compared.only_a.len(), compared.only_b.len()), (4, 2));
        assert_eq!(
            (
                compared.only_b[0].title.as_str(),
                compared.only_b[0].tail.as_str(),
                compared.only_b[0].distance
            ),
            ("d0", "e2", Some(2))
        );
        let inter = compared.groups.iter().find(|row| row.name == "inter-sentence").unwrap();
        assert_eq!((inter.gold, inter.only_b, inter.f1_a), (6, 2, 0.0));
        // A gets every P17 and nothing else, in every document.
        let relation = compared.groups.iter().find(|row| row.name == "P17").unwrap();
        assert_eq!((relation.f1_a, relation.bootstrap.p_value), (1.0, 0.0));
        let text = compared.to_string();
        assert!(
            text.contains("A gets and B misses: 4 facts")
                && text.contains("d0: P9 (0) e0 → e2 (2)"),
            "{text}"
        );
        assert_eq!(compared.to_csv().lines().count(), compared.groups.len() + 1);
    }

    /// The groups are those of the break-downs, and the whole is the official F1 where all titles
    /// are known.
    #[test]
    fn groups_agree_with_the_break_downs() {
        let documents = corpus();
        let gold = Gold::new(&documents).unwrap();
        let a =
            [predict(0, 1, "P17"), predict(1, 2, "P9"), predict(2, 1, "P9"), predict(3, 8, "P9")];
        let compared =
            compare(&gold, &a, &[], &CompareOptions { samples: 10, ..CompareOptions::default() })
                .unwrap();
        let expected = breakdown(&gold, &a, &BreakdownOptions::default());
        let f1 = |name: &str| compared.groups.iter().find(|row| row.name == name).unwrap().f1_a;
        assert_eq!(f1("all facts"), score(&gold, &a, Default::default(), Default::default()).f1);
        assert_eq!(
            (f1("intra-sentence"), f1("inter-sentence")),
            (expected.intra.f1, expected.inter.f1)
        );
        assert_eq!(
            (f1("frequent relations"), f1("long-tail relations")),
            (expected.frequent.f1, expected.long_tail.f1)
        );
        for named in expected.distance.iter().chain(&expected.mentions).chain(&expected.relations) {
            assert_eq!(f1(&named.name), named.block.f1, "{}", named.name);
        }
    }
}
