//! Signing, for programs that are clients themselves.

use std::collections::BTreeSet;

use hmac::Mac;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName, InvalidHeaderValue};
use http::request::Parts;
use time::OffsetDateTime;

use super::{ALGORITHM, Claim, Payload, Request, TIMESTAMP, hex, mac};
use crate::keys::AccessKey;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// Why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The time has no form of four-digit years.
    #[error("cannot sign a request: the time has no such form ({0}); set the clock right")]
    Time(#[from] time::error::Format),
    /// The access key or the region is no text for a header.
    #[error("cannot sign a request: {0}; the access key's id and the region must be plain text")]
    Header(#[from] InvalidHeaderValue),
}

/// Signs a request with the whole `body` by adding `x-amz-date` and `authorization`. Every header that is there is
/// covered, among which `host` must be; `service` is the signing name, such as `lambda`.
///
/// # Errors
/// See [`SignError`].
pub fn sign(
    head: &mut Parts,
    body: &[u8],
    key: &AccessKey,
    region: &str,
    service: &str,
    now: OffsetDateTime,
) -> Result<(), SignError> {
    let timestamp = now.to_offset(time::UtcOffset::UTC).format(TIMESTAMP)?;
    head.headers.insert(DATE, HeaderValue::from_str(&timestamp)?);
    let names: BTreeSet<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    let claim = Claim {
        access_key: key.id.clone(),
        region: region.to_owned(),
        service: service.to_owned(),
        session_token: None,
        timestamp,
        signed_at: 0,
        signed_headers: Vec::from_iter(names).join(";"),
        signature: [0; 32],
        expires_in: None,
    };
    let signature = mac(&Request::of(head), &claim, Payload::of(body), &key.secret).finalize().into_bytes();
    let authorization = format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
        claim.access_key,
        claim.scope(),
        claim.signed_headers,
        String::from_utf8_lossy(&hex(&signature.into()))
    );
    head.headers.insert(AUTHORIZATION, HeaderValue::from_str(&authorization)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{parse, verify};
    use super::*;

    const NOW: i64 = 1_440_938_160;

    #[test]
    fn what_is_signed_verifies_and_nothing_of_it_can_be_changed() {
        let key = AccessKey { id: "AKIDEXAMPLE".into(), secret: "secret".into() };
        let request = http::Request::post("http://host/a%3Ab/c?y=2&x=1").header("host", "host:80");
        let (mut head, ()) =
            request.header("content-type", "application/json").body(()).unwrap().into_parts();
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        sign(&mut head, b"{}", &key, "us-east-1", "lambda", now).unwrap();
        let checked = |head: &Parts, body: &[u8], secret: &str| {
            let request = Request::of(head);
            let claim = parse(&request).unwrap();
            assert_eq!((claim.region.as_str(), claim.service.as_str()), ("us-east-1", "lambda"));
            verify(&request, &claim, Payload::of(body), secret, u64::try_from(NOW).unwrap()).is_ok()
        };
        assert!(checked(&head, b"{}", "secret"));
        assert!(!checked(&head, b"{ }", "secret") && !checked(&head, b"{}", "other"));
        for (name, value) in [("host", "other"), ("content-type", "text/plain")] {
            let mut changed = head.clone();
            changed.headers.insert(name, HeaderValue::from_static(value));
            assert!(!checked(&changed, b"{}", "secret"), "{name}");
        }
    }
}
