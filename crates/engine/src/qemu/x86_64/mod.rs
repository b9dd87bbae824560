//! Machines of this architecture, in QEMU's terms.

pub(crate) mod clock;
pub(crate) mod cpu;

use crate::accelerator::Accelerator;
use crate::arch::tsc;
use crate::spec::MachineSpec;

/// QEMU's program for it.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The machine type and its options. It has no versions: QEMU's own stands for them (see [`crate::Compatibility`]). Its
/// interval timer, which no kernel would use, would wake the processor 36 times a second as long as the machine lives. Of its
/// two interrupt controllers KVM can be the first alone (see [`KVM_OPTIONS`]).
pub(crate) const MACHINE: &str = "microvm,acpi=on,rtc=on,pit=off,ioapic2=off";
/// Devices on its bus, whose interrupts the first controller has.
pub(crate) const DEVICES: usize = 8;
/// The accelerator with all of the machine's interrupt controllers in it. By itself this type of machine has some of them in
/// QEMU, and a suspension that comes between a guest's end of an interrupt and QEMU's hearing of it leaves the device
/// silent for ever: what KVM has yet to tell is no part of a saved state.
pub(crate) const KVM_OPTIONS: &str = "kvm,kernel-irqchip=on";
/// What a clone would run at once, because time has passed since its snapshot, and every system call for modules without a
/// policy, is left out: lockup detectors, and the security modules that Debian stacks.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 reboot=t panic=-1 quiet edd=off random.trust_cpu=on tsc=reliable \
     no_timer_check nowatchdog lsm=landlock,yama";
/// An emulated processor does not speculate, and pays dearly for the precautions; and each piece of code that is left out
/// need not be translated, by which a clone's first answer comes sooner.
const EMULATED_COMMAND_LINE: &str =
    "mitigations=off init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off psi=0";

/// What the kernel is told before a machine's own.
pub(crate) fn kernel_command_line(accelerator: Accelerator) -> String {
    match accelerator {
        // The guest has a clock of KVM's own.
        Accelerator::Kvm => KERNEL_COMMAND_LINE.to_owned(),
        Accelerator::Tcg => {
            format!("{KERNEL_COMMAND_LINE} {EMULATED_COMMAND_LINE} tsc_early_khz={}", tsc::host_khz())
        }
    }
}

/// The machine's real size. Where memory would end at 2 GiB exactly, the boot ROM puts the initial RAM file system over
/// the firmware's own data, and the machine hangs: such a machine lacks one large page.
pub(crate) fn memory_mib(spec: &MachineSpec) -> u32 {
    if spec.memory_mib == 2048 { 2046 } else { spec.memory_mib }
}
