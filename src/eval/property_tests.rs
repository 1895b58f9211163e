//! The metrics against formulas written down naively, on random corpora. Not for: parity with
//! published scripts, which the parity cases check.

use proptest::prelude::*;

use super::confusion::confusion;
use super::threshold::sorted;
use super::*;
use crate::corpus::{Document, Entity, Fact, Mention};

const RELATIONS: [&str; 3] = ["P17", "P9", "P131"];

/// (head, tail, relation, evidence)
type RandomFact = (usize, usize, usize, Vec<usize>);

fn random_facts(most: usize) -> impl Strategy<Value = Vec<RandomFact>> {
    proptest::collection::vec(
        (0..5usize, 0..5usize, 0..3usize, proptest::collection::vec(0..6usize, 0..4)),
        0..most,
    )
}

/// Up to four documents of five entities with one to three mentions each, in six sentences, and
/// their labels.
fn corpora() -> impl Strategy<Value = Vec<Document>> {
    let mentions = proptest::collection::vec(proptest::collection::vec(0..6usize, 1..4), 5);
    proptest::collection::vec((mentions, random_facts(12)), 1..5).prop_map(|raw| {
        let document =
            |(row, (mentions, facts)): (usize, (Vec<Vec<usize>>, Vec<RandomFact>))| Document {
                title: format!("d{row}"),
                entities: mentions.iter().enumerate().map(entity).collect(),
                facts: Some(facts.into_iter().map(label).collect()),
                ..Document::default()
            };
        raw.into_iter().enumerate().map(document).collect()
    })
}

fn entity((number, sentences): (usize, &Vec<usize>)) -> Entity {
    // Entities 0 and 3 share a name, so that fact sets find more than the entity asked about.
    let mention = |&sentence: &usize| Mention {
        name: format!("e{}", number % 3),
        sentence,
        ..Mention::default()
    };
    Entity { mentions: sentences.iter().map(mention).collect(), ..Entity::default() }
}

fn label((head, tail, relation, evidence): RandomFact) -> Fact {
    Fact { head, tail, relation: RELATIONS[relation].into(), evidence }
}

/// Predictions with repeats, unknown titles (`d5` and later) and entities that do not exist (5, 6).
fn submissions() -> impl Strategy<Value = Vec<Prediction>> {
    let one =
        (0..6usize, 0..7usize, 0..7usize, 0..3usize, proptest::collection::vec(0..6usize, 0..4));
    proptest::collection::vec(one, 0..60).prop_map(|raw| {
        raw.into_iter()
            .map(|(document, h_idx, t_idx, relation, evidence)| Prediction {
                title: format!("d{document}"),
                h_idx,
                t_idx,
                r: RELATIONS[relation].into(),
                evidence,
                score: None,
                confidence: None,
            })
            .collect()
    })
}

