//! The text encoder of a recipe.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoders::EncoderSpec;

/// How a preset starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EncoderInit {
    /// Attention looks nearby from the first step.
    #[default]
    Local,
    /// BERT's own random start.
    Normal,
}

/// The text encoder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EncoderChoice {
    /// `tiny`, `mini`, `base`, `bilstm`, `words` (a table of word vectors alone), a Hugging Face
    /// folder, or a repository of the Hugging Face Hub: `ORG/NAME`, `ORG/NAME@REVISION`.
    pub name: String,
    /// Word vectors (GloVe text): the table of `bilstm`, the start of the word embeddings of a
    /// preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_vectors: Option<PathBuf>,
    /// How a preset starts.
    pub start: EncoderInit,
    /// Longest document in pieces, markers and special pieces included; the encoder's own limit
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pieces: Option<usize>,
    /// Cut longer documents instead of stopping with an error.
    pub truncate: bool,
    /// Dropout inside the encoder; negative takes the encoder's own rates.
    pub dropout: f64,
    /// Keep the encoder's weights as they start.
    pub frozen: bool,
}

impl Default for EncoderChoice {
    fn default() -> Self {
        Self {
            name: "tiny".into(),
            word_vectors: None,
            start: EncoderInit::Local,
            max_pieces: None,
            truncate: false,
            dropout: -1.0,
            frozen: false,
        }
    }
}

impl EncoderChoice {
    /// What the user should be told of the choice.
    pub fn warning(&self) -> Option<String> {
        // The name alone decides: a repository of the Hub must not be fetched to read a recipe.
        if !EncoderSpec::is_preset(&self.name) {
            let vectors = self.word_vectors.as_ref()?;
            return Some(format!(
                "warning: encoder.word_vectors = {} is not read, because `{}` has weights already",
                vectors.display(),
                self.name
            ));
        }
        // A table of word vectors from a file is meant to stay as it is.
        let random = self.name != "words" || self.word_vectors.is_none();
        (self.frozen && random).then(|| {
            format!(
                "warning: encoder.frozen = true keeps the random weights with which `{}` starts; \
                 name the folder of a trained encoder, or set encoder.frozen = false",
                self.name
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_encoder_of_random_weights_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let vectors = Some(PathBuf::from("glove.txt"));
        let path = folder.path().to_str().unwrap();
        for (name, word_vectors, frozen, warned) in [
            ("tiny", &None, true, true),
            ("tiny", &None, false, false),
            ("bilstm", &vectors, true, true),
            ("words", &None, true, true),
            ("words", &vectors, true, false),
            (path, &None, true, false),
            (path, &vectors, false, true),
            ("org/name", &None, true, false),
        ] {
            let word_vectors = word_vectors.clone();
            let choice = EncoderChoice {
                name: name.into(),
                word_vectors,
                frozen,
                ..EncoderChoice::default()
            };
            assert_eq!(choice.warning().is_some(), warned, "{name} {frozen}");
        }
    }

    #[test]
    fn the_warning_is_among_the_notes_of_a_recipe() {
        let settings = ["encoder.frozen=true".to_owned()];
        let recipe = crate::recipe::Recipe::parse("", "test", &settings).unwrap();
        assert!(recipe.notes[0].starts_with("warning: encoder.frozen"), "{:?}", recipe.notes);
    }
}
