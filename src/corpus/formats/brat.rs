//! brat's stand-off files: running text in `NAME.txt`, annotations in `NAME.ann` beside it. A file
//! is a document; a folder is all of its documents.
//!
//! `T` lines are mentions, `*` lines say which of them are one entity, `R` lines are relations.
//! Other lines (events, attributes, notes) are passed over and counted. Sentences and words are our
//! own (`segment`).

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::format::DocumentFormat;
use super::plain::{read_text, texts, title_of};
use super::reading::{ReadOptions, ReadSummary, read_files};
use super::running::{RunningText, TextEntity, TextMention, check_script, offset_hint};
use crate::corpus::Document;
use crate::corpus::check::{Check, OtherRows, PLAIN_FIELDS, Repeats, Unchecked, UncheckedFact};
use crate::corpus::place::DocumentPlace;
use crate::{DataError, Result};

const HINT: &str = "lines are `T1 Type 0 5 text`, `R1 Relation Arg1:T1 Arg2:T2` and `* Equiv T1 \
    T2`, with tabs after the first word and before the text";

/// brat's stand-off files.
#[derive(Debug)]
pub(super) struct Brat;

impl DocumentFormat for Brat {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[("brat", "brat's stand-off: NAME.txt with NAME.ann, or a folder of them")]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        let path = if path.is_dir() { path.to_owned() } else { path.with_extension("txt") };
        let parse = |path: &Path, row| read_document(path, row, options);
        read_files(&texts(&path)?, options, &parse, each)
    }
}

/// What was read in another way than it stands, or not at all.
#[derive(Default)]
struct BratCounts {
    lines: usize,
    discontinuous: usize,
}

fn read_document(path: &Path, row: usize, options: &ReadOptions) -> Result<(Document, OtherRows)> {
    let annotations = path.with_extension("ann");
    let title = title_of(path);
    let text = read_text(path)?;
    if !annotations.exists() {
        let problem = format!("{} does not exist", annotations.display());
        return Err(DataError::new(path, problem)
            .row(row)
            .title(title)
            .hint("brat keeps annotations in NAME.ann beside NAME.txt; it may be empty")
            .into());
    }
    let lines = read_text(&annotations)?;
    let place = DocumentPlace { file: &annotations, row, title: &title };
    let (mut counts, characters) = (BratCounts::default(), text.chars().collect::<Vec<char>>());
    check_script(DocumentPlace { file: path, ..place }, &characters)?;
    let annotations = Annotations::parse(place, &lines, &characters, &mut counts)?;
    let (entities, facts) = annotations.entities();
    drop(annotations);
    let text = RunningText { text: characters, entities, ..RunningText::default() };
    let cut = text.cut(place, options)?;
    let (found, mut passed_over) = (cut.found.clone(), cut.passed_over());
    passed_over.extend([
        (counts.lines, "lines that are no mention, relation or equivalence were passed over"),
        (
            counts.discontinuous,
            "mentions of several spans were read as one, from first to last word",
        ),
    ]);
    let (sentences, entities, facts) = (cut.sentences, cut.entities, Some(facts));
    let unchecked = Unchecked { title, sentences, entities, facts, candidates: None };
    let relations = options.relations.as_ref();
    let (fields, repeats) = (&PLAIN_FIELDS, Repeats::Merge);
    let check = Check { file: path, row, relations, fields, repeats };
    let (document, others) = check.document(unchecked)?;
    Ok((document, OtherRows { found, passed_over, ..others }))
}

/// The lines of a document that are understood.
#[derive(Default)]
struct Annotations<'a> {
    mentions: Vec<BratMention<'a>>,
    /// Name (`T1`) → index.
    by_name: HashMap<&'a str, usize>,
    /// For each mention the index of the first one of its entity so far.
    first: Vec<usize>,
    relations: Vec<(&'a str, [usize; 2])>,
}

struct BratMention<'a> {
    entity_type: &'a str,
    range: Range<usize>,
    name: &'a str,
    field: String,
}

