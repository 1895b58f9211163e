//! Stage 1: the pre-denoising ranker, relation detection on human annotation (docs/systems.md, D.7;
//! Xiao et al. 2020, eq. 3).

use rand::RngExt;

use super::instances::PairInstance;
use super::model::DsdocreModel;
use super::rows::PairRows;
use super::settings::DsdocreSettings;
use crate::Result;
use crate::sampling::{
    BatchOrder, Purpose, UnlabelledPairs, VisitedRows, draw_blanked, place, rng,
};
use crate::shards::DocumentStore;
use crate::systems::{DocumentViews, PackedDocuments, visit};
use crate::text::{TokenizedDocument, ViewChoices, split_by_tokens};
use crate::torch::Parameters;
use crate::torch::nn::losses::cross_entropy_sum;
use crate::train::{BatchSource, Forward, MicroBatch, Objective, Share, StepBatches};

/// One visit of the ranker to a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RankItem {
    /// Blanked entities.
    pub choices: ViewChoices,
    /// The instances.
    pub instances: Vec<PairInstance>,
}

/// Draws a visit. Positives are drawn from the labels, so a pair with two relations is twice as
/// likely. `None` for a document without labels or without an unlabelled pair.
fn rank_item(
    document: &TokenizedDocument,
    settings: &DsdocreSettings,
    seed: u64,
    step: u64,
    item: u64,
) -> Option<RankItem> {
    let negatives = UnlabelledPairs::new(document);
    if document.facts.is_empty() || negatives.is_empty() {
        return None;
    }
    let mut stream = rng(seed, Purpose::Rank, step, item);
    let mut instance = || {
        let fact = &document.facts[stream.random_range(0..document.facts.len())];
        let others = negatives.draw(&mut stream, settings.rank_candidates.saturating_sub(1));
        let (pairs, answer) = place(&mut stream, others, (fact.head, fact.tail));
        PairInstance { pairs, answer }
    };
    let instances = (0..settings.rank_instances).map(|_| instance()).collect();
    let choices = draw_blanked(
        &mut rng(seed, Purpose::RankBlanking, step, item),
        document,
        settings.rank_blank_probability,
    );
    Some(RankItem { choices, instances })
}

/// Documents with their 6-way instances.
pub struct RankBatch {
    /// The documents.
    pub documents: PackedDocuments,
    /// All instances.
    pub rows: PairRows,
    /// Candidates an instance.
    pub width: i64,
    counts: [f64; 1],
}

impl RankBatch {
    /// A batch of given rows.
    pub fn new(documents: PackedDocuments, rows: PairRows, width: i64) -> Self {
        let counts = [rows.answers.len() as f64];
        Self { documents, rows, width, counts }
    }
}

impl MicroBatch for RankBatch {
    fn counts(&self) -> &[f64] {
        &self.counts
    }
    fn documents(&self) -> usize {
        self.documents.documents()
    }
    fn tokens(&self) -> usize {
        self.documents.tokens()
    }
}

/// Prepares ranker batches: documents with labels in a shuffled order, instances drawn anew at each
/// visit.
pub struct RankSource<'a> {
    /// Human-annotated documents.
    pub store: &'a DocumentStore,
    /// Rows of the store that can be trained on.
    pub rows: VisitedRows<'a>,
    /// Order of the rows.
    pub order: BatchOrder,
    /// Views.
    pub views: DocumentViews,
    /// How many instances, of how many candidates.
    pub settings: &'a DsdocreSettings,
    /// Token budget of a micro-batch.
    pub budget: usize,
    /// Seed of the instances.
    pub seed: u64,
}

impl BatchSource for RankSource<'_> {
    type Batch = RankBatch;

    fn prepare(&self, step: u64, share: Share) -> Result<StepBatches<RankBatch>> {
        let items = self.order.items(step);
        self.rows.read_ahead(&self.order, 0, &items);
        let batch: Vec<usize> =
            items.into_iter().map(|item| self.rows.rows().nth(item.row)).collect();
        let mut views = Vec::new();
        let mut items = Vec::new();
        for (index, &row) in batch.iter().enumerate().filter(|(index, _)| share.holds(*index)) {
            let document = &self.store.get(row);
            if let Some(item) = rank_item(document, self.settings, self.seed, step, index as u64) {
                views.push(self.views.view(document, &item.choices)?);
                items.push((item, visit(step, index)));
            }
        }
        let lengths: Vec<usize> = views.iter().map(|view| view.ids.len()).collect();
        let micro = split_by_tokens(&lengths, self.budget).into_iter().map(|range| {
            let keys: Vec<u64> = items[range.clone()].iter().map(|item| item.1).collect();
            let documents = self.views.pack(&views[range.clone()], &keys);
            let mut rows = PairRows::default();
            for (index, (item, _)) in items[range].iter().enumerate() {
                for instance in &item.instances {
                    rows.push(&instance.pairs, documents.entity_base(index), instance.answer);
                }
            }
            RankBatch::new(documents, rows, self.settings.rank_candidates as i64)
        });
        Ok(StepBatches { micro: micro.collect(), rows: batch })
    }

    fn title(&self, row: usize) -> String {
        self.store.title(row)
    }
}

