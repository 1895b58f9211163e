//! The noise audit: distant labels beside human ones, and what denoisers keep of them.
//!
//! Not for: the arithmetic (`eval::audit`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use clap::Args;

use super::evaluate::document_of;
use super::model::{Description, LoadedExtractor, LoadedModel};
use super::predictor::{Decider, PREDICT_TOKENS, Predictor};
use super::score::LoadedRanker;
use super::session::Session;
use crate::base::say;
use crate::corpus::formats::GoldDocuments;
use crate::corpus::{Document, Format};
use crate::eval::{
    Audit, AuditedDenoiser, DistantLabels, FactKey, Gold, SystemFile, check_names,
    read_predictions, read_scores,
};
use crate::sampling::KeptPairs;
use crate::shards::{DocumentStore, ShardManifest, StoreOptions};
use crate::systems::dsdocre::ModelKind;
use crate::text::{ScoredPair, Tokenizer, tokenize};
use crate::train::{Checkpoint, PrecisionChoice};
use crate::{DataError, Result};

/// What is audited, as the flags of `audit` say it.
#[derive(Clone, Debug, Args)]
pub struct AuditTask {
    /// Documents with distant labels: a file or a folder of shards
    #[arg(long, value_name = "FILE-or-SHARDS")]
    pub distant: PathBuf,
    /// The same documents with human labels
    #[arg(long, value_name = "FILE")]
    pub gold: PathBuf,
    /// Format of the files
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    pub format: Format,
    /// What tells true labels from false ones: a folder of shards that a ranker has scored or a
    /// teacher has judged, scores of pairs and relations (Parquet, from `predict --scores`), or a
    /// list of the facts that are kept (result.json); give any number
    #[arg(long = "denoiser", value_name = "NAME=PATH")]
    pub denoisers: Vec<SystemFile>,
    /// A ranker or a fine-tuned system that judges the documents here and now, as one more denoiser
    #[arg(long, value_name = "C")]
    pub checkpoint: Option<PathBuf>,
}

/// Audits labels and denoisers.
///
/// # Errors
/// Files that cannot be read; files of different documents; a denoiser that scored none of the
/// labels.
pub fn audit(task: &AuditTask, session: &Session) -> Result<Audit> {
    check_names(&task.denoisers)?;
    let labelled = if is_shards(&task.distant) {
        let store = DocumentStore::open(&task.distant, StoreOptions::default())?;
        (0..store.len()).map(|row| document_of(&store, row)).collect()
    } else {
        read(task, &task.distant)?.documents
    };
    let human = read(task, &task.gold)?;
    let gold = Gold::new(&human.documents)?;
    let labels = DistantLabels::new(&gold, &labelled)?;
    let mut audit = labels.audit();
    if audit.left_out > 0 {
        say(format!(
            "warning: {} of the documents of {} lack labels there or in {}, and are left out",
            audit.left_out,
            task.distant.display(),
            task.gold.display()
        ));
    }
    for denoiser in &task.denoisers {
        audit.denoisers.push(judge(denoiser, &labels)?);
    }
    if let Some(checkpoint) = &task.checkpoint {
        let documents = if is_shards(&task.distant) { &human.documents } else { &labelled };
        let scores = checkpoint_scores(checkpoint, documents, &labels, session)?;
        audit.denoisers.push(labels.denoiser("checkpoint", &scores));
    }
    Ok(audit)
}

fn read(task: &AuditTask, path: &Path) -> Result<GoldDocuments> {
    let file = task.format.read_gold(path)?;
    file.warnings.iter().for_each(|warning| say(format!("warning: {warning}")));
    Ok(file)
}

/// Whether a path names shards; a folder without a manifest is told when it is opened.
fn is_shards(path: &Path) -> bool {
    path.is_dir() || ShardManifest::is_at(path)
}

