//! A graph as N-Triples (W3C, 2014): a triple for each edge, and for each statement that it rests
//! on a reified one with document, sentences and score.

use std::path::Path;

use oxrdf::vocab::{rdf, rdfs, xsd};
use oxrdf::{Literal, NamedNode, NamedNodeRef, Term, Triple};

use super::whole::FactGraph;
use crate::base::write_atomic;
use crate::{Error, Result};

/// Name of the file.
pub(super) const TRIPLES: &str = "graph.nt";

/// Where what is named here has its names.
const OWN: &str = "urn:docre:";
const DERIVED_FROM: NamedNodeRef<'static> =
    NamedNodeRef::new_unchecked("http://www.w3.org/ns/prov#wasDerivedFrom");
const OTHER_LABEL: NamedNodeRef<'static> =
    NamedNodeRef::new_unchecked("http://www.w3.org/2004/02/skos/core#altLabel");

/// What identifiers of entities and relations begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IriPrefixes {
    /// Before identifiers of a knowledge base; `None`: `urn:docre:entity:`.
    pub entity: Option<String>,
    /// Before relations; `None`: `urn:docre:relation:`.
    pub relation: Option<String>,
}

impl IriPrefixes {
    /// Refuses a prefix that begins no IRI.
    ///
    /// # Errors
    /// A recipe error that names the flag.
    pub fn check(&self) -> Result<()> {
        for (flag, prefix) in [("--entity-iri", &self.entity), ("--relation-iri", &self.relation)] {
            let Some(prefix) = prefix else { continue };
            NamedNode::new(format!("{prefix}x")).map_err(|error| {
                Error::recipe(format!("{flag} {prefix}: {error}"))
                    .with_hint("for Wikidata: http://www.wikidata.org/entity/")
            })?;
        }
        Ok(())
    }
}

/// Writes the file into a folder.
///
/// # Errors
/// The disk.
pub(super) fn write_triples(
    graph: &FactGraph,
    prefixes: &IriPrefixes,
    folder: &Path,
) -> Result<()> {
    let names = IriNames { graph, prefixes };
    write_atomic(&folder.join(TRIPLES), |out| {
        let mut put = |subject: &NamedNode, predicate: NamedNodeRef, object: Term| {
            let triple = Triple::new(subject.clone(), predicate.into_owned(), object);
            writeln!(out, "{triple} .")
        };
        for node in graph.shown_nodes() {
            let (own, node) = (names.node(node), &graph.nodes.nodes[node]);
            put(&own, rdfs::LABEL, Literal::new_simple_literal(&node.name).into())?;
            for name in node.names.iter().filter(|name| **name != node.name) {
                put(&own, OTHER_LABEL, Literal::new_simple_literal(name).into())?;
            }
            for kind in &node.types {
                put(&own, rdf::TYPE, names.own("type:", kind).into())?;
            }
        }
        for relation in graph.relations() {
            let label = Literal::new_simple_literal(graph.relation_name(relation));
            put(&names.relation(relation), rdfs::LABEL, label.into())?;
        }
        for (key, edge) in &graph.edges.kept {
            let (head, relation, tail) =
                (names.node(key.0), names.relation(&key.1), names.node(key.2));
            put(&head, relation.as_ref(), tail.clone().into())?;
            for &fact in &edge.facts {
                let stated = graph.statement(fact);
                // The same statement may carry an edge and its inverse.
                let place = format!("{}:{}:{}:{fact}", key.0, key.1, key.2);
                let own = names.own("statement:", &blake3::hash(place.as_bytes()).to_hex()[..24]);
                put(&own, rdf::TYPE, rdf::STATEMENT.into_owned().into())?;
                put(&own, rdf::SUBJECT, head.clone().into())?;
                put(&own, rdf::PREDICATE, relation.clone().into())?;
                put(&own, rdf::OBJECT, tail.clone().into())?;
                put(&own, DERIVED_FROM, names.own("document:", stated.title).into())?;
                let fact = &graph.predicted.facts[fact];
                for (name, value) in [("score", fact.score), ("confidence", fact.confidence)] {
                    let Some(value) = value else { continue };
                    let number = Literal::new_typed_literal(value.to_string(), xsd::DOUBLE);
                    put(&own, names.own(name, "").as_ref(), number.into())?;
                }
                for sentence in &stated.sentences {
                    let number = Literal::new_typed_literal(sentence.to_string(), xsd::INTEGER);
                    put(&own, names.own("sentence", "").as_ref(), number.into())?;
                }
                if !stated.text.is_empty() {
                    let text = Literal::new_simple_literal(&stated.text);
                    put(&own, names.own("text", "").as_ref(), text.into())?;
                }
            }
        }
        Ok(())
    })
}

struct IriNames<'a> {
    graph: &'a FactGraph,
    prefixes: &'a IriPrefixes,
}

impl IriNames<'_> {
    fn node(&self, number: usize) -> NamedNode {
        let node = &self.graph.nodes.nodes[number];
        match (&node.knowledge_base_id, &self.prefixes.entity) {
            (Some(id), Some(prefix)) => named(prefix, id),
            _ => self.own("entity:", &node.id),
        }
    }

    fn relation(&self, relation: &str) -> NamedNode {
        match &self.prefixes.relation {
            Some(prefix) => named(prefix, relation),
            None => self.own("relation:", relation),
        }
    }

    fn own(&self, kind: &str, name: &str) -> NamedNode {
        named(&format!("{OWN}{kind}"), name)
    }
}

/// An IRI whose last part may hold any text: what is not unreserved there (RFC 3986, 2.3) is
/// percent-encoded.
fn named(prefix: &str, name: &str) -> NamedNode {
    let mut iri = prefix.to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            iri.push(char::from(byte));
        } else {
            iri.push_str(&format!("%{byte:02X}"));
        }
    }
    NamedNode::new_unchecked(iri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_can_be_part_of_an_iri() {
        for name in ["Zürich <b>", "a/b?c#d", "50 %", "\"\n\\", "漢字", ""] {
            let iri = named("urn:docre:entity:", name);
            assert!(NamedNode::new(iri.as_str()).is_ok(), "{iri}");
        }
        assert_eq!(named("http://x/", "Q42").as_str(), "http://x/Q42");
        assert_ne!(named("u:", "a%20b"), named("u:", "a b"));
    }

    #[test]
    fn prefixes_that_begin_no_iri_are_refused() {
        let prefixes = |entity: &str| IriPrefixes { entity: Some(entity.into()), relation: None };
        assert!(prefixes("http://www.wikidata.org/entity/").check().is_ok());
        for bad in ["entity/", "http://a b/", ""] {
            let error = prefixes(bad).check().unwrap_err();
            assert!(error.to_string().contains("--entity-iri"), "{error}");
        }
    }
}
