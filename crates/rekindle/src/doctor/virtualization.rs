//! What slows KVM down and can be set otherwise.

use std::fs;

use super::Finding;

const SUBJECT: &str = "KVM start";

/// What the kernel says of it, in its own words.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// `/proc/mounts`.
    pub(super) mounts: String,
    /// KVM's parameter.
    pub(super) nx_huge_pages: String,
    /// Whether the processor has the flaw that the parameter is against.
    pub(super) itlb_multihit: String,
}

impl Kernel {
    pub(super) fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            mounts: read("/proc/mounts"),
            nx_huge_pages: read("/sys/module/kvm/parameters/nx_huge_pages"),
            itlb_multihit: read("/sys/devices/system/cpu/vulnerabilities/itlb_multihit"),
        }
    }
}

/// Since Linux 6.1 a new VM starts a thread, which waits for a lock of the cgroups that is slow to get, for tens of
/// milliseconds, unless cgroups favour such changes or the thread is not wanted.
pub(super) fn creation(kernel: &Kernel) -> Finding {
    let favour = kernel.mounts.lines().any(|line| line.split([' ', ',']).any(|word| word == "favordynmods"));
    if favour {
        return Finding::good(SUBJECT, "cgroups are mounted with favordynmods");
    }
    if kernel.nx_huge_pages == "never" {
        return Finding::good(SUBJECT, "kvm.nx_huge_pages is never");
    }
    let safe = kernel.itlb_multihit == "Not affected";
    let parameter = if safe {
        ", or load kvm with nx_huge_pages=never, as this processor does not need it"
    } else {
        "; not kvm.nx_huge_pages=never, as this processor needs it"
    };
    Finding::fair(
        SUBJECT,
        "each VM may wait tens of milliseconds for cgroups",
        format!("mount -o remount,favordynmods /sys/fs/cgroup{parameter}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn either_setting_is_enough() {
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate,favordynmods 0 0\n".into();
        let favour = Kernel { mounts, ..Kernel::default() };
        let never = Kernel { nx_huge_pages: "never".into(), ..Kernel::default() };
        assert_eq!(creation(&favour).verdict, Verdict::Good);
        assert_eq!(creation(&never).verdict, Verdict::Good);
    }

    #[test]
    fn a_processor_with_the_flaw_keeps_what_protects_it() {
        let kernel = |flaw: &str| Kernel {
            mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0".into(),
            nx_huge_pages: "Y".into(),
            itlb_multihit: flaw.into(),
        };
        let [safe, flawed] =
            ["Not affected", "KVM: Mitigation: Split huge pages"].map(|flaw| creation(&kernel(flaw)));
        assert_eq!((safe.verdict, flawed.verdict), (Verdict::Fair, Verdict::Fair));
        assert!(safe.to_string().contains("or load kvm with nx_huge_pages=never"), "{safe}");
        assert!(flawed.to_string().contains("not kvm.nx_huge_pages=never"), "{flawed}");
    }
}
