//! Losses that take a pair without a label for unlabelled, not for negative (SSR-PU, Wang et al.
//! 2022; docs/systems.md, "P. SSR-PU").
//!
//! A class's risk has a part of the unlabelled pairs and a part of the labelled ones, each a mean
//! over the *global* batch, whose numbers of pairs are known before the forward pass
//! ([`RiskTotals`]). Not for: which system has such a loss (its settings).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::Profile;
use crate::sampling::{Pair, asked_pairs};
use crate::text::TokenizedDocument;
use crate::torch::on;
use crate::{Error, Result};

/// Priors of relations without a fact, so that no risk divides by 0.
const SMALLEST_PRIOR: f64 = 1e-9;

/// How the risk of the unlabelled pairs is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RiskKind {
    /// Unlabelled pairs are negative.
    Pn,
    /// Unlabelled pairs have the prior of all pairs.
    Pu,
    /// Unlabelled pairs have a prior of their own, without the labelled ones.
    SPu,
}

/// What becomes of a class whose estimated negative risk is too small to be one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NegativeRisk {
    /// It counts as 0 (paper).
    #[default]
    Clamp,
    /// The whole risk of the class becomes the negative one times −γ (release).
    Reverse,
}

impl NegativeRisk {
    /// What paper and release do.
    pub fn of(profile: Profile) -> Self {
        if profile == Profile::Code { Self::Reverse } else { Self::Clamp }
    }
}

/// One loss of this family.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskRule {
    /// The estimate.
    pub kind: RiskKind,
    /// e: the assumed prior of a relation over that of its labels.
    pub prior_factor: f64,
    /// m of the squared loss κ (f·y − m)².
    pub margin: f64,
    /// κ.
    pub factor: f64,
    /// What becomes of a negative risk that is too small.
    pub negative: NegativeRisk,
    /// β: the smallest negative risk, for [`NegativeRisk::Reverse`].
    pub floor: f64,
    /// γ, for the same.
    pub reversal: f64,
}

impl RiskRule {
    /// Refuses numbers without a meaning.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the setting.
    pub fn check(&self) -> Result<()> {
        let least = [
            ("prior_factor", self.prior_factor, 1.0),
            ("risk_margin", self.margin, 0.0),
            ("risk_factor", self.factor, 0.0),
            ("risk_floor", self.floor, 0.0),
            ("risk_reversal", self.reversal, 0.0),
        ];
        match least.iter().find(|(_, value, least)| !(value.is_finite() && value >= least)) {
            Some((key, value, least)) => Err(Error::recipe(format!("`{key}` is {value}"))
                .with_hint(format!("it must be a number of at least {least}"))),
            None => Ok(()),
        }
    }

    /// Whether a negative risk can be too small: it holds a difference.
    pub fn can_flip(&self) -> bool {
        let differs = match self.kind {
            RiskKind::Pn => return false,
            RiskKind::Pu => true,
            RiskKind::SPu => self.prior_factor > 1.0,
        };
        differs || (self.negative == NegativeRisk::Reverse && self.floor > 0.0)
    }

    /// Factors of E^u ℓ(f, −1), −E⁺ ℓ(f, −1) and E⁺ ℓ(f, +1) for a class with a labelled prior
    /// (docs/systems.md, P.2–P.5).
    fn factors(&self, prior: f64) -> [f64; 3] {
        let whole = self.prior_factor * prior;
        let unlabelled = (whole - prior) / (1.0 - prior);
        let positive = whole * ((1.0 - whole) / whole).sqrt();
        match self.kind {
            RiskKind::Pn => [1.0 - whole, 0.0, positive],
            RiskKind::Pu => [1.0, whole, positive],
            RiskKind::SPu => [
                (1.0 - whole) / (1.0 - unlabelled),
                (unlabelled - unlabelled * whole) / (1.0 - unlabelled),
                positive,
            ],
        }
    }
}

/// Labelled priors of the relations: facts of a relation over the pairs that are asked about, as a
/// batch has them on average. Each document counts with its weight.
///
/// # Errors
/// [`Error::Recipe`] where `prior_factor` makes a prior 1 or more; `name` names a relation.
pub fn labelled_priors(
    rule: &RiskRule,
    documents: impl Iterator<Item = (f64, Arc<TokenizedDocument>)>,
    relations: usize,
    name: impl Fn(usize) -> String,
) -> Result<Vec<f64>> {
    let (mut pairs, mut facts) = (0.0, vec![0.0; relations]);
    for (weight, document) in documents {
        let asked = asked_pairs(&document);
        pairs += weight * asked.len() as f64;
        add_positives(&document, &asked, weight, &mut facts);
    }
    let priors: Vec<f64> =
        facts.iter().map(|facts| (facts / f64::max(pairs, 1.0)).max(SMALLEST_PRIOR)).collect();
    match priors.iter().position(|prior| prior * rule.prior_factor >= 1.0) {
        Some(relation) => Err(Error::recipe(format!(
            "`prior_factor` is {}, but {:.3} of the pairs have the relation {}",
            rule.prior_factor,
            priors[relation],
            name(relation)
        ))
        .with_hint("the factor times the share of a relation must stay below 1")),
        None => Ok(priors),
    }
}

/// Adds the numbers of pairs that have each relation, times a weight.
fn add_positives(document: &TokenizedDocument, pairs: &[Pair], weight: f64, positives: &mut [f64]) {
    let pairs: ahash::AHashSet<Pair> = pairs.iter().copied().collect();
    let mut seen = ahash::AHashSet::new();
    for fact in &document.facts {
        let key = (fact.head, fact.tail, fact.relation);
        if pairs.contains(&(fact.head, fact.tail)) && seen.insert(key) {
            positives[fact.relation as usize] += weight;
        }
    }
}

