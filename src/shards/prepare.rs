//! The stage `prepare`: documents from any source are tokenised, written as shards, indexed by fact
//! and published as one folder.
//!
//! The source runs on the calling thread and hands over chunks of documents. All cores tokenise
//! them, one thread gathers their columns for row groups and puts the facts aside, all cores build
//! row groups, and one thread writes them. What is under way between two of these steps is bounded
//! in bytes, so memory grows neither with the corpus nor with its documents. Not for: parsing files
//! (`corpus`).

use std::path::PathBuf;
use std::thread;

use serde::{Deserialize, Serialize};

use super::facts::{FactSpill, GroupFacts};
use super::files::Staging;
use super::groups::GroupBuilder;
use super::schema::shard_schema;
use super::store::TOKENIZER;
use super::writer::{DocumentColumns, DocumentGroup, ShardWriter, WrittenShards};
use super::{FORMAT_VERSION, FactCounts, FileEntry, ShardManifest, TokenizerEntry, WriteOptions};
use crate::base::ordered::WorkInput;
use crate::base::{give_back_memory, ordered};
use crate::corpus::{Document, Entity, Mention, RelationSet};
use crate::text::{Tokenizer, tokenize};
use crate::{DataError, Error, Result};

/// Documents that a core tokenises at once, in bytes of their columns: some 40 of ordinary size.
const CHUNK_BYTES: usize = 1 << 18;
/// Chunks that are under way together.
const MOST_CHUNK_BYTES: usize = 1 << 22;
/// A row group ends here, however few documents it has. A thousand documents of DocRED are 6 MB, of
/// long news articles 16.
const GROUP_BYTES: usize = 1 << 24;
/// Row groups that wait to be built and written, beside the one that is gathered.
const MOST_GROUP_BYTES: usize = 2 * GROUP_BYTES;

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

/// A larger share of unknown pieces is a warning.
const MOST_UNKNOWN: f64 = 0.1;

/// How many pieces of words a tokenizer does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceCount {
    /// Pieces.
    pub all: usize,
    /// Pieces that stand for what is not in the vocabulary.
    pub unknown: usize,
}

impl PieceCount {
    /// Counts pieces.
    pub fn add(&mut self, pieces: &[u32], unknown: u32) {
        self.all += pieces.len();
        self.unknown += pieces.iter().filter(|&&piece| piece == unknown).count();
    }

    /// What the user should be warned of.
    pub fn warning(self) -> Option<String> {
        let is_high = self.unknown as f64 > MOST_UNKNOWN * self.all as f64;
        is_high.then(|| format!("{self}: is this the tokenizer of the encoder and the language?"))
    }
}

impl std::fmt::Display for PieceCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = 100.0 * self.unknown as f64 / self.all.max(1) as f64;
        write!(f, "{} of {} pieces are unknown ({share:.1} %)", self.unknown, self.all)
    }
}

/// What was prepared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrepareReport {
    /// The manifest, as written.
    pub manifest: ShardManifest,
    /// Documents without any entity, which were left out.
    pub dropped: usize,
    /// Facts from an entity to itself, which were left out.
    pub self_facts: usize,
    /// Documents and relations that were left out because they cannot be read.
    pub left_out: usize,
    /// The pieces of all words.
    pub pieces: PieceCount,
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
            write!(
                f,
                "; {keys} facts are stated by two documents or more, {instances} times, the most \
                 frequent {largest_key} times"
            )?;
        }
        if self.dropped > 0 {
            write!(f, "; {} documents without entities left out", self.dropped)?;
        }
        if self.self_facts > 0 {
            write!(f, "; {} facts from an entity to itself left out", self.self_facts)?;
        }
        write!(f, "; {}", self.pieces)?;
        Ok(())
    }
}

/// Gives every document of a corpus to the function it is called with, and passes on the first
/// error of that function.
pub type Source<'a> = dyn FnMut(&mut dyn FnMut(Document) -> Result<()>) -> Result<()> + 'a;

