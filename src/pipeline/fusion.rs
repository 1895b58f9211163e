//! Fusion in the pipeline: the second run over pseudo documents, its threshold from dev, and the
//! predictions of both runs together (docs/systems.md, E.6–E.8).
//!
//! Not for: what a pseudo document is, or how facts are put together (`systems::fusion`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::predictor::{Decider, DocumentScores, Predictor};
use super::session::Session;
use crate::corpus::RelationSet;
use crate::eval::Prediction;
use crate::shards::DocumentStore;
use crate::systems::fusion::{FusedFacts, FusionForm, pseudo_documents, relative_scores};
use crate::systems::{DecisionRule, Pair};
use crate::text::{TokenizedDocument, TokenizedFact};
use crate::{Error, Result};

/// Documents whose pseudo documents are scored together, which bounds the memory of their logits.
const DOCUMENTS_AT_A_TIME: usize = 64;
/// The score of a class that is not among the largest of its pair.
const ABSENT: f32 = f32::NEG_INFINITY;

/// A fact: number of the document, head, tail, relation.
pub type FactPlace = (usize, u32, u32, usize);

/// A model whose predictions are fused from two runs.
#[derive(Clone, Copy)]
pub struct Fusion<'a> {
    predictor: &'a Predictor<'a>,
    decider: Decider,
    form: FusionForm,
    top: usize,
}

/// A threshold from dev, with the F1 that it gives there.
#[derive(Clone, Copy, Debug)]
pub struct FusedOnDev {
    /// The threshold; `None` where the runs left nothing to decide.
    pub threshold: Option<f64>,
    /// F1 of the fused facts.
    pub f1: f64,
}

impl<'a> Fusion<'a> {
    /// `None` where the model's settings ask for no fusion.
    ///
    /// # Errors
    /// [`Error::Bug`] for a system without a threshold class.
    pub fn of(predictor: &'a Predictor<'a>, decider: Decider) -> Result<Option<Self>> {
        let Some(form) = decider.evidence.and_then(|rule| rule.fusion) else { return Ok(None) };
        match (decider.rule, decider.classes.na()) {
            (DecisionRule::Adaptive { top }, Some(0)) => {
                Ok(Some(Self { predictor, decider, form, top }))
            }
            other => Err(Error::Bug(format!("fusion needs a threshold class, not {other:?}"))),
        }
    }

