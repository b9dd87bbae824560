//! Who sends a request: SigV4 in the `Authorization` header, refused as AWS refuses.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::{Error, ErrorKind};
use auth::sigv4::{self, Payload, SigV4Error};
use http::request::Parts;
use identity::{Caller, CredentialError, Identity};

/// The signing names of what is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningName {
    /// lambda-microvms and lambda-core.
    Lambda,
    /// IAM.
    Iam,
    /// STS.
    Sts,
    /// CloudWatch Logs.
    Logs,
}

impl SigningName {
    /// As it stands in a credential scope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lambda => "lambda",
            Self::Iam => "iam",
            Self::Sts => "sts",
            Self::Logs => "logs",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Lambda, Self::Iam, Self::Sts, Self::Logs].into_iter().find(|name| name.as_str() == text)
    }
}

/// The service that a request says it is signed for; nothing of it is proven.
#[must_use]
pub fn signing_name(parts: &Parts) -> Option<SigningName> {
    let claim = sigv4::parse(&sigv4::Request::of(parts)).ok()?;
    SigningName::parse(&claim.service)
}

/// Why it is not known who sends a request.
#[derive(Debug, thiserror::Error)]
pub enum NotAuthentic {
    /// The signature.
    #[error(transparent)]
    Signature(#[from] SigV4Error),
    /// Signed for something else.
    #[error("Credential should be scoped to {0}.")]
    Scope(String),
    /// The access key, or the session's token.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl NotAuthentic {
    /// The same as IAM and STS have words for it.
    pub(crate) fn into_signature(self) -> SigV4Error {
        match self {
            Self::Signature(error) => error,
            Self::Scope(_) => SigV4Error::Incomplete("the credential is scoped to another service"),
            Self::Credential(error) => error.into(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Signature(SigV4Error::Missing) => ErrorKind::MissingAuthenticationToken,
            Self::Signature(SigV4Error::Incomplete(_)) => ErrorKind::IncompleteSignature,
            Self::Signature(SigV4Error::UnknownKey) => ErrorKind::UnrecognizedClient,
            Self::Signature(_) | Self::Scope(_) => ErrorKind::InvalidSignature,
            Self::Credential(CredentialError::Expired) => ErrorKind::ExpiredToken,
            Self::Credential(_) => ErrorKind::UnrecognizedClient,
        }
    }
}

/// Whose key signed this request with this body, for a service in a region.
///
/// # Errors
/// The one that AWS answers.
pub fn authenticate(
    parts: &Parts,
    body: &[u8],
    identity: &Identity,
    scope: (SigningName, &str),
) -> Result<Arc<Caller>, Error> {
    verified(parts, body, identity, scope).map_err(|error| Error::new(error.kind(), error.to_string()))
}

/// The same, with an error that each service has words of its own for.
pub(crate) fn verified(
    parts: &Parts,
    body: &[u8],
    identity: &Identity,
    (service, region): (SigningName, &str),
) -> Result<Arc<Caller>, NotAuthentic> {
    let request = sigv4::Request::of(parts);
    let claim = sigv4::parse(&request)?;
    if claim.service != service.as_str() {
        return Err(NotAuthentic::Scope(format!("correct service: '{}'", service.as_str())));
    }
    // IAM is one for all regions, and its clients sign for one of their own.
    if matches!(service, SigningName::Lambda | SigningName::Logs) && claim.region != region {
        return Err(NotAuthentic::Scope(format!("a valid region, not '{}'", claim.region)));
    }
    let credential = identity.credential(&claim.access_key, claim.session_token.as_deref())?;
    // A clock before 1970 refuses every request as skewed, which is the truth.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    sigv4::verify(&request, &claim, Payload::of(body), &credential.secret, now)?;
    Ok(credential.caller)
}
