//! Which accelerator to use.

use serde::{Deserialize, Serialize};

use crate::kvm::{self, Found};

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
    field(cpuinfo, "vendor_id")
}

/// What `/proc/cpuinfo` says of the first processor.
pub(crate) fn field<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
}

/// What an operator wants of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// The best that works.
    #[default]
    Auto,
    /// Hardware virtualization, or nothing.
    Kvm,
    /// Software emulation, whatever there is.
    Emulation,
}

/// What is used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What.
    pub accelerator: Accelerator,
    /// A sentence's end: "because ...".
    pub why: String,
}

/// A wish that this host does not meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "hardware virtualization is asked for, but KVM {0}: {advice}; with accelerator = \"auto\" machines are emulated, several times \
     slower", advice = .0.advice()
)]
pub struct Unavailable(pub Found);

/// The choice on this host.
///
/// # Errors
/// [`Unavailable`] where it cannot be as wished.
pub fn find(wish: Wish) -> Result<Choice, Unavailable> {
    // Not looked at where nothing depends on it.
    if wish == Wish::Emulation {
        return choose(wish, Found::Processor);
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    choose(wish, kvm::find(&cpuinfo))
}

/// The choice where this is what was found of KVM.
///
/// # Errors
/// [`Unavailable`] where it cannot be as wished.
pub fn choose(wish: Wish, kvm: Found) -> Result<Choice, Unavailable> {
    let choice = |accelerator, why: String| Ok(Choice { accelerator, why });
    match (wish, kvm) {
        (Wish::Emulation, _) => choice(Accelerator::Tcg, "the settings ask for it".to_owned()),
        (_, Found::Usable) => choice(Accelerator::Kvm, format!("KVM {}", Found::Usable)),
        (Wish::Auto, found) => choice(Accelerator::Tcg, format!("KVM {found}")),
        (Wish::Kvm, found) => Err(Unavailable(found)),
    }
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
    fn the_best_that_works_is_taken_and_says_why() {
        let chosen = |wish, kvm| choose(wish, kvm).map(|choice| choice.accelerator);
        assert_eq!(chosen(Wish::Auto, Found::Usable), Ok(Accelerator::Kvm));
        assert_eq!(chosen(Wish::Kvm, Found::Usable), Ok(Accelerator::Kvm));
        assert_eq!(chosen(Wish::Emulation, Found::Usable), Ok(Accelerator::Tcg));
        for found in [Found::Processor, Found::Paravirtual, Found::Device, Found::Fails("x".into())] {
            let choice = choose(Wish::Auto, found.clone()).unwrap();
            assert_eq!(choice.accelerator, Accelerator::Tcg);
            assert!(choice.why.contains(&found.to_string()), "{}", choice.why);
        }
    }

    #[test]
    fn a_wish_that_cannot_be_met_says_what_to_do() {
        let refused = choose(Wish::Kvm, Found::Device).unwrap_err().to_string();
        for told in ["/dev/kvm", "load kvm-intel", "accelerator = \"auto\""] {
            assert!(refused.contains(told), "{told}: {refused}");
        }
    }
}
