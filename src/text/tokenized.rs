//! A document as a shard stores it: word pieces, spans in document words, facts in relation
//! classes.

use serde::{Deserialize, Serialize};

/// A tokenised document. Word pieces carry no special tokens and no markers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizedDocument {
    /// The key of the document.
    pub title: String,
    /// The words themselves; empty where the reader was not asked for them (training never needs
    /// them).
    pub words: Vec<String>,
    /// Word pieces of all words, in order.
    pub pieces: Vec<u32>,
    /// Index of the first piece of each word, closed by `pieces.len()`; [words + 1]. A word can
    /// have no piece (a lone U+00A0).
    pub word_starts: Vec<u32>,
    /// Index of the first word of each sentence, closed by the number of words; [sentences + 1].
    pub sentence_starts: Vec<u32>,
    /// The entities, in the order of the source.
    pub entities: Vec<TokenizedEntity>,
    /// Facts in relation classes.
    pub facts: Vec<TokenizedFact>,
    /// Whether the source had labels at all.
    pub labelled: bool,
    /// The pairs that the corpus asks about, where it lists them; `None` means every ordered pair.
    pub candidates: Option<Vec<TokenizedCandidate>>,
    /// The pairs kept by the ranker, best first; `None` before `score`.
    pub kept: Option<Vec<ScoredPair>>,
    /// What a teacher says of pairs, in order of head and tail; `None` before `teach`.
    pub taught: Option<Vec<TaughtPair>>,
    /// The teacher's logits of all pairs that the document asks about, in their order; [P × C] as
    /// the bits of 16-bit floats; `None` where they were not asked for.
    pub teacher_logits: Option<Vec<u16>>,
}

/// An entity of a tokenised document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizedEntity {
    /// Entity type, such as `PER`: that of its first mention.
    pub entity_type: String,
    /// Mentions in the order of the source; never empty.
    pub mentions: Vec<TokenizedMention>,
}

/// A mention as a span of document words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizedMention {
    /// The name as the source gives it.
    pub name: String,
    /// Sentence, from 0.
    pub sentence: u32,
    /// First word, counted from the start of the document.
    pub start: u32,
    /// One past the last word.
    pub end: u32,
    /// Its type, where that is another than its entity's.
    pub own_type: Option<String>,
}

impl TokenizedEntity {
    /// The type of one of its mentions.
    pub fn type_of<'a>(&'a self, mention: &'a TokenizedMention) -> &'a str {
        mention.own_type.as_deref().unwrap_or(&self.entity_type)
    }
}

/// A fact with its relation as a class of the manifest's relation set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizedFact {
    /// Index of the head entity.
    pub head: u32,
    /// Index of the tail entity.
    pub tail: u32,
    /// Relation class, 0-based, without NA.
    pub relation: u32,
    /// Supporting sentences.
    pub evidence: Vec<u32>,
}

/// An ordered pair that is to be classified, or that was taken out of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenizedCandidate {
    /// Index of the head entity.
    pub head: u32,
    /// Index of the tail entity.
    pub tail: u32,
    /// The pair is neither trained on nor scored.
    pub excluded: bool,
}

/// An ordered pair with its ranking score s_n (DSDocRE, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScoredPair {
    /// Index of the head entity.
    pub head: u32,
    /// Index of the tail entity.
    pub tail: u32,
    /// The ranker's score; higher means "more likely related".
    pub score: f32,
}

/// What a teacher says of an ordered pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaughtPair {
    /// Index of the head entity.
    pub head: u32,
    /// Index of the tail entity.
    pub tail: u32,
    /// The likely relations and all that have a label, in class order.
    pub relations: Vec<TaughtRelation>,
    /// How much of the pair's attention lies in each sentence, in units of 1/255; empty for a
    /// teacher that does not attend.
    pub evidence: Vec<u8>,
    /// The tokens that hold most of the pair's attention: positions in the encoded document, its
    /// first special piece at 0; empty where they were not asked for.
    pub tokens: Vec<u16>,
    /// Their shares of the attention, in units of 1/65535.
    pub weights: Vec<u16>,
}

/// A relation of a taught pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaughtRelation {
    /// Relation class.
    pub relation: u16,
    /// Its probability, in units of 1/65535.
    pub probability: u16,
    /// Whether the teacher predicts it.
    pub predicted: bool,
    /// Standard deviation of its logit over several passes, in units of 1/1024; 0 for one pass.
    pub deviation: u16,
}

impl TaughtRelation {
    /// Units of the deviation in 1.
    pub const DEVIATION_UNITS: f32 = 1024.0;

    /// The probability, from 0 to 1.
    pub fn probability(self) -> f64 {
        f64::from(self.probability) / f64::from(u16::MAX)
    }

    /// A probability in the units of the store, rounded to the nearest.
    pub fn units(probability: f64) -> u16 {
        (probability.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16
    }
}

impl TokenizedDocument {
    /// Number of ordered pairs (i, j), i ≠ j.
    pub fn num_pairs(&self) -> usize {
        self.entities.len() * self.entities.len().saturating_sub(1)
    }

    /// Number of words.
    pub fn num_words(&self) -> usize {
        self.word_starts.len().saturating_sub(1)
    }
}

impl AsRef<Self> for TokenizedDocument {
    fn as_ref(&self) -> &Self {
        self
    }
}
