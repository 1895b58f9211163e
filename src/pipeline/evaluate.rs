//! Scoring predictions against gold documents.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::base::say;
use crate::corpus::formats::GoldDocuments;
use crate::corpus::{
    Candidate, Document, Entity, Fact, Format, Mention, MeshTree, Provenance, filter_hypernyms,
};
use crate::eval::{
    self, BreakdownOptions, CompareOptions, Comparison, EvaluateOptions, FactSet, FactSets, Gold,
    OverSeeds, Prediction, Scorer, Scores, SideBySide, SystemFile, SystemScores, ThresholdScores,
    check_names, compare, decide_scores, distinct_names, on_listed_pairs, over_seeds, rank_scores,
    read_predictions, score_listed,
};
use crate::shards::DocumentStore;
use crate::text::{TokenizedCandidate, TokenizedDocument, TokenizedMention};
use crate::{DataError, Error, Result};

/// What to score, and with what, as the flags of `evaluate` say it.
#[derive(Debug, Default, Args)]
pub struct EvaluateTask {
    /// Annotated documents
    #[arg(long, value_name = "FILE")]
    pub gold: PathBuf,
    /// Predictions (result.json or result.zip); give several for mean and standard deviation
    #[arg(long, value_name = "FILE")]
    pub predictions: Vec<PathBuf>,
    /// A system's predictions under the name that tables and charts show; give any number, to see
    /// them side by side
    #[arg(long = "system", value_name = "NAME=FILE",
        conflicts_with_all = ["predictions", "scores", "compare"])]
    pub systems: Vec<SystemFile>,
    /// Where the bins of the distance in sentences begin [default: those of GLRE's figure]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub distance_bins: Vec<usize>,
    /// Where the bins of the mean number of mentions begin [default: 1,2,4]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub mention_bins: Vec<f64>,
    /// Scores of all pairs and relations (Parquet), for thresholds and curves
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Threshold for --scores, chosen on other documents
    #[arg(long, value_name = "P", requires = "scores", allow_negative_numbers = true)]
    pub theta: Option<f32>,
    /// Facts that Ign F1 leaves out: a .fact file or the annotated training file
    #[arg(long, value_name = "FILE")]
    pub train_facts: Option<PathBuf>,
    /// Distant facts, for a second Ign F1
    #[arg(long, value_name = "FILE")]
    pub distant_facts: Option<PathBuf>,
    /// Data set of the files, which decides the format of --gold and the default scorer
    #[arg(long, value_enum, value_name = "NAME", default_value = "docred")]
    pub dataset: Dataset,
    /// MeSH tree numbers, to filter hypernyms from the pairs of CDR before scoring
    #[arg(long, value_name = "FILE")]
    pub mesh_tree: Option<PathBuf>,
    /// Scorer to follow: official, atlop or redocred [default: the data set's own]
    #[arg(long, value_name = "NAME")]
    pub scorer: Option<String>,
    /// Other predictions on the same documents: what each gets and the other misses, and whether
    /// the difference is significant
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Bootstrap samples of --compare
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "compare")]
    pub samples: usize,
    /// Seed of the bootstrap of --compare
    #[arg(long, value_name = "S", default_value_t = 1, requires = "compare")]
    pub seed: u64,
}

/// Data sets with a scorer or a format of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
pub enum Dataset {
    /// DocRED and corpora in its format
    #[default]
    Docred,
    /// Re-DocRED
    Redocred,
    /// CDR in edge-oriented-graph's format, which lists the candidate pairs
    Cdr,
    /// GDA in the same format
    Gda,
}

impl Dataset {
    fn format(self) -> Result<Format> {
        match self {
            Self::Docred | Self::Redocred => Ok(Format::DOCRED),
            Self::Cdr => "cdr".parse(),
            Self::Gda => "gda".parse(),
        }
    }

    fn scorer(self) -> Scorer {
        if self == Self::Redocred { Scorer::Redocred } else { Scorer::Official }
    }
}

/// What `evaluate` gives.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Evaluation {
    /// The scores; of the first file where there are several.
    #[serde(flatten)]
    pub scores: Scores,
    /// All systems with their names: those of `--system`, or A and B of `--compare`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub systems: Vec<SystemScores>,
    /// Beside another file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Over several files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<OverSeeds>,
}

impl Evaluation {
    /// Whether systems are shown side by side, and none of them by itself.
    pub fn is_side_by_side(&self) -> bool {
        !self.systems.is_empty() && self.comparison.is_none()
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seeds {
            Some(seeds) => write!(f, "{seeds}")?,
            None if self.is_side_by_side() => write!(f, "{}", SideBySide(&self.systems))?,
            None => write!(f, "{}", self.scores)?,
        }
        self.comparison.iter().try_for_each(|comparison| write!(f, "{comparison}"))
    }
}

