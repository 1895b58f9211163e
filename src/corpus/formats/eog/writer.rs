//! Writes EoG's lines. The format holds pairs and little else; what it cannot hold is counted and
//! reported.

use std::fmt;
use std::io::Write;
use std::path::Path;

use crate::base::text_file::TextFile;
use crate::corpus::formats::format::{DocumentWriter, WriteSummary};
use crate::corpus::{Candidate, Document, Entity};
use crate::{DataError, Result};

/// Counts of what the format could not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct EogLosses {
    /// Documents without labels, whose pairs are written as pairs without relation.
    unlabelled: usize,
    /// Documents that asked about every pair, and now list them.
    listed: usize,
    /// Entities that are in no pair.
    entities: usize,
    /// Entities without identifier, which got one (`E0`, `E1`, … by their place).
    named: usize,
    /// Facts whose evidence is lost.
    evidence: usize,
    /// Words and names that were empty or contained white space or `|`: written as `_`.
    words: usize,
    /// Mentions of another type than their entity's.
    types: usize,
    /// Empty sentences, which are dropped.
    sentences: usize,
}

impl fmt::Display for EogLosses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.unlabelled, "documents without labels became documents without relations"),
            (self.listed, "documents that asked about every pair now list them"),
            (self.entities, "entities in no pair were left out"),
            (self.named, "entities without identifier were given one"),
            (self.evidence, "facts lost their evidence"),
            (self.words, "words or names with white space or `|` were changed"),
            (self.types, "mentions took the type of their entity"),
            (self.sentences, "empty sentences were left out"),
        ];
        let said: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, text)| format!("{count} {text}"))
            .collect();
        f.write_str(&said.join("; "))
    }
}

/// Writes documents into a file, and counts what the format cannot hold.
pub(super) struct EogWriter {
    file: TextFile,
    documents: usize,
    losses: EogLosses,
}

impl EogWriter {
    /// Starts a file; a name that ends in `.gz` is compressed. Missing folders are made.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: TextFile::create(path)?, documents: 0, losses: EogLosses::default() })
    }
}

impl DocumentWriter for EogWriter {
    /// Refuses what the format would confuse: a title, identifier or type with a tab, two entities
    /// with the same identifier, a relation named `NR`.
    fn write(&mut self, document: Document) -> Result<()> {
        let line = LineWriter::new(&document, &mut self.losses)?.text()?;
        self.documents += 1;
        Ok(self.file.write_all(line.as_bytes())?)
    }

    fn finish(self: Box<Self>) -> Result<WriteSummary> {
        self.file.finish()?;
        Ok(WriteSummary { documents: self.documents, losses: self.losses.to_string() })
    }
}

/// Makes the line of a document.
struct LineWriter<'a> {
    document: &'a Document,
    body: String,
    starts: Vec<usize>,
    /// Number of each sentence among those that are not empty.
    numbers: Vec<usize>,
    /// The six columns of each entity.
    arguments: Vec<String>,
    pairs: Vec<Candidate>,
}

/// Text without the format's own separators.
fn plain(text: &str, losses: &mut EogLosses) -> String {
    let odd = |c: char| c.is_whitespace() || c == '|';
    if text.is_empty() || text.contains(odd) {
        losses.words += 1;
        return if text.is_empty() { "_".to_owned() } else { text.replace(odd, "_") };
    }
    text.to_owned()
}

impl<'a> LineWriter<'a> {
    fn new(document: &'a Document, losses: &mut EogLosses) -> Result<Self> {
        let words = |sentence: &Vec<String>, losses: &mut EogLosses| {
            sentence.iter().map(|word| plain(word, losses)).collect::<Vec<_>>().join(" ")
        };
        let mut sentences = Vec::with_capacity(document.sentences.len());
        let mut numbers = Vec::with_capacity(document.sentences.len());
        for sentence in &document.sentences {
            numbers.push(sentences.len());
            if sentence.is_empty() {
                losses.sentences += 1;
            } else {
                sentences.push(words(sentence, losses));
            }
        }
        losses.unlabelled += usize::from(document.facts.is_none());
        losses.evidence += document.facts().iter().filter(|fact| !fact.evidence.is_empty()).count();
        losses.listed += usize::from(document.candidates.is_none());
        let all = || {
            document
                .asked_pairs()
                .into_iter()
                .map(|(head, tail)| Candidate { head, tail, excluded: false })
                .collect()
        };
        let pairs: Vec<Candidate> = document.candidates.clone().unwrap_or_else(all);
        let mut line = Self {
            document,
            body: sentences.join("|"),
            starts: document.sentence_starts(),
            numbers,
            arguments: Vec::new(),
            pairs,
        };
        line.arguments = line.arguments(losses)?;
        Ok(line)
    }

    fn error(&self, field: String, problem: String) -> DataError {
        self.document.place().error(field, problem).hint("EoG's format cannot express this")
    }

