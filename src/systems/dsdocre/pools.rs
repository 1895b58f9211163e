//! What pre-training items are drawn from: the usable documents and the good instances of facts, of
//! all documents or of a window of blocks.
//!
//! Not for: drawing (`sampler`).

use std::sync::{Arc, Mutex};

use super::settings::DsdocreSettings;
use crate::DataError;
use crate::base::{hash_number, lock, raise};
use crate::sampling::{Pair, VisitedRows, WindowPass, Windows, kept_prefix};
use crate::shards::{DocumentStore, FactInstance};
use crate::text::TokenizedDocument;

/// Random access to the documents of a corpus.
pub trait Documents: Sync {
    /// Number of documents.
    fn count(&self) -> usize;
    /// The document of a row below [`Self::count`].
    fn document(&self, row: usize) -> Arc<TokenizedDocument>;
}

impl Documents for DocumentStore {
    fn count(&self) -> usize {
        self.len()
    }
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        self.get(row)
    }
}

impl Documents for Vec<TokenizedDocument> {
    fn count(&self) -> usize {
        self.len()
    }
    fn document(&self, row: usize) -> Arc<TokenizedDocument> {
        Arc::new(self[row].clone())
    }
}

/// The documents and facts that items are drawn from.
#[derive(Debug)]
pub(super) struct Pool {
    /// Rows of the documents that pass the filter.
    pub(super) rows: Vec<u32>,
    /// How many of them no ranker has seen.
    pub(super) unranked: usize,
    /// First instance of each retained key, closed by the number of instances. [keys + 1]
    key_offsets: Vec<usize>,
    /// Good instances by key.
    instances: Vec<FactInstance>,
}

impl Pool {
    /// Filters rows, which rise, and keys.
    pub(super) fn new(
        corpus: &dyn Documents,
        rows: impl IntoIterator<Item = usize>,
        keys: impl IntoIterator<Item = impl AsRef<[FactInstance]>>,
        settings: &DsdocreSettings,
    ) -> Self {
        // One pass over the documents: which are used, and which of their pairs the ranker kept.
        let usable = |row| Some((row as u32, KeptSet::of(&corpus.document(row), settings)?));
        let kept: Vec<(u32, KeptSet)> = rows.into_iter().filter_map(usable).collect();
        let mut pool = Self {
            rows: kept.iter().map(|&(row, _)| row).collect(),
            unranked: kept.iter().filter(|(_, kept)| kept.is_unranked()).count(),
            key_offsets: vec![0],
            instances: Vec::new(),
        };
        for instances in keys {
            pool.add_key(instances.as_ref(), &kept);
        }
        pool
    }

    fn add_key(&mut self, instances: &[FactInstance], kept: &[(u32, KeptSet)]) {
        let start = self.instances.len();
        for instance in instances {
            let place = kept.binary_search_by_key(&instance.row, |&(row, _)| row);
            if place.is_ok_and(|place| kept[place].1.holds(instance)) {
                self.instances.push(*instance);
            }
        }
        let good = &self.instances[start..];
        if good.iter().any(|instance| instance.row != good[0].row) {
            self.key_offsets.push(self.instances.len());
        } else {
            self.instances.truncate(start);
        }
    }

    /// Number of keys.
    pub(super) fn num_keys(&self) -> usize {
        self.key_offsets.len() - 1
    }

    /// Number of instances of all keys.
    pub(super) fn num_instances(&self) -> usize {
        self.instances.len()
    }

    /// The good instances of a key.
    pub(super) fn instances(&self, key: usize) -> &[FactInstance] {
        &self.instances[self.key_offsets[key]..self.key_offsets[key + 1]]
    }
}

/// The good labels of a usable document.
pub(super) struct KeptSet {
    /// The pairs that the ranker kept, sorted; `None` where there is no ranker and every pair
    /// counts.
    pairs: Option<Vec<Pair>>,
    /// The labels, sorted.
    labels: Vec<(u32, u32, u32)>,
}

