//! A running Firecracker.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};

use super::api::Api;
use super::{arch, paths, start};
use crate::Machine;
use crate::error::{CommandError, SaveError, StartError};
use crate::memory::{self, MemoryError, MemoryUse};
use crate::save::DiffWrite;
use crate::spec::MachineSpec;
use crate::vmm::Vmm;

/// A Firecracker process.
#[derive(Debug)]
pub(crate) struct FirecrackerMachine {
    pub(crate) vmm: Vmm,
    /// Where a guest that boots says that it listens; until it has.
    pub(crate) ready: Mutex<Option<UnixListener>>,
}

#[async_trait]
impl Machine for FirecrackerMachine {
    fn pid(&self) -> i32 {
        self.vmm.process.pid()
    }

    fn moved(&mut self, spec: MachineSpec) -> Result<(), StartError> {
        self.vmm.becomes(spec)
    }

    async fn channel(&self) -> io::Result<UnixStream> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ready) = ready {
            tokio::select! {
                told = ready.accept() => drop(told?),
                ended = self.vmm.process.wait_exit() => {
                    ended?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        start::channel(&self.vmm.record).await
    }

    async fn console(&self) -> Result<String, CommandError> {
        Ok(start::console(&self.vmm.record.spec.run_dir)?)
    }

    async fn pause(&self) -> Result<(), CommandError> {
        self.api().patch("/vm", &json!({"state": "Paused"})).await
    }

    async fn cont(&self) -> Result<(), CommandError> {
        self.resume().await
    }

    async fn save_full(&self, device_state: &Path) -> Result<(), SaveError> {
        self.vmm.assert_booted()?;
        self.pause().await?;
        // Of a machine that booted, a diff is what it has touched: the file keeps its holes.
        self.create_snapshot("Diff", paths::MEMORY).await?;
        self.vmm.keep(device_state).await
    }

    async fn save_diff(&self) -> Result<DiffWrite, SaveError> {
        self.vmm.assert_restored()?;
        self.save_state().await?;
        Ok(self.vmm.difference(arch::MEMORY_BREAKS))
    }

    fn kill(&self) -> io::Result<()> {
        self.vmm.process.kill()
    }

    async fn wait_exit(&self) -> io::Result<()> {
        self.vmm.process.wait_exit().await
    }

    async fn private_memory(&self) -> Result<MemoryUse, MemoryError> {
        memory::usage(self.pid())
    }
}

impl FirecrackerMachine {
    pub(crate) fn api(&self) -> Api {
        start::api(&self.vmm.record)
    }

    pub(crate) async fn resume(&self) -> Result<(), CommandError> {
        self.api().patch("/vm", &json!({"state": "Resumed"})).await
    }

    async fn create_snapshot(&self, kind: &str, memory: &str) -> Result<(), CommandError> {
        let snapshot = json!({"snapshot_type": kind, "snapshot_path": self.vmm.record.state_out, "mem_file_path": memory});
        self.api().put("/snapshot/create", &snapshot).await
    }

    /// The device state alone. Firecracker writes memory too, after it, of which all that is in the host's page cache would
    /// count as changed: so that is refused a file, and what differs is found in the mapping (see [`memory`]).
    async fn save_state(&self) -> Result<(), CommandError> {
        let path = self.vmm.record.state_out();
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
}
