//! What a run says about a document, and why: its role, its labels and whether they are true, how
//! the ranker placed its pairs, what teachers say of them, and what each variant predicts. With
//! several runs, what each of
//! them predicts for the same document.
//!
//! Everything is read from the run folder, whose stages need not all be done. Not for: computing
//! anything again.

mod explanation;
mod judgements;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use self::explanation::{
    ExplainedDocument, ExplainedEntity, ExplainedLabel, ExplainedPair, ExplainedPrediction,
    Explanation,
};
use self::judgements::Judgements;
use crate::base::run_files;
use crate::corpus::synth::Truth;
use crate::corpus::{Document, Entity, Fact, RelationSet};
use crate::eval::{Prediction, distinct_names, read_predictions};
use crate::pipeline::{Role, document_of};
use crate::recipe::Recipe;
use crate::report::sentences_of_pair;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::Variant;
use crate::systems::dsdocre::DsdocreSettings;
use crate::text::TokenizedDocument;
use crate::{DataError, Error, Result};

/// Titles of other documents that are listed for a fact; the rest is counted.
const TITLES: usize = 5;

/// What is asked about, as the flags of `why` say it.
#[derive(Clone, Debug, Default, Args)]
pub struct WhyQuery {
    /// Title of the document; not asked for in a graph
    #[arg(long, value_name = "T")]
    pub title: Option<String>,
    /// Head entity: its number or one of its names; in a graph its identifier or name
    #[arg(long, value_name = "H")]
    pub head: Option<String>,
    /// Tail entity, likewise; with both, the sentences that mention one of them are shown
    #[arg(long, value_name = "T")]
    pub tail: Option<String>,
    /// Relation: its identifier or name
    #[arg(long, value_name = "R")]
    pub relation: Option<String>,
}

/// Explains a document of a run, or of several that have it. Labels, truth and ranks are those of
/// the first.
///
/// # Errors
/// A title that no shard of a run has; runs whose documents of this title differ; an entity or a
/// relation that the document or the run does not know.
pub fn why(runs: &[PathBuf], query: &WhyQuery) -> Result<Explanation> {
    let Some((run, others)) = runs.split_first() else {
        return Err(Error::Bug("`why` was asked about no run".into()));
    };
    let Some(title) = &query.title else {
        return Err(Error::recipe("which document of the run? --title is missing")
            .with_hint("`batch RUN --step 1` prints some titles"));
    };
    let recipe = Recipe::load(&run.join(run_files::RECIPE), &[])?;
    let mut roles = Vec::new();
    let mut names: Vec<&str> = Role::ALL.map(Role::name).into();
    names.extend(recipe.data.source.iter().map(|source| source.name.as_str()));
    for role in names {
        let Some(folder) = shards_of(run, role) else { continue };
        let store = DocumentStore::open(
            &folder,
            StoreOptions { with_words: true, verify: false, ..StoreOptions::default() },
        )?;
        if let Some(row) = store.find_title(title) {
            let mut context = DocumentContext::new(run, &recipe, role, &store, row)?;
            context.read_predictions(runs)?;
            for other in others {
                context.check_same(other)?;
            }
            roles.push(context.explain(query)?);
        }
    }
    if roles.is_empty() {
        let hint = "titles are compared to the letter; `batch RUN --step 1` prints some";
        return Err(DataError::new(run, "no document of the run has this title")
            .title(title)
            .hint(hint)
            .into());
    }
    Ok(Explanation { title: title.clone(), roles })
}

/// The shards of a role or source, with the ranker's pairs where there are any.
fn shards_of(run: &Path, role: &str) -> Option<PathBuf> {
    let folder = |kind: &str| run.join(kind).join(role);
    [run_files::SCORED, run_files::SHARDS]
        .into_iter()
        .map(folder)
        .find(|folder| folder.join("manifest.json").exists())
}

