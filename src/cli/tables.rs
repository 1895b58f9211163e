//! Tables of papers: `table`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::shared::{print_all, show, write_json};
use crate::Result;
use crate::base::say;
use crate::pipeline::Session;
use crate::tables::{Plan, Selection, TableTask, all_finished, collect, run_tasks};

/// Run the rows of a table of a paper, and print them beside the published numbers
#[derive(Debug, Args)]
pub struct TableVerb {
    /// Table (TOML), such as those in jobs/tables
    file: PathBuf,
    /// Try all rows in seconds: a few documents and steps, the encoder `tiny`
    #[arg(long)]
    smoke: bool,
    /// Folder for runs and results [default: runs/NAME]
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    /// Names of the rows to run [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', allow_hyphen_values = true)]
    rows: Vec<String>,
    /// Seeds [default: those of the table; with --smoke, the first]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Print the tasks, which are rows times seeds, and exit
    #[arg(long)]
    list: bool,
    /// Run only this task, counted from 1
    #[arg(long, value_name = "K")]
    task: Option<usize>,
    /// Write the table as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl TableVerb {
    pub fn run(self) -> Result<()> {
        let (rows, seeds) = (self.rows.clone(), self.seeds.clone());
        let selection = Selection { rows, seeds, smoke: self.smoke };
        let plan = Plan::new(&self.file, self.run_dir.clone(), &selection);
        if self.list {
            let plan = plan?;
            write_json(self.json.as_deref(), &json!({ "tasks": plan.tasks() }))?;
            return print_all(plan.listed().as_bytes());
        }
        let checked = plan.and_then(|plan| {
            if !self.smoke {
                plan.check_data(&self.file)?;
            }
            Ok(plan)
        });
        let (session, plan) = Session::start_with(checked, |plan| plan.machine())?;
        session.run(|session| {
            let tasks: Vec<&TableTask> = match self.task {
                Some(number) => vec![plan.task(number)?],
                None => plan.tasks.iter().collect(),
            };
            session.world.on_root(|| {
                plan.waiting().iter().chain(&plan.remarks).for_each(say);
                Ok(())
            })?;
            run_tasks(&plan, &tasks, session)?;
            session.world.on_root(|| {
                let result = collect(&plan)?;
                result.write(&plan.root)?;
                let told = if all_finished(&plan) { "complete" } else { "not complete yet" };
                say(format!("table in {}, {told}", plan.root.join("table.html").display()));
                show(&result, self.json.as_deref())
            })
        })
    }
}
