//! What the cases of HIN and GLRE have in common: examples and losses by document, and a BERT.

use std::collections::HashMap;
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::Result;
use crate::encoders::EncoderSpec;
use crate::parity::Case;
use crate::systems::cases::foundation::{self, BertSizes};
use crate::systems::{Classes, Example, Pair, RelationLoss, on, relation_loss_sum};
use crate::text::TokenizedDocument;

/// The BERT of a case whose dimensions are named `bert_…`.
pub(crate) fn bert(case: &Case) -> Result<(EncoderSpec, i64)> {
    let table = case
        .tensors("weights.safetensors")?
        .remove("pretrain_lm.embeddings.position_embeddings.weight");
    let positions =
        table.ok_or_else(|| case.error("the weights have no position table"))?.size()[0] as usize;
    let spec = foundation::bert(
        case,
        &BertSizes { prefix: "/dims/bert_", positions, epsilon: "/dims/layer_norm_eps_bert" },
    )?;
    Ok((spec, case.number("/dims/vocab")?))
}

/// An evaluation visit.
pub(crate) fn example(document: &TokenizedDocument, pairs: Vec<Pair>, visit: usize) -> Example {
    Example { document: Arc::new(document.clone()), pairs, visit: visit as u64, train: false }
}

/// The logits of each document.
fn of_documents(logits: &Tensor, examples: &[Example]) -> Result<Vec<Tensor>> {
    let counts: Vec<i64> = examples.iter().map(|example| example.pairs.len() as i64).collect();
    Ok(logits.f_split_with_sizes(&counts[..], 0)?)
}

/// Losses of the documents, each Σ / (pairs · classes), from the logits of all of them.
pub(crate) fn losses(
    logits: &Tensor,
    examples: &[Example],
    classes: Classes,
) -> Result<Vec<Tensor>> {
    let of_document = |(example, mine): (&Example, Tensor)| {
        let targets = classes.targets(&example.document, &example.pairs);
        let targets = on(&targets, mine.device())?.f_view_as(&mine)?;
        Ok(relation_loss_sum(RelationLoss::Bce, &mine, &targets)?
            .f_div_scalar((example.pairs.len() * classes.count()) as f64)?)
    };
    examples.iter().zip(of_documents(logits, examples)?).map(of_document).collect()
}

/// The mean of the documents' losses.
pub(crate) fn mean(losses: &[Tensor]) -> Result<Tensor> {
    Ok(Tensor::f_stack(losses, 0)?.f_mean(Kind::Float)?)
}

/// Compares losses, and the logits of each document, with references that may lack some of the
/// documents.
pub(crate) fn compare_outputs(
    case: &mut Case,
    references: &HashMap<String, Tensor>,
    label: &str,
    logits: &Tensor,
    examples: &[Example],
    losses: &[Tensor],
) -> Result<()> {
    let logits = of_documents(logits, examples)?;
    for (index, (mine, loss)) in logits.iter().zip(losses).enumerate() {
        for (name, ours) in
            [(format!("doc{index}.logits"), mine), (format!("doc{index}.loss"), loss)]
        {
            if let Some(reference) = references.get(&name) {
                case.compare_with(&format!("{label}{name}"), ours, reference)?;
            }
        }
    }
    if let Some(reference) = references.get("loss") {
        case.compare_with(&format!("{label}loss"), &mean(losses)?, reference)?;
    }
    Ok(())
}
