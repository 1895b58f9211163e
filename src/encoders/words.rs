//! The encoder of systems that read word vectors themselves: a plain table, one state a piece, no
//! network (docs/systems.md, H.1 and B.1).
//!
//! Not for: what is put beside a word's vector and what reads it (`systems`).

use serde_json::Value;
use tch::Tensor;

use super::checks::check_positive;
use super::word_table::{Declared, OverWords, WordTable};
use super::{Encoder, EncoderFacts, EncoderKind, Pass, TokenStream, kind};
use crate::Result;
use crate::torch::Slot;
use crate::torch::nn::lookup;

/// The registry's entry.
pub(super) const WORDS: EncoderKind = EncoderKind {
    model_type: "docre-words",
    presets: &["words"],
    reads_words: true,
    create: |new, pieces, params| Ok(Box::new(Words::from(Declared::new(new, pieces, params)?))),
    load: |folder, pieces, params| {
        Ok(Box::new(Words::from(Declared::load(folder, pieces, params)?)))
    },
    size: |config| Some([config.get("hidden_size")?.as_f64()?, 1.0]),
    flops: |_, _| None,
};

impl OverWords for WordTable {
    fn table(&mut self) -> &mut WordTable {
        self
    }

    fn validate(&self) -> Result<()> {
        check_positive(
            "encoder key ",
            &[("vocab_size", self.vocab_size), ("embedding_size", self.embedding_size)],
        )
    }

    fn slots(&self, std: f64) -> Vec<Slot> {
        vec![self.slot(std)]
    }
}

/// A table of word vectors.
#[derive(Debug)]
struct Words {
    config: WordTable,
    table: Tensor,
    facts: EncoderFacts,
}

impl From<Declared<WordTable>> for Words {
    fn from(Declared { config, table, notes }: Declared<WordTable>) -> Self {
        let facts =
            EncoderFacts { contextual: false, ..EncoderFacts::new(config.embedding_size, notes) };
        Self { config, table, facts }
    }
}

impl Encoder for Words {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn encode(&self, stream: &TokenStream, _pass: &Pass) -> Result<Tensor> {
        lookup(&self.table, &stream.ids)
    }

    fn config(&self) -> Value {
        kind::to_json(&self.config, "DocreWords", WORDS.model_type)
    }
}