/// The ranker's objective.
pub struct Ranker<'a> {
    /// Encoder and heads.
    pub model: &'a DsdocreModel,
}

impl Objective for Ranker<'_> {
    type Batch = RankBatch;

    fn slots(&self) -> &[&'static str] {
        &["RelDet"]
    }

    fn forward(&self, batch: &RankBatch, forward: Forward) -> Result<Vec<tch::Tensor>> {
        let (_, entities) = self.model.encode(&batch.documents, forward)?;
        let scores = self.model.ranking_scores(&entities, &batch.rows.heads, &batch.rows.tails)?;
        let logits = scores.f_view([-1, batch.width])?;
        Ok(vec![cross_entropy_sum(&logits, &batch.rows.answers)?])
    }

    fn parameters(&self) -> &Parameters {
        &self.model.foundation.parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::testing::{assert_proportional, assert_uniform, document, facts};

    #[test]
    fn an_instance_is_one_label_among_five_unlabelled_pairs() {
        // The pair (0, 1) has two relations, so it is drawn twice as often as the others.
        let labelled = [(0, 1), (2, 3), (4, 0)];
        let document = facts(document(6), &[(0, 1, 0), (0, 1, 1), (2, 3, 0), (4, 0, 2)]);
        let (mut slots, mut positives) = ([0; 6], [0; 3]);
        for item in 0..3000 {
            let drawn = rank_item(&document, &DsdocreSettings::default(), 1, 2, item).unwrap();
            assert_eq!(drawn.instances.len(), 3);
            for PairInstance { pairs, answer } in &drawn.instances {
                assert_eq!(pairs.len(), 6);
                for (i, pair) in pairs.iter().enumerate() {
                    assert!(pair.0 != pair.1 && !pairs[..i].contains(pair));
                    assert_eq!(labelled.contains(pair), i == *answer);
                }
                slots[*answer] += 1;
                positives[labelled.iter().position(|pair| *pair == pairs[*answer]).unwrap()] += 1;
            }
        }
        assert_uniform(&slots);
        assert_proportional(&positives, &[2.0, 1.0, 1.0]);
    }

    #[test]
    fn documents_without_labels_or_without_negatives_are_skipped() {
        let draw = |document| rank_item(&document, &DsdocreSettings::default(), 1, 1, 1);
        assert_eq!(draw(document(5)), None);
        assert_eq!(draw(document(0)), None);
        assert_eq!(draw(facts(document(2), &[(0, 1, 0), (1, 0, 0)])), None);
        let doubled = draw(facts(document(2), &[(0, 1, 0)])).unwrap();
        assert!(
            doubled.instances.iter().all(|instance| instance
                .pairs
                .iter()
                .filter(|pair| **pair == (1, 0))
                .count()
                == 5)
        );
    }

    #[test]
    fn blanking_is_a_draw_of_its_own() {
        let document = facts(document(6), &[(0, 1, 0), (2, 3, 0)]);
        let draw = |rank_blank_probability, item| {
            let settings = DsdocreSettings { rank_blank_probability, ..DsdocreSettings::default() };
            rank_item(&document, &settings, 1, 1, item).unwrap()
        };
        let mut blanked = 0;
        for item in 0..1000 {
            let (plain, half) = (draw(0.0, item), draw(0.3, item));
            assert_eq!(
                (&plain.instances, plain.choices.blanked),
                (&half.instances, vec![false; 6])
            );
            blanked += half.choices.blanked.iter().filter(|is_blank| **is_blank).count();
        }
        // 6,000 draws: five standard deviations are 0.03.
        assert!((blanked as f64 / 6000.0 - 0.3).abs() < 0.03, "{blanked}");
    }

    #[test]
    fn the_same_arguments_give_the_same_item() {
        let document = facts(document(6), &[(0, 1, 0), (2, 3, 0)]);
        let draw =
            |step, item| rank_item(&document, &DsdocreSettings::default(), 1, step, item).unwrap();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 1));
    }
}