/// Prepares a corpus. `progress` is told the number of documents read so far, once a group.
///
/// Errors: those of the source; a data error for a document that breaks its own references, and if
/// the tokenizer knows no piece at all; a recipe error for an output that exists. An output folder
/// appears only when everything in it is complete.
pub fn prepare(
    options: &PrepareOptions,
    source: &mut Source,
    progress: &mut dyn FnMut(usize),
) -> Result<PrepareReport> {
    let staging = Staging::new(&options.output)?;
    let shards = ShardWriter::new(staging.path(), options.write)?;
    let facts = FactSpill::new(staging.path())?;
    let builders = (0..ordered::threads())
        .map(|_| GroupBuilder::new(shard_schema()))
        .collect::<Result<Vec<_>>>()?;
    let (read, gathered, written) = thread::scope(|scope| {
        let tokenizers = (0..ordered::threads())
            .map(|_| options.tokenizer.clone())
            .map(|mut own| move |chunk| tokenize_chunk(chunk, &mut own, &options.relations));
        let (input, chunks) = ordered::start(scope, tokenizers.collect(), MOST_CHUNK_BYTES);
        let builders =
            builders.into_iter().map(|mut own| move |parts| DocumentGroup::build(&mut own, parts));
        let (groups, built) = ordered::start(scope, builders.collect(), MOST_GROUP_BYTES);
        let gatherer = scope.spawn(move || {
            let (group, pieces) = (Vec::new(), PieceCount::default());
            Gathering { groups, group, bytes: 0, facts, self_facts: 0, pieces }.run(chunks)
        });
        let writer = scope.spawn(move || write(shards, built));
        let (documents, group) = (Vec::new(), (0, 0));
        let mut feed =
            Feed { options, input, documents, bytes: 0, group, sent: 0, dropped: 0, progress };
        let read = source(&mut |document| feed.push(document));
        // The others end when the feed is dropped, which this does in either case.
        let read = read.and_then(|()| feed.finish());
        (read, joined(gatherer.join()), joined(writer.join()))
    });
    // Where a later thread has failed, an earlier one's error only says that its results are not
    // read any more.
    let written = written?;
    let gathered = gathered?;
    let (sent, dropped) = read?;
    let rows: usize = written.shards.iter().map(|shard| shard.rows).sum();
    if rows != sent {
        return Err(Error::Bug(format!("{rows} of {sent} documents were written")));
    }
    finish(options, staging, written, gathered, dropped)
}

fn joined<T>(outcome: thread::Result<Result<T>>) -> Result<T> {
    outcome.unwrap_or_else(|_| Err(Error::Bug("a thread of `prepare` panicked".into())))
}

/// Documents to tokenise.
struct DocumentChunk {
    first_row: usize,
    documents: Vec<Document>,
    /// Bytes of all as columns, roughly.
    bytes: usize,
    /// Whether a row group ends here.
    ends_group: bool,
}

/// The reading end: cuts the corpus into chunks and row groups, by its documents alone.
struct Feed<'a, O> {
    options: &'a PrepareOptions,
    input: WorkInput<DocumentChunk, O>,
    documents: Vec<Document>,
    bytes: usize,
    /// First row of the group, and the bytes of its chunks that were sent.
    group: (usize, usize),
    sent: usize,
    dropped: usize,
    progress: &'a mut dyn FnMut(usize),
}

impl<O> Feed<'_, O> {
    fn push(&mut self, document: Document) -> Result<()> {
        if document.entities.is_empty() {
            self.dropped += 1;
            return Ok(());
        }
        self.bytes += column_bytes(&document);
        self.documents.push(document);
        let (first, bytes) = self.group;
        let is_whole =
            self.sent + self.documents.len() - first == self.options.write.group_rows(first);
        let ends_group = is_whole || bytes + self.bytes >= GROUP_BYTES;
        if ends_group || self.bytes >= CHUNK_BYTES { self.send(ends_group) } else { Ok(()) }
    }

    fn send(&mut self, ends_group: bool) -> Result<()> {
        let (first_row, documents, bytes) =
            (self.sent, std::mem::take(&mut self.documents), std::mem::take(&mut self.bytes));
        self.sent += documents.len();
        self.group.1 += bytes;
        if ends_group {
            self.group = (self.sent, 0);
            (self.progress)(self.sent + self.dropped);
        }
        let heard =
            self.input.send(DocumentChunk { first_row, documents, bytes, ends_group }, bytes);
        if heard { Ok(()) } else { Err(Error::Bug("the gathering thread has stopped".into())) }
    }

    /// Sends the rest; gives the number of documents sent, and of those left out.
    fn finish(mut self) -> Result<(usize, usize)> {
        if !self.documents.is_empty() {
            self.send(false)?;
        }
        if self.sent > self.group.0 {
            (self.progress)(self.sent + self.dropped);
        }
        Ok((self.sent, self.dropped))
    }
}

/// What a document takes as columns, in bytes: exact but for its word pieces, taken for 5 to 4
/// words. In memory, where words and names are single strings, it takes about four times as much.
fn column_bytes(document: &Document) -> usize {
    let text = |text: &str| size_of::<u32>() + text.len();
    let numbers = |count: usize| count * size_of::<u32>();
    let words = document.num_words();
    let mention = |mention: &Mention| text(&mention.name) + numbers(3);
    let entity = |entity: &Entity| {
        text(entity.entity_type()) + numbers(1) + entity.mentions.iter().map(mention).sum::<usize>()
    };
    let candidates =
        document.candidates.as_ref().map_or(0, |pairs| numbers(2 * pairs.len()) + pairs.len() / 8);
    text(&document.title)
        + document.sentences.iter().flatten().map(|word| text(word)).sum::<usize>()
        + numbers(words + words * 5 / 4 + document.sentences.len())
        + document.entities.iter().map(entity).sum::<usize>()
        + document.facts().iter().map(|fact| numbers(4 + fact.evidence.len())).sum::<usize>()
        + candidates
}

