//! What an edge of a graph rests on: documents, sentences, scores; and why an edge is not there.

use std::fmt;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, UInt32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use super::tables::{DROPPED, EDGES, NODES, STATEMENTS};
use crate::shards::catch;
use crate::{DataError, Result};

/// Which edges are asked about.
#[derive(Clone, Debug, Default)]
pub struct EdgeQuery {
    /// Head: the identifier or the name of a node.
    pub head: Option<String>,
    /// Tail, likewise.
    pub tail: Option<String>,
    /// Relation: its identifier.
    pub relation: Option<String>,
}

/// Edges with what they rest on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ExplainedEdges {
    /// Those in the graph.
    pub edges: Vec<ExplainedEdge>,
    /// Those that are not, with the reason.
    pub dropped: Vec<MissingEdge>,
}

/// An edge.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ExplainedEdge {
    /// Identifier of the head.
    pub head: String,
    /// Identifier of the relation.
    pub relation: String,
    /// Identifier of the tail.
    pub tail: String,
    /// Whether only its inverse was predicted.
    pub derived: bool,
    /// The best score.
    pub score: Option<f64>,
    /// What states it.
    pub statements: Vec<EdgeStatement>,
}

/// A predicted fact that carries an edge.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EdgeStatement {
    /// Title of the document.
    pub title: String,
    /// Name of the head there.
    pub head: String,
    /// Name of the tail there.
    pub tail: String,
    /// The relation that was predicted: that of the edge, or its inverse.
    pub relation: String,
    /// The system's score.
    pub score: Option<f64>,
    /// The calibrated probability.
    pub confidence: Option<f64>,
    /// Numbers of the sentences.
    pub sentences: Vec<u32>,
    /// The sentences.
    pub text: String,
}

/// An edge that is not in the graph.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MissingEdge {
    /// Identifier of the head.
    pub head: String,
    /// Identifier of the relation.
    pub relation: String,
    /// Identifier of the tail.
    pub tail: String,
    /// The reason.
    pub reason: String,
    /// The edge that stands in its place.
    pub instead: Option<String>,
}

/// Whether a folder holds a graph.
pub fn is_graph(folder: &Path) -> bool {
    folder.join(EDGES).exists() && folder.join(STATEMENTS).exists()
}

/// Explains the edges that are asked about.
///
/// # Errors
/// Tables that cannot be read.
pub fn why_edges(folder: &Path, query: &EdgeQuery) -> Result<ExplainedEdges> {
    // Identifiers and names.
    let mut nodes: Vec<(String, Vec<String>)> = Vec::new();
    read(&folder.join(NODES), &mut |batch, row| {
        let names = batch.column_by_name("names").map(|column| column.as_list::<i32>().value(row));
        let names = names.iter().flat_map(|names| names.as_string::<i32>().iter().flatten());
        nodes.push((text(batch, "id", row), names.map(str::to_owned).collect()));
    })?;
    let called = |asked: &Option<String>| -> Option<Vec<String>> {
        let asked = asked.as_ref()?;
        let is = |(id, names): &&(String, Vec<String>)| id == asked || names.contains(asked);
        let mut found: Vec<String> = nodes.iter().filter(is).map(|(id, _)| id.clone()).collect();
        // The ends of an edge that was dropped may have no edge, and then are not in the table.
        if found.is_empty() {
            found.push(asked.clone());
        }
        Some(found)
    };
    let (heads, tails) = (called(&query.head), called(&query.tail));
    let asked = |head: &String, relation: &String, tail: &String| {
        heads.as_ref().is_none_or(|all| all.contains(head))
            && tails.as_ref().is_none_or(|all| all.contains(tail))
            && query.relation.as_ref().is_none_or(|asked| asked == relation)
    };
    let mut told = ExplainedEdges::default();
    read(&folder.join(EDGES), &mut |batch, row| {
        let [head, relation, tail] = key(batch, row);
        if asked(&head, &relation, &tail) {
            let derived = batch.column_by_name("derived");
            told.edges.push(ExplainedEdge {
                derived: derived.is_some_and(|column| column.as_boolean().value(row)),
                score: number(batch, "score", row),
                head,
                relation,
                tail,
                statements: Vec::new(),
            });
        }
    })?;
    read(&folder.join(STATEMENTS), &mut |batch, row| {
        let [head, relation, tail] = key(batch, row);
        let edge = told
            .edges
            .iter_mut()
            .find(|edge| (&edge.head, &edge.relation, &edge.tail) == (&head, &relation, &tail));
        let Some(edge) = edge else { return };
        let sentences =
            batch.column_by_name("sentences").map(|column| column.as_list::<i32>().value(row));
        edge.statements.push(EdgeStatement {
            title: text(batch, "title", row),
            head: text(batch, "head_name", row),
            tail: text(batch, "tail_name", row),
            relation: text(batch, "stated_relation", row),
            score: number(batch, "score", row),
            confidence: number(batch, "confidence", row),
            sentences: sentences
                .map(|list| list.as_primitive::<UInt32Type>().values().to_vec())
                .unwrap_or_default(),
            text: text(batch, "text", row),
        });
    })?;
    read(&folder.join(DROPPED), &mut |batch, row| {
        let [head, relation, tail] = key(batch, row);
        if asked(&head, &relation, &tail) {
            let other =
                ["other_head", "other_relation", "other_tail"].map(|name| text(batch, name, row));
            let instead = (!other[0].is_empty()).then(|| other.join(" → "));
            let reason = text(batch, "reason", row);
            told.dropped.push(MissingEdge { head, relation, tail, reason, instead });
        }
    })?;
    Ok(told)
}

