//! What the DREEAM cases share: the largest classes of pairs, and their evidence.

use tch::Tensor;

use crate::Result;
use crate::parity::Case;
use crate::systems::cases::pairs::compare_labels;
use crate::systems::dreeam::Dreeam;
use crate::systems::fusion::{relative_scores, top_classes};
use crate::systems::{Extractor, ScoredBatch};

/// Logits as rows on the host.
pub(super) fn rows(logits: &Tensor) -> Result<Vec<Vec<f32>>> {
    let classes = logits.size()[1] as usize;
    let flat = Vec::<f32>::try_from(logits.detach().f_contiguous()?.f_view([-1])?)?;
    Ok(flat.chunks_exact(classes).map(<[f32]>::to_vec).collect())
}

/// The largest classes of each pair, with their logits and their relative scores.
pub(super) fn compare_top(
    case: &mut Case,
    prefix: &str,
    logits: &Tensor,
    top: usize,
) -> Result<()> {
    let rows = rows(logits)?;
    let largest: Vec<_> = rows.iter().flat_map(|row| top_classes(row, top)).collect();
    let relative = rows.iter().flat_map(|row| relative_scores(row, top));
    let scores = |of: Vec<f32>| -> Result<Tensor> { Ok(Tensor::f_from_slice(&of)?) };
    let logits = scores(largest.iter().map(|&(_, logit)| logit).collect())?;
    case.compare(&format!("{prefix}topk_scores"), &logits)?;
    let classes: Vec<i64> = largest.iter().map(|&(class, _)| class as i64).collect();
    let name = format!("{prefix}topk_classes");
    compare_labels(case, &name, &Tensor::f_from_slice(&classes)?)?;
    let relative = scores(relative.map(|(_, score)| score).collect())?;
    case.compare(&format!("{prefix}relative_scores"), &relative)
}

/// The share of each sentence, and the sentences that are evidence.
pub(super) fn compare_evidence(
    case: &mut Case,
    system: &Dreeam,
    scored: &ScoredBatch,
) -> Result<()> {
    let (Some(evidence), Some(rule)) = (&scored.evidence, system.evidence()) else {
        return Err(case.error("no evidence was computed"));
    };
    let rows = evidence.to_rows()?;
    let width = case.output("evidence_distribution")?.size()[1] as usize;
    case.compare("evidence_distribution", &Tensor::f_from_slice(&dense(&rows, width))?)?;
    let width = case.output("evidence_decoded")?.size()[1] as usize;
    let mut decoded = vec![0i64; rows.len() * width];
    for (pair, row) in rows.iter().enumerate() {
        rule.sentences(row).into_iter().for_each(|sentence| decoded[pair * width + sentence] = 1);
    }
    compare_labels(case, "evidence_decoded", &Tensor::f_from_slice(&decoded)?)
}

/// Rows of different lengths, filled up with 0.
pub(super) fn dense(rows: &[Vec<f32>], width: usize) -> Vec<f32> {
    let padded = |row: &Vec<f32>| {
        row.iter().copied().chain(std::iter::repeat(0.0)).take(width).collect::<Vec<_>>()
    };
    rows.iter().flat_map(padded).collect()
}
