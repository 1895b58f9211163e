//! Published DocRED results to print beside one's own. Not for: comparing; other data gives other
//! numbers.

use super::ReferenceRow;

/// (model, dev F1, dev Ign F1, test F1, test Ign F1) in per cent; NaN where the paper gives none.
/// Table 1 of Xiao et al. 2020 (docs/systems.md, "Published results"), with F1 and Ign F1 of the
/// LSTM row in the order that the other papers print.
const DOCRED: [(&str, f64, f64, f64, f64); 11] = [
    ("CNN", 43.45, 41.58, 42.26, 40.33),
    ("LSTM", 50.68, 48.44, 50.07, 47.71),
    ("BiLSTM", 50.94, 48.87, 51.06, 48.78),
    ("ContextAware", 51.09, 48.94, 50.70, 48.40),
    ("BERT", 55.67, 53.32, 56.17, 53.66),
    ("BERT-TS", 54.42, f64::NAN, 53.92, f64::NAN),
    ("HIN-BERT", 56.31, 54.29, 55.60, 53.70),
    ("DS-BiLSTM", 51.72, 41.44, 49.80, 39.15),
    ("DS-ContextAware", 51.39, 40.47, 50.12, 39.16),
    ("BERT+D", 57.42, 55.88, 57.20, 55.53),
    ("BERT+D+P", 58.65, 57.00, 58.43, 56.68),
];

/// The published DocRED results of the DSDocRE paper, as fractions.
pub fn docred_results() -> Vec<ReferenceRow> {
    let fraction = |percent: f64| percent.is_finite().then_some(percent / 100.0);
    let row =
        |(model, dev_f1, dev_ign, test_f1, test_ign): (&str, f64, f64, f64, f64)| ReferenceRow {
            model: model.to_owned(),
            dev_f1: fraction(dev_f1),
            dev_ign_f1: fraction(dev_ign),
            test_f1: fraction(test_f1),
            test_ign_f1: fraction(test_ign),
        };
    DOCRED.map(row).to_vec()
}
