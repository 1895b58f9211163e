//! The settings of HIN, one for each point that the paper leaves open and each row of its ablation
//! table (docs/systems.md, "H. HIN").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::systems::{BertMode, LongDocuments, Profile};

/// Settings of HIN; the defaults are those of the profile `fixed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HinSettings {
    /// Whether a text encoder is frozen or fine-tuned. Word vectors are always frozen.
    pub bert_mode: BertMode,
    /// Width that the states of a text encoder are mapped to by one trained linear map; word
    /// vectors are taken as they are (100).
    pub word_width: i64,
    /// Width d_t of the entity-type embedding (20).
    pub type_width: i64,
    /// Width d_c of the coreference embedding (20).
    pub coreference_width: i64,
    /// Rows of the coreference table, one more than the most entities of a document (512).
    pub coreference_rows: i64,
    /// Width of the distance embedding (20).
    pub distance_width: i64,
    /// Width of an LSTM state, per direction (128).
    pub lstm_hidden: i64,
    /// Whether every BiLSTM is followed by a linear map to `lstm_hidden` and a ReLU, as in the
    /// DocRED BiLSTM (docs/systems.md, B.3); d is then `lstm_hidden`, else twice that.
    pub project: bool,
    /// Number K of latent spaces (2; docs/systems.md, H.4).
    pub spaces: usize,
    /// Width k of a latent space; `None`: d / K (docs/systems.md, H.4).
    pub space_width: Option<i64>,
    /// The translation term E_b − E_a (docs/systems.md, H.5; ablation row 1).
    pub translation: bool,
    /// The bi-affine term E_aᵀ R E_b (docs/systems.md, H.5; ablation row 2).
    pub bilinear: bool,
    /// The projections into latent spaces (docs/systems.md, H.4; ablation row 3); without them the
    /// entity vectors are used as they are, once.
    pub multi_space: bool,
    /// The inference of each sentence with the pair (docs/systems.md, H.9; ablation row 4); without
    /// it the sentence vectors are used.
    pub sentence_inference: bool,
    /// The hierarchy of sentences (docs/systems.md, H.7–H.11; ablation row 5); without it the mean
    /// over a BiLSTM's states stands for the document.
    pub hierarchy: bool,
    /// Whether "no relation" is a class of the loss (docs/systems.md, H.12).
    pub na_class: bool,
    /// Rate of the locked dropout on the input of every BiLSTM, and of the dropout after G_e and
    /// G_s (0.2).
    pub dropout: f64,
    /// Documents with more pieces than a text encoder has positions: `windows` or `cut` (the paper:
    /// at most 512 pieces).
    pub long_documents: LongDocuments,
    /// Most words of a document; the rest is cut (DocRED's code base: 512). `None`: no limit but
    /// the encoder's.
    pub max_words: Option<usize>,
}

impl Default for HinSettings {
    fn default() -> Self {
        Self::of(Profile::Fixed)
    }
}

impl HinSettings {
    /// The settings of a profile. There is no release: `code` stands for the DocRED code base, in
    /// which the paper's tables were made, so it differs from `paper` only in cutting documents at
    /// 512 words; `fixed` fine-tunes a text encoder, which the paper's results suggest.
    pub fn of(profile: Profile) -> Self {
        Self {
            bert_mode: if profile == Profile::Fixed {
                BertMode::Finetune
            } else {
                BertMode::Frozen
            },
            word_width: 100,
            type_width: 20,
            coreference_width: 20,
            coreference_rows: 512,
            distance_width: 20,
            lstm_hidden: 128,
            project: false,
            spaces: 2,
            space_width: None,
            translation: true,
            bilinear: true,
            multi_space: true,
            sentence_inference: true,
            hierarchy: true,
            na_class: true,
            dropout: 0.2,
            long_documents: LongDocuments::of(profile),
            max_words: (profile == Profile::Code).then_some(512),
        }
    }

    /// Width d of states, entities, sentences and pairs.
    pub fn width(&self) -> i64 {
        if self.project { self.lstm_hidden } else { 2 * self.lstm_hidden }
    }

    /// Width k of a latent space.
    pub fn latent_width(&self) -> i64 {
        if self.multi_space {
            self.space_width.unwrap_or(self.width() / self.spaces.max(1) as i64)
        } else {
            self.width()
        }
    }

    /// Number of latent spaces that are built.
    pub fn latent_spaces(&self) -> usize {
        if self.multi_space { self.spaces } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::SystemSettings;

    #[test]
    fn widths_follow_the_paper() {
        let settings = HinSettings::of(Profile::Paper);
        assert_eq!(
            (settings.width(), settings.latent_width(), settings.latent_spaces()),
            (256, 128, 2)
        );
        let projected = HinSettings { project: true, multi_space: false, ..settings };
        assert_eq!(
            (projected.width(), projected.latent_width(), projected.latent_spaces()),
            (128, 128, 1)
        );
    }

    #[test]
    fn bad_values_are_named() {
        for profile in [Profile::Paper, Profile::Code, Profile::Fixed] {
            HinSettings::of(profile).check().unwrap();
        }
        let bad = [
            HinSettings { spaces: 0, ..HinSettings::default() },
            HinSettings { lstm_hidden: -1, ..HinSettings::default() },
            HinSettings { spaces: 1000, ..HinSettings::default() },
            HinSettings { dropout: 1.0, ..HinSettings::default() },
        ];
        for (settings, key) in bad.iter().zip(["spaces", "lstm_hidden", "space_width", "dropout"]) {
            assert!(settings.check().unwrap_err().to_string().contains(key), "{key}");
        }
    }
}
