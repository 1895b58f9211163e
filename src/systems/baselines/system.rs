//! The baselines in the registry: six systems that share one table of settings.

use toml::Table;

use super::{Baseline, BaselineSettings, Network, TwoStep, parity, parity_bert};
use crate::Result;
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Profile, PublishedScores, Reads, System, SystemInfo, adam_schedule,
};
use crate::train::{Schedule, Select};

/// A baseline: a network, or BERT-TS, which is two of them.
pub struct BaselineSystem {
    info: SystemInfo,
    network: Network,
}

const fn over_words(name: &'static str, about: &'static str, source: &'static str) -> SystemInfo {
    SystemInfo { reads: Reads::Words, ..over_pieces(name, about, source) }
}

const fn over_pieces(name: &'static str, about: &'static str, source: &'static str) -> SystemInfo {
    SystemInfo { table: "baseline", ..SystemInfo::new(name, about, source) }
}

/// `cnn`.
pub static CNN: BaselineSystem = BaselineSystem {
    network: Network::Cnn,
    info: SystemInfo {
        parity: Some(CaseKind {
            system: "baseline-cnn",
            compute: |case| parity::baseline(case, Network::Cnn),
        }),
        published: &[PublishedScores::new("CNN", [43.45, 41.58], [42.26, 40.33])],
        ..over_words(
            "cnn",
            "three blocks of convolution over word vectors, bilinear pairs",
            "Yao et al. 2019, DocRED: A Large-Scale Document-Level Relation Extraction Dataset",
        )
    },
};

/// `lstm`. Its F1 and Ign F1 stand in the order that the other papers print.
pub static LSTM: BaselineSystem = BaselineSystem {
    network: Network::Lstm,
    info: SystemInfo {
        parity: Some(CaseKind {
            system: "baseline-lstm",
            compute: |case| parity::baseline(case, Network::Lstm),
        }),
        published: &[PublishedScores::new("LSTM", [50.68, 48.44], [50.07, 47.71])],
        ..over_words("lstm", "an LSTM over word vectors, bilinear pairs", "Yao et al. 2019")
    },
};

/// `bilstm`.
pub static BILSTM: BaselineSystem = BaselineSystem {
    network: Network::Bilstm,
    info: SystemInfo {
        parity: Some(CaseKind {
            system: "baseline-bilstm",
            compute: |case| parity::baseline(case, Network::Bilstm),
        }),
        published: &[
            PublishedScores::new("BiLSTM", [50.94, 48.87], [51.06, 48.78]),
            PublishedScores::new("DS-BiLSTM", [51.72, 41.44], [49.80, 39.15]),
        ],
        ..over_words("bilstm", "a BiLSTM over word vectors, bilinear pairs", "Yao et al. 2019")
    },
};

/// `context-aware`.
pub static CONTEXT_AWARE: BaselineSystem = BaselineSystem {
    network: Network::ContextAware,
    info: SystemInfo {
        parity: Some(CaseKind {
            system: "baseline-contextaware",
            compute: |case| parity::baseline(case, Network::ContextAware),
        }),
        published: &[
            PublishedScores::new("ContextAware", [51.09, 48.94], [50.70, 48.40]),
            PublishedScores::new("DS-ContextAware", [51.39, 40.47], [50.12, 39.16]),
        ],
        ..over_words(
            "context-aware",
            "the BiLSTM, and attention over all pairs of the document",
            "Yao et al. 2019, after Sorokin and Gurevych 2017",
        )
    },
};

/// `bert-re`.
pub static BERT_RE: BaselineSystem = BaselineSystem {
    network: Network::Linear,
    info: SystemInfo {
        parity: Some(CaseKind { system: "bert-re", compute: parity_bert::bert_re }),
        ..over_pieces(
            "bert-re",
            "first-piece states of a Transformer, averaged to entities, bilinear pairs",
            "Wang et al. 2019, Fine-tune Bert for DocRED with Two-step Process",
        )
    },
};

/// `bert-ts`.
pub static BERT_TS: BaselineSystem = BaselineSystem {
    network: Network::Linear,
    info: SystemInfo {
        twin: true,
        published: &[PublishedScores {
            model: "BERT-TS",
            dev_f1: 54.42,
            dev_ign_f1: None,
            test_f1: 53.92,
            test_ign_f1: None,
        }],
        ..over_pieces(
            "bert-ts",
            "two networks of BERT-RE's: related or not, then which relation",
            "Wang et al. 2019",
        )
    },
};

impl System for BaselineSystem {
    type Settings = BaselineSettings;

    fn info(&self) -> SystemInfo {
        self.info
    }

    fn defaults(&self, profile: Profile, _user: &Table) -> BaselineSettings {
        BaselineSettings::of(self.network, profile)
    }

    fn check(&self, settings: &BaselineSettings) -> Result<()> {
        settings.check()
    }

    fn schedule(&self, _profile: Profile, _settings: &BaselineSettings) -> Schedule {
        match self.network {
            Network::Linear => Schedule { learning_rate: 1e-5, batch: 30, ..adam_schedule() },
            _ => Schedule {
                learning_rate: 1e-3,
                batch: 40,
                evaluate_epochs: 5,
                select: Select::IgnF1,
                ..adam_schedule()
            },
        }
    }

    fn build(
        &self,
        foundation: Foundation,
        settings: &BaselineSettings,
        _ranked: bool,
    ) -> Result<Box<dyn Extractor>> {
        Ok(if self.info.twin {
            Box::new(TwoStep::new(foundation, settings)?)
        } else {
            Box::new(Baseline::new(foundation, settings)?)
        })
    }
}
