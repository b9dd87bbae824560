//! The VMM that the measured servers run MicroVMs by, to be used without them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use e2e::command::rekindle;
use e2e::machines;
use engine::accelerator::{self, Wish};
use engine::firecracker::{self, Firecracker};
use engine::qemu::{self, Overlays, Qemu};
use engine::{Compatibility, Engine, VmmRoot};

use crate::Failure;

/// What a machine needs of this host, by the VMM that servers are started with.
pub(crate) async fn compatibility() -> Result<Compatibility, Failure> {
    match firecracker()? {
        Some(program) => Ok(firecracker::probe(&program).await?),
        None => Ok(qemu::probe(&find(qemu::PROGRAM)?, accelerator::find(Wish::Auto)?.accelerator).await?),
    }
}

/// The engine, as servers have it. `overlays`: where what private disks are made from is kept.
pub(crate) async fn engine(overlays: PathBuf) -> Result<Arc<dyn Engine>, Failure> {
    let compatibility = compatibility().await?;
    let jailer: Vec<OsString> = vec![rekindle().into(), "jail".into()];
    if let Some(program) = firecracker()? {
        return Ok(Arc::new(Firecracker::new(program, jailer, compatibility)));
    }
    let program = find(qemu::PROGRAM)?;
    // Kept for as long as the benchmark runs.
    let root = Box::leak(Box::new(VmmRoot::make(&jailer, std::slice::from_ref(&program))?));
    let jailer = jailer.into_iter().chain(root.jail_args()).collect();
    Ok(Arc::new(Qemu { program, jailer, compatibility, overlays: Overlays { templates: overlays } }))
}

/// Firecracker's program, where that is the VMM.
fn firecracker() -> Result<Option<PathBuf>, Failure> {
    let asked = machines::engine().is_some_and(|engine| engine == "firecracker");
    asked.then(|| find("firecracker")).transpose()
}

/// Where links lead to, as the jail follows none.
fn find(program: &str) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).filter_map(|dir| dir.join(program).canonicalize().ok());
    found.find(|program| program.is_file()).ok_or_else(|| format!("there is no {program} in PATH").into())
}
