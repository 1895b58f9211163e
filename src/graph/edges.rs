//! Facts of many documents, merged into edges, and what constraints leave of them.

use std::collections::{BTreeMap, BTreeSet};

use super::constraints::{Constraints, RelationConstraint};
use super::facts::PredictedFacts;
use super::nodes::Nodes;

/// Head node, relation and tail node.
pub(super) type EdgeKey = (usize, String, usize);

/// A relation between two nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct GraphEdge {
    /// Indices of the facts that state it; of its inverse where nothing states it itself.
    pub facts: Vec<usize>,
    /// The best weight of a fact (see [`SourcedFact::weight`]).
    ///
    /// [`SourcedFact::weight`]: super::facts::SourcedFact::weight
    pub score: Option<f64>,
    /// The best weight of each document, added up; a document without a weight counts as 1.
    pub support: f64,
    /// Number of documents.
    pub documents: usize,
    /// Whether only its inverse was predicted.
    pub derived: bool,
}

/// Why an edge is not in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EdgeConflict {
    /// Head and tail are the same node.
    Itself,
    /// The head has a type that the relation does not allow.
    HeadType,
    /// The tail has.
    TailType,
    /// The head has one tail, and another has more support.
    Functional(EdgeKey),
    /// The tail has one head, and another has more support.
    InverseFunctional(EdgeKey),
    /// Its inverse is not in the graph.
    Inverse(EdgeKey),
}

impl EdgeConflict {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::HeadType => "head-type",
            Self::TailType => "tail-type",
            Self::Functional(_) => "functional",
            Self::InverseFunctional(_) => "inverse-functional",
            Self::Inverse(_) => "inverse",
        }
    }

    /// The edge that stands in its place, or that it hangs on.
    pub fn other(&self) -> Option<&EdgeKey> {
        match self {
            Self::Functional(key) | Self::InverseFunctional(key) | Self::Inverse(key) => Some(key),
            Self::Itself | Self::HeadType | Self::TailType => None,
        }
    }
}

/// The edges of a graph, and those that are not in it.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// By head, relation and tail.
    pub kept: BTreeMap<EdgeKey, GraphEdge>,
    /// Likewise, with the reason.
    pub dropped: BTreeMap<EdgeKey, (GraphEdge, EdgeConflict)>,
}

impl Edges {
    /// Merges facts, adds inverses, and drops what the constraints exclude.
    pub fn merge(predicted: &PredictedFacts, nodes: &Nodes, constraints: &Constraints) -> Self {
        let mut facts: BTreeMap<EdgeKey, Vec<usize>> = BTreeMap::new();
        for (index, fact) in predicted.facts.iter().enumerate() {
            let node = |entity| nodes.of(fact.document, entity);
            let key = (node(fact.head), fact.relation.clone(), node(fact.tail));
            facts.entry(key).or_default().push(index);
        }
        let mut edges = Self::default();
        for (key, facts) in facts {
            let edge = weighed(facts, predicted);
            match excluded(&key, nodes, constraints.of(&key.1)) {
                Some(conflict) => _ = edges.dropped.insert(key, (edge, conflict)),
                None => _ = edges.kept.insert(key, edge),
            }
        }
        edges.complete(predicted, nodes, constraints);
        for relation in constraints.relations() {
            let Some(known) = constraints.of(relation) else { continue };
            if known.functional {
                edges.keep_one(relation, constraints, |key| key.0, EdgeConflict::Functional);
            }
            if known.inverse_functional {
                let conflict = EdgeConflict::InverseFunctional;
                edges.keep_one(relation, constraints, |key| key.2, conflict);
            }
        }
        edges
    }

