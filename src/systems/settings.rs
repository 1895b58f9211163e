//! The list of systems: their names, where they come from, their settings, and what builds them.

use serde::{Deserialize, Serialize};

use super::atlop::{Atlop, AtlopSettings};
use super::baselines::{Baseline, BaselineSettings, Network, TwoStep};
use super::docre_ii::{DocreIi, DocreIiSettings};
use super::dsdocre::{Dsdocre, DsdocreSettings};
use super::evidence::EvidenceSettings;
use super::glre::{Glre, GlreSettings};
use super::hin::{Hin, HinSettings};
use super::{Extractor, Foundation, Profile};
use crate::{Error, Result};

/// A system as the command line lists it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SystemInfo {
    /// Name, as in `finetune --system`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The paper.
    pub source: &'static str,
    /// Table of the recipe that holds its settings.
    pub table: &'static str,
}

/// All systems.
pub const SYSTEMS: &[SystemInfo] = &[
    SystemInfo {
        name: "dsdocre",
        about: "marked entities, max-pooled mentions, bilinear relation vectors of the ranker's \
            best pairs; arg-max with NA",
        source: "Xiao et al. 2020, Denoising Relation Extraction from Document-level Distant \
            Supervision",
        table: "dsdocre",
    },
    SystemInfo {
        name: "atlop",
        about: "localized context pooling over the encoder's own attention, grouped bilinear \
            classifier, adaptive thresholds",
        source: "Zhou et al. 2021, Document-Level Relation Extraction with Adaptive Thresholding \
            and Localized Context Pooling",
        table: "atlop",
    },
    SystemInfo {
        name: "docre-ii",
        about: "an ATLOP base whose predictions an inference module refines, iterated at test; two \
            training stages",
        source: "Zhang et al. 2022, Towards Better Document-level Relation Extraction via \
            Iterative Inference",
        table: "docre-ii",
    },
    SystemInfo {
        name: "hin",
        about: "entity, sentence and document inference over BiLSTMs; translation and bilinear \
            features in several spaces",
        source: "Tang et al. 2020, HIN: Hierarchical Inference Network for Document-Level Relation \
            Extraction",
        table: "hin",
    },
    SystemInfo {
        name: "glre",
        about: "global entity representations from a relational graph, local ones by attention to \
            mentions, context of other pairs",
        source: "Wang et al. 2020, Global-to-Local Neural Networks for Document-Level Relation \
            Extraction",
        table: "glre",
    },
    SystemInfo {
        name: "cnn",
        about: "three blocks of convolution over word vectors, bilinear pairs",
        source: "Yao et al. 2019, DocRED: A Large-Scale Document-Level Relation Extraction Dataset",
        table: "baseline",
    },
    SystemInfo {
        name: "lstm",
        about: "an LSTM over word vectors, bilinear pairs",
        source: "Yao et al. 2019",
        table: "baseline",
    },
    SystemInfo {
        name: "bilstm",
        about: "a BiLSTM over word vectors, bilinear pairs",
        source: "Yao et al. 2019",
        table: "baseline",
    },
    SystemInfo {
        name: "context-aware",
        about: "the BiLSTM, and attention over all pairs of the document",
        source: "Yao et al. 2019, after Sorokin and Gurevych 2017",
        table: "baseline",
    },
    SystemInfo {
        name: "bert-re",
        about: "first-piece states of a Transformer, averaged to entities, bilinear pairs",
        source: "Wang et al. 2019, Fine-tune Bert for DocRED with Two-step Process",
        table: "baseline",
    },
    SystemInfo {
        name: "bert-ts",
        about: "two networks of BERT-RE's: related or not, then which relation",
        source: "Wang et al. 2019",
        table: "baseline",
    },
    SystemInfo {
        name: "lstm-sp",
        about: "the evidence predictor: which sentences support a fact that another system has \
            predicted",
        source: "Yao et al. 2019",
        table: "lstm-sp",
    },
];

impl SystemInfo {
    /// The system of that name.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the nearest one.
    pub fn of(name: &str) -> Result<&'static Self> {
        SYSTEMS.iter().find(|system| system.name == name).ok_or_else(|| {
            let names: Vec<&str> = SYSTEMS.iter().map(|system| system.name).collect();
            Error::recipe(format!("there is no system `{name}`"))
                .with_hint(format!("the systems are {}", names.join(", ")))
        })
    }
}

/// A system with its settings, as a checkpoint keeps them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settings {
    /// DSDocRE, all parts.
    Dsdocre(Box<DsdocreSettings>),
    /// ATLOP.
    Atlop(AtlopSettings),
    /// DocRE-II, either stage.
    DocreIi(Box<DocreIiSettings>),
    /// HIN.
    Hin(Box<HinSettings>),
    /// GLRE.
    Glre(Box<GlreSettings>),
    /// DocRED's baselines and BERT-RE.
    Baseline(BaselineSettings),
    /// BERT-TS.
    TwoStep(BaselineSettings),
    /// LSTM-SP, the evidence predictor.
    #[serde(rename = "lstm-sp")]
    Evidence(EvidenceSettings),
}

