//! The label ledger: one Parquet row a distant label, with what the ranker made of it, so that
//! denoised labels can be used elsewhere.
//!
//! Not for: a single document in words (`why`), or choosing what is trained on (`sampling`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{BooleanBuilder, Float32Builder, StringBuilder, UInt32Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;

use crate::Result;
use crate::base::run_files;
use crate::corpus::synth::Truth;
use crate::report::RelationLabels;
use crate::shards::{DocumentStore, FactIndex, FactInstance, WholeTable};
use crate::systems::dsdocre::DsdocreSettings;
use crate::text::{TokenizedDocument, TokenizedEntity, TokenizedFact};

/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 17;
/// Name of the ledger in a run folder.
pub const FILE: &str = run_files::LABELS;

/// What a ledger is made of.
#[derive(Debug)]
pub struct LedgerSource<'a> {
    /// The documents, scored by the ranker or not.
    pub store: &'a DocumentStore,
    /// Which pairs and documents pre-training takes.
    pub settings: &'a DsdocreSettings,
    /// Which labels are true, in a generated world.
    pub truth: Option<&'a Truth>,
}

/// What a ledger holds: relations that have labels, the least kept share first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Labels, and so rows.
    pub labels: usize,
    /// Those that pre-training keeps.
    pub kept: usize,
    /// By relation.
    pub relations: Vec<RelationLabels>,
}

/// Writes a row for every label of every document, in their order, and counts them.
///
/// # Errors
/// A damaged fact index; the disk, and then there is no new file.
pub fn write_ledger(source: &LedgerSource, output: &Path) -> Result<Ledger> {
    let store = source.store;
    let documents = stated_in(store)?;
    let mut rows =
        Rows { table: WholeTable::create(output, schema())?, columns: Columns::default() };
    let relations = store.relations().iter();
    let named = relations.map(|relation| RelationLabels {
        relation: relation.id.clone(),
        name: relation.name.clone(),
        ..Default::default()
    });
    let mut counts: Vec<RelationLabels> = named.collect();
    for row in 0..store.len() {
        let document = store.get(row);
        let places = places(&document);
        for (number, fact) in document.facts.iter().enumerate() {
            let instance = FactInstance {
                row: row as u32,
                head: fact.head,
                tail: fact.tail,
                relation: fact.relation,
            };
            let label = Label {
                row: row as u32,
                place: places.as_ref().map(|places| places.get(&(fact.head, fact.tail)).copied()),
                truth: source.truth.and_then(|truth| truth.of(&document.title, number)),
                documents: documents
                    .as_ref()
                    .map(|documents| documents.get(&instance).copied().unwrap_or(1)),
                document: &document,
                fact,
            };
            let reason = label.reason(source.settings);
            count(&mut counts[fact.relation as usize], reason.is_none(), label.truth);
            rows.push(&label, reason, &counts[fact.relation as usize])?;
        }
    }
    rows.finish()?;
    let mut relations: Vec<RelationLabels> =
        counts.into_iter().filter(|relation| relation.labels > 0).collect();
    relations.sort_by(|a, b| a.share().total_cmp(&b.share()).then(b.labels.cmp(&a.labels)));
    let total = |of: fn(&RelationLabels) -> usize| relations.iter().map(of).sum();
    Ok(Ledger {
        labels: total(|relation| relation.labels),
        kept: total(|relation| relation.kept),
        relations,
    })
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.relations.iter().any(|relation| relation.truths.is_some());
        write!(f, "{} labels, of which pre-training keeps {}", self.labels, self.kept)?;
        write!(f, "\n{:>9}{:>9}{:>8}", "labels", "kept", "%")?;
        if known {
            write!(f, "{:>8}{:>12}", "true %", "kept true %")?;
        }
        for relation in &self.relations {
            let RelationLabels { relation: id, name, labels, kept, truths, kept_true } = relation;
            write!(f, "\n{labels:>9}{kept:>9}{:>8.1}", 100.0 * relation.share())?;
            if known {
                let share = |count: Option<usize>, of: usize| {
                    100.0 * count.unwrap_or(0) as f64 / of.max(1) as f64
                };
                write!(f, "{:>8.1}{:>12.1}", share(*truths, *labels), share(*kept_true, *kept))?;
            }
            write!(f, "  {id} {name}")?;
        }
        Ok(())
    }
}

/// How many documents state each fact that the index holds; `None` without an index. A fact that is
/// not in it stands in one document.
fn stated_in(store: &DocumentStore) -> Result<Option<HashMap<FactInstance, u32>>> {
    if store.manifest().fact_index.is_none() {
        return Ok(None);
    }
    let index: FactIndex = store.fact_index()?;
    let mut documents = HashMap::new();
    for instances in (0..index.num_keys()).map(|key| index.instances(key)) {
        let count = instances.chunk_by(|a, b| a.row == b.row).count() as u32;
        for &instance in instances {
            let most = documents.entry(instance).or_insert(count);
            *most = count.max(*most);
        }
    }
    Ok(Some(documents))
}

/// Place among the ranked pairs, from 0, and score; `None` for a document that was not ranked.
fn places(document: &TokenizedDocument) -> Option<HashMap<(u32, u32), (usize, f32)>> {
    let ranked = document.kept.as_ref()?;
    Some(
        ranked
            .iter()
            .enumerate()
            .map(|(place, pair)| ((pair.head, pair.tail), (place, pair.score)))
            .collect(),
    )
}

