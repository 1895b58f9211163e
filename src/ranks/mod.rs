//! Ranks and how they communicate: launchers, collectives (one process, MPI, c10d, NCCL), gradient
//! buckets, and what happens when a rank fails (`failure`).
//!
//! A program holds one [`World`], made at its start and closed with the outcome at its end. Not for
//! what is sent: `train` cuts the gradients into buckets, `pipeline` decides what only rank 0 does.

mod c10d;
#[cfg(test)]
mod c10d_tests;
mod communicator;
pub mod failure;
mod fixed_tree;
mod gpu;
mod handshake;
mod host_slice;
mod launch;
mod launcher;
mod meeting;
#[cfg(feature = "mpi")]
mod mpi;
mod nccl;
mod nccl_library;
#[cfg(test)]
mod nccl_tests;
mod reducer;
mod rendezvous;
#[cfg(test)]
#[path = "../../tests/support/simulated_ranks.rs"]
mod simulated;
mod single;
mod unequal;
mod watched;
mod world;
#[cfg(test)]
mod world_tests;

pub use c10d::C10dCommunicator;
pub use communicator::{Communicator, ReduceOp};
pub use fixed_tree::{FixedTree, leaves_of};
pub use launch::Launch;
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
