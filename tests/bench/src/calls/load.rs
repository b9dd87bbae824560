//! A load generator that costs less than what it measures: requests made before, answers hardly read.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Request;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;
use crate::stats::Samples;

const BUFFER: usize = 64 * 1024;

/// How many calls were answered in how long, with how much of the server's CPU, and how long each took.
#[derive(Debug, Default)]
pub(crate) struct Load {
    calls: usize,
    elapsed: Duration,
    cpu: Duration,
    latencies: Vec<Duration>,
}

impl Load {
    pub(crate) fn add(&mut self, other: Load) {
        self.calls += other.calls;
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
        self.latencies.extend(other.latencies);
    }

    /// The sum of it.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn answered(self) -> Answered {
        let calls = u32::try_from(self.calls).unwrap_or(u32::MAX).max(1);
        let latencies: Samples = self.latencies.into_iter().collect();
        Answered {
            calls_per_second: self.calls as f64 / self.elapsed.as_secs_f64(),
            cpu_us: (self.cpu / calls).as_secs_f64() * 1e6,
            p99_ms: latencies.percentile(99).unwrap_or_default().as_secs_f64() * 1e3,
        }
    }
}

/// What a load came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Answered {
    calls_per_second: f64,
    /// Of the server, for each call.
    cpu_us: f64,
    p99_ms: f64,
}

impl Answered {
    pub(crate) fn rate(&self) -> f64 {
        self.calls_per_second
    }
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = Duration::from_secs_f64;
        let (cpu, p99) = (duration(self.cpu_us / 1e6), duration(self.p99_ms / 1e3));
        write!(f, "{:>10.0}{cpu:>10.1?}{p99:>10.1?}", self.calls_per_second)
    }
}

/// What this process has had of the CPU, but for this thread: the servers'.
fn cpu_of_the_others() -> Duration {
    let of = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    of(ClockId::ProcessCPUTime).saturating_sub(of(ClockId::ThreadCPUTime))
}

/// A request as it goes over the wire.
pub(crate) fn bytes(request: &Request<String>) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("content-length: {}\r\n\r\n", request.body().len()).as_bytes());
    text.extend_from_slice(request.body().as_bytes());
    text
}

/// Calls `address` for so long with `requests` in turn, on kept-alive connections with one request at a time under way.
pub(crate) async fn run(
    address: SocketAddr,
    requests: &[Vec<u8>],
    connections: usize,
    duration: Duration,
) -> Result<Load, Failure> {
    let mut callers = Vec::new();
    for _ in 0..connections {
        callers.push(Caller::open(address).await?);
    }
    let (began, cpu) = (Instant::now(), cpu_of_the_others());
    let until = began + duration;
    let called = callers.into_iter().enumerate().map(async |(number, mut caller)| {
        let mut latencies = Vec::new();
        for request in requests.iter().cycle().skip(number) {
            let sent = Instant::now();
            if sent >= until {
                break;
            }
            caller.call(request).await?;
            latencies.push(sent.elapsed());
        }
        Ok::<_, Failure>(latencies)
    });
    let (latencies, ()) = tokio::join!(futures::future::try_join_all(called), awake(until));
    let latencies = latencies?.concat();
    let cpu = cpu_of_the_others().saturating_sub(cpu);
    Ok(Load { calls: latencies.len(), elapsed: began.elapsed(), cpu, latencies })
}

/// Keeps this thread looking for answers: to wake it would cost the server, the more often the slower it answers.
async fn awake(until: Instant) {
    while Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

/// One connection.
pub(crate) struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER] })
    }

    /// The body of the answer, which must be a success.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<&[u8], Failure> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err("the server hung up, or its answer is longer than any here".into());
            }
            filled += read;
            if let Some(whole) = whole(&self.buffer[..filled])? {
                return Ok(&self.buffer[whole]);
            }
        }
    }
}

/// Where the body lies in an answer, if it is all there.
fn whole(answer: &[u8]) -> Result<Option<std::ops::Range<usize>>, Failure> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&answer[..head])?;
    if !text.starts_with("HTTP/1.1 20") {
        return Err(String::from_utf8_lossy(answer).into_owned().into());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let end = head + 4 + length.ok_or("an answer without its length")?.parse::<usize>()?;
    Ok((answer.len() >= end).then_some(head + 4..end))
}