fn read_gold(task: &EvaluateTask, format: Format) -> Result<GoldDocuments> {
    let mut gold = format.read_gold(&task.gold)?;
    match (&mut gold.pairs, &task.mesh_tree) {
        (Some(lists), Some(tree)) => {
            let tree = MeshTree::load(tree)?;
            for (document, pairs) in gold.documents.iter().zip(lists) {
                filter_hypernyms(document, pairs, &tree);
            }
        }
        (None, Some(_)) => {
            return Err(Error::recipe("--mesh-tree filters the pairs of CDR")
                .with_hint("give --dataset cdr"));
        }
        _ => {}
    }
    if gold.documents.iter().all(|document| document.facts.is_none()) {
        return Err(DataError::new(&task.gold, "no document has labels")
            .hint("gold must be a labelled file")
            .into());
    }
    Ok(gold)
}

/// Scores prediction files.
///
/// # Errors
/// Files that cannot be read; gold without labels; neither predictions nor scores, or more than one
/// file where one is compared.
pub fn evaluate(task: &EvaluateTask) -> Result<Evaluation> {
    let (format, scorer) = check(task)?;
    let groups = groups_of(task)?;
    let named = task.systems.iter().map(|system| &system.path);
    let files: Vec<&PathBuf> = task.predictions.iter().chain(named).collect();
    let read_submitted = || files.iter().map(|path| read_predictions(path)).collect();
    let load = |path: &Option<PathBuf>| path.as_deref().map(FactSet::load).transpose();
    // The facts known from training data.
    let read_known = || Ok::<_, Error>((load(&task.train_facts)?, load(&task.distant_facts)?));
    let (file, (submitted, known)) =
        rayon::join(|| read_gold(task, format), || rayon::join(read_submitted, read_known));
    let submitted: Result<Vec<Vec<Prediction>>> = submitted;
    let (file, submitted, (annotated, distant)) = (file?, submitted?, known?);
    file.warnings.iter().for_each(|warning| say(format!("warning: {warning}")));
    let mut gold = Gold::new(&file.documents)?;
    if let Some(lists) = &file.pairs {
        gold = gold.without_filtered(lists);
    }
    let facts = FactSets { annotated: annotated.as_ref(), distant: distant.as_ref() };
    let ranking = task
        .scores
        .as_deref()
        .map(|path| rank_scores(path, &gold, annotated.as_ref(), task.theta))
        .transpose()?;
    let sets = match (&task.scores, &ranking) {
        (Some(path), Some(ranking)) if submitted.is_empty() => {
            vec![decide_scores(path, &gold, ranking)?]
        }
        _ => submitted,
    };
    let options = EvaluateOptions { facts, scorer, groups };
    let name = task.gold.file_stem().unwrap_or_default().to_string_lossy();
    let mut all =
        sets.iter().map(|set| score(&name, &gold, &file, set, &options)).collect::<Vec<_>>();
    let names = task.systems.iter().map(|system| system.name.clone());
    let mut systems: Vec<SystemScores> = names
        .zip(&all)
        .map(|(name, scores)| SystemScores { name, scores: scores.clone() })
        .collect();
    let seeds = (all.len() > 1 && systems.is_empty()).then(|| {
        let names = task.predictions.iter().map(|path| path.display().to_string()).collect();
        over_seeds(names, &all.iter().map(Scores::sections).collect::<Vec<_>>())
    });
    let mut scores = all.swap_remove(0);
    if let Some(ranking) = ranking {
        add_ranking(&mut scores, ranking);
    }
    let mut comparison = None;
    if let Some(path) = &task.compare {
        let read = read_predictions(path)?;
        let own = task.predictions.first().or(task.scores.as_ref());
        let files: Vec<&Path> = own.into_iter().chain([path]).map(PathBuf::as_path).collect();
        let both = [scores.clone(), score(&name, &gold, &file, &read, &options)];
        let letters = ["A", "B"].iter().zip(distinct_names(&files)).zip(both);
        systems.extend(letters.map(|((letter, name), scores)| SystemScores {
            name: format!("{letter}: {name}"),
            scores,
        }));
        let groups = options.groups.clone();
        let how = CompareOptions { samples: task.samples, seed: task.seed, groups };
        let [a, b] = [&sets[0], &read].map(|set| on_listed_pairs(&gold, set));
        comparison = Some(compare(&gold, &a, &b, &how)?);
    }
    Ok(Evaluation { scores, systems, comparison, seeds })
}

/// The groups of the break-downs that are asked for.
fn groups_of(task: &EvaluateTask) -> Result<BreakdownOptions> {
    let mut groups = BreakdownOptions::default();
    if !task.distance_bins.is_empty() {
        groups.distances = BreakdownOptions::distance_bins(&task.distance_bins)?;
    }
    if !task.mention_bins.is_empty() {
        groups.mentions = BreakdownOptions::mention_bins(&task.mention_bins)?;
    }
    Ok(groups)
}

