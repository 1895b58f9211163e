//! The facts of a knowledge base, by the names of their entities.
//!
//! A *node* is what a fact relates: a name, or an item with a label and aliases. A name can belong
//! to several nodes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use super::super::{Document, Entity, Fact, RelationSet, is_no_relation};
use crate::base::records::{Record, Unit, read_records};
use crate::base::{json_stream, say, text_file};
use crate::{DataError, Result};

/// How names are matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Matching {
    /// Letter by letter, with labels and identifiers
    #[default]
    Exact,
    /// Without regard to case and to the amount of white space
    Folded,
    /// As folded, with the aliases of items too
    Alias,
}

/// Facts by the names of their two entities.
#[derive(Clone, Debug, Default)]
pub struct FactBase {
    matching: Matching,
    /// Name → nodes, in order of insertion.
    names: HashMap<String, Vec<u32>>,
    nodes: u32,
    relations: RelationSet,
    /// (head, tail) → relation classes in order of insertion.
    facts: HashMap<(u32, u32), Vec<u32>>,
    size: usize,
    /// Facts of the file that say "no relation".
    no_relation: usize,
}

/// A Wikidata-style item: its names, and what it is related to.
#[derive(Deserialize)]
struct ItemLine {
    id: String,
    label: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    claims: serde_json::Map<String, serde_json::Value>,
}

