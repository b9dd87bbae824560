//! What an owner drives: the real VM with its network, channel and files.

use std::sync::Arc;

use async_trait::async_trait;
use lifecycle::microvm::Event;
use store::MicrovmRecord;

/// A MicroVM that runs on this host.
#[async_trait]
pub trait Instance: Send + Sync + 'static {
    /// The way into it, for the proxy.
    fn life(&self) -> Arc<proxy::Life>;

    /// Returns when it ends by itself: [`Event::ContainerExited`], or [`Event::Failed`] where the VMM is lost.
    /// Safe to drop and to call again.
    async fn ended(&mut self) -> Event;
}

/// Makes, saves and ends instances. Every call can be repeated after a crash in the middle of it, and an error's
/// text goes to the client as `stateReason`.
#[async_trait]
pub trait Machines: Send + Sync + 'static {
    /// Clones the image's snapshot and calls `/run`.
    async fn launch(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String>;

    /// Takes up again what runs since before a restart.
    async fn adopt(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String>;

    /// Calls `/suspend`, saves durably and ends the process. Finds the instance by itself where there is none given.
    async fn suspend(
        &self,
        microvm: &MicrovmRecord,
        instance: Option<Box<dyn Instance>>,
    ) -> Result<(), String>;

    /// Restores what [`suspend`](Self::suspend) saved and calls `/resume`.
    async fn resume(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String>;

    /// Ends it, after `/terminate` where `call_hook` says so, and releases everything it had.
    async fn terminate(&self, microvm: &MicrovmRecord, instance: Option<Box<dyn Instance>>, call_hook: bool);
}
