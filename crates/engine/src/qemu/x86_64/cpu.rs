//! The processor that every guest sees: x86-64-v3, which hosts have since Haswell and Zen, in QEMU's terms.
//!
//! A host's own processor (`-cpu host`, `-cpu max`) would tie a snapshot to hosts of the same kind.

use crate::Cpu;
use crate::accelerator::Accelerator;
use crate::arch::{has, tsc, vendor};

const BASELINE: &str = "x86-64-v3";
const MODEL: &str = "qemu64-v1";
/// What the baseline has beyond the model, and what kernels run faster or safer with and every such host has. PCID and
/// INVPCID are not among it: Zen had them from its third generation on.
const FEATURES: [&str; 27] = [
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
    "+smep",
    "+smap",
    "+x2apic",
    "+arat",
    "-svm",
];

/// Copies of bytes by one instruction: a processor makes them in large pieces, the emulation byte by byte, and kernels and
/// libraries that see this copy and clear memory by nothing else. AMD's have it since their third Zen.
const BY_HARDWARE: (&str, &str) = ("+erms", "erms");
/// Instructions for SHA-256, which not every host has. The emulation calls a function for each of them, and is with them three
/// times as fast as with the many that stand for one.
const EMULATED: &str = "+sha-ni";

/// The guests' processor under this accelerator. `cpuinfo`: the host's `/proc/cpuinfo`.
pub(crate) fn cpu(accelerator: Accelerator, cpuinfo: &str) -> Cpu {
    let by_hardware = accelerator == Accelerator::Kvm;
    let (feature, flag) = BY_HARDWARE;
    let own = if by_hardware { has(cpuinfo, flag).then_some(feature) } else { Some(EMULATED) };
    Cpu {
        baseline: BASELINE.to_owned(),
        model: MODEL.to_owned(),
        features: FEATURES.into_iter().chain(own).map(str::to_owned).collect(),
        vendor: vendor(cpuinfo).filter(|_| by_hardware).map(str::to_owned),
        tsc_khz: (!by_hardware).then(tsc::host_khz),
    }
}

/// QEMU's argument. It refuses to start where the host lacks a feature.
pub(crate) fn argument(cpu: &Cpu) -> String {
    format!("{},{},enforce", cpu.model, cpu.features.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_by_one_instruction_are_there_where_the_processor_has_them() {
        let has_erms = |accelerator, flags| {
            let cpu = cpu(accelerator, &format!("vendor_id : AuthenticAMD\nflags : fpu {flags}\n"));
            cpu.features.iter().any(|feature| feature == "+erms")
        };
        assert!(has_erms(Accelerator::Kvm, "erms"));
        assert!(!has_erms(Accelerator::Kvm, "rep_good"), "QEMU would start no machine");
        assert!(!has_erms(Accelerator::Tcg, "erms"));
    }
}
