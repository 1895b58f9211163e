//! Questions that people ask of a run, a recipe or a system: why, blame, batch, ledger, compare,
//! plan, explain, watch, weights.
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
pub mod watch;
pub mod weights;
pub mod why;

pub use batch::describe_batches;
pub use blame::blame;
pub use explain::explain;
pub use ledger::ledger;
pub use parting::parting;
pub use plan::{PlanOptions, ScalingOptions, plan};
pub use systems::{describe_system, list_systems};
pub use watch::{RunLook, WatchedRun, serve, watch_terminal};
pub use weights::PartWeights;
pub use why::{WhyQuery, why};
