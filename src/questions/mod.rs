//! Questions that people ask of a run, a recipe or a system: why, blame, batch, ledger, compare,
//! plan, explain.
//!
//! Nothing here changes what it is asked about, but for the ledger, which `run` writes too.

pub mod batch;
pub mod blame;
pub mod cost;
pub mod explain;
pub mod ledger;
pub mod parting;
pub mod plan;
pub mod systems;
pub mod why;

pub use batch::{StepContents, StepItem, describe_batches};
pub use blame::{Blame, Repeated, Spike, blame};
pub use explain::{KeyDescription, explain};
pub use ledger::ledger;
pub use parting::{Parting, StageParting, parting};
pub use plan::{PlanOptions, RunEstimate, StageEstimate, Took, plan};
pub use systems::{SettingDescription, SystemDescription, describe_system, list_systems};
pub use why::{Explanation, WhyQuery, why};
