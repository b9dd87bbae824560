//! Whether Firecracker can run here, and what its snapshots depend on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::arch::{Lacking, cpu, supported};
use super::config::MACHINE;
use crate::accelerator::Accelerator;
use crate::kvm::{self, Found};
use crate::{Compatibility, EngineVersion};

const NAME: &str = "Firecracker";
/// The first that boots a bzImage, as distributions ship kernels, and that hears a guest again which was stopped and went on
/// without a snapshot.
pub const OLDEST: [u32; 2] = [1, 17];
const PROBE_TIME: Duration = Duration::from_secs(10);

/// Why Firecracker cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The program does not run.
    #[error("running {program}: {source}; is it Firecracker's binary?", program = program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says no version.
    #[error("{} does not tell a version as Firecracker does", .0.display())]
    Unknown(PathBuf),
    /// It lacks what is needed.
    #[error(
        "Firecracker {found} is too old: from {}.{} on it boots distributions' kernels and hears a guest that was stopped and \
         went on",
        OLDEST[0],
        OLDEST[1]
    )]
    TooOld {
        /// What it is.
        found: EngineVersion,
    },
    /// It would find no libraries in a root of its own.
    #[error("{} is linked dynamically, and gets to see no libraries: use one as it is released", .0.display())]
    Dynamic(PathBuf),
    /// Guests would not see the processor that all are to see.
    #[error("Firecracker's guests cannot have the processor that they are to see: the host's lacks {0}")]
    Processor(#[from] Lacking),
    /// It does not tell what it offers guests.
    #[error("asking KVM what it offers guests of the processor: {0}")]
    Supported(io::Error),
    /// KVM is not there.
    #[error("Firecracker needs KVM, which {0}: {advice}", advice = .0.advice())]
    Kvm(Found),
}

/// Finds out what snapshots of this host depend on.
///
/// # Errors
/// [`ProbeError`] where no machine would start.
pub async fn probe(program: &Path) -> Result<Compatibility, ProbeError> {
    let cpuinfo = tokio::fs::read_to_string("/proc/cpuinfo").await.unwrap_or_default();
    let version = version(program).await?;
    match kvm::find(&cpuinfo) {
        Found::Usable => {}
        found => return Err(ProbeError::Kvm(found)),
    }
    Ok(Compatibility {
        engine: version,
        machine: MACHINE.to_owned(),
        accelerator: Accelerator::Kvm,
        cpu: cpu(&cpuinfo, &supported().map_err(ProbeError::Supported)?)?,
    })
}

async fn version(program: &Path) -> Result<EngineVersion, ProbeError> {
    let failed = |source| ProbeError::Run { program: program.to_owned(), source };
    let told = Command::new(program).arg("--version").kill_on_drop(true).output();
    let told = timeout(PROBE_TIME, told).await.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
    let version = parse_version(&String::from_utf8_lossy(&told.map_err(failed)?.stdout))
        .ok_or_else(|| ProbeError::Unknown(program.to_owned()))?;
    let found = EngineVersion { name: NAME.to_owned(), version };
    if version[..2] < OLDEST[..] {
        return Err(ProbeError::TooOld { found });
    }
    match is_dynamic(&fs::read(program).map_err(failed)?) {
        Some(false) => Ok(found),
        Some(true) => Err(ProbeError::Dynamic(program.to_owned())),
        None => Err(ProbeError::Unknown(program.to_owned())),
    }
}

/// Of `Firecracker v1.17.0-dev`.
fn parse_version(told: &str) -> Option<[u32; 3]> {
    let version = told.lines().next()?.strip_prefix("Firecracker v")?;
    let mut parts = version.split(['.', '-', ' ']).map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

/// Whether a 64-bit ELF program names an interpreter, which loads its libraries.
fn is_dynamic(program: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, bytes: usize| {
        let field = program.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for entry in 0..count {
        let at = usize::try_from(table.checked_add(entry * size)?).ok()?;
        if number(at, 4)? == u64::from(INTERPRETER) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_firecracker_tells_them() {
        assert_eq!(parse_version("Firecracker v1.17.0-dev\n\nmore\n"), Some([1, 17, 0]));
        assert_eq!(parse_version("Firecracker v1.18.3\n"), Some([1, 18, 3]));
        for other in ["", "Firecracker v1.17", "QEMU emulator version 10.0.2", "Firecracker vx.1.2"] {
            assert_eq!(parse_version(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_that_needs_libraries_is_told_from_one_that_does_not() {
        let mut program = vec![0; 64 + 2 * 56];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (program[32], program[54], program[56]) = (64, 56, 2);
        assert_eq!(is_dynamic(&program), Some(false));
        program[64 + 56] = 3;
        assert_eq!(is_dynamic(&program), Some(true));
        assert_eq!(is_dynamic(&program[..100]), None);
        assert_eq!(is_dynamic(b"#!/bin/sh"), None);
        program[32..40].fill(0xff);
        assert_eq!(is_dynamic(&program), None);
    }

    #[tokio::test]
    async fn what_is_no_firecracker_is_refused() {
        assert!(matches!(probe(Path::new("/nonexistent")).await, Err(ProbeError::Run { .. })));
        assert!(matches!(probe(Path::new("/bin/true")).await, Err(ProbeError::Unknown(_))));
    }

    #[tokio::test]
    async fn one_that_is_too_old_is_refused_with_the_reason() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("firecracker");
        fs::write(&program, "#!/bin/sh\necho Firecracker v1.16.1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let told = probe(&program).await.unwrap_err().to_string();
        assert!(told.contains("Firecracker 1.16.1 is too old: from 1.17 on"), "{told}");
    }
}
