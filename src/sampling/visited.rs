//! The rows of a store that a stage visits epoch by epoch, in the windows that the store can hold.
//!
//! Not for: the order itself (`order`, `windows`).

use super::order::{BatchItem, BatchOrder};
use super::row_set::RowSet;
use super::windows::Windows;
use crate::shards::DocumentStore;

/// Rows of a store.
#[derive(Debug)]
pub struct VisitedRows<'a> {
    store: &'a DocumentStore,
    rows: RowSet,
}

impl<'a> VisitedRows<'a> {
    /// The rows of a store that are visited.
    pub fn choose(store: &'a DocumentStore, visited: impl FnMut(usize) -> bool) -> Self {
        Self { rows: RowSet::of(store.len(), visited), store }
    }

    /// The rows.
    pub fn rows(&self) -> &RowSet {
        &self.rows
    }

    /// How they lie in the blocks of the store.
    pub fn windows(&self) -> Windows {
        let starts = self.store.block_starts().iter();
        let starts = starts.map(|&start| self.rows.before(start) as u64).collect();
        Windows::new(starts, self.store.window_blocks())
    }

    /// Tells the store what is needed after the items of a step, which are those of `source`.
    pub fn read_ahead(&self, order: &BatchOrder, source: usize, items: &[BatchItem]) {
        let last = items.iter().rev().find(|item| item.source == source);
        let Some(&BatchItem { pass, window, .. }) = last else { return };
        // No two windows of a run share a number.
        let key = pass * order.windows(source).len() as u64 + window as u64;
        self.store.read_ahead(key, || order.blocks_from(source, pass, window));
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use super::*;
    use crate::base::give_back_memory;
    use crate::sampling::SourceVisits;
    use crate::shards::testing::{largest_block, written};
    use crate::shards::{StoreOptions, WriteOptions};
    use crate::text::{TokenizedDocument, TokenizedEntity, TokenizedFact, TokenizedMention};

    /// Documents of the generated corpus; `DOCRE_STREAM_DOCUMENTS=1000000` for a long test.
    fn count() -> usize {
        let set = std::env::var("DOCRE_STREAM_DOCUMENTS").ok();
        set.map_or(6_000, |number| number.parse().unwrap())
    }

    /// A small document; one in three has no fact.
    fn document(row: usize) -> TokenizedDocument {
        let entity = |number: u32| TokenizedEntity {
            entity_type: "PER".into(),
            mentions: vec![TokenizedMention {
                name: format!("{}", row as u32 / 7 + number),
                sentence: 0,
                start: number,
                end: number + 1,
                own_type: None,
            }],
        };
        let fact = TokenizedFact { head: 0, tail: 1, relation: 0, evidence: vec![] };
        TokenizedDocument {
            title: format!("document {row}"),
            pieces: (0..40).map(|piece| (row as u32 * 31 + piece) % 997).collect(),
            word_starts: (0..=40).collect(),
            sentence_starts: vec![0, 40],
            entities: (0..4).map(entity).collect(),
            facts: if row.is_multiple_of(3) { vec![] } else { vec![fact] },
            labelled: true,
            ..TokenizedDocument::default()
        }
    }

    fn corpus(folder: &Path, count: usize) -> PathBuf {
        let write = WriteOptions { rows_per_shard: 4_096, row_group_rows: 256 };
        written(folder, write, (0..count).map(document))
    }

    /// Kilobytes of this process that the kernel cannot take back.
    fn resident_kb() -> u64 {
        let status = fs_err::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The titles of an epoch, by step, as ranks read their shares of it.
    fn epoch(visited: &VisitedRows, order: &BatchOrder, epoch: u64, world: usize) -> Vec<String> {
        let steps = order.steps_per_epoch();
        let mut titles = Vec::new();
        for step in epoch * steps..(epoch + 1) * steps {
            let items = order.items(step);
            visited.read_ahead(order, 0, &items);
            let mut own = vec![String::new(); items.len()];
            for rank in 0..world {
                for item in (rank..items.len()).step_by(world) {
                    own[item] = visited.store.get(visited.rows.nth(items[item].row)).title.clone();
                }
            }
            titles.extend(own);
        }
        titles
    }

    fn order_of(visited: &VisitedRows) -> BatchOrder {
        let documents = visited.rows().len() as u64;
        let visits = SourceVisits { documents, visits: documents };
        BatchOrder::in_windows(&[visits], vec![visited.windows()], 7, 32).unwrap()
    }

    /// Prints, for docs/experiments.md, how long an epoch takes from memory and from windows.
    #[test]
    fn an_epoch_of_more_documents_than_fit_visits_each_once_in_bounded_memory() {
        let temp = tempfile::tempdir().unwrap();
        let folder = corpus(temp.path(), count());
        let visited = |store| VisitedRows::choose(store, |row| !store.get(row).facts.is_empty());
        let block = largest_block(&folder);
        // A window of a tenth of the blocks, and as many that are read ahead.
        let blocks = count().div_ceil(256) as u64;
        let memory = (blocks / 5).max(4) * block;
        give_back_memory();
        let before = resident_kb();
        let options = StoreOptions { memory, ..StoreOptions::default() };
        let store = DocumentStore::open(&folder, options).unwrap();
        assert!(!store.is_held());
        let streamed = visited(&store);
        let order = order_of(&streamed);
        assert!(order.windows(0).len() >= 10, "{} windows", order.windows(0).len());
        let (documents, reads) = (streamed.rows().len(), || store.peak_and_reads().unwrap().1);
        let (opened, started) = (reads(), Instant::now());
        let titles = epoch(&streamed, &order, 0, 1);
        let seconds = started.elapsed().as_secs_f64();
        // Each block once, and the window that was read ahead of the next epoch.
        let window = store.window_blocks() as u64;
        assert!(reads() - opened <= blocks + 2 * window, "{} of {blocks}", reads() - opened);
        let (peak, grown) =
            (store.peak_and_reads().unwrap().0, resident_kb().saturating_sub(before));
        assert!(peak <= memory, "{peak} of {memory} bytes");
        if std::env::var_os("DOCRE_STREAM_DOCUMENTS").is_some() {
            // Nothing else runs then. An eighth may be free, threads decode a block each, and the
            // titles below take 80 bytes each.
            let most = memory * 9 / 8 / 1000 + documents as u64 * 80 / 1000 + 60_000;
            assert!(grown < most, "grew by {grown} KB, {most} KB are allowed");
        }
        eprintln!(
            "{documents} documents in {seconds:.2} s from windows of {window} blocks; {} MB of \
             {} MB; the process grew by {} MB",
            memory / 1_000_000,
            store.whole_bytes() / 1_000_000,
            grown / 1000
        );
        let mut sorted = titles.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((sorted.len(), titles.len()), (documents, documents));
        assert_ne!(epoch(&streamed, &order, 1, 1), titles);
    }

    #[test]
    fn any_number_of_ranks_reads_the_same_documents_and_a_window_can_be_entered_anywhere() {
        let temp = tempfile::tempdir().unwrap();
        let folder = corpus(temp.path(), 3_000);
        let memory = 4 * largest_block(&folder);
        let open = || {
            let options = StoreOptions { memory, ..StoreOptions::default() };
            DocumentStore::open(&folder, options).unwrap()
        };
        let store = open();
        let visited = VisitedRows::choose(&store, |row| row % 3 > 0);
        let order = order_of(&visited);
        assert!(order.windows(0).len() > 4);
        let one = epoch(&visited, &order, 1, 1);
        for world in [2, 4] {
            assert_eq!(epoch(&visited, &order, 1, world), one, "{world} ranks");
        }
        // Another process begins in the middle of the second epoch.
        let store = open();
        let visited = VisitedRows::choose(&store, |row| row % 3 > 0);
        let order = order_of(&visited);
        let steps = order.steps_per_epoch();
        let mut place = 0;
        for step in steps..2 * steps {
            let items = order.items(step);
            if [17, 18, 40].contains(&(step - steps)) {
                let title = |row| store.title(visited.rows().nth(row));
                let own: Vec<String> = items.iter().map(|item| title(item.row)).collect();
                assert_eq!(own, one[place..place + items.len()], "step {step}");
            }
            place += items.len();
        }
    }
}
