//! A suspended machine's memory: an immutable base, and the layers over it, of which the newest wins.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::diff::{Batch, Entry, Geometry, Id, ReadError, Reader, Summary, WriteError, Writer};
use crate::sparse;

/// The most layers over a base. A machine that is suspended upon so many is written against the base again.
pub const MAX_LAYERS: usize = 8;
/// As many layers are worth merging into one when there is time.
pub const MERGE_LAYERS: usize = 4;
/// What is compared, read or written at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// More threads than this only wait for the disk.
const MAX_THREADS: usize = 4;

/// Consecutive pages.
pub type Pages = Range<u64>;

/// Why the layers of a chain cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct ChainError {
    /// Which file.
    path: PathBuf,
    /// Why.
    source: ReadError,
}

impl ChainError {
    /// Whether a layer is at fault, and not the reading of it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.source.is_damage()
    }
}

/// Where the newest content of a page is.
#[derive(Debug, Clone, Copy)]
struct Place {
    layer: usize,
    entry: Entry,
}

impl Place {
    fn precedes(&self, next: &Self) -> bool {
        self.layer == next.layer && self.entry.precedes(next.entry)
    }
}

/// A base and the verified layers over it.
#[derive(Debug)]
pub struct Chain {
    base: File,
    geometry: Geometry,
    layers: Vec<Reader>,
    /// Of each page that is in a layer, in ascending order.
    places: Vec<Place>,
}

impl Chain {
    /// Opens the memory file `base` and the layers over it, the oldest first, and verifies that they belong together.
    /// The pages are verified as they are read.
    pub fn open(base: &Path, page_size: u32, layers: &[PathBuf]) -> Result<Self, ChainError> {
        let failed = |path: &Path, source| ChainError { path: path.to_owned(), source };
        let at = |path| move |error| failed(path, ReadError::File(error));
        let file = File::open(base).map_err(at(base))?;
        let memory_size = file.metadata().map_err(at(base))?.len();
        let geometry = Geometry { page_size, memory_size };
        let mut below = Id::default();
        let mut readers = Vec::with_capacity(layers.len());
        for path in layers {
            let layer = Reader::open(File::open(path).map_err(at(path))?).map_err(|e| failed(path, e))?;
            if layer.geometry() != geometry || layer.below() != below {
                return Err(failed(path, ReadError::Foreign));
            }
            below = layer.id();
            readers.push(layer);
        }
        let places = newest(&readers);
        Ok(Self { base: file, geometry, layers: readers, places })
    }

