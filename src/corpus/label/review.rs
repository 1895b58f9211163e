//! Labels that people gave: pairs written out for review, and the answers taken back as labels
//! (docs/formats.md, "Review files").
//!
//! Not for: which pairs are worth a review (`pipeline::review`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::super::formats::docred::DocredWriter;
use super::super::formats::list_left_out;
use super::super::{Document, Entity, Fact, RelationSet, is_no_relation};
use super::LabelOptions;
use crate::base::{json_stream, say};
use crate::{DataError, Result};

/// A pair of entities for a person to judge: a line of a review file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReviewPair {
    /// Title of the document.
    pub title: String,
    /// The head.
    pub head: ReviewEntity,
    /// The tail.
    pub tail: ReviewEntity,
    /// The sentences that mention one of them, with both marked.
    #[serde(default)]
    pub excerpt: String,
    /// What the model holds possible, the most probable relation first.
    #[serde(default)]
    pub candidates: Vec<ReviewCandidate>,
    /// The answer: all relations that hold from head to tail; `None` where nobody has answered.
    #[serde(deserialize_with = "present")]
    pub relations: Option<Vec<String>>,
    /// The sentences that the model takes for evidence; `None` for a model that tells none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Vec<usize>>,
    /// All sentences of the document, their words joined by blanks.
    #[serde(default)]
    pub text: Vec<String>,
}

/// An entity of a pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReviewEntity {
    /// Its index in the document.
    pub entity: usize,
    /// The name of its first mention.
    pub name: String,
    /// Its type.
    #[serde(default, rename = "type")]
    pub entity_type: String,
    /// Where it is mentioned.
    #[serde(default)]
    pub mentions: Vec<ReviewSpan>,
}

/// A mention in the text of a [`ReviewPair`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewSpan {
    /// The sentence, from 0.
    pub sentence: usize,
    /// Its first character in the sentence, from 0.
    pub start: usize,
    /// One past its last character.
    pub end: usize,
}

/// A relation that may hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReviewCandidate {
    /// Its identifier.
    pub relation: String,
    /// Its name for people.
    #[serde(default)]
    pub name: String,
    /// Its calibrated probability.
    #[serde(default)]
    pub probability: f64,
    /// Whether it is among the predictions.
    #[serde(default)]
    pub predicted: bool,
}

/// A field that may be null, but not missing.
fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Vec<String>>, D::Error> {
    Option::deserialize(reader)
}

const NO_ANSWER_HINT: &str = "\"relations\" is a list of relation identifiers, [] where none \
    holds, or null where nobody has answered";
const OTHERS_HINT: &str =
    "the file belongs to other documents: name the --input that it was written for";

impl ReviewPair {
    /// A pair of a document, without candidates.
    pub fn of(document: &Document, head: usize, tail: usize) -> Self {
        let described = |index: usize| {
            let entity = &document.entities[index];
            let mut spans: Vec<ReviewSpan> = Vec::new();
            for mention in &entity.mentions {
                let words = document.sentences.get(mention.sentence).map_or(&[][..], Vec::as_slice);
                let (start, end) = characters(words, mention.start, mention.end);
                let span = ReviewSpan { sentence: mention.sentence, start, end };
                // DocRED names some spans twice.
                if !spans.contains(&span) {
                    spans.push(span);
                }
            }
            ReviewEntity {
                entity: index,
                name: name_of(entity).to_owned(),
                entity_type: entity.entity_type().to_owned(),
                mentions: spans,
            }
        };
        let text: Vec<String> = document.sentences.iter().map(|words| words.join(" ")).collect();
        let (head, tail) = (described(head), described(tail));
        let excerpt = excerpt(&text, &head.mentions, &tail.mentions);
        Self { title: document.title.clone(), head, tail, excerpt, text, ..Self::default() }
    }
}

fn name_of(entity: &Entity) -> &str {
    entity.mentions.first().map_or("", |mention| mention.name.as_str())
}

