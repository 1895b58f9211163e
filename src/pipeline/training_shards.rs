//! The shards that fine-tuning trains on: one folder, or several with a weight each.
//!
//! Not for: the order of their documents (`sampling`), or how files become shards (`data`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::evaluate::document_of;
use super::rules::rules_of;
use crate::distant::{DistantSettings, LabelRules};
use crate::eval::{FactSet, distinct_names};
use crate::recipe::SourceKind;
use crate::shards::{DocumentStore, ShardManifest, StoreOptions};
use crate::systems::{TrainingSource, check_weight};
use crate::{Error, Result};

/// A folder of shards that is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingShards {
    /// What it is called in messages.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Where the labels come from, if that was said.
    pub kind: Option<SourceKind>,
    /// How often an epoch visits each document, on average.
    pub weight: f64,
}

impl TrainingShards {
    /// One folder, each document once an epoch.
    pub fn alone(folder: impl Into<PathBuf>) -> Self {
        Self { name: "human".into(), folder: folder.into(), kind: None, weight: 1.0 }
    }

    /// Names folders of a command line by what tells them apart.
    pub fn named_apart(mut shards: Vec<Self>) -> Vec<Self> {
        let folders: Vec<&Path> = shards.iter().map(|each| each.folder.as_path()).collect();
        let names = distinct_names(&folders);
        shards.iter_mut().zip(names).for_each(|(each, name)| each.name = name);
        shards
    }

    /// Name and kind, where the name does not say the kind.
    pub fn label(&self) -> String {
        match self.kind {
            Some(kind) if kind.name() != self.name => format!("{} ({})", self.name, kind.name()),
            _ => self.name.clone(),
        }
    }
}

/// `DIR`, or `DIR=WEIGHT`; a folder whose name has a `=` is taken as it is.
impl FromStr for TrainingShards {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let whole = Path::new(text).exists();
        let Some((folder, weight)) = text.rsplit_once('=').filter(|_| !whole) else {
            return Ok(Self::alone(text));
        };
        let weight = weight.parse().map_err(|_| {
            Error::recipe(format!("`{text}`: the weight `{weight}` is no number"))
                .with_hint("DIR, or DIR=WEIGHT with a number over 0")
        })?;
        check_weight(&format!("`{text}`: the weight"), weight)?;
        Ok(Self { weight, ..Self::alone(folder) })
    }
}

/// Shards that are open, in the order of their sources.
pub struct OpenShards {
    stores: Vec<DocumentStore>,
    labels: Vec<String>,
    weights: Vec<f64>,
    /// What becomes of the labels of each.
    rules: Vec<Option<LabelRules>>,
}

impl OpenShards {
    /// Opens all folders, which share so many bytes of memory: a small one is held whole, and large
    /// ones divide what is left.
    ///
    /// # Errors
    /// No folder; as [`DocumentStore::open`]; folders whose relations or tokenizers differ.
    pub fn open(shards: &[TrainingShards], memory: u64) -> Result<Self> {
        let stores = open_within(shards, memory)?;
        let Some((first, others)) = stores.split_first() else {
            return Err(Error::recipe("no documents to train on are named")
                .with_hint("name them with --train (data.human or data.source in a recipe)"));
        };
        if !others.is_empty() {
            let tokenizer = first.tokenizer()?;
            for other in others {
                same_relations(first, other)?;
                other.manifest().check_tokenizer(other.folder(), &tokenizer)?;
            }
        }
        let labels = shards.iter().map(TrainingShards::label).collect();
        let weights = shards.iter().map(|each| each.weight).collect();
        let rules = vec![None; stores.len()];
        Ok(Self { stores, labels, weights, rules })
    }

    /// The same, with labels as the rules of a recipe have them where a teacher has judged them.
    ///
    /// # Errors
    /// A rule that needs what a teacher did not store.
    pub fn with_rules(self, settings: &DistantSettings) -> Result<Self> {
        let rules = self.stores.iter().map(|store| rules_of(store, settings));
        Ok(Self { rules: rules.collect::<Result<_>>()?, ..self })
    }

    /// The stores; at least one.
    pub fn stores(&self) -> &[DocumentStore] {
        &self.stores
    }

    /// The first store, whose relations and tokenizer are those of all.
    pub fn first(&self) -> &DocumentStore {
        &self.stores[0]
    }

    /// What is trained on.
    pub fn sources(&self) -> Vec<TrainingSource<'_>> {
        let source = |at: usize| TrainingSource {
            name: &self.labels[at],
            store: &self.stores[at],
            weight: self.weights[at],
            rules: self.rules[at].as_ref(),
        };
        (0..self.stores.len()).map(source).collect()
    }

    /// What errors name as the place of a document.
    pub fn place(&self) -> PathBuf {
        let folders: Vec<String> =
            self.stores.iter().map(|store| store.folder().display().to_string()).collect();
        folders.join(" or ").into()
    }

    /// The facts that Ign F1 ignores: those of the file that a recipe names, or else those of all
    /// documents that are trained on.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn known_facts(&self, named: Option<&Path>) -> Result<FactSet> {
        let all = || {
            let documents = self
                .stores
                .iter()
                .flat_map(|store| (0..store.len()).map(move |row| document_of(store, row)));
            Ok(FactSet::from_documents(documents))
        };
        named.map_or_else(all, FactSet::load)
    }

    /// What to know of scores on dev if documents of dev are trained on too; `None` if none is.
    pub fn trained_on_dev(&self, dev: &DocumentStore) -> Option<String> {
        let mut left = HashMap::new();
        dev.each_title(&mut |_, title| {
            *left.entry(title.to_owned()).or_insert(0) += 1;
            true
        });
        let mut shared = 0;
        for store in &self.stores {
            store.each_title(&mut |_, title| {
                shared += left.remove(title).unwrap_or(0);
                !left.is_empty()
            });
        }
        (shared > 0).then(|| {
            format!(
                "{shared} of the {} documents of dev are trained on too: scores on dev do not \
                 measure the model, and the epoch is chosen by documents that it has learnt",
                dev.len()
            )
        })
    }
}

