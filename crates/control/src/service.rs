//! What the HTTP side calls, implemented by whoever owns the state.

use std::net::IpAddr;
use std::sync::Arc;

use api::Error;
use api::route::Route;
use bytes::Bytes;
use futures::future::BoxFuture;
use identity::Caller;

/// One call of an operation, by somebody who has been authenticated.
#[derive(Debug)]
pub struct Call {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// From where.
    pub peer: Option<IpAddr>,
    /// Which operation, with its parameters.
    pub route: Route,
    /// The body, unread.
    pub body: Bytes,
}

/// What came of a call.
#[derive(Debug)]
pub struct Answer {
    /// ARNs of what it was about, as far as that was understood.
    pub resources: Vec<String>,
    /// The answer as JSON, empty where there is none.
    pub outcome: Result<Vec<u8>, Error>,
}

/// The operations.
pub trait Service: Send + Sync + 'static {
    /// Reads, checks and carries out a call. Must be run to its end once it has begun: a record without the work that
    /// follows from it would wait for the next start of the server.
    fn answer(&self, call: Call) -> BoxFuture<'_, Answer>;
}
