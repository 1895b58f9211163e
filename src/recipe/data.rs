//! Where the documents of a run come from.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::memory::MemorySize;
use super::sources::{NamedSource, check_sources};
use crate::corpus::Format;
use crate::corpus::formats::OnError;
use crate::corpus::synth::{MAX_NOISE, WorldOptions};
use crate::shards::StoreOptions;
use crate::systems::check_weight;
use crate::{Error, Result};

/// Sources by role. Either a generated world, or files of one format; `split` and `label` derive
/// some roles from others.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DataSources {
    /// Format of the files below.
    pub format: Format,
    /// The data set of the files, for the published scores that the report shows; known from
    /// format, names of files and relations when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corpus: Option<CorpusName>,
    /// PubTator: MeSH tree numbers for the hypernym filter of CDR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_tree: Option<PathBuf>,
    /// Distantly supervised documents.
    pub distant: Vec<PathBuf>,
    /// Human-annotated training documents.
    pub human: Vec<PathBuf>,
    /// How often an epoch of fine-tuning visits each of them, on average, as `weight` of
    /// `data.source`; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human_weight: Option<f64>,
    /// Train on so many annotated documents of `human` (or `split`) only, for learning curves: the
    /// first ones in the order of a hash of the title, so that those of a number are among those of
    /// every larger one. 0: all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub human_documents: usize,
    /// Another salt chooses others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub human_salt: String,
    /// Development documents.
    pub dev: Vec<PathBuf>,
    /// Distant labels of documents of dev: what such a label is worth, for a teacher's
    /// probabilities. Other documents in these files are left out.
    pub dev_distant: Vec<PathBuf>,
    /// Test documents; without labels they are predicted but not scored.
    pub test: Vec<PathBuf>,
    /// "Train + Dev": the documents of dev are trained on too, as some published test scores ask.
    /// Scores on dev are then no measure of the model. Titles of test are held out all the same.
    pub train_on_dev: bool,
    /// Titles left out of `distant` and `human`. Titles of dev (without `train_on_dev`) and test
    /// are left out anyway, and a repeated title is kept once. A document with such a title may be
    /// faulty, in any file.
    pub exclude_titles: Vec<String>,
    /// `rel_info.json` or `rel2id.json`; found from the labels when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relations: Option<PathBuf>,
    /// Tokenizer folder, vocabulary, or repository of the Hugging Face Hub; the encoder's own, or
    /// the generated world's, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Facts that Ign F1 ignores (`.fact` file or training file); those of the documents that are
    /// trained on when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_facts: Option<PathBuf>,
    /// Whether words are put into lower case before they are tokenised; the tokenizer's files
    /// decide when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowercase: Option<bool>,
    /// What is done with a document that cannot be read: `stop`, or `skip`, which leaves it out and
    /// lists it in `NAME.left-out.jsonl` beside the shards.
    pub on_error: OnError,
    /// Memory for the documents of a stage on each rank, as in "400 MB", which it is when absent.
    /// Documents that take more are read in windows, and their order follows from this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySize>,
    /// Disk for row groups of shards in an object store, for all ranks of a machine, as in "50 GB",
    /// which it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<MemorySize>,
    /// Generate the corpus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synth: Option<WorldOptions>,
    /// Make the distant documents by labelling others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelSource>,
    /// Divide annotated files among human, dev and test by a hash of the title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitSource>,
    /// Documents that fine-tuning trains on beside `human`, each source with a weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<NamedSource>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A data set with published scores, or none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CorpusName {
    /// DocRED.
    Docred,
    /// Re-DocRED.
    Redocred,
    /// CDR, chemicals and diseases.
    Cdr,
    /// GDA, genes and diseases.
    Gda,
    /// ChemDisGene.
    Chemdisgene,
    /// Any other.
    Other,
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
    /// The data set of the files: the one that is named, or the one that format, names of files and
    /// identifiers of `relations` tell.
    pub fn corpus<'r>(&self, relations: impl IntoIterator<Item = &'r str>) -> CorpusName {
        if let Some(named) = self.corpus {
            return named;
        }
        let mut relations = relations.into_iter().peekable();
        let generated = self.synth.is_some();
        match self.format.name() {
            "docred" if generated || relations.peek().is_none() => CorpusName::Other,
            "docred" if !relations.all(is_wikidata_property) => CorpusName::Other,
            "docred" if self.annotated().any(is_revised) => CorpusName::Redocred,
            "docred" => CorpusName::Docred,
            "cdr" => CorpusName::Cdr,
            "gda" => CorpusName::Gda,
            "chemdisgene" => CorpusName::Chemdisgene,
            "pubtator" if relations.eq(["CID"]) => CorpusName::Cdr,
            _ => CorpusName::Other,
        }
    }

    /// All annotated files.
    fn annotated(&self) -> impl Iterator<Item = &Path> {
        let split = self.split.iter().flat_map(|split| &split.files);
        [&self.human, &self.dev, &self.test]
            .into_iter()
            .flatten()
            .chain(split)
            .map(PathBuf::as_path)
    }

    /// Bytes of memory for the documents of a stage on each rank.
    pub fn memory(&self) -> u64 {
        self.memory.map_or(StoreOptions::MEMORY, |memory| memory.bytes)
    }

    /// How the documents of a stage are read.
    pub fn store_options(&self) -> StoreOptions {
        let disk = self.disk.map_or(StoreOptions::DISK, |disk| disk.bytes);
        StoreOptions { memory: self.memory(), disk, ..StoreOptions::default() }
    }

    /// The weight of `human` beside the other sources.
    pub fn human_weight(&self) -> f64 {
        self.human_weight.unwrap_or(1.0)
    }

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
        check_weight("data.human_weight", self.human_weight())?;
        check_sources(&self.source)
    }
}

/// Whether a relation has an identifier as DocRED's: P and a number.
fn is_wikidata_property(id: &str) -> bool {
    id.strip_prefix('P').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Whether a file is named as Re-DocRED's are: `dev_revised.json`.
fn is_revised(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("_revised"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_known_from_format_names_and_relations_unless_it_is_named() {
        let data = |text: &str| {
            crate::recipe::Recipe::parse(&format!("[data]\n{text}"), "x", &[]).unwrap().data
        };
        let docred = "format = \"docred\"\nhuman = [\"x/train_annotated.json\"]\n";
        let revised = "format = \"docred\"\nhuman = [\"x/train_revised.json\"]\n";
        let named = format!("{docred}corpus = \"other\"");
        for (text, relations, expected) in [
            (docred, ["P17", "P1001"], CorpusName::Docred),
            (revised, ["P17", "P1001"], CorpusName::Redocred),
            (docred, ["P17", "works for"], CorpusName::Other),
            (&named, ["P17", "P1001"], CorpusName::Other),
            ("format = \"gda\"", ["P17", "P1001"], CorpusName::Gda),
            ("format = \"pubtator\"", ["CID", "CID2"], CorpusName::Other),
        ] {
            assert_eq!(data(text).corpus(relations), expected, "{text}");
        }
        assert_eq!(data("format = \"pubtator\"").corpus(["CID"]), CorpusName::Cdr);
        assert_eq!(data(docred).corpus([]), CorpusName::Other);
    }
}
