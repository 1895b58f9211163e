//! Stage 1: train the pre-denoising ranker on human annotation (docs/systems.md, D.7; Xiao et al.
//! 2020, eq. 3).

use std::path::Path;

use super::training::{ActiveRun, StageSteps, TrainingStage, total_steps};
use crate::sampling::{BatchOrder, SourceVisits, VisitedRows};
use crate::systems::dsdocre::{ModelKind, RankSource, Ranker};
use crate::train::Checkpoint;
use crate::{Error, Result};

/// Trains the ranker on human-annotated shards and returns its last checkpoint.
///
/// # Errors
/// If no document can be trained on; errors of the data, the disk or another rank.
pub fn rank(run: &ActiveRun, shards: &Path) -> Result<Checkpoint> {
    let (schedule, seed) = (&run.recipe.rank, run.recipe.seed);
    let stage = TrainingStage { name: "rank", schedule, run };
    let start = stage.start()?;
    if let Some(done) = start.finished()? {
        return Ok(done);
    }
    let store = stage.open(shards)?;
    let rows = VisitedRows::choose(&store, |row| {
        let document = store.get(row);
        !document.facts.is_empty() && document.entities.len() > 1
    });
    let documents = rows.rows().len();
    if documents == 0 {
        return Err(Error::recipe(format!(
            "{}: no document has a label to train the ranker on",
            shards.display()
        )));
    }
    let visits = SourceVisits::weighted(documents, 1.0);
    let order = BatchOrder::in_windows(&[visits], vec![rows.windows()], seed, schedule.batch)?;
    let steps = StageSteps {
        total: total_steps(schedule, documents),
        boundary: 0,
        items: schedule.batch.min(documents),
        mixture: order.mixture_key(),
    };
    let settings = run.recipe.settings_of()?;
    let loaded = stage.new_model(None).dsdocre(&store, ModelKind::Ranker, settings)?;
    let source = RankSource {
        order,
        store: &store,
        rows,
        views: loaded.views(seed)?,
        settings,
        budget: schedule.token_budget(run.session.device),
        seed,
    };
    let ranker = Ranker { model: &loaded.model };
    stage
        .train(&start, steps, (&ranker, &source), &loaded, &mut stage.save_only(&loaded))
        .map_err(|error| error.in_file(shards))
}
