//! The ATLOP case: windows, entities and their attention, contexts, pair vectors, logits, loss,
//! labels and gradients.

use crate::Result;
use crate::parity::{Case, WEIGHTS};
use crate::systems::atlop::{Atlop, AtlopSettings};
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::head_name;
use crate::systems::cases::pairs::{
    batch, compare_inputs, compare_read, compare_training, compare_windows, foundation,
};
use crate::systems::reading::ReadingTables;
use crate::systems::{Extractor, Profile, tables};

fn settings(case: &Case) -> Result<AtlopSettings> {
    Ok(AtlopSettings {
        emb_size: case.number("/dims/emb_size")?,
        block_size: case.number("/dims/block_size")?,
        num_labels: case.number("/switches/num_labels")? as usize,
        ..AtlopSettings::of(Profile::Code)
    })
}

pub(crate) fn atlop(case: &mut Case) -> Result<()> {
    let (documents, tokenizer) = case.documents(&case.relations()?)?;
    let settings = settings(case)?;
    let system = Atlop::new(foundation(case, &tokenizer)?, settings.clone())?;
    case.load_weights(system.parameters(), WEIGHTS, head_name)?;
    let batch = batch(&system, &documents)?;
    let laid: &ReadingTables = tables(&batch.tables)?;
    compare_inputs(case, &documents, &batch, laid, |document| system.view(document))?;
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
    compare_training(case, &system, &batch, &logits, settings.num_labels)
}
