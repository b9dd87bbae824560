//! The memory diff: the pages in which a machine's memory differs from its base.
//!
//! Layout, little-endian: a [`HEADER_LEN`]-byte header, a table of runs, then the runs' pages in table order,
//! starting at a page boundary. Header, table and each run carry a CRC-32. The header is written last, so a
//! file whose writing was cut short is never taken for a diff.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 8] = *b"RKDIFF\r\n";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 64;
const ENTRY_LEN: usize = 24;

/// The most bytes in one run: what is checked, and held in memory, at a time.
pub const MAX_RUN_BYTES: u64 = 1 << 20;
/// The largest machine memory that a diff can describe.
pub const MAX_MEMORY_BYTES: u64 = 1 << 40;
/// The most runs in a diff: one per page of 32 GiB; bounds the table read into memory.
pub const MAX_RUNS: u64 = 1 << 23;

/// What a diff is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes in a page: a power of two from 4 KiB to 1 MiB.
    pub page_size: u32,
    /// Bytes of the machine's memory: a multiple of the page size.
    pub memory_size: u64,
}

impl Geometry {
    fn pages(self) -> u64 {
        self.memory_size / u64::from(self.page_size)
    }

    fn is_valid(self) -> bool {
        self.page_size.is_power_of_two()
            && (4096..=1 << 20).contains(&self.page_size)
            && self.memory_size > 0
            && self.memory_size <= MAX_MEMORY_BYTES
            && self.memory_size.is_multiple_of(u64::from(self.page_size))
    }
}

/// Consecutive pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index of the first page.
    pub first_page: u64,
    /// How many pages.
    pub pages: u64,
}

/// What a diff contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Pages stored.
    pub pages: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

