//! A folder of shards that a model goes over, row group by row group, to be written anew with what
//! it says of each document.
//!
//! What is said of a row group is written to a file of its own, so that work that was broken off
//! goes on where it was. When all is said, the shards are written anew. No more than a row group is
//! in memory. Not for: what is said (`pipeline::teach`, `pipeline::score`).

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::blocks::{Blocks, each_or_error};
use super::files::Staging;
use super::remote::at_hand;
use super::store::TOKENIZER;
use super::writer::{WrittenShards, copy_beside, write_documents};
use super::{ShardManifest, StoreOptions, WriteOptions};
use crate::base::{read_json, write_atomic};
use crate::text::{TokenizedDocument, Tokenizer};
use crate::{DataError, Error, Result};

/// What is said of a document.
pub trait DocumentNote: Serialize + DeserializeOwned {
    /// The model that says it: `teacher`.
    const MODEL: &'static str;
    /// The verb that makes it: `teach`.
    const VERB: &'static str;

    /// Adds it to the document.
    ///
    /// Errors: field and problem, where the document does not have what is named.
    fn add_to(
        self,
        document: &mut TokenizedDocument,
        relations: usize,
    ) -> Result<(), (String, String)>;
}

/// A folder of shards about whose documents something is said.
#[derive(Debug)]
pub struct AnnotatedShards<T> {
    blocks: Blocks,
    work: PathBuf,
    output: PathBuf,
    write: WriteOptions,
    notes: PhantomData<fn() -> T>,
}

/// Shards that are complete but for their manifest.
#[derive(Debug)]
pub(super) struct FinishedShards {
    staging: Staging,
    pub(super) written: WrittenShards,
    pub(super) manifest: ShardManifest,
    work: PathBuf,
}

impl<T: DocumentNote> AnnotatedShards<T> {
    /// Name of the file that says whose work it is.
    const TASK: &str = "task.json";

    /// Opens the shards of `input`, which are written with what is said to `output`.
    ///
    /// # Errors
    /// Shards that cannot be read.
    pub fn open(input: &Path, output: &Path) -> Result<Self> {
        let input = at_hand(input)?;
        let blocks = Blocks::open(&input, ShardManifest::read(&input)?, StoreOptions::default())?;
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(".unfinished");
        let (work, output) = (output.with_file_name(name), output.to_owned());
        Ok(Self { blocks, work, output, write: WriteOptions::default(), notes: PhantomData })
    }

    /// The same, with shards cut in another way.
    #[cfg(test)]
    pub(super) fn cut(self, write: WriteOptions) -> Self {
        Self { write, ..self }
    }

    /// What the folder says about itself.
    pub fn manifest(&self) -> &ShardManifest {
        self.blocks.manifest()
    }

    /// The folder that is read.
    pub fn folder(&self) -> &Path {
        self.blocks.folder()
    }

    /// Begins the work or goes on with it, and lists the row groups that are left. One rank does
    /// this. `task` says by whom and how the documents are judged.
    ///
    /// # Errors
    /// An output that exists; the unfinished work of another task; the disk.
    pub fn begin(&self, task: &impl Serialize) -> Result<Vec<usize>> {
        drop(Staging::new(&self.output)?);
        let value = |error: serde_json::Error| Error::Bug(format!("a task: {error}"));
        let task = serde_json::to_value(task).map_err(value)?;
        let path = self.work.join(Self::TASK);
        if path.is_file() {
            let begun: Value = read_json(&path)?;
            if begun != task {
                let problem = format!(
                    "was begun by another {}, with other settings or other shards",
                    T::MODEL
                );
                return Err(DataError::new(&self.work, problem)
                    .hint("remove the folder, or name another --output")
                    .into());
            }
        } else {
            fs_err::create_dir_all(&self.work)?;
            write_atomic(&path, |out| out.write_all(format!("{task:#}\n").as_bytes()))?;
        }
        Ok((0..self.num_groups()).filter(|&group| !self.file(group).is_file()).collect())
    }

    /// Documents of a row group.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub fn documents(&self, group: usize) -> Result<Vec<TokenizedDocument>> {
        self.blocks.documents(group)
    }

    /// Titles of a row group; no other column is read.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub fn titles(&self, group: usize) -> Result<Vec<String>> {
        self.blocks.titles(group)
    }

    /// Number of documents of a row group.
    pub fn group_len(&self, group: usize) -> usize {
        self.blocks.starts()[group + 1] - self.blocks.starts()[group]
    }

    /// Keeps what is said of the documents of a row group, in their order.
    ///
    /// # Errors
    /// The disk.
    pub fn keep(&self, group: usize, notes: &[T]) -> Result<()> {
        let bytes = serde_json::to_vec(notes)
            .map_err(|error| Error::Bug(format!("notes on a row group: {error}")))?;
        write_atomic(&self.file(group), |out| out.write_all(&bytes))
    }

    /// What was said of a row group.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn kept(&self, group: usize) -> Result<Vec<T>> {
        read_json(&self.file(group))
    }

    /// Number of row groups.
    pub fn num_groups(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn file(&self, group: usize) -> PathBuf {
        self.work.join(format!("group-{group:06}.json"))
    }

    /// Writes the shards with all that was said beside their place.
    ///
    /// # Errors
    /// Pairs or relations that the documents do not have; the disk.
    pub(super) fn write(self) -> Result<FinishedShards> {
        let staging = Staging::new(&self.output)?;
        let (folder, manifest) = (self.blocks.folder(), self.manifest().clone());
        // Files were compared with their hashes when the work was begun or taken up.
        let options = StoreOptions { with_words: true, verify: false, ..StoreOptions::default() };
        let blocks = Blocks::open(folder, manifest, options)?;
        let groups = (0..blocks.len()).map(|group| {
            let (documents, notes) = (blocks.documents(group)?, self.kept(group)?);
            if documents.len() != notes.len() {
                let (found, needed) = (notes.len(), documents.len());
                let problem = format!("{found} documents, but {needed} are needed");
                return Err(DataError::new(self.file(group), problem)
                    .hint(format!("remove the file; `{}` makes it again", T::VERB))
                    .into());
            }
            documents
                .into_iter()
                .zip(notes)
                .map(|(document, note)| self.noted(document, note))
                .collect()
        });
        let written = write_documents(staging.path(), self.write, each_or_error(groups))?;
        Tokenizer::load(&folder.join(TOKENIZER), None)?.save(&staging.path().join(TOKENIZER))?;
        if let Some(entry) = &self.manifest().fact_index {
            copy_beside(folder, entry, staging.path())?;
        }
        let manifest = ShardManifest { shards: written.shards.clone(), ..self.manifest().clone() };
        Ok(FinishedShards { staging, written, manifest, work: self.work })
    }

    fn noted(&self, mut document: TokenizedDocument, note: T) -> Result<TokenizedDocument> {
        note.add_to(&mut document, self.manifest().relations.len()).map_err(
            |(field, problem)| Error::Bug(format!("{}, {field}: {problem}", document.title)),
        )?;
        Ok(document)
    }
}

impl FinishedShards {
    /// The folder, before it is at its place.
    pub(super) fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Writes the manifest, moves the folder to its place, and removes the work.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn publish(self) -> Result<ShardManifest> {
        self.manifest.write(self.staging.path())?;
        self.staging.publish()?;
        fs_err::remove_dir_all(&self.work)?;
        Ok(self.manifest)
    }
}
