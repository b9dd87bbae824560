//! A VMM's private memory, seen from outside through `/proc`: which pages it wrote, their content, their cost.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use snapshot::chain::{Chain, ChainError, Pages};
use snapshot::diff::{Geometry, ReadError, Summary, WriteError};

use crate::arch::PAGE;
use crate::spec::Restore;

/// Entries of a pagemap read at a time.
const PAGEMAP_BATCH: usize = 1 << 16;
/// Pagemap: the page is in memory, or in swap.
const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
/// Pagemap: the page belongs to the file, not to the process.
const FILE_OR_SHARED: u64 = 1 << 61;

/// What a machine costs the host, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Proportional set size: shared pages divided among those that map them.
    pub pss: u64,
    /// Pages that only this machine has, and wrote.
    pub private_dirty: u64,
}

/// Why a VMM's memory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// `/proc` could not be read.
    #[error("reaching the VMM's memory (has the machine ended?): {0}")]
    Proc(#[from] io::Error),
    /// The mapping is not where it should be.
    #[error("the VMM does not map its base memory file as expected; kill the machine")]
    Mapping,
    /// The diff was made over another base.
    #[error("the memory diff belongs to a machine of another size; discard it")]
    Geometry,
    /// Writing the diff failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Reading the diff failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The layers are not what was written.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Opens layers of memory over their base, the oldest first, and verifies that they belong together.
pub fn open_layers(base: &Path, layers: &[PathBuf]) -> Result<Chain, ChainError> {
    Chain::open(base, PAGE as u32, layers)
}

/// The layers to restore from, if there are any.
pub(crate) fn open_chain(from: &Restore) -> Result<Option<Chain>, MemoryError> {
    if from.layers.is_empty() {
        return Ok(None);
    }
    Ok(Some(open_layers(&from.base_memory, &from.layers)?))
}

/// Writes the layers' pages over the private mapping of `base` in a VMM whose machine does not run yet.
pub(crate) async fn load_layers(
    pid: i32,
    base: &Path,
    breaks: Breaks,
    layers: Chain,
) -> Result<(), MemoryError> {
    let base = base.to_owned();
    let load = move || Mapping::find(pid, &base, breaks)?.load(&layers);
    tokio::task::spawn_blocking(load).await.map_err(io::Error::other)?
}

impl MemoryError {
    /// Whether what was saved is at fault, and not the reading of it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Geometry => true,
            Self::Read(error) => error.is_damage(),
            Self::Chain(error) => error.is_damage(),
            Self::Proc(_) | Self::Mapping | Self::Write(_) => false,
        }
    }
}

/// Where in a memory file, in bytes, a VMM begins another mapping of it: each is somewhere else in its address space.
pub(crate) type Breaks = &'static [u64];

/// One piece of the guest's memory in the VMM's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Where in the VMM's address space.
    address: u64,
    /// Where in the guest's memory file.
    offset: u64,
    length: u64,
}

/// A part of an address space, private to its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Private {
    start: u64,
    end: u64,
    /// Zero where it is of no file.
    inode: u64,
    /// Where in the file.
    offset: u64,
}

/// The private mapping of a base memory file in a VMM, which may have put memory of no file in the place of parts of it:
/// of those that its guest gave back. What they hold no guest relies on.
#[derive(Debug)]
pub(crate) struct Mapping {
    pid: i32,
    geometry: Geometry,
    pieces: Vec<Piece>,
}

impl Mapping {
    /// Finds it. `base` is the file that the VMM was given.
    pub(crate) fn find(pid: i32, base: &Path, breaks: Breaks) -> Result<Self, MemoryError> {
        let file = std::fs::metadata(base)?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let pieces =
            pieces(&parse_maps(&maps), file.ino(), file.len(), breaks).ok_or(MemoryError::Mapping)?;
        let geometry = Geometry { page_size: PAGE as u32, memory_size: file.len() };
        Ok(Self { pid, geometry, pieces })
    }

