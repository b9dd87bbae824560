//! The rights that a process of the container keeps: user, groups, capabilities, system calls and limits.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::error::{Error, trying};
use crate::seccomp;
use crate::user::Identity;

/// Docker's default capability set.
const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;
const LAST_CAPABILITY: u32 = 63;

/// As a Docker host has them where it runs under systemd: open files, soft and hard.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Makes this process one of the container's: with `all`, it keeps every capability and system call.
pub(crate) fn assume(identity: &Identity, all: bool) -> Result<(), Error> {
    set_limits()?;
    if !all {
        bound_capabilities()?;
    }
    become_user(identity)?;
    set_capabilities(all, identity.uid == 0)?;
    if !all {
        rustix::thread::set_no_new_privs(true).map_err(trying("setting no_new_privs"))?;
        seccomp::install()?;
    }
    Ok(())
}

fn set_limits() -> Result<(), Error> {
    let attempt = "setting limits";
    let open_files = Rlimit { current: Some(OPEN_FILES.0), maximum: Some(OPEN_FILES.1) };
    let unlimited = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Nofile, open_files).map_err(trying(attempt))?;
    setrlimit(Resource::Nproc, unlimited).map_err(trying(attempt))?;
    setrlimit(Resource::Core, unlimited).map_err(trying(attempt))
}

fn bound_capabilities() -> Result<(), Error> {
    for capability in (0..=LAST_CAPABILITY).filter(|bit| DEFAULT_CAPABILITIES >> bit & 1 == 0) {
        // SAFETY: the call takes numbers only. A capability that this kernel lacks needs no dropping.
        let dropped =
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) });
        match dropped {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                return Err(Error::new(format!("dropping capability {capability}"), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn become_user(identity: &Identity) -> Result<(), Error> {
    let attempt = "becoming the container's user";
    let groups = &identity.groups;
    // SAFETY: pointer and length are those of `groups`.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map_err(trying(attempt))?;
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::setresgid(identity.gid, identity.gid, identity.gid) }).map_err(trying(attempt))?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(identity.uid, identity.uid, identity.uid) }).map_err(trying(attempt))
}

/// Root holds the container's set; another user starts with none, as under Docker.
fn set_capabilities(all: bool, root: bool) -> Result<(), Error> {
    if all || !root {
        return Ok(());
    }
    let half = |shift: u32| (DEFAULT_CAPABILITIES >> shift) as u32;
    let header: [u32; 2] = [0x2008_0522, 0];
    let data = [half(0), half(0), 0, half(32), half(32), 0];
    // SAFETY: version 3 of this call reads a two-word header and two three-word sets.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) } as libc::c_int)
        .map_err(trying("setting capabilities"))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
