//! Client tokens: a request repeated with its token gives what the first one made (SPEC §1.4).

use api::{Error, Request};
use ids::{AccountId, ImageVersion};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::{TokenRecord, Tx};

use super::failure::Failure;
use super::retention::TOKENS_MS;

/// What the two services call it.
const TOKEN_MEMBERS: [&str; 2] = ["clientToken", "ClientToken"];

/// A request's claim to be, or to be known as, the first with its token.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    account: AccountId,
    operation: &'static str,
    token: Option<String>,
    fingerprint: String,
}

impl Claim {
    /// The claim of `request`; without a token, it is always the first.
    pub(crate) fn of<R: Request>(account: &AccountId, request: &R) -> Result<Self, Error> {
        let unreadable = |error| Error::internal(format!("Reading the request again: {error}; report this"));
        let mut parameters = serde_json::to_value(request).map_err(unreadable)?;
        let members = parameters.as_object_mut();
        let token = members.and_then(|members| TOKEN_MEMBERS.iter().find_map(|name| members.remove(*name)));
        Ok(Self {
            account: account.clone(),
            operation: R::OPERATION.name(),
            token: token.as_ref().and_then(Value::as_str).map(str::to_owned),
            fingerprint: format!("{:x}", Sha256::digest(parameters.to_string())),
        })
    }

    /// What the token was used for before, if that is not too long ago.
    pub(crate) fn earlier(&self, tx: &Tx<'_>, now: u64) -> Result<Option<TokenRecord>, Failure> {
        let Some(token) = &self.token else { return Ok(None) };
        let found = tx.token(&self.account, self.operation, token)?;
        let Some(earlier) = found.filter(|earlier| now.saturating_sub(earlier.created_at) < TOKENS_MS) else {
            return Ok(None);
        };
        if earlier.fingerprint == self.fingerprint {
            return Ok(Some(earlier));
        }
        let message = format!(
            "The clientToken was used for another {} request with different parameters; use a new token for \
             a new request",
            self.operation
        );
        Err(Error::conflict("ClientToken", token, message).into())
    }

    /// Notes what the request made.
    pub(crate) fn remember(
        self,
        tx: &Tx<'_>,
        result: String,
        version: Option<ImageVersion>,
        now: u64,
    ) -> Result<(), Failure> {
        let Some(token) = &self.token else { return Ok(()) };
        let record = TokenRecord { fingerprint: self.fingerprint, result, version, created_at: now };
        Ok(tx.put_token(&self.account, self.operation, token, &record)?)
    }
}
