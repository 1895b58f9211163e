//! A graph of what was predicted: entities of many documents merged into nodes, predicted facts
//! into edges, each with the documents and sentences that it rests on; constraints between
//! relations that decide where predictions contradict each other; and files that graph tools open.
//!
//! The order of work is that of the files: [`facts`] reads predictions and their documents,
//! [`nodes`] merges entities, [`edges`] merges facts and applies [`constraints`]; [`tables`],
//! [`rdf`] and [`neo4j`] write the [`whole`]. Not for: predicting (`pipeline`), or scoring
//! predictions (`eval`).

mod constraints;
mod edges;
mod facts;
mod make;
mod neo4j;
mod nodes;
mod rdf;
mod tables;
#[cfg(test)]
mod tests;
mod whole;
mod why;

pub use make::{GraphTask, make_graph};
pub use why::{EdgeQuery, is_graph, why_edges};
