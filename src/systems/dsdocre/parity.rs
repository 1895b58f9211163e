//! The DSDocRE cases: ranker, pre-trainer, fine-tuner.

mod finetuner;
mod pretrainer;
mod ranker;
mod shared;

use crate::Result;
use crate::parity::Case;

/// Compares the model that the case's inputs are for.
pub(crate) fn dsdocre(case: &mut Case) -> Result<()> {
    if case.has_input("rankh") {
        ranker::ranker(case)
    } else if case.has_input("XRelDet_Label") {
        pretrainer::pretrainer(case)
    } else {
        finetuner::finetuner(case)
    }
}
