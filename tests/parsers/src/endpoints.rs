//! What an endpoint reads of a request: the host's name, the token and the cookie of a login; and of the messages of a shell's client.

use auth::token::{MAX_TOKEN_CHARS, TokenKey};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use proxy::{EndpointHosts, ShellInput, client_input, session};

/// The key that the corpus's authentic tokens were sealed with.
const KEY: [u8; 32] = [7; 32];

pub(crate) fn authority(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let hosts = EndpointHosts::new("us-east-1", "localhost");
    if let Some(endpoint) = hosts.endpoint(text) {
        assert_eq!(hosts.endpoint(&hosts.host(endpoint)), Some(endpoint));
        assert!(text.len() >= hosts.host(endpoint).len(), "a name shorter than the endpoint's");
    }
}

pub(crate) fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let key = TokenKey::from_secret(KEY);
    if let Ok(scope) = key.open(text, 0) {
        assert!(text.len() <= MAX_TOKEN_CHARS);
        assert!(key.open(text, scope.expires_at).is_err(), "a token that does not expire");
        assert_eq!(key.open(&key.seal(&scope), 0).as_ref(), Ok(&scope), "a token that cannot be made again");
        let other = TokenKey::from_secret([8; 32]);
        assert!(other.open(text, 0).is_err(), "a token that two keys open");
    }
}

pub(crate) fn cookie(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::from_iter([(COOKIE, value)]);
    if let Some(token) = session::read(&headers) {
        assert!(!token.contains(';') && bytes.len() > token.len(), "a token that was not sent");
    }
    session::strip(&mut headers);
    assert_eq!(session::read(&headers), None, "the application would see the cookie");
    let left = headers.clone();
    session::strip(&mut headers);
    assert_eq!(headers, left, "what is left is left as it is");
}

pub(crate) fn shell(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match client_input(text) {
        ShellInput::Keys(keys) => assert_eq!(keys, bytes, "other keys than were typed"),
        ShellInput::Resize { cols, rows } => {
            assert!(text.len() <= proxy::limits::MAX_SHELL_COMMAND);
            let again = format!(r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#);
            assert_eq!(client_input(&again), ShellInput::Resize { cols, rows });
        }
    }
}
