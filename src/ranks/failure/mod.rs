//! What happens when a rank fails: it is noticed, recorded, judged and told in one sentence.
//!
//! Each rank writes a flight recorder. The watchdog thread of a rank notices that it makes no
//! progress; the keeper, a small process beside each rank, notices that the rank is gone. Whoever
//! notices reads the recorders of all ranks and judges which rank is to blame.

pub mod autopsy;
pub mod keeper;
mod recorder;
mod watchdog;

pub use autopsy::{
    AutopsyReport, LastEvent, RankEnd, RankState, autopsy, obituary, rank_states, record,
};
pub use recorder::{Event, EventKind, Flight, FlightRecorder, flight_path, flights, now_ns, place};
pub use watchdog::{Section, Watchdog};
