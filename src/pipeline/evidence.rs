//! DocRED's evidence predictor in the pipeline: how it is judged on dev, and the evidence of
//! predicted facts.
//!
//! Not for: the scores of sentences and their threshold (`systems::evidence`), or training
//! (`finetune`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::boundary::Judged;
use super::model::LoadedEvidence;
use super::predictor::{DocumentScores, PREDICT_TOKENS};
use super::session::Session;
use crate::corpus::{Document, RelationSet};
use crate::eval::Prediction;
use crate::shards::DocumentStore;
use crate::systems::evidence::{
    EvidenceItem, EvidencePredictor, best_threshold, evidence, sentences_of,
};
use crate::text::{TokenizedDocument, TokenizedFact, tokenize};
use crate::torch::Precision;
use crate::train::{Checkpoint, Forward, PrecisionChoice};
use crate::{DataError, Error, Result};

/// Writes evidence into predictions, one entry a prediction, sentences in rising order.
fn fill(predictions: &mut [Prediction], evidence: Vec<Vec<usize>>) {
    for (prediction, mut sentences) in predictions.iter_mut().zip(evidence) {
        sentences.sort_unstable();
        prediction.evidence = sentences;
    }
}

/// Refuses shards whose facts name no evidence.
///
/// # Errors
/// [`Error::Recipe`] naming the folder.
pub fn check_evidence(path: &Path, store: &DocumentStore) -> Result<()> {
    if (0..store.len()).any(|row| store.get(row).facts.iter().any(|fact| !fact.evidence.is_empty()))
    {
        return Ok(());
    }
    Err(Error::recipe(format!("{}: no fact names its evidence", path.display()))
        .with_hint("distant labels have none; take annotated documents"))
}

/// Every labelled fact of a store.
pub fn facts_of(store: &DocumentStore) -> Vec<EvidenceItem> {
    let documents = (0..store.len()).map(|row| store.get(row));
    let facts = |document: Arc<TokenizedDocument>| {
        let item = |fact: &TokenizedFact| EvidenceItem {
            document: document.clone(),
            fact: fact.clone(),
            visit: 0,
        };
        document.facts.iter().map(item).collect::<Vec<_>>()
    };
    documents.flat_map(facts).collect()
}

/// Judges the evidence predictor by the F1 of the evidence sentences of dev's facts, which the
/// ranks share.
///
/// # Errors
/// Errors of the model or of another rank.
pub fn judge_evidence(
    model: &EvidencePredictor,
    session: &Session,
    items: &[EvidenceItem],
    precision: Precision,
) -> Result<Judged> {
    let forward = Forward { train: false, precision };
    let mine: Vec<EvidenceItem> = session.share(items).cloned().collect();
    let scores = model.scores(&mine, forward, PREDICT_TOKENS)?;
    let sent = scores.into_iter().map(|logits| DocumentScores { logits, ..Default::default() });
    let sent = sent.collect();
    let all = DocumentScores::gather(sent, items.len(), session)?;
    let ranked = sentences_of(items, all.into_iter().map(|scores| scores.logits).collect());
    let best = best_threshold(&ranked, items.iter().map(|item| item.fact.evidence.len()).sum());
    let (score, threshold) =
        (best.map_or(0.0, |best| best.f1), best.map(|best| f64::from(best.theta)));
    let found = best.map_or(0, |best| best.prefix + 1);
    let said = format!("{found} sentences of {} facts", items.len());
    Ok(Judged { score, name: "evidence F1", threshold, calibration: None, said })
}

/// The evidence predictor of a checkpoint, which names the sentences behind predicted facts.
pub struct EvidenceFinder {
    path: PathBuf,
    loaded: LoadedEvidence,
    theta: f32,
    precision: Precision,
}

impl EvidenceFinder {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// A checkpoint of another system.
    pub fn open(path: &Path, session: &Session) -> Result<Self> {
        let loaded = LoadedEvidence::open(path, session.device)?;
        let theta = Checkpoint::open(path)?.trainer()?.threshold.unwrap_or(0.5) as f32;
        let precision = session.precision(PrecisionChoice::Auto);
        Ok(Self { path: path.to_owned(), loaded, theta, precision })
    }

    /// Writes the evidence of each fact into `facts`, one list a document.
    ///
    /// # Errors
    /// A relation that the checkpoint does not know; documents that cannot be laid out.
    pub fn add(&mut self, documents: &[Document], facts: &mut [Vec<Prediction>]) -> Result<()> {
        let relations = &self.loaded.description.relations;
        let mut items = Vec::new();
        for (document, facts) in documents.iter().zip(&*facts) {
            if facts.is_empty() {
                continue;
            }
            let encoded = Arc::new(tokenize(document, &mut self.loaded.tokenizer, relations)?);
            for fact in facts {
                items.push(item(fact, &encoded, relations, &self.path)?);
            }
        }
        let forward = Forward { train: false, precision: self.precision };
        let scores = self.loaded.model.scores(&items, forward, PREDICT_TOKENS)?;
        let ranked = sentences_of(&items, scores);
        let mut found = evidence(&ranked, items.len(), self.theta);
        for list in facts {
            let rest = found.split_off(list.len().min(found.len()));
            fill(list, std::mem::replace(&mut found, rest));
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_get_sentences_in_order() {
        let mut predictions =
            vec![Prediction::default(), Prediction { evidence: vec![9], ..Prediction::default() }];
        fill(&mut predictions, vec![vec![2, 1], vec![]]);
        assert_eq!(
            (&predictions[0].evidence[..], &predictions[1].evidence[..]),
            (&[1, 2][..], &[][..])
        );
    }
}
