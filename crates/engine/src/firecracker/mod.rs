//! Firecracker, by hardware virtualization alone.
//!
//! Unlike QEMU it opens its files itself, by the paths that a snapshot has noted. So each runs in a root of its own, in which
//! the paths are the same for all (see [`paths`]).

mod api;
mod config;
mod machine;
mod parked;
mod probe;
mod socket;
mod start;
mod x86_64;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use x86_64 as arch;

use crate::error::StartError;
use crate::spec::{MachineSpec, Restore};
use crate::{Compatibility, Copies, Engine, Machine, Parked, PrivateDisks};

pub use probe::{OLDEST, ProbeError, probe};

/// Where a Firecracker finds what in its root. Snapshots note them: a change needs [`config::MACHINE`] to change.
mod paths {
    pub(super) const PROGRAM: &str = "/firecracker";
    pub(super) const KERNEL: &str = "/kernel";
    pub(super) const INITRAMFS: &str = "/initramfs";
    pub(super) const MEMORY: &str = "/memory";
    pub(super) const STATE_IN: &str = "/state.in";
    pub(super) const STATE_OUT: &str = "/state.out";
    /// Leads nowhere.
    pub(super) const NOWHERE: &str = "/nowhere/memory";
    /// Followed by a disk's name.
    pub(super) const DISKS: &str = "/disks";
    /// The one directory that it may write to, for sockets.
    pub(super) const SOCKETS: &str = "/sockets";
    pub(super) const KVM: &str = "/dev/kvm";
    pub(super) const TUN: &str = "/dev/net/tun";
}

/// The Firecracker engine.
#[derive(Debug, Clone)]
pub struct Firecracker {
    /// Firecracker, linked statically as its releases are.
    program: PathBuf,
    /// See [`crate::qemu::Qemu::jailer`].
    jailer: Vec<OsString>,
    compatibility: Compatibility,
    /// Whether this host's snapshots lack what a guest's clock would be moved on by.
    clock_stops: Arc<AtomicBool>,
}

impl Firecracker {
    /// `program` is Firecracker, `jailer` program and first arguments that end up in [`crate::jail::exec`],
    /// `compatibility` what [`probe`] found.
    #[must_use]
    pub fn new(program: PathBuf, jailer: Vec<OsString>, compatibility: Compatibility) -> Self {
        Self { program, jailer, compatibility, clock_stops: Arc::default() }
    }
}

#[async_trait]
impl Engine for Firecracker {
    fn compatibility(&self) -> &Compatibility {
        &self.compatibility
    }

    fn disks(&self) -> &dyn PrivateDisks {
        &Copies
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
        Ok(start::adopt(run_dir)?.map(|machine| Box::new(machine) as Box<dyn Machine>))
    }
}
