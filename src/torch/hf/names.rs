//! From the names in a file of weights to those of `BertModel`.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use crate::{DataError, Result};

/// The prefixes of models that hold a BERT and heads.
const PREFIXES: [&str; 2] = ["bert.", "roberta."];
/// The heads of BERT's and RoBERTa's own pre-training.
const HEADS: [&str; 2] = ["cls.", "lm_head."];
/// Buffers that old versions saved.
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

/// Renames the tensors of `path`; the second value says what was left out.
///
/// # Errors
/// [`crate::Error::Data`] where two tensors end up with one name.
pub(super) fn clean(
    path: &Path,
    found: BTreeMap<String, Tensor>,
) -> Result<(BTreeMap<String, Tensor>, Vec<String>)> {
    let mut tensors = BTreeMap::new();
    let mut heads = 0;
    for (name, tensor) in found {
        let bare = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
        if HEADS.iter().any(|head| bare.starts_with(head)) {
            heads += 1;
        } else if !BUFFERS.contains(&bare)
            && let renamed = modern(bare)
            && tensors.insert(renamed.clone(), tensor).is_some()
        {
            return Err(DataError::new(
                path,
                format!("two tensors stand for `{renamed}`, one of them `{name}`"),
            )
            .into());
        }
    }
    let notes = if heads == 0 {
        Vec::new()
    } else {
        vec![format!(
            "{heads} tensors of pre-training heads (`{}*`) were left out",
            HEADS.join("*`, `")
        )]
    };
    Ok((tensors, notes))
}

/// Layer norms called their parameters `gamma` and `beta` once.
fn modern(name: &str) -> String {
    if let Some(stem) = name.strip_suffix(".gamma") {
        return format!("{stem}.weight");
    }
    if let Some(stem) = name.strip_suffix(".beta") {
        return format!("{stem}.bias");
    }
    name.to_owned()
}
