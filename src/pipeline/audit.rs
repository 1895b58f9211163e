//! The noise audit: distant labels beside human ones, and what denoisers keep of them.
//!
//! Not for: the arithmetic (`eval::audit`).

use std::path::{Path, PathBuf};

use ahash::AHashMap;
use clap::Args;

use crate::base::say;
use crate::corpus::Format;
use crate::corpus::formats::GoldDocuments;
use crate::eval::{
    Audit, AuditedDenoiser, DistantLabels, FactKey, Gold, SystemFile, check_names,
    read_predictions, read_scores,
};
use crate::shards::{DocumentStore, StoreOptions};
use crate::{DataError, Result};

/// What is audited, as the flags of `audit` say it.
#[derive(Clone, Debug, Args)]
pub struct AuditTask {
    /// Documents with distant labels
    #[arg(long, value_name = "FILE")]
    pub labels: PathBuf,
    /// The same documents with human labels
    #[arg(long, value_name = "FILE")]
    pub gold: PathBuf,
    /// Format of both files
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    pub format: Format,
    /// What tells true labels from false ones: a folder of shards that a ranker has scored, scores
    /// of pairs and relations (Parquet, from `predict --scores`), or a list of the facts that are
    /// kept (result.json); give any number
    #[arg(long = "denoiser", value_name = "NAME=PATH")]
    pub denoisers: Vec<SystemFile>,
}

/// Audits labels and denoisers.
///
/// # Errors
/// Files that cannot be read; files of different documents; a denoiser that scored none of the
/// labels.
pub fn audit(task: &AuditTask) -> Result<Audit> {
    check_names(&task.denoisers)?;
    let (labelled, human) = (read(task, &task.labels)?, read(task, &task.gold)?);
    let gold = Gold::new(&human.documents)?;
    let labels = DistantLabels::new(&gold, &labelled.documents)?;
    let mut audit = labels.audit();
    if audit.left_out > 0 {
        say(format!(
            "warning: {} of the documents of {} lack labels there or in {}, and are left out",
            audit.left_out,
            task.labels.display(),
            task.gold.display()
        ));
    }
    for denoiser in &task.denoisers {
        audit.denoisers.push(judge(denoiser, &labels)?);
    }
    Ok(audit)
}

fn read(task: &AuditTask, path: &Path) -> Result<GoldDocuments> {
    let file = task.format.read_gold(path)?;
    file.warnings.iter().for_each(|warning| say(format!("warning: {warning}")));
    Ok(file)
}

fn judge(denoiser: &SystemFile, labels: &DistantLabels<'_>) -> Result<AuditedDenoiser> {
    let SystemFile { name, path } = denoiser;
    let judged = if path.is_dir() {
        labels.denoiser(name, &ranker_scores(path, labels)?)
    } else if path.extension().is_some_and(|ending| ending == "parquet") {
        labels.denoiser(name, &label_scores(path, labels)?)
    } else {
        let predictions = read_predictions(path)?;
        labels.choice(name, &labels.gold().predicted(&predictions))
    };
    if judged.scored == 0 {
        let problem = "none of the distant labels has a score here";
        return Err(DataError::new(path, problem)
            .hint("score the documents of --labels, under the same titles")
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

/// How early a ranker keeps the pair of a label: the place in its document, as a share of the
/// number of entities.
fn ranker_scores<'a>(
    folder: &Path,
    labels: &DistantLabels<'a>,
) -> Result<AHashMap<FactKey<'a>, f64>> {
    let store = DocumentStore::open(folder, StoreOptions::default())?;
    let mut places: AHashMap<(usize, usize, usize), f64> = AHashMap::new();
    for row in 0..store.len() {
        let document = store.get(row);
        let (Some(gold), Some(kept)) = (labels.gold().row(&document.title), &document.kept) else {
            continue;
        };
        for (place, pair) in kept.iter().enumerate() {
            let share = (place + 1) as f64 / document.entities.len() as f64;
            places.insert((gold, pair.head as usize, pair.tail as usize), -share);
        }
    }
    let score = |label: &FactKey<'a>| {
        Some((*label, *places.get(&(label.document, label.head, label.tail))?))
    };
    Ok(labels.keys().iter().filter_map(score).collect())
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
            labels: data.join("wikidata/redocred_dev.json"),
            gold: data.join("redocred/dev_revised.json"),
            format: Format::DOCRED,
            denoisers: Vec::new(),
        };
        let audit = audit(&task).unwrap();
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
