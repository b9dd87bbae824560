//! Files with holes: read without filling the page cache with zeros, and made so.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

/// What file systems give back.
const PAGE: u64 = 4096;
/// What is read at a time.
const PIECE: u64 = 1 << 20;

/// Where the first byte from `at` on is that is not in a hole.
pub(crate) fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    next(file, SeekFrom::Data(at))
}

/// Where the first hole from `at` on is; the end of the file counts as one.
fn next_hole(file: &File, at: u64) -> io::Result<Option<u64>> {
    next(file, SeekFrom::Hole(at))
}

fn next(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Fills `buffer` from byte `offset` of the file on.
pub(crate) fn read(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let end = offset + buffer.len() as u64;
    let mut at = offset;
    while at < end {
        let data = next_data(file, at)?.unwrap_or(end).min(end);
        buffer[(at - offset) as usize..(data - offset) as usize].fill(0);
        let hole = if data < end { next_hole(file, data)?.unwrap_or(end).min(end) } else { end };
        file.read_exact_at(&mut buffer[(data - offset) as usize..(hole - offset) as usize], data)?;
        at = hole;
    }
    Ok(())
}

/// Gives back what the pages of a file take that are all zeros; it reads the same. Nothing may write to it
/// meanwhile. Blocks for as long as reading what is not in holes takes.
pub fn punch_zeros(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut buffer = vec![0; PIECE as usize];
    let mut at = 0;
    while let Some(data) = next_data(&file, at)? {
        at = data - data % PAGE;
        let piece = &mut buffer[..(length - at).min(PIECE) as usize];
        file.read_exact_at(piece, at)?;
        let pages = piece.chunks(PAGE as usize).map(|page| page.iter().all(|byte| *byte == 0));
        let zeros: Vec<bool> = pages.collect();
        let mut start = at;
        for run in zeros.chunk_by(|one, two| one == two) {
            let bytes = run.len() as u64 * PAGE;
            if run[0] {
                fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, bytes)?;
            }
            start += bytes;
        }
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = super::PAGE as usize;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn punching_keeps_the_content_and_gives_zeros_back(
            pages in proptest::collection::vec(any::<Option<bool>>(), 1..700),
        ) {
            // Not written, written with zeros, written.
            let file = tempfile::NamedTempFile::new().unwrap();
            let (path, file) = (file.path(), file.as_file());
            let mut content = vec![0; pages.len() * PAGE];
            file.set_len(content.len() as u64).unwrap();
            for (page, written) in pages.iter().enumerate() {
                if let Some(filled) = written {
                    let bytes = &mut content[page * PAGE..][..PAGE];
                    bytes[PAGE - 1] = u8::from(*filled);
                    file.write_all_at(bytes, (page * PAGE) as u64).unwrap();
                }
            }
            punch_zeros(path).unwrap();
            file.sync_all().unwrap();
            let mut found = vec![1; content.len()];
            read(file, 0, &mut found).unwrap();
            prop_assert!(found == content);
            let filled = pages.iter().filter(|page| **page == Some(true)).count() as u64;
            // Whatever the file system adds for its own records.
            prop_assert!(file.metadata().unwrap().blocks() * 512 <= (filled + 8) * PAGE as u64);
        }
    }
}
