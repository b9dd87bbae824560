//! AWS Signature Version 4: verification of signed headers and of presigned queries, and signing.
//!
//! [`parse`] says who claims to have signed a request; the caller looks up the secret; [`verify`] checks the
//! claim. Both are pure, take bytes from anyone and never panic. [`sign`] is what a client does.

mod sign;

use std::cell::RefCell;
use std::collections::VecDeque;

use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use sha2::{Digest, Sha256};
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

pub use sign::{SignError, sign};

/// The only algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far a request's clock may be from ours, in seconds.
pub const MAX_SKEW: u64 = 15 * 60;
/// The longest life of a presigned request, in seconds: a week.
pub const MAX_PRESIGNED: u64 = 7 * 24 * 3600;
/// Signing keys that each thread remembers.
const MAX_SIGNING_KEYS: usize = 16;
/// More signed headers than any client has.
const MAX_SIGNED_HEADERS: usize = 64;
/// Bytes of a canonical request, as most are.
const CANONICAL_BYTES: usize = 512;
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");
/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const ENCODED_IN_PATH: &AsciiSet = &ENCODED.remove(b'/');

/// The parts of a request that are signed, as they came over the wire.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `GET`, …
    pub method: &'a str,
    /// Path, not decoded.
    pub path: &'a str,
    /// Query without its `?`, not decoded.
    pub query: &'a str,
    /// Lower-case name and value, in the order received.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Request<'a> {
    /// Of an HTTP request; over HTTP/2 the authority stands in for the `host` header.
    #[must_use]
    pub fn of(parts: &'a http::request::Parts) -> Self {
        let mut headers: Vec<_> =
            parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        if let (None, Some(host)) = (parts.headers.get("host"), parts.uri.authority()) {
            headers.push(("host", host.as_str().as_bytes()));
        }
        Self {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers,
        }
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.headers.iter().find(|(candidate, _)| *candidate == name)?;
        std::str::from_utf8(value).ok().map(str::trim)
    }

    fn query_pairs(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + use<'a> {
        self.query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
    }

    fn query_value(&self, name: &str) -> Option<String> {
        let (_, value) = self.query_pairs().find(|(candidate, _)| candidate == name.as_bytes())?;
        String::from_utf8(value).ok()
    }
}

/// What a request says about its signature; nothing of it is proven before [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Access key id.
    pub access_key: String,
    /// Region of the credential scope.
    pub region: String,
    /// Signing name of the service: `lambda`, `s3`, …
    pub service: String,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
    timestamp: String,
    signed_at: u64,
    /// Their names, as the list stands in the request.
    signed_headers: String,
    signature: [u8; 32],
    /// For a presigned request, how long it lives.
    expires_in: Option<u64>,
}

impl Claim {
    /// Whether the signature is in the query and not in a header.
    #[must_use]
    pub fn is_presigned(&self) -> bool {
        self.expires_in.is_some()
    }

    fn day(&self) -> &str {
        &self.timestamp[..8]
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.day(), self.region, self.service)
    }
}

/// The body, as the signature covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Its SHA-256.
    Sha256([u8; 32]),
    /// Not covered: `UNSIGNED-PAYLOAD`.
    Unsigned,
}

impl Payload {
    /// Of a whole body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(body).into())
    }

    fn push(self, text: &mut Vec<u8>) {
        match self {
            Self::Sha256(hash) => text.extend_from_slice(&hex(&hash)),
            Self::Unsigned => text.extend_from_slice(UNSIGNED.as_bytes()),
        }
    }
}

/// Why a request is not authentic. [`SigV4Error::code`] gives AWS's name for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigV4Error {
    /// No signature at all.
    #[error("Missing Authentication Token")]
    Missing,
    /// A signature that lacks something.
    #[error("Reading the request's signature: {0}")]
    Incomplete(&'static str),
    /// An access key that nobody has; for the caller that looked it up.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// A session token whose session is over; for the caller that looked it up.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
    /// Signed with another secret, or changed since.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
         Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// Signed too long ago, or in the future.
    #[error(
        "Signature not current: signed at {signed_at}, and the time here is {now} (Unix time); set the clock right"
    )]
    Skewed {
        /// Unix time.
        signed_at: u64,
        /// Unix time.
        now: u64,
    },
    /// A presigned request whose life is over.
    #[error("Request has expired; presign it again")]
    Expired,
}

