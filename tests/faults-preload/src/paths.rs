//! Which file a call is about.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What an open file is called now; nothing for sockets and the like.
pub(crate) fn of_fd(fd: c_int) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    path.is_absolute().then_some(path)
}

/// What a path means beside a directory's descriptor.
///
/// # Safety
/// `path` is null or ends with a zero.
pub(crate) unsafe fn at(directory: c_int, path: *const c_char) -> Option<PathBuf> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let base = if directory == libc::AT_FDCWD { std::env::current_dir().ok() } else { of_fd(directory) };
    Some(base?.join(path))
}
