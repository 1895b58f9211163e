//! Class logits of the chosen pairs, and the decision rule that makes facts of them.
//!
//! Not for: files of predictions (`predict`), or scoring them (`evaluate`).

use std::collections::HashSet;
use std::sync::Arc;

use tch::Kind;

use super::session::Session;
use crate::Result;
use crate::corpus::{Document, RelationSet};
use crate::eval::{FactSet, Prediction, ScoredFact, best_prefix};
use crate::shards::DocumentStore;
use crate::systems::{
    Classes, DecisionRule, EvidenceRule, Example, Extractor, Layout, Pair, PairTarget,
    RelationBatch,
};
use crate::text::{TokenizedDocument, split_by_tokens};
use crate::torch::Precision;
use crate::train::Forward;

/// Bound on the cost of a prediction pass: tokens, or pairs where they weigh more.
pub const PREDICT_TOKENS: usize = 16_384;

/// Class logits of one document's pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentScores {
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// Logits [pairs × classes], row-major.
    pub logits: Vec<f32>,
    /// How much of each pair's attention lies in each sentence, [pairs × sentences] row-major;
    /// empty for a system that does not attend.
    pub evidence: Vec<f32>,
    /// The tokens that hold most of each pair's attention, where they were asked for; not gathered
    /// from other ranks.
    pub attention: Vec<PairTarget>,
}

/// How logits become facts.
#[derive(Clone, Copy, Debug)]
pub struct Decider {
    /// What the columns mean.
    pub classes: Classes,
    /// The rule.
    pub rule: DecisionRule,
    /// Smallest probability of a fact, for [`DecisionRule::Threshold`].
    pub threshold: f64,
    /// How evidence is decided on; `None`: facts name none.
    pub evidence: Option<EvidenceRule>,
}

impl Decider {
    /// The decider of a model; `threshold` as found on dev.
    pub fn of(extractor: &dyn Extractor, threshold: Option<f64>) -> Self {
        Self {
            classes: extractor.classes(),
            rule: extractor.decision(),
            threshold: threshold.unwrap_or(0.5),
            evidence: extractor.evidence(),
        }
    }

    /// Probability of a class: σ(l_r), or σ(l_r − l_TH) where a threshold class decides.
    fn probability(self, row: &[f32], class: usize) -> f32 {
        let reference = match (self.rule, self.classes.na()) {
            (DecisionRule::Adaptive { .. }, Some(threshold)) => row[threshold],
            _ => 0.0,
        };
        1.0 / (1.0 + (reference - row[class]).exp())
    }

    /// How far a relation is above what decides on it: the logit of the threshold class or, where
    /// the largest class wins, of "no relation"; otherwise 0.
    pub fn margin(self, row: &[f32], relation: usize) -> f32 {
        let reference = match (self.rule, self.classes.na()) {
            (DecisionRule::Adaptive { .. } | DecisionRule::ArgMax, Some(na)) => row[na],
            _ => 0.0,
        };
        row[self.classes.of_relation(relation)] - reference
    }

    /// Pairs with their rows of logits.
    pub fn rows(self, scores: &DocumentScores) -> impl Iterator<Item = (Pair, &[f32])> {
        scores.pairs.iter().copied().zip(scores.logits.chunks_exact(self.classes.count().max(1)))
    }

    /// Every (pair, relation, probability), NA left out.
    pub fn relations(self, scores: &DocumentScores) -> impl Iterator<Item = (Pair, usize, f32)> {
        self.rows(scores).flat_map(move |(pair, row)| {
            (0..self.classes.relations).map(move |relation| {
                (pair, relation, self.probability(row, self.classes.of_relation(relation)))
            })
        })
    }

    /// The classes that the rule takes from a row of logits.
    pub fn taken(self, row: &[f32]) -> Vec<usize> {
        let relations =
            || (0..self.classes.relations).map(|relation| self.classes.of_relation(relation));
        match self.rule {
            DecisionRule::ArgMax => {
                let best = (0..row.len())
                    .fold(0, |best, class| if row[class] > row[best] { class } else { best });
                Some(best).filter(|&class| Some(class) != self.classes.na()).into_iter().collect()
            }
            DecisionRule::Threshold => relations()
                .filter(|&class| f64::from(self.probability(row, class)) > self.threshold)
                .collect(),
            DecisionRule::Adaptive { top } => {
                let threshold = self.classes.na().map_or(0.0, |class| row[class]);
                let mut above: Vec<usize> =
                    relations().filter(|&class| row[class] > threshold).collect();
                above.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                above.truncate(if top == 0 { usize::MAX } else { top });
                above
            }
        }
    }

