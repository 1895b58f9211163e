//! The baselines in the registry: six systems that share one table of settings.

use std::sync::Arc;

use super::{Baseline, BaselineSettings, Network, TwoStep, parity, parity_bert};
use crate::encoders::checks::{check_positive, check_rates};
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Profile, PublishedScores, Reads, System, SystemInfo, SystemSettings,
    adam_schedule,
};
use crate::train::{Schedule, Select};
use crate::{Error, Result};

const fn over_words(name: &'static str, about: &'static str, source: &'static str) -> SystemInfo {
    SystemInfo { reads: Reads::Words, ..over_pieces(name, about, source) }
}

const fn over_pieces(name: &'static str, about: &'static str, source: &'static str) -> SystemInfo {
    SystemInfo { table: "baseline", ..SystemInfo::new(name, about, source) }
}

/// `cnn`.
pub static CNN: System = System::new::<BaselineSettings>(
    SystemInfo {
        title: "CNN",
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
    |profile, _| Arc::new(BaselineSettings::of(Network::Cnn, profile)),
);

/// `lstm`. Its F1 and Ign F1 stand in the order that the other papers print.
pub static LSTM: System = System::new::<BaselineSettings>(
    SystemInfo {
        title: "LSTM",
        parity: Some(CaseKind {
            system: "baseline-lstm",
            compute: |case| parity::baseline(case, Network::Lstm),
        }),
        published: &[PublishedScores::new("LSTM", [50.68, 48.44], [50.07, 47.71])],
        ..over_words("lstm", "an LSTM over word vectors, bilinear pairs", "Yao et al. 2019")
    },
    |profile, _| Arc::new(BaselineSettings::of(Network::Lstm, profile)),
);

/// `bilstm`.
pub static BILSTM: System = System::new::<BaselineSettings>(
    SystemInfo {
        title: "BiLSTM",
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
    |profile, _| Arc::new(BaselineSettings::of(Network::Bilstm, profile)),
);

/// `context-aware`.
pub static CONTEXT_AWARE: System = System::new::<BaselineSettings>(
    SystemInfo {
        title: "ContextAware",
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
    |profile, _| Arc::new(BaselineSettings::of(Network::ContextAware, profile)),
);

/// `bert-re`.
pub static BERT_RE: System = System::new::<BaselineSettings>(
    SystemInfo {
        title: "BERT-RE",
        parity: Some(CaseKind { system: "bert-re", compute: parity_bert::bert_re }),
        ..over_pieces(
            "bert-re",
            "first-piece states of a Transformer, averaged to entities, bilinear pairs",
            "Wang et al. 2019, Fine-tune Bert for DocRED with Two-step Process",
        )
    },
    |profile, _| Arc::new(BaselineSettings::of(Network::Linear, profile)),
);

/// `bert-ts`.
pub static BERT_TS: System = System::new::<BaselineSettings>(
    SystemInfo {
        title: "BERT-TS",
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
    |profile, _| Arc::new(BaselineSettings::of(Network::Linear, profile)),
);

impl SystemSettings for BaselineSettings {
    fn check(&self) -> Result<()> {
        let widths = [
            ("coref_width", self.coref_width),
            ("type_width", self.type_width),
            ("distance_width", self.distance_width),
            ("hidden", self.hidden),
            ("channels", self.channels),
            ("coref_rows", self.coref_rows as i64 - 1),
        ];
        check_positive("", &widths)
            .map_err(|error| error.with_hint("leave it out for the default"))?;
        let rates = [("cnn_dropout", self.cnn_dropout), ("locked_dropout", self.locked_dropout)];
        check_rates("", &rates)?;
        if self.na_per_positive.is_nan() {
            return Err(Error::recipe("`na_per_positive` is not a number")
                .with_hint("a negative number takes all NA pairs"));
        }
        if (1..3).contains(&self.max_pieces) {
            return Err(Error::recipe(format!(
                "`max_pieces` is {}, which has no room for a piece",
                self.max_pieces
            )));
        }
        self.long_documents.without_extension("this system")
    }

    fn schedule(&self, system: &SystemInfo, _profile: Profile) -> Schedule {
        match system.reads {
            Reads::Pieces => Schedule { learning_rate: 1e-5, batch: 30, ..adam_schedule() },
            Reads::Words => Schedule {
                learning_rate: 1e-3,
                batch: 40,
                evaluate_epochs: 5,
                select: Select::IgnF1,
                ..adam_schedule()
            },
        }
    }

    /// BERT-TS, where there are two encoders.
    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(if foundation.twin.is_some() {
            Box::new(TwoStep::new(foundation, self)?)
        } else {
            Box::new(Baseline::new(foundation, self)?)
        })
    }
}
