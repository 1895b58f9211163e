//! The stage `score`'s output: the same shards with the column `kept` filled.

use std::path::Path;

use super::files::{self, Staging};
use super::reader::{ReadOptions, ShardReader};
use super::store::TOKENIZER;
use super::writer::{ShardWriter, WriteOptions};
use super::{DocumentStore, Manifest, Scored};
use crate::text::ScoredPair;
use crate::{DataError, Error, Result};

/// Copies the folder of `store` to `output`, giving row *i* the pairs `kept[i]` (best first), cut into shards and row groups as
/// `options` says. The words, which the store need not hold, are read from disk again; the fact index and the tokeniser are copied.
///
/// Errors: an internal error if `kept` has another length than the store or names entities that do not exist; a recipe error for an output
/// that exists; a data error for shards that have changed since.
pub fn rewrite_with_scores(
    store: &DocumentStore,
    kept: &[Vec<ScoredPair>],
    output: &Path,
    scored: Scored,
    options: WriteOptions,
) -> Result<Manifest> {
    if kept.len() != store.len() {
        return Err(Error::Bug(format!("scores of {} documents for {} rows", kept.len(), store.len())));
    }
    let staging = Staging::new(output)?;
    let written = write_shards(store, kept, ShardWriter::new(staging.path(), options)?)?;
    store.tokenizer()?.save(&staging.path().join(TOKENIZER))?;
    if let Some(entry) = &store.manifest().fact_index {
        files::check(store.folder(), entry, true)?;
        fs_err::copy(store.folder().join(&entry.file), staging.path().join(&entry.file))?;
    }
    let manifest = Manifest { shards: written, scored: Some(scored), ..store.manifest().clone() };
    manifest.write(staging.path())?;
    staging.publish()?;
    Ok(manifest)
}

fn write_shards(store: &DocumentStore, kept: &[Vec<ScoredPair>], mut writer: ShardWriter) -> Result<Vec<super::FileEntry>> {
    let mut kept = kept.iter().enumerate();
    for shard in &store.manifest().shards {
        let reader = ShardReader::open(store.folder(), store.manifest(), shard, ReadOptions { with_words: true, verify: true })?;
        for group in 0..reader.num_row_groups() {
            for mut document in reader.read_group(group)? {
                let Some((row, pairs)) = kept.next() else {
                    return Err(DataError::new(store.folder(), "the shards have grown since they were opened").into());
                };
                document.kept = Some(pairs.clone());
                super::validate::check_kept(&document).map_err(|(field, problem)| Error::Bug(format!("row {row}, {field}: {problem}")))?;
                writer.push(document)?;
            }
        }
    }
    Ok(writer.finish()?.shards)
}
