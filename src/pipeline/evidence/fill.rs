//! Evidence of facts that another system has predicted.

use std::path::Path;
use std::sync::Arc;

use super::fill;
use crate::corpus::RelationSet;
use crate::corpus::formats::ReadOptions;
use crate::eval::Prediction;
use crate::pipeline::input::Input;
use crate::pipeline::model::LoadedEvidence;
use crate::pipeline::predict::PREDICT_TOKENS;
use crate::pipeline::session::Session;
use crate::systems::evidence::{EvidenceItem, evidence, sentences_of};
use crate::text::{TokenizedDocument, TokenizedFact, tokenize};
use crate::train::{Checkpoint, Forward, PrecisionChoice};
use crate::{DataError, Result};

/// Writes into `predictions`, one list a document of `input` in its order, the sentences that the
/// evidence predictor of `checkpoint` finds; `threshold` replaces the one found on dev.
///
/// # Errors
/// A checkpoint of another system, or one that does not know a predicted relation; documents that
/// cannot be read or laid out.
pub fn add_evidence(
    checkpoint: &Path,
    threshold: Option<f64>,
    input: &Input,
    predictions: &mut [Vec<Prediction>],
    session: &Session,
) -> Result<()> {
    let mut loaded = LoadedEvidence::open(checkpoint, session.device)?;
    let theta =
        threshold.or(Checkpoint::open(checkpoint)?.trainer()?.threshold).unwrap_or(0.5) as f32;
    let relations = loaded.description.relations.clone();
    let mut items = Vec::new();
    let mut lists = predictions.iter();
    input.read(&ReadOptions::default(), &mut |mut document| {
        document.facts = None;
        let encoded = Arc::new(tokenize(&document, &mut loaded.tokenizer, &relations)?);
        for prediction in lists.next().into_iter().flatten() {
            items.push(item(prediction, &encoded, &relations, checkpoint)?);
        }
        Ok(())
    })?;
    let forward = Forward { train: false, precision: session.precision(PrecisionChoice::Auto) };
    let scores = loaded.model.scores(&items, forward, PREDICT_TOKENS)?;
    let ranked = sentences_of(&items, scores);
    let mut found = evidence(&ranked, items.len(), theta);
    for list in predictions {
        let rest = found.split_off(list.len().min(found.len()));
        fill(list, std::mem::replace(&mut found, rest));
    }
    Ok(())
}

fn item(
    prediction: &Prediction,
    document: &Arc<TokenizedDocument>,
    relations: &RelationSet,
    checkpoint: &Path,
) -> Result<EvidenceItem> {
    let relation = relations.index_of(&prediction.r).ok_or_else(|| {
        DataError::new(checkpoint, format!("does not know relation {}", prediction.r))
            .title(&prediction.title)
            .hint("train the evidence predictor on shards prepared with the same --relations")
    })?;
    let fact = TokenizedFact {
        head: prediction.h_idx as u32,
        tail: prediction.t_idx as u32,
        relation: relation as u32,
        evidence: Vec::new(),
    };
    Ok(EvidenceItem { document: Arc::clone(document), fact, visit: 0 })
}
