//! Copying and hashing files that are mostly holes, by their data alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

const CHUNK: u64 = 1 << 20;

/// Copies `from` to the new file `to`, holes as holes.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (File::open(from)?, File::create_new(to)?);
    to.set_len(from.metadata()?.len())?;
    each_chunk(&from, |offset, bytes| to.write_all_at(bytes, offset))
}

/// Hashes length and content. A block of zeros counts as the hole that a copy of it may be.
pub(crate) fn hash(path: &Path, into: &mut Sha256) -> io::Result<()> {
    let file = File::open(path)?;
    into.update(file.metadata()?.len().to_le_bytes());
    each_chunk(&file, |offset, bytes| {
        if bytes.iter().any(|byte| *byte != 0) {
            into.update(offset.to_le_bytes());
            into.update(bytes);
        }
        Ok(())
    })
}

/// Calls `act` with every chunk that has data, at multiples of [`CHUNK`] wherever the data begins.
fn each_chunk(file: &File, mut act: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0; CHUNK as usize];
    let mut offset = 0;
    while let Some(data) = next_data(file, offset)? {
        let start = data / CHUNK * CHUNK;
        let chunk = &mut buffer[..(length - start).min(CHUNK) as usize];
        file.read_exact_at(chunk, start)?;
        act(start, chunk)?;
        offset = start + CHUNK;
    }
    Ok(())
}

/// Where the next data at or after `offset` begins.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const SIZE: u64 = 64 << 20;

    fn hashed(path: &Path) -> Vec<u8> {
        let mut hash = Sha256::new();
        super::hash(path, &mut hash).unwrap();
        hash.finalize().to_vec()
    }

    fn sparse(path: &Path) -> File {
        let file = File::create_new(path).unwrap();
        file.set_len(SIZE + 5).unwrap();
        file.write_all_at(b"near", 4096).unwrap();
        file.write_all_at(b"far", SIZE + 1).unwrap();
        file
    }

    #[test]
    fn a_copy_has_the_content_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        sparse(&from);
        copy(&from, &to).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        let allocated = to.metadata().unwrap().blocks() * 512;
        assert!(allocated <= 3 * CHUNK, "{allocated} bytes of {SIZE}");
        assert_eq!(hashed(&from), hashed(&to));
    }

    #[test]
    fn a_hash_tells_content_and_length_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let (first, second) = (sparse(&one), sparse(&two));
        first.write_all_at(&[0; 8192], 32 << 20).unwrap();
        assert_eq!(hashed(&one), hashed(&two));
        second.set_len(SIZE + 6).unwrap();
        assert_ne!(hashed(&one), hashed(&two));
        first.set_len(SIZE + 6).unwrap();
        first.write_all_at(b"!", 9).unwrap();
        assert_ne!(hashed(&one), hashed(&two));
    }
}
