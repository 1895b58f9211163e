//! The machine, or a cluster: `doctor`, `systems`, `plan`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::shared::{Overrides, print_all, show, write_json};
use crate::Result;
use crate::questions::{self, PlanOptions, ScalingOptions};
use crate::systems::{SystemInfo, systems};
use crate::torch::{Precision, device, precision::matmul_rate};

/// Below this much free memory, training a `mini` encoder is doubtful: `tiny` takes 1 GB, `mini` 2
/// GB (docs/experiments.md).
const LOW_MEMORY_BYTES: u64 = 2_500_000_000;
/// Below this much free disk, a run is doubtful: a checkpoint of `mini` takes 0.2 GB, of `base` 1.7
/// GB.
const LOW_DISK_BYTES: u64 = 5_000_000_000;

/// Check libtorch, MPI, NCCL, GPUs, memory and disk of this machine
#[derive(Debug, Args)]
pub struct DoctorVerb {
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
    cuda_devices: i64,
    mpi: bool,
    object_stores: bool,
    nccl: Option<String>,
    /// GFLOP/s on the CPU, by number format.
    matmul_gflops: BTreeMap<&'static str, f64>,
}

impl DoctorVerb {
    pub fn run(self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cuda = device::open_cuda();
        let nccl = crate::ranks::NcclLibrary::open().map(|library| library.version().to_string());
        let mut findings = Findings {
            version: env!("CARGO_PKG_VERSION"),
            libtorch: env!("DOCRE_LIBTORCH"),
            cores,
            memory: memory(),
            disk_here: disk(Path::new(".")),
            disk_for_temporary_files: disk(&std::env::temp_dir()),
            cuda_devices: cuda.as_ref().map_or(0, |()| tch::Cuda::device_count()),
            mpi: cfg!(feature = "mpi"),
            object_stores: cfg!(feature = "cloud"),
            nccl: nccl.as_ref().ok().cloned(),
            matmul_gflops: BTreeMap::new(),
        };
        println!("docre-pretrain {} on libtorch {}", findings.version, findings.libtorch);
        told("cores", cores);
        told("memory", &findings.memory);
        told("disk here", &findings.disk_here);
        told("disk for temporary files", &findings.disk_for_temporary_files);
        match cuda {
            Ok(()) => told("CUDA", format!("{} device(s)", findings.cuda_devices)),
            Err(error) => told("CUDA", format!("none: {}", first_line(&error))),
        }
        told("MPI", if findings.mpi { "built in" } else { "not built in (--no-default-features)" });
        told(
            "object stores",
            if findings.object_stores { "built in" } else { "not built in (--features cloud)" },
        );
        match nccl {
            Ok(version) => told("NCCL", version),
            Err(error) => told("NCCL", format!("none: {}", first_line(&error))),
        }
        device::set_threads(cores)?;
        for (name, precision) in [("fp32", Precision::Fp32), ("bf16", Precision::Bf16)] {
            let rate = matmul_rate(tch::Device::Cpu, precision)? / 1e9;
            findings.matmul_gflops.insert(name, rate);
            told(&format!("matmul {name}"), format!("{rate:.0} GFLOP/s on the CPU"));
        }
        write_json(self.json.as_deref(), &findings)
    }
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

/// List the systems, or describe one: layers, settings and parameter counts
#[derive(Debug, Args)]
pub struct SystemsVerb {
    /// System to describe [default: list all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Encoder for the parameter counts: tiny, mini, base, bilstm, or a Hugging Face folder or
    /// repository (ORG/NAME)
    #[arg(long, value_name = "E", default_value = "base")]
    encoder: String,
    /// Write the list or the description as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl SystemsVerb {
    pub fn run(self) -> Result<()> {
        let json = self.json.as_deref();
        let Some(name) = &self.name else {
            let systems: Vec<SystemInfo> = systems().iter().map(|system| system.info()).collect();
            write_json(json, &systems)?;
            return print_all((questions::list_systems() + "\n").as_bytes());
        };
        let description = questions::describe_system(name, &self.encoder)?;
        write_json(json, &description)?;
        print_all(description.to_string().as_bytes())
    }
}

/// Estimate steps, time, memory, disk, traffic and scaling of a recipe on a cluster
#[derive(Debug, Args)]
pub struct PlanVerb {
    /// Recipe (TOML)
    recipe: PathBuf,
    /// Run folder, whose documents are counted if they are prepared [default: runs/NAME]
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    options: PlanOptions,
    #[command(flatten)]
    scaling: ScalingOptions,
    #[command(flatten)]
    overrides: Overrides,
    /// Write the estimate as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl PlanVerb {
    pub fn run(self) -> Result<()> {
        let recipe = self.overrides.load::<Self>(Some(&self.recipe), &[])?;
        let folder = self.run_dir.unwrap_or_else(|| recipe.default_run_dir());
        let mut estimate = questions::plan(&recipe, &folder, self.options)?;
        if self.scaling.scaling {
            estimate.add_scaling(&self.scaling)?;
        }
        show(&estimate, self.json.as_deref())
    }
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
