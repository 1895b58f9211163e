//! The verb `annotate`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::shared::Clock;
use crate::base::say;
use crate::corpus::formats::{OnError, ReadOptions};
use crate::corpus::mentions::{Annotator, Dictionary, Findable, Language};
use crate::pipeline::{self, AnnotatedForm, DocumentForm};
use crate::{Error, Result};

/// Find names, dates and numbers in text, and make documents with mentions of it
#[derive(Debug, Args)]
pub struct AnnotateVerb {
    /// Format of the input
    #[arg(long, value_enum, value_name = "F", default_value = "text")]
    format: AnnotatedForm,
    /// Files or folders to read, in order
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Names to find: lines of id, type, name and aliases with tabs, or JSON lines with `id`,
    /// `type`, `name` and `aliases`
    #[arg(long, num_args = 1.., value_name = "FILE", required_unless_present = "find")]
    dictionary: Vec<PathBuf>,
    /// Find names of more than two letters in any case
    #[arg(long, requires = "dictionary")]
    ignore_case: bool,
    /// What to find by rule, separated by commas
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    find: Vec<Findable>,
    /// Languages of months and number words, separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "LANGUAGES",
        value_delimiter = ',',
        default_value = "en",
        requires = "find"
    )]
    language: Vec<Language>,
    /// Types of given mentions that get another name, such as PERSON=PER,GPE=LOC
    #[arg(long, value_name = "OLD=NEW,…", value_delimiter = ',')]
    rename_types: Vec<String>,
    /// Documents to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Format of the output
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    to: DocumentForm,
    /// What to do with a document that cannot be read: stop, with an error that lists all of them,
    /// or skip it, and list it in NAME.left-out.jsonl beside the output
    #[arg(long, value_enum, value_name = "WHAT", default_value = "stop")]
    on_error: OnError,
    /// Write the counts and all ambiguous names as JSON
    #[arg(long, value_name = "FILE", alias = "report")]
    json: Option<PathBuf>,
}

impl AnnotateVerb {
    pub fn run(self) -> Result<()> {
        let clock = Clock::start();
        let renamed = renamed(&self.rename_types)?;
        let dictionary = if self.dictionary.is_empty() {
            None
        } else {
            let dictionary = Dictionary::load(&self.dictionary, self.ignore_case)?;
            let (names, things) = (dictionary.names(), dictionary.things());
            say(format!("annotate: {names} names of {things} things"));
            Some(dictionary)
        };
        let annotator = Annotator::new(dictionary, &self.find, &self.language, renamed)?;
        let (annotator, on_error) = (Some(Arc::new(annotator)), self.on_error);
        let read = ReadOptions { annotator, on_error, ..ReadOptions::default() };
        let report = pipeline::annotate(self.format, &self.input, self.to, &self.output, &read)?;
        say(format!("annotate: {report}"));
        clock.write(self.json.as_deref(), &self.output, Some(report.documents), &report)
    }
}

/// Old and new names of types.
fn renamed(pairs: &[String]) -> Result<HashMap<String, String>> {
    let mut renamed = HashMap::new();
    for pair in pairs {
        let parts = pair.split_once('=').map(|(old, new)| (old.trim(), new.trim()));
        let Some((old, new)) = parts.filter(|(old, new)| !old.is_empty() && !new.is_empty()) else {
            return Err(Error::recipe(format!("--rename-types: `{pair}` is not OLD=NEW"))
                .with_hint("write such as PERSON=PER,GPE=LOC"));
        };
        if renamed.insert(old.to_owned(), new.to_owned()).is_some() {
            return Err(Error::recipe(format!("--rename-types names `{old}` twice"))
                .with_hint("give each type one new name"));
        }
    }
    Ok(renamed)
}
