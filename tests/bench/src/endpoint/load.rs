//! Load generators: what wrk and h2load are asked, and what they say.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::Failure;

/// What a load generator measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// Requests, or MiB.
    pub(crate) done: u64,
    pub(crate) per_second: f64,
    /// Of wrk alone.
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
}

/// A server under load.
#[derive(Debug, Clone)]
pub(crate) struct Url {
    pub(crate) scheme: &'static str,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Sent to all of them, so that all read as much.
    pub(crate) token: String,
}

impl Url {
    /// An endpoint's at `address`.
    pub(crate) fn of(&self, address: SocketAddr) -> Self {
        Self { port: address.port(), ..self.clone() }
    }

    pub(crate) fn header(&self) -> String {
        format!("x-aws-proxy-auth: {}", self.token)
    }

    pub(crate) fn origin(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// HTTP/1.1 over so many connections for so long, from one core.
pub(crate) fn wrk(url: &Url, connections: usize, seconds: u64, core: usize) -> Result<Load, Failure> {
    let mut wrk = on(core, "wrk");
    wrk.args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    parse_wrk(&run(wrk.args(["-H", &url.header(), &url.origin()]))?)
}

/// HTTP/2, with so many streams at once on each connection.
pub(crate) fn h2load(
    url: &Url,
    connections: usize,
    streams: usize,
    seconds: u64,
    core: usize,
) -> Result<Load, Failure> {
    let mut h2load = on(core, "h2load");
    h2load.args(["-t1", &format!("-c{connections}"), &format!("-m{streams}"), &format!("-D{seconds}")]);
    parse_h2load(&run(h2load.args(["-H", &url.header(), &url.origin()]))?, seconds)
}

fn on(core: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        let why = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?} failed: {why}{text}; scripts/bench-peers installs what it needs").into())
    }
}

fn parse_wrk(text: &str) -> Result<Load, Failure> {
    let all_good = !text.contains("Non-2xx") && !text.contains("Socket errors");
    let load = || {
        Some(Load {
            done: text
                .lines()
                .find(|line| line.contains(" requests in "))?
                .split_whitespace()
                .next()?
                .parse()
                .ok()?,
            per_second: after(text, "Requests/sec:")?.parse().ok()?,
            p50: Some(duration(after(text, "50%")?)?),
            p99: Some(duration(after(text, "99%")?)?),
        })
    };
    load()
        .filter(|_| all_good)
        .ok_or_else(|| format!("wrk met errors, or says something unheard of: {text}").into())
}

/// The rate that h2load prints counts the time after the end.
fn parse_h2load(text: &str, seconds: u64) -> Result<Load, Failure> {
    let load = || {
        let line = text.lines().find(|line| line.starts_with("requests:"))?;
        let count = |what: &str| -> Option<u64> {
            line.split([',', ':']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        let (succeeded, failed) = (count("succeeded")?, count("failed")? + count("errored")?);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let per_second = succeeded as f64 / seconds as f64;
        (failed == 0 && succeeded > 0).then_some(Load { done: succeeded, per_second, p50: None, p99: None })
    };
    load().ok_or_else(|| format!("h2load met errors, or says something unheard of: {text}").into())
}

/// The first word after a label.
fn after<'t>(text: &'t str, label: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.trim().strip_prefix(label)?.split_whitespace().next())
}

/// As wrk prints it: `1.23ms`.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let unit = match &text[at..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(text[..at].parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ https://localhost:8443/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   812.13us  120.00us   3.12ms   90.00%
  Latency Distribution
     50%  775.00us
     75%    0.90ms
     90%    1.01ms
     99%    1.45ms
  19685 requests in 2.01s, 3.19MB read
Requests/sec:   9793.53
Transfer/sec:      1.59MB
";

    #[test]
    fn wrk_is_understood_and_its_errors_are_failures() {
        let expected = Load {
            done: 19685,
            per_second: 9793.53,
            p50: Some(Duration::from_micros(775)),
            p99: Some(Duration::from_micros(1450)),
        };
        assert_eq!(parse_wrk(WRK).unwrap(), expected);
        assert!(parse_wrk(&format!("{WRK}  Non-2xx or 3xx responses: 1\n")).is_err());
        assert!(parse_wrk("").is_err());
    }

    #[test]
    fn h2load_is_understood_and_its_errors_are_failures() {
        let line = |failed: u32| {
            format!(
                "requests: 900 total, 900 started, 900 done, 800 succeeded, {failed} failed, 0 errored, 0 timeout\n"
            )
        };
        let load = parse_h2load(&line(0), 2).unwrap();
        assert_eq!((load.done, load.per_second), (800, 400.0));
        assert!(parse_h2load(&line(1), 2).is_err());
    }
}
