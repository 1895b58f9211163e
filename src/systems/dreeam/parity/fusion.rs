//! The fusion case: pseudo documents, the second run over them, and the facts of both runs. Its
//! lists of made-up scores show what the release does at a threshold that it is given.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use tch::Tensor;

use super::shared::{compare_evidence, compare_top, rows};
use crate::corpus::RelationSet;
use crate::parity::{Case, lengths};
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::dreeam::Dreeam;
use crate::systems::dreeam::layout::DreeamTables;
use crate::systems::fusion::{
    FusedFacts, FusionForm, PseudoDocument, pseudo_documents, relative_scores,
};
use crate::systems::reading::labelled_first;
use crate::systems::{Example, Extractor, Pair, RelationBatch, ScoredBatch, tables};
use crate::text::TokenizedDocument;
use crate::{Error, Result};

/// Title, head, tail, relation.
type NamedFact = (String, u32, u32, String);
/// The same with a relative score.
type ScoredRow = (String, u32, u32, String, f32);

/// An entry of `pseudo.json`.
#[derive(Deserialize)]
struct PseudoRow {
    document: usize,
    source_sentences: Vec<u32>,
    input_ids: Vec<i64>,
    sentences: Vec<(i64, i64)>,
    mentions: Vec<Vec<(i64, i64)>>,
    entity_map: Vec<u32>,
}

/// `fused.json`.
#[derive(Deserialize)]
struct FusedRuns {
    full: BTreeSet<NamedFact>,
    pseudo: BTreeSet<NamedFact>,
    fused: BTreeSet<NamedFact>,
    threshold: f32,
}

/// A document of `lists.json`.
#[derive(Deserialize)]
struct ListedDocument {
    title: String,
    gold: Vec<(u32, u32, String)>,
}

/// `lists.json`.
#[derive(Deserialize)]
struct ScoreLists {
    dev_docs: Vec<ListedDocument>,
    test_docs: Vec<ListedDocument>,
    dev_full: Vec<ScoredRow>,
    dev_pseudo: Vec<ScoredRow>,
    test_full: Vec<ScoredRow>,
    test_pseudo: Vec<ScoredRow>,
}

/// `lists_expected.json`.
#[derive(Deserialize)]
struct ExpectedLists {
    threshold: f32,
    dev_f1: f64,
    dev_fused: BTreeSet<NamedFact>,
    test_without_gold: BTreeSet<NamedFact>,
    test_with_gold: BTreeSet<NamedFact>,
    dev_again: BTreeSet<NamedFact>,
    fixed_dev: BTreeSet<NamedFact>,
    fixed_test: BTreeSet<NamedFact>,
}

pub(super) fn compare(
    case: &mut Case,
    system: &Dreeam,
    documents: &[TokenizedDocument],
    batch: &RelationBatch,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let top = system.settings().num_labels;
    let scored = system.scored(batch, EVALUATION)?;
    compare_top(case, "", &scored.logits, top)?;
    compare_evidence(case, system, &scored)?;
    let made = pseudo_of(case, system, documents, &scored)?;
    let batch = second_batch(system, &made)?;
    compare_pseudo(case, &made, &batch)?;
    let second = system.scored(&batch, EVALUATION)?.logits;
    compare_top(case, "pseudo/", &second, top)?;
    let relations = case.relations()?;
    let full = Run {
        documents: documents.iter().map(|document| (document, None)).collect(),
        pairs: documents.iter().map(labelled_first).collect(),
        rows: rows(&scored.logits)?,
    };
    let pseudo = Run {
        documents: made
            .iter()
            .map(|(_, made)| (&made.document, Some(&made.entities[..])))
            .collect(),
        pairs: made.iter().map(|(_, made)| crate::sampling::asked_pairs(&made.document)).collect(),
        rows: rows(&second)?,
    };
    compare_runs(case, [full.facts(top, &relations), pseudo.facts(top, &relations)], documents)?;
    compare_lists(case)
}