/// First and last character of the words `start..end`, once they are joined by blanks.
fn characters(words: &[String], start: usize, end: usize) -> (usize, usize) {
    let length = |words: &[String]| words.iter().map(|word| word.chars().count() + 1).sum();
    let end = end.min(words.len());
    let start = start.min(end);
    let first: usize = length(&words[..start]);
    let span: usize = length(&words[start..end]);
    (first, first + span.saturating_sub(1))
}

/// The sentences that mention head or tail: `[2] Ada lives in <tail>Leeds</tail>. … [5] …`.
fn excerpt(text: &[String], head: &[ReviewSpan], tail: &[ReviewSpan]) -> String {
    let sentences: BTreeSet<usize> = head.iter().chain(tail).map(|span| span.sentence).collect();
    let (mut shown, mut last) = (String::new(), None);
    for number in sentences {
        let Some(sentence) = text.get(number) else { continue };
        let gap = match last {
            None => "",
            Some(last) if last + 1 == number => " ",
            Some(_) => " … ",
        };
        last = Some(number);
        shown += &format!("{gap}[{number}] {}", marked(sentence, number, head, tail));
    }
    shown
}

/// A sentence with marks around the mentions. At one place, what ends stands before what begins.
fn marked(sentence: &str, number: usize, head: &[ReviewSpan], tail: &[ReviewSpan]) -> String {
    let mut marks: BTreeMap<usize, (String, String)> = BTreeMap::new();
    for (spans, name) in [(head, "head"), (tail, "tail")] {
        for span in spans.iter().filter(|span| span.sentence == number && span.start < span.end) {
            marks.entry(span.start).or_default().1 += &format!("<{name}>");
            marks.entry(span.end).or_default().0.insert_str(0, &format!("</{name}>"));
        }
    }
    let mut shown = String::new();
    let mark = |shown: &mut String, place: usize| {
        if let Some((ends, begins)) = marks.get(&place) {
            shown.push_str(ends);
            shown.push_str(begins);
        }
    };
    let mut places = 0;
    for (place, character) in sentence.chars().enumerate() {
        mark(&mut shown, place);
        shown.push(character);
        places = place + 1;
    }
    mark(&mut shown, places);
    shown
}

/// What [`label_reviewed`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReviewReport {
    /// Documents written.
    pub documents: usize,
    /// Those with an answer.
    pub reviewed_documents: usize,
    /// Pairs with an answer.
    pub reviewed: usize,
    /// Those of which it is that no relation holds.
    pub without_relation: usize,
    /// Pairs without an answer; they are as they were.
    pub not_reviewed: usize,
    /// Labels that are new.
    pub added: usize,
    /// Labels of the input that are gone.
    pub removed: usize,
    /// Labels of the input that stay because an answer says the same.
    pub confirmed: usize,
    /// Documents that had no labels at all and have an answer.
    pub newly_labelled: usize,
}

impl fmt::Display for ReviewReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} labels added, {} removed and {} confirmed by {} reviewed pairs of {} documents \
             ({} pairs have no relation); {} pairs are not reviewed; {} documents",
            self.added,
            self.removed,
            self.confirmed,
            self.reviewed,
            self.reviewed_documents,
            self.without_relation,
            self.not_reviewed,
            self.documents
        )
    }
}

/// The answer for a pair.
#[derive(Clone, Debug)]
struct Answer {
    row: usize,
    names: [String; 2],
    relations: Option<BTreeSet<String>>,
    evidence: Vec<usize>,
}

/// The answers of a review file.
#[derive(Clone, Debug)]
pub struct ReviewedPairs {
    path: PathBuf,
    /// By title and pair.
    answers: HashMap<String, BTreeMap<(usize, usize), Answer>>,
    /// Relations that an answer may name.
    known: BTreeSet<String>,
}