impl SigV4Error {
    /// The error code that AWS's `service` answers with.
    #[must_use]
    pub fn code(&self, service: &str) -> &'static str {
        let (s3, query, rest) = match self {
            Self::Missing => {
                ("AccessDenied", "MissingAuthenticationToken", "MissingAuthenticationTokenException")
            }
            Self::Incomplete(_) => {
                ("AuthorizationHeaderMalformed", "IncompleteSignature", "IncompleteSignatureException")
            }
            Self::UnknownKey => ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"),
            Self::ExpiredToken => ("ExpiredToken", "ExpiredToken", "ExpiredTokenException"),
            Self::Mismatch => ("SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidSignatureException"),
            Self::Skewed { .. } => {
                ("RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException")
            }
            Self::Expired => ("AccessDenied", "SignatureDoesNotMatch", "InvalidSignatureException"),
        };
        match service {
            "s3" => s3,
            "sts" | "iam" => query,
            _ => rest,
        }
    }

    /// The HTTP status that goes with [`SigV4Error::code`].
    #[must_use]
    pub fn status(&self, service: &str) -> u16 {
        match self {
            Self::Incomplete(_) if matches!(service, "s3" | "sts" | "iam") => 400,
            Self::ExpiredToken if service == "s3" => 400,
            _ => 403,
        }
    }
}

/// Reads the signature that `request` carries.
///
/// # Errors
/// [`SigV4Error::Missing`] or [`SigV4Error::Incomplete`].
pub fn parse(request: &Request<'_>) -> Result<Claim, SigV4Error> {
    match request.header("authorization") {
        Some(authorization) => parse_header(request, authorization),
        None if request.query_value("X-Amz-Algorithm").is_some() => parse_query(request),
        None => Err(SigV4Error::Missing),
    }
}

/// Checks that the holder of `secret` signed `request` as `claim` says, and that it is in time.
///
/// # Errors
/// [`SigV4Error::Mismatch`], [`SigV4Error::Skewed`] or [`SigV4Error::Expired`].
pub fn verify(
    request: &Request<'_>,
    claim: &Claim,
    payload: Payload,
    secret: &str,
    now_unix: u64,
) -> Result<(), SigV4Error> {
    let mac = mac(request, claim, payload, secret);
    // The MAC's own comparison takes the same time whatever differs.
    mac.verify_slice(&claim.signature).map_err(|_| SigV4Error::Mismatch)?;
    in_time(claim, now_unix)
}

/// Over what is signed, ready to be compared or written down.
fn mac(request: &Request<'_>, claim: &Claim, payload: Payload, secret: &str) -> Hmac<Sha256> {
    let hashed = hex(&Sha256::digest(canonical_request(request, claim, payload)).into());
    let to_sign = format!("{ALGORITHM}\n{}\n{}\n", claim.timestamp, claim.scope());
    signing_key(secret, claim).chain_update(to_sign).chain_update(hashed)
}

fn in_time(claim: &Claim, now: u64) -> Result<(), SigV4Error> {
    let signed_at = claim.signed_at;
    let skewed = Err(SigV4Error::Skewed { signed_at, now });
    match claim.expires_in {
        _ if signed_at > now.saturating_add(MAX_SKEW) => skewed,
        None if now > signed_at.saturating_add(MAX_SKEW) => skewed,
        Some(life) if now > signed_at.saturating_add(life) => Err(SigV4Error::Expired),
        _ => Ok(()),
    }
}