/// The pseudo documents of all documents, with the number of each one's document.
fn pseudo_of(
    case: &Case,
    system: &Dreeam,
    documents: &[TokenizedDocument],
    scored: &ScoredBatch,
) -> Result<Vec<(usize, PseudoDocument)>> {
    let (Some(weights), Some(rule)) = (&scored.evidence, system.evidence()) else {
        return Err(case.error("no evidence was computed"));
    };
    let rows = weights.to_rows()?;
    let (mut rest, mut made) = (rows.iter(), Vec::new());
    for (number, document) in documents.iter().enumerate() {
        let pairs = labelled_first(document);
        let own = rest.by_ref().take(pairs.len()).map(|row| rule.sentences(row));
        let evidence: Vec<(Pair, Vec<usize>)> = pairs.iter().copied().zip(own).collect();
        made.extend(pseudo_documents(document, evidence).into_iter().map(|made| (number, made)));
    }
    Ok(made)
}

/// All pairs of all pseudo documents.
fn second_batch(system: &Dreeam, made: &[(usize, PseudoDocument)]) -> Result<RelationBatch> {
    let layout = system.layout();
    let example = |(_, made): &(usize, PseudoDocument)| {
        let document = Arc::new(made.document.clone());
        let pairs = layout.evaluation_pairs(&document)?;
        Ok(Example { document, pairs, visit: 0, train: false })
    };
    let examples: Vec<Example> = made.iter().map(example).collect::<Result<_>>()?;
    RelationBatch::new(&*layout, &examples, system.classes(), system.loss())
}

/// Pieces, sentences, mentions and entities of the pseudo documents.
fn compare_pseudo(
    case: &mut Case,
    made: &[(usize, PseudoDocument)],
    batch: &RelationBatch,
) -> Result<()> {
    let expected: Vec<PseudoRow> = case.json("pseudo.json")?;
    let laid: &DreeamTables = tables(&batch.tables)?;
    let views = &laid.reading.documents.views;
    let mut compare = |name: &str, ours: Vec<i64>, theirs: Vec<i64>| {
        case.compare_integers(&format!("pseudo.json/{name}"), &ours, &theirs);
    };
    let all = |of: fn(&PseudoRow) -> Vec<i64>| expected.iter().flat_map(of).collect::<Vec<_>>();
    let ours =
        |of: fn(&(usize, PseudoDocument)) -> Vec<i64>| made.iter().flat_map(of).collect::<Vec<_>>();
    let wide = |values: &[u32]| values.iter().map(|&value| i64::from(value)).collect::<Vec<_>>();
    compare("document", ours(|made| vec![made.0 as i64]), all(|row| vec![row.document as i64]));
    let sources = made.iter().flat_map(|(_, made)| wide(&made.sentences)).collect();
    let theirs = expected.iter().flat_map(|row| wide(&row.source_sentences)).collect();
    compare("source_sentences", sources, theirs);
    let entities = made.iter().flat_map(|(_, made)| wide(&made.entities)).collect();
    let theirs = expected.iter().flat_map(|row| wide(&row.entity_map)).collect();
    compare("entity_map", entities, theirs);
    compare("lengths", lengths(&views.offsets), all(|row| vec![row.input_ids.len() as i64]));
    compare("input_ids", views.ids.clone(), all(|row| row.input_ids.clone()));
    let ranges = laid.reading.sentences.iter().flatten();
    let own = ranges.flat_map(|&(first, tokens)| {
        [i64::from(first) - 1, i64::from(first) - 1 + i64::from(tokens)]
    });
    let flat = |row: &PseudoRow| row.sentences.iter().flat_map(|&(a, b)| [a, b]).collect();
    compare("sentences", own.collect(), all(flat));
    // The start of each mention; where an entity has fewer than the most, the table is filled up.
    let starts = laid.reading.mention_starts.iter().zip(&laid.reading.mention_mask);
    let width = laid.reading.mention_width;
    let first_of = |entity: usize| {
        let document = views.entity_offsets.partition_point(|&offset| offset <= entity) - 1;
        views.offsets[document]
    };
    let own = starts.enumerate().filter(|(_, (_, mask))| **mask > 0.0);
    let own = own.map(|(place, (start, _))| start - first_of(place / width) - 1);
    let flat = |row: &PseudoRow| row.mentions.iter().flatten().map(|&(start, _)| start).collect();
    compare("mentions", own.collect(), all(flat));
    Ok(())
}

