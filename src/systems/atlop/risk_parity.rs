//! The SSR-PU cases: risks of classes, losses and gradients on given logits.

use std::sync::Arc;

use tch::Tensor;

use crate::Result;
use crate::parity::Case;
use crate::systems::positive_unlabelled::{ClassRisks, RiskTotals, risk_sum};
use crate::systems::reading::labelled_first;
use crate::systems::{Classes, NaClass, NegativeRisk, Pair, RiskKind, RiskRule, on};

pub(super) fn ssr_pu(case: &mut Case) -> Result<()> {
    let relations = case.number("/dims/relations")? as usize;
    let totals = compare_inputs(case, relations)?;
    let (labels, shape) = case.integers("labels")?;
    let targets: Vec<f32> = labels.iter().map(|&label| label as f32).collect();
    let targets = on(&targets, case.device())?.f_view(&shape[..])?;
    for scores in ["rank", "plain"] {
        for name in case.output_names(&format!("{scores}/")) {
            let Some((variant, "loss")) = name.rsplit_once('/') else { continue };
            let rule = rule(case, scores, variant)?;
            compare_variant(case, &rule, variant, scores, &targets, &totals)?;
        }
    }
    Ok(())
}

/// Pairs and labels from the documents, and the totals of the batch.
fn compare_inputs(case: &mut Case, relations: usize) -> Result<RiskTotals> {
    let (documents, _) = case.documents(&case.relations()?)?;
    let classes = Classes { relations, na: NaClass::First };
    let priors = Vec::<f64>::try_from(case.input("priors")?)?;
    let mut totals = RiskTotals::new(Arc::new(priors));
    let (mut pairs, mut labels) = (Vec::new(), Vec::new());
    for (index, document) in (0i64..).zip(&documents) {
        let own = labelled_first(document);
        let row = |pair: &Pair| [index, i64::from(pair.0), i64::from(pair.1)];
        pairs.extend(own.iter().flat_map(row));
        labels.extend(classes.targets(document, &own).iter().map(|&target| target as i64));
        totals.add(document, &own);
    }
    case.compare_input("pairs", &pairs)?;
    case.compare_input("labels", &labels)?;
    Ok(totals)
}

/// The loss of a variant such as `rank/S-PU` or `rank/S-PU-e12`.
fn rule(case: &Case, scores: &str, variant: &str) -> Result<RiskRule> {
    let own: f64 = case.stated("/switches/prior_multiple")?;
    let tag = variant.rsplit('/').next().unwrap_or_default();
    let (tag, prior_factor) = match tag.rsplit_once("-e") {
        Some((tag, factor)) => (tag, factor.parse().unwrap_or(own)),
        None => (tag, own),
    };
    let kind = match tag {
        "PN" => RiskKind::Pn,
        "PU" => RiskKind::Pu,
        "S-PU" => RiskKind::SPu,
        _ => return Err(case.error(format!("there is no loss `{variant}`"))),
    };
    Ok(RiskRule {
        kind,
        prior_factor,
        margin: case.stated(&format!("/switches/margin_{scores}"))?,
        factor: case.stated("/switches/square_factor")?,
        negative: NegativeRisk::Reverse,
        floor: case.stated("/switches/beta")?,
        reversal: case.stated("/switches/gamma")?,
    })
}

fn compare_variant(
    case: &mut Case,
    rule: &RiskRule,
    variant: &str,
    scores: &str,
    targets: &Tensor,
    totals: &RiskTotals,
) -> Result<()> {
    let given = case.input(&format!("{scores}/logits"))?.f_to_device(case.device())?;
    let given = given.f_detach()?.f_set_requires_grad(true)?;
    // Scores of their own are scores against a threshold class of 0.
    let logits = if scores == "plain" {
        Tensor::f_cat(&[given.f_narrow(1, 0, 1)?.f_zeros_like()?, given.shallow_clone()], 1)?
    } else {
        given.shallow_clone()
    };
    let pairs = logits.size()[0] as f64;
    let risks = ClassRisks::of(rule, &logits, targets, totals)?;
    for (part, ours) in [("risk1", &risks.negative), ("risk2", &risks.positive)] {
        let name = format!("{variant}/{part}");
        if case.has_output(&name) {
            case.compare(&name, ours)?;
        }
    }
    let loss = |rule: &RiskRule| -> Result<Tensor> {
        Ok(risk_sum(rule, &logits, targets, totals)?.f_div_scalar(pairs)?)
    };
    let paper = format!("{variant}/paper_loss");
    if case.has_output(&paper) {
        case.compare(&paper, &loss(&RiskRule { negative: NegativeRisk::Clamp, ..*rule })?)?;
    }
    let own = loss(rule)?;
    case.compare(&format!("{variant}/loss"), &own)?;
    let gradient = format!("grad/{variant}/logits");
    if case.has_output(&gradient) {
        own.f_backward()?;
        case.compare_gradient(&gradient, &given, false)?;
    }
    Ok(())
}
