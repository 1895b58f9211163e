//! The host half of DREEAM: documents as ATLOP reads them, and what the second loss needs.

use std::sync::Arc;

use super::labels::EvidenceLabels;
use super::settings::{DreeamSettings, DreeamStage};
use crate::Result;
use crate::parity::lengths;
use crate::systems::reading::{ReadingLayout, ReadingTables, labelled_first};
use crate::systems::{Example, Layout, Pair, Tables, tables};
use crate::text::TokenizedDocument;
use crate::torch::kernels::context::SpanTable;

/// The host half.
pub struct DreeamLayout {
    pub(super) reading: Arc<ReadingLayout>,
    pub(super) settings: DreeamSettings,
}

/// A batch of documents.
pub struct DreeamTables {
    /// Documents, mentions, pairs.
    pub reading: ReadingTables,
    /// What the second loss compares.
    pub second: SecondTables,
}

/// The tables of the second loss.
pub enum SecondTables {
    /// The evidence of annotated documents.
    Evidence(EvidenceLabels),
    /// All pairs and single tokens, for a teacher's attention.
    Attention(SpanTable),
}

impl Layout for DreeamLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        _seed: u64,
        _epoch: u64,
        _row: u64,
    ) -> Result<Vec<Pair>> {
        Ok(labelled_first(document))
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        let reading = self.reading.read(examples)?;
        let training = examples.iter().any(|example| example.train);
        let second = if self.settings.stage == DreeamStage::SelfTraining && training {
            SecondTables::Attention(SpanTable::of_tokens(&reading.contexts))
        } else {
            let lengths = lengths(&reading.documents.views.offsets);
            SecondTables::Evidence(EvidenceLabels::new(examples, &lengths, &reading.sentences))
        };
        Ok(Box::new(DreeamTables { reading, second }))
    }

    fn counts(&self, laid: &Tables, _targets: &[f32]) -> Option<Vec<f64>> {
        let laid: &DreeamTables = tables(laid).ok()?;
        let pairs = laid.reading.heads.len() as f64;
        Some(match &laid.second {
            SecondTables::Evidence(labels) => {
                vec![pairs, labels.count(self.settings.evidence_norm) as f64]
            }
            SecondTables::Attention(_) => vec![pairs, pairs],
        })
    }
}
