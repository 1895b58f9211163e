//! One line of the format: columns in, a checked document out.

use std::collections::HashMap;
use std::path::Path;

use super::EogDocument;
use crate::corpus::place::DocumentPlace;
use crate::corpus::{
    Candidate, Document, Entity, Fact, LabelledPair, Mention, PairLabel, Provenance, is_no_relation,
};
use crate::{DataError, Result};

/// Columns of a pair: label, direction, CROSS, two spans, and two arguments of six columns.
const PAIR_COLUMNS: usize = 17;
/// Columns before the two arguments of a pair.
const FIRST_ARGUMENT: usize = 5;
/// Columns of an argument: id, names, type, starts, ends, sentences.
const ARGUMENT_COLUMNS: usize = 6;

/// The hint of an error that has no better one.
const HINT: &str = "a line is an id, the sentences joined by `|`, and 17 columns for each pair, \
    separated by tabs; see `docs/formats.md`";

/// An error about a column, counted from 0 here and from 1 for people.
fn error(place: DocumentPlace<'_>, column: usize, problem: impl Into<String>) -> DataError {
    place.error(format!("column {}", column + 1), problem).hint(HINT)
}

/// Parses one line.
pub(super) fn parse(path: &Path, row: usize, text: &str) -> Result<EogDocument> {
    let columns: Vec<&str> = text.split('\t').collect();
    let place = DocumentPlace { file: path, row, title: columns[0] };
    let (Some(body), rest) = (columns.get(1), columns.get(2..).unwrap_or_default()) else {
        return Err(error(place, 1, "the line has a single column").into());
    };
    if columns[0].is_empty() {
        return Err(error(place, 0, "the document has no id").into());
    }
    if rest.len() % PAIR_COLUMNS != 0 {
        let problem = format!(
            "{} columns follow the text; their number must be a multiple of {PAIR_COLUMNS}",
            rest.len()
        );
        return Err(error(place, 2, problem).hint("is a field empty, or a tab missing?").into());
    }
    let sentences: Vec<Vec<String>> = body
        .split('|')
        .map(|sentence| sentence.split_whitespace().map(str::to_owned).collect())
        .collect();
    let document = Document {
        title: columns[0].to_owned(),
        sentences,
        provenance: Provenance { file: path.to_owned(), row },
        ..Document::default()
    };
    let mut reader = LineReader {
        starts: document.sentence_starts(),
        document,
        place,
        entities: HashMap::new(),
    };
    let pairs = rest.chunks_exact(PAIR_COLUMNS).enumerate();
    let pairs = pairs
        .map(|(index, pair)| reader.pair(2 + index * PAIR_COLUMNS, pair))
        .collect::<Result<Vec<_>>>()?;
    reader.finish(pairs)
}

/// A document that grows pair by pair.
struct LineReader<'a> {
    place: DocumentPlace<'a>,
    document: Document,
    /// First word of each sentence, closed by the number of words.
    starts: Vec<usize>,
    /// Index of each knowledge-base id, and the columns that first described it.
    entities: HashMap<&'a str, (usize, &'a [&'a str])>,
}

