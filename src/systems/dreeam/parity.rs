//! The DREEAM cases: a teacher with its evidence, a student on stored attention, and the fusion of
//! two runs.

mod fusion;
mod shared;

use shared::{compare_evidence, compare_top, dense};
use tch::Tensor;

use super::labels::{EvidenceLabels, evidence_counts};
use super::layout::{DreeamTables, SecondTables};
use super::losses::attention_sum;
use super::{Dreeam, DreeamSettings, DreeamStage, EvidenceNorm};
use crate::parity::{Case, WEIGHTS};
use crate::systems::atlop::AtlopPairs;
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::pairs::{
    batch, compare_inputs, compare_labels, compare_read, compare_windows, foundation,
};
use crate::systems::cases::{head_name, total_loss};
use crate::systems::reading::{adaptive_labels, labelled_first};
use crate::systems::{
    AttentionTargets, Extractor, PairTarget, Profile, RelationBatch, relation_loss_sum, tables,
};
use crate::text::TokenizedDocument;
use crate::torch::kernels::context::{SpanTable, TokenRange};
use crate::train::MicroBatch;
use crate::{Error, Result};

fn settings(case: &Case, stage: DreeamStage) -> Result<DreeamSettings> {
    let code = DreeamSettings::of(Profile::Code);
    let switch =
        |name: &str, usual: f64| case.at(&format!("/switches/{name}")).as_f64().unwrap_or(usual);
    Ok(DreeamSettings {
        stage,
        emb_size: case.number("/dims/emb_size")?,
        block_size: case.number("/dims/block_size")?,
        num_labels: case.number("/switches/num_labels")? as usize,
        evidence_weight: switch("evi_lambda", code.evidence_weight),
        evidence_threshold: switch("evi_threshold", code.evidence_threshold),
        attention_weight: switch("attn_lambda", code.attention_weight),
        max_evidence_sentences: case.number("/dims/max_sentences")? as usize,
        ..code
    })
}

pub(crate) fn dreeam(case: &mut Case) -> Result<()> {
    let student = case.has_input("teacher_attention");
    let stage = if student { DreeamStage::SelfTraining } else { DreeamStage::Teacher };
    let (documents, tokenizer) = case.documents(&case.relations()?)?;
    let system = Dreeam::new(foundation(case, &tokenizer)?, settings(case, stage)?)?;
    case.load_weights(system.parameters(), WEIGHTS, head_name)?;
    let mut batch = batch(&system, &documents)?;
    let laid: &DreeamTables = tables(&batch.tables)?;
    let view = |document: &TokenizedDocument| system.atlop.view(document);
    compare_inputs(case, &documents, &batch, &laid.reading, view)?;
    compare_sentences(case, &laid.reading.sentences)?;
    if student {
        batch.attention = Some(stored_attention(case, &batch, None)?);
        compare_student(case, &system, &batch)
    } else if case.path("pseudo.json").exists() {
        fusion::compare(case, &system, &documents, &batch)
    } else {
        compare_teacher(case, &system, &documents, &batch)
    }
}

/// The tokens of each sentence, without the first piece of the document.
fn compare_sentences(case: &mut Case, sentences: &[Vec<TokenRange>]) -> Result<()> {
    let rows = (0i64..).zip(sentences).flat_map(|(document, ranges)| {
        (0i64..).zip(ranges).flat_map(move |(sentence, &(first, tokens))| {
            let start = i64::from(first) - 1;
            [document, sentence, start, start + i64::from(tokens)]
        })
    });
    case.compare_input("sentences", &rows.collect::<Vec<_>>())
}

fn compare_teacher(
    case: &mut Case,
    system: &Dreeam,
    documents: &[TokenizedDocument],
    batch: &RelationBatch,
) -> Result<()> {
    let laid: &DreeamTables = tables(&batch.tables)?;
    compare_counts(case, documents, &laid.reading.sentences)?;
    compare_windows(case, &laid.reading)?;
    let pairs = system.atlop.pairs(&laid.reading, EVALUATION)?;
    compare_read(case, &laid.reading, &pairs.read)?;
    compare_context(case, &pairs)?;
    case.compare("head_feature", &pairs.heads)?;
    case.compare("tail_feature", &pairs.tails)?;
    let scored = system.atlop.scored_pairs(&laid.reading, &pairs, EVALUATION)?;
    case.compare("logits", &scored.logits)?;
    let labels = adaptive_labels(&scored.logits, system.settings().num_labels)?;
    compare_labels(case, "decoded", &labels)?;
    compare_top(case, "", &scored.logits, system.settings().num_labels)?;
    compare_evidence(case, system, &scored)?;

    let SecondTables::Evidence(evidence) = &laid.second else {
        return Err(Error::Bug("a teacher was laid out without evidence".into()));
    };
    let second = system.second_sum(batch, &pairs)?;
    let [all, with_evidence] =
        [EvidenceNorm::Pairs, EvidenceNorm::PairsWithEvidence].map(|norm| divisor(evidence, norm));
    case.compare("evi_loss", &second.f_div_scalar(all)?)?;
    case.compare("fixed/evi_loss", &second.f_div_scalar(with_evidence)?)?;
    let weighted = second.f_mul_scalar(system.settings().evidence_weight)?;
    compare_loss(case, system, batch, &scored.logits, weighted)
}

