//! Whether this machine's KVM can really run a guest: asked of QEMU itself.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::accelerator::{Accelerator, choose, has_virtualization};

/// How long QEMU may take to come up.
const PROBE_TIME: Duration = Duration::from_secs(10);
/// Most bytes read from a QEMU that is tried out.
const MAX_OUTPUT: u64 = 64 << 10;

/// Finds out which accelerator to use with this QEMU.
pub async fn detect(program: &Path) -> Accelerator {
    let cpuinfo = tokio::fs::read_to_string("/proc/cpuinfo").await.unwrap_or_default();
    let cpu_can = has_virtualization(&cpuinfo);
    let started = cpu_can && tokio::time::timeout(PROBE_TIME, starts(program)).await == Ok(Some(()));
    choose(cpu_can, started)
}

/// Starts a stopped machine with KVM, which creates its vCPUs, and asks it for its status.
async fn starts(program: &Path) -> Option<()> {
    let mut child = Command::new(program)
        .args(["-M", "microvm", "-accel", "kvm", "-cpu", "host", "-S", "-nodefaults", "-display", "none"])
        .args(["-no-user-config", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let commands = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n";
    child.stdin.as_mut()?.write_all(commands).await.ok()?;
    let mut lines = BufReader::new(child.stdout.take()?.take(MAX_OUTPUT)).lines();
    while let Some(line) = lines.next_line().await.ok()? {
        if line.contains("\"prelaunch\"") {
            return Some(());
        }
    }
    None
}
