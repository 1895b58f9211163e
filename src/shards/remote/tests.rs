use std::collections::BTreeSet;

use super::super::blocks::Blocks;
use super::super::testing::{corpus, document, prepared_with};
use super::super::{ShardManifest, StoreOptions, WriteOptions};
use super::*;
use crate::fake_bucket::{FakeBucket, Fault, Speech};
use crate::objects::cloud_tests;

/// Forty documents in ten row groups of four shards, in a folder and in a bucket.
struct InBucket {
    temp: tempfile::TempDir,
    server: FakeBucket,
}

const URL: &str = "s3://bucket/shards";

impl InBucket {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let documents: Vec<_> = (0..40)
            .map(|row| document(&format!("{row}"), &[&["Paris"], &["France"]], &[(0, 1, "P17")]))
            .collect();
        let options = WriteOptions { rows_per_shard: 12, row_group_rows: 4 };
        let server = FakeBucket::new(Speech::Amazon);
        let this = Self { temp, server };
        prepared_with(this.temp.path(), "shards", &documents, options);
        this.upload();
        this
    }

    fn upload(&self) {
        let folder = self.temp.path().join("shards");
        for inside in ["", "tokenizer/"] {
            for (name, path) in entries(&folder.join(inside)).unwrap() {
                if path.is_file() {
                    let content = fs_err::read(path).unwrap();
                    self.server.put(&format!("shards/{inside}{name}"), content);
                }
            }
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        cloud_tests::on(&self.server, "shards").into()
    }

    fn copy(&self) -> Result<PathBuf> {
        copied(URL, &*self.store(), &self.temp.path().join("cache"))
    }

    /// The blocks in the bucket, of which so many bytes may be kept.
    fn blocks(&self, disk: u64, tail: u64) -> Result<Blocks> {
        let folder = self.copy()?;
        let pieces = folder.join(PIECES);
        let remote = RemoteShards { url: URL.into(), store: self.store(), pieces, disk, tail };
        let manifest = ShardManifest::read(&folder)?;
        Blocks::over(&folder, manifest, StoreOptions::default(), Some(remote))
    }

    /// Requests for parts of shards since the last call.
    fn fetched(&self) -> usize {
        let seen = self.server.reset();
        seen.iter().filter(|said| said.starts_with("GET shards/train-")).count()
    }
}

#[test]
fn blocks_in_a_bucket_are_those_of_the_folder_and_are_fetched_once() {
    let place = InBucket::new();
    let folder = place.temp.path().join("shards");
    let manifest = ShardManifest::read(&folder).unwrap();
    let here = Blocks::over(&folder, manifest, StoreOptions::default(), None).unwrap();
    let there = place.blocks(1 << 30, TAIL).unwrap();
    assert_eq!((there.len(), there.starts()), (here.len(), here.starts()));
    assert!(place.fetched() > 0);
    for block in 0..here.len() {
        assert_eq!(there.documents(block).unwrap(), here.documents(block).unwrap());
    }
    assert_eq!(place.fetched(), 0, "shards as short as these are in their tails");
    // Longer ones: so little of them is a tail that row groups are fetched one by one.
    let there = place.blocks(1 << 30, 2_000).unwrap();
    place.fetched();
    assert_eq!(there.titles(3).unwrap(), here.titles(3).unwrap());
    let titles = place.fetched();
    for (block, most) in [(3, usize::MAX), (3, 0), (4, usize::MAX)] {
        assert_eq!(there.documents(block).unwrap(), here.documents(block).unwrap());
        let fetched = place.fetched();
        assert!(fetched <= most && (fetched > titles || most == 0), "{fetched} of block {block}");
    }
}

#[test]
fn what_is_small_is_copied_once_and_anew_when_the_shards_were_replaced() {
    let place = InBucket::new();
    let first = place.copy().unwrap();
    let names: BTreeSet<String> =
        entries(&first).unwrap().into_iter().map(|(name, _)| name).collect();
    let expected = ["facts.parquet", LINK, MANIFEST, PIECES, TOKENIZER].map(String::from);
    assert_eq!(names, BTreeSet::from(expected));
    place.server.reset();
    assert_eq!(place.copy().unwrap(), first);
    assert_eq!(place.server.reset(), ["GET shards/manifest.json?"]);
    fs_err::remove_dir_all(place.temp.path().join("shards")).unwrap();
    prepared_with(place.temp.path(), "shards", &corpus(), WriteOptions::default());
    place.upload();
    assert_ne!(place.copy().unwrap(), first);
    let nothing = copied(URL, &*cloud_tests::on(&place.server, "other"), place.temp.path());
    let error = nothing.unwrap_err();
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains("there are no shards here"), "{error}");
}

#[test]
fn pieces_take_no_more_than_they_may() {
    let place = InBucket::new();
    let disk = 9_000;
    let blocks = place.blocks(disk, 2_000).unwrap();
    let whole: u64 = blocks.manifest().shards.iter().map(|shard| shard.bytes).sum();
    assert!(whole > 2 * disk, "{whole} bytes are too few for this test");
    for block in (0..blocks.len()).chain(0..blocks.len()) {
        assert_eq!(blocks.documents(block).unwrap().len(), 4);
        let pieces = entries(&place.copy().unwrap().join(PIECES)).unwrap();
        let taken: u64 = pieces.iter().map(|(_, path)| path.metadata().unwrap().len()).sum();
        assert!(taken <= disk, "{taken} bytes");
    }
    assert!(place.fetched() > blocks.len());
}

#[test]
fn a_bucket_that_fails_is_an_error_that_names_it() {
    let place = InBucket::new();
    place.server.fail("GET shards/train-", 2, Fault::Status(503));
    let blocks = place.blocks(0, 2_000).unwrap();
    place.server.fail("GET shards/train-", usize::MAX, Fault::Status(403));
    let error = blocks.documents(5).unwrap_err();
    assert_eq!(error.exit_code(), 74, "{error}");
    assert!(error.to_string().contains("403 Forbidden"), "{error}");
    place.server.reset();
    assert_eq!(blocks.documents(5).unwrap().len(), 4);
    // Another file under the same name, as long as it was and shorter.
    let name = &blocks.manifest().shards[1].file;
    let path = place.temp.path().join("shards").join(name);
    let mut content = fs_err::read(path).unwrap();
    content[..4_000].iter_mut().for_each(|byte| *byte ^= 0x55);
    place.server.put(&format!("shards/{name}"), content.clone());
    let error = blocks.documents(3).unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert!(error.to_string().contains(name.as_str()), "{error}");
    content.truncate(500);
    place.server.put(&format!("shards/{name}"), content);
    assert!(blocks.documents(3).is_err());
}
