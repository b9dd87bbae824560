//! A running QEMU.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::json;
use tokio::net::UnixStream;

use super::command::CONSOLE_BYTES;
use super::qmp::Qmp;
use super::start::{CHANNEL, Record, STATE_OUT, migrated, set_capabilities, write_record};
use crate::Machine;
use crate::error::{CommandError, SaveError, StartError};
use crate::memory::{self, MemoryError, MemoryUse};
use crate::process::Process;
use crate::save::{DiffWrite, keep_state, sync_all};
use crate::spec::MachineSpec;

/// A QEMU process.
#[derive(Debug)]
pub(crate) struct QemuMachine {
    pub(crate) record: Record,
    pub(crate) process: Process,
    pub(crate) qmp: Qmp,
}

#[async_trait]
impl Machine for QemuMachine {
    fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn moved(&mut self, spec: MachineSpec) -> Result<(), StartError> {
        self.record.spec = spec;
        write_record(&self.record.spec.run_dir, &self.record)
    }

    async fn channel(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.record.spec.run_dir.join(CHANNEL)).await
    }

    async fn console(&self) -> Result<String, CommandError> {
        let arguments = json!({"device": "serial", "size": CONSOLE_BYTES, "format": "utf8"});
        let text = self.qmp.execute("ringbuf-read", arguments).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    async fn pause(&self) -> Result<(), CommandError> {
        self.qmp.execute("stop", json!({})).await.map(drop)
    }

    async fn cont(&self) -> Result<(), CommandError> {
        self.qmp.execute("cont", json!({})).await.map(drop)
    }

    async fn save_full(&self, device_state: &Path) -> Result<(), SaveError> {
        if !self.record.booted {
            return Err(SaveError::Kind("booted"));
        }
        set_capabilities(&self.qmp).await?;
        let uri = format!("file:{}", self.record.state_out);
        self.qmp.execute("migrate", json!({ "uri": uri })).await.map_err(SaveError::from)?;
        migrated(&self.qmp).await?;
        let (state, to) = (self.state_out(), device_state.to_owned());
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
        let arguments = json!({"filename": self.record.state_out, "live": false});
        self.qmp.execute("xen-save-devices-state", arguments).await?;
        Ok(DiffWrite {
            pid: self.pid(),
            base: self.record.memory.clone(),
            state: self.state_out(),
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

impl QemuMachine {
    fn state_out(&self) -> PathBuf {
        self.record.spec.run_dir.join(STATE_OUT)
    }
}
