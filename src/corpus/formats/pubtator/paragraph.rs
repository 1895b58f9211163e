//! One paragraph: its lines in, an annotated abstract out.

use std::path::Path;

use crate::base::records::Record;
use crate::corpus::formats::annotated::{Annotated, IdRelation, SpanMention};
use crate::corpus::place::DocumentPlace;
use crate::{DataError, Result};

const HINT: &str = "a paragraph is `id|t|title`, `id|a|abstract`, mentions (id, start, end, name, \
    type, identifiers) and relations (id, relation, identifier, identifier), separated by tabs";

/// Parses a paragraph.
pub(crate) fn parse<'a>(path: &'a Path, record: Record<'a>) -> Result<Annotated<'a>> {
    let mut lines = (record.line..).zip(record.text.lines());
    let mut annotated = Annotated::default();
    let first = lines.next().and_then(|(_, line)| line.split_once("|t|"));
    let Some((id, title)) = first.filter(|(id, _)| !id.is_empty() && !id.contains('\t')) else {
        let problem = format!("line {} is not a title", record.line + 1);
        return Err(DataError::new(path, problem).row(record.row).hint(HINT).into());
    };
    (annotated.id, annotated.title) = (id, title);
    for (at, line) in lines {
        annotated.add(DocumentPlace { file: path, row: record.row, title: id }, at, line)?;
    }
    Ok(annotated)
}

impl<'a> Annotated<'a> {
    fn add(&mut self, place: DocumentPlace<'_>, at: usize, line: &'a str) -> Result<()> {
        let field = format!("line {}", at + 1);
        let error = |problem: String| place.error(&field, problem).hint(HINT);
        if let Some((id, body)) = line.split_once("|a|").filter(|(id, _)| !id.contains('\t')) {
            if id != self.id || !self.body.is_empty() {
                return Err(error(format!(
                    "an abstract of `{id}` in the paragraph of `{}`",
                    self.id
                ))
                .into());
            }
            self.body = body;
            return Ok(());
        }
        let columns: Vec<&str> = line.split('\t').collect();
        if columns[0] != self.id {
            return Err(error(format!(
                "the line belongs to `{}`, not to `{}`",
                columns[0], self.id
            ))
            .into());
        }
        match columns[..] {
            [_, relation, first, second] => {
                self.relations.push(IdRelation { relation, ids: [first, second], field });
            }
            // BioRED says in a fifth column whether the relation is new; nothing depends on it.
            [_, relation, first, second, "Novel" | "No"] if relation.parse::<i64>().is_err() => {
                self.relations.push(IdRelation { relation, ids: [first, second], field });
            }
            [_, start, end, name, entity_type, ref rest @ ..] if rest.len() <= 2 => {
                let (start, end) = (number(start, &error)?, number(end, &error)?);
                let ids = rest.first().copied().unwrap_or_default();
                self.mentions.push(SpanMention { start, end, name, entity_type, ids, field });
            }
            _ => {
                return Err(error(format!(
                    "a line of {} columns is neither mention nor relation",
                    columns.len()
                ))
                .into());
            }
        }
        Ok(())
    }
}

fn number(text: &str, error: &dyn Fn(String) -> DataError) -> Result<i64> {
    text.trim().parse().map_err(|_| error(format!("`{text}` is not a number")).into())
}
