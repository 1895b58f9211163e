//! Making a graph: what goes in, what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::constraints::Constraints;
use super::edges::Edges;
use super::facts::PredictedFacts;
use super::nodes::{MergeBy, Nodes};
use super::rdf::{IriPrefixes, write_triples};
use super::whole::FactGraph;
use super::{neo4j, tables};
use crate::corpus::Format;
use crate::corpus::formats::load_relations;
use crate::{Error, Result};

/// What to make a graph of, as the flags of `graph` say it.
#[derive(Clone, Debug, Args)]
pub struct GraphTask {
    /// Predictions of `predict`; what several files say of a fact counts once
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub predictions: Vec<PathBuf>,
    /// The documents that were predicted; without them, entities have no names and are not merged
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub documents: Vec<PathBuf>,
    /// Format of the documents
    #[arg(long, value_enum, value_name = "F", default_value = "docred")]
    pub format: Format,
    /// Names of relations (rel_info.json)
    #[arg(long, value_name = "FILE")]
    pub relations: Option<PathBuf>,
    /// Types, functional relations and inverses (TOML)
    #[arg(long, value_name = "FILE.toml")]
    pub constraints: Option<PathBuf>,
    /// Which entities of different documents are the same
    #[arg(long, value_enum, default_value_t)]
    pub merge: MergeBy,
    /// Use only facts with at least this calibrated probability
    #[arg(long, value_name = "P")]
    pub min_confidence: Option<f64>,
    /// What the IRIs of entities with an identifier begin with [default: urn:docre:entity:]
    #[arg(long, value_name = "PREFIX")]
    pub entity_iri: Option<String>,
    /// What the IRIs of relations begin with [default: urn:docre:relation:]
    #[arg(long, value_name = "PREFIX")]
    pub relation_iri: Option<String>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// What a graph holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GraphReport {
    /// Documents with facts.
    pub documents: usize,
    /// Predicted facts.
    pub facts: usize,
    /// Nodes with an edge.
    pub nodes: usize,
    /// Edges.
    pub edges: usize,
    /// Edges that only their inverse states.
    pub derived: usize,
    /// Edges that were dropped, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// What a reader should know.
    pub warnings: Vec<String>,
}

/// Makes the graph and writes all its files.
///
/// # Errors
/// Flags that cannot be meant; predictions, documents or constraints that cannot be read or do not
/// fit each other; the disk.
pub fn make_graph(task: &GraphTask) -> Result<GraphReport> {
    if let Some(least) = task.min_confidence.filter(|least| !(0.0..=1.0).contains(least)) {
        return Err(Error::recipe(format!("--min-confidence {least}"))
            .with_hint("a probability lies from 0 to 1"));
    }
    let prefixes =
        IriPrefixes { entity: task.entity_iri.clone(), relation: task.relation_iri.clone() };
    prefixes.check()?;
    let constraints = task.constraints.as_deref().map(Constraints::load).transpose()?;
    let constraints = constraints.unwrap_or_default();
    let names = task.relations.as_deref().map(load_relations).transpose()?;
    let predicted =
        PredictedFacts::read(&task.predictions, &task.documents, task.format, task.min_confidence)?;
    let nodes = Nodes::merge(&predicted, task.merge);
    let edges = Edges::merge(&predicted, &nodes, &constraints);
    let graph = FactGraph { predicted, nodes, edges, names };
    fs_err::create_dir_all(&task.output)?;
    tables::write_tables(&graph, &task.output)?;
    write_triples(&graph, &prefixes, &task.output)?;
    neo4j::write_csv(&graph, &task.output)?;
    Ok(report(&graph, &constraints))
}

fn report(graph: &FactGraph, constraints: &Constraints) -> GraphReport {
    let mut dropped: BTreeMap<String, usize> = BTreeMap::new();
    for (_, conflict) in graph.edges.dropped.values() {
        *dropped.entry(conflict.name().to_owned()).or_default() += 1;
    }
    let predicted = &graph.predicted;
    let mut warnings = Vec::new();
    if !predicted.named && !predicted.facts.is_empty() {
        warnings.push(
            "without --documents, entities have no names and those of different documents are not \
             merged"
                .to_owned(),
        );
    }
    if predicted.below > 0 {
        warnings.push(format!("{} facts are below --min-confidence", predicted.below));
    }
    let several = graph.nodes.several_types();
    if several > 0 {
        warnings.push(format!("{several} nodes have several types; the most frequent is first"));
    }
    let stated: BTreeSet<&str> =
        predicted.facts.iter().map(|fact| fact.relation.as_str()).collect();
    let unused: Vec<&str> =
        constraints.relations().filter(|relation| !stated.contains(relation)).collect();
    if !unused.is_empty() {
        warnings.push(format!(
            "{} relations of the constraints are not predicted, such as `{}`",
            unused.len(),
            unused[0]
        ));
    }
    GraphReport {
        documents: predicted.documents.len(),
        facts: predicted.facts.len(),
        nodes: graph.shown_nodes().len(),
        edges: graph.edges.kept.len(),
        derived: graph.edges.kept.values().filter(|edge| edge.derived).count(),
        dropped,
        warnings,
    }
}

impl fmt::Display for GraphReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { documents, facts, nodes, edges, derived, dropped, .. } = self;
        write!(f, "{nodes} nodes and {edges} edges from {facts} facts of {documents} documents")?;
        if *derived > 0 {
            write!(f, "; {derived} edges are derived from their inverses")?;
        }
        if !dropped.is_empty() {
            let reasons: Vec<String> =
                dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            write!(f, "; dropped: {}", reasons.join(", "))?;
        }
        Ok(())
    }
}
