//! Shards that a teacher goes over: the columns `taught` and `teacher_logits`.
//!
//! Not for: what a teacher says (`pipeline::teach`).

use serde::{Deserialize, Serialize};

use super::reader::TableReader;
use super::rewrite::{AnnotatedShards, DocumentNote};
use super::{ShardManifest, Taught, schema, validate};
use crate::Result;
use crate::text::{TaughtPair, TokenizedDocument};

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
pub type TaughtShards = AnnotatedShards<TaughtDocument>;

impl DocumentNote for TaughtDocument {
    const MODEL: &'static str = "teacher";
    const VERB: &'static str = "teach";

    fn add_to(
        self,
        document: &mut TokenizedDocument,
        relations: usize,
    ) -> Result<(), (String, String)> {
        (document.taught, document.teacher_logits) = (Some(self.pairs), self.logits);
        validate::check_taught(document, relations)
    }
}

impl TaughtShards {
    /// Writes the shards with all that was said, and removes the work.
    ///
    /// # Errors
    /// Pairs or relations that the documents do not have; the disk.
    pub fn finish(self, mut taught: Taught) -> Result<ShardManifest> {
        let mut finished = self.write()?;
        let mut bytes = 0;
        for shard in &finished.written.shards {
            let table = TableReader::open(finished.path(), shard, false)?;
            bytes += table.column_bytes(schema::TAUGHT);
            bytes += table.column_bytes(schema::TEACHER_LOGITS);
        }
        taught.bytes_per_document = bytes as f64 / finished.manifest.documents.max(1) as f64;
        finished.manifest.taught = Some(taught);
        finished.publish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::distant::{Calibration, RuleThresholds};
    use crate::shards::testing::{corpus, prepared};
    use crate::shards::{DocumentStore, StoreOptions};
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
                shards.keep(group, &documents.iter().map(said).collect::<Vec<_>>()).unwrap();
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
            shards.keep(group, &vec![said; documents.len()]).unwrap();
        }
        assert_eq!(shards.finish(taught()).unwrap_err().exit_code(), 70);
        let shards = TaughtShards::open(&folder, &temp.path().join("out")).unwrap();
        assert_eq!(shards.begin(&"task").unwrap(), Vec::<usize>::new());
        fs_err::write(shards.file(0), "[[").unwrap();
        assert_eq!(shards.finish(taught()).unwrap_err().exit_code(), 65);
    }
}
