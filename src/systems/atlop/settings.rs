//! ATLOP's settings: what the ablations of its paper turn off (docs/systems.md, "A. ATLOP") and how
//! long documents are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::reading::{MarkerScheme, Pooling};
use crate::systems::{
    LongDocuments, NegativeRisk, Profile, RelationLoss, RelationStart, RiskKind, RiskRule,
};
use crate::{Error, Result};

/// How two pair vectors become logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Classifier {
    /// Bilinear forms within blocks of `block_size` (docs/systems.md, A.5); one block of `emb_size`
    /// is the full bilinear form.
    #[default]
    Grouped,
    /// A linear layer over both vectors.
    Linear,
}

/// The loss over classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// The adaptive-threshold loss (docs/systems.md, C.11).
    #[default]
    AdaptiveThreshold,
    /// Binary cross-entropy.
    Bce,
    /// Squared risks against the threshold class, unlabelled pairs as negatives
    /// (docs/systems.md, "P. SSR-PU").
    Pn,
    /// The same with unlabelled pairs as a sample of all pairs.
    Pu,
    /// The same with the labelled pairs taken out of the sample.
    SPu,
}

/// How relations are read off the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdKind {
    /// Above the threshold class and among the `num_labels` largest.
    #[default]
    Adaptive,
    /// Above one threshold chosen on dev.
    Global,
}

/// Settings of ATLOP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AtlopSettings {
    /// Markers around mentions; `none` is the ablation without them. Paper and release: `*`, once a
    /// word on DocRED, once a mention on CDR and GDA.
    pub markers: MarkerScheme,
    /// How mentions become an entity. Paper and release: logsumexp; ablations: mean, max.
    pub pooling: Pooling,
    /// Localized context pooling; off is an ablation.
    pub context: bool,
    /// Grouped bilinear form; `linear` is the ablation with a plain head.
    pub classifier: Classifier,
    /// Width of a pair's two vectors. Release: 768 for every encoder.
    pub emb_size: i64,
    /// Width of a block of the grouped bilinear form. Release: 64.
    pub block_size: i64,
    /// How the classifier's vector of each relation starts (ours; papers: at random).
    pub relation_start: RelationStart,
    /// The loss; `bce` is an ablation, `pn`, `pu` and `s-pu` are those of SSR-PU.
    pub loss: LossKind,
    /// Under `pn`, `pu` and `s-pu`: whether a relation is scored against the threshold class, or
    /// against 0.
    pub ranking: bool,
    /// Under these: how many times as many facts there are as labels, e. SSR-PU: 3 on DocRED's
    /// labels, 1 on complete ones.
    pub prior_factor: f64,
    /// Under these: the margin m of the squared loss. SSR-PU: 0.25 against the threshold class, 1
    /// against 0.
    pub risk_margin: f64,
    /// Under these: the factor κ of the squared loss. SSR-PU: 0.25.
    pub risk_factor: f64,
    /// Under these: what becomes of a relation whose negative risk is below 0 (release: below
    /// `risk_floor`).
    pub negative_risk: NegativeRisk,
    /// Under `negative_risk = "reverse"`: β. Release: 0.
    pub risk_floor: f64,
    /// Under the same: γ. Release: 1.
    pub risk_reversal: f64,
    /// The decision; `global` is an ablation.
    pub threshold: ThresholdKind,
    /// Most relations of a pair under the adaptive threshold; 0 for no limit. Release: 4 for
    /// DocRED, 1 for CDR and GDA.
    pub num_labels: usize,
    /// Documents longer than the encoder's positions.
    pub long_documents: LongDocuments,
    /// Most pieces of a document read in windows; 0 for no limit. Release: 1024.
    pub max_pieces: usize,
    /// Whether longer documents are cut without being asked. Release: yes; otherwise they are an
    /// error unless the recipe allows it.
    pub cut_silently: bool,
    /// Most windows a document; 0 for as many as it needs. Release: 2.
    pub max_windows: usize,
    /// Largest distance between the starts of two windows, in pieces; 0 for as few windows as leave
    /// no gap (the release).
    pub window_stride: usize,
}

impl Default for AtlopSettings {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl AtlopSettings {
    /// The settings of a profile. Paper and release agree but for documents over 1024 pieces, of
    /// which the paper says nothing.
    pub fn of(profile: Profile) -> Self {
        let fixed = profile == Profile::Fixed;
        Self {
            markers: MarkerScheme::StarPerWord,
            pooling: Pooling::Logsumexp,
            context: true,
            classifier: Classifier::Grouped,
            emb_size: 768,
            block_size: 64,
            relation_start: RelationStart::Random,
            loss: LossKind::AdaptiveThreshold,
            ranking: true,
            prior_factor: 3.0,
            risk_margin: 0.25,
            risk_factor: 0.25,
            negative_risk: NegativeRisk::of(profile),
            risk_floor: 0.0,
            risk_reversal: 1.0,
            threshold: ThresholdKind::Adaptive,
            num_labels: 4,
            long_documents: LongDocuments::Windows,
            max_pieces: if fixed { 0 } else { 1024 },
            cut_silently: !fixed,
            max_windows: if fixed { 0 } else { 2 },
            window_stride: 0,
        }
    }
}

impl AtlopSettings {
    /// The settings of SSR-PU in a profile.
    pub fn positive_unlabelled(profile: Profile) -> Self {
        Self { loss: LossKind::SPu, num_labels: 0, ..Self::of(profile) }
    }

    /// The loss that its name and numbers make.
    pub(super) fn relation_loss(&self) -> RelationLoss {
        let risk = |kind| {
            RelationLoss::PositiveUnlabelled(RiskRule {
                kind,
                prior_factor: self.prior_factor,
                margin: self.risk_margin,
                factor: self.risk_factor,
                negative: self.negative_risk,
                floor: self.risk_floor,
                reversal: self.risk_reversal,
            })
        };
        match self.loss {
            LossKind::AdaptiveThreshold => RelationLoss::AdaptiveThreshold { scale: 1.0 },
            LossKind::Bce => RelationLoss::Bce,
            LossKind::Pn => risk(RiskKind::Pn),
            LossKind::Pu => risk(RiskKind::Pu),
            LossKind::SPu => risk(RiskKind::SPu),
        }
    }

    /// Refuses a loss that the decision does not fit.
    pub(super) fn check_loss(&self) -> Result<()> {
        let RelationLoss::PositiveUnlabelled(rule) = self.relation_loss() else {
            if self.ranking {
                return Ok(());
            }
            return Err(Error::recipe("`ranking` is false, but `loss` is none of pn, pu and s-pu")
                .with_hint("leave `ranking` out, or choose one of these losses"));
        };
        rule.check()?;
        if self.threshold == ThresholdKind::Global {
            return Err(Error::recipe("under `loss` pn, pu or s-pu no threshold is chosen on dev")
                .with_hint("leave `threshold` at adaptive; `ranking = false` compares with 0"));
        }
        Ok(())
    }
}

/// `block_size` must divide `emb_size`.
///
/// # Errors
/// [`Error::Recipe`] naming both.
pub(crate) fn check_blocks(emb_size: i64, block_size: i64) -> Result<()> {
    if emb_size > 0 && block_size > 0 && emb_size % block_size == 0 {
        return Ok(());
    }
    Err(Error::recipe(format!("`block_size` {block_size} does not divide `emb_size` {emb_size}"))
        .with_hint("the release has 64 and 768"))
}
