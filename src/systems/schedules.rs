//! The schedules of the papers and releases, by system.

use super::Profile;
use super::glre::Corpus;
use crate::train::{Schedule, Select};

/// Ranker: 32 documents a step, the checkpoint of epoch 4.
pub fn rank_schedule() -> Schedule {
    Schedule::base()
}

/// Pre-training: 16 document pairs a step, 16 epochs of 1,000 steps.
pub fn pretrain_schedule() -> Schedule {
    Schedule { batch: 16, epochs: 16.0, checkpoint_steps: 1000, ..Schedule::base() }
}

/// Fine-tuning of a system as its paper or release does it (the schedules of docs/systems.md).
pub fn finetune_schedule(system: &str, profile: Profile) -> Schedule {
    let code = profile == Profile::Code;
    let adam = Schedule {
        optimizer: "adam".into(),
        clip: 0.0,
        epsilon: 1e-8,
        epochs: 200.0,
        ..Schedule::base()
    };
    let atlop = Schedule {
        learning_rate: 5e-5,
        head_rate: 2.0,
        warmup: 0.06,
        decay: true,
        batch: 4,
        epochs: 30.0,
        ..Schedule::base()
    };
    match system {
        "atlop" => atlop,
        "docre-ii" if code => Schedule {
            batch: 20,
            epochs: 102.0,
            weight_decay: 1e-4,
            select: Select::IgnF1,
            ..atlop
        },
        "docre-ii" => Schedule { batch: 8, weight_decay: 1e-4, ..atlop },
        "hin" => Schedule { learning_rate: 1e-4, batch: 12, patience: 20, ..adam },
        "glre" => glre_schedule(Corpus::Docred),
        "bert-re" | "bert-ts" => Schedule { learning_rate: 1e-5, batch: 30, ..adam },
        "cnn" | "lstm" | "bilstm" | "context-aware" => Schedule {
            learning_rate: 1e-3,
            batch: 40,
            evaluate_epochs: 5,
            select: Select::IgnF1,
            ..adam
        },
        // Chosen by the F1 of evidence sentences.
        "lstm-sp" => Schedule { learning_rate: 1e-3, batch: 40, evaluate_epochs: 5, ..adam },
        _ => Schedule {
            learning_rate: 1e-5,
            batch: if code { 6 } else { 4 },
            epochs: 30.0,
            ..Schedule::base()
        },
    }
}

/// Fine-tuning of GLRE on a corpus (docs/systems.md, "G. GLRE"). On CDR the encoder is frozen, so
/// that its rate means nothing.
pub fn glre_schedule(corpus: Corpus) -> Schedule {
    let docred = Schedule {
        optimizer: "adam".into(),
        epsilon: 1e-8,
        epochs: 200.0,
        learning_rate: 1e-5,
        head_rate: 50.0,
        batch: 8,
        amsgrad: true,
        clip: 10.0,
        first_evaluation_epoch: 10.0,
        patience: 10,
        ..Schedule::base()
    };
    match corpus {
        Corpus::Docred => docred,
        Corpus::Cdr => Schedule {
            batch: 16,
            weight_decay: 1e-4,
            first_evaluation_epoch: 0.0,
            patience: 20,
            ..docred
        },
    }
}

/// DocRE-II's second stage (docs/systems.md, "I. DocRE-II").
pub fn inference_schedule(profile: Profile) -> Schedule {
    let base = finetune_schedule("docre-ii", profile);
    let (batch, epochs) = if profile == Profile::Code { (12, 52.0) } else { (8, 15.0) };
    Schedule { learning_rate: 1e-5, head_rate: 10.0, batch, epochs, ..base }
}
