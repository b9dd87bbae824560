//! What this machine has left, measured once a second, and what is done when it runs short.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use capacity::{Capacity, Limits, Measured};
use guest::Host;
use node::Node;

use crate::config::Config;

const EVERY: Duration = Duration::from_secs(1);
const MEMINFO: &str = "/proc/meminfo";
const MIB: u64 = 1 << 20;
/// Disk that a build takes beyond its VM's memory: artifact, container and snapshot.
const BUILD_DISK: u64 = 1 << 30;

/// What the settings allow, of `slots` network slots.
pub(crate) fn limits(config: &Config, slots: u32) -> Limits {
    let build_memory = u64::from(config.build_memory_mib) * MIB;
    Limits {
        slots: slots as usize,
        cpu_millis: config.baseline_cpus.map(|cpus| u64::from(cpus) * 1000),
        memory: config.memory_mib.map(|mib| mib * MIB),
        memory_reserve: config.memory_reserve_mib * MIB,
        disk_reserve: config.disk_reserve_mib * MIB,
        build_memory,
        build_disk: build_memory + BUILD_DISK,
    }
}

/// What is watched.
pub(crate) struct Watch {
    pub(crate) capacity: Capacity,
    pub(crate) host: Arc<Host>,
    pub(crate) data: PathBuf,
}

impl Watch {
    /// Measures once.
    pub(crate) async fn look(&self) {
        let (capacity, host, data) = (self.capacity.clone(), Arc::clone(&self.host), self.data.clone());
        let look = move || {
            let guests: BTreeMap<String, u64> = host.private_memory(capacity.guests());
            capacity.observe(measure(&data), &guests);
        };
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "cannot measure what the host has left");
        }
    }

    /// Measures for ever. Where what runs is in danger, spares go first, then idle MicroVMs sleep, one a second.
    pub(crate) async fn run(self, node: Node) {
        let mut seconds = tokio::time::interval(EVERY);
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            self.look().await;
            self.host.make_way().await;
            if self.capacity.is_in_need() && !node.rest_the_idlest().await {
                tracing::warn!("the host is short of memory, and no MicroVM is idle that may sleep");
            }
        }
    }
}

fn measure(data: &Path) -> Measured {
    let memory = fs::read_to_string(MEMINFO).ok().as_deref().and_then(available);
    let disk = rustix::fs::statvfs(data).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    Measured { memory, disk }
}

/// Bytes of memory that can be had without swapping.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_is_available() {
        let meminfo = "MemTotal:       24640000 kB\nMemFree:  100 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(available(meminfo), Some(2 << 30));
        assert_eq!(available("MemTotal: 1 kB"), None);
    }

    #[test]
    fn this_machine_is_measured() {
        let measured = measure(Path::new("/"));
        assert!(measured.memory.is_some_and(|bytes| bytes > 0));
        assert!(measured.disk.is_some_and(|bytes| bytes > 0));
        assert_eq!(measure(Path::new("/no such directory")).disk, None);
    }
}