/// Refuses flags that do not go together. Gives the format of the gold documents and the scorer.
fn check(task: &EvaluateTask) -> Result<(Format, Scorer)> {
    if task.samples == 0 && task.compare.is_some() {
        return Err(Error::recipe("--samples 0")
            .with_hint("a bootstrap needs at least one sample; 1000 is usual"));
    }
    if task.mesh_tree.is_some() && task.dataset == Dataset::Gda {
        return Err(Error::recipe("--mesh-tree cannot be used with --dataset gda")
            .with_hint("only CDR is filtered for hypernyms"));
    }
    let scorer = task.scorer.as_deref().map_or(Ok(task.dataset.scorer()), str::parse)?;
    check_names(&task.systems)?;
    if !task.systems.is_empty() {
        return Ok((task.dataset.format()?, scorer));
    }
    if task.predictions.is_empty() && task.scores.is_none() {
        return Err(Error::recipe("there is nothing to score")
            .with_hint("give --predictions FILE, --scores FILE.parquet or --system NAME=FILE"));
    }
    if task.predictions.len() > 1 && (task.compare.is_some() || task.scores.is_some()) {
        return Err(Error::recipe("--compare and --scores take a single file of predictions")
            .with_hint("compare the files two by two, or see all with --system NAME=FILE"));
    }
    Ok((task.dataset.format()?, scorer))
}

fn score(
    name: &str,
    gold: &Gold<'_>,
    file: &GoldDocuments,
    predictions: &[Prediction],
    options: &EvaluateOptions,
) -> Scores {
    let Some(lists) = &file.pairs else { return eval::evaluate(name, gold, predictions, options) };
    let kept = on_listed_pairs(gold, predictions);
    let mut scores = eval::evaluate(name, gold, &kept, options);
    scores.pairs = Some(score_listed(gold, lists, predictions, &kept, options.scorer));
    scores
}

fn add_ranking(scores: &mut Scores, mut ranking: ThresholdScores) {
    if ranking.unknown_title > 0 {
        let text = format!(
            "{} of {} scores are of documents that are not in the gold file",
            ranking.unknown_title, ranking.entries
        );
        scores.warnings.push(text);
    }
    scores.threshold = ranking.best;
    scores.curve = std::mem::take(&mut ranking.curve);
    (scores.reliability, scores.calibrated) =
        (ranking.reliability.take(), ranking.calibrated.take());
    scores.ranking = Some(ranking);
}

/// The documents of a store as gold: names, spans and facts; sentences hold words only if the store
/// was opened with them.
pub fn gold_of(store: &DocumentStore) -> Vec<Document> {
    (0..store.len()).map(|row| document_of(store, row)).collect()
}

/// The document of a row; without its words unless the store was opened with them.
pub fn document_of(store: &DocumentStore, row: usize) -> Document {
    let encoded: &TokenizedDocument = &store.get(row);
    let relations = store.relations();
    let starts = &encoded.sentence_starts;
    let word = |at: u32| encoded.words.get(at as usize).cloned().unwrap_or_default();
    let mention = |mention: &TokenizedMention, entity_type: &str| {
        let base = starts.get(mention.sentence as usize).copied().unwrap_or_default();
        Mention {
            name: mention.name.clone(),
            sentence: mention.sentence as usize,
            start: (mention.start - base) as usize,
            end: (mention.end - base) as usize,
            entity_type: entity_type.to_owned(),
        }
    };
    let entities = encoded.entities.iter().map(|entity| Entity {
        mentions: entity.mentions.iter().map(|inner| mention(inner, &entity.entity_type)).collect(),
        knowledge_base_id: None,
    });
    let facts = encoded.facts.iter().map(|fact| Fact {
        head: fact.head as usize,
        tail: fact.tail as usize,
        relation: relations
            .get(fact.relation as usize)
            .map_or_else(String::new, |relation| relation.id.clone()),
        evidence: fact.evidence.iter().map(|&sentence| sentence as usize).collect(),
    });
    let candidate = |pair: &TokenizedCandidate| Candidate {
        head: pair.head as usize,
        tail: pair.tail as usize,
        excluded: pair.excluded,
    };
    Document {
        title: encoded.title.clone(),
        sentences: starts.windows(2).map(|pair| (pair[0]..pair[1]).map(word).collect()).collect(),
        entities: entities.collect(),
        facts: encoded.labelled.then(|| facts.collect()),
        candidates: encoded.candidates.as_ref().map(|pairs| pairs.iter().map(candidate).collect()),
        provenance: Provenance::default(),
    }
}
