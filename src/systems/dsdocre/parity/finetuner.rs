//! The fine-tuner's case.

use std::collections::HashMap;
use std::sync::Arc;

use super::shared::{compare_views, entity_offsets, padded_ids, rename, settings, view_options};
use crate::Result;
use crate::corpus::RelationSet;
use crate::parity::{Case, WEIGHTS, lengths, unpadded};
use crate::sampling::top_pairs;
use crate::systems::cases::foundation::{EVALUATION, on_pieces};
use crate::systems::cases::words::batch_loss;
use crate::systems::dsdocre::{Dsdocre, DsdocreSettings, DsdocreTables, MarkerNumbering};
use crate::systems::{Example, Extractor, Foundation, Pair, RelationBatch, tables};
use crate::text::{TokenizedDocument, Tokenizer, View, ViewOptions};

pub(super) fn finetuner(case: &mut Case) -> Result<()> {
    let relations = relations_of(case)?;
    let (documents, tokenizer) = case.documents(&relations)?;
    let documents: Vec<Arc<TokenizedDocument>> = documents.into_iter().map(Arc::new).collect();
    let chosen = kept_pairs(case, &documents)?;
    let example = |(document, pairs): (&Arc<TokenizedDocument>, &Vec<Pair>)| {
        let (document, pairs) = (Arc::clone(document), pairs.clone());
        Example { document, pairs, visit: 0, train: true }
    };
    let examples: Vec<Example> = documents.iter().zip(&chosen).map(example).collect();
    let only_kept = case.at("/switches/mark_only_kept").as_bool().unwrap_or(false);
    let own = if only_kept { MarkerNumbering::KeptEntities } else { MarkerNumbering::Entity };
    for (prefix, markers) in [("", own), ("code/", MarkerNumbering::KeptOrder)] {
        if !case.has_outputs(prefix) {
            continue;
        }
        let extractor = extractor(case, &tokenizer, relations.len(), markers)?;
        compare_finetuning(case, prefix, &extractor, &examples)?;
    }
    Ok(())
}

fn compare_finetuning(
    case: &mut Case,
    prefix: &str,
    extractor: &Dsdocre,
    examples: &[Example],
) -> Result<()> {
    let rows: Vec<usize> = (0..examples.len()).collect();
    let counts: Vec<i64> = examples.iter().map(|example| example.pairs.len() as i64).collect();
    let chosen: Vec<Vec<Pair>> = examples.iter().map(|example| example.pairs.clone()).collect();
    let view = |example: &Example| extractor.view(&example.document, &example.pairs);
    let laid: Vec<View> = examples.iter().map(view).collect::<Result<_>>()?;
    compare_pair_positions(case, &laid, &chosen, prefix)?;
    let batch =
        RelationBatch::new(&*extractor.layout(), examples, extractor.classes(), extractor.loss())?;
    if prefix.is_empty() {
        compare_views(case, &laid, &rows, "docs", "entPos")?;
        let packed = &tables::<DsdocreTables>(&batch.tables)?.documents;
        let (states, entities) = extractor.model.encode(packed, EVALUATION)?;
        case.compare_rows("hidden", &states, &lengths(&packed.views.offsets))?;
        case.compare_rows("entities", &entities, &lengths(&entity_offsets(packed)))?;
    }
    let (features, logits) = extractor.vectors_and_logits(&batch, EVALUATION)?;
    case.compare_rows(&format!("{prefix}logits"), &logits, &counts)?;
    extractor.begin_prediction()?;
    let folded = tch::no_grad(|| extractor.predict(&batch, EVALUATION))?;
    let reference = unpadded(case.output(&format!("{prefix}logits"))?, &counts)?;
    case.compare_with(&format!("{prefix}logits (folded)"), &folded, &reference)?;
    let name = format!("{prefix}argmax");
    let reference = Vec::<i64>::try_from(unpadded(case.output(&name)?, &counts)?)?;
    let ours = Vec::<i64>::try_from(logits.f_argmax(1, false)?)?;
    case.compare_integers(&name, &ours, &reference);
    let loss = batch_loss(extractor, &batch, EVALUATION)?;
    case.compare(&format!("{prefix}loss"), &loss)?;
    if prefix.is_empty() {
        let reference = unpadded(&case.input("labels")?, &counts)?;
        let ours: Vec<i64> = batch.targets.iter().map(|&target| target as i64).collect();
        case.compare_integers("labels", &ours, &Vec::<i64>::try_from(reference.f_view([-1])?)?);
        case.compare_rows("pair_features", &features, &counts)?;
        loss.f_backward()?;
        case.compare_gradients("grad/", extractor.parameters(), rename)?;
    }
    Ok(())
}

