//! The flags of `predict`: how facts are found, and which files they come from and go to.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::super::review::ReviewBand;
use super::form::PredictForm;
use crate::systems::EvidenceRule;
use crate::{Error, Result};

/// How facts are found, as the flags of `predict` say it.
#[derive(Clone, Debug, Default, Serialize, Args)]
pub struct PredictOptions {
    /// Fine-tuned checkpoint, or an export of one
    #[arg(long, value_name = "C")]
    #[serde(skip)]
    pub checkpoint: PathBuf,
    /// Checkpoint of the ranker, if it has moved since fine-tuning
    #[arg(long, value_name = "C")]
    #[serde(skip)]
    pub ranker: Option<PathBuf>,
    /// Decision threshold in place of the one chosen on dev (systems with one threshold, and fused
    /// scores)
    #[arg(long, value_name = "P")]
    pub threshold: Option<f64>,
    /// Write only facts with at least this calibrated probability
    #[arg(long, value_name = "P")]
    pub min_confidence: Option<f64>,
    /// Truncate documents that are too long for the model instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    /// Iterations of inference in place of those of the checkpoint; 0 for the base module alone
    /// (DocRE-II)
    #[arg(long, value_name = "K")]
    pub iterations: Option<usize>,
    /// Checkpoint of `finetune --system lstm-sp` that predicts the evidence sentences of each fact
    #[arg(long, value_name = "C")]
    #[serde(skip)]
    pub evidence: Option<PathBuf>,
    /// Predict as evidence the sentences that hold more than this share of a pair's attention, in
    /// place of the checkpoint's own threshold (systems that attend; DREEAM's release has 0.2)
    #[arg(long, value_name = "S", conflicts_with = "evidence")]
    pub evidence_threshold: Option<f64>,
    /// Predict from whole documents alone, without the second run over their evidence (DREEAM)
    #[arg(long)]
    pub without_fusion: bool,
}

impl PredictOptions {
    /// Refuses numbers outside their range.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the flag.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(least) = self.min_confidence.filter(|least| !(0.0..=1.0).contains(least)) {
            return Err(Error::recipe(format!("--min-confidence {least}"))
                .with_hint("a probability lies from 0 to 1"));
        }
        match self.evidence_threshold.filter(|share| !(0.0..1.0).contains(share)) {
            Some(share) => Err(Error::recipe(format!("--evidence-threshold {share}"))
                .with_hint("a share of attention lies from 0 to below 1")),
            None => Ok(()),
        }
    }

    /// How evidence is decided on: as the flags say, or else as the model's own `rule`.
    pub(super) fn evidence_rule(&self, rule: Option<EvidenceRule>) -> Option<EvidenceRule> {
        let none = EvidenceRule { threshold: 0.0, most: 0, fusion: None };
        let rule = match self.evidence_threshold {
            Some(threshold) => Some(EvidenceRule { threshold, ..rule.unwrap_or(none) }),
            None => rule,
        };
        let fused = !self.without_fusion;
        rule.map(|rule| EvidenceRule { fusion: rule.fusion.filter(|_| fused), ..rule })
    }
}

/// The documents and what is written of them, as the flags of `predict` say it.
#[derive(Clone, Debug, Default, Args)]
pub struct PredictFiles {
    /// Documents, labelled or not: files, or folders of shards of the checkpoint's tokenizer
    #[arg(long, num_args = 1.., value_name = "FILE", required = false)]
    #[arg(required_unless_present = "stream")]
    pub input: Vec<PathBuf>,
    /// Format of the input [default: docred, or shards for a folder of them]
    #[arg(long, value_enum, value_name = "F")]
    pub format: Option<PredictForm>,
    /// Predictions to write: a JSON list, or a Parquet table if the name ends in .parquet
    #[arg(long, value_name = "result.json", required = false, required_unless_present = "stream")]
    pub output: PathBuf,
    /// Go on with a prediction that was stopped, with the same options
    #[arg(long)]
    pub resume: bool,
    /// Also write result.zip beside the output, and check it by reading it again
    #[arg(long)]
    pub zip: bool,
    /// Also write the scores of all pairs and relations (Parquet), for `evaluate --scores`
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Also write the uncertain pairs for a person to judge, one a line, for `label --reviewed`
    #[arg(long, value_name = "FILE.jsonl")]
    pub review: Option<PathBuf>,
    /// Calibrated probabilities that are uncertain [default: 0.3,0.7]
    #[arg(long, value_name = "LOW,HIGH", value_delimiter = ',', requires = "review")]
    pub review_band: Vec<f64>,
    /// The most pairs to write for review, the most uncertain ones; 0 for all [default: 0]
    #[arg(long, value_name = "N", requires = "review")]
    pub review_limit: Option<usize>,
    /// Predict after every number of iterations, from 0 to --iterations or that of the checkpoint;
    /// writes result-k0.json, result-k1.json …
    #[arg(long)]
    pub all_iterations: bool,
}

impl PredictFiles {
    /// The same with names of files that say how many iterations there were.
    pub(super) fn numbered(&self, iterations: usize) -> Self {
        let named = |path: &PathBuf| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = match path.extension() {
                Some(end) => format!("{stem}-k{iterations}.{}", end.to_string_lossy()),
                None => format!("{stem}-k{iterations}"),
            };
            path.with_file_name(name)
        };
        let [scores, review] = [&self.scores, &self.review].map(|path| path.as_ref().map(named));
        Self { output: named(&self.output), scores, review, ..self.clone() }
    }

    /// The band of `--review`.
    ///
    /// # Errors
    /// [`Error::Recipe`] unless it is two probabilities in rising order.
    pub(super) fn band(&self) -> Result<ReviewBand> {
        ReviewBand::parse(&self.review_band)
    }

    /// The most pairs to write for review; `None` for all.
    pub(super) fn most_reviewed(&self) -> Option<usize> {
        self.review_limit.filter(|limit| *limit > 0)
    }

    /// Where `--zip` goes: result.zip, or result-k0.zip … beside each file of `--all-iterations`.
    pub(super) fn zip_file(&self) -> PathBuf {
        if self.all_iterations {
            self.output.with_extension("zip")
        } else {
            self.output.with_file_name("result.zip")
        }
    }
}
