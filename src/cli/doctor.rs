//! The machine: `doctor`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tch::Device;

use super::shared::write_json;
use crate::Result;
use crate::torch::{DeviceChoice, Precision, cuda, device, precision::matmul_rate};

/// Below this much free memory, training a `mini` encoder is doubtful: `tiny` takes 1 GB, `mini` 2
/// GB (docs/experiments.md).
const LOW_MEMORY_BYTES: u64 = 2_500_000_000;
/// Below this much free disk, a run is doubtful: a checkpoint of `mini` takes 0.2 GB, of `base` 1.7
/// GB.
const LOW_DISK_BYTES: u64 = 5_000_000_000;

/// Check libtorch, MPI, NCCL, GPUs, memory and disk of this machine
#[derive(Debug, Args)]
pub struct DoctorVerb {
    /// Device whose products are measured: cpu, cuda or cuda:N; a GPU that cannot be used is then
    /// an error
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the machine offers.
#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    libtorch: &'static str,
    cores: usize,
    memory: String,
    disk_here: String,
    disk_for_temporary_files: String,
    cuda_devices: usize,
    mpi: bool,
    object_stores: bool,
    nccl: Option<String>,
    /// The device whose products are measured.
    device: String,
    /// GFLOP/s on it, by number format.
    matmul_gflops: BTreeMap<&'static str, f64>,
}

impl DoctorVerb {
    pub fn run(self) -> Result<()> {
        let device = self.device.parse::<DeviceChoice>()?.resolve(0)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cuda = cuda::open_cuda();
        let nccl = crate::ranks::NcclLibrary::open().map(|library| library.version().to_string());
        let mut findings = Findings {
            version: env!("CARGO_PKG_VERSION"),
            libtorch: env!("DOCRE_LIBTORCH"),
            cores,
            memory: memory(),
            disk_here: disk(Path::new(".")),
            disk_for_temporary_files: disk(&std::env::temp_dir()),
            cuda_devices: *cuda.as_ref().unwrap_or(&0),
            mpi: cfg!(feature = "mpi"),
            object_stores: cfg!(feature = "cloud"),
            nccl: nccl.as_ref().ok().cloned(),
            device: device::described(device),
            matmul_gflops: BTreeMap::new(),
        };
        println!("docre-pretrain {} on libtorch {}", findings.version, findings.libtorch);
        told("cores", cores);
        told("memory", &findings.memory);
        told("disk here", &findings.disk_here);
        told("disk for temporary files", &findings.disk_for_temporary_files);
        match &cuda {
            Ok(count) => {
                let names = (0..*count).map(|index| device::described(Device::Cuda(index)));
                told("CUDA", names.collect::<Vec<_>>().join(", "));
            }
            Err(error) => told("CUDA", format!("none: {}", first_line(error))),
        }
        told("MPI", if findings.mpi { "built in" } else { "not built in; ranks meet over c10d" });
        told(
            "object stores",
            if findings.object_stores { "built in" } else { "not built in (--features cloud)" },
        );
        match nccl {
            Ok(version) => told("NCCL", version),
            Err(error) => told("NCCL", format!("none: {}", first_line(&error))),
        }
        device::set_threads(cores)?;
        findings.matmul_gflops = rates(device)?;
        for (name, rate) in &findings.matmul_gflops {
            let on = &findings.device;
            told(&format!("matmul {name}"), format!("{rate:.0} GFLOP/s on {on}"));
        }
        write_json(self.json.as_deref(), &findings)
    }
}

/// GFLOP/s of a large product, by number format; TF32 is one of GPUs alone.
fn rates(device: Device) -> Result<BTreeMap<&'static str, f64>> {
    let mut rates = BTreeMap::new();
    for (name, precision) in [("fp32", Precision::Fp32), ("bf16", Precision::Bf16)] {
        rates.insert(name, matmul_rate(device, precision)? / 1e9);
    }
    if device.is_cuda() {
        cuda::allow_tf32(true)?;
        rates.insert("tf32", matmul_rate(device, Precision::Fp32)? / 1e9);
        cuda::allow_tf32(false)?;
    }
    Ok(rates)
}

fn told(name: &str, value: impl std::fmt::Display) {
    println!("{name:<26}{value}");
}

fn first_line(error: &crate::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Total and free memory, and the limit of the container where there is a lower one.
fn memory() -> String {
    let Some((total, free)) =
        fs_err::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text))
    else {
        return "unknown: /proc/meminfo cannot be read".into();
    };
    let limit = fs_err::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let limited = limit
        .filter(|&limit| limit < total)
        .map_or_else(String::new, |limit| format!(", limited to {}", gigabytes(limit)));
    let low = if free.min(limit.unwrap_or(free)) < LOW_MEMORY_BYTES {
        "; little: use the encoder `tiny`, or add memory"
    } else {
        ""
    };
    format!("{}, {} free{limited}{low}", gigabytes(total), gigabytes(free))
}

/// (total, available) in bytes, from the text of `/proc/meminfo`.
fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
            .map(|kilobytes| kilobytes * 1024)
    };
    Some((field("MemTotal")?, field("MemAvailable")?))
}

fn disk(path: &Path) -> String {
    match rustix::fs::statvfs(path) {
        Ok(disk) => {
            let free = disk.f_bavail * disk.f_frsize;
            let low = if free < LOW_DISK_BYTES {
                "; little for checkpoints: free some, or put --run-dir on another disk"
            } else {
                ""
            };
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
