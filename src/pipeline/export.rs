//! Export: a checkpoint without its optimiser, as a Hugging Face folder that is complete in itself.

use std::path::Path;

use tch::Device;

use super::model::{Description, LoadedEvidence, LoadedExtractor, LoadedModel};
use super::predict::ranker_of;
use crate::report::{CardScore, ModelCard};
use crate::systems::dsdocre::ModelKind;
use crate::systems::evidence::EvidenceSettings;
use crate::train::Checkpoint;
use crate::{Error, Result};

/// Exports a checkpoint of any stage; the ranker that a fine-tuned model needs (`named`, or where
/// the checkpoint says) goes into `ranker/`.
///
/// # Errors
/// A damaged checkpoint, a ranker that is not there, an output folder that is there already, the
/// disk.
pub fn export(checkpoint: &Path, named: Option<&Path>, output: &Path) -> Result<()> {
    if output.exists() {
        return Err(Error::recipe(format!("{} is there already", output.display()))
            .with_hint("name a new folder"));
    }
    let source = Checkpoint::open(checkpoint)?;
    let description: Description = source.description()?;
    let (kind, system) = (description.kind, description.settings.system());
    let state = source.trainer()?;
    let own = state.best.filter(|&(_, step)| step == state.step);
    let dev = own.map(|(f1, _)| CardScore {
        dataset: "development set".into(),
        split: "dev".into(),
        metric: "F1".into(),
        value: f1,
    });
    let base = description.base.as_ref();
    let mut training = vec![
        ("stage".to_owned(), state.stage.clone()),
        ("steps".to_owned(), state.step.to_string()),
    ];
    training.extend(base.map(|base| ("commit of the base model".to_owned(), base.commit.clone())));
    let card = ModelCard {
        name: format!("{system} {kind:?}").to_lowercase(),
        description: format!(
            "A {kind:?} of {} over {} relations, made by docre-pretrain.",
            system,
            description.relations.len()
        ),
        base_model: base.map_or(&description.encoder.name, |base| &base.name).clone(),
        tags: vec!["document-level relation extraction".into()],
        scores: dev.into_iter().collect(),
        training,
        usage: "docre-pretrain predict --checkpoint . --input documents.json --output result.json"
            .into(),
    };
    // Asked for first, so that nothing is left of an export that cannot be whole.
    let ranker = description
        .ranker
        .as_ref()
        .map(|recorded| ranker_of(checkpoint, named, recorded))
        .transpose()?;
    if let Some(ranker) = &ranker {
        LoadedModel::open(ranker, ModelKind::Ranker, Device::Cpu)?;
    }
    let readme = vec![("README.md".into(), card.to_markdown().into_bytes())];
    let evidence = description.settings.get::<EvidenceSettings>().is_some();
    match kind {
        ModelKind::Finetuner if evidence => {
            LoadedEvidence::open(checkpoint, Device::Cpu)?.save(output, &state, readme)?;
        }
        ModelKind::Finetuner => {
            LoadedExtractor::open(checkpoint, Device::Cpu)?.save(output, &state, readme)?;
        }
        _ => LoadedModel::open(checkpoint, kind, Device::Cpu)?.save(output, &state, readme)?,
    }
    ranker.map_or(Ok(()), |ranker| export(&ranker, None, &output.join("ranker")))
}