fn parse_header(request: &Request<'_>, authorization: &str) -> Result<Claim, SigV4Error> {
    let fields = authorization
        .strip_prefix(ALGORITHM)
        .ok_or(SigV4Error::Incomplete("Authorization must begin with AWS4-HMAC-SHA256"))?;
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in fields.split(',') {
        match field.trim().split_once('=') {
            Some(("Credential", value)) => credential = Some(value),
            Some(("SignedHeaders", value)) => signed_headers = Some(value),
            Some(("Signature", value)) => signature = Some(value),
            _ => {}
        }
    }
    let stated = Stated {
        credential: credential.ok_or(SigV4Error::Incomplete("Authorization requires 'Credential'"))?,
        signed_headers: signed_headers
            .ok_or(SigV4Error::Incomplete("Authorization requires 'SignedHeaders'"))?,
        signature: signature.ok_or(SigV4Error::Incomplete("Authorization requires 'Signature'"))?,
        timestamp: request
            .header("x-amz-date")
            .ok_or(SigV4Error::Incomplete("Authorization requires the header 'X-Amz-Date'"))?,
    };
    stated.claim(None, request.header("x-amz-security-token").map(str::to_owned))
}

fn parse_query(request: &Request<'_>) -> Result<Claim, SigV4Error> {
    let value = |name, missing| request.query_value(name).ok_or(SigV4Error::Incomplete(missing));
    if request.query_value("X-Amz-Algorithm").as_deref() != Some(ALGORITHM) {
        return Err(SigV4Error::Incomplete("X-Amz-Algorithm must be AWS4-HMAC-SHA256"));
    }
    let credential = value("X-Amz-Credential", "the query lacks X-Amz-Credential")?;
    let signed_headers = value("X-Amz-SignedHeaders", "the query lacks X-Amz-SignedHeaders")?;
    let signature = value("X-Amz-Signature", "the query lacks X-Amz-Signature")?;
    let timestamp = value("X-Amz-Date", "the query lacks X-Amz-Date")?;
    let life = value("X-Amz-Expires", "the query lacks X-Amz-Expires")?;
    let life = life
        .parse()
        .ok()
        .filter(|seconds| (1..=MAX_PRESIGNED).contains(seconds))
        .ok_or(SigV4Error::Incomplete("X-Amz-Expires must be from 1 to 604800"))?;
    Stated {
        credential: &credential,
        signed_headers: &signed_headers,
        signature: &signature,
        timestamp: &timestamp,
    }
    .claim(Some(life), request.query_value("X-Amz-Security-Token"))
}

/// The four texts of a signature, wherever they stood.
struct Stated<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    timestamp: &'a str,
}

impl Stated<'_> {
    fn claim(self, expires_in: Option<u64>, session_token: Option<String>) -> Result<Claim, SigV4Error> {
        let parts: Vec<&str> = self.credential.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = parts[..] else {
            return Err(SigV4Error::Incomplete(
                "Credential must be <key>/<date>/<region>/<service>/aws4_request",
            ));
        };
        let signed_at = PrimitiveDateTime::parse(self.timestamp, TIMESTAMP)
            .ok()
            .and_then(|at| u64::try_from(at.assume_utc().unix_timestamp()).ok())
            .ok_or(SigV4Error::Incomplete("X-Amz-Date must be like 20150830T123600Z"))?;
        if self.timestamp.get(..8) != Some(date) {
            return Err(SigV4Error::Incomplete("the date in Credential must be that of X-Amz-Date"));
        }
        Ok(Claim {
            access_key: access_key.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            session_token,
            timestamp: self.timestamp.to_owned(),
            signed_at,
            signed_headers: signed_headers(self.signed_headers)?,
            signature: unhex(self.signature)
                .ok_or(SigV4Error::Incomplete("Signature must be 64 hex digits"))?,
            expires_in,
        })
    }
}

