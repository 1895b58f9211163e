//! `manifest.json`: what a folder of shards holds, with the hash of every file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::remote::{at_hand, url_of};
use crate::corpus::RelationSet;
use crate::distant::{Calibration, CalibrationFit, ClassThresholds, RuleThresholds};
use crate::text::Tokenizer;
use crate::{DataError, Error, Result};

/// The version of the format this code reads and writes. 2 added the candidate pairs, 3 the types
/// of mentions that are not their entity's, 4 what a teacher says; older shards do not say these
/// things, so they are refused like newer ones.
pub const FORMAT_VERSION: u32 = 4;

/// The name of the manifest in its folder.
pub(super) const FILE: &str = "manifest.json";

/// The field that holds the hash of all others. A manifest without it is read as it is.
const CHECKSUM: &str = "checksum";

/// What a folder of shards holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardManifest {
    /// Version of the whole folder's format.
    pub format_version: u32,
    /// Number of documents.
    pub documents: usize,
    /// How many of them carry labels.
    pub labelled: usize,
    /// Number of facts.
    pub facts: usize,
    /// The relations, in class order.
    pub relations: RelationSet,
    /// All entity types, sorted.
    pub entity_types: Vec<String>,
    /// The tokeniser, which lies in `tokenizer/`.
    pub tokenizer: TokenizerEntry,
    /// The shards, in order; rows are numbered through.
    pub shards: Vec<FileEntry>,
    /// The fact index; absent where no document is labelled.
    pub fact_index: Option<FileEntry>,
    /// Word pieces of the longest document.
    pub max_pieces: usize,
    /// Entities of the document with the most.
    pub max_entities: usize,
    /// Mentions of the entity with the most.
    pub max_mentions: usize,
    /// Who scored the pairs; absent before `score`.
    pub scored: Option<Scored>,
    /// Who taught the pairs; absent before `teach`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taught: Option<Taught>,
}

/// The tokeniser of a folder of shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerEntry {
    /// [`Tokenizer::identity`].
    pub identity: String,
    /// `wordpiece` or `word-level`.
    pub kind: String,
    /// [`Tokenizer::vocab_size`]; no piece in a shard is beyond it.
    pub vocab_size: usize,
}

/// A Parquet file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name inside the folder.
    pub file: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of row groups.
    pub row_groups: usize,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file, in hexadecimal digits.
    pub blake3: String,
}

/// Where the column `kept` comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// Identity of the ranker's checkpoint.
    pub checkpoint: String,
    /// The rule of how many pairs were kept, as the user wrote it (`30`, `2n`).
    pub keep: String,
}

/// Where the column `taught` comes from, and how its numbers are to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taught {
    /// Identity of the teacher's checkpoint.
    pub checkpoint: String,
    /// The teacher's system.
    pub system: String,
    /// Relations below this probability are left out, unless they have a label.
    pub floor: f64,
    /// The most relations of a pair, those with labels not counted.
    pub top: usize,
    /// Passes with dropout that the deviations are of; 0: one pass without.
    pub passes: usize,
    /// Tokens kept of each pair's attention; 0: none.
    pub tokens: usize,
    /// Whether all logits are kept.
    pub logits: bool,
    /// How margins became probabilities.
    pub calibration: Calibration,
    /// Log loss and calibration errors of the probabilities; absent without documents to learn
    /// them from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<CalibrationFit>,
    /// Where labels of each relation are kept, dropped and added.
    pub thresholds: Vec<RuleThresholds>,
    /// Above which deviation a prediction of each relation is uncertain; absent for one pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty: Option<ClassThresholds>,
    /// Bytes of the column, compressed, by document.
    pub bytes_per_document: f64,
}

impl From<&Tokenizer> for TokenizerEntry {
    fn from(tokenizer: &Tokenizer) -> Self {
        Self {
            identity: tokenizer.identity().to_owned(),
            kind: tokenizer.kind().name().to_owned(),
            vocab_size: tokenizer.vocab_size(),
        }
    }
}

impl ShardManifest {
    /// Whether a path is to be read as shards: a folder with a manifest, or a place in an object
    /// store.
    pub fn is_at(place: &Path) -> bool {
        url_of(place).is_some() || place.join(FILE).is_file()
    }