impl KeptSet {
    /// `None` for a document with too few entities or without any label.
    pub(super) fn of(document: &TokenizedDocument, settings: &DsdocreSettings) -> Option<Self> {
        if document.entities.len() < settings.min_entities || document.facts.is_empty() {
            return None;
        }
        let kept = kept_prefix(document, settings.k_pretrain().unwrap_or(usize::MAX));
        let mut pairs = kept.map(Iterator::collect::<Vec<Pair>>);
        pairs.iter_mut().for_each(|pairs| pairs.sort_unstable());
        let labels = document.facts.iter().map(|fact| (fact.head, fact.tail, fact.relation));
        let mut labels: Vec<_> = labels.collect();
        labels.sort_unstable();
        Some(Self { pairs, labels })
    }

    /// Whether no ranker has seen the document.
    pub(super) fn is_unranked(&self) -> bool {
        self.pairs.is_none()
    }

    /// Whether an instance of the fact index is a good label. The index knows labels that a rule
    /// has dropped since.
    fn holds(&self, instance: &FactInstance) -> bool {
        let FactInstance { head, tail, relation, .. } = *instance;
        self.labels.binary_search(&(head, tail, relation)).is_ok()
            && self.pairs.as_ref().is_none_or(|pairs| pairs.binary_search(&(head, tail)).is_ok())
    }
}

/// One pool, or one a window.
pub(super) enum Pools<'c> {
    /// All documents.
    One(Arc<Pool>),
    /// Those in memory.
    Windows(Box<WindowPools<'c>>),
}

impl Pools<'_> {
    /// What an item of a step is drawn from.
    pub(super) fn of(
        &self,
        corpus: &dyn Documents,
        settings: &DsdocreSettings,
        step: u64,
        item: u64,
    ) -> Arc<Pool> {
        match self {
            Self::One(pool) => Arc::clone(pool),
            Self::Windows(pools) => pools.of(corpus, settings, step, item),
        }
    }

    /// Number of windows.
    pub(super) fn windows(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Windows(pools) => pools.windows.len(),
        }
    }

    /// What tells the windows from others; 0 for one.
    pub(super) fn key(&self) -> u64 {
        let Self::Windows(pools) = self else { return 0 };
        let mut hasher = blake3::Hasher::new();
        for number in pools.windows.key() {
            hasher.update(&number.to_le_bytes());
        }
        // Small enough for every reader of JSON, and never 0.
        hash_number(&hasher.finalize()) >> 12 | 1
    }
}

/// The pools of windows of a store, made when they are needed.
pub(super) struct WindowPools<'c> {
    store: &'c DocumentStore,
    windows: Windows,
    seed: u64,
    batch: u64,
    recent: Mutex<RecentPools>,
}

/// A pass and a window of it.
type WindowPlace = (u64, usize);

/// What was used last.
#[derive(Default)]
struct RecentPools {
    pass: Option<(u64, WindowPass)>,
    /// Two at most: a step may begin in one window and end in the next.
    pools: Vec<(WindowPlace, Arc<Pool>)>,
}

impl<'c> WindowPools<'c> {
    /// Pools of the usable rows of a store.
    pub(super) fn new(
        store: &'c DocumentStore,
        usable: &VisitedRows,
        seed: u64,
        batch: usize,
    ) -> Self {
        let (windows, recent) = (usable.windows(), Mutex::default());
        Self { store, windows, seed, batch: batch as u64, recent }
    }

    /// An item stands for two documents of a pass over all of them.
    fn of(
        &self,
        corpus: &dyn Documents,
        settings: &DsdocreSettings,
        step: u64,
        item: u64,
    ) -> Arc<Pool> {
        let (place, documents) = (2 * (step * self.batch + item), self.windows.documents());
        let mut pass = place / documents;
        let mut recent = lock(&self.recent);
        let mut window = recent.pass(self, pass).window_at(place % documents);
        // A window without a pair of usable documents gives its items to the next.
        for _ in 0..=2 * self.windows.len() {
            let pool = recent.pool((pass, window), || self.pool(corpus, settings, pass, window));
            if pool.rows.len() >= 2 {
                return pool;
            }
            window = (window + 1) % self.windows.len();
            pass += u64::from(window == 0);
        }
        let problem = "no window of documents that fits into memory holds two with a label";
        let error = DataError::new(self.store.folder(), problem);
        raise(error.hint("give more memory as data.memory").into())
    }

