//! Pre-training items: two documents, what is hidden in them, and the instances of all tasks
//! (docs/systems.md, D.9–D.18).
//!
//! Not for: the instances of each task, which have a file a task family ([`mentions`],
//! [`detection`], [`alignment`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alignment::{self, AlignmentInstance};
use super::detection::{self, CrossPairInstance, PairInstance};
use super::draw::pick;
use super::mentions::{self, EntityInstance, MentionInstance};
use super::pairs::distinct_pairs;
use super::{Corpus, FactKeys, Label, Pair, Purpose, Stream, UnlabelledPairs, good_labels, rng};
use crate::shards::FactInstance;
use crate::text::{TokenizedDocument, ViewChoices};
use crate::{DataError, Error, Result};

/// The tasks of pre-training.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Task {
    /// Mention-entity matching inside a document.
    MenMat,
    /// Mention-entity matching across documents.
    XMenMat,
    /// Relation detection inside a document.
    RelDet,
    /// Relation detection across documents.
    XRelDet,
    /// Relational fact alignment across documents.
    RelAlign,
    /// Alignment of two facts with the same relation inside a document; the release builds it and
    /// never uses it.
    IntraAlign,
}

/// Where negative pairs come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NegativePool {
    /// All pairs without a distant label, as in the release.
    #[default]
    All,
    /// Only those that the ranker kept, which is one reading of the paper.
    Kept,
}

/// Numbers of pre-training; the defaults are the release's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainSettings {
    /// The tasks to draw instances for.
    pub tasks: BTreeSet<Task>,
    /// Pairs kept of each document, best-ranked first (the paper: 20).
    pub keep: usize,
    /// Probability that the two documents share a fact.
    pub same_fact_ratio: f64,
    /// Probability that an entity is blanked.
    pub blank_probability: f64,
    /// Fewest entities of a document that is used.
    pub min_entities: usize,
    /// Masked mentions of each document.
    pub masked_mentions: usize,
    /// Candidates of mention-entity matching, the answer included.
    pub mention_candidates: usize,
    /// Candidates of matching across documents, the answer included.
    pub cross_mention_candidates: usize,
    /// Detection instances, of each document and across the two.
    pub detection_instances: usize,
    /// Candidates of detection, the related pair included.
    pub detection_candidates: usize,
    /// Candidates in each document of detection across documents, the related pair included.
    pub cross_detection_per_document: usize,
    /// Candidates of alignment that stand in another relation.
    pub alignment_hard: usize,
    /// Candidates of alignment that are unlabelled.
    pub alignment_random: usize,
    /// Where unlabelled pairs come from.
    pub negative_pool: NegativePool,
}

impl Default for PretrainSettings {
    fn default() -> Self {
        Self {
            tasks: BTreeSet::from([
                Task::MenMat,
                Task::XMenMat,
                Task::RelDet,
                Task::XRelDet,
                Task::RelAlign,
            ]),
            keep: 30,
            same_fact_ratio: 0.6,
            blank_probability: 0.2,
            min_entities: 5,
            masked_mentions: 3,
            mention_candidates: 5,
            cross_mention_candidates: 8,
            detection_instances: 3,
            detection_candidates: 8,
            cross_detection_per_document: 4,
            alignment_hard: 5,
            alignment_random: 8,
            negative_pool: NegativePool::All,
        }
    }
}

impl PretrainSettings {
    /// # Errors
    /// [`Error::Recipe`] for a probability outside [0, 1] or an instance without a wrong candidate.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [
            ("same_fact_ratio", self.same_fact_ratio),
            ("blank_probability", self.blank_probability),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::recipe(format!("`{key}` is {value}"))
                    .with_hint("a probability lies between 0 and 1"));
            }
        }
        let candidates = [
            ("mention_candidates", self.mention_candidates, 2),
            ("cross_mention_candidates", self.cross_mention_candidates, 2),
            ("detection_candidates", self.detection_candidates, 2),
            ("cross_detection_per_document", self.cross_detection_per_document, 1),
            ("alignment_random", self.alignment_random, 1),
        ];
        for (key, value, least) in candidates {
            if value < least {
                return Err(Error::recipe(format!("`{key}` is {value}"))
                    .with_hint(format!("it must be at least {least}")));
            }
        }
        Ok(())
    }

    fn has(&self, task: Task) -> bool {
        self.tasks.contains(&task)
    }
}

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
    /// Those of them that no ranker has seen: all their labels are good.
    pub unranked: usize,
    /// Fact keys with good instances in two documents or more.
    pub keys: usize,
    /// Good instances of these keys.
    pub instances: usize,
}

