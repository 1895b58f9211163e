//! What happens when a rank fails.
//!
//! Each rank writes a recorder. The watchdog, a thread of the rank, notices that it makes no
//! progress; the keeper, a small process beside it, notices that it is gone. Either asks for the
//! verdict, which reads the recordings of all ranks. The autopsy prints everything they hold.

mod autopsy;
mod keeper;
mod recorder;
mod verdict;
mod watchdog;

pub use autopsy::{RankState, autopsy};
pub(super) use keeper::name_run;
pub use keeper::start_keeper;
pub use recorder::{Event, Recorder, Recording, now_ns};
pub use verdict::{Verdict, describe};
pub(super) use watchdog::end;
pub use watchdog::{Section, Watchdog};