fn signed_headers(list: &str) -> Result<String, SigV4Error> {
    if list.split(';').nth(MAX_SIGNED_HEADERS).is_some() {
        return Err(SigV4Error::Incomplete("SignedHeaders names more than 64 headers"));
    }
    // Without the host a request signed for one service could be replayed to another.
    if !list.split(';').any(|name| name == "host") {
        return Err(SigV4Error::Incomplete("SignedHeaders must include 'host'"));
    }
    Ok(list.to_owned())
}

fn canonical_request(request: &Request<'_>, claim: &Claim, payload: Payload) -> Vec<u8> {
    let mut text = Vec::with_capacity(CANONICAL_BYTES);
    text.extend_from_slice(request.method.as_bytes());
    text.push(b'\n');
    push_canonical_path(&mut text, request.path, &claim.service);
    text.push(b'\n');
    push_canonical_query(&mut text, request);
    text.push(b'\n');
    for name in claim.signed_headers.split(';') {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        push_canonical_value(&mut text, request, name);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(claim.signed_headers.as_bytes());
    text.push(b'\n');
    payload.push(&mut text);
    text
}

/// S3 signs the path encoded once and untouched; every other service normalises it and encodes it again.
fn push_canonical_path(text: &mut Vec<u8>, path: &str, service: &str) {
    if service == "s3" {
        push_encoded(text, &decoded(path), ENCODED_IN_PATH);
        return;
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    for segment in &segments {
        text.push(b'/');
        push_encoded(text, segment.as_bytes(), ENCODED);
    }
    let ends_in_slash = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    if segments.is_empty() || ends_in_slash {
        text.push(b'/');
    }
}

fn push_canonical_query(text: &mut Vec<u8>, request: &Request<'_>) {
    let encode = |bytes: &[u8]| percent_encode(bytes, ENCODED).to_string();
    let mut pairs: Vec<(String, String)> = request
        .query_pairs()
        .filter(|(name, _)| name != b"X-Amz-Signature")
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort_unstable();
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            text.push(b'&');
        }
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value.as_bytes());
    }
}

fn push_encoded(text: &mut Vec<u8>, bytes: &[u8], encoded: &'static AsciiSet) {
    for piece in percent_encode(bytes, encoded) {
        text.extend_from_slice(piece.as_bytes());
    }
}

/// All values of a header, each with its runs of blanks made single, joined by commas.
fn push_canonical_value(text: &mut Vec<u8>, request: &Request<'_>, name: &str) {
    let values = request.headers.iter().filter(|(candidate, _)| *candidate == name);
    for (at, (_, value)) in values.enumerate() {
        if at > 0 {
            text.push(b',');
        }
        let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        for (at, word) in words.enumerate() {
            if at > 0 {
                text.push(b' ');
            }
            text.extend_from_slice(word);
        }
    }
}

/// A key ready to sign, with what it was made from.
struct SigningKey {
    secret: String,
    day: String,
    region: String,
    service: String,
    key: Hmac<Sha256>,
}

thread_local! {
    /// The keys made last: a client signs with one all day.
    static SIGNING_KEYS: RefCell<VecDeque<SigningKey>> = const { RefCell::new(VecDeque::new()) };
}

fn signing_key(secret: &str, claim: &Claim) -> Hmac<Sha256> {
    let source = [secret, claim.day(), &claim.region, &claim.service];
    SIGNING_KEYS.with_borrow_mut(|keys| {
        let known =
            |known: &&SigningKey| source == [&known.secret, &known.day, &known.region, &known.service];
        if let Some(known) = keys.iter().find(known) {
            return known.key.clone();
        }
        let key = keyed(&derived_key(secret, claim));
        let [secret, day, region, service] = source.map(str::to_owned);
        keys.truncate(MAX_SIGNING_KEYS - 1);
        keys.push_front(SigningKey { secret, day, region, service, key: key.clone() });
        key
    })
}

fn derived_key(secret: &str, claim: &Claim) -> [u8; 32] {
    let start = format!("AWS4{secret}");
    let steps = [claim.day(), &claim.region, &claim.service, "aws4_request"];
    let signed = |key: &[u8], step: &str| keyed(key).chain_update(step).finalize().into_bytes().into();
    let first = signed(start.as_bytes(), steps[0]);
    steps[1..].iter().fold(first, |key: [u8; 32], step| signed(&key, step))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode(text.as_bytes()).collect()
}

