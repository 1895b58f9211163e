//! Collecting the facts of a corpus under their names, and merging keys that share an instance.

use std::collections::hash_map::Entry;

use ahash::AHashMap;

use super::Instance;
use crate::shards::DocumentStore;
use crate::text::{EncodedDocument, EncodedEntity};

/// Case-folded mention names, numbered by first appearance, with how often each is mentioned in the corpus.
#[derive(Default)]
struct Names {
    ids: AHashMap<String, u32>,
    texts: Vec<String>,
    counts: Vec<u32>,
}

impl Names {
    fn count(&mut self, name: &str) -> u32 {
        let folded = name.to_lowercase();
        let id = match self.ids.get(&folded) {
            Some(&id) => id,
            None => {
                let id = self.texts.len() as u32;
                self.texts.push(folded.clone());
                self.counts.push(0);
                self.ids.insert(folded, id);
                id
            }
        };
        self.counts[id as usize] += 1;
        id
    }

    /// The most frequent of some names; the first in the alphabet among equals.
    fn canonical(&self, names: &[u32]) -> &str {
        let better = |&a: &u32, &b: &u32| {
            let (a, b) = (a as usize, b as usize);
            self.counts[a].cmp(&self.counts[b]).then_with(|| self.texts[b].cmp(&self.texts[a]))
        };
        names.iter().copied().max_by(better).map_or("", |name| &self.texts[name as usize])
    }
}

/// An instance with the names of its two entities, as positions in the list of all entities' names.
struct Stated {
    instance: Instance,
    head: usize,
    tail: usize,
}

/// The facts of all labelled documents.
#[derive(Default)]
struct Corpus {
    names: Names,
    /// Distinct names of each entity that takes part in a fact.
    entities: Vec<Vec<u32>>,
    stated: Vec<Stated>,
}

impl Corpus {
    fn add(&mut self, row: usize, document: &EncodedDocument) {
        let first = self.entities.len();
        for entity in &document.entities {
            let names = self.entity_names(entity);
            self.entities.push(names);
        }
        let start = self.stated.len();
        for fact in &document.facts {
            let instance = Instance { row: row as u32, head: fact.head, tail: fact.tail, relation: fact.relation };
            let (head, tail) = (first + fact.head as usize, first + fact.tail as usize);
            self.stated.push(Stated { instance, head, tail });
        }
        // A fact that a document lists twice is one instance.
        self.stated[start..].sort_by_key(|stated| stated.instance);
        self.stated.dedup_by_key(|stated| stated.instance);
    }

    fn entity_names(&mut self, entity: &EncodedEntity) -> Vec<u32> {
        let mut names: Vec<u32> = entity.mentions.iter().map(|mention| self.names.count(&mention.name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The group of each instance: instances that share a (head name, tail name, relation) directly or through others.
    fn groups(&self) -> Groups {
        let mut groups = Groups::new(self.stated.len());
        let mut first: AHashMap<(u32, u32, u32), usize> = AHashMap::new();
        for (number, stated) in self.stated.iter().enumerate() {
            for &head in &self.entities[stated.head] {
                for &tail in &self.entities[stated.tail] {
                    match first.entry((head, tail, stated.instance.relation)) {
                        Entry::Occupied(other) => groups.join(*other.get(), number),
                        Entry::Vacant(place) => {
                            place.insert(number);
                        }
                    }
                }
            }
        }
        groups
    }

    /// Hash of (canonical head name, canonical tail name, relation).
    fn key(&self, stated: &Stated) -> u64 {
        let [head, tail] = [stated.head, stated.tail].map(|entity| self.names.canonical(&self.entities[entity]));
        let mut hasher = blake3::Hasher::new();
        for name in [head, tail] {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        }
        hasher.update(&stated.instance.relation.to_le_bytes());
        hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// Union-find over instances.
struct Groups {
    parents: Vec<usize>,
}

impl Groups {
    fn new(count: usize) -> Self {
        Self { parents: (0..count).collect() }
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    /// The smaller root wins, so that roots do not depend on the order of joins.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }
}

/// All (key, instance), sorted. The key of a group is the smallest among its instances'.
pub(super) fn keyed_instances(store: &DocumentStore) -> Vec<(u64, Instance)> {
    let mut corpus = Corpus::default();
    for row in 0..store.len() {
        let document = store.get(row);
        if document.labelled {
            corpus.add(row, &document);
        }
    }
    let mut groups = corpus.groups();
    let mut keys: AHashMap<usize, u64> = AHashMap::new();
    for (number, stated) in corpus.stated.iter().enumerate() {
        let key = corpus.key(stated);
        keys.entry(groups.root(number)).and_modify(|least| *least = key.min(*least)).or_insert(key);
    }
    let keyed = corpus.stated.iter().enumerate().map(|(number, stated)| (keys[&groups.root(number)], stated.instance));
    let mut keyed: Vec<(u64, Instance)> = keyed.collect();
    keyed.sort_unstable();
    keyed
}