impl ReviewedPairs {
    /// Reads a review file, plain or gzip: pairs one a line, or in a JSON list. Answers may name
    /// the candidates of any pair, the `relations` given here, and those of the labels of the
    /// documents.
    ///
    /// # Errors
    /// A [`DataError`] naming the row: a field that is missing or of another type, an answer of "no
    /// relation", a pair with two different answers.
    pub fn load(path: &Path, relations: Option<&RelationSet>) -> Result<Self> {
        let known = relations.iter().flat_map(|set| set.iter()).map(|one| one.id.clone());
        let mut file =
            Self { path: path.to_owned(), answers: HashMap::new(), known: known.collect() };
        json_stream::read_array(path, &mut |row, pair: ReviewPair| file.add(row, pair))?;
        Ok(file)
    }

    fn add(&mut self, row: usize, pair: ReviewPair) -> Result<()> {
        let fault = |field: &str, problem: String| {
            DataError::new(&self.path, problem).row(row).title(&pair.title).field(field)
        };
        let named = pair.relations.iter().flatten();
        if let Some(id) = named.into_iter().find(|id| id.is_empty() || is_no_relation(id)) {
            let problem = format!("`{id}` is no relation");
            return Err(fault("relations", problem).hint(NO_ANSWER_HINT).into());
        }
        let key = (pair.head.entity, pair.tail.entity);
        let answer = Answer {
            row,
            names: [pair.head.name.clone(), pair.tail.name.clone()],
            relations: pair.relations.clone().map(|list| list.into_iter().collect()),
            evidence: pair.evidence.clone().unwrap_or_default(),
        };
        let of_title = self.answers.entry(pair.title.clone()).or_default();
        if let Some(other) = of_title.get_mut(&key) {
            match (&other.relations, &answer.relations) {
                (Some(first), Some(second)) if first != second => {
                    let problem =
                        format!("the pair {key:?} has another answer in row {}", other.row);
                    return Err(DataError::new(&self.path, problem)
                        .row(row)
                        .title(&pair.title)
                        .field("relations")
                        .hint("keep one of the two lines")
                        .into());
                }
                (None, Some(_)) => *other = answer,
                _ => {}
            }
        } else {
            of_title.insert(key, answer);
        }
        self.known.extend(pair.candidates.into_iter().map(|candidate| candidate.relation));
        Ok(())
    }

    /// Puts the answers for a document in place of the labels of their pairs.
    fn apply(
        &self,
        answers: &BTreeMap<(usize, usize), Answer>,
        document: &mut Document,
        report: &mut ReviewReport,
    ) -> Result<()> {
        for (&pair, answer) in answers {
            self.check(document, pair, answer)?;
            let Some(relations) = &answer.relations else {
                report.not_reviewed += 1;
                continue;
            };
            report.reviewed += 1;
            report.without_relation += usize::from(relations.is_empty());
            report.newly_labelled += usize::from(document.facts.is_none());
            let facts = document.facts.get_or_insert_default();
            let (head, tail) = pair;
            let mut old = BTreeSet::new();
            facts.retain(|fact| {
                let own = (fact.head, fact.tail) == pair;
                if own {
                    old.insert(fact.relation.clone());
                }
                !own || relations.contains(&fact.relation)
            });
            report.confirmed += old.intersection(relations).count();
            report.removed += old.difference(relations).count();
            let new: Vec<&String> = relations.difference(&old).collect();
            report.added += new.len();
            facts.extend(new.into_iter().map(|relation| Fact {
                head,
                tail,
                relation: relation.clone(),
                evidence: answer.evidence.clone(),
            }));
        }
        let reviewed = answers.values().any(|answer| answer.relations.is_some());
        report.reviewed_documents += usize::from(reviewed);
        Ok(())
    }

