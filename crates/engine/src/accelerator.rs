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
