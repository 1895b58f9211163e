//! One predicted fact, as files and answers hold it.
//!
//! Not for: files of predictions (`predictions`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// One predicted fact. "No relation" is never predicted explicitly. Other fields of a file are
/// passed over, as DocRED's scorer does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Title of the document.
    pub title: String,
    /// Index of the head entity.
    pub h_idx: usize,
    /// Index of the tail entity.
    pub t_idx: usize,
    /// Identifier of the relation.
    pub r: String,
    /// Supporting sentences; empty where the system gives none.
    #[serde(default)]
    pub evidence: Vec<usize>,
    /// The system's score of the fact, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The calibrated probability of the fact, if the system has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

impl Prediction {
    /// Its fields in the order of a file, without the title.
    ///
    /// # Errors
    /// [`Error::Bug`] if it cannot be written as JSON.
    pub fn untitled(&self) -> Result<Map<String, Value>> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut fields)) => {
                fields.shift_remove("title");
                Ok(fields)
            }
            other => Err(Error::Bug(format!("a prediction became {other:?}"))),
        }
    }
}
