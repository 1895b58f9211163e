//! Ranks and what they say to each other: who started us, collectives (one process, MPI, NCCL), gradient buckets, the watchdog and
//! the flight recorder.
//!
//! Not for: what is sent (`train` cuts the gradients into buckets, `stages` decides what only rank 0 does). A program holds one
//! [`World`], made at its start and closed with the outcome at its end.

mod communicator;
mod fixed_tree;
mod flight;
mod handshake;
#[cfg(any(test, feature = "mpi"))]
mod host;
pub mod keeper;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(all(test, feature = "mpi"))]
mod mpi_tests;
mod nccl;
mod nccl_library;
#[cfg(test)]
mod nccl_tests;
mod reducer;
#[cfg(test)]
mod simulated;
mod single;
mod watchdog;
mod watched;
mod world;

pub use communicator::{Communicator, ReduceOp};
pub use fixed_tree::{FixedTree, parts_of};
pub use flight::{Event, EventKind, Flight, FlightRecorder, flight_path, flights, now_ns, place};
pub use launcher::{Launched, Launcher};
#[cfg(feature = "mpi")]
pub use mpi::MpiCommunicator;
pub use nccl::{CommunicationStream, NcclCommunicator};
pub use nccl_library::NcclLibrary;
pub use reducer::GradientReducer;
#[cfg(test)]
pub(crate) use simulated::{SimulatedCommunicator, mortal_world, simulated_world};
pub use single::SingleProcess;
pub use watchdog::{Section, Watchdog};
pub use world::{MEETING, World, catch_panic, is_joined};
