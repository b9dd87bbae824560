//! Requests signed as SDKs sign them.

use std::fmt::Write as _;

use ::http::Request;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// For the service that most tests call; see [`signed_for`].
pub(crate) fn signed(
    method: &str,
    uri: &str,
    body: &str,
    key: &str,
    secret: &str,
    at: OffsetDateTime,
) -> Request<String> {
    signed_for("lambda", method, uri, body, key, secret, at)
}

/// The path, already encoded, is encoded once more; a query must be encoded and in order.
pub(crate) fn signed_for(
    service: &str,
    method: &str,
    uri: &str,
    body: &str,
    key: &str,
    secret: &str,
    at: OffsetDateTime,
) -> Request<String> {
    let stamp = at.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap();
    let scope = format!("{}/us-east-1/{service}/aws4_request", &stamp[..8]);
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let canonical = format!(
        "{method}\n{}\n{query}\nhost:rekindle\nx-amz-date:{stamp}\n\nhost;x-amz-date\n{}",
        path.replace('%', "%25"),
        hex(&Sha256::digest(body))
    );
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let signing = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    let signature = hex(&mac(&signing, &text));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}"
    );
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "rekindle")
        .header("x-amz-date", stamp)
        .header("authorization", authorization)
        .body(body.to_owned())
        .unwrap()
}
