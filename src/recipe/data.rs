//! Where the documents of a run come from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::Format;
use crate::corpus::formats::OnError;
use crate::corpus::synth::{MAX_NOISE, WorldOptions};
use crate::{Error, Result};

/// Sources by role. Either a generated world, or files of one format; `split` and `label` derive
/// some roles from others.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DataSources {
    /// Format of the files below.
    pub format: Format,
    /// PubTator: MeSH tree numbers for the hypernym filter of CDR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_tree: Option<PathBuf>,
    /// Distantly supervised documents.
    pub distant: Vec<PathBuf>,
    /// Human-annotated training documents.
    pub human: Vec<PathBuf>,
    /// Development documents.
    pub dev: Vec<PathBuf>,
    /// Test documents; without labels they are predicted but not scored.
    pub test: Vec<PathBuf>,
    /// Titles left out of `distant` and `human`. Titles of dev and test are left out anyway, and a
    /// repeated title is kept once. A document with such a title may be faulty, in any file.
    pub exclude_titles: Vec<String>,
    /// `rel_info.json` or `rel2id.json`; found from the labels when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relations: Option<PathBuf>,
    /// Tokenizer folder or vocabulary; the encoder's own, or the generated world's, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Facts that Ign F1 ignores (`.fact` file or training file); the human training documents when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_facts: Option<PathBuf>,
    /// Whether words are put into lower case before they are tokenised; the tokenizer's files
    /// decide when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowercase: Option<bool>,
    /// What is done with a document that cannot be read: `stop`, or `skip`, which leaves it out and
    /// lists it in `NAME.left-out.jsonl` beside the shards.
    pub on_error: OnError,
    /// Generate the corpus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synth: Option<WorldOptions>,
    /// Make the distant documents by labelling others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelSource>,
    /// Divide annotated files among human, dev and test by a hash of the title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitSource>,
}

/// Distant labelling of documents with entities.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LabelSource {
    /// (head name, tail name, relation) triples.
    pub facts: PathBuf,
    /// Documents to label.
    pub documents: Vec<PathBuf>,
}

/// A split by a hash of the title: the first `test_share` of the unit interval is test, then
/// `dev_share` dev, the rest human.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SplitSource {
    /// Annotated files.
    pub files: Vec<PathBuf>,
    /// Share of dev.
    pub dev_share: f64,
    /// Share of test.
    #[serde(default)]
    pub test_share: f64,
    /// Another salt gives another split.
    #[serde(default)]
    pub salt: String,
}

impl DataSources {
    pub(super) fn check(&self) -> Result<()> {
        if let Some(synth) = &self.synth
            && !(0.0..=MAX_NOISE).contains(&synth.noise)
        {
            return Err(Error::recipe(format!(
                "data.synth.noise = {} is outside 0..{MAX_NOISE}",
                synth.noise
            )));
        }
        if let Some(split) = &self.split
            && !(0.0..1.0).contains(&(split.dev_share + split.test_share))
        {
            return Err(Error::recipe(
                "data.split: dev_share + test_share must be at least 0 and under 1",
            ));
        }
        Ok(())
    }
}
