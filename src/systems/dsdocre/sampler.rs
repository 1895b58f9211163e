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
use super::settings::{DsdocreSettings, Task};
use crate::sampling::{Pair, Purpose, Stream, draw_blanked, kept_prefix, pick, rng};
use crate::shards::{DocumentStore, FactInstance};
use crate::systems::SystemSettings;
use crate::text::{TokenizedDocument, ViewChoices};
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
    /// Fact keys with good instances in two documents or more.
    pub keys: usize,
    /// Good instances of these keys.
    pub instances: usize,
}

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

impl fmt::Display for PretrainSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { documents, unranked, keys, instances } = self;
        write!(f, "{documents} documents")?;
        if *unranked > 0 {
            write!(f, " ({unranked} of them annotated: all labels count)")?;
        }
        write!(f, ", {keys} facts in two or more of them, {instances} instances")
    }
}

/// Draws pre-training items. What it holds is fixed by the corpus, the keys and the settings; an
/// item is a pure function of it and (seed, step, item).
pub struct PretrainSampler<'c> {
    corpus: &'c dyn Documents,
    /// What is drawn, and how.
    pub settings: DsdocreSettings,
    /// Rows of the documents that pass the filter.
    rows: Vec<u32>,
    /// How many of them no ranker has seen.
    unranked: usize,
    /// First instance of each retained key, closed by the number of instances. [keys + 1]
    key_offsets: Vec<usize>,
    /// Good instances by key.
    instances: Vec<FactInstance>,
}

impl<'c> PretrainSampler<'c> {
    /// Filters documents and fact keys: a document needs enough entities and at least one distant
    /// label; an instance must be a good label of such a document; a key needs good instances in
    /// two different documents.
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
        // One pass over the documents: which are used, and which of their pairs the ranker kept.
        let kept: Vec<Option<KeptSet>> =
            (0..corpus.count()).map(|row| KeptSet::of(&corpus.document(row), &settings)).collect();
        let rows: Vec<u32> =
            (0..).zip(&kept).filter(|(_, kept)| kept.is_some()).map(|(row, _)| row).collect();
        if rows.len() < 2 {
            let problem = format!(
                "{} documents have {} entities and a label; pairs need two",
                rows.len(),
                settings.min_entities
            );
            return Err(DataError::new("shards", problem)
                .hint("add documents or lower `min_entities`")
                .into());
        }
        let unranked = kept.iter().flatten().filter(|kept| kept.0.is_none()).count();
        let mut sampler =
            Self { corpus, settings, rows, unranked, key_offsets: vec![0], instances: Vec::new() };
        for instances in keys {
            sampler.add_key(instances.as_ref(), &kept);
        }
        Ok(sampler)
    }

    fn add_key(&mut self, instances: &[FactInstance], kept: &[Option<KeptSet>]) {
        let start = self.instances.len();
        for instance in instances {
            let document = kept.get(instance.row as usize).and_then(Option::as_ref);
            if document.is_some_and(|kept| kept.holds((instance.head, instance.tail))) {
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

    /// Numbers for the log.
    pub fn summary(&self) -> PretrainSummary {
        let (documents, keys, instances) =
            (self.rows.len(), self.key_offsets.len() - 1, self.instances.len());
        let unranked = self.settings.k_pretrain().map_or(0, |_| self.unranked);
        PretrainSummary { documents, unranked, keys, instances }
    }

    /// The documents of an item: [`PretrainItem::rows`] of what [`Self::sample`] draws, without
    /// drawing the rest.
    pub fn rows(&self, seed: u64, step: u64, item: u64) -> [usize; 2] {
        self.draw_documents(&mut rng(seed, Purpose::Documents, step, item)).0
    }

    /// Draws an item. Without any key the documents never share a fact on purpose.
    pub fn sample(&self, seed: u64, step: u64, item: u64) -> PretrainItem {
        let stream = |purpose| rng(seed, purpose, step, item);
        let settings = &self.settings;
        let (rows, facts) = self.draw_documents(&mut stream(Purpose::Documents));
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
    fn draw_documents(&self, stream: &mut Stream) -> ([usize; 2], Option<[FactInstance; 2]>) {
        let same_fact = stream.random_bool(self.settings.same_fact_ratio);
        let keys = self.key_offsets.len() - 1;
        if same_fact && keys > 0 {
            let key = stream.random_range(0..keys);
            let instances = &self.instances[self.key_offsets[key]..self.key_offsets[key + 1]];
            if let Some(facts) = draw_two(stream, instances) {
                return (facts.map(|fact| fact.row as usize), Some(facts));
            }
        }
        let first = stream.random_range(0..self.rows.len());
        let second = (first + stream.random_range(1..self.rows.len())) % self.rows.len();
        ([first, second].map(|index| self.rows[index] as usize), None)
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

/// The pairs of a usable document that the ranker kept, sorted; `None` inside where there is no
/// ranker and every pair counts.
struct KeptSet(Option<Vec<Pair>>);

impl KeptSet {
    /// `None` for a document with too few entities or without any label.
    fn of(document: &TokenizedDocument, settings: &DsdocreSettings) -> Option<Self> {
        if document.entities.len() < settings.min_entities || document.facts.is_empty() {
            return None;
        }
        let kept = kept_prefix(document, settings.k_pretrain().unwrap_or(usize::MAX));
        let mut kept = kept.map(Iterator::collect::<Vec<Pair>>);
        kept.iter_mut().for_each(|pairs| pairs.sort_unstable());
        Some(Self(kept))
    }

    fn holds(&self, pair: Pair) -> bool {
        self.0.as_ref().is_none_or(|pairs| pairs.binary_search(&pair).is_ok())
    }
}

#[cfg(test)]
mod tests;
