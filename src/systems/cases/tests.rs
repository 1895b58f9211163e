//! Every case of the reference data must hold.

use crate::parity::verify_case;
use crate::systems::parity_cases;

/// Recomputes a case of the reference data.
fn holds(name: &str) {
    let shared = crate::reference_data();
    let outcome =
        verify_case(&shared.join("parity").join(name), &parity_cases(), tch::Device::Cpu).unwrap();
    assert!(!outcome.failed(), "{outcome}");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn atlop_is_the_release() {
    holds("atlop");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn docre_ii_base_is_the_release() {
    holds("docre-ii-base");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn docre_ii_inference_is_the_release() {
    holds("docre-ii-inference");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn hin_and_glre_are_the_reference() {
    ["hin", "glre", "glre-cdr"].into_iter().for_each(holds);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn baselines_are_the_releases() {
    for network in ["cnn", "lstm", "bilstm", "contextaware", "lstm-sp"] {
        holds(&format!("baseline-{network}"));
    }
    holds("bert-re");
}

/// Recomputes a case of the systems for distantly supervised documents.
fn holds_distant(name: &str) {
    let shared = crate::reference_data();
    let outcome =
        verify_case(&shared.join("parity-distant").join(name), &parity_cases(), tch::Device::Cpu)
            .unwrap();
    assert!(!outcome.failed(), "{outcome}");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn kd_docre_is_the_release() {
    ["kd-docre", "kd-docre-distill"].into_iter().for_each(holds_distant);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn ssr_pu_is_the_release() {
    holds_distant("ssr-pu");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn relabelling_by_uncertainty_is_that_of_ugdre() {
    holds_distant("ugdre");
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn ttm_re_is_the_release() {
    holds_distant("ttm-re");
}
