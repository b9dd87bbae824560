//! What an owner drives: the real VM with its network, channel and files.
//!
//! Every call can be repeated after a crash in the middle of it, and an error's text goes to the client as
//! `stateReason`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ids::MicrovmId;
use lifecycle::microvm::{Event, State};
use metering::Phase;
use store::MicrovmRecord;
use tokio_util::sync::CancellationToken;

/// Why a MicroVM that sleeps was not resumed.
#[derive(Debug)]
pub enum NotResumed {
    /// What was saved is as it was, and another try may succeed; the reason has been logged.
    ThisTime,
    /// For good; the text goes to the client as `stateReason`.
    Ever(String),
}

/// What a suspension came to.
pub enum Suspended {
    /// It is saved, and its VMM is gone.
    Saved,
    /// It was wanted otherwise before it was saved: its VMM is there, its application frozen.
    GivenUp(Box<dyn Instance>),
    /// It could not be saved, for a reason that has been logged; the rest is as with `GivenUp`.
    Failed(Box<dyn Instance>),
}

impl fmt::Debug for Suspended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Saved => "Saved",
            Self::GivenUp(_) => "GivenUp",
            Self::Failed(_) => "Failed",
        })
    }
}

/// A MicroVM that runs on this host.
#[async_trait]
pub trait Instance: Send + Sync + 'static {
    /// The way into it, for the proxy.
    fn life(&self) -> Arc<proxy::Life>;

    /// Returns when it ends by itself: [`Event::ContainerExited`], or [`Event::Failed`] where the VMM is lost.
    /// Safe to drop and to call again.
    async fn ended(&mut self) -> Event;

    /// Calls `/suspend`, saves durably and ends the VMM; or gives that up, without waiting for the disk, once it is
    /// `wanted` otherwise.
    async fn suspend(
        self: Box<Self>,
        microvm: &MicrovmRecord,
        wanted: CancellationToken,
    ) -> Result<Suspended, String>;

    /// After a suspension that was given up or failed: calls `/resume` and goes on, in a new life.
    async fn resume(self: Box<Self>, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String>;

    /// Ends it, after `/terminate` where `call_hook` says so, and releases everything it had.
    async fn terminate(self: Box<Self>, microvm: &MicrovmRecord, call_hook: bool);
}

/// Makes instances.
#[async_trait]
pub trait Machines: Send + Sync + 'static {
    /// Clones the image's snapshot and calls `/run`.
    async fn launch(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String>;

    /// Takes up again what runs since before a restart.
    async fn adopt(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String>;

    /// Restores what [`Instance::suspend`] saved and calls `/resume`.
    async fn resume(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, NotResumed>;

    /// Bytes that [`Instance::suspend`] saved, and that a resume takes of the host's memory.
    fn saved_bytes(&self, microvm: &MicrovmRecord) -> u64;

    /// Brings a suspension to its end that a restart interrupted, wherever it was.
    async fn finish_suspend(
        &self,
        microvm: &MicrovmRecord,
        wanted: CancellationToken,
    ) -> Result<Suspended, String>;

    /// Releases everything of a MicroVM that has no instance here.
    async fn discard(&self, microvm: &MicrovmRecord);

    /// How a MicroVM in this state is found, for its account of what it uses. Blocks for as long as small files are read.
    fn phase(&self, _id: MicrovmId, _state: State) -> Phase {
        Phase::Away
    }

    /// Says in the server's log, and in the application's own, what the MicroVM's network connectors refused since this was
    /// last called. Returns whether there was anything. Blocks for a moment.
    fn tell_of_refused(&self, _microvm: &MicrovmRecord) -> bool {
        false
    }

    /// Keeps, not waiting for it, where the time of a launch, wake, suspension or termination went.
    fn keep(&self, _microvm: &MicrovmRecord, _timeline: timeline::Record) {}
}
