//! Machines that are not there, for tests and benchmarks of what stands before them: they start, sleep and end at once,
//! and tell what was asked of them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use lifecycle::microvm::Event;
use node::{Instance, Machines, NotResumed, Suspended};
use proxy::{Activity, BoxedIo, Connector, Life};
use store::MicrovmRecord;
use tokio_util::sync::CancellationToken;

type Calls = Arc<Mutex<Vec<&'static str>>>;

/// Imagined machines.
#[derive(Debug, Clone, Default)]
pub struct Imagined {
    calls: Calls,
}

impl Imagined {
    /// What was asked of them, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, call: &'static str) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    fn started(&self, call: &'static str, microvm: &MicrovmRecord) -> Box<dyn Instance> {
        self.note(call);
        let life = Life::new(microvm.life.life, Arc::new(Nowhere), Arc::new(Activity::new()));
        Box::new(Still { life: Arc::new(life), machines: self.clone() })
    }
}

#[async_trait]
impl Machines for Imagined {
    async fn launch(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        Ok(self.started("launch", microvm))
    }
    async fn adopt(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        Ok(self.started("adopt", microvm))
    }
    async fn resume(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, NotResumed> {
        Ok(self.started("resume", microvm))
    }
    fn saved_bytes(&self, _: &MicrovmRecord) -> u64 {
        0
    }
    async fn finish_suspend(&self, _: &MicrovmRecord, _: CancellationToken) -> Result<Suspended, String> {
        self.note("finish suspend");
        Ok(Suspended::Saved)
    }
    async fn discard(&self, _: &MicrovmRecord) {
        self.note("discard");
    }
}

/// Nobody listens there.
struct Nowhere;

#[async_trait]
impl Connector for Nowhere {
    async fn connect(&self, _port: u16) -> io::Result<BoxedIo> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

/// A machine that does nothing until it is told to stop.
struct Still {
    life: Arc<Life>,
    machines: Imagined,
}

#[async_trait]
impl Instance for Still {
    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.life)
    }
    async fn ended(&mut self) -> Event {
        std::future::pending().await
    }
    async fn suspend(self: Box<Self>, _: &MicrovmRecord, _: CancellationToken) -> Result<Suspended, String> {
        self.machines.note("suspend");
        Ok(Suspended::Saved)
    }
    async fn resume(self: Box<Self>, _: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.machines.note("go on");
        Ok(self)
    }
    async fn terminate(self: Box<Self>, _: &MicrovmRecord, _: bool) {
        self.machines.note("terminate");
    }
}
