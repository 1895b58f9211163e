//! Scoring: every ordered pair of every document gets the ranker's score, the best are kept
//! (docs/systems.md, D.8).

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::LoadedModel;
use super::session::Session;
use crate::base::Progress;
use crate::corpus::formats::{TitleKey, title_key};
use crate::sampling::{KeptPairs, Pair, ordered_pairs, top_asked_pairs};
use crate::shards::{
    DocumentStore, RankedPairs, Scored, ScoredShards, ShardManifest, StoreOptions,
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

/// What makes two pieces of work the same.
#[derive(Serialize)]
struct ScoreIdentity<'a> {
    checkpoint: &'a str,
    input: String,
    annotated: Option<String>,
    keep: String,
}

/// Scores the shards, a row group for each rank at a time; rank 0 writes what was said of them as
/// it comes, and goes on with work that was broken off.
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
    let shards = ScoredShards::open(task.input, task.output)?;
    shards.manifest().check_tokenizer(task.input, &ranker.loaded.tokenizer)?;
    let annotated =
        task.annotated.map(|folder| UnrankedTitles::read(folder, &shards)).transpose()?;
    let identity = Checkpoint::open(task.checkpoint)?.identity()?;
    let left = session.world.on_root(|| {
        shards.begin(&ScoreIdentity {
            checkpoint: &identity,
            input: shards.manifest().identity()?,
            annotated: annotated.as_ref().map(|annotated| annotated.identity.clone()),
            keep: task.keep.to_string(),
        })
    })?;
    let label = format!("score {}", task.input.file_name().unwrap_or_default().to_string_lossy());
    let _section = session.world.watchdog().unbounded_section(label.clone());
    let all = shards.manifest().documents;
    let mut done = all - left.iter().map(|&group| shards.group_len(group)).sum::<usize>();
    let mut progress = Progress::new(&label, all as u64, done as u64, session.is_root());
    let scoring = Scoring { task, ranker: &ranker, shards: &shards, annotated: annotated.as_ref() };
    for round in left.chunks(session.world.size()) {
        let groups = scoring.round(round, session)?;
        session.world.on_root(|| {
            round.iter().zip(&groups).try_for_each(|(&group, notes)| shards.keep(group, notes))
        })?;
        done += round.iter().map(|&group| shards.group_len(group)).sum::<usize>();
        progress.update(done as u64, String::new);
    }
    let ranked = all - annotated.as_ref().map_or(0, |annotated| annotated.found);
    progress.finish(&format!("{ranked} documents scored"));
    session.world.on_root(|| {
        let scored = Scored { checkpoint: identity.clone(), keep: task.keep.to_string() };
        Ok(report(shards.finish(scored)?, false))
    })
}

/// Annotated documents among those that are scored, which are not ranked.
struct UnrankedTitles {
    titles: HashSet<TitleKey>,
    /// How many there are.
    found: usize,
    identity: String,
}

impl UnrankedTitles {
    /// Refuses a folder none of whose documents is scored.
    fn read(folder: &Path, shards: &ScoredShards) -> Result<Self> {
        let store = DocumentStore::open(folder, StoreOptions::default())?;
        let mut titles = HashSet::new();
        store.each_title(&mut |_, title| {
            titles.insert(title_key(title));
            true
        });
        let identity = store.manifest().identity()?;
        let mut annotated = Self { titles, found: 0, identity };
        for group in 0..shards.num_groups() {
            let titles = shards.titles(group)?;
            annotated.found += titles.iter().filter(|title| annotated.holds(title)).count();
        }
        if annotated.found > 0 {
            return Ok(annotated);
        }
        let (annotated, all) = (folder.display(), shards.folder().display());
        let problem = format!("none of the documents of {annotated} is in {all}");
        Err(Error::recipe(problem).with_hint(
            "prepare both files into one folder: `prepare --input annotated.json distant.json`",
        ))
    }

    fn holds(&self, title: &str) -> bool {
        self.titles.contains(&title_key(title))
    }
}

/// Row groups on their way through the ranker.
struct Scoring<'a> {
    task: &'a ScoreTask<'a>,
    ranker: &'a LoadedRanker,
    shards: &'a ScoredShards,
    annotated: Option<&'a UnrankedTitles>,
}

impl Scoring<'_> {
    /// What is kept of row groups, as many as there are ranks or fewer; on rank 0.
    fn round(&self, groups: &[usize], session: &Session) -> Result<Vec<Vec<RankedPairs>>> {
        let world = session.world.size();
        if groups.len() == world {
            let own = self.shards.documents(groups[session.world.rank()])?;
            return session.gather(self.keep(&own, session));
        }
        // Too few for one each, so each is divided.
        let mut all = Vec::new();
        for &group in groups {
            all.extend(self.shards.documents(group)?);
        }
        let own: Vec<TokenizedDocument> = session.share(all).collect();
        let shares = session.gather(self.keep(&own, session))?;
        let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
        let mut next = (0..world).cycle();
        let mut take = || {
            let share = next.next().and_then(|rank| shares.get_mut(rank));
            share.and_then(Iterator::next).unwrap_or_default()
        };
        let lengths = groups.iter().map(|&group| self.shards.group_len(group));
        Ok(lengths.map(|length| (0..length).map(|_| take()).collect()).collect())
    }

    fn keep(&self, documents: &[TokenizedDocument], session: &Session) -> Result<Vec<RankedPairs>> {
        let is_ranked = |document: &TokenizedDocument| {
            self.annotated.is_none_or(|annotated| !annotated.holds(&document.title))
        };
        let ranked: Vec<&TokenizedDocument> =
            documents.iter().filter(|document| is_ranked(document)).collect();
        let mut done = |_| session.going_on("while scoring");
        let kept = self.ranker.keep(&ranked, self.task.keep, self.task.tokens, &mut done)?;
        let mut kept = kept.into_iter();
        let note = |document| is_ranked(document).then(|| kept.next()).flatten().into();
        Ok(documents.iter().map(note).collect())
    }
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

    /// The best pairs of each document, best first. `done` is told after each pass how many
    /// documents are done.
    ///
    /// # Errors
    /// If a document is over the length limit, or libtorch rejects an operation; those of `done`.
    pub fn keep<D: AsRef<TokenizedDocument>>(
        &self,
        documents: &[D],
        keep: KeptPairs,
        tokens: usize,
        done: &mut dyn FnMut(usize) -> Result<()>,
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
            done(finished)?;
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
