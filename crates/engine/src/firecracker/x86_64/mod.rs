//! Machines of this architecture, in Firecracker's terms.

mod cpu;

use crate::memory::Breaks;

pub(crate) use cpu::{Lacking, cpu, supported, template};

/// What does not fit below a guest's devices is beyond its first 4 GiB.
pub(crate) const MEMORY_BREAKS: Breaks = &[3 << 30];

/// It ends the machine when the guest resets it by the keyboard's controller, of which there is nothing else.
pub(crate) const KERNEL_COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 quiet edd=off random.trust_cpu=on \
     nowatchdog lsm=landlock,yama 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";
