//! The documents that `predict` reads: files of any format and folders of shards, one after
//! another, as bounded chunks that the ranks share.
//!
//! Not for: what is found in them (`finder`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::super::predictor::PREDICT_TOKENS;
use super::super::prepare_job::InputFile;
use super::super::session::Session;
use super::finder::FactFinder;
use super::form::PredictForm;
use crate::base::fingerprint;
use crate::corpus::formats::{ReadOptions, TitleKey, title_key};
use crate::corpus::{Document, Entity, Format, Mention, Provenance};
use crate::shards::{DocumentStore, ShardManifest, StoreOptions};
use crate::text::{TokenizedDocument, TokenizedEntity, Tokenizer, tokenize};
use crate::{DataError, Result};

/// Words and pairs of a chunk, for each rank: enough passes that documents of similar cost share
/// them.
const CHUNK_COST: usize = 8 * PREDICT_TOKENS;
/// What a document counts at least, which bounds the number of those in a chunk.
const LEAST_COST: usize = 32;

/// An input, ready to be read.
enum OpenInput {
    File(InputFile),
    Shards(Box<DocumentStore>),
}

/// All inputs.
pub(super) struct PredictInput {
    inputs: Vec<OpenInput>,
    with_words: bool,
}

/// What an input holds, to tell it from another.
#[derive(Serialize)]
pub(super) struct InputIdentity {
    format: &'static str,
    hash: String,
}

/// Documents that are predicted together, in their order: this rank's share of them.
#[derive(Default)]
pub(super) struct PredictChunk {
    /// Documents of all ranks.
    pub len: usize,
    /// In word pieces.
    pub tokenized: Vec<Arc<TokenizedDocument>>,
    /// The same in words, where they are needed.
    pub originals: Vec<Document>,
    cost: usize,
}

impl PredictInput {
    /// Opens all inputs. A folder of shards must be of the finder's tokenizer. `with_words` asks
    /// for documents in words beside their pieces.
    ///
    /// # Errors
    /// Shards that cannot be read, or of another tokenizer.
    pub(super) fn open(
        paths: &[PathBuf],
        form: Option<PredictForm>,
        with_words: bool,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let open = |path: &PathBuf| match form {
            Some(PredictForm::Documents(format)) => Ok(file(path, format)),
            None if !ShardManifest::is_at(path) => Ok(file(path, Format::DOCRED)),
            _ => shards(path, with_words, tokenizer),
        };
        Ok(Self { inputs: paths.iter().map(open).collect::<Result<_>>()?, with_words })
    }

    /// Whether all inputs can be read more than once: a pipe cannot.
    pub(super) fn is_lasting(&self) -> bool {
        self.inputs.iter().all(|input| match input {
            // What is not there is told when it is read.
            OpenInput::File(file) => std::fs::metadata(&file.path)
                .map_or(true, |found| found.is_file() || found.is_dir()),
            OpenInput::Shards(_) => true,
        })
    }

