//! What is known of relations beforehand: which entities they join, and which facts exclude or
//! follow from others. Read from a TOML file, which docs/formats.md describes.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::base::text_file;
use crate::{DataError, Result};

/// What a file says of one relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RelationConstraint {
    /// Identifier of the relation.
    pub id: String,
    /// A head has one tail (date of birth).
    #[serde(default)]
    pub functional: bool,
    /// A tail has one head (capital of).
    #[serde(default)]
    pub inverse_functional: bool,
    /// The relation that says the same from tail to head; that of a symmetric relation is itself.
    #[serde(default)]
    pub inverse: Option<String>,
    /// Types that a head may have; empty: any.
    #[serde(default)]
    pub head_types: Vec<String>,
    /// Types that a tail may have; empty: any.
    #[serde(default)]
    pub tail_types: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConstraintsFile {
    relation: Vec<RelationConstraint>,
}

/// Constraints by relation.
#[derive(Clone, Debug, Default)]
pub(super) struct Constraints(BTreeMap<String, RelationConstraint>);

impl Constraints {
    /// Reads a file.
    ///
    /// # Errors
    /// A [`DataError`] for TOML of another form, a relation that stands twice, and inverses that
    /// are not each other's.
    pub fn load(path: &Path) -> Result<Self> {
        let text = text_file::read_whole(path)?;
        let text = String::from_utf8(text).map_err(|_| DataError::new(path, "not UTF-8"))?;
        let file: ConstraintsFile = toml::from_str(&text).map_err(|error| {
            DataError::new(path, error.to_string().trim_end().replace('\n', " "))
                .hint("docs/formats.md describes the file under \"Constraints\"")
        })?;
        let mut all = BTreeMap::new();
        for (row, relation) in file.relation.into_iter().enumerate() {
            let id = relation.id.clone();
            if all.insert(id.clone(), relation).is_some() {
                let problem = format!("relation `{id}` stands twice");
                return Err(DataError::new(path, problem).row(row).field("id").into());
            }
        }
        let mut stated = Self(all);
        stated.complete(path)?;
        Ok(stated)
    }

    /// Adds to every inverse what it is the inverse of.
    fn complete(&mut self, path: &Path) -> Result<()> {
        let stated: Vec<(String, String)> = self
            .0
            .values()
            .filter_map(|one| Some((one.id.clone(), one.inverse.clone()?)))
            .collect();
        for (id, inverse) in stated {
            let other = self.0.entry(inverse.clone()).or_insert_with(|| RelationConstraint {
                id: inverse.clone(),
                ..RelationConstraint::default()
            });
            let back = other.inverse.get_or_insert_with(|| id.clone());
            if *back != id {
                let problem = format!(
                    "`{inverse}` is named as the inverse of `{id}`, but its own inverse is \
                     `{back}`"
                );
                return Err(DataError::new(path, problem).field("inverse").into());
            }
        }
        Ok(())
    }

    /// What is known of a relation.
    pub fn of(&self, relation: &str) -> Option<&RelationConstraint> {
        self.0.get(relation)
    }

    /// Relations that something is known of.
    pub fn relations(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
