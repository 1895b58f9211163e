//! What is known of a system without its settings: name and citation, the rows of the results table
//! that it is run for, the scores that papers report of it. Not for: comparing scores; other data
//! gives other numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::parity::CaseKind;

/// Which published reading the defaults follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The paper's intent with the release's bugs removed.
    #[default]
    Fixed,
    /// What the text says.
    Paper,
    /// What the release does.
    Code,
}

/// A row of the paper's results table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Fine-tuning alone: no ranker, no pre-training ("BERT").
    Baseline,
    /// Pre-training and fine-tuning, both without a ranker ("BERT+P").
    UnrankedPretrained,
    /// Ranker and fine-tuning ("BERT+D").
    Denoised,
    /// Ranker, pre-training and fine-tuning ("BERT+D+P").
    Pretrained,
    /// The baseline teaches the distant documents; a student learns them and is fine-tuned.
    Student,
    /// As the student, with the unranked pre-trained encoder for teacher and student.
    PretrainedStudent,
    /// The baseline teaches the distant documents; pre-training on what the rules leave of their
    /// labels, and fine-tuning.
    TaughtPretrained,
}

impl Variant {
    /// All variants, in the order of the paper's table.
    pub const ALL: [Self; 7] = [
        Self::Baseline,
        Self::UnrankedPretrained,
        Self::Denoised,
        Self::Pretrained,
        Self::Student,
        Self::PretrainedStudent,
        Self::TaughtPretrained,
    ];

    /// The name used in folders and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::UnrankedPretrained => "unranked-pretrained",
            Self::Denoised => "denoised",
            Self::Pretrained => "pretrained",
            Self::Student => "student",
            Self::PretrainedStudent => "pretrained-student",
            Self::TaughtPretrained => "taught-pretrained",
        }
    }

    /// What the paper appends to the name of the system.
    pub fn label(self) -> &'static str {
        match self {
            Self::Baseline => "",
            Self::UnrankedPretrained => "+P",
            Self::Denoised => "+D",
            Self::Pretrained => "+D+P",
            Self::Student => "+T",
            Self::PretrainedStudent => "+P+T",
            Self::TaughtPretrained => "+T+P",
        }
    }

    /// Whether it needs a ranker.
    pub fn is_ranked(self) -> bool {
        matches!(self, Self::Denoised | Self::Pretrained)
    }

    /// Whether its encoder comes from pre-training.
    pub fn is_pretrained(self) -> bool {
        matches!(self, Self::UnrankedPretrained | Self::Pretrained | Self::PretrainedStudent)
    }

    /// Whether its encoder comes from pre-training without a ranker.
    pub fn starts_unranked(self) -> bool {
        self.is_pretrained() && !self.is_ranked()
    }

    /// Whether a student learns from taught documents.
    pub fn is_student(self) -> bool {
        matches!(self, Self::Student | Self::PretrainedStudent)
    }

    /// The row whose model teaches the distant documents, for one that learns from them.
    pub fn teacher(self) -> Option<Self> {
        match self {
            Self::Student | Self::TaughtPretrained => Some(Self::Baseline),
            Self::PretrainedStudent => Some(Self::UnrankedPretrained),
            Self::Baseline | Self::UnrankedPretrained | Self::Denoised | Self::Pretrained => None,
        }
    }
}

/// A row of the published DocRED results: per cent, as printed.
#[derive(Clone, Copy, Debug)]
pub struct PublishedScores {
    /// Name of the model in the table.
    pub model: &'static str,
    /// F1 on dev.
    pub dev_f1: f64,
    /// Ign F1 on dev, where the paper gives one.
    pub dev_ign_f1: Option<f64>,
    /// F1 on test.
    pub test_f1: f64,
    /// Ign F1 on test, where the paper gives one.
    pub test_ign_f1: Option<f64>,
}

impl PublishedScores {
    /// A row of four numbers: F1 and Ign F1 on dev, then on test.
    pub const fn new(model: &'static str, dev: [f64; 2], test: [f64; 2]) -> Self {
        Self {
            model,
            dev_f1: dev[0],
            dev_ign_f1: Some(dev[1]),
            test_f1: test[0],
            test_ign_f1: Some(test[1]),
        }
    }
}

/// What the documents of a system are made of in its paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Word pieces, for a text encoder.
    Pieces,
    /// Words, for a table of word vectors.
    Words,
}

/// What is known of a system without its settings.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SystemInfo {
    /// Name, as in `finetune --system`.
    pub name: &'static str,
    /// Name as its paper prints it, for the rows of tables.
    #[serde(skip)]
    pub title: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The paper.
    pub source: &'static str,
    /// Table of the recipe that holds its settings.
    pub table: &'static str,
    /// What its documents are made of.
    #[serde(skip)]
    pub reads: Reads,
    /// Whether it needs a second encoder ([`Foundation::twin`](super::Foundation::twin)).
    #[serde(skip)]
    pub twin: bool,
    /// The rows of the results table that it is run for unless the recipe says otherwise.
    #[serde(skip)]
    pub variants: &'static [Variant],
    /// The cases of the reference implementation that its code must reproduce.
    #[serde(skip)]
    pub parity: Option<CaseKind>,
    /// What papers report of it on DocRED.
    #[serde(skip)]
    pub published: &'static [PublishedScores],
}

impl SystemInfo {
    /// A system over word pieces, with a table of its own and no published scores.
    pub const fn new(name: &'static str, about: &'static str, source: &'static str) -> Self {
        Self {
            name,
            title: name,
            about,
            source,
            table: name,
            reads: Reads::Pieces,
            twin: false,
            variants: &[Variant::Baseline],
            parity: None,
            published: &[],
        }
    }

    /// The name of a row of the results table.
    pub fn row(&self, variant: Variant) -> String {
        format!("{} {}", self.title, variant.label()).trim_end().to_owned()
    }

    /// Whether the system chooses pairs by a ranker.
    pub fn uses_ranker(&self) -> bool {
        self.variants.contains(&Variant::Denoised)
    }
}
