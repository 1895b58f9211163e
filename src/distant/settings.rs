//! Settings of distant documents: how they are taught, and what becomes of their labels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClassThresholds, LabelRule, LabelRules, RuleThresholds};
use crate::{Error, Result};

/// Distant documents that a teacher judges, and what becomes of their labels in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DistantSettings {
    /// What becomes of the labels of documents that a teacher has judged.
    pub rule: LabelRule,
    /// Whether labels that a rule drops are left out of the loss, rather than being negatives.
    pub ignore_dropped: bool,
    /// Weight in the loss of soft targets of relations without a label.
    pub soft_weight: f32,
    /// How often a student's epoch visits each annotated document beside the taught ones; 0: not at
    /// all.
    pub human_weight: f64,
    /// The teacher's relations below this probability are not stored; they are negatives.
    pub floor: f64,
    /// The most relations that are stored of a pair, those with labels not counted.
    pub top: usize,
    /// Passes with dropout, whose deviations tell how certain a prediction is; 0: one pass without
    /// dropout. UGDRE: 10.
    pub passes: usize,
    /// Tokens that are stored of each pair's attention, for systems that learn it; 0: none.
    pub tokens: usize,
    /// Whether the teacher's logits of all pairs are stored, for systems that learn them: some
    /// 80 kB a document of DocRED.
    pub logits: bool,
}

/// Keys that a teacher does not read.
pub const KEYS_OF_STUDENTS: [&str; 4] = ["rule", "ignore_dropped", "soft_weight", "human_weight"];

impl Default for DistantSettings {
    fn default() -> Self {
        Self {
            rule: LabelRule::default(),
            ignore_dropped: false,
            soft_weight: 1.0,
            human_weight: 0.0,
            floor: 0.01,
            top: 4,
            passes: 0,
            tokens: 0,
            logits: false,
        }
    }
}

impl DistantSettings {
    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the key.
    pub fn check(&self) -> Result<()> {
        let weight = |value: f64| value.is_finite() && value >= 0.0;
        let rules = [
            ("floor", self.floor, (0.0..1.0).contains(&self.floor), "from 0 to below 1"),
            ("top", self.top as f64, self.top > 0, "at least 1"),
            ("soft_weight", self.soft_weight.into(), weight(self.soft_weight.into()), "0 or more"),
            ("human_weight", self.human_weight, weight(self.human_weight), "0 or more"),
            ("tokens", self.tokens as f64, self.tokens <= 512, "at most 512"),
            ("passes", self.passes as f64, self.passes != 1, "0, or 2 and more"),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((key, value, _, need)) => {
                Err(Error::recipe(format!("distant.{key} = {value}, but it must be {need}")))
            }
            None => Ok(()),
        }
    }

    /// The rules by what a teacher left: thresholds by relation, and limits of uncertainty where it
    /// passed over the documents several times.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a rule that needs these limits and lacks them.
    pub fn rules(
        &self,
        thresholds: &[RuleThresholds],
        uncertainty: Option<&ClassThresholds>,
    ) -> Result<LabelRules> {
        if self.rule == LabelRule::Certain && uncertainty.is_none() {
            let problem = "distant.rule = \"certain\", but the documents were taught in one pass";
            return Err(Error::recipe(problem).with_hint(
                "teach them with several: `teach --passes 10`, or distant.passes = 10",
            ));
        }
        Ok(LabelRules {
            rule: self.rule,
            thresholds: thresholds.to_vec(),
            uncertainty: uncertainty.cloned(),
            ignore_dropped: self.ignore_dropped,
            soft_weight: self.soft_weight,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_nothing_are_refused() {
        let of = |change: fn(&mut DistantSettings)| {
            let mut settings = DistantSettings::default();
            change(&mut settings);
            settings.check().map_err(|error| error.to_string())
        };
        assert!(of(|_| {}).is_ok());
        assert!(of(|settings| settings.floor = 1.0).unwrap_err().contains("distant.floor = 1"));
        assert!(of(|settings| settings.top = 0).unwrap_err().contains("distant.top"));
        assert!(of(|settings| settings.passes = 1).unwrap_err().contains("distant.passes"));
        assert!(of(|settings| settings.soft_weight = f32::NAN).is_err());
        let certain = DistantSettings { rule: LabelRule::Certain, ..DistantSettings::default() };
        assert!(certain.rules(&[], None).unwrap_err().to_string().contains("one pass"));
        assert!(certain.rules(&[], Some(&ClassThresholds(vec![]))).is_ok());
    }
}
