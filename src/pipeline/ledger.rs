//! The label ledger: one Parquet row a distant label, with what ranker, teacher and rules made of
//! it, so that denoised labels can be used elsewhere.
//!
//! Not for: a single document in words (`why`), or choosing what is trained on (`sampling`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, StringArray, UInt32Array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::Serialize;

use crate::Result;
use crate::corpus::Relation;
use crate::corpus::synth::Truth;
use crate::distant::{LabelDecision, LabelRules};
use crate::report::RelationLabels;
use crate::shards::{DocumentStore, FactInstance, WholeTable};
use crate::systems::dsdocre::DsdocreSettings;
use crate::text::{TaughtRelation, TokenizedDocument, TokenizedEntity, TokenizedFact};

/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 17;

/// What a ledger is made of.
#[derive(Debug)]
pub struct LedgerSource<'a> {
    /// The documents, scored by the ranker or not.
    pub store: &'a DocumentStore,
    /// Which pairs and documents pre-training takes.
    pub settings: &'a DsdocreSettings,
    /// What becomes of labels that a teacher has judged.
    pub rules: Option<&'a LabelRules>,
    /// Which labels are true, in a generated world.
    pub truth: Option<&'a Truth>,
}

/// What a ledger holds: relations that have labels, the least kept share first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Labels.
    pub labels: usize,
    /// Those that training keeps.
    pub kept: usize,
    /// Relations without a label that the rules add; rows like those of labels.
    pub added: usize,
    /// By relation.
    pub relations: Vec<RelationLabels>,
}

