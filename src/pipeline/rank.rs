//! Stage 1: train the pre-denoising ranker on human annotation (docs/systems.md, D.7; Xiao et al.
//! 2020, eq. 3).

use std::path::Path;

use super::model::{EncoderStart, NewModel};
use super::session::Session;
use super::training::{SaveOnly, StageRun, StageStart, total_steps};
use crate::recipe::EncoderChoice;
use crate::sampling::BatchOrder;
use crate::shards::{DocumentStore, StoreOptions};
use crate::systems::dsdocre::{DsdocreSettings, Part, RankSource, Ranker};
use crate::train::Schedule;
use crate::train::{Checkpoint, RunFolder};
use crate::{Error, Result};

/// What the ranker is trained from.
pub struct RankTask<'a> {
    /// Human-annotated shards.
    pub train: &'a Path,
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
const STAGE: &str = "rank";

/// Trains the ranker and returns its last checkpoint.
///
/// # Errors
/// No document to train on; what the data, the disk or a peer refuse.
pub fn rank(task: &RankTask, session: &Session, run: &RunFolder) -> Result<Checkpoint> {
    let start = StageStart::find(run, STAGE, task.resume)?;
    if let Some(done) = start.finished()? {
        return Ok(done);
    }
    let store = DocumentStore::open(task.train, StoreOptions::default())?;
    session.same_shards(&store)?;
    let trainable =
        |row: &usize| !store.get(*row).facts.is_empty() && store.get(*row).entities.len() > 1;
    let rows: Vec<usize> = (0..store.len()).filter(trainable).collect();
    if rows.is_empty() {
        return Err(Error::recipe(format!(
            "{}: no document has a label to train the ranker on",
            task.train.display()
        )));
    }
    let (settings, seed) = (task.settings, task.seed);
    let new =
        NewModel { plan: task.encoder, start: &EncoderStart::Choice, seed, device: session.device };
    let loaded = new.dsdocre(&store, Part::Ranker, settings)?;
    let total_steps = total_steps(task.plan, rows.len());
    let source = RankSource {
        order: BatchOrder::new(rows.len(), seed, task.plan.batch)?,
        store: &store,
        rows,
        views: loaded.views(seed)?,
        settings: settings.rank_settings(),
        budget: task.plan.tokens_per_micro_batch,
        seed,
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
    stage
        .train(&Ranker { model: &loaded.model }, &source, &loaded, &mut boundary)
        .map_err(|error| error.in_file(task.train))
}
