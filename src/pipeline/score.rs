//! Scoring: every ordered pair of every document gets the ranker's score, the best are kept
//! (docs/systems.md, D.8).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::LoadedModel;
use super::predictor::DocumentScores;
use super::session::Session;
use crate::base::Progress;
use crate::sampling::{KeptPairs, Pair, ordered_pairs, top_asked_pairs};
use crate::shards::{
    DocumentStore, Scored, ShardManifest, StoreOptions, WriteOptions, rewrite_with_scores,
};
use crate::systems::DocumentViews;
use crate::systems::dsdocre::{ModelKind, PairRows};
use crate::text::{ScoredPair, TokenizedDocument, ViewChoices, split_by_tokens};
use crate::torch::Precision;
use crate::train::{Checkpoint, Forward, PrecisionChoice};
use crate::{Error, Result};

/// What to score.
pub struct ScoreTask<'a> {
    /// The ranker.
    pub checkpoint: &'a Path,
    /// Shards without scores.
    pub input: &'a Path,
    /// Shards with scores.
    pub output: &'a Path,
    /// Annotated documents that are among `input`: these are not ranked, so that all their labels
    /// count.
    pub annotated: Option<&'a Path>,
    /// Pairs to keep.
    pub keep: KeptPairs,
    /// Token budget of a forward pass.
    pub tokens: usize,
}

/// What was scored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreReport {
    /// Documents, annotated ones included.
    pub documents: usize,
    /// The ranker's checkpoint and the rule by which pairs were kept.
    pub scored: Option<Scored>,
    /// Whether the output was complete before, and nothing had to be done.
    pub was_there: bool,
}

/// Scores the shards; every rank does its share of the rows, rank 0 writes.
///
/// # Errors
/// A checkpoint that is no ranker, shards of another tokenizer, a document over the length limit,
/// the disk.
pub fn score(task: &ScoreTask, session: &Session) -> Result<ScoreReport> {
    let report = |manifest: ShardManifest, was_there| ScoreReport {
        documents: manifest.documents,
        scored: manifest.scored,
        was_there,
    };
    if task.output.join("manifest.json").exists() {
        return Ok(report(ShardManifest::read(task.output)?, true));
    }
    let loaded = LoadedModel::open(task.checkpoint, ModelKind::Ranker, session.device)?;
    let ranker = LoadedRanker::new(loaded, session.precision(PrecisionChoice::Auto))?;
    let store = DocumentStore::open(task.input, StoreOptions::default())?;
    store.manifest().check_tokenizer(task.input, &ranker.loaded.tokenizer)?;
    let ranked = rows_to_rank(&store, task.annotated)?;
    let documents: Vec<_> = session.share(&ranked).map(|&row| store.get(row)).collect();
    let label = format!("score {}", task.input.file_name().unwrap_or_default().to_string_lossy());
    let _section = session.world.watchdog().unbounded_section(label.clone());
    let mut progress = Progress::new(&label, documents.len() as u64, 0, session.is_root());
    let kept = ranker.keep(&documents, task.keep, task.tokens, &mut |done| {
        progress.update(done as u64, String::new);
    })?;
    progress.finish(&format!("{} documents scored", ranked.len()));
    let kept = kept.into_iter().map(DocumentScores::of_kept).collect();
    let kept = DocumentScores::gather(kept, ranked.len(), session)?;
    session.world.on_root(|| {
        let mut rows = vec![None; store.len()];
        for (row, kept) in ranked.into_iter().zip(kept) {
            rows[row] = Some(kept.into_kept());
        }
        let scored = Scored {
            checkpoint: Checkpoint::open(task.checkpoint)?.identity()?,
            keep: task.keep.to_string(),
        };
        let write = WriteOptions::default();
        Ok(report(rewrite_with_scores(&store, &rows, task.output, scored, write)?, false))
    })
}

