//! What VMMs without a root of their own see of the host's files: their program, the system's libraries, QEMU's data, their own `/proc`. Read-only.
//!
//! It is a mount namespace that one process makes and another keeps: the server opens it and hands it to each jail, and
//! VMMs that outlive the server hold it themselves. Nothing of it is left once nobody does. Joining it takes a VMM's start
//! microseconds; making one for each would take milliseconds.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};

use crate::jail::{JailError, step};

/// First of the arguments by which a jail makes the files instead of confining itself; programs follow.
pub(crate) const MAKE: &str = "--make-shared-root";
/// What a program needs besides itself, as far as it is there. Each name stands for itself and all below.
const NEEDED: [&str; 10] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/kvm",
    // Without it QEMU does not map memory that is not reserved.
    "/proc/sys/vm/overcommit_memory",
];
/// Hidden in the new namespace, and nowhere else, while its files are put together.
const WORKSHOP: &str = "/tmp";
/// Where a VMM finds itself; of the rest of `/proc` there is only what is needed.
const PROCESSES: &str = "processes";
/// Said once everything is in place.
const READY: &str = "ready";

/// The files, for as long as this is kept or a VMM runs in them.
#[derive(Debug)]
pub struct VmmRoot(OwnedFd);

impl VmmRoot {
    /// Makes them for `programs`, given by absolute paths that are no links, by `jailer`: the program, and the arguments, behind which [`crate::jail::exec`] gets its
    /// own. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`JailError::Step`]; it needs root's rights.
    pub fn make(jailer: &[OsString], programs: &[PathBuf]) -> Result<Self, JailError> {
        const ATTEMPT: &str = "making the files that VMMs see";
        let no_jailer = || JailError::Arguments("the jailer".into());
        let (program, first) = jailer.split_first().ok_or_else(no_jailer)?;
        let mut maker = Command::new(program)
            .args(first)
            .arg(MAKE)
            .args(programs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| JailError::Step { step: ATTEMPT.into(), source })?;
        let made = keep(&mut maker);
        // Its input is closed with this: it ends, and says what went wrong where something did.
        let told = step(ATTEMPT, maker.wait_with_output())?;
        made.ok_or_else(|| {
            let why = String::from_utf8_lossy(&told.stderr).trim().to_owned();
            JailError::Step { step: ATTEMPT.into(), source: io::Error::other(why) }
        })
    }

    /// For the jail's command line, before a plan's own arguments. They are good while this is kept.
    #[must_use]
    pub fn jail_args(&self) -> [OsString; 2] {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        ["--shared-root".into(), path.into()]
    }
}

/// Takes hold of the maker's namespace once it is ready.
fn keep(maker: &mut std::process::Child) -> Option<VmmRoot> {
    let mut line = String::new();
    BufReader::new(maker.stdout.as_mut()?).read_line(&mut line).ok()?;
    let namespace = File::open(format!("/proc/{}/ns/mnt", maker.id())).ok()?;
    (line.trim() == READY).then(|| VmmRoot(namespace.into()))
}

/// The maker: puts the files together in a namespace of its own, says so, and waits until its input is closed.
pub(crate) fn serve(programs: &[PathBuf]) -> Result<(), JailError> {
    // SAFETY: the flag asks for a new namespace only; this process has one thread.
    let unshared = match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    step("making a mount namespace", unshared)?;
    let recursive = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("keeping mounts private", mount_change("/", recursive))?;
    let mut pieces = Vec::new();
    for path in NEEDED.iter().map(PathBuf::from) {
        if let Some(piece) = step(format!("taking {}", path.display()), Piece::take(&path))? {
            pieces.push((path, piece));
        }
    }
    for path in programs {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, "a program must be there, by an absolute path");
        let piece = if path.is_absolute() { Piece::take(path) } else { Ok(None) };
        let piece = piece.and_then(|piece| piece.ok_or_else(missing));
        pieces.push((path.clone(), step(format!("taking {}", path.display()), piece)?));
    }
    step("making a root", put_together(&pieces))?;
    let mut stdout = io::stdout();
    step("saying so", writeln!(stdout, "{READY}").and_then(|()| stdout.flush()))?;
    // Whatever ends it: whoever wanted the namespace has it by then, or does not want it any more.
    let _ = io::stdin().read(&mut [0]);
    Ok(())
}

/// Something of the host's that belongs to the files.
enum Piece {
    Link(PathBuf),
    Directory(OwnedFd),
    File(OwnedFd),
}

impl Piece {
    /// Nothing where it is not there.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let kind = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?.file_type(),
        };
        if kind.is_symlink() {
            return Ok(Some(Self::Link(fs::read_link(path)?)));
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags)?;
        Ok(Some(if kind.is_dir() { Self::Directory(tree) } else { Self::File(tree) }))
    }

    fn place(&self, at: &Path) -> io::Result<()> {
        let tree = match self {
            Self::Link(target) => return symlink(target, at),
            Self::Directory(tree) => {
                fs::create_dir(at)?;
                tree
            }
            Self::File(tree) => {
                File::create_new(at)?;
                tree
            }
        };
        move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        // A device is used, not changed; what is mounted read-only could not be opened for writing all the same.
        let device = if at.starts_with(Path::new(WORKSHOP).join("dev")) {
            MountFlags::empty()
        } else {
            MountFlags::NODEV
        };
        Ok(mount_remount(at, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | device, c"")?)
    }
}

fn put_together(pieces: &[(PathBuf, Piece)]) -> io::Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("vmm-root", WORKSHOP, "tmpfs", safe, c"mode=0755,size=1m")?;
    let workshop = Path::new(WORKSHOP);
    let mut placed: Vec<&Path> = Vec::new();
    for (path, piece) in pieces {
        // What a directory holds is there with it.
        if placed.iter().any(|placed| path.starts_with(placed)) {
            continue;
        }
        let Ok(inside) = path.strip_prefix("/") else { continue };
        let at = workshop.join(inside);
        at.parent().map_or(Ok(()), fs::create_dir_all)?;
        piece.place(&at)?;
        placed.push(path);
    }
    let processes = workshop.join(PROCESSES);
    fs::create_dir(&processes)?;
    let read_only = safe | MountFlags::RDONLY;
    // Its files are handed to a VMM by `/proc/self/fd`; no other process shows.
    mount("proc", &processes, "proc", read_only, c"hidepid=invisible,subset=pid")?;
    fs::create_dir_all(workshop.join("proc"))?;
    symlink(format!("/{PROCESSES}/self"), workshop.join("proc/self"))?;
    std::env::set_current_dir(workshop)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(mount_remount("/", read_only, c"")?)
}
