//! A child in the namespaces that its parent has chosen for it, and how it ends.

use std::io;

use crate::error::{Error, trying};

/// Which of the two this process is.
pub(crate) enum Fork {
    Child,
    Parent(libc::pid_t),
}

/// Forks a helper, which has one thread.
pub(crate) fn fork() -> Result<Fork, Error> {
    // SAFETY: a helper has one thread, so the child may go on as freely as the parent.
    match unsafe { libc::fork() } {
        -1 => Err(trying("forking")(io::Error::last_os_error())),
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(child)),
    }
}

/// Waits for a child's end: its exit code, or 128 + the signal that killed it.
pub(crate) fn wait(child: libc::pid_t) -> Result<u8, Error> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Error::new("waiting for a child", error));
        }
    }
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
