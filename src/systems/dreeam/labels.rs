//! Evidence as a target: which sentences the labels of a pair name (docs/systems.md, E.3).

use std::collections::{BTreeMap, HashSet};

use super::settings::EvidenceNorm;
use crate::systems::{Example, Pair};
use crate::text::TokenizedDocument;
use crate::torch::kernels::context::{ContextTable, SpanTable, TokenRange};

/// The evidence of a batch of training visits, as sparse targets over the sums of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvidenceLabels {
    /// The pairs with evidence, and the sentences of their documents.
    pub table: SpanTable,
    /// Sum of the table that each target is for.
    pub places: Vec<i64>,
    /// Targets t > 0; those of a pair add up to 1.
    pub targets: Vec<f32>,
    /// Pairs with a relation.
    pub positive: usize,
    /// Pairs with evidence.
    pub with_evidence: usize,
}

/// How many labels of each related pair name each sentence. Evidence in sentences without tokens
/// (behind a cut) is left out.
pub fn evidence_counts(
    document: &TokenizedDocument,
    sentences: &[TokenRange],
) -> BTreeMap<Pair, Vec<u32>> {
    let mut counts: BTreeMap<Pair, Vec<u32>> = BTreeMap::new();
    for fact in &document.facts {
        let row = counts.entry((fact.head, fact.tail)).or_insert_with(|| vec![0; sentences.len()]);
        for &sentence in &fact.evidence {
            let shown = sentences.get(sentence as usize).is_some_and(|range| range.1 > 0);
            if shown {
                row[sentence as usize] += 1;
            }
        }
    }
    counts
}

impl EvidenceLabels {
    /// The labels of examples; `lengths`: tokens of their documents, `sentences`: tokens of each
    /// sentence.
    pub fn new(examples: &[Example], lengths: &[i64], sentences: &[Vec<TokenRange>]) -> Self {
        let (mut pairs, mut labels) = (ContextTable::default(), Self::default());
        let mut rows: Vec<Vec<u32>> = Vec::new();
        for ((example, &length), sentences) in examples.iter().zip(lengths).zip(sentences) {
            let mut counts = evidence_counts(&example.document, sentences);
            let asked: HashSet<Pair> = example.pairs.iter().copied().collect();
            counts.retain(|pair, _| example.train && asked.contains(pair));
            labels.positive += counts.len();
            counts.retain(|_, row| row.iter().any(|&count| count > 0));
            let (own, counted): (Vec<Pair>, Vec<_>) = counts.into_iter().unzip();
            pairs.push(length as usize, example.document.entities.len(), &own);
            rows.extend(counted);
        }
        labels.with_evidence = rows.len();
        labels.table = SpanTable::new(&pairs, sentences);
        for (row, &first) in rows.iter().zip(labels.table.first_sums()) {
            let total: u32 = row.iter().sum();
            let named = (0i64..).zip(row).filter(|(_, count)| **count > 0);
            for (sentence, &count) in named {
                labels.places.push(first + sentence);
                labels.targets.push(count as f32 / total as f32);
            }
        }
        labels
    }

    /// What the loss is divided by.
    pub fn count(&self, norm: EvidenceNorm) -> usize {
        match norm {
            EvidenceNorm::Pairs => self.positive,
            EvidenceNorm::PairsWithEvidence => self.with_evidence,
        }
    }
}
