//! A GPU that is not there, for tests: code takes the branches that it takes on CUDA, kernels of
//! the CPU compute, and what a GPU would start and wait for is counted (`shim/mock_gpu.cpp`).

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::process::Command;

use tch::Device;

use super::shim::{docre_mock_gpu_install, docre_mock_gpu_take};

/// Where tensors of the mock live.
pub(crate) const GPU: Device = Device::Cuda(0);

/// Set in the process that has the mock.
const VARIABLE: &str = "DOCRE_MOCK_GPU";

/// Runs `body` with the mock installed. libtorch looks for devices once in a process, so `body`
/// runs in one of its own, which is this test again; `name` is the path of the test.
pub(crate) fn with_mock_gpu(name: &str, body: impl FnOnce()) {
    if std::env::var_os(VARIABLE).is_some() {
        // SAFETY: nothing has used libtorch in this process yet.
        unsafe { docre_mock_gpu_install() };
        return body();
    }
    let name = name.split_once("::").map_or(name, |(_crate, path)| path);
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}\n{errors}");
    println!("{said}\n{errors}");
}

/// What a GPU would have done.
#[derive(Clone, Debug, Default)]
pub(crate) struct GpuWork {
    /// Operations that start kernels, by name.
    pub launches: BTreeMap<String, i64>,
    /// Copies between host and device.
    pub uploads: BTreeMap<String, i64>,
    /// Places where the host waits for the device.
    pub waits: BTreeMap<String, i64>,
}

impl GpuWork {
    /// What happened since the last call.
    pub fn take() -> Self {
        // SAFETY: the text lives until the next call, and only this thread calls.
        let text = unsafe { CStr::from_ptr(docre_mock_gpu_take()) }.to_str().unwrap().to_owned();
        let mut work = Self::default();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let kind = words.next().unwrap();
            let count = words.next().unwrap().parse().unwrap();
            let operation = words.next().unwrap().to_owned();
            let list = match kind {
                "launch" => &mut work.launches,
                "upload" => &mut work.uploads,
                "wait" => &mut work.waits,
                _ => panic!("{line}"),
            };
            list.insert(operation, count);
        }
        work
    }

    /// Kernels and copies.
    pub fn started(&self) -> i64 {
        self.launches.values().chain(self.uploads.values()).sum()
    }

    /// Waits.
    pub fn waited(&self) -> i64 {
        self.waits.values().sum()
    }

    /// This less another, both of repeated work: what the difference of the repetitions did.
    pub fn minus(mut self, other: &Self) -> Self {
        let pairs = [
            (&mut self.launches, &other.launches),
            (&mut self.uploads, &other.uploads),
            (&mut self.waits, &other.waits),
        ];
        for (own, other) in pairs {
            for (operation, count) in other {
                *own.entry(operation.clone()).or_default() -= count;
            }
            own.retain(|_, count| *count != 0);
        }
        self
    }
}

impl fmt::Display for GpuWork {
    /// The most frequent operations first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} kernels and copies, {} waits", self.started(), self.waited())?;
        let lists =
            [("kernels", &self.launches), ("copies", &self.uploads), ("waits", &self.waits)];
        for (kind, list) in lists {
            let mut sorted: Vec<_> = list.iter().collect();
            sorted.sort_by_key(|(_, count)| -**count);
            for (operation, count) in sorted {
                writeln!(f, "{count:6} {kind:8} {operation}")?;
            }
        }
        Ok(())
    }
}
