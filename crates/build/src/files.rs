//! What is asked of files in more than one place.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Bytes of a block as file systems count them.
const BLOCK: u64 = 512;

/// What a file takes on the disk, holes aside.
pub(crate) fn bytes_on_disk(file: &Metadata) -> u64 {
    file.blocks() * BLOCK
}
