//! GLRE in the registry.

use std::sync::Arc;

use super::{Glre, GlreCorpus, GlreSettings, parity};
use crate::encoders::checks::{COUNTS, check_within};
use crate::parity::CaseKind;
use crate::systems::{
    Extractor, Foundation, Profile, System, SystemInfo, SystemSettings, adam_schedule,
};
use crate::train::Schedule;
use crate::{Error, Result};

/// GLRE. The corpus that the table names chooses the other defaults. A wrong corpus is refused when
/// the table is read.
pub static GLRE: System = System::new::<GlreSettings>(
    SystemInfo {
        title: "GLRE",
        parity: Some(CaseKind { system: "glre", compute: parity::glre }),
        ..SystemInfo::new(
            "glre",
            "global entity representations from a relational graph, local ones by attention \
             to mentions, context of other pairs",
            "Wang et al. 2020, Global-to-Local Neural Networks for Document-Level Relation \
             Extraction",
        )
    },
    |profile, user| {
        let corpus = user.get("corpus").and_then(|corpus| corpus.clone().try_into().ok());
        Arc::new(match corpus.unwrap_or_default() {
            GlreCorpus::Docred => GlreSettings::of(profile),
            GlreCorpus::Cdr => GlreSettings::cdr(profile),
        })
    },
);

impl SystemSettings for GlreSettings {
    fn check(&self) -> Result<()> {
        let counts = [
            ("width", self.width),
            ("type_width", self.type_width),
            ("distance_width", self.distance_width),
            ("rgcn_layers", self.rgcn_layers as i64),
            ("heads", self.heads),
            (
                "classifier_width",
                if self.classifier_width == 0 { 1 } else { self.classifier_width },
            ),
        ];
        check_within("glre", &counts, COUNTS, "widths and counts are at least 1")?;
        let rates = [
            ("lstm_dropout", self.lstm_dropout),
            ("rgcn_input_dropout", self.rgcn_input_dropout),
            ("rgcn_dropout", self.rgcn_dropout),
            ("attention_dropout", self.attention_dropout),
            ("classifier_dropout", self.classifier_dropout),
        ];
        check_within("glre", &rates, 0.0..1.0, "a rate lies in [0, 1)")?;
        let probabilities =
            [("na_keep", self.na_keep), ("unknown_singletons", self.unknown_singletons)];
        check_within("glre", &probabilities, 0.0..=1.0, "a probability lies in [0, 1]")?;
        if self.width % self.heads != 0 {
            let (width, heads) = (self.width, self.heads);
            return Err(Error::recipe(format!(
                "glre: `width` {width} cannot be shared among {heads} `heads`"
            )));
        }
        if !self.global_rep && !self.local_rep {
            return Err(Error::recipe("glre: neither `global_rep` nor `local_rep` is on")
                .with_hint("a pair needs one of them"));
        }
        if self.max_pieces.is_some_and(|pieces| pieces < 3) {
            return Err(Error::recipe("glre: `max_pieces` leaves no room between [CLS] and [SEP]"));
        }
        self.long_documents.without_extension("glre")
    }

    /// As the paper on the corpus (docs/systems.md, "G. GLRE"). On CDR the encoder is frozen, so
    /// that its rate means nothing.
    fn schedule(&self, _system: &SystemInfo, _profile: Profile) -> Schedule {
        let docred = Schedule {
            learning_rate: 1e-5,
            head_rate: 50.0,
            batch: 8,
            amsgrad: true,
            clip: 10.0,
            first_evaluation_epoch: 10.0,
            patience: 10,
            ..adam_schedule()
        };
        match self.corpus {
            GlreCorpus::Docred => docred,
            GlreCorpus::Cdr => Schedule {
                batch: 16,
                weight_decay: 1e-4,
                first_evaluation_epoch: 0.0,
                patience: 20,
                ..docred
            },
        }
    }

    fn build(&self, foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        Ok(Box::new(Glre::new(foundation, self.clone())?))
    }
}
