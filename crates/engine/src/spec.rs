//! What a machine consists of, in no VMM's terms.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// A machine to start. To be restored it must have the shape (memory, vCPUs, disks, NIC) that was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// For process listings.
    pub name: String,
    /// Directory of this machine alone; created. Holds sockets, pid file and log.
    pub run_dir: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// bzImage.
    pub kernel: PathBuf,
    /// Initial RAM file system.
    pub initramfs: PathBuf,
    /// Appended to the kernel command line.
    pub cmdline: String,
    /// In the order in which the guest finds them.
    pub disks: Vec<Disk>,
    /// Tap interface, in the jail's network namespace, for the only NIC.
    pub tap: Option<String>,
    /// What confines the VMM.
    pub jail: Jail,
}

impl MachineSpec {
    /// Files that the machine itself writes to, and that must be durable before it counts as saved.
    pub(crate) fn written_files(&self) -> Vec<PathBuf> {
        let writable = self.disks.iter().filter(|disk| !disk.read_only);
        writable.filter_map(|disk| disk.layers.last()).map(|layer| layer.path.clone()).collect()
    }
}

/// A disk: layers from the lowest to the one that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What the guest reads in `/sys/block/vdX/serial`: letters, digits, '-' and '_', at most 20.
    pub serial: String,
    /// Whether the guest may only read; then no layer is written.
    pub read_only: bool,
    /// From the lowest to the highest; at least one. Layers but the last are only read.
    pub layers: Vec<Layer>,
}

/// One file of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: LayerFormat,
}

/// Format of a [`Layer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerFormat {
    /// The disk's bytes.
    Raw,
    /// What differs from the layer below.
    Qcow2,
}

impl std::fmt::Display for LayerFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

/// What the VMM's process is put into before it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// Network namespace (a bind-mounted file).
    pub netns: Option<PathBuf>,
    /// cgroup directories to join.
    pub cgroups: Vec<PathBuf>,
    /// User to become.
    pub uid: u32,
    /// Group to become.
    pub gid: u32,
}

/// A snapshot to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Memory file of the machine that was saved in full; only read.
    pub base_memory: PathBuf,
    /// Device state, of the full save or, with layers, of the diff save.
    pub device_state: PathBuf,
    /// What differs from the base, for a machine that was suspended: the oldest layer first.
    pub layers: Vec<PathBuf>,
    /// When the machine was stopped, where its clocks are to go on as if it never had been.
    pub stopped_at: Option<SystemTime>,
}
