//! The stage `score`'s output: the same shards with the column `kept` filled.

use std::path::Path;

use super::files::{self, Staging};
use super::reader::{ShardReader, StoreOptions};
use super::store::TOKENIZER;
use super::writer::{WriteOptions, write_documents};
use super::{DocumentStore, Scored, ShardManifest};
use crate::text::{ScoredPair, TokenizedDocument};
use crate::{Error, Result};

/// Copies the folder of `store` to `output`, giving row *i* the pairs `kept[i]` (best first; none
/// where the document was not ranked), cut into shards and row groups as `options` says. The words,
/// which the store need not hold, are read from disk again; the fact index and the tokeniser are
/// copied.
///
/// Errors: an internal error if `kept` has another length than the store or names entities that do
/// not exist; a recipe error for an output that exists; a data error for shards that have changed
/// since.
pub fn rewrite_with_scores(
    store: &DocumentStore,
    kept: &[Option<Vec<ScoredPair>>],
    output: &Path,
    scored: Scored,
    options: WriteOptions,
) -> Result<ShardManifest> {
    if kept.len() != store.len() {
        return Err(Error::Bug(format!(
            "scores of {} documents for {} rows",
            kept.len(),
            store.len()
        )));
    }
    let staging = Staging::new(output)?;
    let rows = scored_rows(store)?;
    let documents = rows
        .zip(kept)
        .enumerate()
        .map(|(row, (document, pairs))| with_pairs(row, document?, pairs));
    let written = write_documents(staging.path(), options, documents)?;
    store.tokenizer()?.save(&staging.path().join(TOKENIZER))?;
    if let Some(entry) = &store.manifest().fact_index {
        files::check(store.folder(), entry, true)?;
        fs_err::copy(store.folder().join(&entry.file), staging.path().join(&entry.file))?;
    }
    let manifest =
        ShardManifest { shards: written.shards, scored: Some(scored), ..store.manifest().clone() };
    manifest.write(staging.path())?;
    staging.publish()?;
    Ok(manifest)
}

/// All documents of the folder, read again with their words.
fn scored_rows(
    store: &DocumentStore,
) -> Result<impl Iterator<Item = Result<TokenizedDocument>> + '_> {
    let options = StoreOptions { with_words: true, verify: true };
    let open = |shard| ShardReader::open(store.folder(), store.manifest(), shard, options);
    let readers: Vec<ShardReader> =
        store.manifest().shards.iter().map(open).collect::<Result<_>>()?;
    let tasks: Vec<(usize, usize)> = readers
        .iter()
        .enumerate()
        .flat_map(|(at, reader)| (0..reader.num_row_groups()).map(move |group| (at, group)))
        .collect();
    let groups = tasks.into_iter().map(move |(at, group)| readers[at].read_group(group));
    Ok(groups.flat_map(|group| match group {
        Ok(documents) => documents.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }))
}

fn with_pairs(
    row: usize,
    mut document: TokenizedDocument,
    pairs: &Option<Vec<ScoredPair>>,
) -> Result<TokenizedDocument> {
    document.kept.clone_from(pairs);
    super::validate::check_kept(&document)
        .map_err(|(field, problem)| Error::Bug(format!("row {row}, {field}: {problem}")))?;
    Ok(document)
}
