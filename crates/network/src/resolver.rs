//! Answering the DNS queries of the guest in one slot, as far as what it is bound to lets it resolve names.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::dns;
use crate::egress::is_public;
use crate::gate::{self, GateError};
use crate::pool::Shared;

/// What resolves names for one guest. Clones are the same.
#[derive(Debug, Clone)]
pub struct Resolver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) slot: u32,
    pub(crate) upstreams: Arc<[SocketAddr]>,
}

impl Resolver {
    /// The answer to a raw query, which is a failure where nobody answers; `None` if this was no query.
    ///
    /// A name that the guest may not resolve does not exist for it, and no resolver hears of it: a name is bytes that it
    /// could send to whoever serves the name's zone. It is told so rather than refused, because some resolvers (musl's)
    /// take a refusal for silence and go on waiting. Nor has a name IPv6 addresses for it where none of them leads anywhere
    /// from here, as on a host without IPv6: programs would try them first.
    pub async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let answer = match self.shared.gate(self.slot) {
            Some(gate) => gate.answer(query, &self.upstreams).await,
            None => gate::forward(query, &self.upstreams, is_public).await.map_err(GateError::from),
        };
        answer.unwrap_or_else(|error| {
            tracing::debug!(slot = self.slot, %error, "a guest's name was not resolved");
            dns::server_failure(query)
        })
    }
}
