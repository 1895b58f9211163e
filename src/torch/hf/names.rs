//! From the names in a file of weights to those of a model's parameters.
//!
//! Programs save an encoder under a prefix: `bert.` beside heads, `module.` from `DataParallel`,
//! `model.` from a class that holds the encoder, or several of them. No list of prefixes is kept:
//! the one that counts is found from the names that the encoder needs.

use std::collections::{BTreeMap, BTreeSet};

use super::ModelFolder;
use crate::Result;
use crate::torch::Slot;

/// Buffers that old versions saved.
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

impl ModelFolder {
    /// Gives the tensors the names of `slots`: takes off the prefix under which all that are needed
    /// stand, and turns the old endings `gamma` and `beta` into `weight` and `bias`. Drops buffers,
    /// and tensors outside of the prefix; returns the names of the latter.
    ///
    /// # Errors
    /// [`crate::Error::Data`] where several prefixes will do, naming them; where two tensors end up
    /// with one name.
    pub(super) fn rename(&mut self, slots: &[Slot]) -> Result<Vec<String>> {
        let prefix = self.prefix(slots)?;
        let mut outside = Vec::new();
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            let Some(inner) = name.strip_prefix(&prefix) else {
                outside.push(name);
                continue;
            };
            if !BUFFERS.contains(&inner)
                && let renamed = modern(inner)
                && self.tensors.insert(renamed.clone(), tensor).is_some()
            {
                return Err(self
                    .error(format!("two tensors stand for `{renamed}`, one of them `{name}`"))
                    .into());
            }
        }
        Ok(outside)
    }

    /// The prefix under which all needed tensors stand; where no prefix has them all, the one that
    /// has most, so that an error can say what is missing there.
    fn prefix(&self, slots: &[Slot]) -> Result<String> {
        let needed: BTreeSet<&str> =
            slots.iter().filter(|slot| !slot.optional).map(|slot| slot.name.as_str()).collect();
        let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for name in self.tensors.keys() {
            let dots = name.match_indices('.').map(|(dot, _)| dot + 1);
            for start in std::iter::once(0).chain(dots) {
                let inner = modern(&name[start..]);
                if needed.contains(inner.as_str()) {
                    found.entry(&name[..start]).or_default().insert(inner);
                }
            }
        }
        let complete = found.iter().filter(|(_, names)| names.len() == needed.len());
        let complete: Vec<&str> = complete.map(|(prefix, _)| *prefix).collect();
        if let [first, second, ..] = complete[..] {
            let quoted = |prefix: &str| match prefix {
                "" => "no prefix".to_owned(),
                _ => format!("`{prefix}`"),
            };
            let problem = format!(
                "the weights hold two encoders, one under {} and one under {}",
                quoted(first),
                quoted(second)
            );
            return Err(self
                .error(problem)
                .hint("save the encoder that is meant alone, as a folder of its own")
                .into());
        }
        let most = found.into_iter().rev().max_by_key(|(_, names)| names.len());
        Ok(most.map(|(prefix, _)| prefix.to_owned()).unwrap_or_default())
    }
}

/// Layer norms called their parameters `gamma` and `beta` once.
fn modern(name: &str) -> String {
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}
