//! From the names in a file of weights to those of a model's parameters.

use super::ModelFolder;
use crate::Result;

/// How a kind of model names the tensors in its files.
#[derive(Clone, Copy, Debug)]
pub struct WeightNames {
    /// Prefix of all names in the file of a model with heads, such as `bert.`.
    pub prefix: &'static str,
    /// Prefixes of the heads of its own pre-training, which are left out.
    pub heads: &'static [&'static str],
}

/// Buffers that old versions saved.
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

impl ModelFolder {
    /// Gives the tensors the names of the model's parameters, without its prefix and the old
    /// endings `gamma` and `beta`, and leaves out heads and buffers.
    ///
    /// # Errors
    /// [`crate::Error::Data`] where two tensors end up with one name.
    pub fn rename(&mut self, names: &WeightNames) -> Result<()> {
        let mut heads = 0;
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            let bare = name.strip_prefix(names.prefix).unwrap_or(&name);
            if names.heads.iter().any(|head| bare.starts_with(head)) {
                heads += 1;
            } else if !BUFFERS.contains(&bare)
                && let renamed = modern(bare)
                && self.tensors.insert(renamed.clone(), tensor).is_some()
            {
                return Err(self
                    .error(format!("two tensors stand for `{renamed}`, one of them `{name}`"))
                    .into());
            }
        }
        if heads > 0 {
            self.notes.push(format!(
                "{heads} tensors of pre-training heads (`{}*`) were left out",
                names.heads.join("*`, `")
            ));
        }
        Ok(())
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
