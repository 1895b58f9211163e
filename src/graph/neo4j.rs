//! A graph as the CSV files that Neo4j's importer takes. Lists stand with U+001F between their
//! items, which no text holds.

use std::path::Path;

use super::whole::FactGraph;
use crate::Result;
use crate::base::write_whole;
use crate::{DataError, Error};

/// Names of the files.
pub(super) const NODES: &str = "neo4j-nodes.csv";
pub(super) const RELATIONSHIPS: &str = "neo4j-relationships.csv";
/// Between the items of a list: `--array-delimiter=U+001F`.
const BETWEEN: &str = "\u{1f}";

/// Writes both files into a folder.
///
/// # Errors
/// The disk.
pub(super) fn write_csv(graph: &FactGraph, folder: &Path) -> Result<()> {
    let mut nodes = csv::Writer::from_writer(Vec::new());
    let header = [
        "id:ID",
        "name",
        "knowledge_base_id",
        "names:string[]",
        "mentions:int",
        "documents:int",
        ":LABEL",
    ];
    put(&mut nodes, &header)?;
    for node in graph.shown_nodes() {
        let node = &graph.nodes.nodes[node];
        let labels = if node.types.is_empty() { "Entity".into() } else { list(&node.types) };
        put(
            &mut nodes,
            &[
                &node.id,
                &node.name,
                node.knowledge_base_id.as_deref().unwrap_or_default(),
                &list(&node.names),
                &node.mentions.to_string(),
                &node.documents.to_string(),
                &labels,
            ],
        )?;
    }
    finish(nodes, &folder.join(NODES))?;
    let mut edges = csv::Writer::from_writer(Vec::new());
    let header = [
        ":START_ID",
        ":END_ID",
        ":TYPE",
        "name",
        "score:double",
        "support:double",
        "derived:boolean",
        "titles:string[]",
        "sentences:string[]",
    ];
    put(&mut edges, &header)?;
    for (key, edge) in &graph.edges.kept {
        let stated: Vec<_> = edge.facts.iter().map(|&fact| graph.statement(fact)).collect();
        let titles: Vec<String> = stated.iter().map(|one| one.title.to_owned()).collect();
        let texts: Vec<String> = stated.into_iter().map(|one| one.text).collect();
        put(
            &mut edges,
            &[
                &graph.nodes.nodes[key.0].id,
                &graph.nodes.nodes[key.2].id,
                &key.1,
                graph.relation_name(&key.1),
                &edge.score.map_or_else(String::new, |score| score.to_string()),
                &edge.support.to_string(),
                &edge.derived.to_string(),
                &list(&titles),
                &list(&texts),
            ],
        )?;
    }
    finish(edges, &folder.join(RELATIONSHIPS))
}

fn list(items: &[String]) -> String {
    items.iter().map(|item| item.replace(BETWEEN, " ")).collect::<Vec<_>>().join(BETWEEN)
}

fn put(table: &mut csv::Writer<Vec<u8>>, row: &[&str]) -> Result<()> {
    table.write_record(row).map_err(|error| Error::Bug(format!("a row of CSV: {error}")))
}

fn finish(table: csv::Writer<Vec<u8>>, path: &Path) -> Result<()> {
    let bytes = table.into_inner().map_err(|error| DataError::new(path, error.to_string()))?;
    write_whole(path, &bytes)
}
