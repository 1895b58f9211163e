//! A folder of shards while a teacher goes over it, row group by row group.
//!
//! What is said of a row group is written to a file of its own, so that a broken-off `teach` goes
//! on where it was. When all are there, the shards are written anew with the column `taught`. No
//! more than a row group is in memory. Not for: what a teacher says (`pipeline::teach`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::Staging;
use super::reader::{ShardReader, TableReader};
use super::store::TOKENIZER;
use super::writer::{copy_beside, write_documents};
use super::{ShardManifest, StoreOptions, Taught, WriteOptions, schema, validate};
use crate::base::{read_json, write_atomic};
use crate::text::{TaughtPair, TokenizedDocument, Tokenizer};
use crate::{DataError, Error, Result};

/// What a teacher says of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaughtDocument {
    /// Its pairs, in order of head and tail.
    pub pairs: Vec<TaughtPair>,
    /// The logits of all pairs that it asks about, as
    /// [`TokenizedDocument::teacher_logits`]; absent where they were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<u16>>,
}

/// What a teacher says of the documents of a row group, in their order.
pub type TaughtGroup = Vec<TaughtDocument>;

/// A folder of shards that is taught.
#[derive(Debug)]
pub struct TaughtShards {
    folder: PathBuf,
    manifest: ShardManifest,
    readers: Vec<ShardReader>,
    /// Shard and row group of each group, in order.
    groups: Vec<(usize, usize)>,
    work: PathBuf,
    output: PathBuf,
}

impl TaughtShards {
    /// Name of the file that says whose work it is.
    const TASK: &str = "task.json";

    /// Opens the shards of `input`, which are written with a teacher's column to `output`.
    ///
    /// # Errors
    /// Shards that cannot be read.
    pub fn open(input: &Path, output: &Path) -> Result<Self> {
        let manifest = ShardManifest::read(input)?;
        let options = StoreOptions::default();
        let readers: Vec<ShardReader> = (manifest.shards.iter())
            .map(|shard| ShardReader::open(input, &manifest, shard, options))
            .collect::<Result<_>>()?;
        let groups = readers
            .iter()
            .enumerate()
            .flat_map(|(at, reader)| (0..reader.num_row_groups()).map(move |group| (at, group)))
            .collect();
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(".unfinished");
        let (work, output) = (output.with_file_name(name), output.to_owned());
        Ok(Self { folder: input.to_owned(), manifest, readers, groups, work, output })
    }

    /// What the folder says about itself.
    pub fn manifest(&self) -> &ShardManifest {
        &self.manifest
    }

    /// Begins the work or goes on with it, and lists the row groups that are left. One rank does
    /// this. `task` says by whom and how the documents are taught.
    ///
    /// # Errors
    /// An output that exists; the unfinished work of another task; the disk.
    pub fn begin(&self, task: &impl Serialize) -> Result<Vec<usize>> {
        drop(Staging::new(&self.output)?);
        let value = |error: serde_json::Error| Error::Bug(format!("a task of teaching: {error}"));
        let task = serde_json::to_value(task).map_err(value)?;
        let path = self.work.join(Self::TASK);
        if path.is_file() {
            let begun: Value = read_json(&path)?;
            if begun != task {
                let problem = "was begun by another teacher, with other settings or other shards";
                return Err(DataError::new(&self.work, problem)
                    .hint("remove the folder, or name another --output")
                    .into());
            }
        } else {
            fs_err::create_dir_all(&self.work)?;
            write_atomic(&path, |out| out.write_all(format!("{task:#}\n").as_bytes()))?;
        }
        Ok((0..self.groups.len()).filter(|&group| !self.file(group).is_file()).collect())
    }

