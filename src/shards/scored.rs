//! Shards that a ranker goes over: the column `kept`.
//!
//! Not for: which pairs are kept (`pipeline::score`).

use serde::{Deserialize, Serialize};

use super::rewrite::{AnnotatedShards, DocumentNote};
use super::{Scored, ShardManifest, validate};
use crate::Result;
use crate::text::{ScoredPair, TokenizedDocument};

/// The pairs of a document that a ranker keeps, best first; `None` where it was not ranked. A pair
/// is head, tail, and the bits of the score, which so comes back as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RankedPairs(Option<Vec<(u32, u32, u32)>>);

/// A folder of shards that is scored.
pub type ScoredShards = AnnotatedShards<RankedPairs>;

impl From<Option<Vec<ScoredPair>>> for RankedPairs {
    fn from(pairs: Option<Vec<ScoredPair>>) -> Self {
        let plain = |pair: ScoredPair| (pair.head, pair.tail, pair.score.to_bits());
        Self(pairs.map(|pairs| pairs.into_iter().map(plain).collect()))
    }
}

impl DocumentNote for RankedPairs {
    const MODEL: &'static str = "ranker";
    const VERB: &'static str = "score";

    fn add_to(
        self,
        document: &mut TokenizedDocument,
        _relations: usize,
    ) -> Result<(), (String, String)> {
        let pair = |(head, tail, bits)| ScoredPair { head, tail, score: f32::from_bits(bits) };
        document.kept = self.0.map(|pairs| pairs.into_iter().map(pair).collect());
        validate::check_kept(document)
    }
}

impl ScoredShards {
    /// Writes the shards with the pairs that were kept, and removes the work.
    ///
    /// # Errors
    /// Pairs that the documents do not have; the disk.
    pub fn finish(self, scored: Scored) -> Result<ShardManifest> {
        let mut finished = self.write()?;
        finished.manifest.scored = Some(scored);
        finished.publish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::shards::testing::{corpus, prepared};
    use crate::shards::{DocumentStore, StoreOptions, WriteOptions};

    fn scored() -> Scored {
        Scored { checkpoint: "ranker".into(), keep: "2n".into() }
    }

    fn open(folder: &Path, output: &Path) -> ScoredShards {
        let write = WriteOptions { rows_per_shard: 3, row_group_rows: 2 };
        ScoredShards::open(folder, output).unwrap().cut(write)
    }

    /// Pairs of every document but the fourth.
    fn pairs(title: &str) -> Option<Vec<ScoredPair>> {
        let score = title.len() as f32 + 0.1 * f32::from(title.as_bytes()[9]);
        let [best, other] = [(1, 0, score), (0, 1, -score)];
        let pair = |(head, tail, score)| ScoredPair { head, tail, score };
        (title != "document 3").then(|| vec![pair(best), pair(other)])
    }

    fn fill(shards: &ScoredShards, groups: &[usize]) {
        for &group in groups {
            let titles = shards.titles(group).unwrap();
            assert_eq!(titles.len(), shards.group_len(group));
            let notes: Vec<RankedPairs> = titles.iter().map(|title| pairs(title).into()).collect();
            shards.keep(group, &notes).unwrap();
        }
    }

    fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let files = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        files
            .filter(|path| path.is_file())
            .map(|path| (name(&path), fs_err::read(&path).unwrap()))
            .collect()
    }

    #[test]
    fn scores_are_added_to_every_row_and_broken_off_work_ends_in_the_same_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, report) = prepared(temp.path(), "shards", &corpus());
        let [whole, broken] = ["whole", "broken"].map(|name| temp.path().join(name));
        let shards = open(&folder, &whole);
        let all = shards.begin(&"task").unwrap();
        fill(&shards, &all);
        shards.finish(scored()).unwrap();
        // Broken off at every row group; each time what was said before is kept.
        for left in (0..all.len()).rev() {
            let shards = open(&folder, &broken);
            let groups = shards.begin(&"task").unwrap();
            assert_eq!(groups.len(), left + 1);
            let error = open(&folder, &broken).begin(&"other").unwrap_err();
            assert!(error.to_string().contains("another ranker"), "{error}");
            fill(&shards, &groups[..1]);
        }
        let shards = open(&folder, &broken);
        assert!(shards.begin(&"task").unwrap().is_empty());
        shards.finish(scored()).unwrap();
        assert_eq!(bytes(&whole), bytes(&broken));
        let options = StoreOptions { with_words: true, ..StoreOptions::default() };
        let [old, new] = [&folder, &whole].map(|at| DocumentStore::open(at, options).unwrap());
        assert_eq!(new.manifest().scored, Some(scored()));
        assert_eq!(new.manifest().shards.len(), report.manifest.shards.len());
        for row in 0..new.len() {
            let (old, new) = (old.get(row), new.get(row));
            assert_eq!(new.kept, pairs(&new.title));
            assert_eq!(TokenizedDocument { kept: None, ..(*new).clone() }, *old);
        }
        assert_eq!(new.fact_index().unwrap(), old.fact_index().unwrap());
        assert_eq!(new.tokenizer().unwrap().identity(), old.manifest().tokenizer.identity);
    }

    #[test]
    fn wrong_pairs_are_a_bug_and_notes_of_another_number_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, _) = prepared(temp.path(), "shards", &corpus());
        let shards = open(&folder, &temp.path().join("out"));
        let groups = shards.begin(&"task").unwrap();
        fill(&shards, &groups);
        let wrong = vec![ScoredPair { head: 0, tail: 2, score: 0.0 }];
        shards.keep(0, &[Some(wrong).into(), None.into()]).unwrap();
        assert_eq!(shards.finish(scored()).unwrap_err().exit_code(), 70);
        let shards = open(&folder, &temp.path().join("out"));
        shards.keep(0, &[None.into()]).unwrap();
        let error = shards.finish(scored()).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("group-000000.json"), "{error}");
    }
}
