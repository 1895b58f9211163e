//! The UGDRE cases: passes with dropout → uncertainties → thresholds → relabelled facts.

use std::collections::BTreeSet;

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::pairs::compare_labels;
use crate::Result;
use crate::distant::{
    ClassThresholds, PassStatistics, PseudoLabel, ThresholdSums, UncertaintyIndex, pseudo_labels,
    relabelled,
};
use crate::parity::{Case, CaseKind};
use crate::systems::reading::{adaptive_labels, labelled_first};
use crate::systems::{Classes, NaClass};

/// How the cases are recomputed.
pub(crate) const RELABELLING: CaseKind = CaseKind { system: "ugdre", compute: relabelling };

/// (title, head, tail, relation)
type ListedFact = (String, usize, usize, String);

/// `relabelled.json`.
#[derive(Deserialize)]
struct Expected {
    distant: Vec<ListedFact>,
    code: Vec<ListedFact>,
    fixed: Vec<ListedFact>,
    /// With the release's uncertainty and that of the class.
    code_predictions: Vec<(String, usize, usize, String, f64, f64)>,
}

/// One pair of the case.
struct CasePair {
    title: String,
    head: usize,
    tail: usize,
    distant: Vec<usize>,
    predicted: Vec<usize>,
}

fn relabelling(case: &mut Case) -> Result<()> {
    let statistics = statistics(case)?;
    let classes = case.number("/dims/classes")?;
    let rows = |numbers: &[f32]| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(numbers)?.f_view([-1, classes])?)
    };
    let (means, deviations) = (statistics.means(), statistics.deviations());
    case.compare("mean_logits", &rows(&means)?)?;
    case.compare("std_logits", &rows(&deviations)?)?;
    let top = case.number("/switches/num_labels")? as usize;
    let decoded = adaptive_labels(&rows(&means)?, top)?;
    compare_labels(case, "decoded", &decoded)?;
    let predicted = Vec::<i64>::try_from(decoded.f_to_kind(Kind::Int64)?.f_view([-1])?)?;
    let pairs = pairs(case, classes as usize, &predicted)?;
    let expected: Expected = case.json("relabelled.json")?;
    compare_predictions(case, &pairs, &expected)?;
    compare_facts(
        case,
        "distant",
        &facts(case, &pairs, |_, pair| pair.distant.clone())?,
        &expected.distant,
    );
    for (name, index, reference) in [
        ("code", UncertaintyIndex::Ordinal, &expected.code),
        ("fixed", UncertaintyIndex::Class, &expected.fixed),
    ] {
        let labels: Vec<Vec<PseudoLabel>> = pairs
            .iter()
            .zip(deviations.chunks_exact(classes as usize))
            .map(|(pair, deviations)| pseudo_labels(&pair.predicted, deviations, index))
            .collect();
        let mut dense = vec![0.0; deviations.len()];
        let mut sums = ThresholdSums::new(classes as usize);
        for (row, labels) in labels.iter().enumerate() {
            sums.add(labels);
            labels
                .iter()
                .for_each(|label| dense[row * classes as usize + label.class] = label.uncertainty);
        }
        case.compare(&format!("{name}/uncertainty"), &rows(&dense)?)?;
        let thresholds = sums.finish();
        compare_thresholds(case, name, &thresholds)?;
        let effective = facts(case, &pairs, |row, pair| {
            let new = relabelled(&pair.distant, &labels[row], &thresholds);
            new.unwrap_or_else(|| pair.distant.clone())
        })?;
        compare_facts(case, name, &effective, reference);
    }
    Ok(())
}

/// Mean and deviation of the logits of the given passes.
fn statistics(case: &Case) -> Result<PassStatistics> {
    let passes = case.input("mc_logits")?;
    let mut statistics = PassStatistics::default();
    for pass in 0..passes.size()[0] {
        let numbers = passes.f_get(pass)?.f_to_kind(Kind::Float)?.f_reshape([-1])?;
        statistics.add(&Vec::<f32>::try_from(numbers)?)?;
    }
    Ok(statistics)
}

/// The pairs of the documents with their distant labels, which the case's must equal, and the
/// classes that are predicted.
fn pairs(case: &mut Case, count: usize, predicted: &[i64]) -> Result<Vec<CasePair>> {
    let (documents, _) = case.documents(&case.relations()?)?;
    let classes = Classes { relations: count - 1, na: NaClass::First };
    let (mut pairs, mut rows, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (index, document) in (0i64..).zip(&documents) {
        let own = labelled_first(document);
        let targets = classes.targets(document, &own);
        for (&(head, tail), targets) in own.iter().zip(targets.chunks_exact(count)) {
            let row = &predicted[pairs.len() * count..][..count];
            rows.extend([index, i64::from(head), i64::from(tail)]);
            labels.extend(targets.iter().map(|&target| target as i64));
            pairs.push(CasePair {
                title: document.title.clone(),
                head: head as usize,
                tail: tail as usize,
                distant: (1..count).filter(|&class| targets[class] > 0.5).collect(),
                predicted: (1..count).filter(|&class| row[class] == 1).collect(),
            });
        }
    }
    case.compare_input("pairs", &rows)?;
    case.compare_input("labels", &labels)?;
    Ok(pairs)
}

/// The facts of all pairs whose labels `labels` gives.
fn facts(
    case: &Case,
    pairs: &[CasePair],
    labels: impl Fn(usize, &CasePair) -> Vec<usize>,
) -> Result<BTreeSet<ListedFact>> {
    let relations = case.relations()?;
    let mut facts = BTreeSet::new();
    for (row, pair) in pairs.iter().enumerate() {
        for class in labels(row, pair) {
            let relation = relations.get(class - 1);
            let relation = relation.ok_or_else(|| case.error(format!("no class {class}")))?;
            facts.insert((pair.title.clone(), pair.head, pair.tail, relation.id.clone()));
        }
    }
    Ok(facts)
}

/// The number of facts, and how many are in one list and not in the other.
fn compare_facts(
    case: &mut Case,
    name: &str,
    ours: &BTreeSet<ListedFact>,
    reference: &[ListedFact],
) {
    let theirs: BTreeSet<ListedFact> = reference.iter().cloned().collect();
    let different = ours.symmetric_difference(&theirs).count() as i64;
    let sizes = [ours.len() as i64, different];
    case.compare_integers(&format!("{name} facts"), &sizes, &[theirs.len() as i64, 0]);
}

/// The pseudo labels before any is left out.
fn compare_predictions(case: &mut Case, pairs: &[CasePair], expected: &Expected) -> Result<()> {
    let ours = facts(case, pairs, |_, pair| pair.predicted.clone())?;
    let listed = expected.code_predictions.iter();
    let theirs: Vec<ListedFact> = listed
        .map(|(title, head, tail, relation, ..)| (title.clone(), *head, *tail, relation.clone()))
        .collect();
    compare_facts(case, "predicted", &ours, &theirs);
    Ok(())
}

/// The reference writes −1 for a threshold that is not defined.
fn compare_thresholds(case: &mut Case, name: &str, thresholds: &ClassThresholds) -> Result<()> {
    let ours: Vec<f64> = thresholds.0.iter().map(|threshold| threshold.unwrap_or(-1.0)).collect();
    case.compare(&format!("{name}/thresholds"), &Tensor::f_from_slice(&ours)?)
}
