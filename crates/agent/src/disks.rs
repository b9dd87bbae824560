//! Disks by the serial numbers that the host gave them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use crate::error::{Error, trying};

/// The device whose virtio serial is `serial`.
pub(crate) fn find(serial: &str) -> Result<PathBuf, Error> {
    let attempt = || format!("looking for disk '{serial}'");
    for entry in fs::read_dir("/sys/block").map_err(trying(attempt()))? {
        let entry = entry.map_err(trying(attempt()))?;
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim() == serial {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(Error::new(attempt(), "the host gave this machine no such disk"))
}

/// Mounts the disk at `at`, making that directory.
pub(crate) fn mount_disk(serial: &str, kind: &str, flags: MountFlags, at: &str) -> Result<(), Error> {
    let device = find(serial)?;
    fs::create_dir_all(at).map_err(trying(format!("making {at}")))?;
    mount(&device, at, kind, flags, None).map_err(trying(format!("mounting disk '{serial}'")))
}
