//! A running QEMU.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::json;
use snapshot::diff::Summary;
use tokio::net::UnixStream;

use super::command::{CONSOLE_BYTES, written_disks};
use super::qmp::Qmp;
use super::start::{CHANNEL, Record, STATE_OUT, migrated, set_capabilities, write_record};
use crate::Machine;
use crate::error::{CommandError, SaveError, StartError};
use crate::memory::{self, Mapping, MemoryError, MemoryUse};
use crate::process::Process;
use crate::spec::MachineSpec;

/// Most bytes of device state accepted from a VMM.
const MAX_DEVICE_STATE: u64 = 64 << 20;

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
        let memory = self.record.memory.clone();
        self.keep(device_state, move || sync("syncing", &memory)).await
    }

    async fn save_diff(&self, device_state: &Path, diff: &Path) -> Result<Summary, SaveError> {
        if self.record.booted {
            return Err(SaveError::Kind("restored"));
        }
        let arguments = json!({"filename": self.record.state_out, "live": false});
        self.qmp.execute("xen-save-devices-state", arguments).await?;
        let (pid, base, diff) = (self.pid(), self.record.memory.clone(), diff.to_owned());
        self.keep(device_state, move || {
            let file = File::create(&diff).map_err(file_error("creating", &diff))?;
            Ok(Mapping::find(pid, &base)?.save(&file)?)
        })
        .await
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
    /// Keeps the device state that QEMU has written, and makes the disks and what `more` does durable.
    async fn keep<T: Send + 'static>(
        &self,
        device_state: &Path,
        more: impl FnOnce() -> Result<T, SaveError> + Send + 'static,
    ) -> Result<T, SaveError> {
        let (from, to) = (self.record.spec.run_dir.join(STATE_OUT), device_state.to_owned());
        let disks = written_disks(&self.record.spec);
        let work = move || {
            copy_state(&from, &to).map_err(file_error("writing", &to))?;
            disks.iter().try_for_each(|disk| sync("syncing", disk))?;
            more()
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| SaveError::Memory(io::Error::other(error).into()))?
    }
}

/// Copied, because the VMM can still write to its own file.
fn copy_state(from: &Path, to: &Path) -> io::Result<()> {
    if fs::metadata(from)?.len() > MAX_DEVICE_STATE {
        return Err(io::Error::other("the VMM's device state is too large"));
    }
    let mut file = File::create(to)?;
    io::copy(&mut io::Read::take(File::open(from)?, MAX_DEVICE_STATE), &mut file)?;
    file.sync_all()
}

fn sync(doing: &'static str, path: &Path) -> Result<(), SaveError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(file_error(doing, path))
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SaveError {
    let path: PathBuf = path.to_owned();
    move |source| SaveError::File { doing, path, source }
}
