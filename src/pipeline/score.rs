//! Scoring: every ordered pair of every document gets the ranker's score, the best are kept
//! (docs/systems.md, D.8).

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::model::LoadedModel;
use super::session::Session;
use crate::base::Progress;
use crate::sampling::{ordered_pairs, top_asked_pairs};
use crate::shards::{
    DocumentStore, Scored, ShardManifest, StoreOptions, WriteOptions, rewrite_with_scores,
};
use crate::systems::DocumentViews;
use crate::systems::dsdocre::Part;
use crate::text::{ScoredPair, TokenizedDocument, ViewChoices, split_by_tokens};
use crate::torch::Precision;
use crate::train::{Checkpoint, Forward, PrecisionChoice};
use crate::{Error, Result};

/// How many pairs of a document are kept: the largest of a fixed number and a multiple of its
/// entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// A fixed number.
    pub fixed: usize,
    /// Times the number of entities.
    pub per_entity: usize,
}

impl Keep {
    /// The number for a document of `entities` entities.
    pub fn of(self, entities: usize) -> usize {
        self.fixed.max(self.per_entity * entities)
    }
}

impl FromStr for Keep {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::recipe(format!("--keep {text} is neither a number nor a multiple of n"))
                .with_hint("such as 30, 2n or 60,3n")
        };
        let mut keep = Self { fixed: 0, per_entity: 0 };
        for part in text.split(',') {
            match part.trim().strip_suffix(['n', 'N']) {
                Some(times) => keep.per_entity = times.parse().map_err(|_| bad())?,
                None => keep.fixed = part.trim().parse().map_err(|_| bad())?,
            }
        }
        if keep.of(1) == 0 { Err(bad()) } else { Ok(keep) }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fixed, self.per_entity) {
            (fixed, 0) => write!(f, "{fixed}"),
            (0, times) => write!(f, "{times}n"),
            (fixed, times) => write!(f, "{fixed},{times}n"),
        }
    }
}

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
    pub keep: Keep,
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

impl ScoreReport {
    fn of(manifest: ShardManifest, was_there: bool) -> Self {
        Self { documents: manifest.documents, scored: manifest.scored, was_there }
    }
}

/// Scores the shards; every rank does its share of the rows, rank 0 writes.
///
/// # Errors
/// A checkpoint that is no ranker, shards of another tokenizer, a document over the length limit,
/// the disk.
pub fn score(task: &ScoreTask, session: &Session) -> Result<ScoreReport> {
    if task.output.join("manifest.json").exists() {
        return Ok(ScoreReport::of(ShardManifest::read(task.output)?, true));
    }
    let ranker = Ranking::open(task.checkpoint, session)?;
    let store = DocumentStore::open(task.input, StoreOptions::default())?;
    store.manifest().check_tokenizer(task.input, &ranker.loaded.tokenizer)?;
    let ranked = rows_to_rank(&store, task.annotated)?;
    let world = session.world.size();
    let mine: Vec<usize> =
        ranked.iter().copied().skip(session.world.rank()).step_by(world).collect();
    let label = format!("score {}", task.input.file_name().unwrap_or_default().to_string_lossy());
    let _section = session.world.watchdog().unbounded_section(label.clone());
    let mut progress = Progress::new(&label, mine.len() as u64, 0, session.is_root());
    let documents: Vec<_> = mine.iter().map(|&row| store.get(row)).collect();
    let kept = ranker.keep(&documents, task.keep, task.tokens, &mut |done| {
        progress.update(done as u64, String::new)
    })?;
    progress.finish(&format!("{} documents scored", ranked.len()));
    let all = session.world.communicator().all_gather(&encode(&kept))?;
    session.world.on_root(|| {
        let mut parts: Vec<Vec<Vec<ScoredPair>>> = all.iter().map(|bytes| decode(bytes)).collect();
        let mut rows = vec![None; store.len()];
        for (index, &row) in ranked.iter().enumerate() {
            rows[row] = Some(std::mem::take(&mut parts[index % world][index / world]));
        }
        let scored = Scored {
            checkpoint: Checkpoint::open(task.checkpoint)?.identity()?,
            keep: task.keep.to_string(),
        };
        let manifest =
            rewrite_with_scores(&store, &rows, task.output, scored, WriteOptions::default())?;
        Ok(ScoreReport::of(manifest, false))
    })
}

