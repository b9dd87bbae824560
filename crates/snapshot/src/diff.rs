//! One layer of a suspended machine's memory: the pages in which it differs from what lies below.
//!
//! Layout, little-endian: a header in a page of its own, the pages that are not all zeros in the order in which they
//! came, and a table of all pages in ascending order, each with its place and CRC-32. The header carries the
//! SHA-256 of the table, by which the layer is known, and that of the layer below. It is written last, so a file
//! whose writing was cut short is never taken for a layer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

const MAGIC: [u8; 8] = *b"RKDIFF\r\n";
const VERSION: u32 = 2;
const HEADER_LEN: usize = 128;
const ENTRY_LEN: usize = 12;
/// In place of a slot: the page is all zeros and takes no bytes.
const ZERO: u32 = u32::MAX;

/// The largest machine memory that a layer can describe.
pub const MAX_MEMORY_BYTES: u64 = 1 << 40;
/// The most pages in a layer, 32 GiB of 4 KiB; bounds the table read into memory.
pub const MAX_PAGES: u64 = 1 << 23;

/// What a layer is known by; all zeros for the base.
pub type Id = [u8; 32];

/// What a layer is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes in a page: a power of two from 4 KiB to 1 MiB.
    pub page_size: u32,
    /// Bytes of the machine's memory: a multiple of the page size.
    pub memory_size: u64,
}

