//! `bench all-reduce`: how fast tensors are summed over ranks, by the library that the launcher has
//! chosen.
//!
//! Not for: what of it is hidden behind the backward pass (`bench pretrain`).

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use tch::{Cuda, Device, Kind, Tensor};

use crate::pipeline::Session;
use crate::ranks::ReduceOp;
use crate::{Error, Result};

/// Sizes of the messages.
const MEGABYTES: [i64; 3] = [1, 16, 64];
/// Rounds that are measured, after two that are not.
const ROUNDS: usize = 9;
const WARM_UP: usize = 2;

/// One size of one kind of number.
#[derive(Clone, Debug, Serialize)]
pub struct AllReduceRow {
    /// Kind of number.
    pub kind: &'static str,
    /// Size of the message, in units of 2²⁰ bytes.
    pub megabytes: i64,
    /// Milliseconds of the slowest rank, the median of the rounds.
    pub milliseconds: f64,
    /// What a rank must send at least, 2 (n - 1) / n of the message, by that time; GB/s.
    pub bus_gb_per_s: f64,
}

/// All sizes and kinds.
#[derive(Clone, Debug, Serialize)]
pub struct AllReduceTable {
    /// What carries tensors.
    pub library: &'static str,
    /// Number of ranks.
    pub ranks: usize,
    /// The rows.
    pub rows: Vec<AllReduceRow>,
}

impl fmt::Display for AllReduceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { library, ranks, rows } = self;
        writeln!(f, "all-reduce over {library}, {ranks} ranks")?;
        write!(f, "{:<8}{:>8}{:>12}{:>16}", "", "MiB", "ms", "bus GB/s")?;
        rows.iter().try_for_each(|row| {
            let AllReduceRow { kind, megabytes, milliseconds, bus_gb_per_s } = row;
            write!(f, "\n{kind:<8}{megabytes:>8}{milliseconds:>12.2}{bus_gb_per_s:>16.2}")
        })
    }
}

/// Measures on all ranks together.
///
/// # Errors
/// A recipe error (64) in a world of one; a lost rank (71).
pub fn all_reduce_rates(session: &Session) -> Result<AllReduceTable> {
    let comm = session.world.communicator();
    if comm.size() == 1 {
        return Err(Error::recipe("one rank has nobody to add to")
            .with_hint("start it with `docre-pretrain launch -n 2`, or with `mpirun -n 2`"));
    }
    let mut rows = Vec::new();
    for (name, kind) in [("fp32", Kind::Float), ("bf16", Kind::BFloat16)] {
        for megabytes in MEGABYTES {
            let bytes = megabytes << 20;
            let count = bytes / kind.elt_size_in_bytes() as i64;
            // Zeros stay zeros, however often they are added.
            let tensor = Tensor::f_zeros([count], (kind, session.device))?;
            let mut seconds = Vec::new();
            for round in 0..WARM_UP + ROUNDS {
                comm.barrier()?;
                let start = Instant::now();
                comm.all_reduce_tensor(&tensor)?;
                if let Device::Cuda(index) = session.device {
                    Cuda::synchronize(index as i64);
                }
                let mut took = [start.elapsed().as_secs_f64()];
                comm.all_reduce_f64(&mut took, ReduceOp::Max)?;
                if round >= WARM_UP {
                    seconds.push(took[0]);
                }
            }
            seconds.sort_by(f64::total_cmp);
            let median = seconds[ROUNDS / 2];
            let size = comm.size() as f64;
            let sent = 2.0 * (size - 1.0) / size * bytes as f64;
            rows.push(AllReduceRow {
                kind: name,
                megabytes,
                milliseconds: median * 1e3,
                bus_gb_per_s: sent / median / 1e9,
            });
        }
    }
    Ok(AllReduceTable { library: comm.library(), ranks: comm.size(), rows })
}
