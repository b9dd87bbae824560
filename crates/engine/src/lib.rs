//! The VMM boundary: start, restore, pause, snapshot, kill. One module per VMM; nothing of one outside its own.
//!
//! Knows nothing of images or of the API. VMMs are separate processes that outlive this one and are adopted again.

pub mod accelerator;
mod compatibility;
mod disk;
pub mod error;
pub mod firecracker;
pub mod jail;
pub mod kvm;
mod memory;
mod process;
pub mod qemu;
mod root;
mod save;
mod shared_root;
pub mod spec;
mod vmm;
mod x86_64;

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "machines run on x86-64 alone so far: another architecture needs modules like those called x86_64"
);

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::net::UnixStream;
use x86_64 as arch;

pub use compatibility::{Compatibility, Cpu, EngineVersion, Incompatible};
pub use disk::{Copies, DiskError, PrivateDisks};
pub use error::{CommandError, SaveError, StartError};
pub use memory::{MemoryError, MemoryUse, open_layers};
pub use save::DiffWrite;
pub use shared_root::VmmRoot;
pub use spec::{Disk, Jail, Layer, LayerFormat, MachineSpec, Restore};

/// The hardware address of every machine's NIC: each has a network of its own, which counts on it. QEMU gave it to machines
/// that were saved before it was said here.
pub const GUEST_MAC: &str = "52:54:00:12:34:56";

/// A VMM that can start machines.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// What its snapshots depend on.
    fn compatibility(&self) -> &Compatibility;

    /// How its machines come by the disks that they write to.
    fn disks(&self) -> &dyn PrivateDisks;

    /// Boots a machine whose memory is the shared file `memory`, which is created (see [`Machine::save_full`]).
    async fn boot(&self, spec: MachineSpec, memory: PathBuf) -> Result<Box<dyn Machine>, StartError>;

    /// Starts a machine from a snapshot; its vCPUs run when this returns. Its memory is private.
    async fn restore(&self, spec: MachineSpec, from: Restore) -> Result<Box<dyn Machine>, StartError>;

    /// Starts a VMM ahead for a suspended machine over `base_memory` that is like `spec`, but for the highest layers of
    /// its disks, which are not looked at.
    async fn park(&self, spec: MachineSpec, base_memory: &Path) -> Result<Box<dyn Parked>, StartError>;

    /// Takes charge again of the machine started in `run_dir`. `None` when it no longer runs.
    async fn adopt(&self, run_dir: &Path) -> Result<Option<Box<dyn Machine>>, StartError>;
}

/// Bytes of memory that the machine started in `run_dir` has to itself; `None` where none runs there.
#[must_use]
pub fn private_memory(run_dir: &Path) -> Option<u64> {
    memory::private_bytes(process::noted_pid(&run_dir.join(process::PID))?)
}

/// A VMM that waits for a suspended machine. Dropping this leaves it waiting.
#[async_trait]
pub trait Parked: Send + Sync + std::fmt::Debug {
    /// Restores a machine in it, as [`Engine::restore`] does. The VMM's directory has `spec`'s name by now. It is gone
    /// where this fails.
    async fn restore(
        self: Box<Self>,
        spec: MachineSpec,
        from: Restore,
    ) -> Result<Box<dyn Machine>, StartError>;

    /// As [`Machine::kill`].
    fn kill(&self) -> std::io::Result<()>;

    /// As [`Machine::wait_exit`].
    async fn wait_exit(&self) -> std::io::Result<()>;
}

/// A machine that was started. Dropping this leaves it running.
#[async_trait]
pub trait Machine: Send + Sync + std::fmt::Debug {
    /// Process id of the VMM.
    fn pid(&self) -> i32;

    /// Its directory and disks have been renamed: `spec` is the one that it was started with, but for their paths.
    fn moved(&mut self, spec: MachineSpec) -> Result<(), StartError>;

    /// A new connection to the guest's channel. The guest sees one at a time, in the order made.
    async fn channel(&self) -> std::io::Result<UnixStream>;

    /// What the guest last printed on its serial console; where that went with the VMM, what the VMM said.
    async fn console(&self) -> Result<String, CommandError>;

    /// Stops the vCPUs and flushes the disks.
    async fn pause(&self) -> Result<(), CommandError>;

    /// Lets the vCPUs run.
    async fn cont(&self) -> Result<(), CommandError>;

    /// Of a booted, running machine: makes its memory file and, in `device_state`, everything else durable. The vCPUs
    /// stay stopped afterwards: kill the machine, or `cont` it only once the memory file was copied elsewhere.
    async fn save_full(&self, device_state: &Path) -> Result<(), SaveError>;

    /// Of a restored, paused machine: takes its device state. What is returned then writes it to the disk, and all
    /// that the machine differs in.
    async fn save_diff(&self) -> Result<DiffWrite, SaveError>;

    /// Kills the VMM at once; [`Machine::wait_exit`] says when it is gone.
    fn kill(&self) -> std::io::Result<()>;

    /// Waits until the VMM's process has ended.
    async fn wait_exit(&self) -> std::io::Result<()>;

    /// The memory that this machine alone costs the host.
    async fn private_memory(&self) -> Result<MemoryUse, MemoryError>;
}
