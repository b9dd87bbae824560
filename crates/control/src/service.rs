//! What the HTTP side calls, implemented by whoever owns the state.

use api::Error;
use async_trait::async_trait;
use bytes::Bytes;
use ids::AccountId;

use crate::route::Route;

/// Access keys.
pub trait Keys: Send + Sync + 'static {
    /// The owner and the secret of an access key.
    fn secret(&self, access_key_id: &str) -> Option<(AccountId, String)>;
}

/// One call of an operation, by somebody who has been authenticated.
#[derive(Debug)]
pub struct Call {
    /// Who calls.
    pub account: AccountId,
    /// Which operation, with its parameters.
    pub route: Route,
    /// The body, unread.
    pub body: Bytes,
}

/// The operations.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Reads, checks and carries out a call: the answer as JSON, empty where there is none.
    async fn answer(&self, call: Call) -> Result<Vec<u8>, Error>;
}
