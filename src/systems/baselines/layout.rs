//! The host half of the baselines: word tables, and which pairs are trained on.

use super::settings::{BaselineSettings, Labels};
use crate::Result;
use crate::sampling::{Purpose, UnlabelledPairs, rng};
use crate::systems::words::{Reading, WordOptions, WordTables};
use crate::systems::{Classes, Example, Foundation, Layout, NaClass, Pair, Tables};
use crate::text::TokenizedDocument;

/// Lays documents out for a [`super::Baseline`]; its tables are [`WordTables`].
pub struct BaselineLayout {
    words: WordOptions,
    pub(super) labels: Labels,
    na_per_positive: f64,
    pair_limit: usize,
    relations: usize,
}

impl BaselineLayout {
    pub(super) fn new(foundation: &Foundation, settings: &BaselineSettings) -> Self {
        let mut words = WordOptions::of(foundation, settings.long_documents);
        words.mention_types = true;
        if settings.max_words > 0 {
            words.limits.max_words = Some(settings.max_words);
            words.limits.truncate = true;
        }
        if settings.max_pieces > 0 && words.reading != Reading::Words {
            let limit = words.limits.max_pieces.unwrap_or(usize::MAX).min(settings.max_pieces);
            words.limits.max_pieces = Some(limit);
            words.limits.truncate = true;
        }
        if settings.collapse_words && words.reading == Reading::Pieces {
            words.reading = Reading::CollapsedPieces;
        }
        words.pad_documents = settings.pad_documents;
        words.weights = settings.mention_weights;
        words.coref_rows = settings.coref_rows;
        let BaselineSettings { labels, na_per_positive, pair_limit, .. } = *settings;
        Self { words, labels, na_per_positive, pair_limit, relations: foundation.relations }
    }

    pub(super) fn classes(&self) -> Classes {
        let relations = if self.labels == Labels::Existence { 1 } else { self.relations };
        Classes { relations, na: NaClass::First }
    }

    /// The NA pairs of one visit.
    fn negatives(
        &self,
        document: &TokenizedDocument,
        positives: usize,
        seed: u64,
        epoch: u64,
        row: u64,
    ) -> Vec<Pair> {
        let unlabelled = UnlabelledPairs::new(document);
        if self.labels == Labels::Relations {
            return Vec::new();
        }
        if self.na_per_positive < 0.0 {
            return unlabelled.list();
        }
        let wanted = (self.na_per_positive * positives as f64).round() as usize;
        unlabelled.draw(&mut rng(seed, Purpose::Finetune, epoch, row), wanted.min(unlabelled.len()))
    }
}

impl Layout for BaselineLayout {
    /// Labelled pairs first, as in the releases; then NA pairs, all in row-major order or as many
    /// as are drawn.
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        seed: u64,
        epoch: u64,
        row: u64,
    ) -> Result<Vec<Pair>> {
        // Labelled pairs once each, in the order of their first label.
        let mut seen = ahash::AHashSet::with_capacity(document.facts.len());
        let labelled = document.facts.iter().map(|fact| (fact.head, fact.tail));
        let mut pairs: Vec<Pair> = labelled.filter(|&pair| seen.insert(pair)).collect();
        pairs.extend(self.negatives(document, pairs.len(), seed, epoch, row));
        pairs.truncate(if self.pair_limit > 0 { self.pair_limit } else { usize::MAX });
        Ok(pairs)
    }

    /// Words or pieces, and pairs: each carries about as many numbers as the other.
    fn cost(&self, document: &TokenizedDocument, pairs: usize) -> usize {
        let length = if self.words.reading == Reading::Words {
            document.num_words()
        } else {
            document.pieces.len() + 2
        };
        length + pairs
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        Ok(Box::new(WordTables::new(&self.words, examples)?))
    }

    fn targets(&self, classes: Classes, document: &TokenizedDocument, pairs: &[Pair]) -> Vec<f32> {
        if self.labels != Labels::Existence {
            return classes.targets(document, pairs);
        }
        let unlabelled = UnlabelledPairs::new(document);
        pairs
            .iter()
            .flat_map(|&pair| if unlabelled.is_labelled(pair) { [0.0, 1.0] } else { [1.0, 0.0] })
            .collect()
    }
}
