//! Prediction as a stream: a document a line in, an answer a line out, in the same order.
//!
//! Lines are read ahead on a thread (`lines`). The model takes all that wait, so a lone line is
//! answered at once and many share passes. Not for: files (`files`).

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::super::session::Session;
use super::finder::{FactFinder, FinderNeeds, FoundFacts};
use super::lines::{InputLine, LineDocument, LineParser, LineQueue, SOURCE};
use super::options::PredictOptions;
use crate::base::{say, to_json};
use crate::corpus::{Document, Entity, RelationSet};
use crate::eval::Prediction;
use crate::text::TokenizedDocument;
use crate::{DataError, Error, Result, exit_code};

/// The most characters of a problem that an answer quotes.
const MOST_QUOTED: usize = 1_000;

/// What was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Documents.
    pub documents: usize,
    /// Facts in them.
    pub facts: usize,
    /// Lines whose answer is an error.
    pub errors: usize,
}

/// Answers the documents of `input` on `output` until the input ends.
///
/// # Errors
/// Several ranks; what [`FactFinder::open`] refuses; the input or the output; after all lines that
/// were read have been answered, a request to stop, or an error of this program or of libtorch that
/// some of them met.
pub fn answer_lines(
    options: &PredictOptions,
    input: impl Read + Send + 'static,
    output: &mut dyn Write,
    session: &Session,
) -> Result<StreamReport> {
    if session.world.size() > 1 {
        return Err(Error::recipe("--stream answers one input, but there are several ranks")
            .with_hint("start it without a launcher, once for each stream"));
    }
    let needs = FinderNeeds { iterations: options.iterations, review: false, speaks: true };
    let finder = FactFinder::open(options, needs, session)?;
    let parser = LineParser::new(finder.tokenizer().clone());
    let queue = Arc::new(LineQueue::default());
    let reader = Arc::clone(&queue);
    // The thread may wait for the input for ever, and ends with the process.
    std::thread::Builder::new()
        .name("lines".into())
        .spawn(move || parser.run(input, &reader))
        .map_err(Error::Io)?;
    let _section = session.world.watchdog().unbounded_section("answering lines");
    let stopped = || session.signals.stopped();
    let mut stream = AnswerStream { finder, output, report: StreamReport::default(), failed: None };
    loop {
        let lines = queue.take(&stopped)?;
        if lines.is_empty() {
            break;
        }
        stream.answer(lines)?;
    }
    stream.finder.tell_doubts(session)?;
    stream.end(stopped())
}

/// Answers lines.
struct AnswerStream<'a> {
    finder: FactFinder,
    output: &'a mut dyn Write,
    report: StreamReport,
    /// The first error that is not about a document.
    failed: Option<Error>,
}

impl AnswerStream<'_> {
    /// Answers lines, in order, and hands the answers on.
    fn answer(&mut self, lines: Vec<InputLine>) -> Result<()> {
        let (mut places, mut documents) = (Vec::new(), Vec::new());
        let (mut tokenized, mut from_text) = (Vec::new(), Vec::new());
        for InputLine { number, read, .. } in lines {
            match read {
                Ok(LineDocument { document, tokenized: pieces, from_text: is_text }) => {
                    places.push((number, Ok(documents.len())));
                    documents.push(document);
                    tokenized.push(pieces);
                    from_text.push(is_text);
                }
                Err(error) => places.push((number, Err(error))),
            }
        }
        let mut found = find_each(&mut self.finder, &documents, &mut tokenized)?.into_iter();
        for (number, place) in places {
            let document = place.as_ref().ok().map(|&place| &documents[place]);
            let told = place.and_then(|place| {
                let missing = || Error::Bug(format!("line {number} has no answer"));
                Ok((place, found.next().ok_or_else(missing)??))
            });
            let answer = match told {
                Ok((place, facts)) => {
                    self.accept(number, &documents[place], from_text[place], &facts)
                }
                Err(error) => self.refuse(number, document, error),
            };
            self.write(&answer?)?;
        }
        self.output.flush().map_err(unwritten)
    }

    /// The answer to a document.
    fn accept(
        &mut self,
        line: usize,
        document: &Document,
        from_text: bool,
        found: &FoundFacts,
    ) -> Result<Vec<u8>> {
        self.report.documents += 1;
        self.report.facts += found.facts.len();
        let relations = self.finder.relations();
        let facts = found.facts.iter().map(|fact| named(fact, relations));
        to_json(&LineAnswer {
            line,
            title: &document.title,
            facts: facts.collect::<Result<_>>()?,
            entities: document.entities.iter().map(AnsweredEntity::of).collect(),
            sentences: from_text.then_some(&document.sentences),
        })
    }

    /// The answer to a line that cannot be read or predicted.
    fn refuse(
        &mut self,
        line: usize,
        document: Option<&Document>,
        error: Error,
    ) -> Result<Vec<u8>> {
        self.report.errors += 1;
        let known = document.map(|document| document.title.as_str());
        let answer = to_json(&LineRefusal {
            line,
            title: known.or(data_error(&error).and_then(|data| data.title.as_deref())),
            error: LineFault::of(&error),
        });
        if data_error(&error).is_none() {
            self.failed.get_or_insert(error);
        }
        answer
    }

    fn write(&mut self, answer: &[u8]) -> Result<()> {
        let written = self.output.write_all(answer);
        written.and_then(|()| self.output.write_all(b"\n")).map_err(unwritten)
    }

    /// Says what was answered, and what went wrong beside the documents.
    fn end(self, stopped: bool) -> Result<StreamReport> {
        let StreamReport { documents, errors, .. } = self.report;
        say(format!("{documents} documents, {errors} lines that could not be read"));
        if let Some(error) = self.failed {
            return Err(error);
        }
        if stopped {
            say("stopped on request: all lines that were read are answered");
            return Err(Error::Elsewhere { rank: 0, code: exit_code::STOPPED });
        }
        Ok(self.report)
    }
}