    /// The evidence sentences of a document's pair, by its place; none without a rule.
    pub fn evidence(self, scores: &DocumentScores, place: usize) -> Vec<usize> {
        let sentences = scores.evidence.len() / scores.pairs.len().max(1);
        let weights = scores.evidence.get(place * sentences..(place + 1) * sentences);
        let rule = self.evidence.zip(weights);
        rule.map_or_else(Vec::new, |(rule, weights)| rule.sentences(weights))
    }

    /// The facts of a document.
    pub fn decide(
        self,
        scores: &DocumentScores,
        title: &str,
        relations: &RelationSet,
    ) -> Vec<Prediction> {
        let rows = self.rows(scores).enumerate();
        let facts = rows.flat_map(|(place, (pair, row))| {
            self.taken(row).into_iter().map(move |class| (place, pair, row, class))
        });
        facts
            .filter_map(|(place, pair, row, class)| {
                let relation = relations.get(self.classes.relation(class)?)?;
                Some(Prediction {
                    title: title.to_owned(),
                    h_idx: pair.0 as usize,
                    t_idx: pair.1 as usize,
                    r: relation.id.clone(),
                    evidence: self.evidence(scores, place),
                    score: Some(f64::from(self.probability(row, class))),
                    confidence: None,
                })
            })
            .collect()
    }
}

impl DocumentScores {
    /// Gathers on every rank what each rank made of its [share](Session::share) of `count`
    /// documents.
    ///
    /// # Errors
    /// Errors of another rank.
    pub fn gather(mine: Vec<Self>, count: usize, session: &Session) -> Result<Vec<Self>> {
        let world = session.world.size();
        if world == 1 {
            return Ok(mine);
        }
        let all = session.world.communicator().all_gather(&Self::encode(&mine))?;
        let mut shares: Vec<_> = all.iter().map(|bytes| Self::decode(bytes).into_iter()).collect();
        Ok((0..count).map(|item| shares[item % world].next().unwrap_or_default()).collect())
    }

    /// Scores as words of 32 bits: how many pairs, logits and numbers of evidence follow, then
    /// these.
    pub fn encode(all: &[Self]) -> Vec<u8> {
        let mut words = Vec::new();
        for Self { pairs, logits, evidence, .. } in all {
            words.extend([pairs.len(), logits.len(), evidence.len()].map(|count| count as u32));
            words.extend(pairs.iter().flat_map(|&(head, tail)| [head, tail]));
            words.extend(logits.iter().chain(evidence).map(|number| number.to_bits()));
        }
        bytemuck::cast_slice(&words).to_vec()
    }

    /// What [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Vec<Self> {
        let words: Vec<u32> = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        let (mut rest, mut all) = (words.as_slice(), Vec::new());
        let floats = |words: &[u32]| words.iter().map(|&bits| f32::from_bits(bits)).collect();
        while let &[pairs, logits, evidence, ref values @ ..] = rest {
            let [pairs, logits, evidence] = [2 * pairs, logits, evidence].map(|n| n as usize);
            let (pairs, values) = values.split_at(pairs);
            let (logits, values) = values.split_at(logits);
            let (evidence, others) = values.split_at(evidence);
            let pairs = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let (logits, evidence) = (floats(logits), floats(evidence));
            all.push(Self { pairs, logits, evidence, attention: Vec::new() });
            rest = others;
        }
        all
    }
}

/// A fine-tuned model ready to score documents.
pub struct Predictor<'a> {
    extractor: &'a dyn Extractor,
    forward: Forward,
    /// Tokens of each pair's attention that are told.
    tokens: usize,
}

impl<'a> Predictor<'a> {
    /// A predictor over `extractor`.
    pub fn new(extractor: &'a dyn Extractor, precision: Precision) -> Self {
        Self { extractor, forward: Forward { train: false, precision }, tokens: 0 }
    }

