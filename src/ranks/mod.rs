//! Ranks and how they communicate: the launcher, collectives (one process, MPI, NCCL), gradient
//! buckets, and what happens when a rank fails (`failure`).
//!
//! A program holds one [`World`], made at its start and closed with the outcome at its end. Not for
//! what is sent: `train` cuts the gradients into buckets, `pipeline` decides what only rank 0 does.

mod communicator;
pub mod failure;
mod fixed_tree;
mod handshake;
#[cfg(any(test, feature = "mpi"))]
mod host_slice;
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
#[path = "../../tests/support/simulated_ranks.rs"]
mod simulated;
mod single;
mod watched;
mod world;

pub use communicator::{Communicator, ReduceOp};
pub use fixed_tree::{FixedTree, leaves_of};
pub use launcher::{Launched, Launcher};
#[cfg(feature = "mpi")]
pub use mpi::MpiCommunicator;
pub use nccl::{CommunicationStream, NcclCommunicator};
pub use nccl_library::NcclLibrary;
pub use reducer::GradientReducer;
#[cfg(test)]
pub(crate) use simulated::{SimulatedCommunicator, mortal_world, simulated_world};
pub use single::SingleProcess;
pub use world::{MEETING, World, joined_rank};
