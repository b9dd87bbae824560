//! Which VMM runs the guests, and on what: what is asked for, what this host has, and the engine that follows from both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::RunsOn;
use engine::accelerator::{self, Accelerator, Choice, Unavailable, Wish};
use engine::firecracker::{self, Firecracker};
use engine::jail::JailError;
use engine::qemu::{Overlays, ProbeError, Qemu};
use engine::{Compatibility, Engine, VmmRoot};
use serde::{Deserialize, Serialize};

/// QEMU's program.
pub(crate) const QEMU: &str = engine::qemu::PROGRAM;
/// Firecracker's, to be found in PATH too.
const FIRECRACKER: &str = "firecracker";

/// The VMM that an operator asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineWish {
    /// The one that every host can have.
    #[default]
    Auto,
    Firecracker,
    Qemu,
}

/// What executes guests, as an operator asks for it on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AcceleratorWish {
    Auto,
    Kvm,
    Emulation,
}

impl From<AcceleratorWish> for Wish {
    fn from(wish: AcceleratorWish) -> Self {
        match wish {
            AcceleratorWish::Auto => Self::Auto,
            AcceleratorWish::Kvm => Self::Kvm,
            AcceleratorWish::Emulation => Self::Emulation,
        }
    }
}

/// Why no guest can run here as it is asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error(transparent)]
    Accelerator(#[from] Unavailable),
    #[error(transparent)]
    Qemu(#[from] ProbeError),
    #[error(
        "engine = \"firecracker\" is asked for, and there is no {FIRECRACKER} in PATH: install it, or use engine = \"qemu\""
    )]
    NoFirecracker,
    #[error("engine = \"firecracker\" is asked for, which emulates nothing: use engine = \"qemu\", as {0}")]
    Emulated(String),
    #[error(transparent)]
    Firecracker(#[from] firecracker::ProbeError),
    #[error(transparent)]
    Jail(#[from] JailError),
}

/// What runs the guests, for logs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chosen {
    /// The VMM and its version.
    pub(crate) engine: String,
    /// What executes the guests' instructions.
    pub(crate) accelerator: Accelerator,
    /// Why this accelerator: what follows "because".
    pub(crate) because: String,
    /// The processor that guests see.
    pub(crate) cpu: String,
}

/// The one place where it is decided and made. A wish that this host cannot meet is an error, never something slower.
/// `overlays`: where what QEMU's private disks are made from is kept.
pub(crate) async fn open(
    engine: EngineWish,
    wish: Wish,
    overlays: PathBuf,
) -> Result<(Arc<dyn Engine>, Chosen), EngineError> {
    let choice = accelerator::find(wish)?;
    match engine {
        EngineWish::Auto | EngineWish::Qemu => qemu(choice, Overlays { templates: overlays }).await,
        EngineWish::Firecracker => firecracker(choice).await,
    }
}

async fn qemu(choice: Choice, overlays: Overlays) -> Result<(Arc<dyn Engine>, Chosen), EngineError> {
    let compatibility = engine::qemu::probe(Path::new(QEMU), choice.accelerator).await?;
    let chosen = Chosen::of(&compatibility, choice.why);
    // VMMs find nothing by a search.
    let program = find(QEMU).unwrap_or_else(|| QEMU.into());
    // Kept for as long as the server runs.
    let root = Box::leak(Box::new(VmmRoot::make(&jailer(), std::slice::from_ref(&program))?));
    let jailer = jailer().into_iter().chain(root.jail_args()).collect();
    Ok((Arc::new(Qemu { program, jailer, compatibility, overlays }), chosen))
}

async fn firecracker(choice: Choice) -> Result<(Arc<dyn Engine>, Chosen), EngineError> {
    if choice.accelerator == Accelerator::Tcg {
        return Err(EngineError::Emulated(choice.why));
    }
    let program = find(FIRECRACKER).ok_or(EngineError::NoFirecracker)?;
    let compatibility = firecracker::probe(&program).await?;
    let chosen = Chosen::of(&compatibility, choice.why);
    Ok((Arc::new(Firecracker::new(program, jailer(), compatibility)), chosen))
}

/// The file that is run by this name.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).filter_map(|dir| dir.join(program).canonicalize().ok());
    found.find(|program| program.is_file())
}

/// Program and first arguments that end up in the jail.
fn jailer() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), crate::JAIL.into()]
}

impl Chosen {
    fn of(compatibility: &Compatibility, because: String) -> Self {
        Self {
            engine: compatibility.engine.to_string(),
            accelerator: compatibility.accelerator,
            because,
            cpu: format!("{} ({})", compatibility.cpu.baseline, compatibility.cpu.model),
        }
    }
}

impl From<Chosen> for RunsOn {
    fn from(chosen: Chosen) -> Self {
        let Chosen { engine, accelerator, because, cpu } = chosen;
        let accelerator = match accelerator {
            Accelerator::Kvm => api::endpoints::Accelerator::Kvm,
            Accelerator::Tcg => api::endpoints::Accelerator::Emulation,
        };
        Self { engine, accelerator, because, processor: cpu }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl Chosen {
        /// What runs nothing.
        pub(crate) fn for_tests() -> Self {
            Self {
                engine: "QEMU 10.0.2".into(),
                accelerator: Accelerator::Tcg,
                because: "this is a test".into(),
                cpu: "x86-64-v3".into(),
            }
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_had_or_refused() {
        let refused = open(EngineWish::Firecracker, Wish::Emulation, PathBuf::new()).await.unwrap_err();
        assert!(refused.to_string().contains("engine = \"qemu\""), "{refused}");
        // This host has KVM or it has not; asked for by name it is never something else.
        match open(EngineWish::Qemu, Wish::Kvm, PathBuf::new()).await {
            Ok((_, chosen)) => assert_eq!(chosen.accelerator, Accelerator::Kvm),
            Err(EngineError::Accelerator(unavailable)) => {
                assert!(unavailable.to_string().contains("accelerator = \"auto\""), "{unavailable}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
