//! Tables and figures of papers: rows that are overrides over one recipe, times seeds, run one
//! after another with shared stages, and printed beside the published numbers.
//!
//! Not for: running a recipe (`pipeline`), or the published numbers themselves, which stand in the
//! files of `jobs/tables`.

mod column;
mod file;
mod needs;
mod plan;
mod result;
mod shared;
mod smoke;
mod work;

pub use plan::{Plan, Selection, TableTask};
pub use work::{all_finished, collect, run_tasks};