    /// Refuses a pair that is none of the document's.
    fn check(&self, document: &Document, pair: (usize, usize), answer: &Answer) -> Result<()> {
        let fault = |field: &str, problem: String| {
            let error = DataError::new(&self.path, problem).row(answer.row).field(field);
            Err(error.title(&document.title).hint(OTHERS_HINT).into())
        };
        for (side, index, name) in
            [("head", pair.0, &answer.names[0]), ("tail", pair.1, &answer.names[1])]
        {
            let Some(entity) = document.entities.get(index) else {
                let count = document.entities.len();
                let problem = format!("there is no entity {index}: the document has {count}");
                return fault(&format!("{side}.entity"), problem);
            };
            if name_of(entity) != name {
                let problem = format!(
                    "entity {index} is `{name}` here and `{}` in the document",
                    name_of(entity)
                );
                return fault(&format!("{side}.name"), problem);
            }
        }
        if pair.0 == pair.1 {
            return fault("tail.entity", format!("head and tail are both entity {}", pair.0));
        }
        if document.candidates.is_some() && !document.asked_pairs().contains(&pair) {
            return fault("head.entity", format!("the document does not ask about {pair:?}"));
        }
        let sentences = document.sentences.len();
        if let Some(number) = answer.evidence.iter().find(|number| **number >= sentences) {
            let problem = format!("there is no sentence {number}: the document has {sentences}");
            return fault("evidence", problem);
        }
        Ok(())
    }

    /// The relations of answers that neither the file nor `labels` know, and the titles of which no
    /// document was `seen`.
    fn faults(&self, labels: &BTreeSet<String>, seen: &HashSet<&str>) -> Vec<DataError> {
        let mut faults = Vec::new();
        for (title, pairs) in &self.answers {
            let first = pairs.values().map(|answer| answer.row).min().unwrap_or_default();
            let fault = |row: usize, field: &str, problem: String| {
                DataError::new(&self.path, problem).row(row).title(title).field(field)
            };
            if !seen.contains(title.as_str()) {
                let problem = "the input has no document of this title".to_owned();
                faults.push(fault(first, "title", problem).hint(OTHERS_HINT));
            }
            for answer in pairs.values() {
                let named = answer.relations.iter().flatten();
                let unknown = |id: &&String| !self.known.contains(*id) && !labels.contains(*id);
                if let Some(id) = named.into_iter().find(unknown) {
                    let problem = format!("`{id}` is neither a candidate nor a label of the input");
                    faults.push(fault(answer.row, "relations", problem).hint(
                        "mend the identifier, or name all relations with --relations rel_info.json",
                    ));
                }
            }
        }
        faults.sort_by_key(|fault| fault.row);
        faults
    }
}

/// Sets the labels of the reviewed pairs of `input` and writes all its documents to `output` in
/// DocRED's form, in the same order.
///
/// # Errors
/// Those of reading the format and of writing; a [`DataError`] naming the row of the review file:
/// another document's title or entities, an unknown relation. No output appears then.
pub fn label_reviewed(
    reviewed: &ReviewedPairs,
    input: &Path,
    output: &Path,
    options: &LabelOptions,
) -> Result<ReviewReport> {
    let mut report = ReviewReport::default();
    let mut writer = DocredWriter::create(output)?;
    let (mut labels, mut seen) = (BTreeSet::new(), HashSet::new());
    let summary = options.format.read(input, &options.read, &mut |mut document: Document| {
        report.documents += 1;
        for fact in document.facts() {
            if !labels.contains(&fact.relation) {
                labels.insert(fact.relation.clone());
            }
        }
        if let Some((title, answers)) = reviewed.answers.get_key_value(&document.title) {
            seen.insert(title.as_str());
            reviewed.apply(answers, &mut document, &mut report)?;
        }
        writer.write(&document)
    })?;
    if let Some(error) = DataError::listing(reviewed.faults(&labels, &seen)) {
        return Err(error.into());
    }
    writer.finish()?;
    let warnings = summary.warnings(input).into_iter();
    warnings.for_each(|warning| say(format!("warning: {warning}")));
    if report.newly_labelled > 0 {
        say(format!(
            "warning: {}: {} documents had no labels; those of their pairs that are not reviewed \
             count as pairs without a relation from now on",
            input.display(),
            report.newly_labelled
        ));
    }
    list_left_out(&summary.left_out, output)?;
    Ok(report)
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
