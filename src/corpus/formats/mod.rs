//! The file formats of documents, one folder or file each, and the list of them.
//!
//! To add a format, implement [`DocumentFormat`] and add a line to `FORMATS`. Not for: what a
//! document is (`corpus::document`) or what is checked in every document (`corpus::check`).

mod annotated;
mod brat;
mod chemdisgene;
pub mod docred;
mod eog;
mod format;
mod identifiers;
mod jsonl;
mod one;
mod plain;
mod pubtator;
mod reading;
mod running;
pub(in crate::corpus) mod scripts;
mod segment;

pub use docred::{DocredWriter, load_relations};
pub use eog::read_eog;
pub use format::{DocumentFormat, DocumentWriter, GoldDocuments, WriteSummary};
pub use one::{LoneDocument, read_one};
pub use plain::PlainText;
pub use reading::{
    GoingOn, Intake, LeftOut, OnError, ReadOptions, ReadSummary, TitleKey, list_left_out, title_key,
};

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex};

use clap::builder::PossibleValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Document;
use crate::base::lock;
use crate::{Error, Result};

/// All formats.
static FORMATS: [&dyn DocumentFormat; 6] = [
    &docred::Docred,
    &eog::Eog,
    &pubtator::Pubtator,
    &chemdisgene::Chemdisgene,
    &brat::Brat,
    &jsonl::Jsonl,
];

/// Formats from outside this folder.
static ADDED: Mutex<Vec<&'static dyn DocumentFormat>> = Mutex::new(Vec::new());

static ALL: LazyLock<Vec<Format>> = LazyLock::new(|| {
    let added = lock(&ADDED);
    FORMATS.iter().chain(added.iter()).flat_map(|&format| Format::of(format)).collect()
});

/// A format of documents, by one of its names.
#[derive(Clone, Copy)]
pub struct Format {
    name: &'static str,
    about: &'static str,
    format: &'static dyn DocumentFormat,
}

impl Format {
    /// DocRED's JSON, the default.
    pub const DOCRED: Self =
        Self { name: docred::NAME, about: docred::ABOUT, format: &docred::Docred };

    /// All formats, in the order of the help.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// Adds a format to [`Self::all`]. Takes effect only before the first use of any name.
    pub fn add(format: &'static dyn DocumentFormat) {
        lock(&ADDED).push(format);
    }

    /// The names of a format.
    pub fn of(format: &'static dyn DocumentFormat) -> impl Iterator<Item = Self> {
        format.names().iter().map(move |&(name, about)| Self { name, about, format })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// As [`DocumentFormat::read`].
    ///
    /// # Errors
    /// Those of [`DocumentFormat::read`].
    pub fn read(
        self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        self.format.read(path, options, each)
    }

    /// All documents of a file at once, for corpora that fit into memory.
    ///
    /// # Errors
    /// Those of [`DocumentFormat::read`].
    pub fn read_all(
        self,
        path: &Path,
        options: &ReadOptions,
    ) -> Result<(Vec<Document>, ReadSummary)> {
        let mut documents = Vec::new();
        let summary = self.read(path, options, &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok((documents, summary))
    }

    /// As [`DocumentFormat::read_gold`].
    ///
    /// # Errors
    /// Those of [`DocumentFormat::read_gold`].
    pub fn read_gold(self, path: &Path) -> Result<GoldDocuments> {
        self.format.read_gold(path)
    }

    /// Starts a file, which appears when it is finished.
    ///
    /// # Errors
    /// I/O errors; a recipe error for a format that is only read.
    pub fn create(self, path: &Path) -> Result<Box<dyn DocumentWriter>> {
        self.format.create(path).unwrap_or_else(|| {
            Err(Error::recipe(format!("the format {} can be read, but not written", self.name))
                .with_hint("write docred, cdr, gda, biored, jsonl or parquet"))
        })
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::DOCRED
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Format {}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::all().iter().find(|format| format.name == name).copied().ok_or_else(|| {
            let names: Vec<_> = Self::all().iter().map(|format| format.name).collect();
            Error::recipe(format!("unknown format `{name}`"))
                .with_hint(format!("the formats are {}", names.join(", ")))
        })
    }
}

impl clap::ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        Self::all()
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.about))
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        static NAMES: LazyLock<Vec<&str>> =
            LazyLock::new(|| Format::all().iter().map(|format| format.name).collect());
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|_| serde::de::Error::unknown_variant(&name, &NAMES))
    }
}

impl JsonSchema for Format {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Format".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |format: &Self| {
            let (name, about) = (format.name, format.about);
            json_schema!({"type": "string", "const": name, "description": about})
        };
        let all: Vec<Schema> = Self::all().iter().map(one).collect();
        json_schema!({"oneOf": all, "description": "A format of documents."})
    }
}