/// Why a diff could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The caller described an impossible machine.
    #[error("memory of {memory_size} bytes in pages of {page_size} cannot be described by a diff", memory_size = .0.memory_size, page_size = .0.page_size)]
    Geometry(Geometry),
    /// Runs must ascend, must not overlap and must lie in memory.
    #[error("run of {pages} pages at page {first_page} is out of order or out of bounds", pages = .0.pages, first_page = .0.first_page)]
    Run(Run),
    /// Too scattered.
    #[error("{0} runs are more than a diff can hold ({MAX_RUNS})")]
    TooManyRuns(u64),
    /// Reading the machine's memory failed.
    #[error("reading the memory at byte {offset} for a diff: {source}")]
    Source {
        /// Where in the machine's memory.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Writing the file failed.
    #[error("writing the diff file (is the disk full?): {0}")]
    File(#[source] io::Error),
}

/// Why a diff cannot be used. Whoever meets one must not start the machine.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file's content is not what was written.
    #[error("the diff file is damaged ({0}); restore it from a copy or discard this snapshot")]
    Damaged(&'static str),
    /// Written by another version.
    #[error("the diff file has format version {0}, this program reads {VERSION}")]
    Version(u32),
    /// Reading the file failed.
    #[error("reading the diff file: {0}")]
    File(#[source] io::Error),
    /// The receiver of the pages refused.
    #[error("applying the diff at memory byte {offset}: {source}")]
    Apply {
        /// Where in the machine's memory.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

/// Writes `runs` of a machine's memory into the empty `file` and makes it durable. `read` fills a buffer from a byte
/// offset of the memory.
pub fn write(
    file: &File,
    geometry: Geometry,
    runs: &[Run],
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Summary, WriteError> {
    let runs = split(geometry, runs)?;
    let page = u64::from(geometry.page_size);
    let mut table = Vec::with_capacity(runs.len() * ENTRY_LEN);
    let mut at = data_start(geometry, runs.len() as u64);
    let mut buffer = Vec::new();
    for run in &runs {
        let offset = run.first_page * page;
        buffer.resize((run.pages * page) as usize, 0);
        read(offset, &mut buffer).map_err(|source| WriteError::Source { offset, source })?;
        file.write_all_at(&buffer, at).map_err(WriteError::File)?;
        at += buffer.len() as u64;
        put_entry(&mut table, *run, crc32fast::hash(&buffer));
    }
    file.write_all_at(&table, HEADER_LEN as u64).map_err(WriteError::File)?;
    file.set_len(at).map_err(WriteError::File)?;
    file.sync_data().map_err(WriteError::File)?;
    let header = header(geometry, runs.len() as u64, crc32fast::hash(&table));
    file.write_all_at(&header, 0).map_err(WriteError::File)?;
    file.sync_all().map_err(WriteError::File)?;
    Ok(Summary { pages: runs.iter().map(|run| run.pages).sum(), file_bytes: at })
}

/// Checks the runs and cuts them into pieces of at most [`MAX_RUN_BYTES`].
fn split(geometry: Geometry, runs: &[Run]) -> Result<Vec<Run>, WriteError> {
    if !geometry.is_valid() {
        return Err(WriteError::Geometry(geometry));
    }
    let most = MAX_RUN_BYTES / u64::from(geometry.page_size);
    let mut pieces = Vec::with_capacity(runs.len());
    let mut next_free = 0;
    for run in runs {
        let end = run_end(*run, next_free, geometry).ok_or(WriteError::Run(*run))?;
        next_free = end;
        pieces.extend(
            (run.first_page..end)
                .step_by(most as usize)
                .map(|first_page| Run { first_page, pages: most.min(end - first_page) }),
        );
    }
    match pieces.len() as u64 {
        count if count > MAX_RUNS => Err(WriteError::TooManyRuns(count)),
        _ => Ok(pieces),
    }
}

/// The page after `run`, if the run is not empty, does not begin before `next_free` and lies in memory.
fn run_end(run: Run, next_free: u64, geometry: Geometry) -> Option<u64> {
    let end = run.first_page.checked_add(run.pages)?;
    (run.pages > 0 && run.first_page >= next_free && end <= geometry.pages()).then_some(end)
}

fn data_start(geometry: Geometry, runs: u64) -> u64 {
    (HEADER_LEN as u64 + runs * ENTRY_LEN as u64).next_multiple_of(u64::from(geometry.page_size))
}

fn put_entry(table: &mut Vec<u8>, run: Run, checksum: u32) {
    table.extend(run.first_page.to_le_bytes());
    table.extend(run.pages.to_le_bytes());
    table.extend(checksum.to_le_bytes());
    table.extend([0; 4]);
}

fn header(geometry: Geometry, runs: u64, table_checksum: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&geometry.page_size.to_le_bytes());
    header[16..24].copy_from_slice(&geometry.memory_size.to_le_bytes());
    header[24..32].copy_from_slice(&runs.to_le_bytes());
    header[32..36].copy_from_slice(&table_checksum.to_le_bytes());
    let checksum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// A diff whose header and table have been verified.
#[derive(Debug)]
pub struct Reader {
    file: File,
    geometry: Geometry,
    runs: Vec<(Run, u32)>,
    data_start: u64,
}

impl Reader {
    /// Verifies header, table and length of `file`. The pages are verified as they are read.
    pub fn open(file: File) -> Result<Self, ReadError> {
        let length = file.metadata().map_err(ReadError::File)?.len();
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0).map_err(truncated)?;
        let (geometry, count, table_checksum) = parse_header(&header)?;
        let data_start = data_start(geometry, count);
        if data_start > length.next_multiple_of(u64::from(geometry.page_size)) {
            return Err(ReadError::Damaged("shorter than its table"));
        }
        let mut table = vec![0; count as usize * ENTRY_LEN];
        file.read_exact_at(&mut table, HEADER_LEN as u64).map_err(truncated)?;
        if crc32fast::hash(&table) != table_checksum {
            return Err(ReadError::Damaged("checksum of the table"));
        }
        let runs = parse_table(&table, geometry)?;
        let reader = Self { file, geometry, runs, data_start };
        if reader.summary().file_bytes != length {
            return Err(ReadError::Damaged("length"));
        }
        Ok(reader)
    }

    /// What the diff is relative to.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How much the diff holds.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let pages = self.runs.iter().map(|(run, _)| run.pages).sum();
        Summary { pages, file_bytes: self.data_start + pages * u64::from(self.geometry.page_size) }
    }

    /// Hands every run to `write` as a byte offset of the memory and its bytes, each verified first.
    ///
    /// After an error an unknown part has been handed over: the receiver must be thrown away.
    pub fn apply(&self, mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> Result<(), ReadError> {
        let page = u64::from(self.geometry.page_size);
        let mut at = self.data_start;
        let mut buffer = Vec::new();
        for (run, checksum) in &self.runs {
            buffer.resize((run.pages * page) as usize, 0);
            self.file.read_exact_at(&mut buffer, at).map_err(truncated)?;
            if crc32fast::hash(&buffer) != *checksum {
                return Err(ReadError::Damaged("checksum of a run of pages"));
            }
            at += buffer.len() as u64;
            let offset = run.first_page * page;
            write(offset, &buffer).map_err(|source| ReadError::Apply { offset, source })?;
        }
        Ok(())
    }
}

fn truncated(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Damaged("cut short"),
        _ => ReadError::File(error),
    }
}

fn parse_header(header: &[u8; HEADER_LEN]) -> Result<(Geometry, u64, u32), ReadError> {
    if header[..8] != MAGIC {
        return Err(ReadError::Damaged("not a diff file"));
    }
    if crc32fast::hash(&header[..60]) != u32_at(header, 60) {
        return Err(ReadError::Damaged("checksum of the header"));
    }
    match u32_at(header, 8) {
        VERSION => {}
        other => return Err(ReadError::Version(other)),
    }
    // The checksum covers these bytes; a non-zero one would be a field that we do not know.
    if header[36..60].iter().any(|byte| *byte != 0) {
        return Err(ReadError::Damaged("reserved header bytes"));
    }
    let geometry = Geometry { page_size: u32_at(header, 12), memory_size: u64_at(header, 16) };
    let runs = u64_at(header, 24);
    if !geometry.is_valid() || runs > MAX_RUNS {
        return Err(ReadError::Damaged("impossible sizes"));
    }
    Ok((geometry, runs, u32_at(header, 32)))
}

fn parse_table(table: &[u8], geometry: Geometry) -> Result<Vec<(Run, u32)>, ReadError> {
    let most = MAX_RUN_BYTES / u64::from(geometry.page_size);
    let mut next_free = 0;
    let entry = |bytes: &[u8]| {
        let run = Run { first_page: u64_at(bytes, 0), pages: u64_at(bytes, 8) };
        next_free = run_end(run, next_free, geometry)
            .filter(|_| run.pages <= most)
            .ok_or(ReadError::Damaged("impossible run of pages"))?;
        Ok((run, u32_at(bytes, 16)))
    };
    table.chunks_exact(ENTRY_LEN).map(entry).collect()
}

/// `at + 4` is within `bytes` at every call: lengths are constants.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// `at + 8` is within `bytes` at every call: lengths are constants.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = 4096;
    const PAGES: usize = 600;

    fn memory(dirty: &[bool], seed: u8) -> Vec<u8> {
        let mut memory = vec![0; PAGES * PAGE];
        for (page, _) in dirty.iter().enumerate().filter(|(_, dirty)| **dirty) {
            for (at, byte) in memory[page * PAGE..][..PAGE].iter_mut().enumerate() {
                *byte = (at * 31 + page * 7) as u8 ^ seed;
            }
        }
        memory
    }

    fn runs(dirty: &[bool]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (page, _) in dirty.iter().enumerate().filter(|(_, dirty)| **dirty) {
            match runs.last_mut() {
                Some(run) if run.first_page + run.pages == page as u64 => run.pages += 1,
                _ => runs.push(Run { first_page: page as u64, pages: 1 }),
            }
        }
        runs
    }

    fn geometry() -> Geometry {
        Geometry { page_size: PAGE as u32, memory_size: (PAGES * PAGE) as u64 }
    }

    fn written(memory: &[u8], runs: &[Run]) -> (File, Summary) {
        let file = tempfile::tempfile().unwrap();
        let summary = write(&file, geometry(), runs, |at, buffer| {
            buffer.copy_from_slice(&memory[at as usize..][..buffer.len()]);
            Ok(())
        })
        .unwrap();
        (file, summary)
    }

    fn read(file: File) -> Result<Vec<u8>, ReadError> {
        let mut memory = vec![0; PAGES * PAGE];
        Reader::open(file)?.apply(|at, bytes| {
            memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(memory)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_was_written_is_read(dirty in proptest::collection::vec(any::<bool>(), PAGES), seed: u8) {
            let memory = memory(&dirty, seed);
            let (file, summary) = written(&memory, &runs(&dirty));
            prop_assert_eq!(summary.file_bytes, file.metadata().unwrap().len());
            prop_assert!(read(file).unwrap() == memory);
        }

        #[test]
        fn any_flipped_bit_that_matters_fails_closed(at in 0_u64..400_000, bit in 0_u8..8) {
            let dirty: Vec<bool> = (0..PAGES).map(|page| page % 7 == 0).collect();
            let memory = memory(&dirty, 5);
            let (file, summary) = written(&memory, &runs(&dirty));
            let at = at % summary.file_bytes;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            // Padding between table and pages says nothing; anything else must be noticed.
            let table_end = (HEADER_LEN + runs(&dirty).len() * ENTRY_LEN) as u64;
            let padding = table_end..data_start(geometry(), runs(&dirty).len() as u64);
            prop_assert_eq!(read(file).is_err(), !padding.contains(&at));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), magic: bool) {
            let mut bytes = bytes;
            if magic && bytes.len() >= HEADER_LEN {
                bytes[..8].copy_from_slice(&MAGIC);
                let checksum = crc32fast::hash(&bytes[..60]);
                bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
            }
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            prop_assert!(read(file).is_err());
        }
    }

    #[test]
    fn a_file_cut_short_or_grown_is_refused() {
        let dirty = vec![true; PAGES];
        let memory = memory(&dirty, 1);
        for change in [-1_i64, -4096, 1] {
            let (file, summary) = written(&memory, &runs(&dirty));
            file.set_len((summary.file_bytes as i64 + change) as u64).unwrap();
            assert!(read(file).is_err(), "{change}");
        }
    }

    #[test]
    fn runs_out_of_order_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let far = Run { first_page: PAGES as u64, pages: 1 };
        let twice = Run { first_page: 1, pages: 2 };
        let none = Run { first_page: 1, pages: 0 };
        for runs in [vec![far], vec![twice, twice], vec![none]] {
            assert!(matches!(write(&file, geometry(), &runs, |_, _| Ok(())), Err(WriteError::Run(_))));
        }
    }
}