    fn arguments(&self, losses: &mut EogLosses) -> Result<Vec<String>> {
        let mut ids = std::collections::HashMap::new();
        let mut arguments = Vec::with_capacity(self.document.entities.len());
        for (index, entity) in self.document.entities.iter().enumerate() {
            losses.named += usize::from(entity.knowledge_base_id.is_none());
            losses.entities += usize::from(
                !self.pairs.iter().any(|pair| pair.head == index || pair.tail == index),
            );
            let id = entity.knowledge_base_id.clone().unwrap_or_else(|| format!("E{index}"));
            if let Some(first) = ids.insert(id.clone(), index) {
                return Err(self
                    .error(
                        format!("entities[{index}]"),
                        format!("the identifier `{id}` is that of entities[{first}] too"),
                    )
                    .into());
            }
            if let Some(text) = [&id, entity.entity_type()]
                .into_iter()
                .find(|text| text.is_empty() || text.contains(['\t', '\n', '\r']))
            {
                let problem = format!(
                    "the identifier or type {text:?} is empty or contains a tab or line break"
                );
                return Err(self.error(format!("entities[{index}]"), problem).into());
            }
            arguments.push(self.argument(&id, entity, losses));
        }
        Ok(arguments)
    }

    fn argument(&self, id: &str, entity: &Entity, losses: &mut EogLosses) -> String {
        let list = |of: &dyn Fn(&crate::corpus::Mention) -> usize| {
            entity
                .mentions
                .iter()
                .map(|mention| of(mention).to_string())
                .collect::<Vec<_>>()
                .join(":")
        };
        losses.types += entity
            .mentions
            .iter()
            .filter(|mention| mention.entity_type != entity.entity_type())
            .count();
        let names: Vec<String> =
            entity.mentions.iter().map(|mention| name(&mention.name, losses)).collect();
        let starts = list(&|mention| self.starts[mention.sentence] + mention.start);
        let ends = list(&|mention| self.starts[mention.sentence] + mention.end);
        let sentences = list(&|mention| self.numbers[mention.sentence]);
        [id, &names.join("|"), entity.entity_type(), &starts, &ends, &sentences].join("\t")
    }

    fn text(&self) -> Result<String> {
        let title = &self.document.title;
        if title.is_empty() || title.contains(['\t', '\n', '\r']) {
            return Err(self
                .error("title".into(), "the title is empty or contains a tab or line break".into())
                .into());
        }
        let mut columns = vec![title.clone(), self.body.clone()];
        for pair in &self.pairs {
            for label in self.labels(pair)? {
                let cross = if self.document.share_sentence(pair.head, pair.tail) {
                    "NON-CROSS"
                } else {
                    "CROSS"
                };
                let (head, tail) = self.closest(pair);
                let direction = if head.0 <= tail.0 { "L2R" } else { "R2L" };
                let spans = [head, tail].map(|(start, end)| format!("{start}-{end}"));
                columns.extend([label, direction.into(), cross.into()]);
                columns.extend(spans);
                columns
                    .extend([self.arguments[pair.head].clone(), self.arguments[pair.tail].clone()]);
            }
        }
        Ok(columns.join("\t") + "\n")
    }

    fn labels(&self, pair: &Candidate) -> Result<Vec<String>> {
        if pair.excluded {
            return Ok(vec!["not_include".into()]);
        }
        let facts = self
            .document
            .facts()
            .iter()
            .filter(|fact| (fact.head, fact.tail) == (pair.head, pair.tail));
        let mut labels = Vec::new();
        for fact in facts {
            if fact.relation == "NR" || fact.relation.contains(['\t', '\n', '\r']) {
                return Err(self
                    .error(
                        "facts".into(),
                        format!(
                            "the relation {:?} has another meaning in this format",
                            fact.relation
                        ),
                    )
                    .into());
            }
            labels.push(format!("1:{}:2", fact.relation));
        }
        if labels.is_empty() {
            labels.push("1:NR:2".into());
        }
        Ok(labels)
    }

    /// Document words of the two mentions with the fewest words between them.
    fn closest(&self, pair: &Candidate) -> ((usize, usize), (usize, usize)) {
        let spans = |entity: usize| {
            let mentions = self.document.entities[entity].mentions.iter();
            mentions.map(|mention| {
                (
                    self.starts[mention.sentence] + mention.start,
                    self.starts[mention.sentence] + mention.end,
                )
            })
        };
        let between = |a: (usize, usize), b: (usize, usize)| {
            a.0.saturating_sub(b.1).max(b.0.saturating_sub(a.1))
        };
        let all = spans(pair.head).flat_map(|head| spans(pair.tail).map(move |tail| (head, tail)));
        all.min_by_key(|&(head, tail)| between(head, tail)).unwrap_or_default()
    }
}

/// A mention's name: it may contain blanks, but no separators.
fn name(text: &str, losses: &mut EogLosses) -> String {
    let odd = |c: char| c == '|' || c == '\t' || c == '\n' || c == '\r';
    if text.contains(odd) {
        losses.words += 1;
    }
    text.replace(odd, "_")
}