    fn pass(&self, pass: u64) -> WindowPass {
        self.windows.pass(self.seed, pass)
    }

    fn pool(
        &self,
        corpus: &dyn Documents,
        settings: &DsdocreSettings,
        pass: u64,
        window: usize,
    ) -> Pool {
        let blocks = self.pass(pass).blocks(window);
        let next = || match window + 1 {
            next if next < self.windows.len() => self.pass(pass).blocks(next),
            _ => self.pass(pass + 1).blocks(0),
        };
        let key = pass * self.windows.len() as u64 + window as u64;
        self.store.read_ahead(key, || blocks.iter().copied().chain(next()).collect());
        let starts = self.store.block_starts();
        let mut inside = vec![false; starts.len()];
        blocks.iter().for_each(|&block| inside[block] = true);
        let wanted = |row: u32| inside[self.store.block_of(row as usize)];
        let facts = self.store.facts_among(&wanted).unwrap_or_else(|error| raise(error));
        let rows = blocks.iter().flat_map(|&block| starts[block]..starts[block + 1]);
        let keys = (0..facts.num_keys()).map(|key| facts.instances(key));
        Pool::new(corpus, rows, keys, settings)
    }
}

impl RecentPools {
    fn pass(&mut self, pools: &WindowPools, pass: u64) -> &WindowPass {
        let own = match self.pass.take() {
            Some(own) if own.0 == pass => own,
            _ => (pass, pools.pass(pass)),
        };
        &self.pass.insert(own).1
    }

    fn pool(&mut self, place: WindowPlace, make: impl FnOnce() -> Pool) -> Arc<Pool> {
        if let Some((_, pool)) = self.pools.iter().find(|(own, _)| *own == place) {
            return Arc::clone(pool);
        }
        // Made room for first, so that three are never in memory.
        if self.pools.len() == 2 {
            self.pools.remove(0);
        }
        let pool = Arc::new(make());
        self.pools.push((place, Arc::clone(&pool)));
        pool
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sampling::testing::{assert_rate, assert_uniform};
    use crate::shards::testing::{document, largest_block, prepared_with, streamed};
    use crate::shards::{StoreOptions, WriteOptions};
    use crate::systems::dsdocre::PretrainSampler;

    const SEED: u64 = 3;
    const BATCH: usize = 5;

    /// Forty documents in ten blocks; one in five has no label. All state one fact, and neighbours
    /// another.
    fn shards(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let one = |row: usize| {
            let own = format!("City {}", row / 2);
            let facts: &[_] = if row % 5 == 4 { &[] } else { &[(0, 1, "P17"), (2, 1, "P17")] };
            document(&format!("{row}"), &[&["Paris"], &["France"], &[&own]], facts)
        };
        let documents: Vec<_> = (0..40).map(one).collect();
        let options = WriteOptions { rows_per_shard: 12, row_group_rows: 4 };
        let folder = prepared_with(temp.path(), name, &documents, options).0;
        (temp, folder)
    }

    fn settings() -> DsdocreSettings {
        DsdocreSettings { k_pretrain: 0, min_entities: 3, ..DsdocreSettings::default() }
    }

    fn windowed(store: &DocumentStore) -> PretrainSampler<'_> {
        PretrainSampler::in_windows(store, store, (SEED, BATCH), settings()).unwrap()
    }

