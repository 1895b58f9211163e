//! Distant labelling: facts of a knowledge base, matched to documents by name.
//!
//! Not for: deciding which labels are true; that is what the pre-denoising stages are for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io::Read,
    path::Path,
};

use super::{
    Document, Entity, Fact, RelationSet,
    docred::{DocredWriter, ReadOptions, read_documents},
    json_stream,
};
use crate::{DataError, Result};

/// Facts by the names of their two entities.
#[derive(Clone, Debug, Default)]
pub struct FactBase {
    names: HashMap<String, u32>,
    relations: RelationSet,
    /// (head name, tail name) → relation classes in order of insertion.
    facts: HashMap<(u32, u32), Vec<u32>>,
    size: usize,
}

impl FactBase {
    /// Reads a facts file: a JSON list of [head name, tail name, relation], or the same as tab-separated lines; gzip if it ends in `.gz`.
    ///
    /// # Errors
    /// A [`DataError`] naming the row of a malformed fact; I/O errors.
    pub fn load(path: &Path) -> Result<Self> {
        let mut base = Self::default();
        if first_byte(path)? == Some(b'[') {
            json_stream::read_array(path, &mut |row, fact: Vec<String>| base.add_row(path, row, &fact))?;
            return Ok(base);
        }
        let mut text = String::new();
        json_stream::open(path)?.read_to_string(&mut text)?;
        for (row, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
            base.add_row(path, row, &fields)?;
        }
        Ok(base)
    }

    fn add_row(&mut self, path: &Path, row: usize, fields: &[String]) -> Result<()> {
        match fields {
            [head, tail, relation] if fields.iter().all(|field| !field.is_empty()) => {
                self.insert(head, tail, relation);
                Ok(())
            }
            _ => Err(DataError::new(path, format!("a fact is a head name, a tail name and a relation, found {fields:?}"))
                .row(row)
                .hint("write [\"head\", \"tail\", \"P17\"] in JSON, or the three separated by tabs")
                .into()),
        }
    }

    /// Adds a fact; one that is known already changes nothing.
    pub fn insert(&mut self, head: &str, tail: &str, relation: &str) {
        let key = (self.name(head), self.name(tail));
        let class = self.relations.insert(relation, relation) as u32;
        let classes = self.facts.entry(key).or_default();
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

    /// The labels of a document: every fact whose head name is exactly the name of a mention of one entity, and whose tail name that of a
    /// mention of another. Ordered by head, tail and relation identifier.
    ///
    /// Evidence is the sentences that mention both entities. That is a heuristic: the fact may be expressed across sentences (then the list
    /// is empty or wrong), or nowhere at all.
    pub fn label(&self, document: &Document) -> Vec<Fact> {
        let names: Vec<Vec<u32>> = document.entities.iter().map(|entity| self.known_names(entity)).collect();
        let mut facts = Vec::new();
        for (head, head_names) in names.iter().enumerate().filter(|(_, names)| !names.is_empty()) {
            for (tail, tail_names) in names.iter().enumerate().filter(|(tail, _)| *tail != head) {
                let relations = self.relations_between(head_names, tail_names);
                if !relations.is_empty() {
                    let evidence = shared_sentences(&document.entities[head], &document.entities[tail]);
                    let fact = |relation: &str| Fact { head, tail, relation: relation.to_owned(), evidence: evidence.clone() };
                    facts.extend(relations.into_iter().map(fact));
                }
            }
        }
        facts
    }

    fn name(&mut self, name: &str) -> u32 {
        if let Some(&known) = self.names.get(name) {
            return known;
        }
        let new = self.names.len() as u32;
        self.names.insert(name.to_owned(), new);
        new
    }

    fn known_names(&self, entity: &Entity) -> Vec<u32> {
        let names: BTreeSet<u32> = entity.mentions.iter().filter_map(|mention| self.names.get(&mention.name).copied()).collect();
        names.into_iter().collect()
    }

    fn relations_between(&self, heads: &[u32], tails: &[u32]) -> BTreeSet<&str> {
        let pairs = heads.iter().flat_map(|&head| tails.iter().map(move |&tail| (head, tail)));
        let classes = pairs.filter_map(|pair| self.facts.get(&pair)).flatten();
        classes.filter_map(|&class| self.relations.get(class as usize)).map(|relation| relation.id.as_str()).collect()
    }
}

fn shared_sentences(head: &Entity, tail: &Entity) -> Vec<usize> {
    let of = |entity: &Entity| entity.mentions.iter().map(|mention| mention.sentence).collect::<BTreeSet<_>>();
    of(head).intersection(&of(tail)).copied().collect()
}

fn first_byte(path: &Path) -> Result<Option<u8>> {
    for byte in std::io::BufReader::new(json_stream::open(path)?).bytes() {
        let byte = byte?;
        if !byte.is_ascii_whitespace() {
            return Ok(Some(byte));
        }
    }
    Ok(None)
}

/// What [`label_file`] does besides matching names.
#[derive(Clone, Debug, Default)]
pub struct LabelOptions {
    /// Titles that are left out, such as those of the development and test documents.
    pub exclude_titles: HashSet<String>,
}

/// What [`label_file`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}

impl std::fmt::Display for LabelReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (relations, excluded) = (self.by_relation.len(), self.excluded);
        write!(f, "{} labels of {relations} relations in {} of {} documents", self.facts, self.labelled, self.documents)?;
        if excluded > 0 { write!(f, ", {excluded} documents left out") } else { Ok(()) }
    }
}

/// Labels every document of `input` (DocRED format, whose own labels are replaced) and writes `output`, in the same order.
///
/// # Errors
/// Those of reading and writing DocRED files.
pub fn label_file(facts: &FactBase, input: &Path, output: &Path, options: &LabelOptions) -> Result<LabelReport> {
    let mut report = LabelReport::default();
    let mut writer = DocredWriter::create(output)?;
    read_documents(input, &ReadOptions::default(), &mut |mut document| {
        report.documents += 1;
        if options.exclude_titles.contains(&document.title) {
            report.excluded += 1;
            return Ok(());
        }
        let labels = facts.label(&document);
        report.add(&labels);
        document.facts = Some(labels);
        writer.write(&document)
    })?;
    writer.finish()?;
    Ok(report)
}

impl LabelReport {
    fn add(&mut self, labels: &[Fact]) {
        self.written += 1;
        self.labelled += usize::from(!labels.is_empty());
        self.facts += labels.len();
        for label in labels {
            *self.by_relation.entry(label.relation.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests;
