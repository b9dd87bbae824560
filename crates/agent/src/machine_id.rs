//! The container's `/etc/machine-id`: a file of the agent's own that is mounted there, so that a new life's is written
//! without a look at the container's files.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Error, trying};

/// In the agent's root.
const SOURCE: &str = "/machine-id";
const PLACE: &str = "/etc/machine-id";
const KERNEL_UUID: &str = "/proc/sys/kernel/random/uuid";

/// Makes the file, with an id drawn at random.
pub(crate) fn prepare() -> Result<(), Error> {
    let uuid = fs::read_to_string(KERNEL_UUID).map_err(trying("drawing a machine id"))?;
    set(uuid.trim().replace('-', "").as_str())?;
    fs::set_permissions(SOURCE, Permissions::from_mode(0o444)).map_err(trying("opening up the machine id"))
}

/// Gives the container another one.
pub(crate) fn set(id: &str) -> Result<(), Error> {
    fs::write(SOURCE, format!("{id}\n")).map_err(trying("writing the machine id"))
}

/// A mount of the file, to be taken before the root is changed.
pub(crate) fn take() -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, SOURCE, flags).map_err(trying("taking the machine id"))
}

/// Puts it in its place, once the root is the container's and has an `/etc`.
pub(crate) fn place(file: &OwnedFd) -> Result<(), Error> {
    // A link in the image may lead anywhere; the file replaces it.
    let _ = fs::remove_file(PLACE);
    fs::write(PLACE, "").map_err(trying("making /etc/machine-id"))?;
    move_mount(file, "", CWD, PLACE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(trying("placing /etc/machine-id"))
}