    /// Reads `manifest.json` of a folder, or of a prefix in an object store.
    ///
    /// Errors: a data error if there is none, if another version wrote it, or if it contradicts
    /// itself; those of the object store.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = at_hand(folder)?.join(FILE);
        if !path.is_file() {
            let hint = "name a folder that `prepare` or `score` has written to the end";
            return Err(DataError::new(&path, "no manifest: this is no folder of shards")
                .hint(hint)
                .into());
        }
        let broken =
            |error: serde_json::Error| DataError::new(&path, format!("not a manifest: {error}"));
        let mut value: serde_json::Value =
            serde_json::from_slice(&fs_err::read(&path)?).map_err(broken)?;
        let checksum = value.as_object_mut().and_then(|object| object.remove(CHECKSUM));
        let version =
            value.get("format_version").and_then(serde_json::Value::as_u64).unwrap_or_default();
        if version > 0 && version != u64::from(FORMAT_VERSION) {
            let (age, hint) = if version > u64::from(FORMAT_VERSION) {
                ("newer", "use a newer docre-pretrain, or prepare the shards with this one")
            } else {
                ("older", "prepare (and score) the documents again")
            };
            let problem = format!(
                "format version {version} is {age} than the {FORMAT_VERSION} this program reads"
            );
            return Err(DataError::new(&path, problem).hint(hint).into());
        }
        let manifest: Self = serde_json::from_value(value).map_err(broken)?;
        if checksum.is_some_and(|checksum| manifest.checksum().is_ok_and(|own| checksum != own)) {
            let hint =
                "the file was damaged or edited after it was written; prepare the shards again";
            return Err(DataError::new(&path, "its content is not what its checksum is for")
                .hint(hint)
                .into());
        }
        manifest.check().map_err(|problem| DataError::new(&path, problem))?;
        Ok(manifest)
    }

    /// Writes `manifest.json` into a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let bug = |error: serde_json::Error| Error::Bug(format!("writing a manifest: {error}"));
        let mut value = serde_json::to_value(self).map_err(bug)?;
        value[CHECKSUM] = self.checksum()?.into();
        let text = serde_json::to_string_pretty(&value).map_err(bug)?;
        let mut file = fs_err::File::create(folder.join(FILE))?;
        std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes())?;
        Ok(file.sync_all()?)
    }

    /// BLAKE3 of the fields as JSON without white space, in hexadecimal digits.
    fn checksum(&self) -> Result<String> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::Bug(format!("hashing a manifest: {error}")))?;
        Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
    }

    /// A hash of all it says, hashes of files included.
    pub fn identity(&self) -> Result<String> {
        self.checksum()
    }

    /// Refuses a tokeniser other than the one that made the pieces; `folder` is named in the error.
    pub fn check_tokenizer(&self, folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
        if tokenizer.identity() == self.tokenizer.identity {
            return Ok(());
        }
        let (found, wanted) = (TokenizerEntry::from(tokenizer), &self.tokenizer);
        let name = |entry: &TokenizerEntry| {
            let short: String = entry.identity.chars().take(12).collect();
            format!("{} of {} pieces, identity {short}", entry.kind, entry.vocab_size)
        };
        let problem = format!(
            "the shards were made with another tokeniser ({}) than this one ({})",
            name(wanted),
            name(&found)
        );
        Err(DataError::new(folder, problem)
            .hint(
                "prepare the shards with the encoder's tokenizer; in a recipe, leave out \
                 data.tokenizer",
            )
            .into())
    }

    fn check(&self) -> Result<(), String> {
        for entry in self.shards.iter().chain(&self.fact_index) {
            // A name such as `../x` would reach outside the folder.
            if Path::new(&entry.file).file_name() != Some(entry.file.as_ref()) {
                return Err(format!("`{}` is not the name of a file in this folder", entry.file));
            }
        }
        if let Some(taught) = &self.taught {
            let limits =
                taught.uncertainty.as_ref().map_or(taught.thresholds.len(), |it| it.0.len());
            if [taught.thresholds.len(), limits].iter().any(|&count| count != self.relations.len())
            {
                return Err("the teacher's thresholds are not those of its relations".into());
            }
        }
        let rows = self.shards.iter().try_fold(0usize, |sum, shard| sum.checked_add(shard.rows));
        if rows != Some(self.documents) || u32::try_from(self.documents).is_err() {
            return Err(format!(
                "the rows of the shards do not add up to {} documents",
                self.documents
            ));
        }
        Ok(())
    }
}
