//! The graph as a whole, from which files are written.

use std::collections::BTreeSet;

use super::edges::Edges;
use super::facts::PredictedFacts;
use super::nodes::Nodes;
use crate::corpus::RelationSet;

/// A graph with what it was made of.
#[derive(Debug, Default)]
pub(super) struct FactGraph {
    /// Facts and documents.
    pub predicted: PredictedFacts,
    /// All nodes.
    pub nodes: Nodes,
    /// All edges.
    pub edges: Edges,
    /// Relations with their names, where they are known.
    pub names: Option<RelationSet>,
}

/// Where a fact stands.
pub(super) struct SourceText<'a> {
    /// Title of the document.
    pub title: &'a str,
    /// First name of the head there.
    pub head: &'a str,
    /// First name of the tail.
    pub tail: &'a str,
    /// The predicted evidence; else the sentences that name both; else those of both first
    /// mentions.
    pub sentences: Vec<usize>,
    /// These sentences.
    pub text: String,
}

impl FactGraph {
    /// Nodes that have an edge, in order.
    pub fn shown_nodes(&self) -> Vec<usize> {
        let ends = self.edges.kept.keys().flat_map(|key| [key.0, key.2]);
        ends.collect::<BTreeSet<usize>>().into_iter().collect()
    }

    /// Relations of the edges, in order.
    pub fn relations(&self) -> BTreeSet<&str> {
        self.edges.kept.keys().map(|key| key.1.as_str()).collect()
    }

    /// The name of a relation; its identifier where none is known.
    pub fn relation_name<'a>(&'a self, id: &'a str) -> &'a str {
        let named = self.names.as_ref().and_then(|names| names.get(names.index_of(id)?));
        named.map_or(id, |relation| relation.name.as_str())
    }

    /// Where a fact stands.
    pub fn statement(&self, fact: usize) -> SourceText<'_> {
        let fact = &self.predicted.facts[fact];
        let document = &self.predicted.documents[fact.document];
        let entity = |number: usize| document.entities.get(number);
        let name = |number: usize| {
            entity(number).and_then(|entity| entity.names.first()).map_or("", String::as_str)
        };
        let of = |number: usize| -> BTreeSet<usize> {
            entity(number).into_iter().flat_map(|entity| entity.sentences.iter().copied()).collect()
        };
        let (heads, tails) = (of(fact.head), of(fact.tail));
        let mut sentences: Vec<usize> = fact.evidence.clone();
        if sentences.is_empty() {
            sentences = heads.intersection(&tails).copied().collect();
        }
        if sentences.is_empty() {
            let first = [heads.first(), tails.first()].into_iter().flatten().copied();
            sentences = first.collect::<BTreeSet<usize>>().into_iter().collect();
        }
        let text = |&number: &usize| document.sentences.get(number).map(String::as_str);
        SourceText {
            title: &document.title,
            head: name(fact.head),
            tail: name(fact.tail),
            text: sentences.iter().filter_map(text).collect::<Vec<_>>().join(" "),
            sentences,
        }
    }
}