/// The rows whose pairs are ranked: all but the annotated documents.
fn rows_to_rank(store: &DocumentStore, annotated: Option<&Path>) -> Result<Vec<usize>> {
    let Some(folder) = annotated else { return Ok((0..store.len()).collect()) };
    let annotated = DocumentStore::open(folder, StoreOptions::default())?;
    let ranked: Vec<usize> =
        (0..store.len()).filter(|&row| annotated.find_title(store.title(row)).is_none()).collect();
    if ranked.len() == store.len() {
        let problem = format!(
            "none of the documents of {} is in {}",
            folder.display(),
            store.folder().display()
        );
        return Err(Error::recipe(problem).with_hint(
            "prepare both files into one folder: `prepare --input annotated.json distant.json`",
        ));
    }
    Ok(ranked)
}

/// A ranker ready to score documents.
pub struct Ranking {
    /// Model and tokenizer.
    pub loaded: LoadedModel,
    views: DocumentViews,
    forward: Forward,
}

impl Ranking {
    /// Opens the ranker's checkpoint.
    ///
    /// # Errors
    /// A checkpoint of another stage, or a damaged one.
    pub fn open(checkpoint: &Path, session: &Session) -> Result<Self> {
        Self::new(
            LoadedModel::open(checkpoint, Part::Ranker, session.device)?,
            session.precision(PrecisionChoice::Auto),
        )
    }

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
        keep: Keep,
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
                kept[index] = top_asked_pairs(
                    documents[index],
                    &scores,
                    keep.of(documents[index].entities.len()),
                );
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
        let (mut heads, mut tails) = (Vec::new(), Vec::new());
        for (index, document) in documents.iter().enumerate() {
            let base = packed.entity_base(index);
            for (head, tail) in ordered_pairs(document.entities.len()) {
                heads.push(base + i64::from(head));
                tails.push(base + i64::from(tail));
            }
        }
        if heads.is_empty() {
            return Ok(vec![Vec::new(); documents.len()]);
        }
        let _guard = tch::no_grad_guard();
        let (_, entities) = self.loaded.model.encode(&packed, self.forward)?;
        let scores =
            Vec::<f32>::try_from(self.loaded.model.ranking_scores(&entities, &heads, &tails)?)?;
        let mut rest = scores.as_slice();
        Ok(documents
            .iter()
            .map(|document| rest.split_off(..document.num_pairs()).unwrap_or_default().to_vec())
            .collect())
    }
}

/// Kept pairs as bytes: a count, then (head, tail, score) each.
fn encode(kept: &[Vec<ScoredPair>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for pairs in kept {
        bytes.extend((pairs.len() as u32).to_le_bytes());
        for pair in pairs {
            bytes.extend(pair.head.to_le_bytes());
            bytes.extend(pair.tail.to_le_bytes());
            bytes.extend(pair.score.to_le_bytes());
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Vec<Vec<ScoredPair>> {
    let mut words =
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut kept = Vec::new();
    while let Some(count) = words.next() {
        let mut next = || words.next().unwrap_or_default();
        kept.push(
            (0..count)
                .map(|_| ScoredPair { head: next(), tail: next(), score: f32::from_bits(next()) })
                .collect(),
        );
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_rules_read_and_print_the_same() {
        for text in ["30", "2n", "60,3n"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        assert_eq!("60,3n".parse::<Keep>().unwrap().of(10), 60);
        assert_eq!("60,3n".parse::<Keep>().unwrap().of(30), 90);
        for text in ["", "0", "n2", "-1", "0n"] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }

    #[test]
    fn kept_pairs_survive_the_wire() {
        let kept = vec![
            vec![],
            vec![
                ScoredPair { head: 1, tail: 0, score: -2.5 },
                ScoredPair { head: 0, tail: 7, score: f32::MAX },
            ],
        ];
        assert_eq!(decode(&encode(&kept)), kept);
    }
}
