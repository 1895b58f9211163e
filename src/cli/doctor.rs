//! `doctor`: what this machine offers, and what it lacks.

use std::path::Path;

use clap::Args;

use crate::Result;
use crate::torch::{Precision, device, precision::matmul_rate};

/// Below this much free memory, training a `mini` encoder is doubtful: `tiny` takes 1 GB, `mini` 2 GB (docs/experiments.md).
const LOW_MEMORY_BYTES: u64 = 2_500_000_000;
/// Below this much free disk, a run is doubtful: a checkpoint of `mini` takes 0.2 GB, of `base` 1.7 GB.
const LOW_DISK_BYTES: u64 = 5_000_000_000;

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {}

impl Doctor {
    /// Prints what this machine offers.
    ///
    /// # Errors
    /// libtorch fails.
    pub fn run(self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        println!("docre-pretrain {} on libtorch {}", env!("CARGO_PKG_VERSION"), env!("DOCRE_LIBTORCH"));
        println!("cores        {cores}");
        println!("memory       {}", memory());
        println!("disk here    {}", disk(Path::new(".")));
        println!("disk for temporary files  {}", disk(&std::env::temp_dir()));
        match device::open_cuda() {
            Ok(()) => println!("CUDA         {} device(s)", tch::Cuda::device_count()),
            Err(error) => println!("CUDA         none: {}", first_line(&error)),
        }
        println!("MPI          {}", if cfg!(feature = "mpi") { "built in" } else { "not built in (--no-default-features)" });
        match crate::dist::NcclLibrary::open() {
            Ok(library) => println!("NCCL         {}", library.version()),
            Err(error) => println!("NCCL         none: {}", first_line(&error)),
        }
        device::set_threads(cores)?;
        for (name, precision) in [("fp32", Precision::Fp32), ("bf16", Precision::Bf16)] {
            println!("matmul {name}  {:.0} GFLOP/s on the CPU", matmul_rate(tch::Device::Cpu, precision)? / 1e9);
        }
        Ok(())
    }
}

fn first_line(error: &crate::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Total and free memory, and the limit of the container where there is a lower one.
fn memory() -> String {
    let Some((total, free)) = fs_err::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text)) else {
        return "unknown: /proc/meminfo cannot be read".into();
    };
    let limit = fs_err::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let limited = limit.filter(|&limit| limit < total).map_or_else(String::new, |limit| format!(", limited to {}", gigabytes(limit)));
    let low = if free.min(limit.unwrap_or(free)) < LOW_MEMORY_BYTES { "; little: keep to `tiny` or give it more" } else { "" };
    format!("{}, {} free{limited}{low}", gigabytes(total), gigabytes(free))
}

/// (total, available) in bytes, from the text of `/proc/meminfo`.
fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    Some((field("MemTotal")?, field("MemAvailable")?))
}

fn disk(path: &Path) -> String {
    match rustix::fs::statvfs(path) {
        Ok(disk) => {
            let free = disk.f_bavail * disk.f_frsize;
            let low = if free < LOW_DISK_BYTES { "; little for checkpoints: free some, or set --run-dir to another disk" } else { "" };
            format!("{} free of {}{low}", gigabytes(free), gigabytes(disk.f_blocks * disk.f_frsize))
        }
        Err(error) => format!("unknown: {error}"),
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_figures_are_read() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   12000000 kB\n";
        assert_eq!(parse_meminfo(text), Some((24_576_000_000, 12_288_000_000)));
        assert_eq!(parse_meminfo("MemTotal: 5 kB\n"), None);
        assert_eq!(gigabytes(24_576_000_000), "24.6 GB");
    }

    #[test]
    fn the_disk_of_a_folder_is_known() {
        assert!(disk(&std::env::temp_dir()).contains(" GB free of "));
        assert!(disk(Path::new("/nowhere")).starts_with("unknown: No such file"));
    }
}