    /// What the inputs hold, by their hashes.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(super) fn identity(&self) -> Result<Vec<InputIdentity>> {
        let identity = |input: &OpenInput| match input {
            OpenInput::File(file) => {
                Ok(InputIdentity { format: file.format.name(), hash: content_hash(&file.path)? })
            }
            OpenInput::Shards(store) => {
                Ok(InputIdentity { format: "shards", hash: store.manifest().identity()? })
            }
        };
        self.inputs.iter().map(identity).collect()
    }

    /// Reads all inputs through, so that what cannot be read is told before hours of work; gives
    /// the number of documents.
    ///
    /// # Errors
    /// Documents that cannot be read; titles that repeat; a request to stop.
    pub(super) fn count(&self, session: &Session) -> Result<usize> {
        let mut count = 0;
        let mut titles = Titles::new(self.inputs.len());
        for input in &self.inputs {
            match input {
                OpenInput::File(file) => {
                    read_file(file, session, &mut |document| {
                        count += 1;
                        titles.take(&file.path, &document.title)
                    })?;
                }
                OpenInput::Shards(store) if self.inputs.len() == 1 => count += store.len(),
                OpenInput::Shards(store) => {
                    count += store.len();
                    let mut taken = Ok(());
                    store.each_title(&mut |_, title| {
                        taken = titles.take(store.folder(), title);
                        taken.is_ok()
                    });
                    taken?;
                }
            }
        }
        Ok(count)
    }

    /// Hands all documents behind the first `skipped` to `each`, in chunks.
    ///
    /// # Errors
    /// Documents that cannot be read; a request to stop; those of `each`.
    pub(super) fn chunks(
        &self,
        skipped: usize,
        finder: &mut FactFinder,
        session: &Session,
        each: &mut dyn FnMut(&mut FactFinder, PredictChunk) -> Result<()>,
    ) -> Result<()> {
        let tokenizer = finder.tokenizer().clone();
        let mut filling =
            ChunkFilling { chunk: PredictChunk::default(), row: 0, skipped, tokenizer, session };
        for input in &self.inputs {
            match input {
                OpenInput::File(file) => read_file(file, session, &mut |document| {
                    filling.take(words(&document), finder, each, &mut |tokenizer, finder| {
                        let document = Document { facts: None, ..document.clone() };
                        let tokenized = tokenize(&document, tokenizer, finder.relations())?;
                        Ok((tokenized, self.with_words.then_some(document)))
                    })
                })?,
                OpenInput::Shards(store) => {
                    for row in 0..store.len() {
                        let document = store.get(row);
                        filling.take(stored_words(&document), finder, each, &mut |_, _| {
                            let original = self.with_words.then(|| in_words(&document));
                            let tokenized = TokenizedDocument {
                                facts: Vec::new(),
                                kept: None,
                                taught: None,
                                teacher_logits: None,
                                ..(*document).clone()
                            };
                            Ok((tokenized, original))
                        })?;
                    }
                }
            }
        }
        filling.finish(finder, each)
    }
}

fn file(path: &Path, format: Format) -> OpenInput {
    OpenInput::File(InputFile { path: path.to_owned(), format })
}

fn shards(path: &Path, with_words: bool, tokenizer: &Tokenizer) -> Result<OpenInput> {
    ShardManifest::read(path)?.check_tokenizer(path, tokenizer)?;
    let options = StoreOptions { with_words, ..StoreOptions::default() };
    Ok(OpenInput::Shards(Box::new(DocumentStore::open(path, options)?)))
}