    /// Writes what differs from the layers `below` into `file`, durably. The machine must be stopped.
    pub(crate) fn save(
        &self,
        below: &Chain,
        file: &File,
        given_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<Summary, MemoryError> {
        self.check(below)?;
        let touched = self.private_pages()?;
        let memory = File::open(format!("/proc/{}/mem", self.pid))?;
        let read = |offset, buffer: &mut [u8]| {
            self.each(offset, buffer.len(), |address, range| {
                memory.read_exact_at(&mut buffer[range], address)
            })
        };
        Ok(below.save(file, &touched, read, given_up)?)
    }

    /// Writes the layers' pages over the base. The machine must not run yet.
    pub(crate) fn load(&self, layers: &Chain) -> Result<(), MemoryError> {
        self.check(layers)?;
        let memory = File::options().write(true).open(format!("/proc/{}/mem", self.pid))?;
        layers.restore(|offset, bytes| {
            self.each(offset, bytes.len(), |address, range| memory.write_all_at(&bytes[range], address))
        })?;
        Ok(())
    }

    fn check(&self, layers: &Chain) -> Result<(), MemoryError> {
        if layers.geometry() == self.geometry { Ok(()) } else { Err(MemoryError::Geometry) }
    }

    /// Calls `act` with the address of every part of the guest's memory from `offset` on and its range of the buffer.
    fn each(
        &self,
        offset: u64,
        length: usize,
        mut act: impl FnMut(u64, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset + length as u64;
        for piece in &self.pieces {
            let (from, to) = (offset.max(piece.offset), end.min(piece.offset + piece.length));
            if from < to {
                act(piece.address + (from - piece.offset), (from - offset) as usize..(to - offset) as usize)?;
            }
        }
        Ok(())
    }

    fn private_pages(&self) -> io::Result<Vec<Pages>> {
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid))?;
        let mut runs = Vec::new();
        let mut batch = vec![0; PAGEMAP_BATCH * 8];
        for piece in &self.pieces {
            let pages = piece.length / PAGE;
            for first in (0..pages).step_by(PAGEMAP_BATCH) {
                let count = (pages - first).min(PAGEMAP_BATCH as u64) as usize;
                pagemap.read_exact_at(&mut batch[..count * 8], (piece.address / PAGE + first) * 8)?;
                collect_private(&batch[..count * 8], piece.offset / PAGE + first, &mut runs);
            }
        }
        Ok(runs)
    }
}

/// Appends the private pages among the pagemap entries of the pages from `first` on.
fn collect_private(entries: &[u8], first: u64, runs: &mut Vec<Pages>) {
    for (page, entry) in (first..).zip(entries.chunks_exact(8)) {
        let mut word = [0; 8];
        word.copy_from_slice(entry);
        let entry = u64::from_ne_bytes(word);
        if entry & PRESENT_OR_SWAPPED == 0 || entry & FILE_OR_SHARED != 0 {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(page..page + 1),
        }
    }
}

/// Where a file of `size` bytes is mapped, one piece between each two breaks; none where it is not.
fn pieces(maps: &[Private], inode: u64, size: u64, breaks: Breaks) -> Option<Vec<Piece>> {
    let inner = breaks.iter().copied().filter(|&at| at < size);
    let starts = [0].into_iter().chain(inner.clone());
    let ends = inner.chain([size]);
    starts.zip(ends).map(|(start, end)| piece(maps, inode, start, end)).collect()
}

/// From `offset` to `end` of the file, by any part of it that is still of the file.
fn piece(maps: &[Private], inode: u64, offset: u64, end: u64) -> Option<Piece> {
    let is_part = |map: &&Private| {
        map.inode == inode && map.offset < end && offset < map.offset + (map.end - map.start)
    };
    let part = maps.iter().find(is_part)?;
    let address = (part.start + offset).checked_sub(part.offset)?;
    let length = end - offset;
    let belongs = |map: &&Private| match map.inode {
        0 => true,
        other => other == inode && map.start + offset == map.offset + address,
    };
    // They come in the order of their addresses.
    let covered = maps.iter().filter(belongs).fold(address, |covered, map| {
        if (map.start..map.end).contains(&covered) { map.end } else { covered }
    });
    (covered >= address + length).then_some(Piece { address, offset, length })
}

fn parse_maps(maps: &str) -> Vec<Private> {
    maps.lines().filter_map(parse_map).collect()
}

