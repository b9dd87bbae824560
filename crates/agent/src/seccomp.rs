//! The system calls that the container's processes may make: Docker's default profile for its default capabilities.

mod profile;
mod program;
mod x86_64;

use std::io;

use crate::error::{Error, trying};
use program::Instruction;
use x86_64 as arch;

const ATTEMPT: &str = "limiting the system calls";

/// Binds this process and what it starts for good. It must have given up new privileges before.
pub(crate) fn install() -> Result<(), Error> {
    let program = program::assemble();
    let length = u16::try_from(program.len()).map_err(trying(ATTEMPT))?;
    let filter = Filter { length, program: program.as_ptr() };
    // Without the flag older kernels would slow every such process down, against what threads of one cannot do to it.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the filter points to as many instructions as it says, and the kernel copies them.
    let installed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    if installed < 0 { Err(trying(ATTEMPT)(io::Error::last_os_error())) } else { Ok(()) }
}

/// `struct sock_fprog`.
#[repr(C)]
struct Filter {
    length: u16,
    program: *const Instruction,
}