/// A run over some documents.
struct Run<'a> {
    /// With the entities of the whole document that theirs are, where these are others.
    documents: Vec<(&'a TokenizedDocument, Option<&'a [u32]>)>,
    pairs: Vec<Vec<Pair>>,
    rows: Vec<Vec<f32>>,
}

impl Run<'_> {
    /// The largest classes of every pair with their relative scores, NA left out.
    fn facts(&self, top: usize, relations: &RelationSet) -> Vec<(NamedFact, f32)> {
        let mut rows = self.rows.iter();
        let mut facts = Vec::new();
        for (&(document, entities), pairs) in self.documents.iter().zip(&self.pairs) {
            let whole = |entity: u32| entities.map_or(entity, |map| map[entity as usize]);
            for &(head, tail) in pairs {
                for (class, score) in relative_scores(rows.next().map_or(&[], |row| row), top) {
                    let relation = class.checked_sub(1).and_then(|index| relations.get(index));
                    let Some(relation) = relation else { continue };
                    let title = document.title.clone();
                    facts.push(((title, whole(head), whole(tail), relation.id.clone()), score));
                }
            }
        }
        facts
    }
}

/// Facts as sets: how many there are, and how many are in one of the sets alone.
fn compare_facts(
    case: &mut Case,
    name: &str,
    ours: impl IntoIterator<Item = NamedFact>,
    theirs: &BTreeSet<NamedFact>,
) {
    let ours: BTreeSet<NamedFact> = ours.into_iter().collect();
    let different = ours.symmetric_difference(theirs).count() as i64;
    case.compare_integers(name, &[ours.len() as i64, different], &[theirs.len() as i64, 0]);
}

fn names(facts: Vec<(NamedFact, f32)>) -> impl Iterator<Item = NamedFact> {
    facts.into_iter().map(|(fact, _)| fact)
}

/// Predictions of both runs, and of their fusion with a threshold from the documents' own labels.
fn compare_runs(
    case: &mut Case,
    runs: [Vec<(NamedFact, f32)>; 2],
    documents: &[TokenizedDocument],
) -> Result<()> {
    let expected: FusedRuns = case.json("fused.json")?;
    let [full, pseudo] = runs;
    let positive = |facts: &[(NamedFact, f32)]| {
        let kept = facts.iter().filter(|(_, score)| *score > 0.0).cloned();
        kept.collect::<Vec<_>>()
    };
    compare_facts(case, "fused.json/full", names(positive(&full)), &expected.full);
    compare_facts(case, "fused.json/pseudo", names(positive(&pseudo)), &expected.pseudo);
    let relations = case.relations()?;
    let gold: BTreeSet<NamedFact> = documents
        .iter()
        .flat_map(|document| document.facts.iter().map(move |fact| (document, fact)))
        .filter_map(|(document, fact)| {
            let relation = relations.get(fact.relation as usize)?;
            Some((document.title.clone(), fact.head, fact.tail, relation.id.clone()))
        })
        .collect();
    let mut fused = FusedFacts::default();
    fused.add(full, pseudo);
    let chosen = fused.choose(FusionForm::Above, gold.len(), |fact| gold.contains(fact));
    let threshold = chosen.map_or(f32::NAN, |chosen| chosen.threshold);
    compare_facts(case, "fused.json/fused", names(fused.chosen(chosen)), &expected.fused);
    let threshold = Tensor::f_from_slice(&[threshold])?;
    case.compare_with(
        "fused.json/threshold",
        &threshold,
        &Tensor::f_from_slice(&[expected.threshold])?,
    )?;
    case.compare("threshold", &threshold)
}

