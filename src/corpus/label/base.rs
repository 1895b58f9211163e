//! The facts of a knowledge base, by the names of their entities.
//!
//! A *node* is what a fact relates: a name, or an item with a label and aliases. A name can belong
//! to several nodes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

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
    /// Where the facts were read.
    file: PathBuf,
}

/// Facts from which on their relations are expected to repeat.
const FEW: usize = 20;

const LIST_HINT: &str = "a list holds facts, [\"head\", \"tail\", \"P17\"]; items with claims \
                         stand one a line, without brackets and commas around them";

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
        let mut base = Self { matching, file: path.to_owned(), ..Self::default() };
        match text_file::first_byte(path)? {
            Some(b'[') => {
                let add = &mut |row, fact: Vec<String>| base.add_row(path, row, &fact);
                json_stream::read_array(path, add).map_err(|error| error.with_hint(LIST_HINT))?;
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
        if base.size >= FEW && 2 * base.relations.len() > base.size {
            say(format!(
                "warning: {}: {} relations in {} facts: is the third of each the relation, behind \
                 head and tail?",
                path.display(),
                base.relations.len(),
                base.size
            ));
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
            .hint(if matches!(fields, [line] if line.starts_with('<')) {
                "N-Triples are not read; docs/formats.md (Facts files) says how to make facts of \
                 them"
            } else {
                "write [\"head\", \"tail\", \"P17\"] in JSON, or the three separated by tabs"
            })
            .into()),
        }
    }

    /// Leaves out the facts of relations that are not in `relations`, which `file` holds, and says
    /// how many.
    ///
    /// # Errors
    /// A [`DataError`] about the facts if none is left.
    pub fn keep_relations(&mut self, relations: &RelationSet, file: &Path) -> Result<()> {
        let ids: Vec<&str> = self.relations.iter().map(|relation| relation.id.as_str()).collect();
        let others: Vec<u32> = (0..ids.len() as u32)
            .filter(|&class| relations.index_of(ids[class as usize]).is_none())
            .collect();
        let Some(&first) = others.first() else { return Ok(()) };
        let first = ids[first as usize].to_owned();
        let (known, all) = (others.len(), self.size);
        self.facts.retain(|_, classes| {
            classes.retain(|class| others.binary_search(class).is_err());
            !classes.is_empty()
        });
        self.size = self.facts.values().map(Vec::len).sum();
        let file = file.display();
        if self.size == 0 {
            let problem =
                format!("none of its {all} facts has a relation of {file}; one has `{first}`");
            return Err(DataError::new(&self.file, problem)
                .hint(
                    "a fact is head, tail and relation in this order, and its relation is an \
                     identifier of the relation file",
                )
                .into());
        }
        say(format!(
            "warning: {}: {} of {all} facts were left out, whose relations are not in {file}: \
             {known}, such as `{first}`",
            self.file.display(),
            all - self.size
        ));
        Ok(())
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
