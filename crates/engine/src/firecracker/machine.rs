//! A running Firecracker.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};

use super::paths;
use super::start::{self, Record};
use crate::Machine;
use crate::error::{CommandError, SaveError, StartError};
use crate::memory::{self, MemoryError, MemoryUse};
use crate::process::Process;
use crate::save::{DiffWrite, keep_state, sync_all};
use crate::spec::MachineSpec;

/// A Firecracker process.
#[derive(Debug)]
pub(crate) struct FirecrackerMachine {
    pub(crate) record: Record,
    pub(crate) process: Process,
    /// Where a guest that boots says that it listens; until it has.
    pub(crate) ready: Mutex<Option<UnixListener>>,
}

#[async_trait]
impl Machine for FirecrackerMachine {
    fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn moved(&mut self, spec: MachineSpec) -> Result<(), StartError> {
        self.record.spec = spec;
        self.record.write()
    }

    async fn channel(&self) -> io::Result<UnixStream> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ready) = ready {
            tokio::select! {
                told = ready.accept() => drop(told?),
                ended = self.process.wait_exit() => {
                    ended?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        start::channel(&self.record).await
    }

    async fn console(&self) -> Result<String, CommandError> {
        Ok(start::console(&self.record.spec.run_dir)?)
    }

    async fn pause(&self) -> Result<(), CommandError> {
        self.record.api().patch("/vm", &json!({"state": "Paused"})).await
    }

    async fn cont(&self) -> Result<(), CommandError> {
        self.resume().await
    }

    async fn save_full(&self, device_state: &Path) -> Result<(), SaveError> {
        if !self.record.booted {
            return Err(SaveError::Kind("booted"));
        }
        self.pause().await?;
        // Of a machine that booted, a diff is what it has touched: the file keeps its holes.
        self.create_snapshot("Diff", paths::MEMORY).await?;
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

    async fn save_diff(&self) -> Result<DiffWrite, SaveError> {
        if self.record.booted {
            return Err(SaveError::Kind("restored"));
        }
        self.save_state().await?;
        Ok(DiffWrite {
            pid: self.pid(),
            base: self.record.memory.clone(),
            state: self.record.state_out(),
            disks: self.record.spec.written_files(),
        })
    }

    fn kill(&self) -> io::Result<()> {
        self.process.kill()
    }

    async fn wait_exit(&self) -> io::Result<()> {
        self.process.wait_exit().await
    }

    async fn private_memory(&self) -> Result<MemoryUse, MemoryError> {
        memory::usage(self.pid())
    }
}

impl FirecrackerMachine {
    pub(crate) async fn resume(&self) -> Result<(), CommandError> {
        self.record.api().patch("/vm", &json!({"state": "Resumed"})).await
    }

    async fn create_snapshot(&self, kind: &str, memory: &str) -> Result<(), CommandError> {
        let snapshot =
            json!({"snapshot_type": kind, "snapshot_path": paths::STATE_OUT, "mem_file_path": memory});
        self.record.api().put("/snapshot/create", &snapshot).await
    }

    /// The device state alone. Firecracker writes memory too, after it, of which all that is in the host's page cache would
    /// count as changed: so that is refused a file, and what differs is found in the mapping (see [`memory`]).
    async fn save_state(&self) -> Result<(), CommandError> {
        let path = self.record.state_out();
        File::create(&path)?;
        match self.create_snapshot("Full", paths::NOWHERE).await {
            Err(CommandError::Refused { reason, .. })
                if reason.contains("memory backing file") && fs::metadata(&path)?.len() > 0 =>
            {
                Ok(())
            }
            Ok(()) => Err(CommandError::Protocol("memory was written to no file")),
            Err(error) => Err(error),
        }
    }

    /// A machine that was half started must not stay.
    pub(crate) async fn unless_failed(self, result: Result<(), StartError>) -> Result<Self, StartError> {
        if let Err(error) = result {
            if self.process.kill().is_ok() {
                let _ = self.process.wait_exit().await;
            }
            return Err(error);
        }
        Ok(self)
    }
}
