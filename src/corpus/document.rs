//! One document: sentences of words, entities with their mentions, and the facts that were labelled
//! on it.

use std::path::PathBuf;

use serde::Serialize;

use super::place::DocumentPlace;

/// A document in the form that every reader produces and every writer takes. Serialised as JSON, it
/// is a line of the format `jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Document {
    /// The key of the document, unique inside its corpus.
    pub title: String,
    /// Words by sentence.
    pub sentences: Vec<Vec<String>>,
    /// The entities (DocRED's `vertexSet`), in file order; facts refer to them by index.
    pub entities: Vec<Entity>,
    /// The labelled facts; `None` where the document carries no labels at all (a hidden test set),
    /// which is not the same as an empty list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Vec<Fact>>,
    /// The pairs that the corpus asks about, where it lists them (CDR, GDA, BioRED, ChemDisGene);
    /// `None` means every ordered pair. Facts are among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<Candidate>>,
    /// The file and row the document was read from.
    #[serde(skip)]
    pub provenance: Provenance,
}

/// An entity: everything the document says about one thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entity {
    /// Identifier in a knowledge base, where the source has one.
    #[serde(rename = "id", skip_serializing_if = "Option::is_none")]
    pub knowledge_base_id: Option<String>,
    /// The mentions, in file order; never empty in a checked document.
    pub mentions: Vec<Mention>,
}

impl Entity {
    /// The type of the entity, which is that of its first mention (docs/formats.md, "DocRED's
    /// JSON"); empty for an entity without mentions.
    pub fn entity_type(&self) -> &str {
        self.mentions.first().map_or("", |mention| mention.entity_type.as_str())
    }
}

/// One mention of an entity: a span of words inside one sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mention {
    /// The name as the source gives it (it can differ from the words in spacing).
    pub name: String,
    /// The sentence, from 0.
    pub sentence: usize,
    /// First word of the span, from 0 inside the sentence.
    pub start: usize,
    /// One past the last word of the span.
    pub end: usize,
    /// The entity type of this mention (`PER`, `ORG`, …).
    #[serde(rename = "type")]
    pub entity_type: String,
}

/// A labelled fact: relation `relation` holds from entity `head` to entity `tail`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Index of the head entity.
    pub head: usize,
    /// Index of the tail entity.
    pub tail: usize,
    /// Identifier of the relation in its [`RelationSet`](super::RelationSet), such as `P17`.
    pub relation: String,
    /// The sentences that support the fact; often empty.
    pub evidence: Vec<usize>,
}

/// An ordered pair that is to be classified, or that was taken out of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Candidate {
    /// Index of the head entity.
    pub head: usize,
    /// Index of the tail entity.
    pub tail: usize,
    /// The pair is neither trained on nor scored (`not_include` of the hypernym filter;
    /// docs/formats.md, "The hypernym filter"); its entities stay.
    pub excluded: bool,
}

/// Where a document was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The source file; empty for a document made in memory.
    pub file: PathBuf,
    /// Its index in that file, from 0.
    pub row: usize,
}

impl Document {
    /// Its place in its file, for errors.
    pub(crate) fn place(&self) -> DocumentPlace<'_> {
        DocumentPlace { file: &self.provenance.file, row: self.provenance.row, title: &self.title }
    }

    /// Number of words over all sentences.
    pub fn num_words(&self) -> usize {
        self.sentences.iter().map(Vec::len).sum()
    }

    /// Index of the first word of each sentence in the document, closed by the total number of
    /// words.
    pub fn sentence_starts(&self) -> Vec<usize> {
        let mut starts = Vec::with_capacity(self.sentences.len() + 1);
        let mut at = 0;
        for sentence in &self.sentences {
            starts.push(at);
            at += sentence.len();
        }
        starts.push(at);
        starts
    }

    /// The ordered pairs that are to be classified, in the order of the candidates, or row by row
    /// where there is no list.
    pub fn asked_pairs(&self) -> Vec<(usize, usize)> {
        let count = self.entities.len();
        match &self.candidates {
            Some(list) => list
                .iter()
                .filter(|pair| !pair.excluded)
                .map(|pair| (pair.head, pair.tail))
                .collect(),
            None => (0..count)
                .flat_map(|head| {
                    (0..count).filter(move |&tail| tail != head).map(move |tail| (head, tail))
                })
                .collect(),
        }
    }

    /// Whether some mention of one entity shares a sentence with one of the other (an intra pair,
    /// `NON-CROSS`).
    pub fn share_sentence(&self, head: usize, tail: usize) -> bool {
        let tails = &self.entities[tail].mentions;
        self.entities[head]
            .mentions
            .iter()
            .any(|mention| tails.iter().any(|other| other.sentence == mention.sentence))
    }

    /// The facts, or an empty slice for an unlabelled document.
    pub fn facts(&self) -> &[Fact] {
        self.facts.as_deref().unwrap_or_default()
    }
}