/// A document with what is known of it before its pairs are looked at.
struct DocumentContext<'a> {
    /// Its role, or the source that it is of.
    role: &'a str,
    store: &'a DocumentStore,
    row: usize,
    document: Document,
    encoded: Arc<TokenizedDocument>,
    predictions: BTreeMap<String, Vec<Prediction>>,
    /// How many of the document's pairs the stage that reads this role keeps.
    kept: Option<usize>,
    elsewhere: Elsewhere,
    truth: Option<Truth>,
    judgements: Judgements,
}

impl<'a> DocumentContext<'a> {
    fn new(
        run: &Path,
        recipe: &Recipe,
        role: &'a str,
        store: &'a DocumentStore,
        row: usize,
    ) -> Result<Self> {
        let encoded = store.get(row);
        let settings = encoded.kept.as_ref().and_then(|_| recipe.settings_of().ok());
        let kept = settings.and_then(|settings: &DsdocreSettings| match role {
            _ if role == Role::Distant.name() => settings.k_pretrain(),
            _ => Some(settings.finetune_pairs().count(encoded.entities.len())),
        });
        Ok(Self {
            role,
            store,
            row,
            document: document_of(store, row),
            encoded,
            predictions: BTreeMap::new(),
            kept,
            elsewhere: elsewhere(store, row)?,
            truth: if role == Role::Distant.name() { truth_of(run)? } else { None },
            judgements: if role == Role::Distant.name() {
                Judgements::read(run, recipe, &store.title(row))?
            } else {
                Judgements::default()
            },
        })
    }

    /// Reads what each run predicts for the document, under names that tell the runs apart.
    fn read_predictions(&mut self, runs: &[PathBuf]) -> Result<()> {
        let paths: Vec<&Path> = runs.iter().map(PathBuf::as_path).collect();
        for (run, name) in runs.iter().zip(distinct_names(&paths)) {
            for (variant, facts) in predictions(run, self.role, &self.document.title)? {
                let whose = if runs.len() > 1 { format!("{name}, {variant}") } else { variant };
                self.predictions.insert(whose, facts);
            }
        }
        Ok(())
    }

    /// Numbers of entities mean the same in another run only if its document is the same.
    fn check_same(&self, other: &Path) -> Result<()> {
        let role = self.role;
        let names = |document: &Document| -> Vec<Vec<String>> {
            let of = |entity: &Entity| entity.mentions.iter().map(|m| m.name.clone()).collect();
            document.entities.iter().map(of).collect()
        };
        let problem = match shards_of(other, self.role) {
            None => format!("has no {role} shards, which {} has", self.store.folder().display()),
            Some(folder) => {
                let options =
                    StoreOptions { with_words: true, verify: false, ..StoreOptions::default() };
                let store = DocumentStore::open(&folder, options)?;
                match store.find_title(&self.document.title) {
                    None => format!("has no document of this title in {role}"),
                    Some(row) if names(&document_of(&store, row)) != names(&self.document) => {
                        format!("has another document of this title in {role}")
                    }
                    Some(_) => return Ok(()),
                }
            }
        };
        Err(DataError::new(other, problem)
            .title(&self.document.title)
            .hint("name runs on the same data")
            .into())
    }