/// What is found in each document, or why nothing can be. If some cannot be predicted together,
/// each half is tried alone.
///
/// # Errors
/// What is not about any document.
fn find_each(
    finder: &mut FactFinder,
    documents: &[Document],
    tokenized: &mut [Arc<TokenizedDocument>],
) -> Result<Vec<Result<FoundFacts>>> {
    match finder.find(tokenized, documents, &|| Ok(())) {
        Ok(found) => Ok(found.into_iter().map(Ok).collect()),
        Err(error @ (Error::Data(_) | Error::Torch(_) | Error::Bug(_))) => {
            if documents.len() == 1 {
                return Ok(vec![Err(error)]);
            }
            let middle = documents.len() / 2;
            let (left, right) = tokenized.split_at_mut(middle);
            let mut each = find_each(finder, &documents[..middle], left)?;
            each.extend(find_each(finder, &documents[middle..], right)?);
            Ok(each)
        }
        Err(error) => Err(error),
    }
}

/// A fact as in a file of predictions, without its title and with the name of its relation.
fn named(fact: &Prediction, relations: &RelationSet) -> Result<Map<String, Value>> {
    let mut fields = fact.untitled()?;
    let relation = relations.index_of(&fact.r).and_then(|class| relations.get(class));
    if let Some(relation) = relation.filter(|relation| relation.name != relation.id) {
        fields.insert("relation".into(), relation.name.as_str().into());
    }
    Ok(fields)
}

/// An output that cannot be written. A reader that has gone away ends the program without a word,
/// as everywhere.
fn unwritten(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::BrokenPipe => Error::Elsewhere { rank: 0, code: exit_code::BROKEN_PIPE },
        _ => error.into(),
    }
}

fn data_error(error: &Error) -> Option<&DataError> {
    match error {
        Error::Data(data) => Some(data),
        _ => None,
    }
}

/// The answer to a document.
#[derive(Serialize)]
struct LineAnswer<'a> {
    line: usize,
    title: &'a str,
    facts: Vec<Map<String, Value>>,
    entities: Vec<AnsweredEntity<'a>>,
    /// The words that evidence counts, where the document came as running text.
    #[serde(skip_serializing_if = "Option::is_none")]
    sentences: Option<&'a Vec<Vec<String>>>,
}

/// An entity, by what its first mention says.
#[derive(Serialize)]
struct AnsweredEntity<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    entity_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl<'a> AnsweredEntity<'a> {
    fn of(entity: &'a Entity) -> Self {
        Self {
            name: entity.mentions.first().map_or("", |mention| &mention.name),
            entity_type: entity.entity_type(),
            id: entity.knowledge_base_id.as_deref(),
        }
    }
}

/// The answer to a line that cannot be read or predicted.
#[derive(Serialize)]
struct LineRefusal<'a> {
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    error: LineFault<'a>,
}

/// What is wrong with a line.
#[derive(Serialize)]
struct LineFault<'a> {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> LineFault<'a> {
    fn of(error: &'a Error) -> Self {
        let message = match data_error(error) {
            // The line is told beside it.
            Some(data) if [Path::new(SOURCE), Path::new("shards")].contains(&&*data.file) => {
                data.problem.clone()
            }
            _ => error.to_string(),
        };
        let field = data_error(error).and_then(|data| data.field.as_deref());
        Self { message: message.chars().take(MOST_QUOTED).collect(), field, hint: error.hint() }
    }
}