    /// Documents of a row group.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub fn documents(&self, group: usize) -> Result<Vec<TokenizedDocument>> {
        let (shard, group) = self.groups[group];
        self.readers[shard].read_group(group)
    }

    /// Keeps what is said of a row group.
    ///
    /// # Errors
    /// The disk.
    pub fn keep(&self, group: usize, taught: &TaughtGroup) -> Result<()> {
        let bytes = serde_json::to_vec(taught)
            .map_err(|error| Error::Bug(format!("a group of taught documents: {error}")))?;
        write_atomic(&self.file(group), |out| out.write_all(&bytes))
    }

    /// What was said of a row group.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn kept(&self, group: usize) -> Result<TaughtGroup> {
        read_json(&self.file(group))
    }

    /// Number of row groups.
    pub fn num_groups(&self) -> usize {
        self.groups.len()
    }

    fn file(&self, group: usize) -> PathBuf {
        self.work.join(format!("group-{group:06}.json"))
    }

    /// Writes the shards with all that was said, and removes the work.
    ///
    /// # Errors
    /// Pairs or relations that the documents do not have; the disk.
    pub fn finish(self, mut taught: Taught) -> Result<ShardManifest> {
        let staging = Staging::new(&self.output)?;
        let with_words =
            StoreOptions { with_words: true, verify: false, ..StoreOptions::default() };
        let mut readers = Vec::new();
        for shard in &self.manifest.shards {
            readers.push(ShardReader::open(&self.folder, &self.manifest, shard, with_words)?);
        }
        let groups = self.groups.iter().enumerate().map(|(number, &(shard, group))| {
            let (rows, said) = (readers[shard].read_group(group)?, self.kept(number)?);
            if rows.len() != said.len() {
                let problem = format!("{} documents, but {} are needed", said.len(), rows.len());
                return Err(DataError::new(self.file(number), problem)
                    .hint("remove the file; `teach` makes it again")
                    .into());
            }
            rows.into_iter()
                .zip(said)
                .map(|(row, said)| self.with_what_is_said(row, said))
                .collect()
        });
        let documents = groups.flat_map(|group: Result<Vec<TokenizedDocument>>| match group {
            Ok(documents) => documents.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        });
        let written = write_documents(staging.path(), WriteOptions::default(), documents)?;
        Tokenizer::load(&self.folder.join(TOKENIZER), None)?
            .save(&staging.path().join(TOKENIZER))?;
        if let Some(entry) = &self.manifest.fact_index {
            copy_beside(&self.folder, entry, staging.path())?;
        }
        let mut bytes = 0;
        for shard in &written.shards {
            let table = TableReader::open(staging.path(), shard, false)?;
            bytes += table.column_bytes(schema::TAUGHT);
            bytes += table.column_bytes(schema::TEACHER_LOGITS);
        }
        taught.bytes_per_document = bytes as f64 / self.manifest.documents.max(1) as f64;
        let shards = written.shards;
        let manifest = ShardManifest { shards, taught: Some(taught), ..self.manifest };
        manifest.write(staging.path())?;
        staging.publish()?;
        fs_err::remove_dir_all(&self.work)?;
        Ok(manifest)
    }

    fn with_what_is_said(
        &self,
        mut document: TokenizedDocument,
        said: TaughtDocument,
    ) -> Result<TokenizedDocument> {
        (document.taught, document.teacher_logits) = (Some(said.pairs), said.logits);
        validate::check_taught(&document, self.manifest.relations.len()).map_err(
            |(field, problem)| Error::Bug(format!("{}, {field}: {problem}", document.title)),
        )?;
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distant::{Calibration, RuleThresholds};
    use crate::shards::DocumentStore;
    use crate::shards::testing::{corpus, prepared};
    use crate::text::TaughtRelation;

    fn taught() -> Taught {
        Taught {
            checkpoint: "c".into(),
            system: "atlop".into(),
            floor: 0.01,
            top: 4,
            passes: 0,
            tokens: 0,
            logits: false,
            calibration: Calibration::plain(3),
            fit: None,
            thresholds: vec![RuleThresholds::FIXED; 3],
            uncertainty: None,
            bytes_per_document: 0.0,
        }
    }

    /// Something about every pair of a document but the first.
    fn said(document: &TokenizedDocument) -> TaughtDocument {
        let sentences = document.sentence_starts.len() - 1;
        let count = document.entities.len() as u32;
        let pairs = (0..count).flat_map(|head| (0..count).map(move |tail| (head, tail)));
        let pairs = pairs.filter(|(head, tail)| head != tail).skip(1);
        let pairs = pairs
            .map(|(head, tail)| TaughtPair {
                head,
                tail,
                relations: vec![TaughtRelation {
                    relation: 0,
                    probability: 1000 + head as u16,
                    predicted: tail == 0,
                    deviation: 7,
                }],
                evidence: vec![9; sentences],
                tokens: vec![1, 2],
                weights: vec![3, 4],
            })
            .collect();
        TaughtDocument { pairs, logits: Some(vec![7, count as u16]) }
    }

    #[test]
    fn work_that_was_broken_off_goes_on_and_ends_as_if_it_had_not_been() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, report) = prepared(temp.path(), "shards", &corpus());
        let whole = temp.path().join("whole");
        let broken = temp.path().join("broken");
        let open = |output: &Path| TaughtShards::open(&folder, output).unwrap();
        let fill = |shards: &TaughtShards, groups: &[usize]| {
            for &group in groups {
                let documents = shards.documents(group).unwrap();
                shards.keep(group, &documents.iter().map(said).collect()).unwrap();
            }
        };
        let shards = open(&whole);
        let all = shards.begin(&"task").unwrap();
        assert_eq!(all.len(), shards.num_groups());
        fill(&shards, &all);
        let manifest = shards.finish(taught()).unwrap();
        assert!(manifest.taught.as_ref().unwrap().bytes_per_document > 0.0);
        // Broken off after the first group, and by another task in between.
        let shards = open(&broken);
        shards.begin(&"task").unwrap();
        fill(&shards, &all[..1]);
        let error = open(&broken).begin(&"another").unwrap_err();
        assert!(error.to_string().contains("another teacher") && error.hint().is_some());
        let shards = open(&broken);
        let left = shards.begin(&"task").unwrap();
        assert_eq!(left, all[1..]);
        fill(&shards, &left);
        assert_eq!(shards.finish(taught()).unwrap(), manifest);
        assert!(!temp.path().join("broken.unfinished").exists());
        assert!(open(&broken).begin(&"task").unwrap_err().to_string().contains("exists already"));
        // What was said is read again, beside all that the shards held.
        let options = StoreOptions { with_words: true, ..StoreOptions::default() };
        let [old, new] = [&folder, &broken].map(|at| DocumentStore::open(at, options).unwrap());
        assert_eq!(new.len(), report.manifest.documents);
        for row in 0..new.len() {
            let (old, new) = (old.get(row), new.get(row));
            let said = said(&old);
            assert_eq!((&new.taught, &new.teacher_logits), (&Some(said.pairs), &said.logits));
            let plain = TokenizedDocument { taught: None, teacher_logits: None, ..(*new).clone() };
            assert_eq!(plain, *old);
        }
        assert_eq!(new.fact_index().unwrap().num_keys(), old.fact_index().unwrap().num_keys());
    }

    #[test]
    fn pairs_that_a_document_does_not_have_are_a_bug_and_a_cut_file_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, _) = prepared(temp.path(), "shards", &corpus());
        let shards = TaughtShards::open(&folder, &temp.path().join("out")).unwrap();
        for group in shards.begin(&"task").unwrap() {
            let documents = shards.documents(group).unwrap();
            let wrong = TaughtPair { head: 99, tail: 0, ..TaughtPair::default() };
            let said = TaughtDocument { pairs: vec![wrong], logits: None };
            shards.keep(group, &documents.iter().map(|_| said.clone()).collect()).unwrap();
        }
        assert_eq!(shards.finish(taught()).unwrap_err().exit_code(), 70);
        let shards = TaughtShards::open(&folder, &temp.path().join("out")).unwrap();
        assert_eq!(shards.begin(&"task").unwrap(), Vec::<usize>::new());
        fs_err::write(shards.file(0), "[[").unwrap();
        assert_eq!(shards.finish(taught()).unwrap_err().exit_code(), 65);
    }
}