impl<'a> Annotations<'a> {
    fn parse(
        place: DocumentPlace<'_>,
        lines: &'a str,
        text: &[char],
        counts: &mut BratCounts,
    ) -> Result<Self> {
        let mut annotations = Self::default();
        let named = |initial: char| {
            let lines = lines.lines().enumerate();
            lines.filter(move |(_, line)| line.starts_with(initial))
        };
        // Lines may refer to mentions that come later.
        for (at, line) in named('T') {
            let (name, mention) = mention(place, at, line, text, counts)?;
            let index = annotations.mentions.len();
            if annotations.by_name.insert(name, index).is_some() {
                let problem = format!("`{name}` is there twice");
                return Err(place.error(mention.field, problem).hint(HINT).into());
            }
            annotations.mentions.push(mention);
            annotations.first.push(index);
        }
        for (at, line) in named('*') {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, "Equiv", names @ ..] = columns.as_slice() else {
                return Err(broken(place, at, line));
            };
            let members = annotations.all(place, at, names)?;
            annotations.unite(&members);
        }
        for (at, line) in named('R') {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, relation, first, second] = columns[..] else {
                return Err(broken(place, at, line));
            };
            let arguments =
                [first, second].map(|text| text.split_once(':').map_or("", |pair| pair.1));
            let members = annotations.all(place, at, &arguments)?;
            annotations.relations.push((relation, [members[0], members[1]]));
        }
        let understood = |line: &&str| line.trim().is_empty() || line.starts_with(['T', '*', 'R']);
        counts.lines += lines.lines().filter(|line| !understood(line)).count();
        Ok(annotations)
    }

    /// The mentions of these names.
    fn all(&self, place: DocumentPlace<'_>, at: usize, names: &[&str]) -> Result<Vec<usize>> {
        let find = |name: &&str| {
            self.by_name.get(name).copied().ok_or_else(|| {
                let problem = format!("`{name}` is no mention of the file");
                place.error(format!("line {}", at + 1), problem).hint(HINT).into()
            })
        };
        names.iter().map(find).collect()
    }

    /// Makes the entities of these mentions one.
    fn unite(&mut self, members: &[usize]) {
        let roots: Vec<usize> = members.iter().map(|&member| self.first[member]).collect();
        let Some(&root) = roots.iter().min() else { return };
        for first in self.first.iter_mut().filter(|first| roots.contains(first)) {
            *first = root;
        }
    }

    /// Entities, in the order of their first mentions in the file, and the relations between them.
    fn entities(&self) -> (Vec<TextEntity>, Vec<UncheckedFact>) {
        let mut entities: Vec<TextEntity> = Vec::new();
        let mut number_of: HashMap<usize, usize> = HashMap::new();
        for (mention, first) in self.mentions.iter().zip(&self.first) {
            let number = *number_of.entry(*first).or_insert_with(|| {
                entities.push(TextEntity::default());
                entities.len() - 1
            });
            entities[number].mentions.push(TextMention {
                range: mention.range.clone(),
                name: Some(mention.name.to_owned()),
                entity_type: mention.entity_type.to_owned(),
                field: mention.field.clone(),
            });
        }
        let fact = |(relation, arguments): &(&str, [usize; 2])| {
            let [head, tail] = arguments
                .map(|mention| number_of.get(&self.first[mention]).map_or(-1, |n| *n as i64));
            UncheckedFact { head, tail, relation: (*relation).to_owned(), evidence: Vec::new() }
        };
        (entities, self.relations.iter().map(fact).collect())
    }
}

fn broken(place: DocumentPlace<'_>, at: usize, line: &str) -> crate::Error {
    place.error(format!("line {}", at + 1), format!("`{line}` cannot be read")).hint(HINT).into()
}

