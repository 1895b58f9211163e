//! Pre-training items: two documents, what is hidden in them, and the instances of all tasks
//! (docs/systems.md, D.9–D.18). An item is a pure function of (seed, step, item).
//!
//! Not for: how the instances of a task are drawn (`instances`), or batches (`pretrainer`).

use std::fmt;
use std::sync::Arc;

use rand::RngExt;

use super::instances::{
    AlignmentInstance, CrossPairInstance, EntityInstance, MentionInstance, PairInstance, Side,
    alignment_instances, cross_detection_instances, cross_mention_instances, detection_instances,
    draw_masked, intra_alignment_instance, mention_instances,
};
use super::pools::{Documents, KeptSet, Pool, Pools, WindowPools};
use super::settings::{DsdocreSettings, Task};
use crate::sampling::{Purpose, Stream, VisitedRows, draw_blanked, pick, rng};
use crate::shards::{DocumentStore, FactInstance};
use crate::systems::SystemSettings;
use crate::text::ViewChoices;
use crate::{DataError, Result};

/// One item of pre-training. An instance that cannot be drawn, or whose task is off, is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PretrainItem {
    /// Rows of the two documents.
    pub rows: [usize; 2],
    /// Whether they were drawn because they share a fact.
    pub same_fact: bool,
    /// What is hidden in each document.
    pub choices: [ViewChoices; 2],
    /// MenMat, by document.
    pub mention: [Vec<MentionInstance>; 2],
    /// XMenMat; `[0]`: the query is in the first document, the candidates are in the second; `[1]`:
    /// the reverse.
    pub cross_mention: [Option<EntityInstance>; 2],
    /// RelDet, by document.
    pub detection: [Vec<PairInstance>; 2],
    /// XRelDet.
    pub cross_detection: Vec<CrossPairInstance>,
    /// RelAlign; `[0]`: the query is in the first document, the candidates are in the second;
    /// `[1]`: the reverse.
    pub alignment: [Option<AlignmentInstance>; 2],
    /// IntraAlign, by document; query and candidates are in the same document.
    pub intra_alignment: [Option<AlignmentInstance>; 2],
}

/// What a sampler draws from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PretrainSummary {
    /// Documents with enough entities and a label.
    pub documents: usize,
    /// Those of them that no ranker has seen, where one should: all their labels are good.
    pub unranked: usize,
    /// Fact keys with good instances in two documents or more, of all documents or of a window.
    pub keys: usize,
    /// Good instances of these keys.
    pub instances: usize,
    /// Windows in which the documents are drawn.
    pub windows: usize,
}

impl fmt::Display for PretrainSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { documents, unranked, keys, instances, windows } = self;
        write!(f, "{documents} documents")?;
        if *unranked > 0 {
            write!(f, " ({unranked} of them annotated: all labels count)")?;
        }
        write!(f, ", {keys} facts in two or more of them, {instances} instances")?;
        if *windows > 1 {
            write!(f, " in the first of {windows} windows")?;
        }
        Ok(())
    }
}

/// Draws pre-training items. What it holds is fixed by the corpus, the keys and the settings; an
/// item is a pure function of it and (seed, step, item).
pub struct PretrainSampler<'c> {
    corpus: &'c dyn Documents,
    /// What is drawn, and how.
    pub settings: DsdocreSettings,
    /// Documents that pass the filter.
    documents: usize,
    /// How many of them no ranker has seen.
    unranked: usize,
    pools: Pools<'c>,
}

impl<'c> PretrainSampler<'c> {
    /// A sampler that draws from all documents at once. It filters documents and fact keys: a
    /// document needs enough entities and at least one distant label; an instance must be a good
    /// label of such a document; a key needs good instances in two different documents.
    ///
    /// # Errors
    /// [`crate::Error::Recipe`] for settings that cannot be used; [`crate::Error::Data`] when fewer
    /// than two documents pass.
    pub fn new(
        corpus: &'c dyn Documents,
        keys: impl IntoIterator<Item = impl AsRef<[FactInstance]>>,
        settings: DsdocreSettings,
    ) -> Result<Self> {
        settings.check()?;
        let pool = Pool::new(corpus, 0..corpus.count(), keys, &settings);
        let (documents, unranked) = (pool.rows.len(), pool.unranked);
        enough(documents, &settings)?;
        Ok(Self { corpus, settings, documents, unranked, pools: Pools::One(Arc::new(pool)) })
    }

