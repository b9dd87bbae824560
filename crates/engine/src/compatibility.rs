//! What a machine's saved state depends on besides its own files. It is kept with every snapshot, and a snapshot is
//! used only on a host that has the same.

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;

/// Two hosts' counters, in parts of which they may differ and still count as the same: well above the error of
/// measuring, well below the difference of two models.
const TSC_TOLERANCE: u64 = 1000;

/// What a host saves machines with, or what a snapshot was saved with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compatibility {
    /// The VMM and its version.
    pub engine: EngineVersion,
    /// The machine type and its options, in the VMM's own terms.
    pub machine: String,
    /// What executes the guest's instructions: each keeps a CPU's state in its own way.
    pub accelerator: Accelerator,
    /// The processor that the guest sees.
    pub cpu: Cpu,
}

/// A VMM and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineVersion {
    /// Name.
    pub name: String,
    /// Major, minor, micro.
    pub version: [u32; 3],
}

impl EngineVersion {
    /// Whether either reads what the other saved. The machine type has no versions of its own, so a new series may
    /// change what is saved; a series' corrections do not.
    fn reads(&self, other: &Self) -> bool {
        self.name == other.name && self.version[..2] == other.version[..2]
    }
}

impl std::fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, micro] = self.version;
        write!(f, "{} {major}.{minor}.{micro}", self.name)
    }
}

/// A guest's processor: a named baseline, so that a snapshot moves between all hosts that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// The baseline's name.
    pub baseline: String,
    /// The VMM's versioned CPU model that it is made of.
    pub model: String,
    /// The features added to the model (`+`) or taken from it (`-`).
    pub features: Vec<String>,
    /// The physical processor's maker, where that executes the guest: guests tell them apart by more than features.
    pub vendor: Option<String>,
    /// How fast the guest's time stamp counter runs, where nothing scales it: the guest has measured its time by it.
    pub tsc_khz: Option<u64>,
}

/// Why a snapshot cannot be used on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it was made with {what} {made}, and this host has {here}")]
pub struct Incompatible {
    /// In what they differ.
    pub what: &'static str,
    /// As the snapshot has it.
    pub made: String,
    /// As this host has it.
    pub here: String,
}

impl Compatibility {
    /// Whether this host can use a snapshot that was made with `made`.
    ///
    /// # Errors
    /// [`Incompatible`] with the first difference.
    pub fn check(&self, made: &Self) -> Result<(), Incompatible> {
        let differ = |what, made: &dyn std::fmt::Display, here: &dyn std::fmt::Display| {
            Err(Incompatible { what, made: made.to_string(), here: here.to_string() })
        };
        if !self.engine.reads(&made.engine) {
            return differ("the VMM", &made.engine, &self.engine);
        }
        if self.machine != made.machine {
            return differ("the machine type", &made.machine, &self.machine);
        }
        if self.accelerator != made.accelerator {
            return differ("the accelerator", &made.accelerator, &self.accelerator);
        }
        self.cpu.check(&made.cpu)
    }
}

impl Cpu {
    fn check(&self, made: &Self) -> Result<(), Incompatible> {
        let differ = |what, made: String, here: String| Err(Incompatible { what, made, here });
        let model = |cpu: &Self| format!("{} ({},{})", cpu.baseline, cpu.model, cpu.features.join(","));
        if (&self.baseline, &self.model, &self.features) != (&made.baseline, &made.model, &made.features) {
            return differ("the CPU", model(made), model(self));
        }
        if self.vendor != made.vendor {
            let vendor = |cpu: &Self| cpu.vendor.clone().unwrap_or_else(|| "of no maker".to_owned());
            return differ("a CPU by", vendor(made), vendor(self));
        }
        let same_speed = match (self.tsc_khz, made.tsc_khz) {
            (Some(here), Some(made)) => here.abs_diff(made) <= here / TSC_TOLERANCE,
            (here, made) => here == made,
        };
        if !same_speed {
            let speed = |cpu: &Self| format!("of {} kHz", cpu.tsc_khz.unwrap_or_default());
            return differ("a time stamp counter", speed(made), speed(self));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Compatibility {
        Compatibility {
            engine: EngineVersion { name: "QEMU".into(), version: [10, 0, 2] },
            machine: "microvm,acpi=on".into(),
            accelerator: Accelerator::Tcg,
            cpu: Cpu {
                baseline: "x86-64-v3".into(),
                model: "qemu64-v1".into(),
                features: vec!["+avx2".into()],
                vendor: None,
                tsc_khz: Some(2_400_000),
            },
        }
    }

    #[test]
    fn any_difference_is_refused_and_named() {
        type Change = fn(&mut Compatibility);
        let changes: [(&str, Change); 8] = [
            ("QEMU 10.1.2", |made| made.engine.version[1] = 1),
            ("Other 10.0.2", |made| made.engine.name = "Other".into()),
            ("machine type microvm,acpi=off", |made| made.machine = "microvm,acpi=off".into()),
            ("accelerator hardware virtualization (KVM)", |made| made.accelerator = Accelerator::Kvm),
            ("x86-64-v4", |made| made.cpu.baseline = "x86-64-v4".into()),
            ("+avx512f", |made| made.cpu.features.push("+avx512f".into())),
            ("GenuineIntel", |made| made.cpu.vendor = Some("GenuineIntel".into())),
            ("2500000 kHz", |made| made.cpu.tsc_khz = Some(2_500_000)),
        ];
        for (told, change) in changes {
            let mut made = host();
            change(&mut made);
            let refused = host().check(&made).unwrap_err().to_string();
            assert!(refused.contains(told), "{told}: {refused}");
        }
    }

    #[test]
    fn corrections_of_the_vmm_and_errors_of_measuring_make_no_difference() {
        let mut made = host();
        made.engine.version[2] = 7;
        made.cpu.tsc_khz = Some(2_400_900);
        assert_eq!(host().check(&made), Ok(()));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let text = serde_json::to_string(&host()).unwrap();
        assert_eq!(serde_json::from_str::<Compatibility>(&text).unwrap(), host());
        let more = text.replacen('{', r#"{"firmware":"x","#, 1);
        assert!(serde_json::from_str::<Compatibility>(&more).is_err());
    }
}
