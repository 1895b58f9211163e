//! Reads DocRED files document by document.

use std::{collections::HashMap, path::Path};

use super::{
    check::{Check, Repeats},
    raw::RawDocument,
};
use crate::{
    DataError, Result,
    corpus::{Document, RelationSet, json_stream},
};

/// What a reader checks beyond the document itself.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The relations that labels may use; `None` takes any.
    pub relations: Option<RelationSet>,
}

/// What was in a file. Print it at load time: copies of DocRED differ in their number of documents (SPEC §1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Documents read.
    pub documents: usize,
    /// Documents without any entity; they are kept, and no stage can train on them.
    pub without_entities: usize,
    /// Documents that carry no `labels` at all (a hidden test set).
    pub unlabelled: usize,
    /// Labelled documents whose list of facts is empty.
    pub without_facts: usize,
    /// Sentences.
    pub sentences: usize,
    /// Words.
    pub words: usize,
    /// Entities.
    pub entities: usize,
    /// Mentions.
    pub mentions: usize,
    /// Unique facts.
    pub facts: usize,
    /// Label rows that repeated a fact of the same document; each is kept once, with the evidence of all its rows.
    pub duplicate_facts: usize,
}

impl ReadSummary {
    fn add(&mut self, document: &Document, duplicates: usize) {
        self.documents += 1;
        self.without_entities += usize::from(document.entities.is_empty());
        self.unlabelled += usize::from(document.facts.is_none());
        self.without_facts += usize::from(document.facts.as_ref().is_some_and(Vec::is_empty));
        self.sentences += document.sentences.len();
        self.words += document.num_words();
        self.entities += document.entities.len();
        self.mentions += document.entities.iter().map(|entity| entity.mentions.len()).sum::<usize>();
        self.facts += document.facts().len();
        self.duplicate_facts += duplicates;
    }
}

/// Reads `path` (a JSON array of documents, gzip if it ends in `.gz`) and hands every checked document to `each`, in file order.
///
/// Documents are parsed and checked on all cores, some hundred of them ahead of `each`; 24 bytes a title find titles that repeat.
///
/// # Errors
/// A [`DataError`] naming file, row, title, field and value for everything that breaks the format; an I/O error for an unreadable file;
/// whatever `each` returns.
pub fn read_documents(path: &Path, options: &ReadOptions, each: &mut dyn FnMut(Document) -> Result<()>) -> Result<ReadSummary> {
    read(path, options.relations.as_ref(), Repeats::Merge, each)
}

/// All documents of a file with every label row as it stands: DocRED's scorer counts the evidence of each row, and takes that of the last
/// row of a fact (SPEC §2.1, step 1).
///
/// # Errors
/// Those of [`read_documents`].
pub fn read_gold(path: &Path) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    read(path, None, Repeats::Keep, &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok(documents)
}

fn read(
    path: &Path,
    relations: Option<&RelationSet>,
    repeats: Repeats,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut summary = ReadSummary::default();
    let mut titles = Titles::default();
    let check = |row: usize, raw: RawDocument| {
        let key = title_key(&raw.title);
        let (document, duplicates) = Check { file: path, row, relations, repeats }.document(raw)?;
        Ok((key, document, duplicates))
    };
    json_stream::read_array_with(path, &check, &mut |row, (key, document, duplicates)| {
        titles.insert(path, row, key, &document.title)?;
        summary.add(&document, duplicates);
        each(document)
    })?;
    Ok(summary)
}

/// All documents of a file at once, for corpora that fit into memory.
///
/// # Errors
/// Those of [`read_documents`].
pub fn read_all(path: &Path, options: &ReadOptions) -> Result<(Vec<Document>, ReadSummary)> {
    let mut documents = Vec::new();
    let summary = read_documents(path, options, &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok((documents, summary))
}

/// 128 bits of a hash stand for a title: a corpus of millions of documents must not keep its titles.
fn title_key(title: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(title.as_bytes()).as_bytes()[..16]);
    key
}

/// Titles seen so far.
#[derive(Default)]
struct Titles {
    rows: HashMap<[u8; 16], usize>,
}

impl Titles {
    fn insert(&mut self, path: &Path, row: usize, key: [u8; 16], title: &str) -> Result<()> {
        match self.rows.insert(key, row) {
            None => Ok(()),
            Some(first) => Err(DataError::new(path, format!("the title was already used by row {first}"))
                .row(row)
                .title(title)
                .field("title")
                .hint("titles are the keys of facts and predictions; rename one of the two documents")
                .into()),
        }
    }
}
