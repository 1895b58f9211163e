//! Whether the files that a recipe names are there, and where those of known data sets can be had.
//! Not for: what they hold (`data`).

use std::path::Path;

use crate::encoders::EncoderSpec;
use crate::hub::RepoName;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// Parts of the names of known files, in lower case, and where the files can be had.
const KNOWN: [(&[&str], &str); 10] = [
    (
        &["_revised"],
        "Re-DocRED: train_revised.json, dev_revised.json and test_revised.json are in the folder \
         `data` of the GitHub repository tonytan48/Re-DocRED",
    ),
    (
        &["chemdisgene", "ctd_derived"],
        "ChemDisGene: the files are in the GitHub repository chanzuckerberg/ChemDisGene",
    ),
    (
        &["meshtree"],
        "MeSH tree numbers: 2017MeshTree.txt is in the GitHub repository \
         fenchri/edge-oriented-graph",
    ),
    (
        &["cdr"],
        "CDR: BioCreative V's CDR_Data.zip holds the PubTator files; the GitHub repository \
         fenchri/edge-oriented-graph makes the form `cdr` of them",
    ),
    (
        &["gda", "renet"],
        "GDA: the GitHub repository fenchri/edge-oriented-graph says where the files of RENET are, \
         and makes the form `gda` of them",
    ),
    (&["glove"], "GloVe: glove.6B.zip is at https://nlp.stanford.edu/projects/glove/"),
    (&["scibert"], "SciBERT: `hf download allenai/scibert_scivocab_cased --local-dir DIR`"),
    (&["roberta"], "RoBERTa: `hf download FacebookAI/roberta-large --local-dir DIR`"),
    (&["bert"], "BERT: `hf download google-bert/bert-base-uncased --local-dir DIR`"),
    (
        &[
            "docred",
            "train_annotated",
            "train_distant",
            "dev.json",
            "test.json",
            "rel_info",
            "rel2id",
        ],
        "DocRED: the GitHub repository thunlp/DocRED links train_annotated.json, \
         train_distant.json, dev.json, test.json and rel_info.json",
    ),
];

/// Where a file or folder of a known data set or encoder can be had, by its own name or else by
/// that of its folders.
fn source_of(path: &Path) -> Option<&'static str> {
    let named = |name: &str| {
        let name = name.to_lowercase();
        let known = KNOWN.iter().find(|(parts, _)| parts.iter().any(|part| name.contains(part)));
        known.map(|(_, source)| *source)
    };
    let own = path.file_name().and_then(|name| named(&name.to_string_lossy()));
    own.or_else(|| named(&path.parent()?.file_name()?.to_string_lossy()))
}

/// Makes sure that the files and folders that a recipe names are there.
///
/// # Errors
/// [`Error::Recipe`] that names the key and the file, and says where it can be had.
pub fn check_files(recipe: &Recipe) -> Result<()> {
    let data = &recipe.data;
    let label = data.label.as_ref();
    let lists = [
        ("data.distant", data.distant.as_slice()),
        ("data.human", &data.human),
        ("data.dev", &data.dev),
        ("data.dev_distant", &data.dev_distant),
        ("data.test", &data.test),
        ("data.split.files", data.split.as_ref().map_or(&[], |split| &split.files)),
        ("data.label.documents", label.map_or(&[], |label| &label.documents)),
    ];
    let single = [
        ("data.mesh_tree", data.mesh_tree.as_ref()),
        ("data.relations", data.relations.as_ref()),
        ("data.tokenizer", data.tokenizer.as_ref()),
        ("data.train_facts", data.train_facts.as_ref()),
        ("data.label.facts", label.map(|label| &label.facts)),
        ("encoder.word_vectors", recipe.encoder.word_vectors.as_ref()),
    ];
    let named = data.source.iter().map(|source| ("data.source.files", source.files.as_slice()));
    let lists = lists.into_iter().chain(named);
    let lists = lists.flat_map(|(key, files)| files.iter().map(move |file| (key, file)));
    let single = single.into_iter().filter_map(|(key, file)| Some((key, file?)));
    // A tokenizer may be the name of a repository.
    let repository = |key: &str, file: &Path| {
        key == "data.tokenizer" && file.to_str().and_then(RepoName::parse).is_some()
    };
    if let Some((key, file)) =
        lists.chain(single).find(|(key, file)| !file.exists() && !repository(key, file))
    {
        return Err(missing(format!("{key}: there is no {}", file.display()), file));
    }
    EncoderSpec::parse(&recipe.encoder.name).map(drop).map_err(|error| {
        let name = Path::new(&recipe.encoder.name);
        let repository = RepoName::parse(&recipe.encoder.name).is_some();
        let known = !repository && source_of(name).is_some();
        if known { missing(error.to_string(), name) } else { error }
    })
}

fn missing(message: String, file: &Path) -> Error {
    let places = "paths in a recipe start at its folder, those of --set at the working directory";
    Error::recipe(message).with_hint(match source_of(file) {
        Some(source) => format!("{source}; {places}"),
        None => places.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named_with_its_key_and_where_it_can_be_had() {
        for (text, key, source) in [
            ("[data]\ndistant = [\"x/train_distant.json\"]", "data.distant", "thunlp/DocRED"),
            ("[data]\nhuman = [\"docred/own.json\"]", "data.human", "thunlp/DocRED"),
            ("[data]\ntest = [\"test_revised.json\"]", "data.test", "tonytan48/Re-DocRED"),
            ("[data]\ndev = [\"CDR_DevelopmentSet.PubTator.txt\"]", "data.dev", "BioCreative V"),
            ("[data]\ndev = [\"cdr/dev.data\"]", "data.dev", "edge-oriented-graph"),
            ("[data]\nmesh_tree = \"2017MeshTree.txt\"", "data.mesh_tree", "edge-oriented-graph"),
            ("[data]\nrelations = \"gda/r.json\"", "data.relations", "GDA"),
            ("[data]\nhuman = [\"chemdisgene/a.txt\"]", "data.human", "chanzuckerberg"),
            ("[encoder]\nword_vectors = \"glove.6B.50d.txt\"", "encoder.word_vectors", "stanford"),
            ("[encoder]\nname = \"m/x/bert-base-uncased\"", "encoder `m/x", "hf download"),
            ("[data]\nhuman = [\"mine.json\"]", "data.human", "start at its folder"),
            (
                "[[data.source]]\nname = \"a\"\nkind = \"llm\"\nfiles = [\"mine.json\"]",
                "data.source.files",
                "start at its folder",
            ),
        ] {
            let error = check_files(&Recipe::parse(text, "r", &[]).unwrap()).unwrap_err();
            assert!(error.to_string().starts_with(key), "{error}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(source) && error.exit_code() == 64, "{error}: {hint}");
        }
    }

    #[test]
    fn a_recipe_of_a_generated_corpus_needs_no_files() {
        check_files(&Recipe::parse("[data.synth]", "r", &[]).unwrap()).unwrap();
    }
}