fn parse_map(line: &str) -> Option<Private> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let access = fields.next()?;
    let private = access.starts_with("rw") && access.ends_with('p');
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let inode: u64 = fields.nth(1)?.parse().ok()?;
    (private && start < end).then_some(Private { start, end, inode, offset })
}

/// Bytes that only this process has: what it wrote, of its guest's memory too. A fraction of what [`usage`] takes.
pub(crate) fn private_bytes(pid: i32) -> Option<u64> {
    parse_status(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_status(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What the process costs.
pub(crate) fn usage(pid: i32) -> Result<MemoryUse, MemoryError> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/smaps_rollup"))?.read_to_string(&mut text)?;
    Ok(parse_rollup(&text))
}

fn parse_rollup(text: &str) -> MemoryUse {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    MemoryUse { pss: field("Pss:"), private_dirty: field("Private_Dirty:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "7f0000000000-7f0000001000 rw-p 00000000 08:01 42   /a b (deleted)\n\
                        7f0000001000-7f0000003000 rw-p 00000000 00:00 0\n\
                        7f0000003000-7f0000004000 rw-p 00003000 08:01 42   /a b (deleted)\n\
                        7f0000004000-7f0000005000 rw-s 00000000 08:01 42   /a\n\
                        7f0000007000-7f0000008000 rw-p 00000000 00:00 0\n\
                        7f0000008000-7f0000009000 rw-p 00005000 08:01 42   /a\n\
                        7f000000a000-7f000000c000 r--p 00000000 08:01 43   /c\n\
                        garbage\n7f-\n";

    fn found(inode: u64, pages: u64, breaks: Breaks) -> Option<Vec<(u64, u64, u64)>> {
        let pieces = pieces(&parse_maps(MAPS), inode, pages * PAGE, breaks)?;
        let page = |piece: &Piece| {
            ((piece.address - 0x7f00_0000_0000) / PAGE, piece.offset / PAGE, piece.length / PAGE)
        };
        Some(pieces.iter().map(page).collect())
    }

    #[test]
    fn a_memory_is_found_where_parts_of_it_are_of_no_file() {
        assert_eq!(found(42, 4, &[]), Some(vec![(0, 0, 4)]));
        assert_eq!(found(42, 6, &[4 * PAGE]), Some(vec![(0, 0, 4), (7, 4, 2)]));
        assert_eq!(found(42, 4, &[4 * PAGE, 9 * PAGE]), Some(vec![(0, 0, 4)]), "a break beyond its end");
        assert_eq!(found(42, 4, &[2 * PAGE]), Some(vec![(0, 0, 2), (2, 2, 2)]), "one behind the other");
    }

    #[test]
    fn a_memory_that_is_not_mapped_whole_is_not_found() {
        for (inode, pages, breaks) in [
            (42, 5, &[] as Breaks),
            (42, 6, &[]),
            (42, 7, &[4 * PAGE]),
            (42, 6, &[5 * PAGE]),
            (43, 2, &[]),
            (44, 1, &[]),
            (42, 0, &[]),
        ] {
            assert_eq!(found(inode, pages, breaks), None, "{inode} {pages} {breaks:?}");
        }
    }

    #[test]
    fn private_pages_are_those_present_and_not_the_files() {
        let entries = [1 << 63, 1 << 62, 0, 1 << 63 | 1 << 61, 1 << 63];
        let bytes: Vec<u8> = entries.iter().flat_map(|entry: &u64| entry.to_ne_bytes()).collect();
        let mut runs = Vec::new();
        collect_private(&bytes, 10, &mut runs);
        assert_eq!(runs, [10..12, 14..15]);
    }

    #[test]
    fn private_memory_is_what_is_anonymous() {
        assert_eq!(
            parse_status("VmRSS:\t  900 kB\nRssAnon:\t     40 kB\nRssFile:\t 860 kB\n"),
            Some(40 << 10)
        );
        assert_eq!(parse_status("Name: x"), None, "a thread of the kernel");
        assert!(private_bytes(std::process::id().cast_signed()).is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn rollup_is_in_bytes() {
        let text =
            "00-ff ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss:   3 kB\nPss_Dirty: 7 kB\nPrivate_Dirty:  2 kB\n";
        assert_eq!(parse_rollup(text), MemoryUse { pss: 3072, private_dirty: 2048 });
    }
}
