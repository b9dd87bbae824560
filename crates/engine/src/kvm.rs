//! Whether this host's processor can execute guests. The device node alone proves nothing: it may belong to a hypervisor
//! that offers its guests a KVM without hardware behind it (paravirtual), with which no ordinary kernel runs.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kvm_bindings::{KVM_API_VERSION, kvm_userspace_memory_region};
use kvm_ioctls::Kvm;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::arch::{self, trial as guest};

/// How long the guest of the trial may take; it runs for microseconds.
const TRIAL_TIME: Duration = Duration::from_secs(2);
const PAGE: usize = arch::PAGE as usize;
/// What was found out about KVM. Displayed it completes a sentence: "KVM …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Found {
    /// A guest ran.
    #[error("runs guests")]
    Usable,
    /// The processor lacks it, or its hypervisor hides it.
    #[error("is not there, as the processor shows neither vmx nor svm")]
    Processor,
    /// There is a device in spite of that.
    #[error(
        "is a hypervisor's own (paravirtual): there is a /dev/kvm, but the processor shows neither vmx nor svm, and \
         ordinary kernels do not run with it"
    )]
    Paravirtual,
    /// The processor has it, the kernel not.
    #[error("is not loaded: there is no /dev/kvm")]
    Device,
    /// It is not given to us, or does not do what it should.
    #[error("does not run a guest: {0}")]
    Fails(String),
}

impl Found {
    /// What to do on a host that is to have KVM; empty where it is usable.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Usable => "",
            Self::Processor | Self::Paravirtual => {
                "use bare metal with virtualization enabled in its firmware, or a VM with nested virtualization"
            }
            Self::Device => "load kvm-intel or kvm-amd; in a container, give it /dev/kvm",
            Self::Fails(_) => "run as root, and see what the kernel's log says of kvm",
        }
    }
}

/// Looks at the processor, and has it execute a guest of three instructions. `cpuinfo`: `/proc/cpuinfo`.
#[must_use]
pub fn find(cpuinfo: &str) -> Found {
    judge(arch::has_virtualization(cpuinfo), std::path::Path::new("/dev/kvm").exists(), trial)
}

/// The trial is made only where the processor can: what a paravirtual KVM does with it says nothing.
fn judge(cpu_can: bool, device: bool, trial: impl FnOnce() -> Result<(), String>) -> Found {
    match (cpu_can, device) {
        (false, false) => Found::Processor,
        (false, true) => Found::Paravirtual,
        (true, false) => Found::Device,
        (true, true) => trial().map_or_else(Found::Fails, |()| Found::Usable),
    }
}

/// In a thread of its own, because a vCPU that never leaves its guest cannot be waited for; such a one is left behind.
fn trial() -> Result<(), String> {
    let (done, ended) = mpsc::channel();
    let runner = thread::Builder::new().name("kvm-trial".into());
    runner
        .spawn(move || done.send(run_guest().map_err(|error| error.to_string())))
        .map_err(|error| error.to_string())?;
    match ended.recv_timeout(TRIAL_TIME) {
        Ok(result) => result,
        Err(_) => Err(format!("it was not done within {} s", TRIAL_TIME.as_secs())),
    }
}

fn run_guest() -> io::Result<()> {
    let kvm = Kvm::new()?;
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err(io::Error::other("its interface is of another version"));
    }
    // Declared before the machine, so that it is dropped after it.
    let memory = Page::new()?;
    memory.fill(&guest::PROGRAM);
    let vm = kvm.create_vm()?;
    guest::furnish(&vm)?;
    let region = kvm_userspace_memory_region {
        guest_phys_addr: guest::CODE,
        memory_size: arch::PAGE,
        userspace_addr: memory.0 as u64,
        ..Default::default()
    };
    // SAFETY: the page is ours, is mapped for as long as the machine exists, and nothing else refers to it meanwhile.
    unsafe { vm.set_user_memory_region(region)? };
    let mut vcpu = vm.create_vcpu(0)?;
    guest::begin(&vcpu)?;
    match vcpu.run()? {
        exit if guest::has_answered(&exit) => Ok(()),
        other => Err(io::Error::other(format!("its first instructions end with {other:?}"))),
    }
}

/// A page of memory for a guest.
struct Page(*mut std::ffi::c_void);

impl Page {
    fn new() -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address that the kernel chooses, touches no other memory.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE, protection, flags)? };
        Ok(Self(page))
    }

    fn fill(&self, bytes: &[u8; guest::PROGRAM.len()]) {
        // SAFETY: the page is ours, writable, and larger than the program.
        unsafe { self.0.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody refers to it any more.
        let _ = unsafe { munmap(self.0, PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_processor_that_can_is_tried() {
        let never = || unreachable!("it is not tried");
        assert_eq!(judge(false, false, never), Found::Processor);
        assert_eq!(judge(false, true, never), Found::Paravirtual);
        assert_eq!(judge(true, false, never), Found::Device);
        assert_eq!(judge(true, true, || Ok(())), Found::Usable);
        assert_eq!(judge(true, true, || Err("no".into())), Found::Fails("no".into()));
    }

    #[test]
    fn whoever_lacks_it_is_told_what_to_do() {
        for found in [Found::Processor, Found::Paravirtual, Found::Device, Found::Fails("x".into())] {
            assert!(!found.advice().is_empty(), "{found}");
        }
        assert!(Found::Usable.advice().is_empty());
    }

    #[test]
    fn what_is_found_here_is_what_the_processor_says() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let found = find(&cpuinfo);
        let can = arch::has_virtualization(&cpuinfo);
        assert_eq!(can, !matches!(found, Found::Processor | Found::Paravirtual), "{found:?}");
    }
}