    /// A sampler that draws the items of a step, `batch` of them, from the documents of `store`
    /// that are in memory together: windows of its blocks in turns, each for half as many items as
    /// it has documents. The seed of items is that of the windows.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn in_windows(
        corpus: &'c dyn Documents,
        store: &'c DocumentStore,
        (seed, batch): (u64, usize),
        settings: DsdocreSettings,
    ) -> Result<Self> {
        settings.check()?;
        if store.manifest().fact_index.is_none() {
            store.fact_index()?;
        }
        let mut unranked = 0;
        let usable = VisitedRows::choose(store, |row| {
            let kept = KeptSet::of(&corpus.document(row), &settings);
            unranked += usize::from(kept.as_ref().is_some_and(KeptSet::is_unranked));
            kept.is_some()
        });
        let documents = usable.rows().len();
        enough(documents, &settings)?;
        let pools = Pools::Windows(Box::new(WindowPools::new(store, &usable, seed, batch)));
        Ok(Self { corpus, settings, documents, unranked, pools })
    }

    /// Numbers for the log.
    pub fn summary(&self) -> PretrainSummary {
        let pool = self.pool(0, 0);
        let (keys, instances) = (pool.num_keys(), pool.num_instances());
        let unranked = self.settings.k_pretrain().map_or(0, |_| self.unranked);
        let windows = self.pools.windows();
        PretrainSummary { documents: self.documents, unranked, keys, instances, windows }
    }

    /// What tells the windows from others; 0 for one.
    pub fn windows_key(&self) -> u64 {
        self.pools.key()
    }

    /// What an item is drawn from.
    fn pool(&self, step: u64, item: u64) -> Arc<Pool> {
        self.pools.of(self.corpus, &self.settings, step, item)
    }

    /// The documents of an item: [`PretrainItem::rows`] of what [`Self::sample`] draws, without
    /// drawing the rest.
    pub fn rows(&self, seed: u64, step: u64, item: u64) -> [usize; 2] {
        let pool = self.pool(step, item);
        self.draw_documents(&pool, &mut rng(seed, Purpose::Documents, step, item)).0
    }

    /// Draws an item. Without any key the documents never share a fact on purpose.
    pub fn sample(&self, seed: u64, step: u64, item: u64) -> PretrainItem {
        let stream = |purpose| rng(seed, purpose, step, item);
        let settings = &self.settings;
        let pool = self.pool(step, item);
        let (rows, facts) = self.draw_documents(&pool, &mut stream(Purpose::Documents));
        let sides = rows.map(|row| Side::new(self.corpus.document(row), settings));
        let documents = [sides[0].document.as_ref(), sides[1].document.as_ref()];
        let mut drawn =
            PretrainItem { rows, same_fact: facts.is_some(), ..PretrainItem::default() };
        let mut blanking = stream(Purpose::Blanking);
        drawn.choices = documents
            .map(|document| draw_blanked(&mut blanking, document, settings.blank_probability));
        if settings.tasks.contains(&Task::MenMat) {
            let mut stream = stream(Purpose::MentionMatching);
            for (side, document) in documents.into_iter().enumerate() {
                drawn.choices[side].masked = draw_masked(&mut stream, document, settings);
                drawn.mention[side] =
                    mention_instances(&mut stream, document, &drawn.choices[side], settings);
            }
        }
        if settings.tasks.contains(&Task::XMenMat) {
            drawn.cross_mention = cross_mention_instances(
                &mut stream(Purpose::CrossMentionMatching),
                documents,
                &drawn.choices,
                settings,
            );
        }
        self.draw_pairs(&mut drawn, &sides, facts, stream);
        drawn
    }

    /// Draws the instances about pairs.
    fn draw_pairs(
        &self,
        drawn: &mut PretrainItem,
        sides: &[Side; 2],
        facts: Option<[FactInstance; 2]>,
        stream: impl Fn(Purpose) -> Stream,
    ) {
        let settings = &self.settings;
        if settings.tasks.contains(&Task::RelDet) {
            let mut stream = stream(Purpose::Detection);
            drawn.detection =
                [0, 1].map(|side: usize| detection_instances(&mut stream, &sides[side], settings));
        }
        if settings.tasks.contains(&Task::XRelDet) {
            drawn.cross_detection =
                cross_detection_instances(&mut stream(Purpose::CrossDetection), sides, settings);
        }
        if let (true, Some(facts)) = (settings.tasks.contains(&Task::RelAlign), facts) {
            drawn.alignment =
                alignment_instances(&mut stream(Purpose::Alignment), &facts, sides, settings);
        }
        if settings.tasks.contains(&Task::IntraAlign) {
            let mut stream = stream(Purpose::IntraAlignment);
            drawn.intra_alignment = [0, 1]
                .map(|side: usize| intra_alignment_instance(&mut stream, &sides[side], settings));
        }
    }

    /// Two documents that share a fact (a key uniformly, whatever its number of instances), or two
    /// different ones at random.
    fn draw_documents(
        &self,
        pool: &Pool,
        stream: &mut Stream,
    ) -> ([usize; 2], Option<[FactInstance; 2]>) {
        let same_fact = stream.random_bool(self.settings.same_fact_ratio);
        let keys = pool.num_keys();
        if same_fact && keys > 0 {
            let key = stream.random_range(0..keys);
            if let Some(facts) = draw_two(stream, pool.instances(key)) {
                return (facts.map(|fact| fact.row as usize), Some(facts));
            }
        }
        let rows = &pool.rows;
        let first = stream.random_range(0..rows.len());
        let second = (first + stream.random_range(1..rows.len())) % rows.len();
        ([first, second].map(|index| rows[index] as usize), None)
    }
}

/// An instance, and one of those in other documents.
fn draw_two(stream: &mut Stream, instances: &[FactInstance]) -> Option<[FactInstance; 2]> {
    const TRIES: usize = 16;
    let first = pick(stream, instances)?;
    for _ in 0..TRIES {
        let second = pick(stream, instances)?;
        if second.row != first.row {
            return Some([first, second]);
        }
    }
    let others: Vec<_> = instances.iter().copied().filter(|other| other.row != first.row).collect();
    Some([first, pick(stream, &others)?])
}

/// Refuses a corpus without a pair of documents.
fn enough(documents: usize, settings: &DsdocreSettings) -> Result<()> {
    if documents >= 2 {
        return Ok(());
    }
    let least = settings.min_entities;
    let problem =
        format!("{documents} documents have {least} entities and a label; pairs need two");
    Err(DataError::new("shards", problem).hint("add documents or lower `min_entities`").into())
}

#[cfg(test)]
mod tests;
