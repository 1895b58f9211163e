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

/// Types of people, whose documents introduce them by their full name and go on with a part of it
/// that others share.
const PEOPLE: [&str; 2] = ["PER", "PERSON"];

/// For a person, the longest of the names of which `name` is a part: `Lee` is `Lee Eun-ju` where
/// the document says so.
fn fullest_form<'a>(
    name: &'a str,
    names: &'a BTreeMap<String, usize>,
    entity: &NamedEntity,
) -> &'a str {
    if !PEOPLE.iter().any(|people| entity.entity_type.eq_ignore_ascii_case(people)) {
        return name;
    }
    let words = |name: &'a str| name.split_whitespace().collect::<Vec<_>>();
    let part = words(name);
    let longer = names.keys().filter(|other| {
        let whole = words(other);
        whole.len() > part.len() && whole.windows(part.len()).any(|run| run == part)
    });
    longer.max_by_key(|other| words(other).len()).map_or(name, String::as_str)
}

/// `the United States` and `United States` are one name.
fn without_article(name: &str) -> &str {
    let rest = ["the ", "The "].iter().find_map(|article| name.strip_prefix(article));
    rest.map_or(name, str::trim_start)
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
            let own = best_name(&names).map(|name| fullest_form(name, &names, entity));
            own.map_or_else(alone, |name| {
                format!("name:{}:{}", entity.entity_type, without_article(name))
            })
        }
        _ => alone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_goes_by_its_most_frequent_name_and_a_person_by_the_whole_of_it() {
        for (entity_type, names, expected) in [
            ("PER", &["Lee", "Eun-ju Lee", "Lee"][..], "name:PER:Eun-ju Lee"),
            ("person", &["Lee", "Lee Shau Kee", "Shau Kee"], "name:person:Lee Shau Kee"),
            ("PER", &["Lee", "Uncle Four", "Lee"], "name:PER:Lee"),
            ("PER", &["Le", "Lee Ho"], "name:PER:Lee Ho"),
            ("PER", &["Lee", "Leeds United", "Lee"], "name:PER:Lee"),
            ("LOC", &["Syria", "State of Syria", "Syria"], "name:LOC:Syria"),
            ("LOC", &["the United States"], "name:LOC:United States"),
            ("LOC", &[" Thebes"], "name:LOC:Thebes"),
        ] {
            let entity = NamedEntity {
                names: names.iter().map(|&name| name.to_owned()).collect(),
                entity_type: entity_type.to_owned(),
                ..NamedEntity::default()
            };
            let document = FactDocument::default();
            assert_eq!(key(&document, 0, &entity, MergeBy::IdOrName), expected);
        }
    }
}
