//! Whether this machine has room for one more MicroVM.

use std::fs;

use control::Capacity;

/// Left to the host itself and to the page cache that clones share, in MiB.
const RESERVE_MIB: u64 = 512;
/// What a MicroVM takes of its own before its application does anything, VMM included, in MiB.
const IDLE_MIB: u64 = 64;
const MEMINFO: &str = "/proc/meminfo";

/// This machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine;

impl Capacity for Machine {
    /// Memory is given as it is used, so that what counts is what is free now and not what guests might use at most.
    fn admit(&self, _: u32) -> Result<(), String> {
        let Some(free) = fs::read_to_string(MEMINFO).ok().as_deref().and_then(available_mib) else {
            // A kernel that does not tell must not stop every launch.
            return Ok(());
        };
        if free >= RESERVE_MIB + IDLE_MIB {
            return Ok(());
        }
        Err(format!(
            "The host has {free} MiB of memory left, too little for one more MicroVM; terminate or suspend some"
        ))
    }
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_is_available() {
        let meminfo = "MemTotal:       24640000 kB\nMemFree:  100 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(available_mib(meminfo), Some(2048));
        assert_eq!(available_mib("MemTotal: 1 kB"), None);
    }
}