fn hex(hash: &[u8; 32]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(hash) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let value = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    /// 2015-08-30T12:36:00Z
    const SIGNED_AT: u64 = 1_440_938_160;

    /// A request of AWS's test suite, signed for the service `service`.
    fn check(
        method: &str,
        path: &str,
        query: &str,
        more: &[(&str, &str)],
        signature: &str,
        secret: &str,
        now: u64,
    ) -> Result<(), SigV4Error> {
        let mut headers: Vec<(&str, &str)> =
            vec![("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        headers.extend(more);
        let mut names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={}, Signature={signature}",
            names.join(";")
        );
        headers.push(("authorization", &authorization));
        let headers = headers.into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
        let request = Request { method, path, query, headers };
        let claim = parse(&request)?;
        assert_eq!((claim.access_key.as_str(), claim.service.as_str()), ("AKIDEXAMPLE", "service"));
        verify(&request, &claim, Payload::of(b""), secret, now)
    }

    const VANILLA: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";

    #[test]
    fn the_test_suite_of_aws_verifies() {
        let ok = |method, path, query, more: &[(&str, &str)], signature| {
            assert_eq!(
                check(method, path, query, more, signature, SECRET, SIGNED_AT),
                Ok(()),
                "{method} {path}?{query} {more:?}"
            );
        };
        ok("GET", "/", "", &[], VANILLA);
        // get-slashes, get-relative, get-slash-dot-slash: all normalise to "/"
        ok("GET", "//", "", &[], VANILLA);
        ok("GET", "/example/..", "", &[], VANILLA);
        ok("GET", "/./", "", &[], VANILLA);
        ok("POST", "/", "", &[], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
        ok(
            "GET",
            "/",
            "Param2=value2&Param1=value1",
            &[],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
        ok("GET", "/\u{1234}", "", &[], "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
        ok(
            "GET",
            "/example space/",
            "",
            &[],
            "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        );
        ok(
            "GET",
            "/",
            "Param1=value1",
            &[],
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        );
        ok(
            "GET",
            "/",
            "",
            &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        );
        ok(
            "GET",
            "/",
            "",
            &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        );
    }

    #[test]
    fn the_s3_examples_of_aws_verify() {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let at = 1_369_353_600; // 2013-05-24T00:00:00Z
        let request = Request {
            method: "GET",
            path: "/test.txt",
            query: "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1\
                    %2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
                    &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
            headers: vec![("host", b"examplebucket.s3.amazonaws.com")],
        };
        let claim = parse(&request).unwrap();
        assert!(claim.is_presigned());
        assert_eq!(verify(&request, &claim, Payload::Unsigned, secret, at + 86400), Ok(()));
        assert_eq!(verify(&request, &claim, Payload::Unsigned, secret, at + 86401), Err(SigV4Error::Expired));
    }

    #[test]
    fn a_session_token_is_found_in_the_headers_and_in_the_query() {
        let signature = "0".repeat(64);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=ASIA/20150830/r/sts/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-security-token, Signature={signature}"
        );
        let headers = vec![
            ("authorization", authorization.as_bytes()),
            ("x-amz-date", &b"20150830T123600Z"[..]),
            ("x-amz-security-token", &b"a+b/c="[..]),
        ];
        let request = Request { method: "POST", path: "/", query: "", headers };
        assert_eq!(parse(&request).unwrap().session_token.as_deref(), Some("a+b/c="));

        let query = format!(
            "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential=ASIA%2F20150830%2Fr%2Fsts%2Faws4_request\
             &X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host\
             &X-Amz-Security-Token=a%2Bb%2Fc%3D&X-Amz-Signature={signature}"
        );
        let request = Request { method: "GET", path: "/", query: &query, headers: vec![] };
        assert_eq!(parse(&request).unwrap().session_token.as_deref(), Some("a+b/c="));
    }

    #[test]
    fn wrong_secret_stale_date_and_changed_request_fail() {
        let vanilla = |path, secret, now| check("GET", path, "", &[], VANILLA, secret, now);
        assert_eq!(vanilla("/", "other", SIGNED_AT), Err(SigV4Error::Mismatch));
        assert_eq!(vanilla("/x", SECRET, SIGNED_AT), Err(SigV4Error::Mismatch));
        assert_eq!(vanilla("/", SECRET, SIGNED_AT + MAX_SKEW), Ok(()));
        for now in [SIGNED_AT + MAX_SKEW + 1, SIGNED_AT - MAX_SKEW - 1] {
            assert_eq!(vanilla("/", SECRET, now), Err(SigV4Error::Skewed { signed_at: SIGNED_AT, now }));
        }
    }

    #[test]
    fn what_is_missing_has_the_name_that_aws_gives_it() {
        let bare = Request { method: "GET", path: "/", query: "", headers: vec![] };
        assert_eq!(parse(&bare), Err(SigV4Error::Missing));
        assert_eq!(SigV4Error::Missing.code("sts"), "MissingAuthenticationToken");
        assert_eq!(SigV4Error::Mismatch.code("lambda"), "InvalidSignatureException");
        assert_eq!(SigV4Error::UnknownKey.code("s3"), "InvalidAccessKeyId");
        assert_eq!(SigV4Error::UnknownKey.status("lambda"), 403);
        assert_eq!(SigV4Error::ExpiredToken.code("sts"), "ExpiredToken");
        let half = Request { headers: vec![("authorization", b"AWS4-HMAC-SHA256 Credential=a")], ..bare };
        assert!(matches!(parse(&half), Err(SigV4Error::Incomplete(_))));
    }

    #[test]
    fn a_remembered_key_is_the_one_that_would_be_made() {
        let claim = |region: &str, service: &str| Claim {
            access_key: "AKIDEXAMPLE".into(),
            region: region.into(),
            service: service.into(),
            session_token: None,
            timestamp: "20150830T123600Z".into(),
            signed_at: SIGNED_AT,
            signed_headers: String::new(),
            signature: [0; 32],
            expires_in: None,
        };
        for _ in 0..2 {
            for number in 0..MAX_SIGNING_KEYS * 2 {
                for secret in [SECRET, "other"] {
                    let claim = claim(&format!("r{number}"), "lambda");
                    let made = keyed(&derived_key(secret, &claim)).finalize().into_bytes();
                    for _ in 0..2 {
                        let remembered = signing_key(secret, &claim).finalize().into_bytes();
                        assert_eq!(remembered, made, "{number}");
                    }
                }
            }
        }
        let hash = std::array::from_fn(|at| u8::try_from(at * 8).unwrap());
        assert_eq!(unhex(std::str::from_utf8(&hex(&hash)).unwrap()), Some(hash));
        assert!(hex(&hash).starts_with(b"0008101820"));
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(
            path in "\\PC{0,40}", query in "\\PC{0,60}", authorization in "(AWS4-HMAC-SHA256 )?\\PC{0,120}",
            date in "[0-9]{8}T[0-9]{6}Z|\\PC{0,20}", service in "s3|lambda",
        ) {
            let signature = "0".repeat(64);
            let day = date.chars().take(8).collect::<String>();
            let whole = format!("AWS4-HMAC-SHA256 Credential=a/{day}/r/{service}/aws4_request,\
                SignedHeaders=host;x,Signature={signature}");
            for authorization in [&authorization, &whole] {
                let headers = vec![("authorization", authorization.as_bytes()), ("x-amz-date", date.as_bytes())];
                let request = Request { method: "GET", path: &path, query: &query, headers };
                if let Ok(claim) = parse(&request) {
                    prop_assert!(verify(&request, &claim, Payload::Unsigned, "s", 0).is_err());
                }
            }
        }
    }
}
