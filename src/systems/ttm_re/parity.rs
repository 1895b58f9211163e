//! The TTM-RE cases: reading from the memory, logits of the release and with exchanged axes, the
//! losses of the release, gradients.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::{MemoryAttention, TtmRe, TtmReSettings};
use crate::Result;
use crate::parity::{Case, WEIGHTS};
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::head_name;
use crate::systems::cases::pairs::{batch, compare_inputs, compare_labels, foundation};
use crate::systems::positive_unlabelled::{ClassRisks, RiskTotals, risk_sum};
use crate::systems::reading::{ReadingTables, adaptive_labels, labelled_first};
use crate::systems::{
    Extractor, NegativeRisk, Profile, RelationBatch, RelationLoss, RiskKind, RiskRule,
    relation_loss_sum, tables,
};
use crate::text::{TokenizedDocument, Tokenizer};
use crate::torch::nn::losses::{FocalWeight, adaptive_focal_sum};

fn settings(case: &Case) -> Result<TtmReSettings> {
    let by_pair = case.at("/switches/memory_batch_first").as_bool().unwrap_or(false);
    let kind = match case.stated::<String>("/switches/loss")?.as_str() {
        "PN" => RiskKind::Pn,
        "PU" => RiskKind::Pu,
        "S-PU" => RiskKind::SPu,
        other => return Err(case.error(format!("there is no loss `{other}`"))),
    };
    Ok(TtmReSettings {
        emb_size: case.number("/dims/emb_size")?,
        block_size: case.number("/dims/block_size")?,
        memory_size: case.number("/dims/memory_size")?,
        memory_layers: case.number("/dims/memory_layers")? as usize,
        memory_heads: case.number("/dims/memory_heads")?,
        memory_attention: if by_pair { MemoryAttention::Outputs } else { MemoryAttention::Pairs },
        pair_chunk: case.number("/dims/pair_chunk")? as usize,
        loss: kind,
        prior_factor: case.stated("/switches/prior_multiple")?,
        risk_margin: case.stated("/switches/margin")?,
        risk_factor: case.stated("/switches/square_factor")?,
        risk_floor: case.stated("/switches/beta")?,
        risk_reversal: case.stated("/switches/gamma")?,
        num_labels: case.at("/switches/top_k").as_u64().unwrap_or(0) as usize,
        ..TtmReSettings::of(Profile::Code)
    })
}

fn model(case: &Case, tokenizer: &Tokenizer, settings: TtmReSettings) -> Result<TtmRe> {
    let system = TtmRe::new(foundation(case, tokenizer)?, settings)?;
    case.load_weights(system.parameters(), WEIGHTS, head_name)?;
    Ok(system)
}

pub(super) fn ttm_re(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&case.relations()?)?;
    let own = settings(case)?;
    let system = model(case, &tokenizer, own.clone())?;
    let batch_of_all = batch(&system, &documents)?;
    let laid: &ReadingTables = tables(&batch_of_all.tables)?;
    compare_inputs(case, &documents, &batch_of_all, laid, |document| system.view(document))?;

    let pairs = system.pairs(laid, EVALUATION)?;
    for (name, ours) in [
        ("context", &pairs.context),
        ("head_feature", &pairs.heads),
        ("tail_feature", &pairs.tails),
        ("learned_tokens", &pairs.learned),
        ("memory_head", &pairs.mixed[0]),
        ("memory_tail", &pairs.mixed[1]),
    ] {
        case.compare(name, ours)?;
    }
    let logits = system.classify(&pairs, EVALUATION)?;
    case.compare("logits", &logits)?;
    compare_labels(case, "decoded", &adaptive_labels(&logits, own.num_labels)?)?;
    let targets = batch_of_all.targets_like(&logits)?;
    let totals = totals(case, &documents)?;
    let losses = Losses { logits: &logits, targets: &targets, totals: &totals };
    losses.compare(case, &own.rule())?;
    losses.compare_others(case, &own.rule())?;
    alone(case, &system, &documents)?;
    fixed(case, &tokenizer, &documents, &totals)?;
    losses.of(&own.rule())?.f_backward()?;
    case.compare_gradients("grad/", system.parameters(), head_name)
}

/// What the losses need of the whole batch, with the given priors.
fn totals(case: &Case, documents: &[TokenizedDocument]) -> Result<RiskTotals> {
    let priors = Vec::<f64>::try_from(case.input("priors")?)?;
    let mut totals = RiskTotals::new(Arc::new(priors));
    documents.iter().for_each(|document| totals.add(document, &labelled_first(document)));
    Ok(totals)
}

