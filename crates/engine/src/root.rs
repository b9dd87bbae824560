//! A root file system for one VMM: an empty one in memory, in a mount namespace of the VMM's own, on which nothing is but
//! its files, and its devices.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::jail::{JailError, JailFile, JailPlan, step};
use crate::spec::Jail;

/// Directories and mount points need next to nothing.
const OPTIONS: &std::ffi::CStr = c"mode=0755,size=256k";
const LOCKED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Leaves every file but the plan's behind.
pub(crate) fn enter(root: &Path, plan: &JailPlan) -> Result<(), JailError> {
    // Joined by nobody else: messages and semaphores are no way to another VMM either.
    step("making a mount namespace", leave(UnshareFlags::NEWNS | UnshareFlags::NEWIPC))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("keeping mounts to itself", mount_change("/", private))?;
    step("making a root", mount("tmpfs", root, "tmpfs", MountFlags::NOSUID, OPTIONS))?;
    for file in &plan.files {
        let Some(at) = &file.at else { continue };
        step(format!("giving it {}", file.path.display()), bind(file, &inside(root, at), plan))?;
    }
    for device in &plan.devices {
        step(format!("giving it {}", device.display()), make_device(device, &inside(root, device), plan))?;
    }
    let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::BIND;
    step("sealing the root", mount_remount(root, read_only, c""))?;
    step("entering the root", pivot(root))
}

fn leave(what: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors, which are what a thread could be cut off from, stay shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(what) }?)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn make_parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| DirBuilder::new().recursive(true).mode(0o755).create(parent))
}

fn bind(file: &JailFile, to: &Path, plan: &JailPlan) -> io::Result<()> {
    make_parents(to)?;
    if file.path.is_dir() {
        fs::create_dir(to)?;
    } else {
        File::create_new(to)?;
    }
    if file.writable {
        chown(&file.path, Some(plan.uid), Some(plan.gid))?;
    }
    mount_bind(&file.path, to)?;
    let program = plan.command.first().is_some_and(|program| Some(Path::new(program)) == file.at.as_deref());
    let access = if file.writable { MountFlags::empty() } else { MountFlags::RDONLY };
    let execution = if program { MountFlags::empty() } else { MountFlags::NOEXEC };
    Ok(mount_remount(to, MountFlags::BIND | LOCKED | access | execution, c"")?)
}

/// A node of its own, as the host's may be for a group alone.
fn make_device(device: &Path, to: &Path, plan: &JailPlan) -> io::Result<()> {
    make_parents(to)?;
    let number = fs::metadata(device)?.rdev();
    rustix::fs::mknodat(CWD, to, FileType::CharacterDevice, Mode::from_raw_mode(0o600), number)?;
    chown(to, Some(plan.uid), Some(plan.gid))
}

fn pivot(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

/// Puts the file `from` in the place of the empty file `at` in the root of a VMM that runs already, for its user to
/// write to. Blocks for less than a millisecond.
pub(crate) fn put(pid: i32, from: &Path, at: &Path, jail: &Jail) -> io::Result<()> {
    chown(from, Some(jail.uid), Some(jail.gid))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, from, flags)?;
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    // A thread of its own: it does not come back from there.
    let thread = std::thread::scope(|scope| scope.spawn(|| attach(&tree, &namespace, at)).join());
    thread.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

fn attach(tree: &OwnedFd, namespace: &File, at: &Path) -> io::Result<()> {
    // A mount namespace is joined only by what shares its directories with no other thread.
    leave(UnshareFlags::FS)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(mount_remount(at, MountFlags::BIND | LOCKED | MountFlags::NOEXEC, c"")?)
}
