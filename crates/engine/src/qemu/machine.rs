//! A running QEMU.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use serde_json::json;
use tokio::net::UnixStream;

use super::MEMORY_BREAKS;
use super::command::CONSOLE_BYTES;
use super::qmp::Qmp;
use super::start::{CHANNEL, LOG, log_tail, migrated, set_capabilities};
use crate::Machine;
use crate::error::{CommandError, SaveError, StartError};
use crate::memory::{self, MemoryError, MemoryUse};
use crate::save::DiffWrite;
use crate::spec::MachineSpec;
use crate::vmm::Vmm;

/// A QEMU process.
#[derive(Debug)]
pub(crate) struct QemuMachine {
    pub(crate) vmm: Vmm,
    pub(crate) qmp: Qmp,
}

#[async_trait]
impl Machine for QemuMachine {
    fn pid(&self) -> i32 {
        self.vmm.process.pid()
    }

    fn moved(&mut self, spec: MachineSpec) -> Result<(), StartError> {
        self.vmm.becomes(spec)
    }

    async fn channel(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.vmm.record.path(CHANNEL)).await
    }

    async fn console(&self) -> Result<String, CommandError> {
        let arguments = json!({"device": "serial", "size": CONSOLE_BYTES, "format": "utf8"});
        match self.qmp.execute("ringbuf-read", arguments).await {
            Ok(text) => Ok(text.as_str().unwrap_or_default().to_owned()),
            Err(_) => Ok(log_tail(&self.vmm.record.path(LOG))?),
        }
    }

    async fn pause(&self) -> Result<(), CommandError> {
        self.qmp.execute("stop", json!({})).await.map(drop)
    }

    async fn cont(&self) -> Result<(), CommandError> {
        self.qmp.execute("cont", json!({})).await.map(drop)
    }

    async fn save_full(&self, device_state: &Path) -> Result<(), SaveError> {
        self.vmm.assert_booted()?;
        set_capabilities(&self.qmp).await?;
        let uri = format!("file:{}", self.vmm.record.state_out);
        self.qmp.execute("migrate", json!({ "uri": uri })).await.map_err(SaveError::from)?;
        migrated(&self.qmp).await?;
        self.vmm.keep(device_state).await
    }

    async fn save_diff(&self) -> Result<DiffWrite, SaveError> {
        self.vmm.assert_restored()?;
        let arguments = json!({"filename": self.vmm.record.state_out, "live": false});
        self.qmp.execute("xen-save-devices-state", arguments).await?;
        Ok(self.vmm.difference(MEMORY_BREAKS))
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
