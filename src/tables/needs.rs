//! The files that recipes name and that are not there. Not for: reading them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::file::{NeededFile, TableFile};
use crate::encoders::EncoderSpec;
use crate::hub::RepoName;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// All files and folders that a recipe names.
pub fn named_files(recipe: &Recipe) -> Vec<PathBuf> {
    let data = &recipe.data;
    let mut files = [&data.distant, &data.human, &data.dev, &data.test].map(Vec::clone).concat();
    files.extend(data.split.iter().flat_map(|split| split.files.clone()));
    files.extend(data.source.iter().flat_map(|source| source.files.clone()));
    if let Some(label) = &data.label {
        files.push(label.facts.clone());
        files.extend(label.documents.clone());
    }
    let single = [&data.relations, &data.train_facts, &data.mesh_tree];
    files.extend(single.into_iter().flatten().cloned());
    files.extend(recipe.encoder.word_vectors.clone());
    if !EncoderSpec::is_preset(&recipe.encoder.name) {
        files.extend(Some(PathBuf::from(&recipe.encoder.name)).filter(|path| !is_repository(path)));
    }
    files.extend(data.tokenizer.clone().filter(|path| !is_repository(path)));
    files
}

/// Whether a name stands for a repository of the Hub, which is fetched.
fn is_repository(path: &Path) -> bool {
    !path.exists() && path.to_str().and_then(RepoName::parse).is_some()
}

/// Refuses recipes that name files which are not there; the error lists what to bring.
///
/// # Errors
/// [`Error::Recipe`] with every missing file, its size and where it comes from.
pub fn check_files<'a>(
    file: &TableFile,
    recipes: impl Iterator<Item = &'a Recipe>,
    origin: &Path,
) -> Result<()> {
    let named: BTreeSet<PathBuf> = recipes.flat_map(named_files).collect();
    let missing: Vec<&PathBuf> = named.iter().filter(|path| !path.exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: String =
        missing.iter().map(|path| format!("\n  {}", told(path, &file.needs))).collect();
    let (origin, count, all) = (origin.display(), missing.len(), named.len());
    Err(Error::recipe(format!("{origin}: {count} of {all} files are missing:{list}")).with_hint(
        "bring them to these places, seen from the folder that the program is started in or from \
         that of the base recipe; --smoke tries the table on a few documents without them",
    ))
}

/// A file with its size and origin, where the table knows them.
fn told(path: &Path, needs: &[NeededFile]) -> String {
    match needs.iter().find(|need| path.ends_with(&need.file)) {
        Some(NeededFile { file, size, from }) => format!("{} ({size}), {from}", file.display()),
        None => path.display().to_string(),
    }
}
