//! What all readers of documents share: what is checked beyond the document itself, titles that
//! repeat, and the count of what was in a file.

use std::collections::HashMap;
use std::path::Path;

use crate::Result;
use crate::base::records::{Record, Unit, read_records};
use crate::corpus::check::unknown_relation;
use crate::corpus::{Document, MeshTree, PairTypes, RelationSet};

/// What a reader checks and makes beyond the document itself.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The relations that labels may use; `None` takes any.
    pub relations: Option<RelationSet>,
    /// PubTator: entity types that make a candidate pair; `None` is Chemical → Disease and Gene →
    /// Disease.
    pub pair_types: Option<PairTypes>,
    /// PubTator: the hierarchy by which the hypernym filter of CDR takes pairs out; `None` leaves
    /// all in.
    pub mesh: Option<std::sync::Arc<MeshTree>>,
}

/// What was in a file. Print it at load time: copies of DocRED differ in their number of documents
/// (docs/formats.md, "Data sets").
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
    /// Label rows that repeated a fact of the same document; each is kept once, with the evidence
    /// of all its rows.
    pub duplicate_facts: usize,
    /// ChemDisGene's distant labels: relations that no mentioned pair of the right types bears,
    /// which are left out.
    pub unplaced_facts: usize,
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
        self.mentions +=
            document.entities.iter().map(|entity| entity.mentions.len()).sum::<usize>();
        self.facts += document.facts().len();
        self.duplicate_facts += duplicates;
    }
}

/// 128 bits of a hash, which stand for a title: a corpus of millions of documents must not keep its
/// titles.
pub type TitleKey = [u8; 16];

/// The key of a title.
pub fn title_key(title: &str) -> TitleKey {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(title.as_bytes()).as_bytes()[..16]);
    key
}

/// The last step of every reader: refuses repeated titles and counts what was read.
#[derive(Debug, Default)]
pub struct Intake {
    rows: HashMap<TitleKey, usize>,
    /// The counts so far.
    pub summary: ReadSummary,
}

impl Intake {
    /// Takes the next document, of whose label rows `duplicates` repeated earlier ones.
    ///
    /// # Errors
    /// A [`DataError`](crate::DataError) if an earlier document has the same title.
    pub fn take(&mut self, document: &Document, duplicates: usize) -> Result<()> {
        if let Some(first) = self.rows.insert(title_key(&document.title), document.provenance.row) {
            return Err(document
                .place()
                .error("title", format!("the title was already used by row {first}"))
                .hint(
                    "titles are the keys of facts and predictions; rename one of the two documents",
                )
                .into());
        }
        self.summary.add(document, duplicates);
        Ok(())
    }
}

/// Reads a file record by record: `parse` makes a document of each on all cores, and counts its
/// label rows that repeated earlier ones; `each` takes the documents in the order of the file.
pub(super) fn read_documents(
    path: &Path,
    unit: Unit,
    parse: &(dyn Fn(Record<'_>) -> Result<(Document, usize)> + Sync),
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadSummary> {
    let mut intake = Intake::default();
    read_records(path, unit, parse, &mut |(document, duplicates)| {
        intake.take(&document, duplicates)?;
        each(document)
    })?;
    Ok(intake.summary)
}

/// Refuses facts of relations that are not in the set, where there is one. For formats whose parser
/// does not do so itself.
pub(super) fn check_relations(document: &Document, relations: Option<&RelationSet>) -> Result<()> {
    let Some(set) = relations else { return Ok(()) };
    match document.facts().iter().find_map(|fact| unknown_relation(set, &fact.relation)) {
        None => Ok(()),
        Some((problem, hint)) => Err(document.place().error("facts", problem).hint(hint).into()),
    }
}