fn judge(denoiser: &SystemFile, labels: &DistantLabels<'_>) -> Result<AuditedDenoiser> {
    let SystemFile { name, path } = denoiser;
    let judged = if is_shards(path) {
        labels.denoiser(name, &shard_scores(path, labels)?)
    } else if path.extension().is_some_and(|ending| ending == "parquet") {
        labels.denoiser(name, &label_scores(path, labels)?)
    } else {
        let predictions = read_predictions(path)?;
        labels.choice(name, &labels.gold().predicted(&predictions))
    };
    if judged.scored == 0 {
        let problem = "none of the distant labels has a score here";
        return Err(DataError::new(path, problem)
            .hint("score the documents of --distant, under the same titles")
            .into());
    }
    if judged.choice.is_none() && judged.scored < labels.keys().len() {
        say(format!(
            "warning: {name}: {} of {} labels have no score, and come last",
            labels.keys().len() - judged.scored,
            labels.keys().len()
        ));
    }
    Ok(judged)
}

/// What a checkpoint says of the labels: the places that a ranker gives their pairs, or the margins
/// of a fine-tuned system. Its documents are tokenised here.
fn checkpoint_scores<'a>(
    path: &Path,
    documents: &[Document],
    labels: &DistantLabels<'a>,
    session: &Session,
) -> Result<AHashMap<FactKey<'a>, f64>> {
    let description: Description = Checkpoint::open(path)?.description()?;
    let gold = labels.gold();
    let known = || documents.iter().filter_map(|one| Some((gold.row(&one.title)?, one)));
    let tokenized = |mut tokenizer: Tokenizer| {
        let encode = |(_, document): (usize, &Document)| {
            let document = Document { facts: None, ..document.clone() };
            tokenize(&document, &mut tokenizer, &description.relations).map(Arc::new)
        };
        known().map(encode).collect::<Result<Vec<_>>>()
    };
    let rows = known().map(|(row, _)| row);
    if description.kind == ModelKind::Ranker {
        let loaded = LoadedModel::open(path, description.kind, session.device)?;
        let ranker = LoadedRanker::new(loaded, session.precision(PrecisionChoice::Auto))?;
        let documents = tokenized(ranker.loaded.tokenizer.clone())?;
        let all = KeptPairs::fixed(usize::MAX);
        let kept = ranker.keep(&documents, all, PREDICT_TOKENS, &mut |_| Ok(()))?;
        let counts = documents.iter().map(|document| document.entities.len());
        let ranked = rows.zip(counts).zip(&kept).map(|((row, count), kept)| (row, count, &**kept));
        return Ok(of_places(ranked, labels));
    }
    let loaded = LoadedExtractor::open(path, session.device)?;
    let documents = tokenized(loaded.tokenizer.clone())?;
    let predictor = Predictor::new(&*loaded.model, session.precision(PrecisionChoice::Auto));
    let decider = Decider::of(&*loaded.model, None);
    let mut margins = AHashMap::new();
    for (row, scores) in rows.zip(predictor.scores(&documents, &mut |_| Ok(()))?) {
        for ((head, tail), logits) in decider.rows(&scores) {
            let of_class = |relation| decider.margin(logits, relation);
            let all: Vec<f32> = (0..decider.classes.relations).map(of_class).collect();
            margins.insert((row, head as usize, tail as usize), all);
        }
    }
    let score = |label: &FactKey<'a>| {
        let class = description.relations.index_of(label.relation)?;
        let margins = margins.get(&(label.document, label.head, label.tail))?;
        Some((*label, f64::from(margins[class])))
    };
    Ok(labels.keys().iter().filter_map(score).collect())
}

/// What shards say of the labels: a teacher's probabilities where there are some, or a ranker's
/// places.
fn shard_scores<'a>(
    folder: &Path,
    labels: &DistantLabels<'a>,
) -> Result<AHashMap<FactKey<'a>, f64>> {
    let store = DocumentStore::open(folder, StoreOptions::default())?;
    if store.manifest().taught.is_some() {
        return Ok(teacher_scores(&store, labels));
    }
    Ok(ranker_scores(&store, labels))
}

/// The teacher's probabilities of the labels.
fn teacher_scores<'a>(
    store: &DocumentStore,
    labels: &DistantLabels<'a>,
) -> AHashMap<FactKey<'a>, f64> {
    let mut probabilities: AHashMap<(usize, usize, usize, u16), f64> = AHashMap::new();
    for row in 0..store.len() {
        let document = store.get(row);
        let Some(gold) = labels.gold().row(&document.title) else { continue };
        for pair in document.taught.iter().flatten() {
            for one in &pair.relations {
                let key = (gold, pair.head as usize, pair.tail as usize, one.relation);
                probabilities.insert(key, one.probability());
            }
        }
    }
    let score = |label: &FactKey<'a>| {
        let class = store.relations().index_of(label.relation)? as u16;
        let key = (label.document, label.head, label.tail, class);
        Some((*label, *probabilities.get(&key)?))
    };
    labels.keys().iter().filter_map(score).collect()
}

