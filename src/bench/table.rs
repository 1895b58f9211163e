//! The table of all systems.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One system, trained and measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SystemRow {
    /// The system, or the trivial predictor.
    pub system: String,
    /// Its encoder.
    pub encoder: String,
    /// F1 on the held-out documents; of evidence sentences for the evidence predictor.
    pub f1: f64,
    /// F1 over facts that the training documents do not hold.
    pub ign_f1: Option<f64>,
    /// Documents a second in training.
    pub train_documents_per_s: Option<f64>,
    /// Documents a second in prediction.
    pub predict_documents_per_s: Option<f64>,
    /// Parameters that are trained.
    pub parameters: Option<i64>,
    /// Parameters that stay as they are (word vectors, a frozen encoder).
    pub frozen_parameters: Option<i64>,
    /// Peak memory of the process that trained and predicted, in MB.
    pub peak_memory_mb: Option<f64>,
    /// Training loss of each stage: of the first step, and the mean of the last epoch.
    pub losses: Vec<[f64; 2]>,
}

impl SystemRow {
    /// The largest share of its first loss that a stage ends at.
    pub fn loss_left(&self) -> Option<f64> {
        self.losses.iter().map(|[first, last]| last / first).reduce(f64::max)
    }
}

/// All systems on the same documents.
#[derive(Clone, Debug, Serialize)]
pub struct SystemTable {
    /// What was trained on and what is scored.
    pub documents: String,
    /// The rows.
    pub rows: Vec<SystemRow>,
    /// Systems that are not in it.
    pub failed: Vec<FailedSystem>,
}

/// A system that ended with an error, which its own process has told.
#[derive(Clone, Debug, Serialize)]
pub struct FailedSystem {
    /// Its name.
    pub system: String,
    /// The exit code of its process; nothing where a signal ended it.
    pub exit_code: Option<u8>,
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

impl fmt::Display for SystemRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millions = self.parameters.map(|count| count as f64 / 1e6);
        write!(
            f,
            "{:<15}{:<14}{:>7.2}{:>8}",
            self.system,
            // A folder or a name of the Hub by its last part, so that the columns stand.
            self.encoder.rsplit('/').next().unwrap_or_default(),
            100.0 * self.f1,
            cell(self.ign_f1.map(|f1| 100.0 * f1), 2)
        )?;
        write!(
            f,
            "{:>12}{:>12}",
            cell(self.train_documents_per_s, 1),
            cell(self.predict_documents_per_s, 1)
        )?;
        let left = self
            .loss_left()
            .map_or_else(|| "–".to_owned(), |left| format!("{:.1} %", 100.0 * left));
        write!(f, "{:>12}{:>10}{left:>15}", cell(millions, 2), cell(self.peak_memory_mb, 0))
    }
}

impl fmt::Display for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.documents)?;
        write!(
            f,
            "{:<15}{:<14}{:>7}{:>8}{:>12}{:>12}",
            "", "encoder", "F1", "Ign F1", "train doc/s", "pred doc/s"
        )?;
        write!(f, "{:>12}{:>10}{:>15}", "trained M", "peak MB", "loss left")?;
        self.rows.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}