impl Geometry {
    pub(crate) fn pages(self) -> u64 {
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

/// What a layer contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Pages in which it differs from what lies below, all-zero ones included.
    pub pages: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The caller described an impossible machine.
    #[error("memory of {memory_size} bytes in pages of {page_size} cannot be described by a diff", memory_size = .0.memory_size, page_size = .0.page_size)]
    Geometry(Geometry),
    /// A page came twice, or lies outside of memory.
    #[error("page {0} is out of bounds, or was given twice")]
    Page(u64),
    /// Too many.
    #[error("{0} pages are more than a diff can hold ({MAX_PAGES})")]
    TooManyPages(u64),
    /// Reading the machine's memory failed.
    #[error("reading the memory at byte {offset} for a diff: {source}")]
    Source {
        /// Where in the machine's memory.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The layers below could not be read.
    #[error("comparing with the layers below: {0}")]
    Below(#[from] ReadError),
    /// Writing the file failed.
    #[error("writing the diff file (is the disk full?): {0}")]
    File(#[source] io::Error),
    /// The caller no longer wants it.
    #[error("the diff was given up")]
    GivenUp,
}

/// Why a layer cannot be used. Whoever meets one must not start the machine.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file's content is not what was written.
    #[error("the diff file is damaged ({0}); restore it from a copy or discard this snapshot")]
    Damaged(&'static str),
    /// Written by another version.
    #[error("the diff file has format version {0}, this program reads {VERSION}; discard this snapshot")]
    Version(u32),
    /// Layers of different chains.
    #[error("the diff file does not belong over the layer below it; discard this snapshot")]
    Foreign,
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

impl ReadError {
    /// Whether the file is at fault, and not the reading of it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Version(_) | Self::Foreign)
    }
}

/// Where a page's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) page: u32,
    slot: u32,
    checksum: u32,
}

impl Entry {
    /// Whether `next` follows upon it both in memory and in the file, so that both can be read at once.
    pub(crate) fn precedes(self, next: Self) -> bool {
        let in_file = if self.slot == ZERO {
            next.slot == ZERO
        } else {
            next.slot != ZERO && next.slot == self.slot + 1
        };
        in_file && next.page == self.page + 1
    }
}

/// Pages on their way into a layer.
#[derive(Debug)]
pub(crate) struct Batch {
    page_size: usize,
    zeros: Vec<u8>,
    pages: Vec<Entry>,
    bytes: Vec<u8>,
}

impl Batch {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let page_size = geometry.page_size as usize;
        Self { page_size, zeros: vec![0; page_size], pages: vec![], bytes: vec![] }
    }

    pub(crate) fn push(&mut self, page: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let page = u32::try_from(page).map_err(|_| WriteError::Page(page))?;
        if bytes == self.zeros {
            self.pages.push(Entry { page, slot: ZERO, checksum: 0 });
        } else {
            // Its number within the batch, until the batch is written.
            let slot = (self.bytes.len() / self.page_size) as u32;
            self.pages.push(Entry { page, slot, checksum: crc32fast::hash(bytes) });
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Bytes that it will take in the file.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes a layer; several threads may put batches into it at once.
#[derive(Debug)]
pub(crate) struct Writer<'f> {
    file: &'f File,
    geometry: Geometry,
    below: Id,
    slots: AtomicU32,
    entries: Mutex<Vec<Entry>>,
}

impl<'f> Writer<'f> {
    /// Into the empty `file`, over the layer `below`.
    pub(crate) fn new(file: &'f File, geometry: Geometry, below: Id) -> Result<Self, WriteError> {
        if !geometry.is_valid() {
            return Err(WriteError::Geometry(geometry));
        }
        Ok(Self { file, geometry, below, slots: AtomicU32::new(0), entries: Mutex::default() })
    }

    /// Writes a batch and empties it.
    pub(crate) fn put(&self, batch: &mut Batch) -> Result<(), WriteError> {
        let page = u64::from(self.geometry.page_size);
        let slots = (batch.bytes.len() as u64 / page) as u32;
        let first = self.slots.fetch_add(slots, Ordering::Relaxed);
        let at = page + u64::from(first) * page;
        self.file.write_all_at(&batch.bytes, at).map_err(WriteError::File)?;
        batch.bytes.clear();
        let placed = batch.pages.drain(..).map(|entry| match entry.slot {
            ZERO => entry,
            slot => Entry { slot: first + slot, ..entry },
        });
        // A thread that panicked with the lock held left a batch out, and panics the writing as a whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).extend(placed);
        Ok(())
    }

    /// Writes table and header and makes the file durable.
    pub(crate) fn finish(self) -> Result<Summary, WriteError> {
        let mut entries = self.entries.into_inner().unwrap_or_else(PoisonError::into_inner);
        let count = entries.len() as u64;
        if count > MAX_PAGES {
            return Err(WriteError::TooManyPages(count));
        }
        entries.sort_unstable_by_key(|entry| entry.page);
        let twice = entries.array_windows().find(|[one, two]| one.page == two.page).map(|[one, _]| one);
        let beyond = entries.last().filter(|last| u64::from(last.page) >= self.geometry.pages());
        if let Some(entry) = twice.or(beyond) {
            return Err(WriteError::Page(entry.page.into()));
        }
        let table: Vec<u8> = entries.iter().flat_map(encode).collect();
        let slots = self.slots.into_inner();
        let at = table_start(self.geometry, slots);
        let header = Header {
            geometry: self.geometry,
            pages: count as u32,
            slots,
            id: Sha256::digest(&table).into(),
            below: self.below,
        };
        let write = || {
            self.file.set_len(at + table.len() as u64)?;
            self.file.write_all_at(&table, at)?;
            self.file.write_all_at(&header.encode(), 0)?;
            self.file.sync_all()
        };
        write().map_err(WriteError::File)?;
        Ok(Summary { pages: count, file_bytes: at + table.len() as u64 })
    }
}

fn table_start(geometry: Geometry, slots: u32) -> u64 {
    u64::from(geometry.page_size) * (u64::from(slots) + 1)
}

fn encode(entry: &Entry) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    bytes[0..4].copy_from_slice(&entry.page.to_le_bytes());
    bytes[4..8].copy_from_slice(&entry.slot.to_le_bytes());
    bytes[8..12].copy_from_slice(&entry.checksum.to_le_bytes());
    bytes
}

#[derive(Debug)]
struct Header {
    geometry: Geometry,
    pages: u32,
    slots: u32,
    id: Id,
    below: Id,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.geometry.page_size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.geometry.memory_size.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.pages.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.slots.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.id);
        bytes[64..96].copy_from_slice(&self.below);
        let checksum = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
        bytes[HEADER_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, ReadError> {
        if bytes[..8] != MAGIC {
            return Err(ReadError::Damaged("not a diff file"));
        }
        // Before the checksum, whose place is the version's too.
        match u32_at(bytes, 8) {
            VERSION => {}
            other => return Err(ReadError::Version(other)),
        }
        if crc32fast::hash(&bytes[..HEADER_LEN - 4]) != u32_at(bytes, HEADER_LEN - 4) {
            return Err(ReadError::Damaged("checksum of the header"));
        }
        let memory_size = u64::from(u32_at(bytes, 16)) | u64::from(u32_at(bytes, 20)) << 32;
        let (mut id, mut below) = (Id::default(), Id::default());
        id.copy_from_slice(&bytes[32..64]);
        below.copy_from_slice(&bytes[64..96]);
        let geometry = Geometry { page_size: u32_at(bytes, 12), memory_size };
        let header = Self { geometry, pages: u32_at(bytes, 24), slots: u32_at(bytes, 28), id, below };
        let fits = u64::from(header.pages) <= MAX_PAGES && header.slots <= header.pages;
        if !geometry.is_valid() || !fits {
            return Err(ReadError::Damaged("impossible sizes"));
        }
        // The checksum covers these bytes; a non-zero one would be a field that we do not know.
        if bytes[96..HEADER_LEN - 4].iter().any(|byte| *byte != 0) {
            return Err(ReadError::Damaged("reserved header bytes"));
        }
        Ok(header)
    }
}

/// A layer whose header and table have been verified.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    header: Header,
    entries: Vec<Entry>,
}

impl Reader {
    /// Verifies header, table and length of `file`. The pages are verified as they are read.
    pub(crate) fn open(file: File) -> Result<Self, ReadError> {
        let length = file.metadata().map_err(ReadError::File)?.len();
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0).map_err(truncated)?;
        let header = Header::decode(&header)?;
        let at = table_start(header.geometry, header.slots);
        let mut table = vec![0; header.pages as usize * ENTRY_LEN];
        if at + table.len() as u64 != length {
            return Err(ReadError::Damaged("length"));
        }
        file.read_exact_at(&mut table, at).map_err(truncated)?;
        if header.id != Id::from(Sha256::digest(&table)) {
            return Err(ReadError::Damaged("checksum of the table"));
        }
        let entries = decode_table(&table, &header)?;
        Ok(Self { file, header, entries })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.header.geometry
    }

    pub(crate) fn id(&self) -> Id {
        self.header.id
    }

    pub(crate) fn below(&self) -> Id {
        self.header.below
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Fills `buffer` with pages that lie one behind the other from `first` on, as [`Entry::precedes`] says.
    pub(crate) fn read(&self, first: Entry, buffer: &mut [u8]) -> Result<(), ReadError> {
        if first.slot == ZERO {
            buffer.fill(0);
            return Ok(());
        }
        let page = u64::from(self.header.geometry.page_size);
        self.file.read_exact_at(buffer, page * (u64::from(first.slot) + 1)).map_err(truncated)
    }

    /// Compares what was read of `entries` with their checksums.
    pub(crate) fn check<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry>,
        buffer: &[u8],
    ) -> Result<(), ReadError> {
        let mut pages = entries.zip(buffer.chunks_exact(self.header.geometry.page_size as usize));
        match pages.all(|(entry, bytes)| entry.slot == ZERO || crc32fast::hash(bytes) == entry.checksum) {
            true => Ok(()),
            false => Err(ReadError::Damaged("checksum of a page")),
        }
    }
}

fn truncated(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Damaged("cut short"),
        _ => ReadError::File(error),
    }
}

