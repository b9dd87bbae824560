//! VOLUMEs of an image: directories of the disk itself. The container's root is an overlay, in which nobody can make another:
//! container engines, for one, keep their images and containers in a volume.
//!
//! One that the image has files in stays where it is, in the root: what is seen there is the same.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree};

use crate::error::{Error, trying};

/// Of the disk.
const DISK: &str = "/scratch/volumes";
/// Most of an image.
const MAX_VOLUMES: usize = 64;

/// A volume's path in the container, and the directory of the disk for it, as a mount that is nowhere yet.
pub(crate) struct Volume {
    path: PathBuf,
    tree: OwnedFd,
}

/// Makes the directories, while the disk can be seen.
pub(crate) fn take(paths: &[String]) -> Result<Vec<Volume>, Error> {
    if paths.len() > MAX_VOLUMES {
        return Err(Error::new(
            "making volumes",
            format!("the image has {}, of at most {MAX_VOLUMES}", paths.len()),
        ));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let take = |(number, path): (usize, &String)| {
        let attempt = || format!("making volume {path}");
        let on_disk = format!("{DISK}/{number}");
        fs::create_dir_all(&on_disk).map_err(trying(attempt()))?;
        let tree = open_tree(CWD, &on_disk, flags).map_err(trying(attempt()))?;
        Ok(Volume { path: Path::new("/").join(path), tree })
    };
    paths.iter().enumerate().map(take).collect()
}

/// Mounts those that are empty, once the container's root is entered. With `all`, device nodes on them mean something.
pub(crate) fn place(volumes: &[Volume], all: bool) -> Result<(), Error> {
    volumes.iter().try_for_each(|volume| {
        let attempt = || format!("mounting volume {}", volume.path.display());
        fs::create_dir_all(&volume.path).map_err(trying(attempt()))?;
        let is_empty = fs::read_dir(&volume.path).map_err(trying(attempt()))?.next().is_none();
        if is_empty { place_one(volume, all, attempt) } else { Ok(()) }
    })
}

fn place_one(volume: &Volume, all: bool, attempt: impl Fn() -> String) -> Result<(), Error> {
    let path = &volume.path;
    let below = fs::metadata(path).map_err(trying(attempt()))?;
    move_mount(&volume.tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(trying(attempt()))?;
    if !all {
        let flags = MountFlags::BIND | MountFlags::NODEV | MountFlags::NOATIME;
        mount_remount(path, flags, c"").map_err(trying(attempt()))?;
    }
    chown(path, Some(below.uid()), Some(below.gid())).map_err(trying(attempt()))?;
    let mode = fs::Permissions::from_mode(below.mode() & 0o7777);
    fs::set_permissions(path, mode).map_err(trying(attempt()))
}
