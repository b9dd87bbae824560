//! A thin client of Firecracker's API: one request, one connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::socket;
use crate::error::CommandError;

/// Longest answer taken from the VMM.
const MAX_ANSWER: usize = 64 << 10;
/// Most characters quoted of a refusal.
const MAX_REASON: usize = 1000;
/// How long the VMM may take to answer: to write the memory of a machine that booted, on a slow disk.
const ANSWER_TIME: Duration = Duration::from_secs(180);

/// Where to ask.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) socket: PathBuf,
}

#[derive(Deserialize)]
struct Fault {
    fault_message: String,
}

impl Api {
    /// Sets something, or has something done.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<(), CommandError> {
        self.call(Method::PUT, path, body).await
    }

    /// Changes something.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<(), CommandError> {
        self.call(Method::PATCH, path, body).await
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<(), CommandError> {
        let command = format!("{method} {path}");
        let answer = timeout(ANSWER_TIME, self.exchange(method, path, body)).await;
        match answer.map_err(|_| CommandError::Timeout(command.clone()))?? {
            None => Ok(()),
            Some(reason) => Err(CommandError::Refused { command, reason }),
        }
    }

    /// Why it was refused, if it was.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Option<String>, CommandError> {
        let stream = TokioIo::new(socket::connect(&self.socket).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|_| CommandError::Protocol("no such request"))?;
        let answer = sender.send_request(request).await.map_err(broken);
        let refused = match answer {
            Ok(answer) if answer.status().is_success() => Ok(None),
            Ok(answer) => {
                let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
                body.map(|body| Some(reason(&body.to_bytes())))
                    .map_err(|_| CommandError::Protocol("an answer without an end"))
            }
            Err(error) => Err(error),
        };
        connection.abort();
        refused
    }
}

fn broken(error: hyper::Error) -> CommandError {
    CommandError::Connection(io::Error::other(error))
}

fn reason(body: &[u8]) -> String {
    let told = serde_json::from_slice::<Fault>(body).map(|fault| fault.fault_message);
    let told = told.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    told.trim().chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// Answers one request; what was asked is returned.
    async fn ask(answer: &'static str) -> (Result<(), CommandError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api");
        let listener = UnixListener::bind(&socket).unwrap();
        let served = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            let mut asked = vec![0; 4096];
            let mut length = 0;
            while !asked[..length].ends_with(b"}") {
                length += stream.read(&mut asked[length..]).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let result = Api { socket }.put("/vsock", &serde_json::json!({"guest_cid": 3})).await;
        (result, served.await.unwrap())
    }

    #[tokio::test]
    async fn what_is_set_is_sent_and_an_empty_answer_is_yes() {
        let (result, asked) = ask("HTTP/1.1 204 \r\nServer: x\r\nConnection: keep-alive\r\n\r\n").await;
        result.unwrap();
        assert!(asked.starts_with("PUT /vsock HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\n{\"guest_cid\":3}"), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_reason() {
        let body = "{\"fault_message\":\"no such guest\"}";
        let answer = format!("HTTP/1.1 400 \r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (result, _) = ask(answer.leak()).await;
        assert_eq!(result.unwrap_err().to_string(), "the VMM refused 'PUT /vsock': no such guest");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        for answer in ["", "HTTP/1.1", "\u{0}", "HTTP/1.1 400 \r\nContent-Length: 99\r\n\r\nshort"] {
            let (result, _) = ask(answer).await;
            assert!(!matches!(result, Ok(()) | Err(CommandError::Refused { .. })), "{answer:?}");
        }
    }
}
