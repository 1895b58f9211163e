//! Published results to print beside one's own. Not for: comparing; other data gives other numbers.

use super::ReferenceRow;
use crate::systems::{PublishedScores, SystemInfo};

/// What papers report of a system on DocRED, as fractions, in the order of F1 on dev.
pub fn published_results(system: &SystemInfo) -> Vec<ReferenceRow> {
    let mut rows: Vec<PublishedScores> = system.published.to_vec();
    rows.sort_by(|a, b| a.dev_f1.total_cmp(&b.dev_f1));
    let fraction = |percent: f64| percent / 100.0;
    let row = |published: PublishedScores| ReferenceRow {
        model: published.model.to_owned(),
        dev_f1: Some(fraction(published.dev_f1)),
        dev_ign_f1: published.dev_ign_f1.map(fraction),
        test_f1: Some(fraction(published.test_f1)),
        test_ign_f1: published.test_ign_f1.map(fraction),
    };
    rows.into_iter().map(row).collect()
}
