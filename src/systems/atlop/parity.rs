//! The ATLOP case: windows, entities and their attention, contexts, pair vectors, logits, loss,
//! labels and gradients.

use tch::Tensor;

use crate::Result;
use crate::parity::{Case, WEIGHTS, padded};
use crate::systems::atlop::{Atlop, AtlopSettings};
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::head_name;
use crate::systems::cases::pairs::{
    batch, compare_documents, compare_labels, compare_mentions, compare_read, foundation, relations,
};
use crate::systems::reading::{ReadingTables, adaptive_labels};
use crate::systems::{Extractor, Profile, relation_loss_sum, tables};
use crate::train::MicroBatch;

fn settings(case: &Case) -> Result<AtlopSettings> {
    Ok(AtlopSettings {
        emb_size: case.number("/dims/emb_size")?,
        block_size: case.number("/dims/block_size")?,
        num_labels: case.number("/switches/num_labels")? as usize,
        ..AtlopSettings::of(Profile::Code)
    })
}

pub(crate) fn atlop(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&relations(case)?)?;
    let settings = settings(case)?;
    let system = Atlop::new(foundation(case, &tokenizer)?, settings.clone())?;
    case.load_weights(system.parameters(), WEIGHTS, head_name)?;
    let batch = batch(&system, &documents)?;
    let laid: &ReadingTables = tables(&batch.tables)?;
    compare_documents(case, &documents, &batch, laid)?;
    let spans = documents
        .iter()
        .map(|document| Ok(system.view(document)?.mention_spans))
        .collect::<Result<Vec<_>>>()?;
    compare_mentions(case, &documents, &spans)?;
    compare_windows(case, laid)?;

    let pairs = system.pairs(laid, EVALUATION)?;
    compare_read(case, laid, &pairs.read)?;
    for (name, ours) in [
        ("context", pairs.context.as_ref()),
        ("head_feature", Some(&pairs.heads)),
        ("tail_feature", Some(&pairs.tails)),
    ] {
        let ours = ours.ok_or_else(|| case.error(format!("`{name}` was not computed")))?;
        case.compare(name, ours)?;
    }
    let logits = system.classify(&pairs, EVALUATION)?;
    case.compare("logits", &logits)?;
    compare_labels(case, "decoded", &adaptive_labels(&logits, settings.num_labels)?)?;
    let loss = relation_loss_sum(system.loss(), &logits, &batch.targets_like(&logits)?)?
        .f_div_scalar(batch.counts()[0])?;
    case.compare("loss", &loss)?;
    loss.f_backward()?;
    case.compare_gradients("grad/", system.parameters(), head_name)
}

/// What the encoder reads: one row a window.
fn compare_windows(case: &mut Case, laid: &ReadingTables) -> Result<()> {
    let (windows, shape) = (&laid.windows.packed, case.output("window_ids")?.size());
    let length = shape[1] as usize;
    let float = |values: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(values)?) };
    case.compare("window_ids", &float(&padded(&windows.ids, &windows.offsets, length))?)?;
    let ones = vec![1; windows.ids.len()];
    case.compare("window_mask", &float(&padded(&ones, &windows.offsets, length))?)
}