fn div(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

/// A fact as (document, head, tail, relation), naively.
type Naive = (String, usize, usize, String);

fn naive_gold(documents: &[Document]) -> Vec<Naive> {
    let mut facts = Vec::new();
    for document in documents {
        for fact in document.facts() {
            let key = (document.title.clone(), fact.head, fact.tail, fact.relation.clone());
            if !facts.contains(&key) {
                facts.push(key);
            }
        }
    }
    facts
}

fn naive_predictions(predictions: &[Prediction]) -> Vec<(Naive, Vec<usize>)> {
    let mut kept: Vec<(Naive, Vec<usize>)> = Vec::new();
    for prediction in predictions {
        let key =
            (prediction.title.clone(), prediction.h_idx, prediction.t_idx, prediction.r.clone());
        if kept.iter().all(|(other, _)| *other != key) {
            kept.push((key, prediction.evidence.clone()));
        }
    }
    kept
}

/// Smallest distance in sentences, and mean number of mentions, of a fact whose document and
/// entities exist.
fn naive_place(documents: &[Document], fact: &Naive) -> Option<(usize, f64)> {
    let document = documents.iter().find(|document| document.title == fact.0)?;
    let (head, tail) = (document.entities.get(fact.1)?, document.entities.get(fact.2)?);
    let mut least = usize::MAX;
    for a in &head.mentions {
        for b in &tail.mentions {
            least = least.min(a.sentence.abs_diff(b.sentence));
        }
    }
    Some((least, (head.mentions.len() + tail.mentions.len()) as f64 / 2.0))
}

proptest! {
    #[test]
    fn official_scores(documents in corpora(), predictions in submissions(), train in corpora()) {
        let gold = Gold::new(&documents).unwrap();
        let set = FactSet::from_documents(&train);
        let ours = score(
            &gold,
            &predictions,
            FactSets { annotated: Some(&set), distant: None },
            Scorer::Official,
        );
        let (truth, kept) = (naive_gold(&documents), naive_predictions(&predictions));
        let right: Vec<_> = kept.iter().filter(|(key, _)| truth.contains(key)).collect();
        let names = |documents: &[Document], title: &str, entity: usize| -> Vec<String> {
            let document = documents.iter().find(|document| document.title == title).unwrap();
            document.entities[entity].mentions.iter().map(|mention| mention.name.clone()).collect()
        };
        let known = |key: &Naive| {
            train.iter().any(|document| {
                document.facts().iter().any(|fact| {
                    let (heads, tails) = (
                        names(&train, &document.title, fact.head),
                        names(&train, &document.title, fact.tail),
                    );
                    fact.relation == key.3
                        && names(&documents, &key.0, key.1).iter().any(|name| heads.contains(name))
                        && names(&documents, &key.0, key.2).iter().any(|name| tails.contains(name))
                })
            })
        };
        let known = right.iter().filter(|(key, _)| known(key)).count();
        let (submitted, correct, total) =
            (kept.len() as f64, right.len() as f64, truth.len() as f64);
        let (p, r) = (div(correct, submitted), div(correct, total));
        prop_assert!(
            close(ours.precision, p)
                && close(ours.recall, r)
                && close(ours.f1, div(2.0 * p * r, p + r))
        );
        let p = div(correct - known as f64, submitted - known as f64);
        let ign = ours.ign_annotated.unwrap();
        prop_assert!(close(ign.precision, p) && close(ign.f1, div(2.0 * p * r, p + r)));

        let total: usize = documents
            .iter()
            .flat_map(|document| document.facts())
            .map(|fact| fact.evidence.len())
            .sum();
        let distinct =
            |evidence: &[usize]| (0..6).filter(|sentence| evidence.contains(sentence)).count();
        let known_title = |key: &Naive| documents.iter().any(|document| document.title == key.0);
        let predicted: usize = kept
            .iter()
            .filter(|(key, _)| known_title(key))
            .map(|(_, evidence)| distinct(evidence))
            .sum();
        let last = |key: &Naive| {
            let document = documents.iter().find(|document| document.title == key.0).unwrap();
            document
                .facts()
                .iter()
                .rev()
                .find(|fact| (fact.head, fact.tail, &fact.relation) == (key.1, key.2, &key.3))
                .unwrap()
                .evidence
                .clone()
        };
        let found: usize = right
            .iter()
            .map(|(key, evidence)| {
                let gold = last(key);
                (0..6)
                    .filter(|sentence| gold.contains(sentence) && evidence.contains(sentence))
                    .count()
            })
            .sum();
        let (p, r) = (div(found as f64, predicted as f64), div(found as f64, total as f64));
        prop_assert!(close(ours.evidence_f1, div(2.0 * p * r, p + r)));
    }

    #[test]
    fn break_downs(documents in corpora(), predictions in submissions()) {
        let gold = Gold::new(&documents).unwrap();
        let ours = breakdown(&gold, &predictions, &BreakdownOptions::default());
        let truth = naive_gold(&documents);
        let kept: Vec<Naive> =
            naive_predictions(&predictions).into_iter().map(|(key, _)| key).collect();
        let block = |belongs: &dyn Fn(usize, f64, &Naive) -> bool| {
            let inside = |key: &&Naive| {
                naive_place(&documents, key)
                    .is_some_and(|(distance, mentions)| belongs(distance, mentions, key))
            };
            let predicted: Vec<_> = kept.iter().filter(inside).collect();
            ScoreBlock::new(
                predicted.len(),
                truth.iter().filter(inside).count(),
                predicted.iter().filter(|key| truth.contains(key)).count(),
            )
        };
        prop_assert_eq!(ours.overall, block(&|_, _, _| true));
        prop_assert_eq!(ours.intra, block(&|distance, _, _| distance == 0));
        prop_assert_eq!(ours.inter, block(&|distance, _, _| distance > 0));
        prop_assert_eq!(
            ours.distance[1].block,
            block(&|distance, _, _| distance == 1 || distance == 2)
        );
        prop_assert_eq!(ours.distance[5].block, block(&|distance, _, _| distance > 5));
        prop_assert_eq!(
            ours.mentions[1].block,
            block(&|_, mentions, _| (2.0..4.0).contains(&mentions))
        );
        prop_assert_eq!(ours.frequent, block(&|_, _, key| key.3 != "P9"));
        for named in &ours.relations {
            prop_assert_eq!(named.block, block(&|_, _, key| key.3 == named.name));
        }
        // All pairs of a gold triangle, by three loops.
        let has = |title: &str, head, tail| {
            truth.iter().any(|key| key.0 == title && key.1 == head && key.2 == tail)
        };
        let distinct = |a, b, c| a != b && b != c && a != c;
        let member = |key: &&Naive| {
            (0..5).any(|o| {
                let (t, h, e) = (key.0.as_str(), key.1, key.2);
                distinct(h, o, e)
                    && (has(t, h, o) && has(t, o, e)
                        || has(t, e, o) && has(t, h, o)
                        || has(t, o, h) && has(t, o, e))
            })
        };
        prop_assert_eq!(ours.infer.members_strict.gold, truth.iter().filter(member).count());
    }

    #[test]
    fn best_prefix_by_trying_all(
        entries in proptest::collection::vec((0..6u8, any::<bool>(), any::<bool>()), 1..60),
        missed in 0..5usize,
    ) {
        let entry = |&(score, correct, in_train): &(u8, bool, bool)| ScoredFact {
            score: f32::from(score),
            correct,
            in_train,
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        let total = entries.iter().filter(|entry| entry.correct).count() + missed;
        let (ours, list) = (best_prefix(&entries, total).unwrap(), sorted(&entries));
        let f1 = |length: usize| {
            let right = list[..length].iter().filter(|entry| entry.correct).count() as f64;
            div(2.0 * right, length as f64 + total as f64)
        };
        let best = (1..=list.len()).map(f1).fold(0.0, f64::max);
        prop_assert!(close(ours.f1, best));
        prop_assert!((1..=ours.prefix).all(|length| f1(length) < best + 1e-12));
        prop_assert_eq!(ours.theta, list[ours.prefix].score);
        let above: Vec<_> =
            entries.iter().filter(|entry| entry.score > ours.theta).copied().collect();
        let at = at_theta(&entries, total, ours.theta);
        prop_assert_eq!(at.kept, above.len());
        prop_assert!(close(at.ign_f1, ours.ign_f1_above_theta));
    }

    #[test]
    fn confusion_counts_every_right_fact_once(
        documents in corpora(),
        predictions in submissions(),
    ) {
        let gold = Gold::new(&documents).unwrap();
        let cells = confusion(&gold, &predictions);
        let on_diagonal: usize =
            cells.iter().filter(|cell| cell.gold == cell.predicted).map(|cell| cell.pairs).sum();
        prop_assert_eq!(
            on_diagonal,
            score(&gold, &predictions, FactSets::default(), Scorer::Official).counts.correct
        );
        prop_assert!(cells.iter().all(|cell| cell.gold.is_some() || cell.predicted.is_some()));
    }
}