    /// The second run over documents with the scores of the first: for each document the pairs that
    /// its pseudo documents hold, with relative scores in place of logits, the largest of each
    /// class, −∞ where there is none. `going_on` is asked after each pass.
    ///
    /// # Errors
    /// Errors of the model; that of `going_on`.
    pub fn second_run(
        &self,
        documents: &[(Arc<TokenizedDocument>, &DocumentScores)],
        going_on: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<DocumentScores>> {
        let mut all = Vec::with_capacity(documents.len());
        for chunk in documents.chunks(DOCUMENTS_AT_A_TIME) {
            let (mut made, mut owners) = (Vec::new(), Vec::new());
            for (number, (document, scores)) in chunk.iter().enumerate() {
                for pseudo in pseudo_documents(document, self.evidence(scores)) {
                    owners.push((number, pseudo.entities));
                    made.push(Arc::new(pseudo.document));
                }
            }
            let scored = self.predictor.scores(&made, &mut |_| going_on())?;
            let mut rows: Vec<BTreeMap<Pair, Vec<f32>>> = vec![BTreeMap::new(); chunk.len()];
            for ((number, entities), scores) in owners.iter().zip(&scored) {
                self.add_rows(&mut rows[*number], entities, scores);
            }
            all.extend(rows.into_iter().map(|rows| {
                let (pairs, rows): (Vec<Pair>, Vec<Vec<f32>>) = rows.into_iter().unzip();
                DocumentScores { pairs, logits: rows.concat(), ..DocumentScores::default() }
            }));
        }
        Ok(all)
    }

    fn evidence(&self, scores: &DocumentScores) -> Vec<(Pair, Vec<usize>)> {
        let of_pair = |(place, &pair)| (pair, self.decider.evidence(scores, place));
        scores.pairs.iter().enumerate().map(of_pair).collect()
    }

    /// Takes the scores of a pseudo document, whose entities are `entities` of the document.
    fn add_rows(
        &self,
        rows: &mut BTreeMap<Pair, Vec<f32>>,
        entities: &[u32],
        scores: &DocumentScores,
    ) {
        let classes = self.decider.classes.count();
        for (pair, logits) in self.decider.rows(scores) {
            let pair = (entities[pair.0 as usize], entities[pair.1 as usize]);
            let row = rows.entry(pair).or_insert_with(|| vec![ABSENT; classes]);
            for (class, score) in relative_scores(logits, self.top) {
                row[class] = row[class].max(score);
            }
        }
    }

    /// The facts of both runs over the same documents.
    pub fn facts(
        &self,
        first: &[DocumentScores],
        second: &[DocumentScores],
    ) -> FusedFacts<FactPlace> {
        let mut fused = FusedFacts::default();
        for (number, (first, second)) in first.iter().zip(second).enumerate() {
            let place = |pair: Pair, class: usize| {
                Some((number, pair.0, pair.1, self.decider.classes.relation(class)?))
            };
            let (mut full, mut pseudo) = (Vec::new(), Vec::new());
            for (pair, row) in self.decider.rows(first) {
                let classes = relative_scores(row, self.top).into_iter();
                full.extend(
                    classes.filter_map(|(class, score)| Some((place(pair, class)?, score))),
                );
            }
            for (pair, row) in self.decider.rows(second) {
                let present = row.iter().copied().enumerate().filter(|(_, score)| *score > ABSENT);
                pseudo.extend(
                    present.filter_map(|(class, score)| Some((place(pair, class)?, score))),
                );
            }
            fused.add(full, pseudo);
        }
        fused
    }

    /// Both runs over a store, shared by the ranks; every rank gets the facts of all documents.
    ///
    /// # Errors
    /// Errors of the model or of another rank.
    pub fn shared_facts(
        &self,
        scores: &[DocumentScores],
        store: &DocumentStore,
        session: &Session,
    ) -> Result<FusedFacts<FactPlace>> {
        let name = format!("predicting pseudo documents of {}", store.folder().display());
        let _section = session.world.watchdog().unbounded_section(name);
        let mine: Vec<_> =
            session.share(0..store.len()).map(|row| (store.get(row), &scores[row])).collect();
        let second = self.second_run(&mine, &|| Ok(()))?;
        let second = DocumentScores::gather(second, store.len(), session)?;
        Ok(self.facts(scores, &second))
    }

    /// The threshold that is best for the labels of a store.
    pub fn choose(&self, facts: &FusedFacts<FactPlace>, store: &DocumentStore) -> FusedOnDev {
        let of_row = |row: usize| {
            let document = store.get(row);
            let place = |fact: &TokenizedFact| (row, fact.head, fact.tail, fact.relation as usize);
            document.facts.iter().map(place).collect::<Vec<_>>()
        };
        let gold: HashSet<FactPlace> = (0..store.len()).flat_map(of_row).collect();
        let chosen = facts.choose(self.form, gold.len(), |fact| gold.contains(fact));
        FusedOnDev {
            threshold: chosen.map(|chosen| chosen.threshold.into()),
            f1: chosen.map_or(0.0, |chosen| chosen.f1),
        }
    }

    /// The predictions at a threshold, those of each document together; evidence is that of the
    /// first run, and the score the logistic function of the fused one.
    pub fn predictions<'d>(
        &self,
        facts: &FusedFacts<FactPlace>,
        threshold: Option<f64>,
        documents: impl IntoIterator<Item = (&'d str, &'d DocumentScores)>,
        relations: &RelationSet,
    ) -> Vec<Vec<Prediction>> {
        let mut kept = facts.at(self.form, threshold.map(|threshold| threshold as f32));
        kept.sort_by_key(|(place, _)| *place);
        let mut kept = kept.into_iter().peekable();
        let of_document = |(number, (title, scores)): (usize, (&str, &DocumentScores))| {
            let places: BTreeMap<Pair, usize> =
                scores.pairs.iter().enumerate().map(|(place, &pair)| (pair, place)).collect();
            let mut own = Vec::new();
            while let Some(((_, head, tail, relation), score)) =
                kept.next_if(|(place, _)| place.0 == number)
            {
                let Some(relation) = relations.get(relation) else { continue };
                let place = places.get(&(head, tail));
                own.push(Prediction {
                    title: title.to_owned(),
                    h_idx: head as usize,
                    t_idx: tail as usize,
                    r: relation.id.clone(),
                    evidence: place
                        .map_or_else(Vec::new, |&place| self.decider.evidence(scores, place)),
                    score: Some(1.0 / (1.0 + f64::from(-score).exp())),
                    confidence: None,
                });
            }
            own
        };
        documents.into_iter().enumerate().map(of_document).collect()
    }
}
