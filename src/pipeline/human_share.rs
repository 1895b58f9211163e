//! A part of the annotated documents, for learning curves: the first ones by a hash of the title.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::prepare_job::{InputFile, read_files};
use crate::corpus::formats::{ReadOptions, TitleKey, title_key};
use crate::corpus::{Document, title_position};
use crate::recipe::DataSources;
use crate::{Error, Result};

/// How many of the annotated documents are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HumanShare {
    /// Those that are trained on.
    pub used: usize,
    /// All that could be.
    pub all: usize,
}

impl fmt::Display for HumanShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the {} annotated documents are trained on (data.human_documents)",
            self.used, self.all
        )
    }
}

/// Documents of `human` that are not trained on, and what is said of that.
pub struct ChosenDocuments {
    /// Titles that are left out.
    pub others: HashSet<TitleKey>,
    /// How many are left.
    pub share: HumanShare,
}

impl ChosenDocuments {
    /// Chooses among the annotated documents of files whose titles are not held out; `None` where
    /// the recipe asks for all.
    ///
    /// # Errors
    /// Fewer documents than are asked for; bad documents.
    pub fn choose(
        named: &DataSources,
        files: &[InputFile],
        read: &ReadOptions,
        held_out: &HashSet<String>,
    ) -> Result<Option<Self>> {
        let used = named.human_documents;
        if used == 0 {
            return Ok(None);
        }
        let (mut places, mut others) = (Vec::new(), HashSet::new());
        let mut seen = HashSet::new();
        let mut each = |_: &InputFile, document: Document| {
            let key = title_key(&document.title);
            if held_out.contains(&document.title) || !seen.insert(key) {
                return Ok(());
            }
            // A document without entities does not become part of the shards.
            if document.facts.is_some() && !document.entities.is_empty() {
                places.push((title_position(&document.title, &named.human_salt), key));
            } else {
                others.insert(key);
            }
            Ok(())
        };
        read_files(files, read, &mut each, &mut |_, _| {})?;
        let all = places.len();
        if all < used {
            return Err(Error::recipe(format!(
                "data.human_documents = {used}, but there are {all} annotated documents to train on"
            ))
            .with_hint("ask for fewer, or leave the key out to train on all of them"));
        }
        places.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        others.extend(places[used..].iter().map(|place| place.1));
        Ok(Some(Self { others, share: HumanShare { used, all } }))
    }
}
