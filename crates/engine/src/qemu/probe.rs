//! What machines this host can run: asked of QEMU itself.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::arch::{self, MACHINE, cpu};
use super::command::machine_and_devices;
use crate::accelerator::Accelerator;
use crate::{Compatibility, Cpu, EngineVersion};

const NAME: &str = "QEMU";
/// How long QEMU may take to come up.
const PROBE_TIME: Duration = Duration::from_secs(10);
/// Most bytes quoted of what QEMU complains of.
const MAX_COMPLAINT: usize = 1000;

/// Why no machine can run here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The program does not run.
    #[error("running {program}: {source}; is it installed?", program = program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It runs, but starts no machine with the processor that every guest has.
    #[error(
        "QEMU starts no machine with the CPU {cpu} that every snapshot is made for; it says: {complaint}"
    )]
    Machine {
        /// The baseline.
        cpu: String,
        /// What it prints.
        complaint: String,
    },
    /// It does not come up in time.
    #[error("QEMU does not come up within {} s", PROBE_TIME.as_secs())]
    Timeout,
}

/// Finds out what snapshots of this host depend on with this accelerator.
///
/// # Errors
/// [`ProbeError`] where no machine starts at all, such as on a host without the baseline's features.
pub async fn probe(program: &Path, accelerator: Accelerator) -> Result<Compatibility, ProbeError> {
    let cpuinfo = tokio::fs::read_to_string("/proc/cpuinfo").await.unwrap_or_default();
    let cpu = cpu::cpu(accelerator, &cpuinfo);
    let version = version(program, accelerator, &cpu).await?;
    let engine = EngineVersion { name: NAME.to_owned(), version };
    Ok(Compatibility { engine, machine: machine_and_devices(), accelerator, cpu })
}

/// The version of a QEMU with which a machine of this processor starts.
async fn version(program: &Path, accelerator: Accelerator, cpu: &Cpu) -> Result<[u32; 3], ProbeError> {
    let output = try_out(program, accelerator, &cpu::argument(cpu)).await?;
    parse_version(&output.stdout).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.trim().chars().take(MAX_COMPLAINT).collect();
        ProbeError::Machine { cpu: cpu.baseline.clone(), complaint }
    })
}

/// Starts a stopped machine, which creates its vCPUs, asks for its version and ends it.
async fn try_out(program: &Path, accelerator: Accelerator, cpu: &str) -> Result<Output, ProbeError> {
    let run = |source| ProbeError::Run { program: program.to_owned(), source };
    let accelerator = if accelerator == Accelerator::Kvm { arch::KVM_OPTIONS } else { "tcg" };
    let mut child = Command::new(program)
        .args(["-M", MACHINE, "-accel", accelerator, "-cpu", cpu, "-S", "-nodefaults"])
        .args(["-display", "none", "-no-user-config", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run)?;
    let commands: &[u8] = br#"{"execute":"qmp_capabilities"}{"execute":"query-version"}{"execute":"quit"}"#;
    if let Some(mut stdin) = child.stdin.take() {
        // A QEMU that has ended already says why.
        let _ = stdin.write_all(commands).await;
    }
    let output = tokio::time::timeout(PROBE_TIME, child.wait_with_output());
    output.await.map_err(|_| ProbeError::Timeout)?.map_err(run)
}

/// From the answers, one a line.
fn parse_version(answers: &[u8]) -> Option<[u32; 3]> {
    answers.split(|byte| *byte == b'\n').find_map(|line| {
        let answer: Value = serde_json::from_slice(line).ok()?;
        let version = &answer["return"]["qemu"];
        let part = |name: &str| u32::try_from(version[name].as_u64()?).ok();
        Some([part("major")?, part("minor")?, part("micro")?])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_an_answer_and_not_of_the_greeting() {
        let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 1, "minor": 1, "major": 1}}}}"#;
        let answer = r#"{"return": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}}"#;
        assert_eq!(parse_version(greeting.as_bytes()), None);
        let all = format!("{greeting}\n{{\"return\": {{}}}}\n{answer}\n");
        assert_eq!(parse_version(all.as_bytes()), Some([10, 0, 2]));
    }

    #[tokio::test]
    async fn what_does_not_run_and_what_runs_nothing_are_told_apart() {
        let missing = probe(Path::new("/nonexistent/qemu"), Accelerator::Tcg).await;
        assert!(matches!(missing, Err(ProbeError::Run { .. })), "{missing:?}");
        let empty = probe(Path::new("/bin/true"), Accelerator::Tcg).await;
        assert!(matches!(empty, Err(ProbeError::Machine { .. })), "{empty:?}");
    }
}