    fn explain(&self, query: &WhyQuery) -> Result<ExplainedDocument> {
        let Self { document, encoded, predictions, .. } = self;
        let head = query.head.as_deref().map(|asked| self.entity(asked, "head")).transpose()?;
        let tail = query.tail.as_deref().map(|asked| self.entity(asked, "tail")).transpose()?;
        let relation = query.relation.as_deref().map(|asked| self.relation(asked)).transpose()?;
        let asked = |pair: &(usize, usize)| {
            head.is_none_or(|head| head == pair.0) && tail.is_none_or(|tail| tail == pair.1)
        };
        let mut pairs: BTreeSet<(usize, usize)> =
            document.facts().iter().map(|fact| (fact.head, fact.tail)).collect();
        pairs.extend(predictions.values().flatten().map(|fact| (fact.h_idx, fact.t_idx)));
        let single = head.zip(tail);
        pairs.extend(self.judgements.added());
        pairs.extend(single);
        let mut about = Vec::new();
        for (head, tail) in pairs.into_iter().filter(asked) {
            let mut pair = self.pair((head, tail));
            if let Some(relation) = &relation {
                pair.labels.retain(|label| label.relation == *relation);
                pair.judgements.retain(|said| said.relation == *relation);
                pair.predictions.retain(|fact| fact.relation == *relation);
            }
            if single.is_some() {
                pair.text = sentences_of_pair(document, head, tail);
            }
            let silent =
                pair.labels.is_empty() && pair.predictions.is_empty() && pair.judgements.is_empty();
            if single.is_some() || !silent {
                about.push(pair);
            }
        }
        Ok(ExplainedDocument {
            role: self.role.to_owned(),
            row: self.row,
            words: encoded.num_words(),
            sentences: document.sentences.len(),
            pairs: encoded.num_pairs(),
            predictors: predictions.keys().cloned().collect(),
            kept: self.kept,
            entities: document.entities.iter().map(explained_entity).collect(),
            about,
        })
    }

    /// The entity that a number or a name means.
    fn entity(&self, asked: &str, field: &str) -> Result<usize> {
        let document = &self.document;
        let named = |entity: &Entity| entity.mentions.iter().any(|mention| mention.name == asked);
        let number = asked.parse().ok().filter(|&number| number < document.entities.len());
        document.entities.iter().position(named).or(number).ok_or_else(|| {
            let names = (0..)
                .zip(&document.entities)
                .map(|(number, entity)| format!("{number} {}", name_of(entity)));
            let hint = format!("its entities: {}", names.collect::<Vec<_>>().join(", "));
            let problem = format!("no entity is called `{asked}`");
            DataError::new(self.store.folder(), problem)
                .row(self.row)
                .title(&document.title)
                .field(field)
                .hint(hint)
                .into()
        })
    }

    /// The identifier of the relation that an identifier or a name means.
    fn relation(&self, asked: &str) -> Result<String> {
        let relations = self.store.relations();
        let found =
            relations.iter().find(|relation| relation.id == asked || relation.name == asked);
        found.map(|relation| relation.id.clone()).ok_or_else(|| {
            let known = relations
                .iter()
                .map(|relation| format!("{} `{}`", relation.id, relation.name))
                .collect::<Vec<_>>()
                .join(", ");
            Error::recipe(format!("the run knows no relation `{asked}`"))
                .with_hint(format!("it knows {known}"))
        })
    }

    fn pair(&self, (head, tail): (usize, usize)) -> ExplainedPair {
        let ranked = self.encoded.kept.as_deref().unwrap_or_default();
        let place =
            ranked.iter().position(|pair| (pair.head as usize, pair.tail as usize) == (head, tail));
        let facts = (0..).zip(self.document.facts());
        let labels: Vec<ExplainedLabel> = facts
            .filter(|(_, fact)| (fact.head, fact.tail) == (head, tail))
            .map(|(number, fact)| self.label(number, fact))
            .collect();
        let mut predictions = Vec::new();
        for (variant, facts) in &self.predictions {
            for fact in facts.iter().filter(|fact| (fact.h_idx, fact.t_idx) == (head, tail)) {
                let labelled = labels.iter().any(|label| label.relation == fact.r);
                predictions.push(ExplainedPrediction {
                    variant: variant.clone(),
                    relation: fact.r.clone(),
                    name: self.relation_name(&fact.r),
                    score: fact.score,
                    right: self.document.facts.is_some().then_some(labelled),
                });
            }
        }
        let named = |entity: usize| sentences_of(&self.document.entities[entity]);
        ExplainedPair {
            head,
            tail,
            rank: place.map(|place| place + 1),
            score: place.map(|place| ranked[place].score),
            kept: self.kept.map(|kept| place.is_some_and(|place| place < kept)),
            together: named(head).intersection(&named(tail)).copied().collect(),
            labels,
            judgements: self.judgements.of((head, tail), self.store.relations()),
            predictions,
            text: Vec::new(),
        }
    }