/// Labels of the input play no part, so relations that the model does not know are no error.
fn read_file(
    file: &InputFile,
    session: &Session,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<()> {
    let going_on = session.asked_while("while reading documents");
    let read = file.read(&ReadOptions { going_on, ..ReadOptions::default() }, each);
    read.map(drop).map_err(|error| error.in_file(&file.path))
}

/// What a document in words counts in a chunk.
fn words(document: &Document) -> usize {
    let count = document.entities.len();
    let pairs = document.candidates.as_ref().map_or(count * count.saturating_sub(1), Vec::len);
    document.num_words() + pairs
}

/// The same of a stored document.
fn stored_words(document: &TokenizedDocument) -> usize {
    let pairs = document.candidates.as_ref().map_or(document.num_pairs(), Vec::len);
    document.num_words() + pairs
}

/// A hash of a file, or of all files of a folder. That of annotations holds their text too.
fn content_hash(path: &Path) -> Result<String> {
    if !path.is_dir() {
        let text = path.with_extension("txt");
        let is_annotated = path.extension().is_some_and(|end| end == "ann") && text.is_file();
        let text = if is_annotated { fingerprint(&text)?.1 } else { String::new() };
        return Ok(fingerprint(path)?.1 + &text);
    }
    let mut names = crate::base::entries(path)?;
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for (name, path) in names.iter().filter(|(_, path)| path.is_file()) {
        hasher.update(name.as_bytes()).update(fingerprint(path)?.1.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A stored document in words, as far as a store knows it: without identifiers.
fn in_words(document: &TokenizedDocument) -> Document {
    let starts = &document.sentence_starts;
    let sentences = starts.windows(2).map(|span| {
        document.words.get(span[0] as usize..span[1] as usize).unwrap_or_default().to_vec()
    });
    let entity = |entity: &TokenizedEntity| {
        let mention = |mention: &crate::text::TokenizedMention| {
            let start = starts.get(mention.sentence as usize).copied().unwrap_or_default();
            Mention {
                name: mention.name.clone(),
                sentence: mention.sentence as usize,
                start: (mention.start - start) as usize,
                end: (mention.end - start) as usize,
                entity_type: entity.type_of(mention).to_owned(),
            }
        };
        Entity { knowledge_base_id: None, mentions: entity.mentions.iter().map(mention).collect() }
    };
    Document {
        title: document.title.clone(),
        sentences: sentences.collect(),
        entities: document.entities.iter().map(entity).collect(),
        facts: None,
        candidates: None,
        provenance: Provenance::default(),
    }
}

/// The titles of several inputs, which must differ: facts name a document by its title. The reader
/// of a file sees to those of one.
struct Titles {
    seen: Option<HashMap<TitleKey, PathBuf>>,
}

impl Titles {
    fn new(inputs: usize) -> Self {
        Self { seen: (inputs > 1).then(HashMap::new) }
    }

    fn take(&mut self, file: &Path, title: &str) -> Result<()> {
        let Some(seen) = &mut self.seen else { return Ok(()) };
        match seen.insert(title_key(title), file.to_owned()) {
            None => Ok(()),
            Some(first) => {
                let problem = format!("a document of {} has the same title", first.display());
                Err(DataError::new(file, problem)
                    .title(title)
                    .hint("facts name a document by its title; rename one, or predict them apart")
                    .into())
            }
        }
    }
}

/// A chunk that fills up.
struct ChunkFilling<'a> {
    chunk: PredictChunk,
    /// Of the document that comes next, over all inputs.
    row: usize,
    skipped: usize,
    tokenizer: Tokenizer,
    session: &'a Session,
}

/// A document in pieces, and in words where they are needed.
type ReadyDocument = (TokenizedDocument, Option<Document>);

impl ChunkFilling<'_> {
    /// Takes the next document, which `make` makes ready if it is this rank's. A chunk that would
    /// be too large with it is handed on first.
    fn take(
        &mut self,
        cost: usize,
        finder: &mut FactFinder,
        each: &mut dyn FnMut(&mut FactFinder, PredictChunk) -> Result<()>,
        make: &mut dyn FnMut(&mut Tokenizer, &FactFinder) -> Result<ReadyDocument>,
    ) -> Result<()> {
        self.row += 1;
        if self.row <= self.skipped {
            return Ok(());
        }
        let world = &self.session.world;
        let cost = cost.max(LEAST_COST);
        if self.chunk.len > 0 && self.chunk.cost + cost > CHUNK_COST * world.size() {
            each(finder, std::mem::take(&mut self.chunk))?;
        }
        if self.chunk.len % world.size() == world.rank() {
            let (tokenized, original) = make(&mut self.tokenizer, finder)?;
            self.chunk.tokenized.push(Arc::new(tokenized));
            self.chunk.originals.extend(original);
        }
        self.chunk.len += 1;
        self.chunk.cost += cost;
        Ok(())
    }

    /// Hands the last chunk on.
    fn finish(
        self,
        finder: &mut FactFinder,
        each: &mut dyn FnMut(&mut FactFinder, PredictChunk) -> Result<()>,
    ) -> Result<()> {
        if self.chunk.len > 0 { each(finder, self.chunk) } else { Ok(()) }
    }
}