/// One document of an item, with its pairs.
pub(super) struct Side {
    pub(super) document: Arc<TokenizedDocument>,
    /// Good labels, sorted.
    pub(super) good: Vec<Label>,
    /// Their pairs, each once.
    pub(super) good_pairs: Vec<Pair>,
    pub(super) negatives: UnlabelledPairs,
}

impl Side {
    fn new(document: Arc<TokenizedDocument>, settings: &PretrainSettings) -> Self {
        let good = good_labels(&document, settings.keep);
        let negatives = match settings.negative_pool {
            NegativePool::All => UnlabelledPairs::new(&document),
            NegativePool::Kept => UnlabelledPairs::among_kept(&document, settings.keep),
        };
        Self { document, good_pairs: distinct_pairs(&good), good, negatives }
    }
}

/// Draws pre-training items. What it holds is fixed by the corpus, the keys and the settings; an
/// item is a pure function of it and (seed, step, item).
pub struct PretrainSampler<'c> {
    corpus: &'c dyn Corpus,
    settings: PretrainSettings,
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
    /// [`Error::Recipe`] for settings that cannot be used; [`Error::Data`] when fewer than two
    /// documents pass.
    pub fn new(
        corpus: &'c dyn Corpus,
        keys: &dyn FactKeys,
        settings: PretrainSettings,
    ) -> Result<Self> {
        settings.validate()?;
        // One pass over the documents: which are used, and which of their pairs the ranker kept.
        let kept: Vec<Option<KeptPairs>> =
            (0..corpus.len()).map(|row| KeptPairs::of(&corpus.document(row), &settings)).collect();
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
        for key in 0..keys.num_keys() {
            sampler.add_key(keys.instances(key), &kept);
        }
        Ok(sampler)
    }

    fn add_key(&mut self, instances: &[FactInstance], kept: &[Option<KeptPairs>]) {
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
        PretrainSummary { documents, unranked: self.unranked, keys, instances }
    }

    /// The settings.
    pub fn settings(&self) -> &PretrainSettings {
        &self.settings
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
        if settings.has(Task::MenMat) {
            let mut stream = stream(Purpose::MentionMatching);
            for (side, document) in documents.into_iter().enumerate() {
                drawn.choices[side].masked = mentions::draw_masked(&mut stream, document, settings);
                drawn.mention[side] =
                    mentions::instances(&mut stream, document, &drawn.choices[side], settings);
            }
        }
        if settings.has(Task::XMenMat) {
            drawn.cross_mention = mentions::cross_instances(
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
        if settings.has(Task::RelDet) {
            let mut stream = stream(Purpose::Detection);
            drawn.detection =
                [0, 1].map(|side: usize| detection::instances(&mut stream, &sides[side], settings));
        }
        if settings.has(Task::XRelDet) {
            drawn.cross_detection =
                detection::cross_instances(&mut stream(Purpose::CrossDetection), sides, settings);
        }
        if let (true, Some(facts)) = (settings.has(Task::RelAlign), facts) {
            drawn.alignment =
                alignment::instances(&mut stream(Purpose::Alignment), &facts, sides, settings);
        }
        if settings.has(Task::IntraAlign) {
            let mut stream = stream(Purpose::IntraAlignment);
            drawn.intra_alignment = [0, 1]
                .map(|side: usize| alignment::intra_instance(&mut stream, &sides[side], settings));
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
struct KeptPairs(Option<Vec<Pair>>);

impl KeptPairs {
    /// `None` for a document with too few entities or without any label.
    fn of(document: &TokenizedDocument, settings: &PretrainSettings) -> Option<Self> {
        let usable = document.entities.len() >= settings.min_entities && !document.facts.is_empty();
        let sorted = |pairs: &mut dyn Iterator<Item = Pair>| {
            let mut pairs: Vec<Pair> = pairs.collect();
            pairs.sort_unstable();
            pairs
        };
        usable.then(|| {
            Self(
                super::pairs::kept_prefix(document, settings.keep)
                    .map(|mut pairs| sorted(&mut pairs)),
            )
        })
    }

    fn holds(&self, pair: Pair) -> bool {
        self.0.as_ref().is_none_or(|pairs| pairs.binary_search(&pair).is_ok())
    }
}

pub(super) fn draw_blanked(
    stream: &mut Stream,
    document: &TokenizedDocument,
    probability: f64,
) -> ViewChoices {
    let blanked = document.entities.iter().map(|_| stream.random_bool(probability)).collect();
    ViewChoices { blanked, masked: Vec::new() }
}

#[cfg(test)]
mod tests;
