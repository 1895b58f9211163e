//! Every case of the reference data must hold.

use crate::parity::verify_case;
use crate::systems::parity_cases;

/// Recomputes a case of the reference data, if there is any.
fn holds(name: &str) {
    let Some(shared) = std::env::var_os("DOCRE_SHARED").map(std::path::PathBuf::from) else {
        eprintln!("skipped: DOCRE_SHARED is not set");
        return;
    };
    let outcome = verify_case(&shared.join("parity").join(name), &parity_cases()).unwrap();
    assert!(!outcome.failed(), "{outcome}");
}

#[test]
fn atlop_is_the_release() {
    holds("atlop");
}

#[test]
fn docre_ii_base_is_the_release() {
    holds("docre-ii-base");
}

#[test]
fn docre_ii_inference_is_the_release() {
    holds("docre-ii-inference");
}

#[test]
fn hin_and_glre_are_the_reference() {
    ["hin", "glre", "glre-cdr"].into_iter().for_each(holds);
}

#[test]
fn baselines_are_the_releases() {
    for network in ["cnn", "lstm", "bilstm", "contextaware", "lstm-sp"] {
        holds(&format!("baseline-{network}"));
    }
    holds("bert-re");
}