/// A `T` line: its name and the mention.
fn mention<'a>(
    place: DocumentPlace<'_>,
    at: usize,
    line: &'a str,
    text: &[char],
    counts: &mut BratCounts,
) -> Result<(&'a str, BratMention<'a>)> {
    let mut columns = line.splitn(3, '\t');
    let (Some(id), Some(what), Some(name)) = (columns.next(), columns.next(), columns.next())
    else {
        return Err(broken(place, at, line));
    };
    let Some((entity_type, spans)) = what.split_once(' ') else {
        return Err(broken(place, at, line));
    };
    let bounds: Option<Vec<(usize, usize)>> = spans
        .split(';')
        .map(|span| {
            let (from, to) = span.trim().split_once(' ')?;
            Some((from.parse().ok()?, to.trim().parse().ok()?))
        })
        .collect();
    let Some(bounds) = bounds else { return Err(broken(place, at, line)) };
    let field = format!("line {}", at + 1);
    if let Some((from, to)) = bounds.iter().find(|(from, to)| from >= to || *to > text.len()) {
        let problem =
            format!("the characters {from}..{to} are not a span of a text of {}", text.len());
        return Err(place
            .error(field, problem)
            .hint("offsets count characters of the .txt file from 0")
            .into());
    }
    let parts = bounds.iter().map(|&(from, to)| text[from..to].iter().collect::<String>());
    let found = parts.collect::<Vec<_>>().join(" ");
    let letters =
        |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    if letters(&found) != letters(name) {
        let problem = format!("the text at `{spans}` is `{found}`, not `{name}`");
        let hint = match bounds[..] {
            [(from, to)] => offset_hint(text, from, to, name),
            _ => "offsets count Unicode characters of the .txt file from 0",
        };
        return Err(place.error(field, problem).hint(hint).into());
    }
    counts.discontinuous += usize::from(bounds.len() > 1);
    let from = bounds.iter().map(|bounds| bounds.0).min().unwrap_or_default();
    let to = bounds.iter().map(|bounds| bounds.1).max().unwrap_or_default();
    Ok((id, BratMention { entity_type, range: from..to, name, field }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Ada Byron ran a mill.\nShe left Leeds. Leeds grew north and south.\n";
    const ANNOTATIONS: &str = "R1\towns Arg1:T2 Arg2:T3\n\
        T1\tPER 0 9\tAda Byron\n\
        T2\tPER 22 25\tShe\n\
        T3\tLOC 31 36\tLeeds\n\
        T4\tLOC 38 43\tLeeds\n\
        T5\tLOC 49 54;59 64\tnorth south\n\
        *\tEquiv T1 T2\n\
        *\tEquiv T4 T3\n\
        A1\tNegation R1\n\
        #1\tAnnotatorNotes T1\ta note\n\
        R2\tno_relation Arg1:T1 Arg2:T5\n";

    fn read(text: &str, annotations: &str) -> Result<(Vec<Document>, ReadSummary)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs_err::write(&path, text).unwrap();
        fs_err::write(path.with_extension("ann"), annotations).unwrap();
        let mut documents = Vec::new();
        let summary = Brat.read(folder.path(), &ReadOptions::default(), &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok((documents, summary))
    }

    #[test]
    fn equivalent_mentions_are_one_entity_and_relations_are_of_entities() {
        let (documents, summary) = read(TEXT, ANNOTATIONS).unwrap();
        let document = &documents[0];
        assert_eq!((document.title.as_str(), document.sentences.len()), ("a", 3));
        let mentions: Vec<Vec<_>> = document
            .entities
            .iter()
            .map(|entity| {
                let mentions = entity.mentions.iter();
                mentions.map(|m| (m.name.as_str(), m.sentence, m.start, m.end)).collect()
            })
            .collect();
        assert_eq!(
            mentions,
            [
                vec![("Ada Byron", 0, 0, 2), ("She", 1, 0, 1)],
                vec![("Leeds", 1, 2, 3), ("Leeds", 2, 0, 1)],
                vec![("north south", 2, 2, 5)],
            ]
        );
        let facts = document.facts();
        assert_eq!((facts.len(), facts[0].head, facts[0].tail), (1, 0, 1));
        assert_eq!(facts[0].relation, "owns");
        let omissions = summary.omissions();
        for (number, told) in ["2 lines", "1 mentions", "1 labels"].into_iter().enumerate() {
            assert!(omissions[number].starts_with(told), "{omissions:?}");
        }
        assert_eq!((omissions.len(), summary.notes.len()), (3, 0));
    }

    #[test]
    fn what_breaks_the_files_is_named() {
        for (from, to, problem) in [
            ("T1\tPER 0 9\t", "T1\tPER 1 9\t", "`da Byron`, not `Ada Byron`"),
            ("0 9", "0 99", "0..99"),
            ("0 9", "0 x", "cannot be read"),
            ("T2\tPER", "T1\tPER", "`T1` is there twice"),
            ("Arg2:T3", "Arg2:T9", "`T9` is no mention"),
            ("Arg2:T3", "", "cannot be read"),
            ("Arg2:T3", "Arg2:T1", "same entity"),
            ("Equiv T1", "Equal T1", "cannot be read"),
        ] {
            let error = read(TEXT, &ANNOTATIONS.replacen(from, to, 1)).unwrap_err();
            assert!(error.exit_code() == 65 && error.hint().is_some(), "{error}");
            assert!(error.to_string().contains(problem), "{problem}: {error}");
        }
        for (text, line, hint) in [
            ("Äda Bo.", "5 7\tBo", "bytes of UTF-8"),
            ("𝔸da Bo.", "5 7\tBo", "units of UTF-16"),
            ("a\r\nBo c.", "2 4\tBo", "line break"),
        ] {
            let error = read(text, &format!("T1\tPER {line}\n")).unwrap_err();
            let said = error.hint().unwrap();
            assert!(said.contains(hint) && error.to_string().contains("line 1"), "{error}: {said}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let read = || Brat.read(&path, &ReadOptions::default(), &mut |_| Ok(()));
        assert_eq!(read().unwrap_err().exit_code(), 74);
        fs_err::write(&path, TEXT).unwrap();
        assert!(read().unwrap_err().to_string().contains("a.ann does not exist"));
        fs_err::write(path.with_extension("ann"), "").unwrap();
        assert_eq!((read().unwrap().documents, read().unwrap().without_facts), (1, 1));
    }
}
