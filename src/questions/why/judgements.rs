//! What the teachers of a run say of a document, and what the rule of its recipe makes of it.
//!
//! Not for: judging, or what a rule does (`distant`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::explanation::TeacherJudgement;
use crate::Result;
use crate::base::run_files;
use crate::corpus::RelationSet;
use crate::distant::LabelDecision;
use crate::pipeline::rules_of;
use crate::recipe::Recipe;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::Variant;

/// The judgements of all teachers on one document.
#[derive(Default)]
pub(super) struct Judgements(Vec<OfTeacher>);

/// Those of one teacher.
struct OfTeacher {
    name: &'static str,
    /// Probabilities that were stored, by head, tail and class.
    probabilities: BTreeMap<(usize, usize, u16), f64>,
    /// What the rule decides, likewise; empty where labels stay as they are.
    decisions: BTreeMap<(usize, usize, u16), LabelDecision>,
}

impl Judgements {
    /// Reads those of the distant document of this title.
    ///
    /// # Errors
    /// Shards that cannot be read; a rule that needs what a teacher did not store.
    pub(super) fn read(run: &Path, recipe: &Recipe, title: &str) -> Result<Self> {
        let names: BTreeSet<&str> =
            Variant::ALL.into_iter().filter_map(Variant::teacher).map(Variant::name).collect();
        let mut all = Vec::new();
        for name in names {
            let folder = run.join(run_files::TAUGHT).join(name);
            if !folder.join("manifest.json").exists() {
                continue;
            }
            let options = StoreOptions { verify: false, ..StoreOptions::default() };
            let store = DocumentStore::open(&folder, options)?;
            let Some(row) = store.find_title(title) else { continue };
            let document = store.get(row);
            let rules = rules_of(&store, &recipe.distant)?;
            let mut said =
                OfTeacher { name, probabilities: BTreeMap::new(), decisions: BTreeMap::new() };
            for pair in document.taught.iter().flatten() {
                for one in &pair.relations {
                    let key = (pair.head as usize, pair.tail as usize, one.relation);
                    said.probabilities.insert(key, one.probability());
                }
            }
            for ((head, tail), decisions) in
                rules.iter().flat_map(|rules| rules.decisions(&document))
            {
                let key = |one: LabelDecision| ((head as usize, tail as usize, one.relation), one);
                said.decisions.extend(decisions.into_iter().map(key));
            }
            all.push(said);
        }
        Ok(Self(all))
    }

    /// Pairs for which a rule takes a relation as a fact.
    pub(super) fn added(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let decisions = self.0.iter().flat_map(|said| &said.decisions);
        decisions.filter(|(_, one)| one.target >= 0.5).map(|(&(head, tail, _), _)| (head, tail))
    }

    /// What is said of a pair: relations with a label or a stored probability, the likeliest first.
    pub(super) fn of(
        &self,
        pair: (usize, usize),
        relations: &RelationSet,
    ) -> Vec<TeacherJudgement> {
        self.0.iter().flat_map(|said| said.of(pair, relations)).collect()
    }
}

impl OfTeacher {
    fn of(&self, (head, tail): (usize, usize), relations: &RelationSet) -> Vec<TeacherJudgement> {
        let range = (head, tail, 0)..=(head, tail, u16::MAX);
        let stored = self.probabilities.range(range.clone()).map(|(&(.., class), _)| class);
        let decided = self.decisions.range(range).map(|(&(.., class), _)| class);
        let classes: BTreeSet<u16> = stored.chain(decided).collect();
        let judgement = |class: u16| {
            let relation = relations.get(class.into())?;
            let decision = self.decisions.get(&(head, tail, class));
            Some(TeacherJudgement {
                teacher: self.name.to_owned(),
                relation: relation.id.clone(),
                name: relation.name.clone(),
                probability: self.probabilities.get(&(head, tail, class)).copied(),
                action: decision.map(|one| one.action.name()),
                target: decision.map(|one| one.target),
            })
        };
        let mut all: Vec<TeacherJudgement> = classes.into_iter().filter_map(judgement).collect();
        let likely = |said: &TeacherJudgement| said.probability.unwrap_or_default();
        all.sort_by(|a, b| likely(b).total_cmp(&likely(a)));
        all
    }
}
