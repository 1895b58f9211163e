use tch::Device;

use super::*;
use crate::systems::reading::testing::document;
use crate::torch::rng::Generator;

const RELATIONS: usize = 4;

fn rule(kind: RiskKind) -> RiskRule {
    RiskRule {
        kind,
        prior_factor: 3.0,
        margin: 0.25,
        factor: 0.25,
        negative: NegativeRisk::Clamp,
        floor: 0.0,
        reversal: 1.0,
    }
}

/// Targets of twelve pairs: relation 0 twice, 1 once with another relation, 3 never.
fn targets() -> Vec<f32> {
    let mut rows = vec![0.0; 12 * (RELATIONS + 1)];
    for (pair, class) in [(0, 1), (5, 1), (5, 2), (7, 3), (8, 3), (9, 3)] {
        rows[pair * (RELATIONS + 1) + class] = 1.0;
    }
    rows
}

fn totals(targets: &[f32]) -> RiskTotals {
    let mut totals = RiskTotals::new(Arc::new(vec![0.05, 0.02, 0.1, SMALLEST_PRIOR]));
    totals.add_targets(targets);
    totals
}

fn tensors(targets: &[f32]) -> (Tensor, Tensor) {
    let shape = [targets.len() as i64 / (RELATIONS as i64 + 1), RELATIONS as i64 + 1];
    let logits = Generator::of_test(4).randn([12, 5]).narrow(0, 0, shape[0]);
    (logits, Tensor::from_slice(targets).view(shape))
}

fn value(rule: &RiskRule, logits: &Tensor, targets: &Tensor, totals: &RiskTotals) -> f64 {
    risk_sum(rule, logits, targets, totals).unwrap().double_value(&[]) / totals.pairs
}

/// Every mean, factor and sign by the formulas, class by class and pair by pair.
#[test]
fn risks_are_those_of_the_formulas() {
    let rows = targets();
    let ((logits, targets), totals) = (tensors(&rows), totals(&rows));
    for kind in [RiskKind::Pn, RiskKind::Pu, RiskKind::SPu] {
        let rule = rule(kind);
        let risks = ClassRisks::of(&rule, &logits, &targets, &totals).unwrap();
        for relation in 0..RELATIONS {
            let score = |pair: i64| {
                logits.double_value(&[pair, relation as i64 + 1]) - logits.double_value(&[pair, 0])
            };
            let loss = |pair: i64, y: f64| 0.25 * (score(pair) * y - 0.25).powi(2);
            let holds = |pair: &i64| rows[*pair as usize * 5 + relation + 1] > 0.5;
            let mean = |of: bool, y: f64| {
                let pairs: Vec<i64> = (0..12).filter(|pair| holds(pair) == of).collect();
                let sum: f64 = pairs.iter().map(|&pair| loss(pair, y)).sum();
                if pairs.is_empty() { 0.0 } else { sum / pairs.len() as f64 }
            };
            let prior = totals.priors[relation];
            let whole = 3.0 * prior;
            let rest = (whole - prior) / (1.0 - prior);
            let negative = match kind {
                RiskKind::Pn => (1.0 - whole) * mean(false, -1.0),
                RiskKind::Pu => mean(false, -1.0) - whole * mean(true, -1.0),
                RiskKind::SPu => {
                    (1.0 - whole) / (1.0 - rest) * mean(false, -1.0)
                        - (rest - rest * whole) / (1.0 - rest) * mean(true, -1.0)
                }
            };
            let positive = whole * mean(true, 1.0) * ((1.0 - whole) / whole).sqrt();
            let close = |ours: &Tensor, expected: f64| {
                let ours = ours.double_value(&[relation as i64]);
                assert!((ours - expected).abs() < 1e-6, "{kind:?} {relation}: {ours} {expected}");
            };
            close(&risks.negative, negative);
            close(&risks.positive, positive);
        }
    }
}

/// A class with confident negatives has a negative risk below 0.
#[test]
fn a_risk_below_0_is_clamped_in_the_paper_and_reversed_in_the_release() {
    let rows = targets();
    let totals = totals(&rows);
    let targets = Tensor::from_slice(&rows).view([12, 5]);
    let logits = (&targets * 3.0 - 0.25).set_requires_grad(true);
    let _threshold = tch::no_grad(|| logits.narrow(1, 0, 1).fill_(0.0));
    let pu = rule(RiskKind::Pu);
    let risks = ClassRisks::of(&pu, &logits, &targets, &totals).unwrap();
    let negative: Vec<f64> = Vec::try_from(&risks.negative).unwrap();
    let positive: Vec<f64> = Vec::try_from(&risks.positive).unwrap();
    assert!(negative[..3].iter().all(|&risk| risk < -1e-3), "{negative:?}");
    let sum = |risk: &dyn Fn(usize) -> f64| (0..RELATIONS).map(risk).sum::<f64>();
    let clamped = value(&pu, &logits, &targets, &totals);
    assert!((clamped - sum(&|r| negative[r].max(0.0) + positive[r])).abs() < 1e-6);
    let reversed = RiskRule { negative: NegativeRisk::Reverse, reversal: 0.5, ..pu };
    let expected = |r: usize| {
        if negative[r] < 0.0 { -0.5 * negative[r] } else { negative[r] + positive[r] }
    };
    let ours = value(&reversed, &logits, &targets, &totals);
    assert!((ours - sum(&expected)).abs() < 1e-6);
    // A floor flips classes that are only small.
    let floor = RiskRule { floor: 1e9, ..reversed };
    let all = value(&floor, &logits, &targets, &totals);
    assert!((all - sum(&|r| -0.5 * negative[r])).abs() < 1e-6);
}