/// How early a ranker keeps the pair of a label: the place in its document, as a share of the
/// number of entities.
fn ranker_scores<'a>(
    store: &DocumentStore,
    labels: &DistantLabels<'a>,
) -> AHashMap<FactKey<'a>, f64> {
    let documents: Vec<_> = (0..store.len()).map(|row| store.get(row)).collect();
    let ranked = documents.iter().filter_map(|document| {
        let row = labels.gold().row(&document.title)?;
        Some((row, document.entities.len(), document.kept.as_deref()?))
    });
    of_places(ranked, labels)
}

/// The places of pairs that are ranked, by gold row, number of entities and pairs.
fn of_places<'a, 'k>(
    ranked: impl Iterator<Item = (usize, usize, &'k [ScoredPair])>,
    labels: &DistantLabels<'a>,
) -> AHashMap<FactKey<'a>, f64> {
    let mut places: AHashMap<(usize, usize, usize), f64> = AHashMap::new();
    for (row, entities, kept) in ranked {
        for (place, pair) in kept.iter().enumerate() {
            let share = (place + 1) as f64 / entities as f64;
            places.insert((row, pair.head as usize, pair.tail as usize), -share);
        }
    }
    let score = |label: &FactKey<'a>| {
        Some((*label, *places.get(&(label.document, label.head, label.tail))?))
    };
    labels.keys().iter().filter_map(score).collect()
}

/// The scores of the labels themselves.
fn label_scores<'a>(path: &Path, labels: &DistantLabels<'a>) -> Result<AHashMap<FactKey<'a>, f64>> {
    let mut by_pair: AHashMap<(usize, usize, usize), Vec<FactKey<'a>>> = AHashMap::new();
    for label in labels.keys() {
        by_pair.entry((label.document, label.head, label.tail)).or_default().push(*label);
    }
    let mut scores = AHashMap::new();
    read_scores(path, &mut |row, score| {
        let Some(document) = labels.gold().row(score.title) else { return Ok(()) };
        let (head, tail) = (score.head as usize, score.tail as usize);
        let of_pair = by_pair.get(&(document, head, tail)).into_iter().flatten();
        let Some(label) = of_pair.into_iter().find(|label| label.relation == score.relation) else {
            return Ok(());
        };
        if scores.insert(*label, f64::from(score.score)).is_some() {
            let problem = format!("`{}` of ({head}, {tail}) has two scores", score.relation);
            let at = DataError::new(path, problem).row(row).title(score.title);
            return Err(at.hint("give each pair and relation one score").into());
        }
        Ok(())
    })?;
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts of Wikidata on Re-DocRED's dev documents. The numbers were counted by another program.
    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn labels_of_a_knowledge_base_are_noisy() {
        let data = crate::reference_data().join("data");
        let task = AuditTask {
            distant: data.join("wikidata/redocred_dev.json"),
            gold: data.join("redocred/dev_revised.json"),
            format: Format::DOCRED,
            denoisers: Vec::new(),
            checkpoint: None,
        };
        let audit = audit(&task, &Session::start("cpu", 1).unwrap()).unwrap();
        let share = |part: usize, of: usize| (1000.0 * part as f64 / of as f64).round();
        assert_eq!((audit.documents, audit.labels), (500, 15_787));
        assert_eq!(share(audit.right, audit.labels), 381.0);
        assert_eq!(share(audit.right, audit.facts), 348.0);
        assert_eq!(share(audit.on_related_pairs, audit.labels), 545.0);
        for (relation, right) in
            [("P17", 60), ("P131", 61), ("P27", 48), ("P361", 20), ("P495", 10), ("P276", 8)]
        {
            let row = audit.relations.iter().find(|row| row.relation == relation).unwrap();
            let percent = (100.0 * row.right as f64 / row.labels as f64).round();
            assert_eq!(percent, f64::from(right), "{relation}");
        }
    }
}