/// Opens folders, the smallest first, each of which may take an equal part of what is left.
fn open_within(shards: &[TrainingShards], mut memory: u64) -> Result<Vec<DocumentStore>> {
    let documents = |each: &TrainingShards| Ok(ShardManifest::read(&each.folder)?.documents);
    let sizes = shards.iter().map(documents).collect::<Result<Vec<_>>>()?;
    let mut order: Vec<usize> = (0..shards.len()).collect();
    order.sort_by_key(|&at| sizes[at]);
    let mut stores = Vec::new();
    for (place, at) in order.into_iter().enumerate() {
        let part = memory / (shards.len() - place) as u64;
        let options = StoreOptions { memory: part, ..StoreOptions::default() };
        let store = DocumentStore::open(&shards[at].folder, options)?;
        memory -= if store.is_held() { store.memory_bytes() as u64 } else { part };
        stores.push((at, store));
    }
    stores.sort_by_key(|&(at, _)| at);
    Ok(stores.into_iter().map(|(_, store)| store).collect())
}

/// Refuses two folders of shards with different relations.
///
/// # Errors
/// [`Error::Recipe`] that names both.
pub fn same_relations(one: &DocumentStore, other: &DocumentStore) -> Result<()> {
    if one.relations() == other.relations() {
        return Ok(());
    }
    let (one, other) = (one.folder().display(), other.folder().display());
    Err(Error::recipe(format!("{one} and {other} have different relations"))
        .with_hint("prepare both with the same --relations"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::WriteOptions;
    use crate::shards::testing::{document, prepared_with};

    #[test]
    fn a_small_folder_is_held_whole_beside_large_ones_that_share_the_rest() {
        let temp = tempfile::tempdir().unwrap();
        let shards = [40, 4, 48].map(|count| {
            let one =
                |row| document(&format!("{row}"), &[&["Paris"], &["France"]], &[(0, 1, "P17")]);
            let documents: Vec<_> = (0..count).map(one).collect();
            let options = WriteOptions { rows_per_shard: 12, row_group_rows: 4 };
            let name = format!("s{count}");
            let folder = prepared_with(temp.path(), &name, &documents, options).0;
            TrainingShards { name, ..TrainingShards::alone(folder) }
        });
        let whole = OpenShards::open(&shards, StoreOptions::MEMORY).unwrap();
        assert!(whole.stores().iter().all(DocumentStore::is_held));
        let block = whole.stores()[1].memory_bytes() as u64;
        let some = OpenShards::open(&shards, 10 * block).unwrap();
        let held: Vec<bool> = some.stores().iter().map(DocumentStore::is_held).collect();
        assert_eq!(held, [false, true, false]);
        let lengths: Vec<usize> = some.stores().iter().map(DocumentStore::len).collect();
        assert_eq!(lengths, [40, 4, 48]);
        assert_eq!(some.stores()[0].window_blocks(), some.stores()[2].window_blocks());
        assert!(OpenShards::open(&shards, block).is_err());
    }

    #[test]
    fn a_folder_may_have_a_weight() {
        let read = |text: &str| text.parse::<TrainingShards>();
        let plain = read("a/human").unwrap();
        assert_eq!((plain.folder.as_path(), plain.weight), (Path::new("a/human"), 1.0));
        let weighted = read("b/human=0.25").unwrap();
        assert_eq!((weighted.folder.as_path(), weighted.weight), (Path::new("b/human"), 0.25));
        let named = TrainingShards::named_apart(vec![plain, weighted]);
        let names: Vec<&str> = named.iter().map(|each| each.name.as_str()).collect();
        assert_eq!(names, ["a/human", "b/human"]);
        let temp = tempfile::tempdir().unwrap();
        let odd = temp.path().join("x=3");
        fs_err::create_dir(&odd).unwrap();
        let taken = read(odd.to_str().unwrap()).unwrap();
        assert_eq!((taken.folder, taken.weight), (odd, 1.0));
        for text in ["a=", "a=b", "a=0", "a=-1", "a=nan"] {
            let error = read(text).unwrap_err();
            assert!(error.exit_code() == 64 && error.hint().is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn a_label_says_the_kind_where_the_name_does_not() {
        let label = |name: &str, kind| {
            TrainingShards { name: name.into(), kind, ..TrainingShards::alone("x") }.label()
        };
        assert_eq!(label("llm", Some(SourceKind::Llm)), "llm");
        assert_eq!(label("first", Some(SourceKind::Llm)), "first (llm)");
        assert_eq!(label("train", None), "train");
    }
}