#[test]
fn with_complete_labels_the_shifted_risk_is_that_of_negatives() {
    let rows = targets();
    let ((logits, targets), totals) = (tensors(&rows), totals(&rows));
    let complete = |kind| RiskRule { prior_factor: 1.0, ..rule(kind) };
    assert!(!complete(RiskKind::SPu).can_flip() && !rule(RiskKind::Pn).can_flip());
    assert!(rule(RiskKind::SPu).can_flip() && complete(RiskKind::Pu).can_flip());
    let of = |kind| value(&complete(kind), &logits, &targets, &totals);
    assert!((of(RiskKind::SPu) - of(RiskKind::Pn)).abs() < 1e-7);
}

#[test]
fn parts_of_a_batch_add_up_to_the_whole() {
    let rows = targets();
    let ((logits, targets), totals) = (tensors(&rows), totals(&rows));
    let rule = rule(RiskKind::Pn);
    let gradient = |cuts: &[i64]| {
        let leaf = logits.detach().set_requires_grad(true);
        let mut sum = 0.0;
        for cut in cuts.windows(2) {
            let part = |x: &Tensor| x.narrow(0, cut[0], cut[1] - cut[0]);
            let loss = risk_sum(&rule, &part(&leaf), &part(&targets), &totals).unwrap();
            sum += loss.double_value(&[]);
            loss.backward();
        }
        (sum, leaf.grad())
    };
    let (whole, expected) = gradient(&[0, 12]);
    for cuts in [&[0, 5, 12][..], &[0, 1, 6, 8, 12]] {
        let (sum, ours) = gradient(cuts);
        assert!((sum - whole).abs() < 1e-5, "{sum} {whole}");
        assert!((ours - &expected).abs().max().double_value(&[]) < 1e-6);
    }
}

#[test]
fn no_pairs_cost_nothing() {
    let none = Tensor::zeros([0, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let loss = risk_sum(&rule(RiskKind::SPu), &none, &none.detach(), &totals(&[])).unwrap();
    assert_eq!(loss.double_value(&[]), 0.0);
    loss.backward();
    let wrong = Tensor::zeros([2, 4], (Kind::Float, Device::Cpu));
    assert!(risk_sum(&rule(RiskKind::Pn), &wrong, &wrong, &totals(&[])).is_err());
}

#[test]
fn priors_are_facts_over_pairs_and_refuse_an_impossible_factor() {
    // Six pairs with two facts of relation 1, one of them listed twice, and two pairs without any.
    let facts = [(0, 1, 1), (2, 1, 1), (0, 1, 1), (0, 1, 0)];
    let documents = || {
        [
            document(9, &[&[(0, 1)], &[(3, 4)], &[(6, 7)]], &facts),
            document(5, &[&[(0, 1)], &[(3, 4)]], &[]),
        ]
        .into_iter()
        .map(|document| (1.0, Arc::new(document)))
    };
    let name = |relation: usize| format!("R{relation}");
    let priors = labelled_priors(&rule(RiskKind::SPu), documents(), 3, name).unwrap();
    assert_eq!(priors, [0.125, 0.25, SMALLEST_PRIOR]);
    // In a batch, the second document stands for four.
    let weighted = documents().zip([1.0, 4.0]).map(|((_, document), weight)| (weight, document));
    let priors = labelled_priors(&rule(RiskKind::SPu), weighted, 3, name).unwrap();
    assert_eq!(priors[1], 2.0 / 14.0);
    let much = RiskRule { prior_factor: 4.0, ..rule(RiskKind::SPu) };
    let error = labelled_priors(&much, documents(), 3, name).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("R1") && told.contains("prior_factor"), "{told}");
}

#[test]
fn numbers_without_a_meaning_are_named() {
    let own = rule(RiskKind::Pu);
    own.check().unwrap();
    for (wrong, key) in [
        (RiskRule { prior_factor: 0.5, ..own }, "prior_factor"),
        (RiskRule { margin: f64::NAN, ..own }, "risk_margin"),
        (RiskRule { reversal: -1.0, ..own }, "risk_reversal"),
    ] {
        assert!(wrong.check().unwrap_err().to_string().contains(key));
    }
}
