//! Parity: recompute a case of the reference implementations from its documents and weights, and
//! compare tensor by tensor.
//!
//! A case of a model is a folder with `case.json`, `docs.json`, `inputs.safetensors`,
//! `weights.safetensors` and `outputs.safetensors`; its own tolerance decides; a case of a scorer
//! holds gold, predictions and the numbers of a published script, a case of an encoder a Hugging
//! Face folder and its states. Word pieces, positions and pairs
//! are computed here from the documents and must be equal; only what was drawn at random is taken
//! from the inputs.

mod case;
mod compare;
mod encoder;
mod numbers;
mod probe;
mod scorer;
mod scorer_pairs;
mod scorer_thresholds;

use std::fmt;
use std::path::Path;

use serde::Serialize;
use tch::Device;

pub use case::{Case, TensorComparison};
pub(crate) use compare::{lengths, padded, unpadded};
pub use probe::probe;

use crate::torch::cuda;
use crate::{DataError, Result};

/// A case after comparison.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyOutcome {
    /// Name of the case.
    pub case: String,
    /// The comparisons.
    pub tensors: Vec<TensorComparison>,
    /// Why nothing was compared: a kind of case that is not known, or an error.
    pub problem: Option<String>,
}

impl VerifyOutcome {
    /// Whether a tensor is outside its tolerance, or nothing was compared.
    pub fn failed(&self) -> bool {
        self.problem.is_some()
            || self.tensors.is_empty()
            || self.tensors.iter().any(|tensor| !tensor.within)
    }
}

impl fmt::Display for VerifyOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            return writeln!(f, "{:<24} FAILED: {problem}", self.case);
        }
        let verdict = if self.failed() { "FAILED" } else { "ok" };
        writeln!(f, "{:<24} {verdict}, {} tensors", self.case, self.tensors.len())?;
        for tensor in &self.tensors {
            let mark = if tensor.within { ' ' } else { '!' };
            writeln!(
                f,
                "{mark} {:<64} {:>9} entries  abs {:.2e}  rel {:.2e}",
                tensor.tensor, tensor.entries, tensor.max_abs, tensor.max_rel
            )?;
        }
        Ok(())
    }
}

/// A kind of case: how the cases whose `case.json` names a system are recomputed.
#[derive(Clone, Copy, Debug)]
pub struct CaseKind {
    /// The system of `case.json`.
    pub system: &'static str,
    /// Recomputes a case and records the comparisons in it.
    pub compute: fn(&mut Case) -> Result<()>,
}

/// The file of a case's weights.
pub(crate) const WEIGHTS: &[&str] = &["weights.safetensors"];

/// Cases that need no system.
const OWN_KINDS: [CaseKind; 2] = [
    CaseKind { system: "scorer", compute: scorer::scorer },
    CaseKind { system: "encoder", compute: encoder::encoder },
];

/// Recomputes one case, which is of one of these `kinds`, of a scorer or of an encoder, on a
/// device: within the case's tolerance on the CPU, ten times that on CUDA.
///
/// # Errors
/// A folder that is not a case, or of an unknown kind.
pub fn verify_case(folder: &Path, kinds: &[CaseKind], device: Device) -> Result<VerifyOutcome> {
    if device.is_cuda() {
        cuda::allow_tf32(false)?;
    }
    let mut case = Case::open(folder, device)?;
    let (system, name) = (case.text("system"), case.name.clone());
    let kind = kinds.iter().chain(&OWN_KINDS).find(|kind| kind.system == system);
    let problem = match kind {
        Some(kind) => (kind.compute)(&mut case).map(|()| None)?,
        None => Some(format!("system `{system}` has no cases")),
    };
    Ok(VerifyOutcome { case: name, tensors: case.comparisons, problem })
}

/// Recomputes every case in a folder of cases, in order of name. One that cannot be computed is a
/// failed one, and the others go on.
///
/// # Errors
/// A folder that cannot be read, or holds no case.
pub fn verify_all(folder: &Path, kinds: &[CaseKind], device: Device) -> Result<Vec<VerifyOutcome>> {
    let mut cases: Vec<_> =
        fs_err::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    cases.sort();
    cases.retain(|path| path.join("case.json").exists());
    if cases.is_empty() {
        return Err(DataError::new(folder, "holds no case")
            .hint("name the folder that the folders with a case.json are in")
            .into());
    }
    Ok(cases.iter().map(|path| outcome_of(path, kinds, device)).collect())
}

fn outcome_of(folder: &Path, kinds: &[CaseKind], device: Device) -> VerifyOutcome {
    let case = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed =
        |problem: String| VerifyOutcome { case, tensors: Vec::new(), problem: Some(problem) };
    match std::panic::catch_unwind(|| verify_case(folder, kinds, device)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => failed(error.to_string()),
        Err(_told) => failed("the computation panicked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recomputes a case of the reference data.
    fn holds(name: &str) {
        let shared = crate::reference_data();
        let outcome =
            verify_case(&Path::new(&shared).join("parity").join(name), &[], Device::Cpu).unwrap();
        assert!(!outcome.failed() && outcome.problem.is_none(), "{outcome}");
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn encoders_are_those_of_transformers() {
        let folder = Path::new(&crate::reference_data()).join("parity-encoders");
        let outcomes = verify_all(&folder, &[], Device::Cpu).unwrap();
        assert!(outcomes.len() >= 14);
        let failed: Vec<String> =
            outcomes.iter().filter(|outcome| outcome.failed()).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{}", failed.concat());
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn scorers_are_the_published_scripts() {
        for name in [
            "scorer-docred",
            "scorer-redocred",
            "scorer-threshold",
            "scorer-breakdown",
            "scorer-cdr",
        ] {
            holds(name);
        }
    }
}
