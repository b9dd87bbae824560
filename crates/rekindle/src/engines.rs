//! Which VMM runs the guests, and on what: what is asked for, what this host has, and the engine that follows from both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::accelerator::{self, Accelerator, Choice, Unavailable, Wish};
use engine::qemu::{ProbeError, Qemu};
use engine::{Compatibility, Engine};
use serde::{Deserialize, Serialize};

/// QEMU's program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

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
        "engine = \"firecracker\" is asked for, and this build has no Firecracker engine: use engine = \"qemu\""
    )]
    Firecracker,
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
pub(crate) async fn open(engine: EngineWish, wish: Wish) -> Result<(Arc<dyn Engine>, Chosen), EngineError> {
    let choice = accelerator::find(wish)?;
    match engine {
        EngineWish::Auto | EngineWish::Qemu => qemu(choice).await,
        EngineWish::Firecracker => Err(EngineError::Firecracker),
    }
}

async fn qemu(choice: Choice) -> Result<(Arc<dyn Engine>, Chosen), EngineError> {
    let compatibility = engine::qemu::probe(Path::new(QEMU), choice.accelerator).await?;
    let chosen = Chosen::of(&compatibility, choice.why);
    let jailer = vec!["/proc/self/exe".into(), crate::JAIL.into()];
    Ok((Arc::new(Qemu { program: PathBuf::from(QEMU), jailer, compatibility }), chosen))
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
        let refused = open(EngineWish::Firecracker, Wish::Emulation).await.unwrap_err();
        assert!(refused.to_string().contains("engine = \"qemu\""), "{refused}");
        // This host has KVM or it has not; asked for by name it is never something else.
        match open(EngineWish::Qemu, Wish::Kvm).await {
            Ok((_, chosen)) => assert_eq!(chosen.accelerator, Accelerator::Kvm),
            Err(EngineError::Accelerator(unavailable)) => {
                assert!(unavailable.to_string().contains("accelerator = \"auto\""), "{unavailable}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
