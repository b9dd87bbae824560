//! Who sends a request: SigV4 in the `Authorization` header, refused as AWS refuses.

use std::time::{SystemTime, UNIX_EPOCH};

use api::{Error, ErrorKind};
use auth::sigv4::{self, Payload, SigV4Error};
use http::request::Parts;
use ids::AccountId;

use crate::Keys;

/// The signing name of every operation here.
pub const SIGNING_NAME: &str = "lambda";

/// The account whose key signed this request with this body.
pub fn authenticate(parts: &Parts, body: &[u8], keys: &dyn Keys) -> Result<AccountId, Error> {
    verified(parts, body, keys).map_err(|error| refusal(&error))
}

fn verified(parts: &Parts, body: &[u8], keys: &dyn Keys) -> Result<AccountId, SigV4Error> {
    let request = sigv4::Request::of(parts);
    let claim = sigv4::parse(&request)?;
    if claim.service != SIGNING_NAME {
        return Err(SigV4Error::Incomplete("the credential must be scoped to the service 'lambda'"));
    }
    let (account, secret) = keys.secret(&claim.access_key).ok_or(SigV4Error::UnknownKey)?;
    // A clock before 1970 refuses every request as skewed, which is the truth.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    sigv4::verify(&request, &claim, Payload::of(body), &secret, now)?;
    Ok(account)
}

fn refusal(error: &SigV4Error) -> Error {
    let kind = match error {
        SigV4Error::Missing => ErrorKind::MissingAuthenticationToken,
        SigV4Error::Incomplete(_) => ErrorKind::IncompleteSignature,
        SigV4Error::UnknownKey => ErrorKind::UnrecognizedClient,
        SigV4Error::Mismatch | SigV4Error::Skewed { .. } | SigV4Error::Expired => ErrorKind::InvalidSignature,
    };
    Error::new(kind, error.to_string())
}
