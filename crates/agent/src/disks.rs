//! Disks by the serial numbers that the host gave them, or by their order.

use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use crate::command_line;
use crate::error::{Error, trying};

/// The device of the disk that the host calls `serial`.
pub(crate) fn find(serial: &str) -> Result<PathBuf, Error> {
    let attempt = || format!("looking for disk '{serial}'");
    let none = || Error::new(attempt(), "the host gave this machine no such disk");
    if let Some(names) = command_line::value(command_line::DISKS)? {
        return in_order(&names, serial).map(PathBuf::from).ok_or_else(none);
    }
    for entry in fs::read_dir("/sys/block").map_err(trying(attempt()))? {
        let entry = entry.map_err(trying(attempt()))?;
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim() == serial {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(none())
}

/// The kernel names disks by letters as it finds them.
fn in_order(names: &str, wanted: &str) -> Option<String> {
    let letters = names.split(',').zip('a'..='z');
    letters.filter(|(name, _)| *name == wanted).map(|(_, letter)| format!("/dev/vd{letter}")).next()
}

/// Left to itself ext4 reads and initialises its tables in the background: the first thing that every clone would do, and
/// all of it for tables that most of them never use.
const SCRATCH_OPTIONS: &CStr = c"noinit_itable,no_prefetch_block_bitmaps";

/// Mounts a disk that is only read at `at`, making that directory.
pub(crate) fn mount_image(serial: &str, at: &str) -> Result<(), Error> {
    mount_disk(serial, "erofs", MountFlags::RDONLY, None, at)
}

/// Mounts the disk that is written to at `at`, making that directory.
pub(crate) fn mount_scratch(at: &str) -> Result<(), Error> {
    mount_disk("scratch", "ext4", MountFlags::NOATIME, Some(SCRATCH_OPTIONS), at)
}

fn mount_disk(
    serial: &str,
    kind: &str,
    flags: MountFlags,
    options: Option<&CStr>,
    at: &str,
) -> Result<(), Error> {
    let device = find(serial)?;
    fs::create_dir_all(at).map_err(trying(format!("making {at}")))?;
    mount(&device, at, kind, flags, options).map_err(trying(format!("mounting disk '{serial}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_the_letters_of_their_order() {
        assert_eq!(in_order("code,scratch", "code").as_deref(), Some("/dev/vda"));
        assert_eq!(in_order("code,scratch", "scratch").as_deref(), Some("/dev/vdb"));
        assert_eq!(in_order("code,scratch", "scr"), None);
        assert_eq!(in_order("", "x"), None);
    }
}
