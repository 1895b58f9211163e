//! The ranker's case.

use super::shared::{IndexRows, PairIndices, compare_views, entity_offsets, model, rename, views};
use crate::Result;
use crate::corpus::RelationSet;
use crate::parity::{Case, lengths};
use crate::sampling::ordered_pairs;
use crate::systems::PackedDocuments;
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::total_loss;
use crate::systems::dsdocre::{ModelKind, PairRows, RankBatch, Ranker};
use crate::text::{TokenizedDocument, View, ViewChoices};
use crate::train::{MicroBatch, Objective};

pub(super) fn ranker(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&RelationSet::default())?;
    let loaded = model(case, ModelKind::Ranker, &tokenizer)?;
    let objective = Ranker { model: &loaded };
    let rows: Vec<usize> = (0..documents.len()).collect();
    for padded in [false, true] {
        if padded && !case.has_outputs("code/") {
            continue;
        }
        let views_of = views(case, tokenizer.special().clone(), padded)?;
        let laid: Vec<View> = documents
            .iter()
            .map(|document| views_of.view(document, &ViewChoices::default()))
            .collect::<Result<_>>()?;
        let packed = views_of.pack(&laid, &vec![0; laid.len()]);
        let (heads, tails) = all_pairs(&documents, &packed);
        let (states, entities) = loaded.encode(&packed, EVALUATION)?;
        let prefix = if padded { "code/" } else { "" };
        let scores = loaded.ranking_scores(&entities, &heads, &tails)?;
        let pairs: Vec<i64> =
            documents.iter().map(|document| document.num_pairs() as i64).collect();
        case.compare_rows(&format!("{prefix}scores"), &scores, &pairs)?;
        if !padded {
            compare_views(case, &laid, &rows, "doc", "entPos")?;
            case.compare_rows("hidden", &states, &lengths(&packed.views.offsets))?;
            case.compare_rows("entities", &entities, &lengths(&entity_offsets(&packed)))?;
            let features = loaded.heads.relation.forward(&entities, &heads, &tails)?;
            case.compare_rows("pair_features", &features, &pairs)?;
        }
        let batch = rank_batch(case, packed)?;
        let instances = loaded.ranking_scores(&entities, &batch.rows.heads, &batch.rows.tails)?;
        case.compare(&format!("{prefix}instance_scores"), &instances)?;
        let loss = total_loss(&objective.forward(&batch, EVALUATION)?, batch.counts())?;
        case.compare(&format!("{prefix}loss"), &loss)?;
        if !padded {
            loss.f_backward()?;
            case.compare_gradients("grad/", &loaded.foundation.parameters, rename)?;
        }
    }
    Ok(())
}

/// All ordered pairs of all documents, as entity rows.
fn all_pairs(documents: &[TokenizedDocument], packed: &PackedDocuments) -> (Vec<i64>, Vec<i64>) {
    let mut rows = PairRows::default();
    for (index, document) in documents.iter().enumerate() {
        rows.extend_pairs(
            &ordered_pairs(document.entities.len()).collect::<Vec<_>>(),
            packed.entity_base(index),
        );
    }
    (rows.heads, rows.tails)
}

fn rank_batch(case: &Case, packed: PackedDocuments) -> Result<RankBatch> {
    let pairs = PairIndices::new(case, "rankh", "rankt")?;
    let answers = IndexRows::scalars(case, "ranklabel")?;
    let mut rows = PairRows::default();
    for (row, document, answer) in answers.asked() {
        rows.push(&pairs.row(row), packed.entity_base(document), answer as usize);
    }
    Ok(RankBatch::new(packed, rows, pairs.0.width as i64))
}