fn decode_table(table: &[u8], header: &Header) -> Result<Vec<Entry>, ReadError> {
    let entry =
        |bytes: &[u8]| Entry { page: u32_at(bytes, 0), slot: u32_at(bytes, 4), checksum: u32_at(bytes, 8) };
    let entries: Vec<Entry> = table.chunks_exact(ENTRY_LEN).map(entry).collect();
    let ascend = entries.array_windows().all(|[one, two]| one.page < two.page);
    let inside = entries.last().is_none_or(|last| u64::from(last.page) < header.geometry.pages());
    let placed = entries.iter().all(|entry| entry.slot == ZERO || entry.slot < header.slots);
    if ascend && inside && placed { Ok(entries) } else { Err(ReadError::Damaged("impossible pages")) }
}

/// `at + 4` is within `bytes` at every call: lengths are constants.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), sealed: bool) {
            let mut bytes = bytes;
            if sealed && bytes.len() >= HEADER_LEN {
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
                let checksum = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
                bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
            }
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            prop_assert!(Reader::open(file).is_err());
        }
    }

    const GEOMETRY: Geometry = Geometry { page_size: 4096, memory_size: 4096 * 8 };

    #[test]
    fn a_file_cut_short_or_grown_is_refused() {
        for change in [-1_i64, -4096, 1] {
            let file = tempfile::tempfile().unwrap();
            let writer = Writer::new(&file, GEOMETRY, Id::default()).unwrap();
            let mut batch = Batch::new(GEOMETRY);
            batch.push(3, &[7; 4096]).unwrap();
            writer.put(&mut batch).unwrap();
            let summary = writer.finish().unwrap();
            file.set_len((summary.file_bytes as i64 + change) as u64).unwrap();
            assert!(Reader::open(file).is_err(), "{change}");
        }
    }

    #[test]
    fn pages_out_of_bounds_or_given_twice_are_refused() {
        for pages in [[8, 1], [2, 2]] {
            let file = tempfile::tempfile().unwrap();
            let writer = Writer::new(&file, GEOMETRY, Id::default()).unwrap();
            let mut batch = Batch::new(GEOMETRY);
            pages.iter().for_each(|page| batch.push(*page, &[1; 4096]).unwrap());
            writer.put(&mut batch).unwrap();
            assert!(matches!(writer.finish(), Err(WriteError::Page(_))));
        }
    }

    #[test]
    fn the_format_before_is_refused_by_its_number() {
        let file = tempfile::tempfile().unwrap();
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&1_u32.to_le_bytes());
        file.write_all_at(&header, 0).unwrap();
        assert!(matches!(Reader::open(file), Err(ReadError::Version(1))));
    }
}
