//! Documents with the mentions that a dictionary and rules find in them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;

use super::convert::DocumentForm;
use crate::base::say;
use crate::corpus::formats::{PlainText, ReadOptions, TitleKey, list_left_out, title_key};
use crate::corpus::mentions::FoundMentions;
use crate::corpus::{Document, Format};
use crate::{DataError, Result};

/// Ambiguous names that are shown; the JSON has all of them.
const MOST_SHOWN: usize = 5;

/// A format that [`annotate`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnotatedForm(pub Format);

impl ValueEnum for AnnotatedForm {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<AnnotatedForm>> = LazyLock::new(|| {
            let known = ["jsonl", "docred", "brat"];
            let formats = Format::all().iter().copied();
            let formats = formats.filter(|format| known.contains(&format.name()));
            Format::of(&PlainText).chain(formats).map(AnnotatedForm).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        self.0.to_possible_value()
    }
}

/// What was annotated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AnnotateReport {
    /// Documents.
    pub documents: usize,
    /// Sentences.
    pub sentences: usize,
    /// Words.
    pub words: usize,
    /// Entities.
    pub entities: usize,
    /// Mentions.
    pub mentions: usize,
    /// Where the mentions come from.
    pub found: FoundMentions,
    /// Documents without any mention.
    pub without_mentions: usize,
    /// Documents with one entity alone.
    pub with_one_entity: usize,
    /// Documents that list their pairs and have entities that are in none of them.
    pub listed_pairs: usize,
    /// Documents and relations that were left out because they cannot be read.
    pub left_out: usize,
    /// What the reader left out of good documents, in words.
    pub omissions: Vec<String>,
}

impl AnnotateReport {
    fn add(&mut self, document: &Document) {
        self.documents += 1;
        self.sentences += document.sentences.len();
        self.words += document.num_words();
        self.entities += document.entities.len();
        let mentions = document.entities.iter().map(|entity| entity.mentions.len());
        self.mentions += mentions.sum::<usize>();
        self.without_mentions += usize::from(document.entities.is_empty());
        self.with_one_entity += usize::from(document.entities.len() == 1);
        if let Some(pairs) = &document.candidates {
            let listed: HashSet<usize> =
                pairs.iter().flat_map(|pair| [pair.head, pair.tail]).collect();
            self.listed_pairs += usize::from(listed.len() < document.entities.len());
        }
    }

    /// What the user should look at.
    pub fn warnings(&self) -> Vec<String> {
        let found = &self.found;
        let counts = [
            (
                self.without_mentions,
                "documents have no mention, and no stage predicts anything of them",
            ),
            (self.with_one_entity, "documents have one entity alone, and so no pair"),
            (
                found.other_type,
                "entities without identifier have a name that the dictionary knows for another \
                 type alone; --rename-types makes types agree",
            ),
            (
                self.listed_pairs,
                "documents list their pairs, and some of their entities are in none of them",
            ),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut warnings: Vec<String> =
            counts.map(|(count, what)| format!("{count} {what}")).collect();
        let (all, resolved) = found.ambiguous_mentions();
        if all > resolved {
            warnings.push(format!(
                "{} mentions of ambiguous names have no identifier, such as {}",
                all - resolved,
                self.ambiguous_names()
            ));
        }
        warnings
    }

    /// Unresolved names with their candidates, the most frequent first.
    fn ambiguous_names(&self) -> String {
        let mut names: Vec<_> = self.found.ambiguous.iter().collect();
        names.retain(|(_, name)| name.mentions > name.resolved);
        names.sort_by_key(|(text, name)| (name.resolved.abs_diff(name.mentions), *text));
        let shown = names.iter().rev().take(MOST_SHOWN).map(|(text, name)| {
            let ids: Vec<&str> =
                name.candidates.iter().take(MOST_SHOWN).map(String::as_str).collect();
            let more = if name.candidates.len() > ids.len() { ", …" } else { "" };
            format!("`{text}` ({}{more})", ids.join(", "))
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for AnnotateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FoundMentions { given, dictionary, dates, numbers, linked, .. } = &self.found;
        write!(
            f,
            "{} documents, {} sentences, {} words\n{} mentions of {} entities: {given} given, \
             {dictionary} of the dictionary, {dates} dates, {numbers} numbers",
            self.documents, self.sentences, self.words, self.mentions, self.entities
        )?;
        if *linked > 0 {
            write!(f, "\n{linked} given entities got an identifier from the dictionary")?;
        }
        let (all, resolved) = self.found.ambiguous_mentions();
        if all > 0 {
            write!(f, "\n{all} mentions of {} ambiguous names, ", self.found.ambiguous.len())?;
            write!(f, "{resolved} of them told apart by other names of their document")?;
        }
        Ok(())
    }
}

/// Reads `inputs` with `read`, whose annotator adds mentions, into one file, which appears whole or
/// not at all.
///
/// # Errors
/// Those of the reader and of the writer; a [`DataError`] for a title that an earlier file has.
pub fn annotate(
    from: AnnotatedForm,
    inputs: &[PathBuf],
    to: DocumentForm,
    output: &Path,
    read: &ReadOptions,
) -> Result<AnnotateReport> {
    let mut writer = to.0.create(output)?;
    let mut report = AnnotateReport::default();
    let mut titles: HashMap<TitleKey, usize> = HashMap::new();
    let mut left_out = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        let summary = from.0.read(input, read, &mut |document| {
            let first = *titles.entry(title_key(&document.title)).or_insert(number);
            if first != number {
                let place = &document.provenance;
                let problem = format!("{} has the title, too", inputs[first].display());
                return Err(DataError::new(&place.file, problem)
                    .row(place.row)
                    .title(&document.title)
                    .field("title")
                    .hint("titles are keys; annotate the files one by one, or rename a document")
                    .into());
            }
            report.add(&document);
            writer.write(document)
        })?;
        report.found.add(summary.found.clone());
        for warning in summary.warnings(input) {
            say(format!("warning: {warning}"));
        }
        report.omissions.extend(summary.omissions());
        left_out.extend(summary.left_out);
    }
    writer.finish()?;
    list_left_out(&left_out, output)?;
    report.left_out = left_out.len();
    report.warnings().iter().for_each(|warning| say(format!("warning: {warning}")));
    Ok(report)
}
