//! The stage `prepare`: documents from any source → encoded, written as shards, indexed by fact, published as one folder.
//!
//! The source runs on the calling thread and hands over groups of documents. All cores encode them, each as a row group with its facts; one
//! thread writes what they give, in order. A few groups a core are under way at a time, so memory does not grow with the corpus. Not for:
//! parsing files (`corpus`).

use std::path::PathBuf;
use std::thread;

use super::facts::{FactSpill, GroupFacts};
use super::files::Staging;
use super::store::TOKENIZER;
use super::writer::{DocumentEncoder, DocumentGroup, ShardWriter, Written};
use super::{FORMAT_VERSION, FactCounts, FileEntry, Manifest, TokenizerEntry, WriteOptions};
use crate::corpus::ordered::{self, Input};
use crate::corpus::{Document, RelationSet};
use crate::text::{Tokenizer, encode};
use crate::{Error, Result};

/// What to prepare.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// The folder to make; it must not exist or be empty.
    pub output: PathBuf,
    /// The tokeniser; it is copied beside the shards.
    pub tokenizer: Tokenizer,
    /// All relations that the documents may use, in class order.
    pub relations: RelationSet,
    /// How rows are cut into files.
    pub write: WriteOptions,
}

/// What was prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct PrepareReport {
    /// The manifest, as written.
    pub manifest: Manifest,
    /// Documents without any entity, which were left out.
    pub dropped: usize,
    /// Facts from an entity to itself, which were left out.
    pub self_facts: usize,
    /// The fact index.
    pub index: FactCounts,
}

impl std::fmt::Display for PrepareReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let manifest = &self.manifest;
        write!(
            f,
            "{} documents in {} shard(s), {} facts of {} relations",
            manifest.documents,
            manifest.shards.len(),
            manifest.facts,
            manifest.relations.len()
        )?;
        let FactCounts { keys, instances, largest_key } = self.index;
        if keys > 0 {
            write!(f, "; {keys} facts are stated by two documents or more, {instances} times, the most frequent {largest_key} times")?;
        }
        if self.dropped > 0 {
            write!(f, "; {} documents without entities left out", self.dropped)?;
        }
        if self.self_facts > 0 {
            write!(f, "; {} facts from an entity to itself left out", self.self_facts)?;
        }
        Ok(())
    }
}

/// Gives every document of a corpus to the function it is called with, and passes on the first error of that function.
pub type Source<'a> = dyn FnMut(&mut dyn FnMut(Document) -> Result<()>) -> Result<()> + 'a;

/// Prepares a corpus. `progress` is told the number of documents read so far, once a group.
///
/// Errors: those of the source; a data error for a document that breaks its own references; a recipe error for an output that exists. An
/// output folder appears only when everything in it is complete.
pub fn prepare(options: &PrepareOptions, source: &mut Source, progress: &mut dyn FnMut(usize)) -> Result<PrepareReport> {
    let staging = Staging::new(&options.output)?;
    let writing =
        Writing { shards: ShardWriter::new(staging.path(), options.write)?, facts: FactSpill::new(staging.path())?, self_facts: 0 };
    let encoders = (0..ordered::threads()).map(|_| Encoding::new(options)).collect::<Result<Vec<_>>>()?;
    let (read, written) = thread::scope(|scope| {
        let workers = encoders.into_iter().map(|mut encoding| move |task| encoding.run(task)).collect();
        let (input, output) = ordered::start(scope, workers);
        let writer = scope.spawn(move || writing.run(output));
        let mut feed = Feed { options, input, group: Vec::new(), dropped: 0, sent: 0, progress };
        let read = source(&mut |document| feed.push(document)).and_then(|()| feed.send()).map(|()| feed.dropped);
        drop(feed);
        (read, writer.join().unwrap_or_else(|_| Err(Error::Bug("the writing thread panicked".into()))))
    });
    // Where the writer has failed, the source's error only says that nobody listens any more.
    let written = written?;
    finish(options, staging, written, read?)
}

/// Documents to encode, and the row of the first.
type Task = (usize, Vec<Document>);

