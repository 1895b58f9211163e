//! Stage 2: pre-train on denoised distant supervision (docs/systems.md, D.9–D.19).

use std::path::Path;

use super::rules::{RuleCounts, RuledDocuments, rules_of};
use super::training::{ActiveRun, StageSteps, TrainingStage};
use crate::base::say;
use crate::systems::dsdocre::{
    DsdocreSettings, ModelKind, PretrainSampler, PretrainSource, Pretrainer,
};
use crate::train::{Checkpoint, Schedule};
use crate::{Error, Result};

/// How documents are pre-trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pretraining {
    /// On the pairs that the settings keep of a ranker's: stage `pretrain`.
    Denoised,
    /// On all pairs, whatever the settings say: stage `pretrain-unranked`.
    Unranked,
    /// On all pairs, with the labels that the rules leave of those that a teacher has judged: stage
    /// `pretrain-taught`.
    Taught,
}

impl Pretraining {
    const ALL: [Self; 3] = [Self::Denoised, Self::Unranked, Self::Taught];

    /// The name of its stage.
    pub fn stage(self) -> &'static str {
        match self {
            Self::Denoised => "pretrain",
            Self::Unranked => "pretrain-unranked",
            Self::Taught => "pretrain-taught",
        }
    }

    /// The one whose stage has this name.
    pub fn of_stage(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.stage() == name)
    }

    /// DSDocRE's settings in that stage.
    pub fn settings(self, settings: &DsdocreSettings) -> DsdocreSettings {
        match self {
            Self::Denoised => settings.clone(),
            Self::Unranked | Self::Taught => settings.without_ranker(),
        }
    }
}

/// Pre-trains on distant shards, with scores where pairs are kept, and returns the last checkpoint.
///
/// # Errors
/// Shards without scores, no usable document; errors of the data, the disk or another rank.
pub fn pretrain(run: &ActiveRun, shards: &Path, how: Pretraining) -> Result<Checkpoint> {
    let (schedule, seed) = (&run.recipe.pretrain, run.recipe.seed);
    let stage = TrainingStage { name: how.stage(), schedule, run };
    let start = stage.start()?;
    if let Some(done) = start.finished()? {
        return Ok(done);
    }
    let store = stage.open(shards)?;
    let settings = &how.settings(run.recipe.settings_of()?);
    let rules = rules_of(&store, &run.recipe.distant)?;
    if let Some(rules) = rules.as_ref().filter(|_| run.session.is_root()) {
        say(format!("{}: {}", stage.name, RuleCounts::of(&store, rules)));
    }
    let documents = RuledDocuments::new(&store, rules);
    let sampler = sampler(&documents, (seed, schedule.batch), settings)?;
    if run.session.is_root() {
        say(format!("{}: {}", stage.name, sampler.summary()));
    }
    let mixture = sampler.windows_key();
    let loaded = stage.new_model(None).dsdocre(&store, ModelKind::Pretrainer, settings)?;
    let source = PretrainSource {
        store: &store,
        sampler,
        views: loaded.views(seed)?,
        batch: schedule.batch,
        budget: schedule.token_budget(run.session.device),
        seed,
    };
    let pretrainer = Pretrainer { model: &loaded.model, settings };
    let (total, items) = (pretrain_steps(schedule), schedule.batch);
    let steps = StageSteps { total, boundary: 0, items, mixture };
    stage
        .train(&start, steps, (&pretrainer, &source), &loaded, &mut stage.save_only(&loaded))
        .map_err(|error| error.in_file(shards))
}

/// Steps of pre-training, whose epochs are counted in steps.
pub fn pretrain_steps(schedule: &Schedule) -> u64 {
    schedule
        .steps
        .unwrap_or_else(|| ((schedule.epochs * schedule.steps_per_epoch as f64) as u64).max(1))
}

/// The sampler over scored shards, or over all labels where the settings ask for no pre-denoising;
/// for steps of `batch` items, of documents that do not fit into memory together.
///
/// # Errors
/// Shards without scores; no usable document.
pub fn sampler<'a>(
    documents: &'a RuledDocuments<'_>,
    (seed, batch): (u64, usize),
    settings: &DsdocreSettings,
) -> Result<PretrainSampler<'a>> {
    let store = documents.store;
    if settings.k_pretrain().is_some() && store.manifest().scored.is_none() {
        let error = Error::recipe(format!(
            "{}: the pairs are not scored, but dsdocre.k_pretrain keeps the best ones",
            store.folder().display()
        ));
        return Err(error.with_hint(
            "run `score` on the shards first, or set dsdocre.k_pretrain = 0 \
            to pre-train without denoising",
        ));
    }
    if !store.is_held() {
        return PretrainSampler::in_windows(documents, store, (seed, batch), settings.clone());
    }
    let facts = store.fact_index()?;
    let keys = (0..facts.num_keys()).map(|key| facts.instances(key));
    PretrainSampler::new(documents, keys, settings.clone())
}
