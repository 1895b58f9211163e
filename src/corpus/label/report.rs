//! What distant labelling did: counts, ambiguity, coverage, and how well it agrees with labels that
//! people gave.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::super::{Document, Fact};

/// Distant labels beside human ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Distant labels, in documents that people have labelled.
    pub distant: usize,
    /// Human labels.
    pub human: usize,
    /// Labels that are in both.
    pub both: usize,
}

impl Agreement {
    /// Share of the distant labels that are human ones too; 0 if there are none.
    pub fn precision(self) -> f64 {
        self.both as f64 / (self.distant as f64).max(1.0)
    }

    /// Share of the human labels that were found; 0 if there are none.
    pub fn recall(self) -> f64 {
        self.both as f64 / (self.human as f64).max(1.0)
    }
}

/// What [`label_file`](super::label_file) did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelReport {
    /// Documents read.
    pub documents: usize,
    /// Documents left out because of their title.
    pub excluded: usize,
    /// Documents written; those without a label are written too.
    pub written: usize,
    /// Documents with at least one label.
    pub labelled: usize,
    /// Labels.
    pub facts: usize,
    /// Labels by relation identifier.
    pub by_relation: BTreeMap<String, usize>,
    /// Entities of the documents that were written.
    pub entities: usize,
    /// Entities with a name that the knowledge base knows (coverage).
    pub matched: usize,
    /// Entities whose names belong to several of its nodes (ambiguity). An entity with two known
    /// names counts too.
    pub ambiguous: usize,
    /// Pairs with more than one label.
    pub multiple: usize,
    /// Facts of the knowledge base.
    pub known_facts: usize,
    /// Facts of the knowledge base that gave at least one label.
    pub used_facts: usize,
    /// By relation, over the documents that came with labels; empty where none did.
    pub agreement: BTreeMap<String, Agreement>,
}

impl LabelReport {
    pub(super) fn add(&mut self, document: &Document, nodes: &[Vec<u32>], labels: &[Fact]) {
        self.written += 1;
        self.labelled += usize::from(!labels.is_empty());
        self.facts += labels.len();
        self.entities += nodes.len();
        self.matched += nodes.iter().filter(|nodes| !nodes.is_empty()).count();
        self.ambiguous += nodes.iter().filter(|nodes| nodes.len() > 1).count();
        // Labels are ordered by pair.
        self.multiple += labels
            .chunk_by(|a, b| (a.head, a.tail) == (b.head, b.tail))
            .filter(|labels| labels.len() > 1)
            .count();
        for label in labels {
            *self.by_relation.entry(label.relation.clone()).or_default() += 1;
        }
        if let Some(human) = &document.facts {
            self.compare(human, labels);
        }
    }

    fn compare(&mut self, human: &[Fact], labels: &[Fact]) {
        let known: HashSet<(usize, usize, &str)> =
            human.iter().map(|fact| (fact.head, fact.tail, fact.relation.as_str())).collect();
        for label in labels {
            let agreement = self.agreement.entry(label.relation.clone()).or_default();
            agreement.distant += 1;
            agreement.both +=
                usize::from(known.contains(&(label.head, label.tail, label.relation.as_str())));
        }
        for (_, _, relation) in known {
            self.agreement.entry(relation.to_owned()).or_default().human += 1;
        }
    }

    /// The agreement over all relations; `None` where no document came with labels.
    pub fn overall(&self) -> Option<Agreement> {
        let add = |a: Agreement, b: &Agreement| Agreement {
            distant: a.distant + b.distant,
            human: a.human + b.human,
            both: a.both + b.both,
        };
        (!self.agreement.is_empty())
            .then(|| self.agreement.values().fold(Agreement::default(), add))
    }

    /// A table of relations: labels, and precision and recall against human labels where there are
    /// any.
    pub fn table(&self) -> String {
        let mut relations: Vec<&String> =
            self.by_relation.keys().chain(self.agreement.keys()).collect();
        relations.sort_by_key(|relation| {
            (std::cmp::Reverse(self.by_relation.get(*relation)), *relation)
        });
        relations.dedup();
        let width =
            relations.iter().map(|relation| relation.chars().count()).max().unwrap_or(0).max(8);
        let mut table = format!("{:width$} {:>8}", "relation", "labels");
        table += if self.agreement.is_empty() { "\n" } else { " precision  recall   human\n" };
        for relation in relations {
            table += &format!(
                "{relation:width$} {:>8}",
                self.by_relation.get(relation).copied().unwrap_or_default()
            );
            if !self.agreement.is_empty() {
                let agreement = self.agreement.get(relation).copied().unwrap_or_default();
                table += &format!(
                    "    {:6.4}  {:6.4} {:>7}",
                    agreement.precision(),
                    agreement.recall(),
                    agreement.human
                );
            }
            table.push('\n');
        }
        table
    }
}

impl std::fmt::Display for LabelReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (relations, excluded) = (self.by_relation.len(), self.excluded);
        write!(
            f,
            "{} labels of {relations} relations in {} of {} documents",
            self.facts, self.labelled, self.documents
        )?;
        if excluded > 0 {
            write!(f, ", {excluded} documents left out")?;
        }
        let (matched, entities, ambiguous, multiple) =
            (self.matched, self.entities, self.ambiguous, self.multiple);
        write!(
            f,
            "; {matched} of {entities} entities are known, {ambiguous} of them by several nodes; \
             {multiple} pairs with several labels"
        )?;
        write!(f, "; {} of {} facts were used", self.used_facts, self.known_facts)?;
        match self.overall() {
            None => Ok(()),
            Some(all) => {
                let (precision, recall) = (all.precision(), all.recall());
                write!(
                    f,
                    "; against {} human labels precision {precision:.4}, recall {recall:.4}",
                    all.human
                )
            }
        }
    }
}
