//! Endpoint tokens: compact JWEs (`dir`, `A256GCM`) that only this installation can make or read (SPEC §5.2).
//!
//! Everything a token grants is sealed in it, so a proxy needs the key and a clock, and no look-up.

use std::fmt;
use std::ops::RangeInclusive;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use ids::MicrovmId;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The longest token that is looked at: the API's limit on a header value of `authToken`.
pub const MAX_TOKEN_CHARS: usize = 8000;
/// Plaintext of a token without a list of ports: the whole token is then 767 characters, as on AWS.
const PLAIN_WITHOUT_PORTS: usize = 469;
/// Plaintext of a token with a list of ports: 823 characters in all, however long the list, if it fits.
const PLAIN_WITH_PORTS: usize = 511;
/// Longer lists are padded to a multiple of this, to tell as little of the list as can be.
const PLAIN_STEP: usize = 256;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Which ports of a MicroVM a token opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    /// Every port.
    All,
    /// The ports of any of these ranges.
    Ranges(Vec<RangeInclusive<u16>>),
    /// No port: the shell alone (`CreateMicrovmShellAuthToken`).
    Shell,
}

impl Ports {
    /// Whether the application's `port` may be reached. Never true of a shell token.
    #[must_use]
    pub fn allows(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ranges(ranges) => ranges.iter().any(|range| range.contains(&port)),
            Self::Shell => false,
        }
    }
}

/// What a token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The one MicroVM.
    pub microvm: MicrovmId,
    /// The ports of it.
    pub ports: Ports,
    /// The first second, in Unix time, at which the token is of no use.
    pub expires_at: u64,
}

/// Why a token does not open anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours at all.
    #[error(
        "reading an endpoint token: it is not a token of this service; ask for one with CreateMicrovmAuthToken"
    )]
    Malformed,
    /// Made under another key, or changed since.
    #[error(
        "reading an endpoint token: it was not issued by this service; ask for one with CreateMicrovmAuthToken"
    )]
    NotIssuedHere,
    /// Good once.
    #[error("reading an endpoint token: it has expired; ask for a new one with CreateMicrovmAuthToken")]
    Expired,
}

/// The sealed form: short names leave room for ports.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    m: MicrovmId,
    p: SealedPorts,
    e: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SealedPorts {
    All,
    Shell,
    In(Vec<(u16, u16)>),
}

/// The key that seals and opens tokens.
#[derive(Clone)]
pub struct TokenKey {
    cipher: Aes256Gcm,
    /// The encoded protected header; one per key, so it is compared and not parsed.
    header: String,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("header", &self.header).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Derives the key, and the key id that tokens show, from a secret of the installation.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let key = derive(&secret, b"rekindle endpoint token: key");
        let id = derive(&secret, b"rekindle endpoint token: key id");
        let mut kid = [0; 16];
        kid.copy_from_slice(&id[..16]);
        let kid = uuid::Builder::from_random_bytes(kid).into_uuid();
        let header = format!(r#"{{"kid":"{kid}","alg":"dir","enc":"A256GCM"}}"#);
        Self { cipher: Aes256Gcm::new(&key.into()), header: URL_SAFE_NO_PAD.encode(header) }
    }

    /// A token for `scope`. Two calls never give the same text.
    ///
    /// # Panics
    /// If the system has no source of random numbers, without which no token would be safe.
    #[must_use]
    pub fn seal(&self, scope: &Scope) -> String {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the system's random source works");
        let mut text = plaintext(scope);
        let tag = self
            .cipher
            .encrypt_in_place_detached(Nonce::from_slice(&nonce), self.header.as_bytes(), &mut text)
            .expect("a token is far below the cipher's limit of 64 GiB");
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        format!("{}..{}.{}.{}", self.header, encode(&nonce), encode(&text), encode(&tag))
    }

    /// What `token` grants at `now_unix`.
    ///
    /// # Errors
    /// See [`TokenError`]; no secret-dependent comparison is made outside the cipher's own constant-time one.
    pub fn open(&self, token: &str, now_unix: u64) -> Result<Scope, TokenError> {
        let text = self.decrypt(token)?;
        // Authentic from here on: only a token of another release of ours can fail to parse.
        let claims: Claims = serde_json::from_slice(&text).map_err(|_| TokenError::Malformed)?;
        if now_unix >= claims.e {
            return Err(TokenError::Expired);
        }
        let ports = match claims.p {
            SealedPorts::All => Ports::All,
            SealedPorts::Shell => Ports::Shell,
            SealedPorts::In(ranges) => {
                Ports::Ranges(ranges.into_iter().map(|(from, to)| from..=to).collect())
            }
        };
        Ok(Scope { microvm: claims.m, ports, expires_at: claims.e })
    }

