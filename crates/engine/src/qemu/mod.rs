//! QEMU's microvm machine, hardware-assisted or in software.

mod command;
mod machine;
mod overlay;
mod parked;
mod probe;
mod qmp;
mod stall;
mod start;
mod x86_64;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use x86_64 as arch;

use crate::Compatibility;
use crate::error::StartError;
use crate::memory::Breaks;
use crate::spec::{MachineSpec, Restore};
use crate::{Engine, Machine, Parked, PrivateDisks};

pub use arch::PROGRAM;
pub use overlay::Overlays;
pub use probe::{ProbeError, probe};

/// It maps a memory file as one.
const MEMORY_BREAKS: Breaks = &[];

/// The QEMU engine.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// QEMU's system emulator.
    pub program: PathBuf,
    /// Program and first arguments that end up in [`crate::jail::exec`], such as `/proc/self/exe jail`.
    pub jailer: Vec<OsString>,
    /// See [`probe`].
    pub compatibility: Compatibility,
    /// Private disks.
    pub overlays: Overlays,
}

#[async_trait]
impl Engine for Qemu {
    fn compatibility(&self) -> &Compatibility {
        &self.compatibility
    }

    fn disks(&self) -> &dyn PrivateDisks {
        &self.overlays
    }

    async fn boot(&self, spec: MachineSpec, memory: PathBuf) -> Result<Box<dyn Machine>, StartError> {
        Ok(Box::new(start::boot(self, spec, memory).await?))
    }

    async fn restore(&self, spec: MachineSpec, from: Restore) -> Result<Box<dyn Machine>, StartError> {
        Ok(Box::new(start::restore(self, spec, from).await?))
    }

    async fn park(&self, spec: MachineSpec, base_memory: &Path) -> Result<Box<dyn Parked>, StartError> {
        Ok(Box::new(parked::park(self, spec, base_memory).await?))
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Box<dyn Machine>>, StartError> {
        let machine = start::adopt(run_dir).await?;
        Ok(machine.map(|machine| Box::new(machine) as Box<dyn Machine>))
    }
}