    /// The same, which tells as many tokens of each pair's attention.
    #[must_use]
    pub fn with_tokens(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// Logits for each document, in the given order. `done` is told after each pass how many
    /// documents are done.
    ///
    /// # Errors
    /// A document over the length limit; errors of libtorch and of `done`.
    pub fn scores(
        &self,
        documents: &[Arc<TokenizedDocument>],
        done: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<DocumentScores>> {
        self.pass_over(documents, None, done)
    }

    /// As [`Self::scores`], with dropout; each document has a visit of its own, the key of its
    /// masks.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn scores_with_dropout(
        &self,
        documents: &[Arc<TokenizedDocument>],
        visits: &[u64],
    ) -> Result<Vec<DocumentScores>> {
        self.pass_over(documents, Some(visits), &mut |_| Ok(()))
    }

    fn pass_over(
        &self,
        documents: &[Arc<TokenizedDocument>],
        visits: Option<&[u64]>,
        done: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<DocumentScores>> {
        let forward = Forward { train: visits.is_some(), ..self.forward };
        let _guard = tch::no_grad_guard();
        self.extractor.begin_prediction()?;
        let layout = self.extractor.layout();
        let pairs: Vec<Vec<Pair>> = documents
            .iter()
            .map(|document| layout.evaluation_pairs(document))
            .collect::<Result<_>>()?;
        let cost = |index: usize| layout.cost(&documents[index], pairs[index].len());
        // Documents of similar cost share a pass, the dearest first.
        let mut order: Vec<usize> = (0..documents.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(cost(index)));
        let costs: Vec<usize> = order.iter().map(|&index| cost(index)).collect();
        let mut scores = vec![DocumentScores::default(); documents.len()];
        let mut finished = 0;
        for range in split_by_tokens(&costs, PREDICT_TOKENS) {
            let chunk = &order[range];
            let example = |&index: &usize| {
                let (document, pairs) = (Arc::clone(&documents[index]), pairs[index].clone());
                let visit = visits.map_or(0, |visits| visits[index]);
                Example { document, pairs, visit, train: false }
            };
            let examples: Vec<Example> = chunk.iter().map(example).collect();
            for (&index, result) in chunk.iter().zip(self.pass(&*layout, examples, forward)?) {
                scores[index] = result;
            }
            finished += chunk.len();
            done(finished)?;
        }
        Ok(scores)
    }

    fn pass(
        &self,
        layout: &dyn Layout,
        examples: Vec<Example>,
        forward: Forward,
    ) -> Result<Vec<DocumentScores>> {
        let classes = self.extractor.classes();
        let batch = RelationBatch::new(layout, &examples, classes, self.extractor.loss())?;
        let (mut logits, mut evidence) = (Vec::new(), Vec::new());
        let mut attention = Vec::new();
        if batch.pairs > 0 {
            let scored = if self.tokens > 0 && !forward.train {
                let (scored, tokens) = self.extractor.scored_with_tokens(&batch, forward)?;
                let rows = tokens.to_rows()?;
                attention = rows.iter().map(|row| PairTarget::largest(row, self.tokens)).collect();
                scored
            } else {
                self.extractor.scored(&batch, forward)?
            };
            let flat = scored.logits.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
            logits = Vec::<f32>::try_from(flat)?;
            evidence = scored.evidence.map_or_else(|| Ok(Vec::new()), |rows| rows.to_rows())?;
        }
        let (mut logits, mut evidence) = (logits.as_slice(), evidence.into_iter());
        let mut attention = attention.into_iter();
        let take = |example: Example| {
            let count = example.pairs.len() * classes.count();
            let logits = logits.split_off(..count).unwrap_or_default().to_vec();
            let evidence = evidence.by_ref().take(example.pairs.len()).flatten().collect();
            let attention = attention.by_ref().take(example.pairs.len()).collect();
            DocumentScores { pairs: example.pairs, logits, evidence, attention }
        };
        Ok(examples.into_iter().map(take).collect())
    }
}

/// Scores a store with all ranks; every rank gets all results.
///
/// # Errors
/// Errors of the model or of another rank.
pub fn shared_scores(
    predictor: &Predictor,
    store: &DocumentStore,
    session: &Session,
) -> Result<Vec<DocumentScores>> {
    let _section = session
        .world
        .watchdog()
        .unbounded_section(format!("predicting {}", store.folder().display()));
    let mine: Vec<Arc<TokenizedDocument>> =
        session.share(0..store.len()).map(|row| store.get(row)).collect();
    let doing = format!("while predicting {}", store.folder().display());
    let scores = predictor.scores(&mine, &mut |_| session.going_on(&doing));
    let scores = session.world.agree(scores)?;
    DocumentScores::gather(scores, store.len(), session)
}

/// Predictions on dev and, for the threshold rule, the θ that makes them best.
pub fn decide_on_dev(
    scores: &[DocumentScores],
    store: &DocumentStore,
    gold: &[Document],
    mut decider: Decider,
) -> (Vec<Prediction>, Option<f64>) {
    if decider.rule != DecisionRule::Threshold {
        return (predictions(scores, store, decider), None);
    }
    let ranked = ranked_facts(scores, store, decider, &FactSet::default());
    let threshold = best_prefix(&ranked, gold_facts(gold)).map(|best| f64::from(best.theta));
    decider.threshold = threshold.unwrap_or(decider.threshold);
    (predictions(scores, store, decider), threshold)
}

/// Predictions of a whole store.
pub fn predictions(
    scores: &[DocumentScores],
    store: &DocumentStore,
    decider: Decider,
) -> Vec<Prediction> {
    let decide = |(row, scores): (usize, &DocumentScores)| {
        decider.decide(scores, &store.title(row), store.relations())
    };
    scores.iter().enumerate().flat_map(decide).collect()
}

/// Every (pair, relation) with its probability and whether it is a gold fact, for thresholds and
/// curves.
pub fn ranked_facts(
    scores: &[DocumentScores],
    store: &DocumentStore,
    decider: Decider,
    train: &FactSet,
) -> Vec<ScoredFact> {
    let mut ranked = Vec::new();
    for (row, scores) in scores.iter().enumerate() {
        let document = store.get(row);
        let gold: HashSet<(u32, u32, u32)> =
            document.facts.iter().map(|fact| (fact.head, fact.tail, fact.relation)).collect();
        let in_train = |pair: (u32, u32), class: usize| {
            let mentions = |entity: u32| document.entities[entity as usize].mentions.iter();
            let names = |entity: u32| mentions(entity).map(|mention| mention.name.as_str());
            let Some(relation) = store.relations().get(class) else { return false };
            names(pair.0)
                .any(|head| names(pair.1).any(|tail| train.contains(head, tail, &relation.id)))
        };
        ranked.extend(decider.relations(scores).map(|(pair, class, score)| {
            let correct = gold.contains(&(pair.0, pair.1, class as u32));
            // Asked for only where it can matter: a wrong fact is never ignored.
            let in_train = !train.is_empty() && correct && in_train(pair, class);
            ScoredFact { score, correct, in_train }
        }));
    }
    ranked
}

/// Unique gold facts.
pub fn gold_facts(gold: &[Document]) -> usize {
    gold.iter().map(|document| document.facts().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_survive_the_wire() {
        let scores = DocumentScores {
            pairs: vec![(0, 1), (1, 0)],
            logits: vec![0.5; 6],
            evidence: vec![0.25, 0.5, 0.125, 1.0],
            attention: Vec::new(),
        };
        let sent = [scores.clone(), DocumentScores::default(), scores];
        assert_eq!(DocumentScores::decode(&DocumentScores::encode(&sent)), sent);
    }

    #[test]
    fn facts_name_the_evidence_of_their_pair() {
        let scores = DocumentScores {
            pairs: vec![(0, 1), (1, 0)],
            // TH, then two relations: the second pair has both.
            logits: vec![0.0, 1.0, -1.0, 0.0, 1.0, 2.0],
            evidence: vec![0.1, 0.3, 0.5, 0.1],
            attention: Vec::new(),
        };
        let classes = Classes { relations: 2, na: crate::systems::NaClass::First };
        let rule = EvidenceRule { threshold: 0.2, most: 0, fusion: None };
        let mut relations = RelationSet::default();
        for id in ["P1", "P2"] {
            relations.insert(id, id);
        }
        let decider = |evidence| Decider {
            classes,
            rule: DecisionRule::Adaptive { top: 4 },
            threshold: 0.5,
            evidence,
        };
        let found = |evidence| {
            let facts = decider(evidence).decide(&scores, "t", &relations);
            facts.into_iter().map(|fact| (fact.r, fact.evidence)).collect::<Vec<_>>()
        };
        let [one, two] = ["P1", "P2"].map(String::from);
        let named = [(one.clone(), vec![1]), (two, vec![0]), (one.clone(), vec![0])];
        assert_eq!(found(Some(rule)), named);
        assert_eq!(found(None)[0], (one, vec![]));
        // A system that does not attend has no numbers.
        let bare = DocumentScores { evidence: Vec::new(), ..scores.clone() };
        assert!(decider(Some(rule)).decide(&bare, "t", &relations)[0].evidence.is_empty());
    }
}
