//! Doing the tasks of a table: shared stages first, then the row's own, and skipping what is done.
//! Not for: what a stage depends on (`shared`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{Plan, TableTask};
use super::result::TableResult;
use super::shared::SharedStage;
use super::smoke::CutFile;
use crate::base::{FileLock, read_json, run_files, say};
use crate::eval::Scores;
use crate::pipeline::{Session, run, run_until, same_recipe};
use crate::{Error, Result};

/// Time between two looks at a lock that another task holds.
const LOOK: Duration = Duration::from_secs(2);

/// Runs tasks one after another; those that are finished are skipped, and unfinished ones go on.
///
/// # Errors
/// Errors of any stage.
pub fn run_tasks(plan: &Plan, tasks: &[&TableTask], session: &Session) -> Result<()> {
    for task in tasks {
        let done = session.world.on_root(|| {
            let (of, name) = (plan.tasks.len(), &plan.file.rows[task.row].name);
            let done = is_finished(task);
            let ending = if done { ": finished before" } else { "" };
            say(format!("task {} of {of}: row `{name}`, seed {}{ending}", task.number, task.seed));
            Ok(done)
        })?;
        if !done {
            run_task(plan, task, session)?;
        }
    }
    Ok(())
}

/// Whether all tasks of a table are finished.
pub fn all_finished(plan: &Plan) -> bool {
    plan.all().all(is_finished)
}

/// Whether the task has left scores, by the recipe that it has now.
fn is_finished(task: &TableTask) -> bool {
    let text = fs_err::read_to_string(task.folder.join(run_files::RECIPE)).unwrap_or_default();
    task.folder.join(run_files::SCORES).exists() && task.recipe.asks_for_the_same(&text)
}

fn run_task(plan: &Plan, task: &TableTask, session: &Session) -> Result<()> {
    let stages = SharedStage::of(&task.recipe, &plan.root);
    session.world.on_root(|| {
        task.cuts.iter().try_for_each(CutFile::write)?;
        // Before anything is linked into the folder.
        same_recipe(&task.recipe, &task.folder, false)
    })?;
    let stages = session.world.agree(stages)?;
    for (number, stage) in stages.iter().enumerate() {
        run_stage(stage, &stages[..number], session)?;
    }
    session.world.on_root(|| stages.iter().try_for_each(|stage| stage.link(&task.folder)))?;
    run(&task.recipe, &task.folder, true, session)
}

/// Runs a shared stage unless it is finished; if another process is at it, waits for that one.
fn run_stage(stage: &SharedStage, before: &[SharedStage], session: &Session) -> Result<()> {
    if session.world.on_root(|| Ok(stage.is_finished()))? {
        return Ok(());
    }
    let waiting = session.world.watchdog().unbounded_section("waiting for another task");
    let taken = session.is_root().then(|| wait_for_lock(stage, session)).transpose();
    let _lock = session.world.agree(taken)?;
    drop(waiting);
    let done = session.world.on_root(|| {
        let done = stage.is_finished();
        if !done {
            before.iter().try_for_each(|earlier| earlier.link(&stage.folder))?;
        }
        Ok(done)
    })?;
    if !done {
        run_until(stage.milestone, &stage.recipe, &stage.folder, true, session)?;
        session.world.on_root(|| stage.finish())?;
    }
    Ok(())
}

/// Takes the lock of a stage, however long another process holds it.
fn wait_for_lock(stage: &SharedStage, session: &Session) -> Result<FileLock> {
    fs_err::create_dir_all(&stage.folder)?;
    let path = stage.folder.with_extension("lock");
    let mut told = false;
    loop {
        match FileLock::take(&path)? {
            Ok(mut lock) => {
                lock.sign()?;
                return Ok(lock);
            }
            Err(holder) if !told => {
                say(format!("waiting for {}, which {holder} makes", stage.folder.display()));
                told = true;
            }
            Err(_) => {}
        }
        if session.signals.stop_requested(&stage.folder) {
            let place = format!("while waiting for {}", stage.folder.display());
            return Err(Error::Stopped { place });
        }
        std::thread::sleep(LOOK);
    }
}

/// Puts the scores of all finished tasks together.
///
/// # Errors
/// Scores that cannot be read.
pub fn collect(plan: &Plan) -> Result<TableResult> {
    let mut scores = BTreeMap::new();
    let mut notes = Vec::new();
    for task in plan.all() {
        let path = task.folder.join(run_files::SCORES);
        if !is_finished(task) {
            if path.exists() {
                let folder = task.folder.display();
                notes.push(format!("{folder} holds scores of another recipe, which are left out"));
            }
            continue;
        }
        let all: BTreeMap<String, Scores> = read_json(&path)?;
        let prefix = format!("{}-", task.variant.name());
        let own = all.into_iter().filter_map(|(name, scores)| {
            name.strip_prefix(&prefix).map(|split| (split.to_owned(), scores))
        });
        scores.entry(task.row).or_insert_with(Vec::new).push(own.collect());
    }
    let mut result = TableResult::new(plan, &scores)?;
    result.notes.extend(notes);
    Ok(result)
}
