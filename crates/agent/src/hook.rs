//! Lifecycle hooks: an HTTP/1.1 POST to the application's loopback (SPEC 4.1).

use std::io;
use std::time::Duration;

use agent_proto::{HookCall, HookOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest head of an answer that is read.
const MAX_HEAD: usize = 16 * 1024;

/// Calls the hook once.
pub(crate) async fn call(hook: &HookCall) -> HookOutcome {
    let limit = Duration::from_millis(hook.timeout_ms);
    match tokio::time::timeout(limit, post(hook)).await {
        Ok(Ok(status)) => HookOutcome::Status(status),
        Ok(Err(error)) => HookOutcome::ConnectFailed(error.to_string()),
        Err(_) => HookOutcome::TimedOut,
    }
}

async fn post(hook: &HookCall) -> io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", hook.port)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&request(hook)).await?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut chunk).await?;
        if count == 0 || head.len() + count > MAX_HEAD {
            return Err(io::Error::other(
                "the application closed the hook's connection without an HTTP answer",
            ));
        }
        head.extend_from_slice(&chunk[..count]);
    }
    status(&head).ok_or_else(|| io::Error::other("the application's answer to the hook is not HTTP/1.1"))
}

fn request(hook: &HookCall) -> Vec<u8> {
    let body = hook.body.as_deref().unwrap_or_default();
    let kind = if hook.body.is_some() { "Content-Type: application/json\r\n" } else { "" };
    let (name, port, length) = (&hook.hook, hook.port, body.len());
    let head = format!(
        "POST /aws/lambda-microvms/runtime/v1/{name} HTTP/1.1\r\nHost: localhost:{port}\r\n{kind}\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next()?.starts_with("HTTP/1.").then_some(())?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(body: Option<&str>) -> HookCall {
        HookCall {
            hook: "run".into(),
            port: 9000,
            timeout_ms: 500,
            body: body.map(|text| text.as_bytes().to_vec()),
        }
    }

    #[test]
    fn only_a_hook_with_a_body_has_a_content_type() {
        let text = String::from_utf8(request(&hook(Some("{}")))).unwrap();
        assert!(
            text.starts_with("POST /aws/lambda-microvms/runtime/v1/run HTTP/1.1\r\nHost: localhost:9000\r\n")
        );
        assert!(text.contains("Content-Type: application/json\r\n") && text.ends_with("\r\n\r\n{}"));
        assert!(!String::from_utf8(request(&hook(None))).unwrap().contains("Content-Type"));
    }

    #[test]
    fn a_status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 503 Busy\r\n\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn nothing_listening_is_a_failed_connection() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let outcome = call(&HookCall { port: free, ..hook(None) }).await;
        assert!(matches!(outcome, HookOutcome::ConnectFailed(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn silence_times_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(call(&HookCall { port, timeout_ms: 50, ..hook(None) }).await, HookOutcome::TimedOut);
    }
}
