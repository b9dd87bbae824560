//! Which accelerator to use. The device node alone proves nothing: it may belong to a hypervisor that cannot nest.

use serde::{Deserialize, Serialize};

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// By the CPU.
    Kvm,
    /// By translation in software.
    Tcg,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "hardware virtualization (KVM)",
            Self::Tcg => "software emulation (TCG)",
        })
    }
}

/// Whether `/proc/cpuinfo` names Intel VT-x or AMD-V.
#[must_use]
pub fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// The processor's maker, as `/proc/cpuinfo` names it.
#[must_use]
pub fn vendor(cpuinfo: &str) -> Option<&str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == "vendor_id").map(|(_, vendor)| vendor.trim())
}

/// The decision: KVM when the CPU can and a machine really started with it.
#[must_use]
pub fn choose(cpu_can: bool, probe_started: bool) -> Accelerator {
    if cpu_can && probe_started { Accelerator::Kvm } else { Accelerator::Tcg }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        assert!(has_virtualization("processor\t: 0\nflags\t\t: fpu svm sse\n"));
        assert!(has_virtualization("flags : vmx\n"));
        assert!(!has_virtualization("flags : fpu svm_lock\nvmx flags : svm\nmodel name : vmx\n"));
        assert!(!has_virtualization(""));
    }

    #[test]
    fn the_vendor_is_that_of_the_first_processor() {
        assert_eq!(vendor("processor\t: 0\nvendor_id\t: GenuineIntel\nflags : fpu\n"), Some("GenuineIntel"));
        assert_eq!(vendor("processor : 0\n"), None);
    }

    #[test]
    fn kvm_needs_both() {
        assert_eq!(choose(true, true), Accelerator::Kvm);
        for (cpu, probe) in [(true, false), (false, true), (false, false)] {
            assert_eq!(choose(cpu, probe), Accelerator::Tcg);
        }
    }
}