/// The rows whose pairs are ranked: all but the annotated documents.
fn rows_to_rank(store: &DocumentStore, annotated: Option<&Path>) -> Result<Vec<usize>> {
    let Some(folder) = annotated else { return Ok((0..store.len()).collect()) };
    let annotated = DocumentStore::open(folder, StoreOptions::default())?;
    let ranked: Vec<usize> =
        (0..store.len()).filter(|&row| annotated.find_title(&store.title(row)).is_none()).collect();
    if ranked.len() == store.len() {
        let (annotated, all) = (folder.display(), store.folder().display());
        let problem = format!("none of the documents of {annotated} is in {all}");
        return Err(Error::recipe(problem).with_hint(
            "prepare both files into one folder: `prepare --input annotated.json distant.json`",
        ));
    }
    Ok(ranked)
}

/// A ranker ready to score documents.
pub struct LoadedRanker {
    /// Model and tokenizer.
    pub loaded: LoadedModel,
    views: DocumentViews,
    forward: Forward,
}

impl LoadedRanker {
    /// A ranker in memory.
    ///
    /// # Errors
    /// A model of another system.
    pub fn new(loaded: LoadedModel, precision: Precision) -> Result<Self> {
        Ok(Self { views: loaded.views(0)?, loaded, forward: Forward { train: false, precision } })
    }

    /// The best pairs of each document, best first.
    ///
    /// # Errors
    /// If a document is over the length limit, or libtorch rejects an operation.
    pub fn keep<D: AsRef<TokenizedDocument>>(
        &self,
        documents: &[D],
        keep: KeptPairs,
        tokens: usize,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ScoredPair>>> {
        let documents: Vec<&TokenizedDocument> = documents.iter().map(AsRef::as_ref).collect();
        // Documents of similar length share a pass: long ones first, so that the largest pass comes
        // first.
        let mut order: Vec<usize> = (0..documents.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(documents[index].pieces.len()));
        let lengths: Vec<usize> = order
            .iter()
            .map(|&index| documents[index].pieces.len() + 8 * documents[index].entities.len())
            .collect();
        let mut kept = vec![Vec::new(); documents.len()];
        let mut finished = 0;
        for range in split_by_tokens(&lengths, tokens) {
            let chunk: Vec<&TokenizedDocument> =
                order[range.clone()].iter().map(|&index| documents[index]).collect();
            for (&index, scores) in order[range.clone()].iter().zip(self.scores(&chunk)?) {
                let count = keep.count(documents[index].entities.len());
                kept[index] = top_asked_pairs(documents[index], &scores, count);
            }
            finished += range.len();
            done(finished);
        }
        Ok(kept)
    }

    /// Scores of all ordered pairs of each document, row-major without the diagonal.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn scores(&self, documents: &[&TokenizedDocument]) -> Result<Vec<Vec<f32>>> {
        let views = documents
            .iter()
            .map(|document| self.views.view(document, &ViewChoices::default()))
            .collect::<Result<Vec<_>>>()?;
        let packed = self.views.pack(&views, &vec![0; views.len()]);
        let mut rows = PairRows::default();
        for (index, document) in documents.iter().enumerate() {
            let pairs: Vec<Pair> = ordered_pairs(document.entities.len()).collect();
            rows.extend_pairs(&pairs, packed.entity_base(index));
        }
        if rows.heads.is_empty() {
            return Ok(vec![Vec::new(); documents.len()]);
        }
        let _guard = tch::no_grad_guard();
        let model = &self.loaded.model;
        let (_, entities) = model.encode(&packed, self.forward)?;
        let scores = model.ranking_scores(&entities, &rows.heads, &rows.tails)?;
        let scores = Vec::<f32>::try_from(scores)?;
        let mut rest = scores.as_slice();
        Ok(documents
            .iter()
            .map(|document| rest.split_off(..document.num_pairs()).unwrap_or_default().to_vec())
            .collect())
    }
}
