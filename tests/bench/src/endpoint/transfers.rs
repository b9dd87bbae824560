//! Large bodies: one down over loopback, and one up over a path with a delay, which is where windows show.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::{sleep_until, timeout_at};

use super::load::{Load, Url};
use crate::Failure;

/// Bytes of an upload.
pub(crate) const UPLOAD: u64 = 256 << 20;
/// Bytes.
pub(crate) const MIB: u32 = 1 << 20;
const PIECE: usize = 64 * 1024;
/// Bytes that are on the way at most, one way: those that a gigabit carries in 25 ms.
const IN_FLIGHT: usize = 125_000_000 / 40;

/// As fast as curl on one core takes what is at `path`, which are so many MiB.
pub(crate) async fn download(url: &Url, path: &str, mib: u32, core: usize) -> Result<Load, Failure> {
    let mut curl = Command::new("taskset");
    curl.args(["-c", &core.to_string(), "curl", "--http1.1"]).arg(format!("{}{path}", url.origin()));
    curl.args(["--write-out", "%{stderr}%{speed_download}", "--output", "/dev/null"]);
    let per_second = rate(&mut curl, url).await? / f64::from(MIB);
    Ok(Load { done: mib.into(), per_second, p50: None, p99: None })
}

/// Bytes in a second that curl measures of an upload, in one version of HTTP.
pub(crate) async fn upload(url: &Url, version: &str) -> Result<f64, Failure> {
    // Sparse, because only reading it matters.
    let body = tempfile::NamedTempFile::new()?;
    body.as_file().set_len(UPLOAD)?;
    let mut curl = Command::new("curl");
    curl.args([version, "--upload-file"]).arg(body.path()).arg(url.origin()).args(["--header", "expect:"]);
    curl.args(["--write-out", "%{stderr}%{speed_upload}", "--output", "/dev/null"]);
    rate(&mut curl, url).await
}

async fn rate(curl: &mut Command, url: &Url) -> Result<f64, Failure> {
    curl.args(["--silent", "--fail", "--insecure", "--header", &url.header()]).stdin(Stdio::null());
    let output = curl.output().await?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("curl ended with {}: {text}", output.status).into());
    }
    Ok(text.trim().parse()?)
}

/// A path to `target` on which every byte takes `delay` each way.
pub(crate) async fn far(target: SocketAddr, delay: Duration) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(target).await else { continue };
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::spawn(carry(near_read, far_write, delay));
            tokio::spawn(carry(far_read, near_write, delay));
        }
    });
    Ok(address)
}

/// Ends with either side.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut on_the_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut bytes, mut ended) = (0, false);
    loop {
        let due = on_the_way.front().map(|(due, _)| *due);
        if due.is_none() && ended {
            return;
        }
        let mut piece = Vec::with_capacity(PIECE);
        if ended || bytes >= IN_FLIGHT {
            let Some(due) = due else { return };
            sleep_until(due.into()).await;
        } else {
            let far_off = Instant::now() + Duration::from_secs(3600);
            match timeout_at(due.unwrap_or(far_off).into(), from.read_buf(&mut piece)).await {
                Ok(Ok(1..)) => {
                    bytes += piece.len();
                    on_the_way.push_back((Instant::now() + delay, piece));
                }
                Ok(_) => ended = true,
                Err(_) => {}
            }
        }
        while on_the_way.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let Some((_, piece)) = on_the_way.pop_front() else { break };
            bytes -= piece.len();
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_far_path_delivers_everything_in_order_and_late() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let delay = Duration::from_millis(30);
        let path = far(listener.local_addr().unwrap(), delay).await.unwrap();
        let mut client = TcpStream::connect(path).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let began = Instant::now();
        client.write_all(b"there").await.unwrap();
        let mut there = [0; 5];
        server.read_exact(&mut there).await.unwrap();
        server.write_all(b"back").await.unwrap();
        drop(server);
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert_eq!((&there, &back[..]), (b"there", &b"back"[..]));
        assert!(began.elapsed() >= 2 * delay);
    }
}
