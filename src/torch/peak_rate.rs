//! The peak rate of well-known GPUs, which utilisation is measured against. Not for: measured rates
//! (`precision`).

use std::path::Path;

use tch::Device;

use super::Precision;

/// Where NVIDIA's driver describes the GPUs of this machine, one folder each.
const DRIVER: &str = "/proc/driver/nvidia/gpus";

/// Model names as the driver gives them, the longest of several that begin alike first, with
/// TFLOP/s of dense matrix products in bfloat16 and in fp32 without tensor cores, from NVIDIA's
/// data sheets.
const MODELS: [(&str, f64, f64); 12] = [
    ("NVIDIA H200 NVL", 835.5, 60.0),
    ("NVIDIA H200", 989.5, 66.9),
    ("NVIDIA H100 PCIe", 756.0, 51.2),
    ("NVIDIA H100 80GB HBM3", 989.5, 66.9),
    ("NVIDIA A100", 312.0, 19.5),
    ("NVIDIA A40", 149.7, 37.4),
    ("NVIDIA A30", 165.0, 10.3),
    ("NVIDIA A10G", 70.0, 31.5),
    ("NVIDIA A10", 125.0, 31.2),
    ("NVIDIA L40S", 362.0, 91.6),
    ("NVIDIA L40", 181.0, 90.5),
    ("NVIDIA L4", 121.0, 30.3),
];

/// FLOP/s that the data sheet of a device promises; `None` for the CPU, for part of a GPU, and
/// where the model is not known.
pub fn peak_rate(device: Device, precision: Precision) -> Option<f64> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    // A slice of a GPU (MIG) has a rate of its own.
    if !device.is_cuda() || visible.starts_with("MIG-") {
        return None;
    }
    rate_of(&only_model(Path::new(DRIVER))?, precision)
}

fn rate_of(model: &str, precision: Precision) -> Option<f64> {
    let whole_word = |name: &str| {
        let rest = model.strip_prefix(name);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
    };
    let (_, bf16, fp32) = MODELS.iter().find(|(name, ..)| whole_word(name))?;
    Some(1e12 * if precision == Precision::Bf16 { bf16 } else { fp32 })
}

/// The model of all GPUs of this machine; `None` if they differ: the driver numbers them in another
/// order than CUDA.
fn only_model(folder: &Path) -> Option<String> {
    let mut models = Vec::new();
    for entry in fs_err::read_dir(folder).ok()?.flatten() {
        let text = fs_err::read_to_string(entry.path().join("information")).ok()?;
        models.push(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned());
    }
    models.dedup();
    if models.len() == 1 { models.pop() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_known_by_whole_words() {
        assert_eq!(rate_of("NVIDIA H200", Precision::Bf16), Some(989.5e12));
        assert_eq!(rate_of("NVIDIA H200 NVL", Precision::Bf16), Some(835.5e12));
        assert_eq!(rate_of("NVIDIA A100-SXM4-80GB", Precision::Fp32), Some(19.5e12));
        assert_eq!(rate_of("NVIDIA A10G", Precision::Bf16), Some(70e12));
        assert_eq!(rate_of("NVIDIA L40S", Precision::Bf16), Some(362e12));
        for unknown in ["NVIDIA A1000", "NVIDIA H100 NVL", "Tesla V100-SXM2-16GB", ""] {
            assert_eq!(rate_of(unknown, Precision::Bf16), None, "{unknown}");
        }
        assert_eq!(peak_rate(Device::Cpu, Precision::Fp32), None);
    }

    #[test]
    fn gpus_of_several_models_have_no_common_rate() {
        let folder = tempfile::tempdir().unwrap();
        let add = |bus: &str, model: &str| {
            let gpu = folder.path().join(bus);
            fs_err::create_dir(&gpu).unwrap();
            fs_err::write(gpu.join("information"), format!("Model: \t\t {model}\nIRQ: 1\n"))
                .unwrap();
        };
        assert_eq!(only_model(folder.path()), None);
        add("0000:01:00.0", "NVIDIA H200");
        add("0000:02:00.0", "NVIDIA H200");
        assert_eq!(only_model(folder.path()).as_deref(), Some("NVIDIA H200"));
        add("0000:03:00.0", "NVIDIA L4");
        assert_eq!(only_model(folder.path()), None);
    }
}