    /// A label, the number of which is `number` in its document.
    fn label(&self, number: usize, fact: &Fact) -> ExplainedLabel {
        let predicted = |other: &Prediction| {
            (other.h_idx, other.t_idx, &other.r) == (fact.head, fact.tail, &fact.relation)
        };
        let class = self.store.relations().index_of(&fact.relation);
        let others = class.and_then(|class| self.elsewhere.get(&(fact.head, fact.tail, class)));
        let titles = others.into_iter().flatten().map(|&row| self.store.title(row));
        let missed = self.predictions.iter().filter(|(_, facts)| !facts.iter().any(predicted));
        ExplainedLabel {
            relation: fact.relation.clone(),
            name: self.relation_name(&fact.relation),
            evidence: fact.evidence.clone(),
            truth: self.truth.as_ref().and_then(|truth| truth.of(&self.document.title, number)),
            elsewhere: titles.take(TITLES).collect(),
            elsewhere_count: others.map_or(0, BTreeSet::len),
            missed_by: missed.map(|(name, _)| name.clone()).collect(),
        }
    }

    fn relation_name(&self, id: &str) -> String {
        let relations: &RelationSet = self.store.relations();
        relations
            .index_of(id)
            .and_then(|class| relations.get(class))
            .map_or_else(String::new, |relation| relation.name.clone())
    }
}

/// The truth of the distant labels of a generated world.
pub(super) fn truth_of(run: &Path) -> Result<Option<Truth>> {
    let path = run.join("data/world/truth.json");
    path.exists().then(|| Truth::load(&path)).transpose()
}

/// What each variant predicts for a document, at the end and after each number of iterations;
/// absent where it was not asked.
fn predictions(run: &Path, role: &str, title: &str) -> Result<BTreeMap<String, Vec<Prediction>>> {
    let mut found = BTreeMap::new();
    let folder = run.join(run_files::PREDICTIONS);
    let mut read = |whose: String, path: &Path| -> Result<bool> {
        let exists = path.exists();
        if exists {
            let mut own = read_predictions(path)?;
            own.retain(|fact| fact.title == title);
            found.insert(whose, own);
        }
        Ok(exists)
    };
    for variant in Variant::ALL.map(Variant::name) {
        let file = format!("{variant}-{role}");
        read(variant.to_owned(), &folder.join(format!("{file}.json")))?;
        let mut number = 0;
        while read(
            format!("{variant}, K = {number}"),
            &folder.join(format!("{file}-k{number}.json")),
        )? {
            number += 1;
        }
    }
    Ok(found)
}

/// Rows of the other documents of a role that state a fact of the document.
fn elsewhere(store: &DocumentStore, row: usize) -> Result<Elsewhere> {
    let mut found = Elsewhere::new();
    if store.manifest().fact_index.is_none() {
        return Ok(found);
    }
    store.each_fact_key(&mut |key| {
        let rows = || key.iter().map(|(_, instance)| instance.row as usize);
        for (_, own) in key.iter().filter(|(_, instance)| instance.row as usize == row) {
            let fact = (own.head as usize, own.tail as usize, own.relation as usize);
            found.entry(fact).or_default().extend(rows().filter(|&other| other != row));
        }
    })?;
    Ok(found)
}

/// Rows of other documents by fact: (head, tail, class).
type Elsewhere = BTreeMap<(usize, usize, usize), BTreeSet<usize>>;

fn name_of(entity: &Entity) -> &str {
    entity.mentions.first().map_or("", |mention| mention.name.as_str())
}

fn sentences_of(entity: &Entity) -> BTreeSet<usize> {
    entity.mentions.iter().map(|mention| mention.sentence).collect()
}

fn explained_entity(entity: &Entity) -> ExplainedEntity {
    ExplainedEntity {
        name: name_of(entity).to_owned(),
        entity_type: entity
            .mentions
            .first()
            .map_or_else(String::new, |mention| mention.entity_type.clone()),
        mentions: entity.mentions.len(),
        sentences: sentences_of(entity).into_iter().collect(),
    }
}