/// A tokenised chunk.
struct TokenizedChunk {
    columns: DocumentColumns,
    bytes: usize,
    ends_group: bool,
    facts: GroupFacts,
    self_facts: usize,
    pieces: PieceCount,
}

fn tokenize_chunk(
    chunk: DocumentChunk,
    tokenizer: &mut Tokenizer,
    relations: &RelationSet,
) -> Result<TokenizedChunk> {
    let DocumentChunk { first_row, documents, bytes, ends_group } = chunk;
    let stated: usize = documents.iter().map(|document| document.facts().len()).sum();
    let tokenized = documents.into_iter().map(|document| tokenize(&document, tokenizer, relations));
    let tokenized = tokenized.collect::<Result<Vec<_>>>()?;
    let kept: usize = tokenized.iter().map(|document| document.facts.len()).sum();
    let (mut pieces, unknown) = (PieceCount::default(), tokenizer.special().unk);
    tokenized.iter().for_each(|document| pieces.add(&document.pieces, unknown));
    let (facts, columns) =
        (GroupFacts::of(&tokenized, first_row), DocumentColumns::of(&tokenized)?);
    Ok(TokenizedChunk { columns, bytes, ends_group, facts, self_facts: stated - kept, pieces })
}

/// The middle: chunks become row groups, and their facts go to the disk.
struct Gathering<O> {
    groups: WorkInput<Vec<DocumentColumns>, O>,
    group: Vec<DocumentColumns>,
    bytes: usize,
    facts: FactSpill,
    self_facts: usize,
    pieces: PieceCount,
}

impl<O> Gathering<O> {
    /// Gives all facts, the number of those that were left out, and that of the pieces.
    fn run(
        mut self,
        chunks: impl Iterator<Item = Result<TokenizedChunk>>,
    ) -> Result<(FactSpill, usize, PieceCount)> {
        for chunk in chunks {
            let TokenizedChunk { columns, bytes, ends_group, facts, self_facts, pieces } = chunk?;
            self.facts.push(&facts)?;
            self.self_facts += self_facts;
            self.pieces.all += pieces.all;
            self.pieces.unknown += pieces.unknown;
            self.group.push(columns);
            self.bytes += bytes;
            if ends_group {
                self.send()?;
            }
        }
        self.send()?;
        Ok((self.facts, self.self_facts, self.pieces))
    }

    fn send(&mut self) -> Result<()> {
        let (group, bytes) = (std::mem::take(&mut self.group), std::mem::take(&mut self.bytes));
        let heard = group.is_empty() || self.groups.send(group, bytes);
        if heard { Ok(()) } else { Err(Error::Bug("the writing thread has stopped".into())) }
    }
}

/// The writing end.
fn write(
    mut shards: ShardWriter,
    groups: impl Iterator<Item = Result<DocumentGroup>>,
) -> Result<WrittenShards> {
    for group in groups {
        shards.push(group?)?;
        give_back_memory();
    }
    shards.finish()
}

/// Writes the fact index and the tokeniser, the manifest last, and publishes the folder.
fn finish(
    options: &PrepareOptions,
    staging: Staging,
    written: WrittenShards,
    (facts, self_facts, pieces): (FactSpill, usize, PieceCount),
    dropped: usize,
) -> Result<PrepareReport> {
    if pieces.all > 0 && pieces.unknown == pieces.all {
        let problem = format!("all {} pieces are unknown to this tokenizer", pieces.all);
        return Err(DataError::new(&options.output, problem)
            .hint(
                "name the tokenizer of the encoder; a file of words needs those of the documents, \
                 in the same case",
            )
            .into());
    }
    options.tokenizer.save(&staging.path().join(TOKENIZER))?;
    let labelled = written.totals.labelled > 0;
    let (entry, index) = if labelled {
        facts.finish(staging.path()).map(|(entry, counts)| (Some(entry), counts))?
    } else {
        Default::default()
    };
    let manifest = manifest(options, written, entry);
    manifest.write(staging.path())?;
    staging.publish()?;
    Ok(PrepareReport { manifest, dropped, self_facts, left_out: 0, pieces, index })
}

fn manifest(
    options: &PrepareOptions,
    written: WrittenShards,
    fact_index: Option<FileEntry>,
) -> ShardManifest {
    let WrittenShards { shards, totals } = written;
    ShardManifest {
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
        taught: None,
    }
}

#[cfg(test)]
mod tests;