    /// Writes a layer over this chain into the empty `file` and makes it durable: whatever differs from the chain in
    /// the memory that `memory` reads, of which only the pages in `touched`, in ascending order, differ from the base.
    /// Ends early once `given_up` says so.
    pub fn save(
        &self,
        file: &File,
        touched: &[Pages],
        memory: impl Fn(u64, &mut [u8]) -> io::Result<()> + Sync,
        given_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<Summary, WriteError> {
        let below = self.layers.last().map_or_else(Id::default, Reader::id);
        let writer = Writer::new(file, self.geometry, below)?;
        let pieces = self.pieces(touched);
        let next = AtomicUsize::new(0);
        let work = || self.compare(&writer, &pieces, &next, &memory, given_up);
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let panicked = |_| Err(WriteError::File(io::Error::other("a thread that compared panicked")));
            others.into_iter().map(|other| other.join().unwrap_or_else(panicked)).fold(mine, Result::and)
        })?;
        writer.finish()
    }

    /// Takes pieces while there are any, and puts what differs into the layer.
    fn compare(
        &self,
        writer: &Writer<'_>,
        pieces: &[Pages],
        next: &AtomicUsize,
        memory: &(impl Fn(u64, &mut [u8]) -> io::Result<()> + Sync),
        given_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), WriteError> {
        let page = self.page();
        let (mut now, mut before) = (Vec::new(), Vec::new());
        let mut batch = Batch::new(self.geometry);
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if given_up() {
                return Err(WriteError::GivenUp);
            }
            let length = ((piece.end - piece.start) * page) as usize;
            now.resize(length, 0);
            before.resize(length, 0);
            let offset = piece.start * page;
            memory(offset, &mut now).map_err(|source| WriteError::Source { offset, source })?;
            self.read(piece.start, &mut before)?;
            let pages = now.chunks_exact(page as usize).zip(before.chunks_exact(page as usize));
            for (number, (now, before)) in piece.clone().zip(pages) {
                if now != before {
                    batch.push(number, now)?;
                }
            }
            if batch.len() as u64 >= PIECE_BYTES {
                writer.put(&mut batch)?;
            }
        }
        writer.put(&mut batch)
    }

    /// Hands the content of every page that is in a layer to `write`, as a byte offset of the memory and bytes: each
    /// page once, its newest content, verified.
    ///
    /// After an error an unknown part has been handed over: the receiver must be thrown away.
    pub fn restore(&self, mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> Result<(), ReadError> {
        self.each_run(|first, bytes| {
            let offset = u64::from(first) * self.page();
            write(offset, bytes).map_err(|source| ReadError::Apply { offset, source })
        })
    }

    /// Writes one layer that is worth all of this chain into the empty `file` and makes it durable.
    pub fn merge(&self, file: &File, given_up: &dyn Fn() -> bool) -> Result<Summary, WriteError> {
        let writer = Writer::new(file, self.geometry, Id::default())?;
        let mut batch = Batch::new(self.geometry);
        self.each_run(|first, bytes| {
            if given_up() {
                return Err(WriteError::GivenUp);
            }
            for (page, bytes) in (u64::from(first)..).zip(bytes.chunks_exact(self.page() as usize)) {
                batch.push(page, bytes)?;
            }
            writer.put(&mut batch)
        })?;
        writer.finish()
    }

    /// What the chain is relative to.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn page(&self) -> u64 {
        u64::from(self.geometry.page_size)
    }

    /// Calls `act` with the first page and the verified bytes of each run of pages that is in a layer.
    fn each_run<E: From<ReadError>>(
        &self,
        mut act: impl FnMut(u32, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let most = (PIECE_BYTES / self.page()) as usize;
        let mut buffer = Vec::new();
        for run in self.places.chunk_by(Place::precedes).flat_map(|run| run.chunks(most)) {
            buffer.resize(run.len() * self.page() as usize, 0);
            let layer = &self.layers[run[0].layer];
            layer.read(run[0].entry, &mut buffer)?;
            layer.check(run.iter().map(|place| &place.entry), &buffer)?;
            act(run[0].entry.page, &buffer)?;
        }
        Ok(())
    }

    /// Fills `buffer` with what the chain holds from the page `first` on. Unverified: a page that changed on the disk
    /// differs from the machine's, and so is written.
    fn read(&self, first: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let page = self.page();
        let end = first + buffer.len() as u64 / page;
        let index = |number: u64| self.places.partition_point(|place| u64::from(place.entry.page) < number);
        let at = |number: u64| ((number - first) * page) as usize;
        let mut from = first;
        for run in self.places[index(first)..index(end)].chunk_by(Place::precedes) {
            let start = u64::from(run[0].entry.page);
            let stop = start + run.len() as u64;
            self.read_base(from, &mut buffer[at(from)..at(start)])?;
            self.layers[run[0].layer].read(run[0].entry, &mut buffer[at(start)..at(stop)])?;
            from = stop;
        }
        self.read_base(from, &mut buffer[at(from)..])
    }

    fn read_base(&self, first: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        sparse::read(&self.base, first * self.page(), buffer).map_err(ReadError::File)
    }

    /// What may differ from the chain, in pieces: the touched pages, and those in a layer, which an untouched page
    /// differs from.
    fn pieces(&self, touched: &[Pages]) -> Vec<Pages> {
        let layered = self.places.iter().map(|place| u64::from(place.entry.page)).map(|page| page..page + 1);
        let mut all: Vec<Pages> = touched.iter().cloned().chain(layered).collect();
        all.sort_by_key(|pages| pages.start);
        let mut pieces: Vec<Pages> = Vec::with_capacity(touched.len());
        for pages in all {
            match pieces.last_mut() {
                Some(last) if pages.start <= last.end => last.end = last.end.max(pages.end),
                _ => pieces.push(pages),
            }
        }
        let most = PIECE_BYTES / self.page();
        let cut = |pages: Pages| {
            let end = pages.end;
            pages.step_by(most as usize).map(move |start| start..end.min(start + most))
        };
        pieces.into_iter().flat_map(cut).collect()
    }
}

fn newest(layers: &[Reader]) -> Vec<Place> {
    let all = layers.iter().enumerate();
    let mut places: Vec<Place> = all
        .flat_map(|(layer, reader)| reader.entries().iter().map(move |entry| Place { layer, entry: *entry }))
        .collect();
    places.sort_by_key(|place| (place.entry.page, std::cmp::Reverse(place.layer)));
    places.dedup_by_key(|place| place.entry.page);
    places
}

#[cfg(test)]
mod tests;