impl Settings {
    /// The settings of a profile.
    ///
    /// # Errors
    /// As [`SystemInfo::of`].
    pub fn of(system: &str, profile: Profile) -> Result<Self> {
        Ok(match SystemInfo::of(system)?.name {
            "dsdocre" => Self::Dsdocre(Box::new(DsdocreSettings::of(profile))),
            "atlop" => Self::Atlop(AtlopSettings::of(profile)),
            "docre-ii" => Self::DocreIi(Box::new(DocreIiSettings::of(profile))),
            "hin" => Self::Hin(Box::new(HinSettings::of(profile))),
            "glre" => Self::Glre(Box::new(GlreSettings::of(profile))),
            "bert-ts" => Self::TwoStep(BaselineSettings::of(Network::Linear, profile)),
            "cnn" => Self::Baseline(BaselineSettings::of(Network::Cnn, profile)),
            "lstm" => Self::Baseline(BaselineSettings::of(Network::Lstm, profile)),
            "bilstm" => Self::Baseline(BaselineSettings::of(Network::Bilstm, profile)),
            "context-aware" => Self::Baseline(BaselineSettings::of(Network::ContextAware, profile)),
            "bert-re" => Self::Baseline(BaselineSettings::of(Network::Linear, profile)),
            "lstm-sp" => Self::Evidence(EvidenceSettings::of(profile)),
            listed => return Err(Error::Bug(format!("system `{listed}` has no settings"))),
        })
    }

    /// The system's name, as in `finetune --system`.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Dsdocre(_) => "dsdocre",
            Self::Atlop(_) => "atlop",
            Self::DocreIi(_) => "docre-ii",
            Self::Hin(_) => "hin",
            Self::Glre(_) => "glre",
            Self::TwoStep(_) => "bert-ts",
            Self::Evidence(_) => "lstm-sp",
            Self::Baseline(settings) => match settings.network {
                Network::Cnn => "cnn",
                Network::Lstm => "lstm",
                Network::Bilstm => "bilstm",
                Network::ContextAware => "context-aware",
                Network::Linear => "bert-re",
            },
        }
    }

    /// Whether the system needs a second encoder ([`Foundation::twin`]).
    pub fn needs_twin(&self) -> bool {
        matches!(self, Self::TwoStep(_))
    }

    /// DSDocRE's dsdocre.
    ///
    /// # Errors
    /// Another system.
    pub fn dsdocre(&self) -> Result<&DsdocreSettings> {
        match self {
            Self::Dsdocre(settings) => Ok(settings),
            other => Err(Error::recipe(format!(
                "system `{}` has no ranker and no pre-training of its own",
                other.system()
            ))),
        }
    }

    /// Settings of the evidence predictor.
    ///
    /// # Errors
    /// Another system.
    pub fn evidence(&self) -> Result<&EvidenceSettings> {
        match self {
            Self::Evidence(settings) => Ok(settings),
            other => Err(Error::recipe(format!(
                "system `{}` finds relations, not their evidence",
                other.system()
            ))
            .with_hint("the evidence predictor is `lstm-sp`")),
        }
    }

    /// Builds the extractor; `ranked` says whether documents carry a ranker's pairs (DSDocRE alone
    /// asks).
    ///
    /// # Errors
    /// If no model can be built from the settings, for the evidence predictor, which extracts
    /// nothing, or if libtorch rejects an operation.
    pub fn build(&self, foundation: Foundation, ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(match self {
            Self::Dsdocre(settings) => Box::new(Dsdocre::new(foundation, settings, ranked)?),
            Self::Atlop(settings) => Box::new(Atlop::new(foundation, settings.clone())?),
            Self::DocreIi(settings) => Box::new(DocreIi::new(foundation, (**settings).clone())?),
            Self::Hin(settings) => Box::new(Hin::new(foundation, (**settings).clone())?),
            Self::Glre(settings) => Box::new(Glre::new(foundation, (**settings).clone())?),
            Self::Baseline(settings) => Box::new(Baseline::new(foundation, settings)?),
            Self::TwoStep(settings) => Box::new(TwoStep::new(foundation, settings)?),
            Self::Evidence(_) => {
                return Err(Error::recipe(
                    "system `lstm-sp` finds the evidence of relations, not \
                    relations",
                )
                .with_hint(
                    "train it with `finetune --system lstm-sp`, use it with `predict \
                        --checkpoint C --evidence LSTM_SP`",
                ));
            }
        })
    }
}
