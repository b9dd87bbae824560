//! The process of a VMM, whichever it is, and the record by which it is found again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{SaveError, StartError};
use crate::memory::Breaks;
use crate::process::{PID, Process};
use crate::save::{DiffWrite, keep_state, sync_all};
use crate::spec::MachineSpec;

const RECORD: &str = "machine.json";
const STATE_OUT: &str = "state.out";

/// What must be known to adopt a machine; stored before it is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) spec: MachineSpec,
    pub(crate) memory: PathBuf,
    /// Whether the memory file is the machine's own (booted) or a base (restored).
    pub(crate) booted: bool,
    /// By which name the VMM opens the file that it writes its device state to.
    pub(crate) state_out: String,
}

impl Record {
    /// A file of the machine's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.spec.run_dir.join(name)
    }

    /// See [`state_out`].
    pub(crate) fn state_out(&self) -> PathBuf {
        state_out(&self.spec.run_dir)
    }

    /// For a VMM that is about to be started.
    pub(crate) fn begin(&self) -> Result<(), StartError> {
        // A pid file left by an earlier machine must not be taken for this one's.
        let _ = fs::remove_file(self.path(PID));
        self.write()
    }

    fn write(&self) -> Result<(), StartError> {
        let path = self.path(RECORD);
        let json = serde_json::to_vec(self).map_err(io::Error::from);
        json.and_then(|json| fs::write(&path, json)).map_err(file_error("writing", &path))
    }
}

/// What the VMM of a machine's directory writes its device state to.
pub(crate) fn state_out(run_dir: &Path) -> PathBuf {
    run_dir.join(STATE_OUT)
}

/// A VMM that runs.
#[derive(Debug)]
pub(crate) struct Vmm {
    pub(crate) record: Record,
    pub(crate) process: Process,
}

impl Vmm {
    /// The VMM that was started in `dir`, where it still runs.
    pub(crate) fn adopt(dir: &Path) -> Result<Option<Self>, StartError> {
        let pid_file = dir.join(PID);
        let process = Process::from_pid_file(&pid_file).map_err(file_error("reading", &pid_file))?;
        let Some(process) = process else { return Ok(None) };
        let path = dir.join(RECORD);
        let record = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        Ok(Some(Self { record: record.map_err(file_error("reading", &path))?, process }))
    }

    /// From now on it is the machine of this `spec`.
    pub(crate) fn becomes(&mut self, spec: MachineSpec) -> Result<(), StartError> {
        self.record.spec = spec;
        self.record.write()
    }

    /// A machine that was half started must not stay.
    pub(crate) async fn unless_failed<T>(&self, result: Result<T, StartError>) -> Result<T, StartError> {
        if result.is_err() && self.process.kill().is_ok() {
            let _ = self.process.wait_exit().await;
        }
        result
    }

    /// Only a machine that booted has a memory file of its own.
    pub(crate) fn assert_booted(&self) -> Result<(), SaveError> {
        if self.record.booted { Ok(()) } else { Err(SaveError::Kind("booted")) }
    }

    /// Only a machine that was restored differs from a base.
    pub(crate) fn assert_restored(&self) -> Result<(), SaveError> {
        if self.record.booted { Err(SaveError::Kind("restored")) } else { Ok(()) }
    }

    /// Makes durable what a stopped machine that booted has written, and the device state as `device_state`.
    pub(crate) async fn keep(&self, device_state: &Path) -> Result<(), SaveError> {
        let (state, to) = (self.record.state_out(), device_state.to_owned());
        let mut files = self.record.spec.written_files();
        files.push(self.record.memory.clone());
        let work = move || {
            keep_state(&state, &to)?;
            sync_all(&files)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| SaveError::Memory(io::Error::other(error).into()))?
    }

    /// What a stopped machine that was restored differs in; its device state is written already.
    pub(crate) fn difference(&self, breaks: Breaks) -> DiffWrite {
        DiffWrite {
            pid: self.process.pid(),
            base: self.record.memory.clone(),
            breaks,
            state: self.record.state_out(),
            disks: self.record.spec.written_files(),
        }
    }
}

pub(crate) fn file_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StartError + 'a {
    move |source| StartError::File { doing, path: path.to_owned(), source }
}
