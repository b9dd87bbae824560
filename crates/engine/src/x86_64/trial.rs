//! The guest that KVM is tried with: three instructions, in real mode.

use kvm_ioctls::{Error, VcpuExit, VcpuFd, VmFd};

/// Where its code is, in the guest.
pub(crate) const CODE: u64 = 0x1000;
/// `mov al, 42; out 0x10, al; hlt`.
pub(crate) const PROGRAM: [u8; 5] = [0xb0, ANSWER, 0xe6, PORT as u8, 0xf4];
/// Where KVM keeps three pages of its own on Intel's processors: below the firmware, as VMMs have it.
const TSS: usize = 0xfffb_d000;
const PORT: u16 = 0x10;
const ANSWER: u8 = 42;

/// Gives the machine what it needs before it has a vCPU.
pub(crate) fn furnish(vm: &VmFd) -> Result<(), Error> {
    vm.set_tss_address(TSS)
}

/// Has the vCPU begin with the program.
pub(crate) fn begin(vcpu: &VcpuFd) -> Result<(), Error> {
    let mut segments = vcpu.get_sregs()?;
    (segments.cs.base, segments.cs.selector) = (0, 0);
    vcpu.set_sregs(&segments)?;
    let mut registers = vcpu.get_regs()?;
    (registers.rip, registers.rflags) = (CODE, 2);
    vcpu.set_regs(&registers)
}

/// Whether the program was executed.
pub(crate) fn has_answered(exit: &VcpuExit<'_>) -> bool {
    matches!(exit, VcpuExit::IoOut(PORT, [ANSWER]))
}
