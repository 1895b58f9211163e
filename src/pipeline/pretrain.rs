//! Stage 2: pre-train on denoised distant supervision (docs/systems.md, D.9–D.19).

use std::path::Path;

use super::model::{EncoderStart, NewModel};
use super::session::Session;
use super::training::{SaveOnly, StageRun, StageStart};
use crate::base::say;
use crate::recipe::EncoderChoice;
use crate::sampling::PretrainSampler;
use crate::shards::{DocumentStore, FactIndex, StoreOptions};
use crate::systems::dsdocre::{DsdocreSettings, Part, PretrainSource, Pretrainer};
use crate::train::Schedule;
use crate::train::{Checkpoint, RunFolder};
use crate::{Error, Result};

/// What pre-training starts from.
pub struct PretrainTask<'a> {
    /// Distant shards, scored by the ranker.
    pub distant: &'a Path,
    /// The encoder.
    pub encoder: &'a EncoderChoice,
    /// DSDocRE's dsdocre.
    pub settings: &'a DsdocreSettings,
    /// The schedule.
    pub plan: &'a Schedule,
    /// The seed.
    pub seed: u64,
    /// Whether results must not depend on the number of ranks.
    pub deterministic: bool,
    /// Go on from the last checkpoint.
    pub resume: bool,
}

/// The stage's name in the run folder.
const STAGE: &str = "pretrain";

/// Steps of pre-training, whose epochs are counted in steps.
pub fn pretrain_steps(plan: &Schedule) -> u64 {
    plan.steps.unwrap_or_else(|| ((plan.epochs * plan.steps_per_epoch as f64) as u64).max(1))
}

/// Pre-trains and returns the last checkpoint.
///
/// # Errors
/// Shards without scores, no usable document; what the data, the disk or a peer refuse.
pub fn pretrain(task: &PretrainTask, session: &Session, run: &RunFolder) -> Result<Checkpoint> {
    let start = StageStart::find(run, STAGE, task.resume)?;
    if let Some(done) = start.finished()? {
        return Ok(done);
    }
    let store = DocumentStore::open(task.distant, StoreOptions::default())?;
    session.same_shards(&store)?;
    let facts = store.fact_index()?;
    let sampler = sampler(&store, &facts, task.settings)?;
    if session.is_root() {
        let summary = sampler.summary();
        let joint = if task.settings.pretrain_limit().is_some() && summary.unranked > 0 {
            format!(" ({} of them annotated: all labels count)", summary.unranked)
        } else {
            String::new()
        };
        say(format!(
            "{STAGE}: {} documents{joint}, {} facts in two or more of them, {} instances",
            summary.documents, summary.keys, summary.instances
        ));
    }
    let (settings, seed) = (task.settings, task.seed);
    let new =
        NewModel { plan: task.encoder, start: &EncoderStart::Choice, seed, device: session.device };
    let loaded = new.dsdocre(&store, Part::Pretrainer, settings)?;
    let total_steps = pretrain_steps(task.plan);
    let mention_candidates = settings.mention_candidates;
    let source = PretrainSource {
        store: &store,
        sampler,
        views: loaded.views(seed)?,
        batch: task.plan.batch,
        budget: task.plan.tokens_per_micro_batch,
        seed,
        mention_candidates,
    };
    let mut boundary = SaveOnly::new(&loaded, run, STAGE, task.plan);
    let stage = StageRun {
        session,
        run,
        plan: task.plan,
        total_steps,
        boundary_steps: 0,
        seed,
        deterministic: task.deterministic,
        start,
    };
    let objective = Pretrainer {
        model: &loaded.model,
        distance: settings.alignment_distance,
        mention_candidates,
    };
    stage
        .train(&objective, &source, &loaded, &mut boundary)
        .map_err(|error| error.in_file(task.distant))
}

/// The sampler over scored shards, or over all labels where the settings ask for no pre-denoising.
///
/// # Errors
/// Shards without scores; no usable document.
pub fn sampler<'a>(
    store: &'a DocumentStore,
    facts: &FactIndex,
    settings: &DsdocreSettings,
) -> Result<PretrainSampler<'a>> {
    if settings.pretrain_limit().is_some() && store.manifest().scored.is_none() {
        let error = Error::recipe(format!(
            "{}: the pairs are not scored, but dsdocre.k_pretrain keeps the best ones",
            store.folder().display()
        ));
        return Err(error.with_hint(
            "run `score` on the shards first, or set dsdocre.k_pretrain = 0 \
            to pre-train without denoising",
        ));
    }
    PretrainSampler::new(store, facts, settings.pretrain_settings())
}