/// The fine-tuner with the case's weights, laid out as asked.
fn extractor(
    case: &Case,
    tokenizer: &Tokenizer,
    relations: usize,
    markers: MarkerNumbering,
) -> Result<Dsdocre> {
    let ViewOptions { max_pieces, truncate, .. } = view_options(case, false)?;
    let foundation = Foundation { max_pieces, truncate, ..on_pieces(case, tokenizer, relations)? };
    let extractor =
        Dsdocre::new(foundation, &DsdocreSettings { markers, ..settings(case)? }, true)?;
    case.load_weights(extractor.parameters(), WEIGHTS, rename)?;
    Ok(extractor)
}

fn relations_of(case: &Case) -> Result<RelationSet> {
    let classes: HashMap<String, u64> = case.stated("/details/label2id_with_NA_last")?;
    let mut relations: Vec<&String> = classes.keys().filter(|id| *id != "NA").collect();
    relations.sort_by_key(|id| classes[*id]);
    let mut set = RelationSet::default();
    for id in relations {
        set.insert(id, id);
    }
    Ok(set)
}

/// The pairs kept from the given score vectors, compared with the case's.
fn kept_pairs(
    case: &mut Case,
    documents: &[Arc<TokenizedDocument>],
) -> Result<Vec<Vec<(u32, u32)>>> {
    let scores = case.floats("score_vector")?;
    let stride = scores.len() / documents.len();
    let (heads, shape) = case.integers("pair_head")?;
    let (tails, _) = case.integers("pair_tail")?;
    let (mask, _) = case.integers("label_mask")?;
    let width = shape[1] as usize;
    let mut chosen = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let entities = document.entities.len();
        let own = &scores[index * stride..index * stride + document.num_pairs()];
        let kept = top_pairs(own, entities, (2 * entities).min(width));
        let pairs: Vec<(u32, u32)> = kept.iter().map(|pair| (pair.head, pair.tail)).collect();
        let valid = |values: &[i64]| -> Vec<i64> {
            let rows = index * width..(index + 1) * width;
            rows.filter(|&row| mask[row] == 1).map(|row| values[row]).collect()
        };
        let (own_heads, own_tails): (Vec<i64>, Vec<i64>) =
            pairs.iter().map(|&(head, tail)| (i64::from(head), i64::from(tail))).unzip();
        let sides = [("pair_head", &heads, own_heads), ("pair_tail", &tails, own_tails)];
        for (name, reference, ours) in sides {
            case.compare_integers(&format!("{name}[{index}]"), &ours, &valid(reference));
        }
        chosen.push(pairs);
    }
    Ok(chosen)
}

/// Positions of head and tail mentions of the kept pairs, and the ids of the release's markers.
fn compare_pair_positions(
    case: &mut Case,
    laid: &[View],
    chosen: &[Vec<Pair>],
    prefix: &str,
) -> Result<()> {
    for (name, is_head) in [("head", true), ("tail", false)] {
        let (reference, shape) = case.integers(&format!("{prefix}{name}"))?;
        let (most, width) = (shape[1] as usize, shape[2] as usize);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (index, (view, pairs)) in laid.iter().zip(chosen).enumerate() {
            for (row, pair) in pairs.iter().enumerate() {
                let list = &view.mention_positions[if is_head { pair.0 } else { pair.1 } as usize];
                ours.extend((0..width).map(|at| i64::from(*list.get(at).unwrap_or(&list[0]))));
                theirs.extend_from_slice(&reference[(index * most + row) * width..][..width]);
            }
        }
        case.compare_integers(&format!("{prefix}{name}"), &ours, &theirs);
    }
    if prefix == "code/" {
        let (reference, shape) = case.integers("code/docs")?;
        let ours: Vec<i64> =
            laid.iter().flat_map(|view| padded_ids(view, shape[1] as usize)).collect();
        case.compare_integers("code/docs", &ours, &reference);
    }
    Ok(())
}
