//! Answering the DNS queries of the guest in one slot, as far as what it is bound to lets it resolve names at all.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::dns;
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
    /// To a guest that reaches nothing no name exists, and no resolver hears of its queries: a name is bytes that it
    /// could send to whoever serves the name's zone. It is told so at once rather than refused, because some resolvers
    /// (musl's) take a refusal for silence and go on waiting.
    pub async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        if !self.shared.resolves(self.slot) {
            return dns::no_such_name(query);
        }
        match dns::forward(query, &self.upstreams).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%error, "a guest's name was not resolved");
                dns::server_failure(query)
            }
        }
    }
}
