//! Export: a checkpoint without its optimiser, as a Hugging Face folder that is complete in itself.

use std::path::Path;

use super::model::{Description, LoadedModel};
use super::predict::ranker_of;
use crate::report::{CardScore, ModelCard};
use crate::systems::dsdocre::Part;
use crate::train::Checkpoint;
use crate::{Error, Result};

/// Exports a checkpoint of any stage; the ranker that a fine-tuned model needs goes into `ranker/`.
///
/// # Errors
/// A damaged checkpoint, an output folder that is there already, the disk.
pub fn export(checkpoint: &Path, output: &Path) -> Result<()> {
    if output.exists() {
        return Err(Error::recipe(format!("{} is there already", output.display())).with_hint("name a new folder"));
    }
    let source = Checkpoint::open(checkpoint)?;
    let description: Description = source.description()?;
    let part = description.model.part;
    let loaded = LoadedModel::open(checkpoint, part, tch::Device::Cpu)?;
    let state = source.trainer()?;
    let own = state.best.filter(|&(_, step)| step == state.step);
    let dev = own.map(|(f1, _)| CardScore { dataset: "development set".into(), split: "dev".into(), metric: "F1".into(), value: f1 });
    let card = ModelCard {
        name: format!("{} {part:?}", description.system).to_lowercase(),
        description: format!(
            "A {part:?} of {} over {} relations, made by docre-pretrain.",
            description.system,
            description.relations.len()
        ),
        base_model: description.encoder.name.clone(),
        tags: vec!["document-level relation extraction".into()],
        scores: dev.into_iter().collect(),
        training: vec![("stage".into(), state.stage.clone()), ("steps".into(), state.step.to_string())],
        usage: "docre-pretrain predict --checkpoint . --input documents.json --output result.json".into(),
        ..ModelCard::default()
    };
    loaded.save(output, &state, Vec::new(), vec![("README.md".into(), card.to_markdown().into_bytes())])?;
    if part == Part::Finetuner && description.ranker.is_some() {
        export(&ranker_of(checkpoint, None, &loaded)?, &output.join("ranker"))?;
    }
    Ok(())
}