/// Writes a row for every label of every document, in their order, and for every relation that the
/// rules add to it, and counts them.
///
/// # Errors
/// If the fact index is damaged, or the file cannot be written; then no new file appears.
pub fn write_ledger(source: &LedgerSource, output: &Path) -> Result<Ledger> {
    let store = source.store;
    let mut stated = StatedFacts::default();
    let mut table = WholeTable::create(output, schema())?;
    let mut group = Vec::new();
    let named = store.relations().iter().map(|relation| RelationLabels {
        relation: relation.id.clone(),
        name: relation.name.clone(),
        ..Default::default()
    });
    let mut counts: Vec<RelationLabels> = named.collect();
    let mut added = 0;
    for row in 0..store.len() {
        stated.reach(store, row)?;
        let document = store.get(row);
        let places = places(&document);
        let judged = TaughtLabels::of(&document, source.rules);
        let labels = document.facts.iter().enumerate().map(|(number, fact)| (Some(number), fact));
        let more = judged.added();
        added += more.len();
        for (number, fact) in labels.chain(more.iter().map(|fact| (None, fact))) {
            let (pair, row) = ((fact.head, fact.tail), row as u32);
            let TokenizedFact { head, tail, relation, .. } = *fact;
            let instance = FactInstance { row, head, tail, relation };
            let place = places.as_ref().map(|places| places.get(&pair).copied());
            let decision = judged.decisions.get(&(head, tail, relation)).copied();
            let reason = left_out(&document, place, source.settings)
                .or_else(|| decision.and_then(LabelDecision::left_out));
            let truth = number
                .zip(source.truth)
                .and_then(|(number, truth)| truth.of(&document.title, number));
            if number.is_some() {
                count(&mut counts[relation as usize], reason.is_none(), truth);
            }
            group.push(LedgerRow {
                row,
                document: Arc::clone(&document),
                fact: fact.clone(),
                labelled: number.is_some(),
                relation: store.relations().get(relation as usize),
                place: place.flatten(),
                reason,
                probability: judged.probabilities.get(&(head, tail, relation)).copied(),
                decision,
                documents: stated.documents(instance),
                truth,
            });
        }
        if group.len() >= GROUP_ROWS || row + 1 == store.len() && !group.is_empty() {
            table.write_group(columns(&group).into_iter().map(|(_, column)| column).collect())?;
            group.clear();
        }
    }
    table.finish()?;
    let mut relations: Vec<RelationLabels> =
        counts.into_iter().filter(|relation| relation.labels > 0).collect();
    relations.sort_by(|a, b| a.share().total_cmp(&b.share()).then(b.labels.cmp(&a.labels)));
    let total = |of: fn(&RelationLabels) -> usize| relations.iter().map(of).sum();
    Ok(Ledger {
        labels: total(|relation| relation.labels),
        kept: total(|relation| relation.kept),
        added,
        relations,
    })
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.relations.iter().any(|relation| relation.truths.is_some());
        write!(f, "{} labels, of which training keeps {}", self.labels, self.kept)?;
        if self.added > 0 {
            write!(f, ", and {} relations that it adds", self.added)?;
        }
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

/// How many documents state each fact of some rows: those that are in memory together.
#[derive(Default)]
struct StatedFacts {
    rows: Range<usize>,
    /// `None` without an index.
    documents: Option<HashMap<FactInstance, u32>>,
}

impl StatedFacts {
    /// Makes sure that a row is among the rows.
    fn reach(&mut self, store: &DocumentStore, row: usize) -> Result<()> {
        if self.rows.contains(&row) || store.manifest().fact_index.is_none() {
            return Ok(());
        }
        self.rows = store.run_of(row);
        let mut documents = HashMap::new();
        store.each_fact_key(&mut |key| {
            let count = key.chunk_by(|(_, a), (_, b)| a.row == b.row).count() as u32;
            let here = key.iter().filter(|(_, one)| self.rows.contains(&(one.row as usize)));
            for &(_, instance) in here.filter(|_| count > 1) {
                let most = documents.entry(instance).or_insert(count);
                *most = count.max(*most);
            }
        })?;
        self.documents = Some(documents);
        Ok(())
    }

    /// A fact that is not in the index stands in one document.
    fn documents(&self, instance: FactInstance) -> Option<u32> {
        self.documents.as_ref().map(|documents| documents.get(&instance).copied().unwrap_or(1))
    }
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

/// Why pre-training leaves a label out, if it does. `place` is that of its pair, where that is on
/// disk; `None` for a document that was not ranked.
fn left_out(
    document: &TokenizedDocument,
    place: Option<Option<(usize, f32)>>,
    settings: &DsdocreSettings,
) -> Option<&'static str> {
    if document.entities.len() < settings.min_entities {
        return Some("entities");
    }
    let k = settings.k_pretrain()?;
    place?.is_none_or(|(place, _)| place >= k).then_some("rank")
}

/// What a teacher and the rules say of the relations of a document, by head, tail and relation.
#[derive(Default)]
struct TaughtLabels {
    probabilities: HashMap<(u32, u32, u32), f64>,
    decisions: BTreeMap<(u32, u32, u32), LabelDecision>,
}

impl TaughtLabels {
    fn of(document: &TokenizedDocument, rules: Option<&LabelRules>) -> Self {
        let (Some(rules), Some(pairs)) = (rules, &document.taught) else { return Self::default() };
        let stored = pairs.iter().flat_map(|pair| {
            let of_pair = |one: &TaughtRelation| {
                ((pair.head, pair.tail, one.relation.into()), one.probability())
            };
            pair.relations.iter().map(of_pair)
        });
        let decided = rules.decisions(document).into_iter().flat_map(|((head, tail), all)| {
            all.into_iter().map(move |one| ((head, tail, one.relation.into()), one))
        });
        Self { probabilities: stored.collect(), decisions: decided.collect() }
    }

    /// Relations without a label that hold by the rules.
    fn added(&self) -> Vec<TokenizedFact> {
        let holds = self.decisions.iter().filter(|(_, one)| !one.labelled && one.target >= 0.5);
        let fact = |(&(head, tail, relation), _)| TokenizedFact {
            head,
            tail,
            relation,
            evidence: Vec::new(),
        };
        holds.map(fact).collect()
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

/// One label with what is known of it.
struct LedgerRow<'a> {
    row: u32,
    document: Arc<TokenizedDocument>,
    fact: TokenizedFact,
    /// Whether it is a label, not a relation that the rules add.
    labelled: bool,
    relation: Option<&'a Relation>,
    /// Place and score of its pair among the ranked ones, from 0.
    place: Option<(usize, f32)>,
    /// Why training leaves it out.
    reason: Option<&'static str>,
    /// The teacher's probability; `None` where it stored none.
    probability: Option<f64>,
    /// What the rules make of it.
    decision: Option<LabelDecision>,
    /// Documents that state the same fact.
    documents: Option<u32>,
    truth: Option<bool>,
}

impl LedgerRow<'_> {
    fn head(&self) -> &TokenizedEntity {
        &self.document.entities[self.fact.head as usize]
    }

    fn tail(&self) -> &TokenizedEntity {
        &self.document.entities[self.fact.tail as usize]
    }

    /// Number of sentences that name both entities.
    fn sentences(&self) -> u32 {
        let of = |entity: &TokenizedEntity| -> BTreeSet<u32> {
            entity.mentions.iter().map(|mention| mention.sentence).collect()
        };
        of(self.head()).intersection(&of(self.tail())).count() as u32
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(columns(&[]).into_iter().map(|(field, _)| field).collect::<Vec<_>>()))
}

/// The columns of a row group, with their fields.
fn columns(rows: &[LedgerRow]) -> Vec<(Field, ArrayRef)> {
    fn column(name: &str, array: impl Array + 'static, maybe: bool) -> (Field, ArrayRef) {
        (Field::new(name, array.data_type().clone(), maybe), Arc::new(array))
    }
    fn name(entity: &TokenizedEntity) -> &str {
        entity.mentions.first().map_or("", |mention| &mention.name)
    }
    let text = |name, of: for<'r> fn(&'r LedgerRow<'_>) -> &'r str| {
        column(name, StringArray::from_iter_values(rows.iter().map(of)), false)
    };
    let number = |name, of: fn(&LedgerRow<'_>) -> u32| {
        column(name, UInt32Array::from_iter_values(rows.iter().map(of)), false)
    };
    let rank: UInt32Array = rows.iter().map(|row| row.place.map(|(at, _)| at as u32 + 1)).collect();
    let score: Float32Array = rows.iter().map(|row| row.place.map(|(_, score)| score)).collect();
    let kept: BooleanArray = rows.iter().map(|row| Some(row.reason.is_none())).collect();
    let reason: StringArray = rows.iter().map(|row| row.reason).collect();
    let labelled: BooleanArray = rows.iter().map(|row| Some(row.labelled)).collect();
    let probability: Float32Array =
        rows.iter().map(|row| row.probability.map(|share| share as f32)).collect();
    let action: StringArray =
        rows.iter().map(|row| row.decision.map(|one| one.action.name())).collect();
    let target: Float32Array = rows.iter().map(|row| row.decision.map(|one| one.target)).collect();
    let weight: Float32Array = rows.iter().map(|row| row.decision.map(|one| one.weight)).collect();
    let documents: UInt32Array = rows.iter().map(|row| row.documents).collect();
    let truth: BooleanArray = rows.iter().map(|row| row.truth).collect();
    vec![
        text("title", |row| &row.document.title),
        number("row", |row| row.row),
        number("head", |row| row.fact.head),
        number("tail", |row| row.fact.tail),
        text("head_name", |row| name(row.head())),
        text("head_type", |row| &row.head().entity_type),
        text("tail_name", |row| name(row.tail())),
        text("tail_type", |row| &row.tail().entity_type),
        text("relation", |row| row.relation.map_or("", |relation| &relation.id)),
        text("relation_name", |row| row.relation.map_or("", |relation| &relation.name)),
        column("rank", rank, true),
        column("score", score, true),
        column("kept", kept, false),
        column("reason", reason, true),
        number("sentences", |row| row.sentences()),
        column("documents", documents, true),
        column("true", truth, true),
        column("labelled", labelled, false),
        column("probability", probability, true),
        column("action", action, true),
        column("target", target, true),
        column("weight", weight, true),
    ]
}
