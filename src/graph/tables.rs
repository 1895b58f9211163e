//! A graph as Parquet: `nodes`, `edges`, `statements` (what each edge rests on) and `dropped`.
//! docs/formats.md describes the columns.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, ListBuilder, StringArray, StringBuilder, UInt32Array,
    UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Schema};

use super::edges::{EdgeKey, GraphEdge};
use super::whole::FactGraph;
use crate::Result;
use crate::shards::WholeTable;

/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 16;

/// Names of the files.
pub(super) const NODES: &str = "nodes.parquet";
pub(super) const EDGES: &str = "edges.parquet";
pub(super) const STATEMENTS: &str = "statements.parquet";
pub(super) const DROPPED: &str = "dropped.parquet";

/// A column with its name and whether it may be empty.
type NamedColumn = (&'static str, bool, ArrayRef);

/// Writes the four tables into a folder.
///
/// # Errors
/// The disk.
pub(super) fn write_tables(graph: &FactGraph, folder: &Path) -> Result<()> {
    let nodes: Vec<usize> = graph.shown_nodes();
    write(&folder.join(NODES), &nodes, |rows| nodes_columns(graph, rows))?;
    let kept: Vec<(&EdgeKey, &GraphEdge)> = graph.edges.kept.iter().collect();
    write(&folder.join(EDGES), &kept, |rows| edges_columns(graph, rows))?;
    let stated: Vec<(&EdgeKey, usize)> = kept
        .iter()
        .flat_map(|(key, edge)| edge.facts.iter().map(move |&fact| (*key, fact)))
        .collect();
    write(&folder.join(STATEMENTS), &stated, |rows| statements_columns(graph, rows))?;
    let dropped: Vec<&EdgeKey> = graph.edges.dropped.keys().collect();
    write(&folder.join(DROPPED), &dropped, |rows| dropped_columns(graph, rows))
}

fn write<T>(path: &Path, rows: &[T], columns: impl Fn(&[T]) -> Vec<NamedColumn>) -> Result<()> {
    let fields = columns(&[]).into_iter().map(|(name, maybe, column)| {
        // Lists are never absent, only empty.
        Field::new(name, column.data_type().clone(), maybe)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut table = WholeTable::create(path, schema)?;
    for group in rows.chunks(GROUP_ROWS) {
        table.write_group(columns(group).into_iter().map(|(.., column)| column).collect())?;
    }
    table.finish()
}

fn nodes_columns(graph: &FactGraph, rows: &[usize]) -> Vec<NamedColumn> {
    let nodes = || rows.iter().map(|&row| &graph.nodes.nodes[row]);
    vec![
        ("id", false, texts(nodes().map(|node| node.id.as_str()))),
        ("name", false, texts(nodes().map(|node| node.name.as_str()))),
        ("type", true, maybe(nodes().map(|node| node.types.first().map(String::as_str)))),
        ("knowledge_base_id", true, maybe(nodes().map(|node| node.knowledge_base_id.as_deref()))),
        ("names", false, lists(nodes().map(|node| node.names.as_slice()))),
        ("types", false, lists(nodes().map(|node| node.types.as_slice()))),
        ("mentions", false, counts(nodes().map(|node| node.mentions))),
        ("documents", false, counts(nodes().map(|node| node.documents))),
    ]
}

/// Head, relation and tail.
fn key_columns<'a>(
    graph: &'a FactGraph,
    keys: impl Iterator<Item = &'a EdgeKey> + Clone,
) -> Vec<NamedColumn> {
    let id = |node: usize| graph.nodes.nodes[node].id.as_str();
    vec![
        ("head", false, texts(keys.clone().map(|key| id(key.0)))),
        ("relation", false, texts(keys.clone().map(|key| key.1.as_str()))),
        ("tail", false, texts(keys.map(|key| id(key.2)))),
    ]
}

fn edges_columns(graph: &FactGraph, rows: &[(&EdgeKey, &GraphEdge)]) -> Vec<NamedColumn> {
    let edges = || rows.iter().map(|(_, edge)| *edge);
    let derived: BooleanArray = edges().map(|edge| Some(edge.derived)).collect();
    let mut columns = key_columns(graph, rows.iter().map(|(key, _)| *key));
    columns.extend([
        ("relation_name", false, texts(rows.iter().map(|(key, _)| graph.relation_name(&key.1)))),
        ("score", true, numbers(edges().map(|edge| edge.score))),
        ("support", false, numbers(edges().map(|edge| Some(edge.support)))),
        ("documents", false, counts(edges().map(|edge| edge.documents))),
        ("statements", false, counts(edges().map(|edge| edge.facts.len()))),
        ("derived", false, Arc::new(derived) as ArrayRef),
    ]);
    columns
}

fn statements_columns(graph: &FactGraph, rows: &[(&EdgeKey, usize)]) -> Vec<NamedColumn> {
    let stated: Vec<_> = rows.iter().map(|&(_, fact)| graph.statement(fact)).collect();
    let facts = || rows.iter().map(|&(_, fact)| &graph.predicted.facts[fact]);
    let predicted: BooleanArray = facts().map(|fact| Some(!fact.evidence.is_empty())).collect();
    let mut columns = key_columns(graph, rows.iter().map(|(key, _)| *key));
    columns.extend([
        ("title", false, texts(stated.iter().map(|one| one.title))),
        ("stated_relation", false, texts(facts().map(|fact| fact.relation.as_str()))),
        ("head_entity", false, counts(facts().map(|fact| fact.head))),
        ("tail_entity", false, counts(facts().map(|fact| fact.tail))),
        ("head_name", false, texts(stated.iter().map(|one| one.head))),
        ("tail_name", false, texts(stated.iter().map(|one| one.tail))),
        ("score", true, numbers(facts().map(|fact| fact.score))),
        ("confidence", true, numbers(facts().map(|fact| fact.confidence))),
        ("sentences", false, number_lists(stated.iter().map(|one| one.sentences.as_slice()))),
        ("evidence", false, Arc::new(predicted) as ArrayRef),
        ("text", false, texts(stated.iter().map(|one| one.text.as_str()))),
    ]);
    columns
}

fn dropped_columns(graph: &FactGraph, rows: &[&EdgeKey]) -> Vec<NamedColumn> {
    let all = || rows.iter().map(|&key| &graph.edges.dropped[key]);
    let id = |node: usize| graph.nodes.nodes[node].id.as_str();
    let other = |of: fn(&EdgeKey) -> usize| {
        maybe(all().map(move |(_, conflict)| conflict.other().map(|key| id(of(key)))))
    };
    let relation = all().map(|(_, conflict)| conflict.other().map(|key| key.1.as_str()));
    let mut columns = key_columns(graph, rows.iter().copied());
    columns.extend([
        ("reason", false, texts(all().map(|(_, conflict)| conflict.name()))),
        ("other_head", true, other(|key| key.0)),
        ("other_relation", true, maybe(relation)),
        ("other_tail", true, other(|key| key.2)),
        ("score", true, numbers(all().map(|(edge, _)| edge.score))),
        ("support", false, numbers(all().map(|(edge, _)| Some(edge.support)))),
        ("documents", false, counts(all().map(|(edge, _)| edge.documents))),
    ]);
    columns
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn maybe<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn numbers(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

fn counts(values: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(values.map(|count| count as u32)))
}

fn lists<'a>(values: impl Iterator<Item = &'a [String]>) -> ArrayRef {
    let item = Field::new("item", DataType::Utf8, false);
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(item);
    for list in values {
        list.iter().for_each(|text| builder.values().append_value(text));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn number_lists<'a>(values: impl Iterator<Item = &'a [usize]>) -> ArrayRef {
    let item = Field::new("item", DataType::UInt32, false);
    let mut builder = ListBuilder::new(UInt32Builder::new()).with_field(item);
    for list in values {
        list.iter().for_each(|&number| builder.values().append_value(number as u32));
        builder.append(true);
    }
    Arc::new(builder.finish())
}
