//! The container's `/etc/machine-id`: a file of the agent's own that is mounted there, so that a new life's is written
//! without a look at the container's files.

use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Error, trying};

/// In the agent's root.
const SOURCE: &str = "/machine-id";
const PLACE: &str = "/etc/machine-id";
const KERNEL_UUID: &str = "/proc/sys/kernel/random/uuid";

/// The file, kept open: finding it is nothing that a clone should have to do for the first time.
pub(crate) struct MachineId(File);

impl MachineId {
    /// Makes the file, with an id drawn at random.
    pub(crate) fn draw() -> Result<Self, Error> {
        let uuid = fs::read_to_string(KERNEL_UUID).map_err(trying("drawing a machine id"))?;
        let file = File::create(SOURCE).map_err(trying("making the machine id"))?;
        fs::set_permissions(SOURCE, Permissions::from_mode(0o444))
            .map_err(trying("opening up the machine id"))?;
        let made = Self(file);
        made.set(uuid.trim().replace('-', "").as_str())?;
        Ok(made)
    }

    /// Gives the container another one: 32 hexadecimal digits, as every id has.
    pub(crate) fn set(&self, id: &str) -> Result<(), Error> {
        self.0.write_all_at(format!("{id}\n").as_bytes(), 0).map_err(trying("writing the machine id"))
    }
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