    fn decrypt(&self, token: &str) -> Result<Vec<u8>, TokenError> {
        if token.len() > MAX_TOKEN_CHARS {
            return Err(TokenError::Malformed);
        }
        let mut parts = token.split('.');
        let mut next = || parts.next().ok_or(TokenError::Malformed);
        let (header, key, nonce, text, tag) = (next()?, next()?, next()?, next()?, next()?);
        if parts.next().is_some() || !key.is_empty() {
            return Err(TokenError::Malformed);
        }
        let nonce: [u8; NONCE_BYTES] = decode(nonce)?.try_into().map_err(|_| TokenError::Malformed)?;
        let tag: [u8; TAG_BYTES] = decode(tag)?.try_into().map_err(|_| TokenError::Malformed)?;
        let mut text = decode(text)?;
        if header != self.header {
            return Err(TokenError::NotIssuedHere);
        }
        self.cipher
            .decrypt_in_place_detached(
                Nonce::from_slice(&nonce),
                header.as_bytes(),
                &mut text,
                Tag::from_slice(&tag),
            )
            .map_err(|_| TokenError::NotIssuedHere)?;
        Ok(text)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

/// The claims as JSON, padded with spaces, which JSON ignores.
fn plaintext(scope: &Scope) -> Vec<u8> {
    let (p, least) = match &scope.ports {
        Ports::All => (SealedPorts::All, PLAIN_WITHOUT_PORTS),
        Ports::Shell => (SealedPorts::Shell, PLAIN_WITHOUT_PORTS),
        Ports::Ranges(ranges) => (SealedPorts::In(merged(ranges)), PLAIN_WITH_PORTS),
    };
    let claims = Claims { m: scope.microvm, p, e: scope.expires_at };
    let mut text = serde_json::to_vec(&claims).expect("claims have no map and no failing serializer");
    let padded = if text.len() <= least { least } else { text.len().next_multiple_of(PLAIN_STEP) };
    text.resize(padded, b' ');
    text
}

/// The same ports in the fewest ranges, in order; empty ranges fall away.
fn merged(ranges: &[RangeInclusive<u16>]) -> Vec<(u16, u16)> {
    let mut sorted: Vec<(u16, u16)> =
        ranges.iter().filter(|range| !range.is_empty()).map(|range| (*range.start(), *range.end())).collect();
    sorted.sort_unstable();
    let mut out: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (from, to) in sorted {
        match out.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> TokenKey {
        TokenKey::from_secret([7; 32])
    }

    fn scope(ports: Ports) -> Scope {
        Scope { microvm: MicrovmId::random(), ports, expires_at: 1_800_000_000 }
    }

    #[test]
    fn lengths_are_those_of_aws() {
        let len = |ports| key().seal(&scope(ports)).len();
        assert_eq!(len(Ports::All), 767);
        assert_eq!(len(Ports::Shell), 767);
        assert_eq!(len(Ports::Ranges(vec![8080..=8080])), 823);
        assert_eq!(len(Ports::Ranges((0..20).map(|i| i * 1000..=i * 1000 + 9).collect())), 823);
    }

    #[test]
    fn a_token_expires_and_is_bound_to_its_key() {
        let granted = scope(Ports::All);
        let token = key().seal(&granted);
        assert_eq!(key().open(&token, 1_799_999_999), Ok(granted));
        assert_eq!(key().open(&token, 1_800_000_000), Err(TokenError::Expired));
        let other = TokenKey::from_secret([8; 32]);
        assert_eq!(other.open(&token, 0), Err(TokenError::NotIssuedHere));
        assert_ne!(key().seal(&scope(Ports::All)), token);
    }

    #[test]
    fn a_shell_token_reaches_no_port() {
        assert!(!Ports::Shell.allows(8022));
        assert!(Ports::All.allows(1) && Ports::Ranges(vec![1..=5, 80..=80]).allows(80));
        assert!(!Ports::Ranges(vec![]).allows(8080));
    }

    #[test]
    fn the_longest_list_of_the_api_fits_in_a_header() {
        let ranges = (0..100).map(|i| 60000 + i * 3..=60001 + i * 3).collect();
        let token = key().seal(&scope(Ports::Ranges(ranges)));
        assert!(token.len() <= MAX_TOKEN_CHARS);
        assert!(key().open(&token, 0).is_ok());
    }

    proptest! {
        #[test]
        fn sealed_ports_are_the_opened_ports(ranges in proptest::collection::vec((any::<u16>(), any::<u16>()), 0..20), port: u16) {
            let ports = Ports::Ranges(ranges.into_iter().map(|(a, b)| a..=b).collect());
            let opened = key().open(&key().seal(&scope(ports.clone())), 0).unwrap();
            prop_assert_eq!(opened.ports.allows(port), ports.allows(port));
        }

        #[test]
        fn a_changed_token_opens_nothing(at in 0usize..767, to in "[A-Za-z0-9_.-]") {
            let granted = scope(Ports::All);
            let mut token = key().seal(&granted);
            let before = token.clone();
            token.replace_range(at..=at, &to);
            if token != before {
                prop_assert!(key().open(&token, 0).is_err());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}|([A-Za-z0-9_-]{0,40}\\.){4}[A-Za-z0-9_-]{0,40}") {
            prop_assert!(key().open(&text, 0).is_err());
        }
    }
}