/// The reading end: collects documents and hands them over.
struct Feed<'a, O> {
    options: &'a PrepareOptions,
    input: Input<Task, O>,
    group: Vec<Document>,
    dropped: usize,
    sent: usize,
    progress: &'a mut dyn FnMut(usize),
}

impl<O> Feed<'_, O> {
    fn push(&mut self, document: Document) -> Result<()> {
        if document.entities.is_empty() {
            self.dropped += 1;
            return Ok(());
        }
        self.group.push(document);
        if self.group.len() == self.options.write.group_rows(self.sent) { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        let (row, group) = (self.sent, std::mem::take(&mut self.group));
        self.sent += group.len();
        (self.progress)(self.sent + self.dropped);
        let heard = group.is_empty() || self.input.send((row, group));
        if heard { Ok(()) } else { Err(Error::Bug("the writing thread has stopped".into())) }
    }
}

/// What a core needs to encode documents.
struct Encoding<'a> {
    tokenizer: Tokenizer,
    relations: &'a RelationSet,
    rows: DocumentEncoder,
}

/// An encoded group.
struct Encoded {
    group: DocumentGroup,
    facts: GroupFacts,
    self_facts: usize,
}

impl<'a> Encoding<'a> {
    fn new(options: &'a PrepareOptions) -> Result<Self> {
        Ok(Self { tokenizer: options.tokenizer.clone(), relations: &options.relations, rows: DocumentEncoder::new()? })
    }

    fn run(&mut self, (first_row, documents): Task) -> Result<Encoded> {
        let stated: usize = documents.iter().map(|document| document.facts().len()).sum();
        let encoded = documents.into_iter().map(|document| encode(&document, &mut self.tokenizer, self.relations));
        let encoded = encoded.collect::<Result<Vec<_>>>()?;
        let kept: usize = encoded.iter().map(|document| document.facts.len()).sum();
        Ok(Encoded { facts: GroupFacts::of(&encoded, first_row), group: self.rows.encode(encoded)?, self_facts: stated - kept })
    }
}

/// The writing end.
struct Writing {
    shards: ShardWriter,
    facts: FactSpill,
    self_facts: usize,
}

impl Writing {
    fn run(mut self, groups: impl Iterator<Item = Result<Encoded>>) -> Result<(Written, FactSpill, usize)> {
        for encoded in groups {
            let Encoded { group, facts, self_facts } = encoded?;
            self.shards.push(group)?;
            self.facts.push(&facts)?;
            self.self_facts += self_facts;
            give_back();
        }
        Ok((self.shards.finish()?, self.facts, self.self_facts))
    }
}

/// Returns what was freed to the machine. Documents are made on one thread and freed on another, and the C library keeps free memory apart
/// for each thread, so that without this the parts add up to a quarter of the peak.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, locks the heap itself, and may be called on any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Writes the fact index and the tokeniser, the manifest last, and publishes the folder.
fn finish(options: &PrepareOptions, staging: Staging, written: (Written, FactSpill, usize), dropped: usize) -> Result<PrepareReport> {
    let (written, facts, self_facts) = written;
    options.tokenizer.save(&staging.path().join(TOKENIZER))?;
    let labelled = written.totals.labelled > 0;
    let (entry, index) =
        if labelled { facts.finish(staging.path()).map(|(entry, counts)| (Some(entry), counts))? } else { Default::default() };
    let manifest = manifest(options, written, entry);
    manifest.write(staging.path())?;
    staging.publish()?;
    Ok(PrepareReport { manifest, dropped, self_facts, index })
}

fn manifest(options: &PrepareOptions, written: Written, fact_index: Option<FileEntry>) -> Manifest {
    let Written { shards, totals } = written;
    Manifest {
        format_version: FORMAT_VERSION,
        documents: shards.iter().map(|shard| shard.rows).sum(),
        labelled: totals.labelled,
        facts: totals.facts,
        relations: options.relations.clone(),
        entity_types: totals.entity_types.into_iter().collect(),
        tokenizer: TokenizerEntry::from(&options.tokenizer),
        shards,
        fact_index,
        max_pieces: totals.max_pieces,
        max_entities: totals.max_entities,
        max_mentions: totals.max_mentions,
        scored: None,
    }
}

#[cfg(test)]
mod tests;