/// One label with what is known of it.
struct Label<'a> {
    row: u32,
    document: &'a TokenizedDocument,
    fact: &'a TokenizedFact,
    /// Place and score of its pair, where that is on disk; `None` for a document that was not
    /// ranked.
    place: Option<Option<(usize, f32)>>,
    truth: Option<bool>,
    documents: Option<u32>,
}

impl Label<'_> {
    /// Why pre-training leaves the label out, if it does.
    fn reason(&self, settings: &DsdocreSettings) -> Option<&'static str> {
        if self.document.entities.len() < settings.min_entities {
            return Some("entities");
        }
        let limit = settings.pretrain_limit()?;
        let outranked = self.place?.is_none_or(|(place, _)| place >= limit);
        outranked.then_some("rank")
    }

    fn entity(&self, number: u32) -> &TokenizedEntity {
        &self.document.entities[number as usize]
    }

    /// Number of sentences that name both entities.
    fn sentences(&self) -> u32 {
        let of = |number| {
            self.entity(number)
                .mentions
                .iter()
                .map(|mention| mention.sentence)
                .collect::<BTreeSet<u32>>()
        };
        of(self.fact.head).intersection(&of(self.fact.tail)).count() as u32
    }
}

/// Counts one more label.
fn count(relation: &mut RelationLabels, kept: bool, truth: Option<bool>) {
    relation.labels += 1;
    relation.kept += usize::from(kept);
    if let Some(truth) = truth {
        *relation.truths.get_or_insert(0) += usize::from(truth);
        *relation.kept_true.get_or_insert(0) += usize::from(truth && kept);
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, false);
    let maybe = |name: &str, kind: DataType| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("title", DataType::Utf8),
        field("row", DataType::UInt32),
        field("head", DataType::UInt32),
        field("tail", DataType::UInt32),
        field("head_name", DataType::Utf8),
        field("head_type", DataType::Utf8),
        field("tail_name", DataType::Utf8),
        field("tail_type", DataType::Utf8),
        field("relation", DataType::Utf8),
        field("relation_name", DataType::Utf8),
        maybe("rank", DataType::UInt32),
        maybe("score", DataType::Float32),
        field("kept", DataType::Boolean),
        maybe("reason", DataType::Utf8),
        field("sentences", DataType::UInt32),
        maybe("documents", DataType::UInt32),
        maybe("true", DataType::Boolean),
    ]))
}

/// Columns of the row group that is being filled, in the order of [`schema`].
#[derive(Default)]
struct Columns {
    title: StringBuilder,
    row: UInt32Builder,
    head: UInt32Builder,
    tail: UInt32Builder,
    head_name: StringBuilder,
    head_type: StringBuilder,
    tail_name: StringBuilder,
    tail_type: StringBuilder,
    relation: StringBuilder,
    relation_name: StringBuilder,
    rank: UInt32Builder,
    score: Float32Builder,
    kept: BooleanBuilder,
    reason: StringBuilder,
    sentences: UInt32Builder,
    documents: UInt32Builder,
    truth: BooleanBuilder,
    rows: usize,
}

struct Rows {
    table: WholeTable,
    columns: Columns,
}

impl Rows {
    fn push(
        &mut self,
        label: &Label,
        reason: Option<&str>,
        relation: &RelationLabels,
    ) -> Result<()> {
        let name = |entity: &TokenizedEntity| {
            entity.mentions.first().map_or_else(String::new, |mention| mention.name.clone())
        };
        let (head, tail) = (label.entity(label.fact.head), label.entity(label.fact.tail));
        let place = label.place.flatten();
        let columns = &mut self.columns;
        columns.title.append_value(&label.document.title);
        columns.row.append_value(label.row);
        columns.head.append_value(label.fact.head);
        columns.tail.append_value(label.fact.tail);
        columns.head_name.append_value(name(head));
        columns.head_type.append_value(&head.entity_type);
        columns.tail_name.append_value(name(tail));
        columns.tail_type.append_value(&tail.entity_type);
        columns.relation.append_value(&relation.relation);
        columns.relation_name.append_value(&relation.name);
        columns.rank.append_option(place.map(|(place, _)| place as u32 + 1));
        columns.score.append_option(place.map(|(_, score)| score));
        columns.kept.append_value(reason.is_none());
        columns.reason.append_option(reason);
        columns.sentences.append_value(label.sentences());
        columns.documents.append_option(label.documents);
        columns.truth.append_option(label.truth);
        columns.rows += 1;
        if columns.rows < GROUP_ROWS { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        let mut columns = std::mem::take(&mut self.columns);
        self.table.write_group(vec![
            Arc::new(columns.title.finish()),
            Arc::new(columns.row.finish()),
            Arc::new(columns.head.finish()),
            Arc::new(columns.tail.finish()),
            Arc::new(columns.head_name.finish()),
            Arc::new(columns.head_type.finish()),
            Arc::new(columns.tail_name.finish()),
            Arc::new(columns.tail_type.finish()),
            Arc::new(columns.relation.finish()),
            Arc::new(columns.relation_name.finish()),
            Arc::new(columns.rank.finish()),
            Arc::new(columns.score.finish()),
            Arc::new(columns.kept.finish()),
            Arc::new(columns.reason.finish()),
            Arc::new(columns.sentences.finish()),
            Arc::new(columns.documents.finish()),
            Arc::new(columns.truth.finish()),
        ])
    }

    fn finish(mut self) -> Result<()> {
        if self.columns.rows > 0 {
            self.flush()?;
        }
        self.table.finish()
    }
}
