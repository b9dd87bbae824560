//! The part of a suspension that takes time: what a stopped machine differs in, written to the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use snapshot::chain::{Chain, ChainError};
use snapshot::diff::Summary;

use crate::error::SaveError;
use crate::memory::{Breaks, Mapping, MemoryError, open_layers};

/// Most bytes of device state accepted from a VMM.
const MAX_DEVICE_STATE: u64 = 64 << 20;

/// A machine that is stopped, about to be written. Blocks, and may be given up.
#[derive(Debug)]
pub struct DiffWrite {
    pub(crate) pid: i32,
    /// What its memory is a private mapping of.
    pub(crate) base: PathBuf,
    pub(crate) breaks: Breaks,
    /// What the VMM has written its device state to.
    pub(crate) state: PathBuf,
    /// What the machine writes to.
    pub(crate) disks: Vec<PathBuf>,
}

impl DiffWrite {
    /// Opens layers over the machine's base, the oldest first: such as it was restored from, or none.
    ///
    /// # Errors
    /// [`ChainError`] where they are damaged; over fewer of them, or none, the machine can be written all the same.
    pub fn below(&self, layers: &[PathBuf]) -> Result<Chain, ChainError> {
        open_layers(&self.base, layers)
    }

    /// Makes the disks durable, the device state as the new file `device`, and what differs from the layers `below` as
    /// the new layer `diff`. Once `given_up` says so, nothing more is begun, and the machine may go on meanwhile.
    ///
    /// # Errors
    /// [`SaveError`]; the files are of no use then.
    pub fn run(
        self,
        device: &Path,
        below: &Chain,
        diff: &Path,
        given_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<Summary, SaveError> {
        // Beside each other, so that they wait for the disk together.
        thread::scope(|scope| {
            let others = scope.spawn(|| {
                keep_state(&self.state, device)?;
                sync_all(&self.disks)
            });
            let memory = self.memory(below, diff, given_up);
            let panicked = |_| Err(MemoryError::from(io::Error::other("a thread panicked")).into());
            others.join().unwrap_or_else(panicked)?;
            memory
        })
    }

    fn memory(
        &self,
        below: &Chain,
        diff: &Path,
        given_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<Summary, SaveError> {
        let file = File::create(diff).map_err(file_error("creating", diff))?;
        Ok(Mapping::find(self.pid, &self.base, self.breaks)?.save(below, &file, given_up)?)
    }
}

/// Copies a VMM's device state, durably, because the VMM can still write to its own file.
pub(crate) fn keep_state(from: &Path, to: &Path) -> Result<(), SaveError> {
    let copy = || {
        if fs::metadata(from)?.len() > MAX_DEVICE_STATE {
            return Err(io::Error::other("the VMM's device state is too large"));
        }
        let mut file = File::create(to)?;
        io::copy(&mut io::Read::take(File::open(from)?, MAX_DEVICE_STATE), &mut file)?;
        file.sync_all()
    };
    copy().map_err(file_error("writing", to))
}

pub(crate) fn sync_all(paths: &[PathBuf]) -> Result<(), SaveError> {
    paths.iter().try_for_each(|path| {
        File::open(path).and_then(|file| file.sync_all()).map_err(file_error("syncing", path))
    })
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SaveError {
    let path = path.to_owned();
    move |source| SaveError::File { doing, path, source }
}