/// Choosing and applying a threshold on made-up scores.
fn compare_lists(case: &mut Case) -> Result<()> {
    let lists: ScoreLists = case.json("lists.json")?;
    let expected: ExpectedLists = case.json("lists_expected.json")?;
    let gold = |documents: &[ListedDocument]| -> BTreeSet<NamedFact> {
        let facts = documents.iter().flat_map(|document| {
            let title = &document.title;
            document.gold.iter().map(move |(h, t, r)| (title.clone(), *h, *t, r.clone()))
        });
        facts.collect()
    };
    let fused = |full: Vec<ScoredRow>, pseudo: Vec<ScoredRow>| {
        let [full, pseudo] = [full, pseudo].map(|rows| {
            let related = rows.into_iter().filter(|row| !crate::corpus::is_no_relation(&row.3));
            related.map(|(title, h, t, r, score)| ((title, h, t, r), score)).collect()
        });
        let mut facts = FusedFacts::default();
        facts.add(full, pseudo);
        facts
    };
    let (dev_gold, test_gold) = (gold(&lists.dev_docs), gold(&lists.test_docs));
    let (dev, test) =
        (fused(lists.dev_full, lists.dev_pseudo), fused(lists.test_full, lists.test_pseudo));
    let chosen = dev
        .choose(FusionForm::Above, dev_gold.len(), |fact| dev_gold.contains(fact))
        .ok_or_else(|| Error::Bug("the lists have no candidates".into()))?;
    let scores = |values: [f64; 2]| Tensor::f_from_slice(&values);
    case.compare_with(
        "lists/threshold and F1",
        &scores([chosen.threshold.into(), chosen.f1])?,
        &scores([expected.threshold.into(), expected.dev_f1])?,
    )?;
    compare_facts(case, "lists/dev_fused", names(dev.chosen(Some(chosen))), &expected.dev_fused);
    let threshold = chosen.threshold;
    let [above, at_least] = [FusionForm::Above, FusionForm::AtLeast];
    let own = names(test.at(above, Some(threshold)));
    compare_facts(case, "lists/test_without_gold", own, &expected.test_without_gold);
    let own = with_gold(&test, threshold, &test_gold);
    compare_facts(case, "lists/test_with_gold", own, &expected.test_with_gold);
    let own = with_gold(&dev, threshold, &dev_gold);
    compare_facts(case, "lists/dev_again", own, &expected.dev_again);
    let chosen = dev.choose(at_least, dev_gold.len(), |fact| dev_gold.contains(fact));
    let threshold = chosen.map(|chosen| chosen.threshold);
    compare_facts(case, "lists/fixed_dev", names(dev.at(at_least, threshold)), &expected.fixed_dev);
    let own = names(test.at(at_least, threshold));
    compare_facts(case, "lists/fixed_test", own, &expected.fixed_test);
    Ok(())
}

/// What the release keeps where it has labels at hand: everything down to the smallest of the
/// candidates above the threshold, and wrong ones are smaller than right ones.
fn with_gold(
    facts: &FusedFacts<NamedFact>,
    threshold: f32,
    gold: &BTreeSet<NamedFact>,
) -> Vec<NamedFact> {
    let ranked = facts.ranked();
    let above = (0..ranked.len()).filter(|&place| ranked[place].1 > threshold);
    let last = above.min_by(|&a, &b| {
        let [(a, x), (b, y)] = [ranked[a], ranked[b]];
        gold.contains(a).cmp(&gold.contains(b)).then(x.total_cmp(y)).then_with(|| a.cmp(b))
    });
    let outright = facts.at(FusionForm::Above, None);
    let kept = ranked.into_iter().take(last.map_or(0, |last| last + 1)).cloned();
    outright.into_iter().chain(kept).map(|(fact, _)| fact).collect()
}