/// The losses on the logits of a batch.
struct Losses<'a> {
    logits: &'a Tensor,
    targets: &'a Tensor,
    totals: &'a RiskTotals,
}

impl Losses<'_> {
    fn pairs(&self) -> f64 {
        self.logits.size()[0] as f64
    }

    fn of(&self, rule: &RiskRule) -> Result<Tensor> {
        Ok(risk_sum(rule, self.logits, self.targets, self.totals)?.f_div_scalar(self.pairs())?)
    }

    /// The loss of the case, and its parts.
    fn compare(&self, case: &mut Case, rule: &RiskRule) -> Result<()> {
        case.compare("loss", &self.of(rule)?)?;
        let paper = RiskRule { negative: NegativeRisk::Clamp, ..*rule };
        case.compare("paper/loss", &self.of(&paper)?)?;
        let risks = ClassRisks::of(rule, self.logits, self.targets, self.totals)?;
        case.compare("risk1", &risks.negative)?;
        case.compare("risk2", &risks.positive)?;
        case.compare("risk", &risks.by_class(rule)?)
    }

    /// The other losses of the release.
    fn compare_others(&self, case: &mut Case, rule: &RiskRule) -> Result<()> {
        let beta = case.at("/details/beta_of_variant").as_f64().unwrap_or(rule.floor);
        for (name, other) in [
            ("PU", RiskRule { kind: RiskKind::Pu, ..*rule }),
            ("S-PU-e1", RiskRule { prior_factor: 1.0, ..*rule }),
            ("S-PU-beta", RiskRule { floor: beta, ..*rule }),
        ] {
            let name = format!("losses/{name}");
            if case.has_output(&name) {
                case.compare(&name, &self.of(&other)?)?;
            }
        }
        let adaptive = RelationLoss::AdaptiveThreshold { scale: 1.0 };
        let adaptive = relation_loss_sum(adaptive, self.logits, self.targets)?;
        let weight = FocalWeight { base: 1.0, gamma: 1.0 };
        let focal = adaptive_focal_sum(self.logits, self.targets, weight)?;
        for (name, sum) in
            [("ATLoss", adaptive), ("AFLoss", focal), ("pos-ATLoss", self.positive()?)]
        {
            let name = format!("losses/{name}");
            if case.has_output(&name) {
                case.compare(&name, &sum.f_div_scalar(self.pairs())?)?;
            }
        }
        Ok(())
    }

    /// The part of the adaptive-threshold loss that ranks true relations.
    fn positive(&self) -> Result<Tensor> {
        let adaptive = RelationLoss::AdaptiveThreshold { scale: 1.0 };
        let whole = relation_loss_sum(adaptive, self.logits, self.targets)?;
        let relations = self.targets.f_narrow(1, 1, self.targets.size()[1] - 1)?;
        let hidden = self.logits.f_narrow(1, 1, relations.size()[1])?;
        let hidden = hidden.f_masked_fill(&relations.f_gt(0.5)?, -1e30)?;
        let logits = Tensor::f_cat(&[&self.logits.f_narrow(1, 0, 1)?, &hidden], 1)?;
        let negative = relation_loss_sum(adaptive, &logits, &self.targets.f_zeros_like()?)?;
        Ok(whole.f_sub(&negative)?.f_to_kind(Kind::Float)?)
    }
}

/// Logits of each document in a batch of its own.
fn alone(case: &mut Case, system: &TtmRe, documents: &[TokenizedDocument]) -> Result<()> {
    let logits = documents.iter().map(|document| {
        let batch: RelationBatch = batch(system, std::slice::from_ref(document))?;
        system.logits(&batch, EVALUATION)
    });
    let logits = logits.collect::<Result<Vec<_>>>()?;
    case.compare("single/logits", &Tensor::f_cat(&logits, 0)?)
}

/// Logits and loss with the axes exchanged.
fn fixed(
    case: &mut Case,
    tokenizer: &Tokenizer,
    documents: &[TokenizedDocument],
    totals: &RiskTotals,
) -> Result<()> {
    let own = TtmReSettings { memory_attention: MemoryAttention::Outputs, ..settings(case)? };
    let rule = own.rule();
    let system = model(case, tokenizer, own)?;
    let batch = batch(&system, documents)?;
    let logits = system.logits(&batch, EVALUATION)?;
    case.compare("fixed/logits", &logits)?;
    let targets = batch.targets_like(&logits)?;
    case.compare("fixed/loss", &Losses { logits: &logits, targets: &targets, totals }.of(&rule)?)
}
