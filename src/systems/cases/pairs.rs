//! What the cases of ATLOP and DocRE-II share: comparisons of documents, pairs and states.

use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::Result;
use crate::parity::{Case, lengths, padded};
use crate::systems::cases::foundation::on_pieces;
use crate::systems::cases::head_name;
use crate::systems::reading::{ReadStates, ReadingTables, adaptive_labels, labelled_first};
use crate::systems::{Example, Extractor, Foundation, Pair, RelationBatch, relation_loss_sum};
use crate::text::{TokenizedDocument, Tokenizer, View};
use crate::train::MicroBatch;

/// The foundation of the case, with all relations of its classes but NA.
pub(crate) fn foundation(case: &Case, tokenizer: &Tokenizer) -> Result<Foundation> {
    let foundation = on_pieces(case, tokenizer, case.number("/dims/classes")? as usize - 1)?;
    case.load_shared(&foundation.parameters)?;
    Ok(foundation)
}

/// Training visits of all documents in one batch, through the system's own layout.
pub(crate) fn batch(
    system: &dyn Extractor,
    documents: &[TokenizedDocument],
) -> Result<RelationBatch> {
    let layout = system.layout();
    let examples = (0u64..).zip(documents).map(|(visit, document)| {
        let pairs = layout.training_pairs(document, 0, 0, visit)?;
        Ok(Example { document: Arc::new(document.clone()), pairs, visit, train: true })
    });
    let examples = examples.collect::<Result<Vec<_>>>()?;
    RelationBatch::new(&*layout, &examples, system.classes(), system.loss())
}

/// Step one: word pieces, lengths, entities, pairs and targets.
fn compare_documents(
    case: &mut Case,
    documents: &[TokenizedDocument],
    batch: &RelationBatch,
    tables: &ReadingTables,
) -> Result<()> {
    let views = &tables.documents.views;
    let width = case.integers("input_ids")?.1[1] as usize;
    case.compare_input("input_ids", &padded(&views.ids, &views.offsets, width))?;
    case.compare_input("lengths", &lengths(&views.offsets))?;
    let entities = documents.iter().map(|document| document.entities.len() as i64);
    case.compare_input("num_entities", &entities.collect::<Vec<_>>())?;
    let pairs = (0i64..).zip(documents).flat_map(|(index, document)| {
        let row = move |pair: Pair| [index, i64::from(pair.0), i64::from(pair.1)];
        labelled_first(document).into_iter().flat_map(row)
    });
    case.compare_input("pairs", &pairs.collect::<Vec<_>>())?;
    let targets: Vec<i64> = batch.targets.iter().map(|&target| target as i64).collect();
    case.compare_input("labels", &targets)
}

/// Positions of mentions as rows (document, entity, start, end, …) without the first piece; further
/// columns are the sentence.
pub(crate) fn compare_mentions(
    case: &mut Case,
    documents: &[TokenizedDocument],
    spans: &[Vec<Vec<(u32, u32)>>],
) -> Result<()> {
    let (reference, shape) = case.integers("mentions")?;
    // The release lists mentions behind the cut as well, and leaves them out later.
    let longest = case.integers("input_ids")?.1[1];
    let in_range = |row: &&[i64]| row[2] + 1 < longest;
    let reference: Vec<i64> =
        reference.chunks(shape[1] as usize).filter(in_range).flatten().copied().collect();
    let mut ours = Vec::new();
    for (index, (document, spans)) in (0..).zip(documents.iter().zip(spans)) {
        for (number, (entity, spans)) in (0..).zip(document.entities.iter().zip(spans)) {
            for (mention, &(start, end)) in entity.mentions.iter().zip(spans) {
                ours.extend([index, number, i64::from(start) - 1, i64::from(end)]);
                let further = shape[1] as usize - 4;
                ours.extend(std::iter::repeat_n(i64::from(mention.sentence), further));
            }
        }
    }
    case.compare_integers("mentions", &ours, &reference);
    Ok(())
}

/// States, entities, and attention of entities where they are real.
pub(crate) fn compare_read(
    case: &mut Case,
    tables: &ReadingTables,
    read: &ReadStates,
) -> Result<()> {
    let (offsets, entities) =
        (&tables.documents.views.offsets, &tables.documents.views.entity_offsets);
    case.compare_rows("sequence_output", &read.states, &lengths(offsets))?;
    case.compare("entities", &read.entities)?;
    let reference = case.output("entity_attention")?;
    let blocks = offsets.windows(2).zip(entities.windows(2)).map(|(tokens, entities)| {
        let own = reference.f_narrow(0, entities[0] as i64, (entities[1] - entities[0]) as i64)?;
        Ok(own.f_narrow(2, 0, tokens[1] - tokens[0])?.f_reshape([-1])?)
    });
    let reference = Tensor::f_cat(&blocks.collect::<Result<Vec<_>>>()?, 0)?;
    match &read.attention {
        Some(attention) => case.compare_with("entity_attention", attention, &reference),
        None => Err(case.error("no attention was computed")),
    }
}

/// What the encoder reads: one row a window.
pub(crate) fn compare_windows(case: &mut Case, laid: &ReadingTables) -> Result<()> {
    let (windows, shape) = (&laid.windows.packed, case.output("window_ids")?.size());
    let length = shape[1] as usize;
    let float = |values: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(values)?) };
    case.compare("window_ids", &float(&padded(&windows.ids, &windows.offsets, length))?)?;
    let ones = vec![1; windows.ids.len()];
    case.compare("window_mask", &float(&padded(&ones, &windows.offsets, length))?)
}

/// Word pieces, pairs, targets and mentions; `view` is how the system reads a document.
pub(crate) fn compare_inputs(
    case: &mut Case,
    documents: &[TokenizedDocument],
    batch: &RelationBatch,
    tables: &ReadingTables,
    view: impl Fn(&TokenizedDocument) -> Result<View>,
) -> Result<()> {
    compare_documents(case, documents, batch, tables)?;
    let spans = documents.iter().map(|document| Ok(view(document)?.mention_spans));
    compare_mentions(case, documents, &spans.collect::<Result<Vec<_>>>()?)
}

/// Logits, decoded labels, the loss and its gradients.
pub(crate) fn compare_training(
    case: &mut Case,
    system: &dyn Extractor,
    batch: &RelationBatch,
    logits: &Tensor,
    num_labels: usize,
) -> Result<()> {
    case.compare("logits", logits)?;
    compare_labels(case, "decoded", &adaptive_labels(logits, num_labels)?)?;
    let loss = relation_loss_sum(system.loss(), logits, &batch.targets_like(logits)?)?
        .f_div_scalar(batch.counts()[0])?;
    case.compare("loss", &loss)?;
    loss.f_backward()?;
    case.compare_gradients("grad/", system.parameters(), head_name)
}

/// Labels as integers beside the reference's.
pub(crate) fn compare_labels(case: &mut Case, name: &str, labels: &Tensor) -> Result<()> {
    let integers = |tensor: &Tensor| -> Result<Vec<i64>> {
        Ok(Vec::try_from(tensor.f_to_kind(Kind::Int64)?.f_reshape([-1])?)?)
    };
    let (ours, reference) = (integers(labels)?, integers(case.output(name)?)?);
    case.compare_integers(name, &ours, &reference);
    Ok(())
}
