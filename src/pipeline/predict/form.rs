//! The names that `predict --format` takes.
//!
//! Not for: reading (`input`).

use std::sync::LazyLock;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::corpus::Format;

/// What an input is: documents in one of the [formats](Format::all), or a folder of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictForm {
    /// A file of documents.
    Documents(Format),
    /// A folder that `prepare` or `score` wrote.
    Shards,
}

impl ValueEnum for PredictForm {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<PredictForm>> = LazyLock::new(|| {
            let formats = Format::all().iter().copied().map(PredictForm::Documents);
            formats.chain([PredictForm::Shards]).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Documents(format) => format.to_possible_value(),
            Self::Shards => {
                Some(PossibleValue::new("shards").help("A folder of shards, as `prepare` makes it"))
            }
        }
    }
}
