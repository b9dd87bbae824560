//! What the tests run on: what was asked for, and what servers say that they took.
//!
//! `REKINDLE_TEST_ENGINE` (qemu, firecracker) is asked for. `REKINDLE_TEST_ACCELERATOR` (kvm, emulation) is not, but must be what
//! a server takes by itself: one that quietly falls back to emulation fails its tests.

use std::ffi::OsString;
use std::sync::Mutex;

use crate::Json;

const ENGINE: &str = "REKINDLE_TEST_ENGINE";
const ACCELERATOR: &str = "REKINDLE_TEST_ACCELERATOR";

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// The engine that is asked for, if one is.
pub fn engine() -> Option<OsString> {
    std::env::var_os(ENGINE)
}

/// What `rekindle serve` is started with.
pub(crate) fn arguments() -> Vec<OsString> {
    engine().map_or_else(Vec::new, |engine| vec!["--engine".into(), engine])
}

/// Notes what a server took.
///
/// # Panics
/// Where it is not what was expected.
pub(crate) fn note(machines_by: &Json) {
    let [engine, accelerator, because] =
        ["engine", "accelerator", "because"].map(|name| machines_by[name].as_str().unwrap());
    let accelerator = if accelerator == "tcg" { "emulation" } else { accelerator };
    let found = format!("{engine} with {accelerator}, because {because}");
    let wanted = |name, found: &str| std::env::var(name).is_ok_and(|wanted| !is_meant(&wanted, found));
    if wanted(ENGINE, engine) || wanted(ACCELERATOR, accelerator) {
        panic!("the server runs VMs by {found}, and {ENGINE} and {ACCELERATOR} ask for something else");
    }
    *LAST.lock().unwrap() = Some(found);
}

/// Whether what was found, with a version or without, is what is called so.
fn is_meant(wanted: &str, found: &str) -> bool {
    found.split(' ').next().is_some_and(|name| name.eq_ignore_ascii_case(wanted))
}

/// What the server that was started last runs its MicroVMs by; all take the same.
pub fn last() -> String {
    LAST.lock().unwrap().clone().unwrap_or_else(|| "no server".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_meant_whatever_its_version() {
        assert!(is_meant("qemu", "QEMU 10.0.2") && is_meant("kvm", "kvm"));
        assert!(!is_meant("kvm", "emulation") && !is_meant("qemu", "Firecracker 1.17.0"));
    }
}