fn divisor(evidence: &EvidenceLabels, norm: EvidenceNorm) -> f64 {
    evidence.count(norm) as f64
}

/// The relation loss, the sum of both losses, and its gradients; `second` is a sum with its weight.
fn compare_loss(
    case: &mut Case,
    system: &Dreeam,
    batch: &RelationBatch,
    logits: &Tensor,
    second: Tensor,
) -> Result<()> {
    let relation = relation_loss_sum(system.loss(), logits, &batch.targets_like(logits)?)?;
    case.compare("rel_loss", &relation.f_div_scalar(batch.counts()[0])?)?;
    let total = total_loss(&[relation, second], batch.counts())?;
    case.compare("loss", &total)?;
    total.f_backward()?;
    case.compare_gradients("grad/", system.parameters(), head_name)
}

fn compare_context(case: &mut Case, pairs: &AtlopPairs) -> Result<()> {
    match &pairs.context {
        Some(context) => case.compare("context", context),
        None => Err(case.error("`context` was not computed")),
    }
}

/// How many labels name each sentence, [pairs, sentences].
fn compare_counts(
    case: &mut Case,
    documents: &[TokenizedDocument],
    sentences: &[Vec<TokenRange>],
) -> Result<()> {
    let width = case.integers("evidence_labels")?.1[1] as usize;
    let mut counts = Vec::new();
    for (document, ranges) in documents.iter().zip(sentences) {
        let own = evidence_counts(document, ranges);
        for pair in labelled_first(document) {
            let row = own.get(&pair).into_iter().flatten().map(|&count| i64::from(count));
            counts.extend(row.chain(std::iter::repeat(0)).take(width));
        }
    }
    case.compare_input("evidence_labels", &counts)
}

/// The stored attention of the case: all of it, or the largest shares of each pair.
fn stored_attention(
    case: &Case,
    batch: &RelationBatch,
    most: Option<usize>,
) -> Result<AttentionTargets> {
    let width = case.input("teacher_attention")?.size()[1] as usize;
    let stored = case.floats("teacher_attention")?;
    let table = token_table(batch)?;
    let rows = stored.chunks_exact(width).zip(table.widths());
    let pair = |(row, &tokens): (&[f32], &i64)| {
        let row = &row[..(tokens as usize).min(width)];
        PairTarget::largest(row, most.unwrap_or(row.len()))
    };
    Ok(rows.map(pair).collect())
}

fn token_table(batch: &RelationBatch) -> Result<&SpanTable> {
    match &tables::<DreeamTables>(&batch.tables)?.second {
        SecondTables::Attention(table) => Ok(table),
        SecondTables::Evidence(_) => Err(Error::Bug("a student was laid out as a teacher".into())),
    }
}

fn compare_student(case: &mut Case, system: &Dreeam, batch: &RelationBatch) -> Result<()> {
    let laid: &DreeamTables = tables(&batch.tables)?;
    let pairs = system.atlop.pairs(&laid.reading, EVALUATION)?;
    case.compare("entities", &pairs.read.entities)?;
    compare_context(case, &pairs)?;
    let table = token_table(batch)?;
    let q = system.atlop.span_sums(&pairs, table)?;
    let flat = Vec::<f32>::try_from(q.detach())?;
    let row = |(&first, &tokens): (&i64, &i64)| flat[first as usize..][..tokens as usize].to_vec();
    let attention: Vec<Vec<f32>> = table.first_sums().iter().zip(table.widths()).map(row).collect();
    let width = case.output("pair_attention")?.size()[1] as usize;
    case.compare("pair_attention", &Tensor::f_from_slice(&dense(&attention, width))?)?;
    let logits = system.atlop.classify(&pairs, EVALUATION)?;
    case.compare("logits", &logits)?;
    compare_kept(case, batch, table, &q)?;
    let second = system.second_sum(batch, &pairs)?;
    case.compare("attn_loss", &second.f_div_scalar(batch.counts()[1])?)?;
    let weighted = second.f_mul_scalar(system.settings().attention_weight)?;
    compare_loss(case, system, batch, &logits, weighted)
}

/// The loss on a teacher's largest shares.
fn compare_kept(
    case: &mut Case,
    batch: &RelationBatch,
    table: &SpanTable,
    q: &Tensor,
) -> Result<()> {
    let most = case.number("/switches/own_topk")? as usize;
    let kept = stored_attention(case, batch, Some(most))?;
    let pairs = kept.of_batch(table.widths())?;
    let tokens: Vec<i64> =
        pairs.iter().flat_map(|pair| &pair.tokens).map(|&token| i64::from(token)).collect();
    let mass: Vec<f32> = pairs.iter().map(|pair| pair.weights.iter().sum()).collect();
    compare_labels(case, "own/topk_tokens", &Tensor::f_from_slice(&tokens)?)?;
    case.compare("own/topk_mass", &Tensor::f_from_slice(&mass)?)?;
    let sum = attention_sum(q, table, &kept)?;
    case.compare("own/topk_attn_loss", &sum.f_div_scalar(batch.counts()[1])?)
}
