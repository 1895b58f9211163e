//! Scores that papers report, to print beside one's own. Not for: comparing; other data gives other
//! numbers.

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