/// What is known of a global batch before its forward pass.
#[derive(Clone, Debug)]
pub struct RiskTotals {
    /// Pairs.
    pairs: f64,
    /// Pairs that have each relation.
    positives: Vec<f64>,
    /// Labelled priors of the relations.
    priors: Arc<Vec<f64>>,
}

impl RiskTotals {
    /// Of no documents.
    pub fn new(priors: Arc<Vec<f64>>) -> Self {
        Self { pairs: 0.0, positives: vec![0.0; priors.len()], priors }
    }

    /// Adds a document with the pairs that are classified.
    pub fn add(&mut self, document: &TokenizedDocument, pairs: &[Pair]) {
        self.pairs += pairs.len() as f64;
        add_positives(document, pairs, 1.0, &mut self.positives);
    }

    /// Adds rows of targets [P × C], class 0 the threshold.
    #[cfg(test)]
    fn add_targets(&mut self, targets: &[f32]) {
        for row in targets.chunks_exact(self.priors.len() + 1) {
            self.pairs += 1.0;
            let positives = self.positives.iter_mut().zip(&row[1..]);
            positives.for_each(|(positives, &target)| *positives += f64::from(target));
        }
    }
}

/// The risks of the classes, `[R]` each, in doubles.
pub struct ClassRisks {
    /// R⁻.
    pub negative: Tensor,
    /// R⁺.
    pub positive: Tensor,
    /// The estimate by which a class is flipped: R⁻ with the means of these rows alone.
    own: Tensor,
}

impl ClassRisks {
    /// What logits [P, C] of a part of a batch add to the risks; multi-hot `targets` of the same
    /// shape, class 0 the threshold class.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn of(
        rule: &RiskRule,
        logits: &Tensor,
        targets: &Tensor,
        totals: &RiskTotals,
    ) -> Result<Self> {
        let (rows, classes) = logits.size2()?;
        if classes != totals.priors.len() as i64 + 1 {
            return Err(Error::Bug(format!(
                "{classes} classes, but priors of {} relations",
                totals.priors.len()
            )));
        }
        let double = |tensor: &Tensor| tensor.f_to_kind(Kind::Double);
        let scores =
            double(&logits.f_narrow(1, 1, classes - 1)?.f_sub(&logits.f_narrow(1, 0, 1)?)?)?;
        let labelled = double(&targets.f_narrow(1, 1, classes - 1)?)?;
        let loss = |sign: f64| -> Result<Tensor> {
            let distance = scores.f_mul_scalar(sign)?.f_sub_scalar(rule.margin)?;
            Ok(distance.f_square()?.f_mul_scalar(rule.factor)?)
        };
        let sum = |x: &Tensor| x.f_sum_dim_intlist(0, false, Kind::Double);
        let (if_negative, if_positive) = (loss(-1.0)?, loss(1.0)?);
        let of_labelled = sum(&if_negative.f_mul(&labelled)?)?;
        let of_unlabelled = sum(&if_negative.f_mul(&(1.0 - &labelled))?)?;
        let of_positives = sum(&if_positive.f_mul(&labelled)?)?;

        let device = logits.device();
        let factors: Vec<[f64; 3]> =
            totals.priors.iter().map(|&prior| rule.factors(prior)).collect();
        let over = |index: usize, number: &dyn Fn(f64) -> f64| -> Result<Tensor> {
            // A mean over nothing is 0.
            let weights = factors.iter().zip(&totals.positives).map(|(factors, &positives)| {
                let number = number(positives);
                if number > 0.0 { factors[index] / number } else { 0.0 }
            });
            on(&weights.collect::<Vec<_>>(), device)
        };
        let unlabelled = of_unlabelled.f_mul(&over(0, &|positives| totals.pairs - positives)?)?;
        let corrected = of_labelled.f_mul(&over(1, &|positives| positives)?)?;
        let positive = of_positives.f_mul(&over(2, &|positives| positives)?)?;

        let column = |index: usize| -> Result<Tensor> {
            on(&factors.iter().map(|factors| factors[index]).collect::<Vec<_>>(), device)
        };
        let here = sum(&labelled)?;
        let others = (rows as f64 - &here).f_clamp_min(1.0)?;
        let own = of_unlabelled
            .f_div(&others)?
            .f_mul(&column(0)?)?
            .f_sub(&of_labelled.f_div(&here.f_clamp_min(1.0)?)?.f_mul(&column(1)?)?)?
            .f_detach()?;
        Ok(Self { negative: unlabelled.f_sub(&corrected)?, positive, own })
    }

    /// The risk of each class under a rule.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn by_class(&self, rule: &RiskRule) -> Result<Tensor> {
        let risk = self.negative.f_add(&self.positive)?;
        let (limit, flipped) = match rule.negative {
            NegativeRisk::Clamp => (0.0, self.positive.shallow_clone()),
            NegativeRisk::Reverse => (rule.floor, self.negative.f_mul_scalar(-rule.reversal)?),
        };
        if rule.can_flip() {
            return Ok(flipped.f_where_self(&self.own.f_lt(limit)?, &risk)?);
        }
        Ok(risk)
    }
}

/// The loss of logits [P, C] as a sum that the number of pairs of the global batch divides
/// (docs/systems.md, P.6). 32 bits.
///
/// # Errors
/// If the shapes differ.
pub fn risk_sum(
    rule: &RiskRule,
    logits: &Tensor,
    targets: &Tensor,
    totals: &RiskTotals,
) -> Result<Tensor> {
    let risks = ClassRisks::of(rule, logits, targets, totals)?;
    let sum = risks.by_class(rule)?.f_sum(Kind::Double)?;
    Ok(sum.f_mul_scalar(totals.pairs)?.f_to_kind(Kind::Float)?)
}

#[cfg(test)]
mod tests;
