//! The processor that every guest sees: x86-64-v3, which hosts have since Haswell and Zen, in QEMU's terms.
//!
//! A host's own processor (`-cpu host`, `-cpu max`) would tie a snapshot to hosts of the same kind.

use crate::Cpu;
use crate::accelerator::Accelerator;
use crate::arch::tsc;

const BASELINE: &str = "x86-64-v3";
const MODEL: &str = "qemu64-v1";
/// What the baseline has beyond the model, and what kernels run faster or safer with and every such host has. PCID and
/// INVPCID are not among it: Zen had them from its third generation on.
const FEATURES: [&str; 28] = [
    "+ssse3",
    "+sse4.1",
    "+sse4.2",
    "+popcnt",
    "+lahf-lm",
    "+cx16",
    "+abm",
    "+avx",
    "+avx2",
    "+bmi1",
    "+bmi2",
    "+f16c",
    "+fma",
    "+movbe",
    "+xsave",
    "+xsaveopt",
    "+aes",
    "+pclmulqdq",
    "+rdrand",
    "+rdseed",
    "+rdtscp",
    "+fsgsbase",
    "+erms",
    "+smep",
    "+smap",
    "+x2apic",
    "+arat",
    "-svm",
];

/// The guests' processor under this accelerator. `vendor`: the host's processor's.
pub(crate) fn cpu(accelerator: Accelerator, vendor: Option<&str>) -> Cpu {
    let by_hardware = accelerator == Accelerator::Kvm;
    Cpu {
        baseline: BASELINE.to_owned(),
        model: MODEL.to_owned(),
        features: FEATURES.map(str::to_owned).to_vec(),
        vendor: vendor.filter(|_| by_hardware).map(str::to_owned),
        tsc_khz: (!by_hardware).then(tsc::host_khz),
    }
}

/// QEMU's argument. It refuses to start where the host lacks a feature.
pub(crate) fn argument(cpu: &Cpu) -> String {
    format!("{},{},enforce", cpu.model, cpu.features.join(","))
}