impl FactBase {
    /// Reads a facts file, gzip if it ends in `.gz`: a JSON list of [head name, tail name,
    /// relation], the same as tab-separated lines, or JSONL of items `{"id", "label", "aliases",
    /// "claims": {relation: [id, …]}}`. Names are matched letter by letter.
    ///
    /// # Errors
    /// A [`DataError`] naming the row of a malformed fact; I/O errors.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_with(path, Matching::Exact)
    }

    /// As [`Self::load`], with names matched as `matching` says.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(path: &Path, matching: Matching) -> Result<Self> {
        let mut base = Self { matching, ..Self::default() };
        match text_file::first_byte(path)? {
            Some(b'[') => {
                json_stream::read_array(path, &mut |row, fact: Vec<String>| {
                    base.add_row(path, row, &fact)
                })?;
            }
            Some(b'{') => base.add_items(path)?,
            _ => {
                let split = |Record { text, row, .. }: Record<'_>| {
                    Ok((row, text.split('\t').map(str::to_owned).collect::<Vec<_>>()))
                };
                read_records(path, Unit::Line, &split, &mut |(row, fields)| {
                    base.add_row(path, row, &fields)
                })?;
            }
        }
        if base.no_relation > 0 {
            let (file, count) = (path.display(), base.no_relation);
            say(format!("warning: {file}: {count} facts of \"no relation\" (NA) were left out"));
        }
        Ok(base)
    }

    fn add_row(&mut self, path: &Path, row: usize, fields: &[String]) -> Result<()> {
        match fields {
            [head, tail, relation] if fields.iter().all(|field| !field.is_empty()) => {
                self.insert(head, tail, relation);
                Ok(())
            }
            _ => Err(DataError::new(
                path,
                format!("a fact is a head name, a tail name and a relation, found {fields:?}"),
            )
            .row(row)
            .hint("write [\"head\", \"tail\", \"P17\"] in JSON, or the three separated by tabs")
            .into()),
        }
    }

    fn add_items(&mut self, path: &Path) -> Result<()> {
        // A claim can name an item that comes later in the file, so each item is a node of its own,
        // whatever its names are.
        let mut ids: HashMap<String, u32> = HashMap::new();
        let parse = |Record { text, row, line }: Record<'_>| {
            Ok((row, json_stream::parse_line::<ItemLine>(path, text, row, line)?))
        };
        read_records(path, Unit::Line, &parse, &mut |(row, item)| {
            let head = self.item(&mut ids, &item.id);
            let aliases = item.aliases.iter().filter(|_| self.matching == Matching::Alias);
            for name in
                item.label.iter().chain(aliases).map(|name| self.key(name)).collect::<Vec<_>>()
            {
                self.add_name(name, head);
            }
            for (relation, targets) in &item.claims {
                for target in targets_of(path, row, relation, targets)? {
                    let tail = self.item(&mut ids, target);
                    self.relate(head, tail, relation);
                }
            }
            Ok(())
        })
    }

    /// The node of an item. The identifier is one of its names.
    fn item(&mut self, ids: &mut HashMap<String, u32>, id: &str) -> u32 {
        if let Some(&known) = ids.get(id) {
            return known;
        }
        let node = self.new_node();
        ids.insert(id.to_owned(), node);
        self.add_name(self.key(id), node);
        node
    }

    fn new_node(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    fn add_name(&mut self, key: String, node: u32) {
        let nodes = self.names.entry(key).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }

    /// A name as it is compared.
    fn key(&self, name: &str) -> String {
        match self.matching {
            Matching::Exact => name.to_owned(),
            _ => name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase(),
        }
    }

    /// Adds a fact between two names; one that is known already changes nothing.
    pub fn insert(&mut self, head: &str, tail: &str, relation: &str) {
        let (head, tail) = (self.named(head), self.named(tail));
        self.relate(head, tail, relation);
    }

    fn named(&mut self, name: &str) -> u32 {
        let key = self.key(name);
        if let Some(&known) = self.names.get(&key).and_then(|nodes| nodes.first()) {
            return known;
        }
        let node = self.new_node();
        self.add_name(key, node);
        node
    }

    fn relate(&mut self, head: u32, tail: u32, relation: &str) {
        if is_no_relation(relation) {
            self.no_relation += 1;
            return;
        }
        let class = self.relations.insert(relation, relation) as u32;
        let classes = self.facts.entry((head, tail)).or_default();
        if !classes.contains(&class) {
            classes.push(class);
            self.size += 1;
        }
    }

    /// Number of different facts.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether there is no fact.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The labels of a document: every fact whose head has a name of one entity and whose tail has
    /// a name of another. The names of an entity are those of its mentions, and its identifier. The
    /// labels are ordered by head, tail and relation identifier.
    ///
    /// The evidence is the sentences that mention both entities. This is a guess: the fact may be
    /// expressed across sentences (then the list is empty or wrong), or nowhere at all.
    pub fn label(&self, document: &Document) -> Vec<Fact> {
        self.label_nodes(document, &self.nodes(document))
    }

    /// The nodes that each entity of a document may stand for.
    pub(super) fn nodes(&self, document: &Document) -> Vec<Vec<u32>> {
        document.entities.iter().map(|entity| self.nodes_of(entity)).collect()
    }

    fn nodes_of(&self, entity: &Entity) -> Vec<u32> {
        let names = entity
            .mentions
            .iter()
            .map(|mention| mention.name.as_str())
            .chain(entity.knowledge_base_id.as_deref());
        let nodes: BTreeSet<u32> =
            names.filter_map(|name| self.names.get(&self.key(name))).flatten().copied().collect();
        nodes.into_iter().collect()
    }

    pub(super) fn label_nodes(&self, document: &Document, nodes: &[Vec<u32>]) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (head, head_nodes) in nodes.iter().enumerate().filter(|(_, nodes)| !nodes.is_empty()) {
            for (tail, tail_nodes) in nodes.iter().enumerate().filter(|(tail, _)| *tail != head) {
                let relations = self.relations_between(head_nodes, tail_nodes);
                if !relations.is_empty() {
                    let evidence =
                        shared_sentences(&document.entities[head], &document.entities[tail]);
                    let fact = |relation: &str| Fact {
                        head,
                        tail,
                        relation: relation.to_owned(),
                        evidence: evidence.clone(),
                    };
                    facts.extend(relations.into_iter().map(fact));
                }
            }
        }
        facts
    }

    fn relations_between(&self, heads: &[u32], tails: &[u32]) -> BTreeSet<&str> {
        let classes = self.between(heads, tails).flat_map(|(_, classes)| classes);
        classes
            .filter_map(|&class| self.relations.get(class as usize))
            .map(|relation| relation.id.as_str())
            .collect()
    }

    fn between<'a>(
        &'a self,
        heads: &'a [u32],
        tails: &'a [u32],
    ) -> impl Iterator<Item = ((u32, u32), &'a Vec<u32>)> {
        let pairs = heads.iter().flat_map(move |&head| tails.iter().map(move |&tail| (head, tail)));
        pairs.filter_map(|pair| Some((pair, self.facts.get(&pair)?)))
    }

    /// Notes which facts gave the labels of a document.
    pub(super) fn note_used(
        &self,
        nodes: &[Vec<u32>],
        labels: &[Fact],
        used: &mut HashSet<(u32, u32, u32)>,
    ) {
        for label in labels {
            let class = self.relations.index_of(&label.relation).map(|class| class as u32);
            let pairs = self.between(&nodes[label.head], &nodes[label.tail]);
            used.extend(pairs.filter_map(|((head, tail), classes)| {
                class.filter(|class| classes.contains(class)).map(|class| (head, tail, class))
            }));
        }
    }
}

/// The items that a claim names: `["Q1", …]`, or `"Q1"` alone.
fn targets_of<'a>(
    path: &Path,
    row: usize,
    relation: &str,
    value: &'a serde_json::Value,
) -> Result<Vec<&'a str>> {
    let targets = match value {
        serde_json::Value::String(one) => Some(vec![one.as_str()]),
        serde_json::Value::Array(list) => list.iter().map(serde_json::Value::as_str).collect(),
        _ => None,
    };
    targets.ok_or_else(|| {
        let problem = format!("the claims of `{relation}` are no list of identifiers");
        DataError::new(path, problem)
            .row(row)
            .field(format!("claims.{relation}"))
            .hint("write {\"claims\": {\"P17\": [\"Q142\"]}}")
            .into()
    })
}

fn shared_sentences(head: &Entity, tail: &Entity) -> Vec<usize> {
    let of = |entity: &Entity| {
        entity.mentions.iter().map(|mention| mention.sentence).collect::<BTreeSet<_>>()
    };
    of(head).intersection(&of(tail)).copied().collect()
}