impl<'a> LineReader<'a> {
    fn pair(&mut self, at: usize, columns: &'a [&'a str]) -> Result<LabelledPair> {
        let first = self.entity(
            at + FIRST_ARGUMENT,
            &columns[FIRST_ARGUMENT..FIRST_ARGUMENT + ARGUMENT_COLUMNS],
        )?;
        let second = self.entity(
            at + FIRST_ARGUMENT + ARGUMENT_COLUMNS,
            &columns[FIRST_ARGUMENT + ARGUMENT_COLUMNS..],
        )?;
        if first == second {
            return Err(error(
                self.place,
                at,
                format!("both arguments are `{}`", columns[FIRST_ARGUMENT]),
            )
            .into());
        }
        let (label, backwards) = self.label(at, columns[0])?;
        let (head, tail) = if backwards { (second, first) } else { (first, second) };
        let crosses_sentences = match columns[2] {
            "CROSS" => true,
            "NON-CROSS" => false,
            other => {
                return Err(error(
                    self.place,
                    at + 2,
                    format!("`{other}` is neither CROSS nor NON-CROSS"),
                )
                .into());
            }
        };
        Ok(LabelledPair { head, tail, label, crosses_sentences })
    }

    /// `1:CID:2` says that CID holds from the first argument to the second, `2:CID:1` from the
    /// second to the first.
    fn label(&self, at: usize, text: &str) -> Result<(PairLabel, bool)> {
        if text == "not_include" {
            return Ok((PairLabel::NotIncluded, false));
        }
        let inner = |prefix: &str, suffix: &str| {
            text.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix))
        };
        let (name, backwards) = match (inner("1:", ":2"), inner("2:", ":1")) {
            (Some(name), _) => (name, false),
            (_, Some(name)) => (name, true),
            _ => ("", false),
        };
        match name {
            "" => Err(error(self.place, at, format!("`{text}` is not a label"))
                .hint("labels look like `1:CID:2`, `1:NR:2` or `not_include`")
                .into()),
            name if is_no_relation(name) => Ok((PairLabel::NoRelation, backwards)),
            name => Ok((PairLabel::Relation(name.to_owned()), backwards)),
        }
    }

    /// Index of an argument's entity, which is added where it is new.
    fn entity(&mut self, at: usize, columns: &'a [&'a str]) -> Result<usize> {
        if let Some(&(index, first)) = self.entities.get(columns[0]) {
            return match first.iter().zip(columns).position(|(a, b)| a != b) {
                None => Ok(index),
                Some(column) => {
                    let problem = format!(
                        "entity `{}` was `{}` before, and is `{}` here",
                        columns[0], first[column], columns[column]
                    );
                    Err(error(self.place, at + column, problem).into())
                }
            };
        }
        let mentions = self.mentions(at, columns)?;
        let index = self.document.entities.len();
        self.document
            .entities
            .push(Entity { mentions, knowledge_base_id: Some(columns[0].to_owned()) });
        self.entities.insert(columns[0], (index, columns));
        Ok(index)
    }

    fn mentions(&self, at: usize, columns: &[&str]) -> Result<Vec<Mention>> {
        let &[id, names, entity_type, starts, ends, sentences] = columns else {
            return Err(error(self.place, at, "an argument does not have six columns").into());
        };
        if id.is_empty() || entity_type.is_empty() {
            return Err(error(self.place, at, "an argument without id or type").into());
        }
        let names: Vec<&str> = names.split('|').collect();
        let list = |column: usize, text: &str| self.numbers(at + column, text);
        let (starts, ends, sentences) = (list(3, starts)?, list(4, ends)?, list(5, sentences)?);
        if [starts.len(), ends.len(), sentences.len()] != [names.len(); 3] {
            let counts = [names.len(), starts.len(), ends.len(), sentences.len()];
            return Err(error(
                self.place,
                at + 1,
                format!("names, starts, ends and sentences of `{id}` differ in number: {counts:?}"),
            )
            .into());
        }
        let mention = |index: usize| {
            let span = self.span(at + 3, starts[index], ends[index], sentences[index])?;
            let (sentence, start, end) = (sentences[index], span.0, span.1);
            Ok(Mention {
                name: names[index].to_owned(),
                sentence,
                start,
                end,
                entity_type: entity_type.to_owned(),
            })
        };
        (0..names.len()).map(mention).collect()
    }

    /// Document words → words of the sentence.
    fn span(
        &self,
        column: usize,
        start: usize,
        end: usize,
        sentence: usize,
    ) -> Result<(usize, usize)> {
        match self.starts.get(sentence..sentence + 2) {
            Some(&[from, to]) if from <= start && start < end && end <= to => {
                Ok((start - from, end - from))
            }
            Some(bounds) => {
                let (from, to) = (bounds[0], bounds[1]);
                let problem = format!(
                    "the words {start}..{end} are not inside sentence {sentence}, which has the \
                     words {from}..{to}"
                );
                Err(error(self.place, column, problem).into())
            }
            None => {
                Err(error(self.place, column + 2, format!("sentence {sentence} does not exist"))
                    .into())
            }
        }
    }

    fn numbers(&self, column: usize, text: &str) -> Result<Vec<usize>> {
        let number = |part: &str| {
            part.parse().map_err(|_| {
                error(self.place, column, format!("`{part}` is not a number of a word or sentence"))
                    .into()
            })
        };
        text.split(':').map(number).collect()
    }

    fn finish(mut self, pairs: Vec<LabelledPair>) -> Result<EogDocument> {
        let mut seen = HashMap::new();
        let mut facts = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            if seen.insert((pair.head, pair.tail, pair.label.clone()), index).is_some() {
                let column = 2 + index * PAIR_COLUMNS;
                return Err(error(self.place, column, "the pair has this label twice")
                    .hint("keep one of the two")
                    .into());
            }
            if let PairLabel::Relation(relation) = &pair.label {
                facts.push(Fact {
                    head: pair.head,
                    tail: pair.tail,
                    relation: relation.clone(),
                    evidence: Vec::new(),
                });
            }
        }
        self.document.facts = Some(facts);
        self.document.candidates = Some(candidates(&pairs));
        Ok(EogDocument { document: self.document, pairs })
    }
}

/// The pairs, each once; one is taken out where all that is said of it is `not_include`.
fn candidates(pairs: &[LabelledPair]) -> Vec<Candidate> {
    let mut places: HashMap<(usize, usize), usize> = HashMap::with_capacity(pairs.len());
    let mut candidates: Vec<Candidate> = Vec::with_capacity(pairs.len());
    for &LabelledPair { head, tail, ref label, .. } in pairs {
        let excluded = *label == PairLabel::NotIncluded;
        let place = *places.entry((head, tail)).or_insert(candidates.len());
        match candidates.get_mut(place) {
            Some(known) => known.excluded &= excluded,
            None => candidates.push(Candidate { head, tail, excluded }),
        }
    }
    candidates
}
