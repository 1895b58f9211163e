//! ELECTRA (Clark et al. 2020): BERT whose embeddings may be narrower than its states, with a
//! linear map between them. Discriminators and generators alike; there is no pooler.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::EncoderKind;
use super::bert::{self, BertKeys};
use super::transformer::{Dimensions, EmbeddingPlan, EncoderNetwork, Family, Projection, kind};
use crate::Result;
use crate::torch::{Parameters, Slot};

/// ELECTRA.
pub(super) enum Electra {}

/// The registry's entry.
pub(super) const ELECTRA: EncoderKind =
    kind::<Electra>(&["electra-tiny", "electra-mini", "electra-base"]);

/// The keys of Hugging Face's `ElectraConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ElectraKeys {
    #[serde(flatten)]
    bert: BertKeys,
    /// Width of the embeddings.
    embedding_size: i64,
}

impl ElectraKeys {
    fn embeddings(&self) -> EmbeddingPlan {
        let outputs = self.bert.hidden_size;
        let projection =
            Projection { name: "embeddings_project", outputs, biased: true, before_norm: false };
        EmbeddingPlan {
            width: self.embedding_size,
            projection: (self.embedding_size != outputs).then_some(projection),
            ..self.bert.embeddings(None)
        }
    }
}

impl Family for Electra {
    type Keys = ElectraKeys;
    const MODEL_TYPE: &'static str = "electra";
    const ARCHITECTURE: &'static str = "ElectraModel";
    const COUNTS: &'static [&'static str] = &["type_vocab_size", "embedding_size"];

    fn assumed() -> Value {
        let mut assumed = bert::assumed();
        assumed["embedding_size"] = json!(128);
        assumed
    }

    fn preset(size: [i64; 3], pieces: i64) -> Value {
        let mut config = bert::preset(size, pieces);
        config["embedding_size"] = json!(size[1]);
        config["pad_token_id"] = json!(0);
        config
    }

    fn dimensions(keys: &ElectraKeys) -> Dimensions {
        keys.bert.dimensions(None)
    }

    fn check(keys: &ElectraKeys) -> Result<()> {
        keys.bert.check()
    }

    fn set_positions(keys: &mut ElectraKeys, rows: i64) {
        keys.bert.max_position_embeddings = rows;
    }

    fn slots(keys: &ElectraKeys) -> Result<Vec<Slot>> {
        Ok(keys.bert.stack(keys.embeddings())?.slots())
    }

    fn network(keys: &ElectraKeys, params: &Parameters) -> Result<EncoderNetwork> {
        keys.bert.stack(keys.embeddings())?.plain_network(params)
    }

    fn start_local(keys: &ElectraKeys, params: &Parameters) -> Result<bool> {
        keys.bert.stack(keys.embeddings())?.start_local(params)
    }
}
