//! Declaring a list of parameters, and filling it from a folder after every name and shape was
//! checked.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::Result;
use crate::torch::hf::ModelFolder;
use crate::torch::{Parameters, Slot};

/// How many names an error or a note lists before it only counts.
const NAMES_LISTED: usize = 5;

/// A folder's `config.json`, read as a configuration of ours.
///
/// # Errors
/// [`crate::Error::Data`] naming the key that does not fit.
pub fn config<C: DeserializeOwned>(folder: &ModelFolder) -> Result<C> {
    serde_json::from_value(folder.config.clone())
        .map_err(|cause| folder.error(format!("config.json: {cause}")).into())
}

/// Declares `slots` with the weights of a folder, whose word table of `rows` rows must have one for
/// every piece; returns notes on the folder.
///
/// # Errors
/// [`crate::Error::Data`] for a word table that is too small; as [`check`].
pub fn read(
    folder: &mut ModelFolder,
    slots: Vec<Slot>,
    (rows, pieces): (i64, i64),
    params: &mut Parameters,
) -> Result<Vec<String>> {
    if pieces > rows {
        return Err(folder
            .error(format!("the word table has {rows} rows, but the tokenizer {pieces} pieces"))
            .into());
    }
    let notes = check(folder, &slots)?;
    params.declare_all(slots)?;
    fill(folder, params)?;
    Ok(notes)
}

/// Names the folder's tensors as `slots` are, whatever prefix they were saved under, and compares
/// both before anything is allocated; returns notes on what is missing or left over.
///
/// # Errors
/// [`crate::Error::Data`] for weights that hold two encoders; listing missing names; naming both
/// shapes of a tensor that does not fit.
pub fn check(folder: &mut ModelFolder, slots: &[Slot]) -> Result<Vec<String>> {
    let outside = folder.rename(slots)?;
    let (optional, needed): (Vec<&Slot>, Vec<&Slot>) = slots
        .iter()
        .filter(|slot| !folder.tensors.contains_key(&slot.name))
        .partition(|slot| slot.optional);
    let known: BTreeSet<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    let inside = folder.tensors.keys().map(String::as_str).filter(|name| !known.contains(name));
    let unexpected: Vec<&str> = inside.chain(outside.iter().map(String::as_str)).collect();
    if !needed.is_empty() {
        let problem =
            format!("the weights lack {}", list(needed.iter().map(|slot| slot.name.as_str())));
        let found = if unexpected.is_empty() {
            String::new()
        } else {
            format!("; not used: {}", list(unexpected))
        };
        return Err(folder
            .error(problem + &found)
            .hint("are config.json and the weights from the same model?")
            .into());
    }
    check_shapes(folder, slots)?;
    let mut notes = Vec::new();
    if !optional.is_empty() {
        notes.push(format!(
            "not in the weights, and read by nothing here: {}",
            list(optional.iter().map(|slot| slot.name.as_str()))
        ));
    }
    if !unexpected.is_empty() {
        notes.push(format!("in the weights, but not used: {}", list(unexpected)));
    }
    Ok(notes)
}

fn check_shapes(folder: &ModelFolder, slots: &[Slot]) -> Result<()> {
    for slot in slots {
        let Some(tensor) = folder.tensors.get(&slot.name) else { continue };
        if tensor.size() != slot.shape {
            let problem = format!(
                "tensor `{}` has shape {:?}, but config.json makes it {:?}",
                slot.name,
                tensor.size(),
                slot.shape
            );
            return Err(folder.error(problem).into());
        }
    }
    Ok(())
}

/// Copies every tensor of a checked folder that has a parameter. A parameter with more rows keeps
/// its initial values in the rest.
///
/// # Errors
/// If a tensor does not fit its parameter.
pub fn fill(folder: &ModelFolder, params: &Parameters) -> Result<()> {
    for (name, value) in &folder.tensors {
        if let Some(target) = params.get(name) {
            let rows = value.size().first().copied().unwrap_or(0);
            tch::no_grad(|| target.f_narrow(0, 0, rows)?.f_copy_(value))?;
        }
    }
    Ok(())
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names
        .iter()
        .take(NAMES_LISTED)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMES_LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