    /// The blocks of the windows of a pass.
    fn windows(store: &DocumentStore, pass: u64) -> Vec<BTreeSet<usize>> {
        let usable = VisitedRows::choose(store, |row| row % 5 != 4);
        let windows = usable.windows();
        let order = windows.pass(SEED, pass);
        (0..windows.len()).map(|window| order.blocks(window).into_iter().collect()).collect()
    }

    #[test]
    fn both_documents_of_an_item_lie_in_the_window_of_its_place() {
        let (_temp, folder) = shards("shards");
        let store = streamed(&folder, 4);
        let sampler = windowed(&store);
        let summary = sampler.summary().to_string();
        assert!(summary.starts_with("32 documents, ") && summary.ends_with(" of 5 windows"));
        // 32 usable documents a pass are 16 items.
        let mut same = 0;
        for number in 0..160_u64 {
            let item = sampler.sample(SEED, number / BATCH as u64, number % BATCH as u64);
            assert_eq!(sampler.rows(SEED, number / 5, number % 5), item.rows);
            assert_ne!(item.rows[0], item.rows[1]);
            let (pass, place) = (number / 16, 2 * (number % 16));
            let mut before = 0;
            let usable = |blocks: &BTreeSet<usize>| {
                (0..40).filter(|&row| row % 5 != 4 && blocks.contains(&store.block_of(row))).count()
            };
            let own = windows(&store, pass).into_iter().find(|blocks| {
                before += usable(blocks) as u64;
                place < before
            });
            let own = own.unwrap();
            assert!(item.rows.iter().all(|&row| own.contains(&store.block_of(row))), "{number}");
            same += usize::from(item.same_fact);
        }
        assert_rate(same, 160, 0.6);
        let (peak, _) = store.peak_and_reads().unwrap();
        assert!(peak <= 4 * largest_block(&folder));
    }

    /// Any step can be asked for at any time, which is how a run is resumed in a window.
    #[test]
    fn an_item_does_not_depend_on_what_was_drawn_before() {
        let (_temp, folder) = shards("shards");
        let store = streamed(&folder, 5);
        let all: Vec<_> = {
            let sampler = windowed(&store);
            (0..30).map(|step| sampler.sample(SEED, step, 2)).collect()
        };
        for step in [29, 3, 17, 4, 0] {
            assert_eq!(windowed(&store).sample(SEED, step, 2), all[step as usize], "step {step}");
        }
        let (_temp, same) = shards("again");
        assert_eq!(windowed(&streamed(&same, 5)).sample(SEED, 7, 2), all[7]);
        assert_ne!(windowed(&store).windows_key(), windowed(&streamed(&folder, 7)).windows_key());
    }

    #[test]
    fn over_many_passes_every_document_is_drawn_equally_often() {
        let (_temp, folder) = shards("shards");
        let store = streamed(&folder, 4);
        let settings = DsdocreSettings { same_fact_ratio: 0.0, ..settings() };
        let sampler = PretrainSampler::in_windows(&store, &store, (SEED, BATCH), settings).unwrap();
        // By block: the blocks of a window have unequal numbers of usable documents.
        let mut counts = [0; 40];
        for number in 0..16_000_u64 {
            for row in sampler.rows(SEED, number / 5, number % 5) {
                counts[row] += 1;
            }
        }
        let used: Vec<u32> = counts.iter().copied().filter(|&count| count > 0).collect();
        assert_eq!(used.len(), 32);
        assert_uniform(&used);
    }

    #[test]
    fn where_all_documents_fit_a_window_is_all_of_them() {
        let (_temp, folder) = shards("shards");
        let store = DocumentStore::open(&folder, StoreOptions::default()).unwrap();
        let facts = store.fact_index().unwrap();
        let keys = (0..facts.num_keys()).map(|key| facts.instances(key));
        let plain = PretrainSampler::new(&store, keys, settings()).unwrap();
        let windowed = windowed(&store);
        assert_eq!(windowed.summary(), plain.summary());
        for step in 0..40 {
            assert_eq!(windowed.sample(SEED, step, 1), plain.sample(SEED, step, 1));
        }
    }
}
