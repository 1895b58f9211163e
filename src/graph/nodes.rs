//! Entities of many documents, merged into nodes.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use serde::Serialize;

use super::facts::{FactDocument, NamedEntity, PredictedFacts};

/// Which entities of different documents are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergeBy {
    /// Those with the same identifier; of those without, the ones of the same name and type.
    #[default]
    IdOrName,
    /// Those with the same identifier.
    Id,
    /// None.
    Nothing,
}

/// One thing of the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GraphNode {
    /// What edges call it: the identifier of the knowledge base; else `name:TYPE:NAME`, or
    /// `document:TITLE:NUMBER` for an entity that is not merged.
    pub id: String,
    /// Identifier in a knowledge base.
    pub knowledge_base_id: Option<String>,
    /// The most frequent name; of equally frequent ones the longest.
    pub name: String,
    /// All names, sorted.
    pub names: Vec<String>,
    /// Types, the most frequent first; several where documents disagree.
    pub types: Vec<String>,
    /// Number of mentions.
    pub mentions: usize,
    /// Number of documents.
    pub documents: usize,
}

/// The nodes, and which one each entity of each document is.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// By identifier.
    pub nodes: Vec<GraphNode>,
    /// By document and entity; entities without a fact have none.
    of: BTreeMap<(usize, usize), usize>,
}

/// What is collected of a node.
#[derive(Default)]
struct Collected {
    knowledge_base_id: Option<String>,
    names: BTreeMap<String, usize>,
    types: BTreeMap<String, usize>,
    documents: BTreeSet<usize>,
}

impl Nodes {
    /// Merges the entities that facts are about.
    pub fn merge(predicted: &PredictedFacts, by: MergeBy) -> Self {
        let mut places: BTreeSet<(usize, usize)> = BTreeSet::new();
        for fact in &predicted.facts {
            places.extend([(fact.document, fact.head), (fact.document, fact.tail)]);
        }
        let unnamed = NamedEntity::default();
        let mut collected: BTreeMap<String, Collected> = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for (document, entity) in places {
            let from = &predicted.documents[document];
            let named = from.entities.get(entity).unwrap_or(&unnamed);
            let key = key(from, entity, named, by);
            let node = collected.entry(key.clone()).or_default();
            node.knowledge_base_id = named.id.clone().filter(|_| by != MergeBy::Nothing);
            for name in &named.names {
                *node.names.entry(name.trim().to_owned()).or_default() += 1;
            }
            if !named.entity_type.is_empty() {
                *node.types.entry(named.entity_type.clone()).or_default() += 1;
            }
            node.documents.insert(document);
            keys.insert((document, entity), key);
        }
        let numbers: BTreeMap<&str, usize> =
            collected.keys().enumerate().map(|(number, key)| (key.as_str(), number)).collect();
        let of = keys.iter().map(|(&place, key)| (place, numbers[key.as_str()])).collect();
        let nodes = collected.iter().map(|(key, node)| node.finish(key)).collect();
        Self { nodes, of }
    }

    /// The node of an entity of a document that a fact is about.
    pub fn of(&self, document: usize, entity: usize) -> usize {
        self.of[&(document, entity)]
    }

    /// Nodes for which documents name several types.
    pub fn several_types(&self) -> usize {
        self.nodes.iter().filter(|node| node.types.len() > 1).count()
    }
}

impl Collected {
    fn finish(&self, key: &str) -> GraphNode {
        let mut types: Vec<(&String, &usize)> = self.types.iter().collect();
        types.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        GraphNode {
            id: key.to_owned(),
            knowledge_base_id: self.knowledge_base_id.clone(),
            name: best_name(&self.names).unwrap_or(key).to_owned(),
            names: self.names.keys().cloned().collect(),
            types: types.into_iter().map(|(name, _)| name.clone()).collect(),
            mentions: self.names.values().sum(),
            documents: self.documents.len(),
        }
    }
}

/// The most frequent name; of equally frequent ones the longest, then the first in order.
fn best_name(names: &BTreeMap<String, usize>) -> Option<&str> {
    let best = names.iter().max_by(|a, b| {
        a.1.cmp(b.1).then(a.0.chars().count().cmp(&b.0.chars().count())).then(b.0.cmp(a.0))
    });
    best.map(|(name, _)| name.as_str())
}

/// What entities that are one node have in common.
fn key(document: &FactDocument, number: usize, entity: &NamedEntity, by: MergeBy) -> String {
    let alone = || format!("document:{}:{number}", document.title);
    match (by, &entity.id) {
        (MergeBy::IdOrName | MergeBy::Id, Some(id)) => id.clone(),
        (MergeBy::IdOrName, None) => {
            let mut names: BTreeMap<String, usize> = BTreeMap::new();
            for name in &entity.names {
                *names.entry(name.trim().to_owned()).or_default() += 1;
            }
            let own = best_name(&names);
            own.map_or_else(alone, |name| format!("name:{}:{name}", entity.entity_type))
        }
        _ => alone(),
    }
}