fn key(batch: &RecordBatch, row: usize) -> [String; 3] {
    ["head", "relation", "tail"].map(|name| text(batch, name, row))
}

/// A text; empty where there is none.
fn text(batch: &RecordBatch, name: &str, row: usize) -> String {
    let column = batch.column_by_name(name).filter(|column| column.is_valid(row));
    column.map_or_else(String::new, |column| column.as_string::<i32>().value(row).to_owned())
}

fn number(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name).filter(|column| column.is_valid(row))?;
    Some(column.as_primitive::<Float64Type>().value(row))
}

/// Hands every row of a table to `each`.
fn read(path: &Path, each: &mut dyn FnMut(&RecordBatch, usize)) -> Result<()> {
    let file = fs_err::File::open(path)?;
    let outcome = catch(|| {
        let (file, _) = file.into_parts();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|error| error.to_string())?;
        for batch in reader {
            let batch = batch.map_err(|error| error.to_string())?;
            (0..batch.num_rows()).for_each(|row| each(&batch, row));
        }
        Ok(())
    });
    outcome.map_err(|problem| {
        DataError::new(path, problem).hint("make the graph again with `graph`").into()
    })
}

impl fmt::Display for ExplainedEdges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.edges.is_empty() && self.dropped.is_empty() {
            return write!(f, "no such edge, and none was dropped");
        }
        let lines: Vec<String> = self
            .edges
            .iter()
            .map(ToString::to_string)
            .chain(self.dropped.iter().map(ToString::to_string))
            .collect();
        write!(f, "{}", lines.join("\n"))
    }
}

impl fmt::Display for ExplainedEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, relation, tail, derived, score, statements } = self;
        write!(f, "{head} → {relation} → {tail}")?;
        if let Some(score) = score {
            write!(f, ", score {score:.3}")?;
        }
        if *derived {
            write!(f, ", derived from its inverse")?;
        }
        statements.iter().try_for_each(|stated| {
            let EdgeStatement { title, head, relation, tail, .. } = stated;
            write!(f, "\n    {title}: {head} → {relation} → {tail}")?;
            if let Some(score) = stated.confidence.or(stated.score) {
                write!(f, " ({score:.3})")?;
            }
            if stated.text.is_empty() { Ok(()) } else { write!(f, "\n        {}", stated.text) }
        })
    }
}

impl fmt::Display for MissingEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, relation, tail, reason, instead } = self;
        write!(f, "{head} → {relation} → {tail}: dropped ({reason})")?;
        instead.as_ref().map_or(Ok(()), |edge| write!(f, "; see {edge}"))
    }
}