    /// Joins the facts of edges and their inverses: the two say the same. An inverse that nothing
    /// states is added.
    fn complete(&mut self, predicted: &PredictedFacts, nodes: &Nodes, constraints: &Constraints) {
        let stated: Vec<EdgeKey> = self.kept.keys().cloned().collect();
        for key in stated {
            let Some(back) = inverse(&key, constraints) else { continue };
            if self.dropped.contains_key(&back) {
                // The inverse is excluded, so what says the same is.
                if let Some(edge) = self.kept.remove(&key) {
                    self.dropped.insert(key, (edge, EdgeConflict::Inverse(back)));
                }
                continue;
            }
            if let Some(conflict) = excluded(&back, nodes, constraints.of(&back.1)) {
                if let Some(edge) = self.kept.remove(&key) {
                    let derived = GraphEdge { derived: true, ..edge.clone() };
                    self.dropped.insert(key, (edge, EdgeConflict::Inverse(back.clone())));
                    self.dropped.insert(back, (derived, conflict));
                }
                continue;
            }
            let of = |key: &EdgeKey| {
                self.kept.get(key).filter(|edge| !edge.derived).map(|edge| edge.facts.clone())
            };
            let all: BTreeSet<usize> =
                [of(&key), of(&back)].into_iter().flatten().flatten().collect();
            let both = weighed(all.into_iter().collect(), predicted);
            let derived = !self.kept.contains_key(&back)
                || self.kept.get(&back).is_some_and(|edge| edge.derived);
            self.kept.insert(back, GraphEdge { derived, ..both.clone() });
            self.kept.insert(key, both);
        }
    }

    /// Of the edges of a relation that `one` groups, keeps the one with the most support. An edge
    /// and its inverse go together.
    fn keep_one(
        &mut self,
        relation: &str,
        constraints: &Constraints,
        one: impl Fn(&EdgeKey) -> usize,
        conflict: impl Fn(EdgeKey) -> EdgeConflict,
    ) {
        let mut groups: BTreeMap<usize, Vec<EdgeKey>> = BTreeMap::new();
        for key in self.kept.keys().filter(|key| key.1 == relation) {
            groups.entry(one(key)).or_default().push(key.clone());
        }
        for group in groups.into_values().filter(|group| group.len() > 1) {
            let weight = |key: &EdgeKey| {
                let edge = &self.kept[key];
                (edge.support, edge.score.unwrap_or_default())
            };
            let best = group.iter().cloned().max_by(|a, b| {
                let ((a_support, a_score), (b_support, b_score)) = (weight(a), weight(b));
                // Of equals the first stays.
                a_support.total_cmp(&b_support).then(a_score.total_cmp(&b_score)).then(b.cmp(a))
            });
            let Some(best) = best else { continue };
            for key in group.into_iter().filter(|key| *key != best) {
                if let Some(edge) = self.kept.remove(&key) {
                    let back = inverse(&key, constraints).filter(|back| *back != key);
                    if let Some((back, own)) = back.and_then(|back| self.kept.remove_entry(&back)) {
                        self.dropped.insert(back, (own, EdgeConflict::Inverse(key.clone())));
                    }
                    self.dropped.insert(key, (edge, conflict(best.clone())));
                }
            }
        }
    }
}

/// The edge that says the same from tail to head.
fn inverse(key: &EdgeKey, constraints: &Constraints) -> Option<EdgeKey> {
    let inverse = constraints.of(&key.1)?.inverse.clone()?;
    Some((key.2, inverse, key.0))
}

/// Why an edge cannot be, whatever else is in the graph.
fn excluded(
    key: &EdgeKey,
    nodes: &Nodes,
    known: Option<&RelationConstraint>,
) -> Option<EdgeConflict> {
    if key.0 == key.2 {
        return Some(EdgeConflict::Itself);
    }
    let known = known?;
    // A node without a type fits everywhere; one with several, where one of them does.
    let fits = |node: usize, allowed: &[String]| {
        let types = &nodes.nodes[node].types;
        allowed.is_empty() || types.is_empty() || types.iter().any(|own| allowed.contains(own))
    };
    if !fits(key.0, &known.head_types) {
        return Some(EdgeConflict::HeadType);
    }
    (!fits(key.2, &known.tail_types)).then_some(EdgeConflict::TailType)
}

fn weighed(facts: Vec<usize>, predicted: &PredictedFacts) -> GraphEdge {
    let mut best: BTreeMap<usize, Option<f64>> = BTreeMap::new();
    for &index in &facts {
        let fact = &predicted.facts[index];
        let own = best.entry(fact.document).or_default();
        *own = [*own, fact.weight()].into_iter().flatten().reduce(f64::max);
    }
    GraphEdge {
        score: best.values().copied().flatten().reduce(f64::max),
        support: best.values().map(|weight| weight.unwrap_or(1.0)).sum(),
        documents: best.len(),
        facts,
        derived: false,
    }
}
