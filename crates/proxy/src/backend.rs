//! What the proxy asks of whoever owns the MicroVMs.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use ids::{EndpointId, MicrovmId};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Activity;
use crate::allowance::Allowance;
use crate::shell::{Farewell, Shell, Shells};
use crate::upstream::Upstream;

/// What a host name names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// The endpoint of a MicroVM.
    Endpoint(EndpointId),
    /// A name of the operator's own, in lower case.
    Domain(String),
}

/// What a site leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The MicroVM.
    pub microvm: MicrovmId,
    /// Whether its application may be reached. Its shell is a matter of the token alone, which is given out only where
    /// the MicroVM has one.
    pub http_ingress: bool,
    /// Ports of the application that anybody may send requests to, without a token.
    pub public_ports: Arc<[u16]>,
}

/// The owner of the MicroVMs.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What this site leads to, whatever the MicroVM's state. Asked on every request: must not block.
    fn resolve(&self, site: &Site) -> Option<Target>;

    /// Whether a host name, in lower case, is one of the operator's own that lead to MicroVMs, whether or not it leads to
    /// one now. Asked on every request for a host that is no endpoint: must not block.
    fn is_domain(&self, name: &str) -> bool;

    /// The MicroVM's running life, resuming it first if it is suspended. The request waits meanwhile; the
    /// future is dropped when the client goes away or the wake deadline passes, so a resume under way
    /// must not depend on it. `trace_parent`: which trace the request belongs to, by its `traceparent`.
    async fn wake(&self, microvm: MicrovmId, trace_parent: Option<&str>) -> Result<Arc<Life>, WakeError>;
}

/// Why there is no life to forward a request to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WakeError {
    /// Terminated, never ran, or past its lifetime.
    #[error("cannot reach the MicroVM: it is gone; run a new one")]
    Gone,
    /// Suspended, and its idle policy does not resume it on traffic.
    #[error("cannot reach the MicroVM: it is suspended without auto-resume; call ResumeMicrovm")]
    NoAutoResume,
    /// The host has no room to resume it now; it stays suspended.
    #[error("cannot resume the MicroVM for this request: its host has no room; try again later")]
    NoRoom,
    /// The resume was tried and failed.
    #[error("cannot resume the MicroVM for this request; its state reason says why")]
    Failed,
}

/// A duplex byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection into the guest.
pub type BoxedIo = Box<dyn Io>;

/// Opens connections into the guest of one life.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Connects to `port` on the guest's loopback. `ConnectionRefused` means that nothing listens there;
    /// any other error that the MicroVM could not be reached.
    async fn connect(&self, port: u16) -> io::Result<BoxedIo>;

    /// Starts a shell beside the application. An error's text is for the shell's client.
    async fn shell(&self) -> io::Result<Shell> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this MicroVM has no shell"))
    }
}

/// One running period of a MicroVM, from its launch or resume to its suspension or end. It owns the
/// kept-alive connections to the application: they close when the last reference is dropped.
pub struct Life {
    /// Which life of the MicroVM this is; grows with every resume.
    pub generation: u64,
    /// The way into the guest.
    pub connector: Arc<dyn Connector>,
    /// Traffic through the endpoint.
    pub activity: Arc<Activity>,
    pub(crate) upstream: Upstream,
    pub(crate) shells: Shells,
    first_answer: Mutex<Option<FirstAnswer>>,
}

/// Told of the first answer of a life as it begins: when the request for it had come.
pub type FirstAnswer = Box<dyn FnOnce(Instant) + Send>;

impl Life {
    /// A life with no connection open yet.
    #[must_use]
    pub fn new(generation: u64, connector: Arc<dyn Connector>, activity: Arc<Activity>) -> Self {
        let upstream = Upstream::new(Arc::clone(&connector), Arc::clone(&activity));
        let shells = Shells::default();
        Self { generation, connector, activity, upstream, shells, first_answer: Mutex::default() }
    }

    /// The same, with no more of the endpoint than `allowance`.
    #[must_use]
    pub fn within(self, allowance: Allowance) -> Self {
        Self { upstream: self.upstream.within(allowance), ..self }
    }

    /// Has the clients of its shells told why they end, and takes no further ones. The owner calls this before it
    /// suspends or terminates.
    pub fn end_shells(&self, why: Farewell) {
        self.shells.end(why);
    }

    /// The same, with somebody to tell of its first answer.
    #[must_use]
    pub fn telling(mut self, first_answer: FirstAnswer) -> Self {
        self.first_answer = Mutex::new(Some(first_answer));
        self
    }

    /// Whether a request that was counted in may go on to the application.
    pub(crate) fn allows_another(&self) -> bool {
        self.upstream.account().admit(self.activity.open_requests(), Instant::now())
    }

    /// An answer begins, to a request that came then.
    pub(crate) fn answered(&self, came: Instant) {
        let told = self.first_answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tell) = told {
            tell(came);
        }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("generation", &self.generation)
            .field("activity", &self.activity)
            .finish_non_exhaustive()
    }
}
