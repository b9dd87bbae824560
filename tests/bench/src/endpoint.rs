//! The data plane beside nginx, which terminates TLS before the same application in the same run; and what the proxy adds
//! to a request.
//!
//! Either proxy has one process with one thread on one core. The other core is the load generator's and the
//! application's, so that where that core is the narrower one the rates say less than the processor time of a request.

mod app;
pub(crate) mod bed;
mod comparison;
pub(crate) mod latency;
mod load;
mod nginx;
mod process;
mod sockets;
mod transfers;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use self::bed::{Certificate, Endpoint, ProxyProcess};
pub(crate) use self::comparison::{Comparison, Lines};
use self::comparison::{Unit, Wanted};
use self::load::{Load, Url};
use self::nginx::Nginx;
use self::process::Stats;
use self::sockets::Server;
use crate::Failure;
use crate::client::Trust;
use crate::stats::Samples;

const PROXY_CORE: usize = 1;
const LOAD_CORE: usize = 0;
/// Both proxies take turns, so that a change of the machine's load meets both.
const TURNS: usize = 5;
const TURN_SECONDS: u64 = 2;
const CONNECTIONS: usize = 32;
const H2_CONNECTIONS: usize = 4;
const H2_STREAMS: usize = 16;
const ECHOING: usize = 32;
const IDLE: usize = 5000;
/// The most that a silent WebSocket may hold.
const IDLE_LIMIT: f64 = 40.0 * 1024.0;
/// Of the path that uploads are measured on, each way: that of two ends of a continent.
const DELAY: Duration = Duration::from_millis(25);

/// Everything that is measured here.
pub(crate) fn measure() -> Result<Vec<Comparison>, Failure> {
    let dir = tempfile::Builder::new().tempdir_in("/var/tmp")?;
    let certificate = Certificate::make(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut measured = requests(dir.path(), &certificate, &runtime)?;
    measured.extend(runtime.block_on(streams(dir.path(), &certificate))?);
    Ok(measured)
}

/// Both proxies before one application.
struct Proxies {
    endpoint: Endpoint,
    ours: ProxyProcess,
    nginx: Nginx,
}

impl Proxies {
    fn start(dir: &Path, certificate: &Certificate, target: SocketAddr) -> Result<Self, Failure> {
        let endpoint = Endpoint::random();
        let ours = ProxyProcess::start(endpoint, certificate, target, PROXY_CORE)?;
        Ok(Self { endpoint, ours, nginx: Nginx::proxy(dir, certificate, target, PROXY_CORE)? })
    }

    /// The URL of ours.
    fn url(&self) -> Url {
        Url {
            host: self.endpoint.host(),
            port: self.ours.address.port(),
            token: self.endpoint.token(),
            scheme: "https",
        }
    }

    /// One turn of each.
    fn alternate(&self, one: impl Fn(&Url) -> Result<Load, Failure>) -> Result<[Turn; 2], Failure> {
        let turn = |address, stats: &dyn Fn() -> Result<Stats, Failure>| {
            let before = stats()?.cpu;
            let load = one(&self.url().of(address))?;
            Ok::<_, Failure>(Turn { load, cpu: stats()?.cpu.saturating_sub(before) })
        };
        Ok([
            turn(self.ours.address, &|| self.ours.stats())?,
            turn(self.nginx.address, &|| self.nginx.stats())?,
        ])
    }
}

/// A load, and what it took of the proxy's core.
struct Turn {
    load: Load,
    cpu: Duration,
}

/// The turns of one proxy.
#[derive(Debug, Default)]
struct Turns {
    rates: Vec<f64>,
    cpu: Samples,
    p50: Samples,
    p99: Samples,
}

impl Turns {
    /// As many, without a proxy.
    fn of_nobody(one: impl Fn() -> Result<Load, Failure>) -> Result<Self, Failure> {
        let mut turns = Self::default();
        for _ in 0..TURNS {
            turns.push(&Turn { load: one()?, cpu: Duration::ZERO });
        }
        Ok(turns)
    }

    fn push(&mut self, Turn { load, cpu }: &Turn) {
        self.rates.push(load.per_second);
        self.cpu.push(*cpu / u32::try_from(load.done).unwrap_or(u32::MAX).max(1));
        self.p50.extend(load.p50);
        self.p99.extend(load.p99);
    }

    /// What one of them takes of the proxy's core, in seconds.
    fn per_one(&self) -> f64 {
        self.cpu.median().unwrap_or_default().as_secs_f64()
    }

    fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    }
}

fn turns(proxies: &Proxies, one: impl Fn(&Url) -> Result<Load, Failure>) -> Result<[Turns; 2], Failure> {
    let mut both = [Turns::default(), Turns::default()];
    for _ in 0..TURNS {
        for (turns, turn) in both.iter_mut().zip(proxies.alternate(&one)?) {
            turns.push(&turn);
        }
    }
    Ok(both)
}

/// Small requests on kept-alive connections, and a large answer.
fn requests(dir: &Path, certificate: &Certificate, runtime: &Runtime) -> Result<Vec<Comparison>, Failure> {
    let application = Nginx::application(dir, LOAD_CORE)?;
    let proxies = Proxies::start(dir, certificate, application.address)?;
    let mut measured = Vec::new();
    let many = turns(&proxies, |url| load::wrk(url, CONNECTIONS, TURN_SECONDS, LOAD_CORE))?;
    measured.extend(rates("requests/s over HTTP/1.1", &many));
    let h2 = turns(&proxies, |url| load::h2load(url, H2_CONNECTIONS, H2_STREAMS, TURN_SECONDS, LOAD_CORE))?;
    measured.extend(rates("requests/s over HTTP/2", &h2));
    measured.extend(added(&proxies, &application)?);
    measured.extend(download(&proxies, &application, runtime)?);
    Ok(measured)
}

fn rates(figure: &str, [ours, nginx]: &[Turns; 2]) -> [Comparison; 2] {
    [
        Comparison::of(figure, Unit::PerSecond, ours.rate())
            .beside_nginx(nginx.rate())
            .wanted(Wanted::LeastOfNginx(1.0)),
        Comparison::of("  processor time of one", Unit::Seconds, ours.per_one())
            .beside_nginx(nginx.per_one()),
    ]
}

/// Latency over one connection, less that of the application by itself.
fn added(proxies: &Proxies, application: &Nginx) -> Result<[Comparison; 2], Failure> {
    let one = |url: &Url| load::wrk(url, 1, TURN_SECONDS, LOAD_CORE);
    let [ours, nginx] = turns(proxies, one)?;
    let plain = Url { scheme: "http", ..proxies.url().of(application.address) };
    let direct = Turns::of_nobody(|| one(&plain))?;
    let row = |figure, of: fn(&Turns) -> &Samples| {
        let median = |turns| of(turns).median().unwrap_or_default().as_secs_f64();
        let added = |turns| f64::max(median(turns) - median(&direct), 0.0);
        Comparison::of(figure, Unit::Seconds, added(&ours))
            .beside_nginx(added(&nginx))
            .wanted(Wanted::MostOfNginx(1.0))
    };
    Ok([
        row("added to a request, p50", |turns| &turns.p50),
        row("added to a request, p99", |turns| &turns.p99),
    ])
}

/// Application and client share a core, which is busier than the proxy's: what the proxy takes of its own tells more.
fn download(proxies: &Proxies, application: &Nginx, runtime: &Runtime) -> Result<[Comparison; 2], Failure> {
    let one = |url: &Url| {
        let mib = nginx::DOWNLOAD_MIB;
        runtime.block_on(transfers::download(url, nginx::DOWNLOAD_PATH, mib, LOAD_CORE))
    };
    let plain = Url { scheme: "http", ..proxies.url().of(application.address) };
    // The first reads the file from the disk, whoever asks for it.
    one(&plain)?;
    let [ours, nginx] = turns(proxies, one)?;
    let direct = Turns::of_nobody(|| one(&plain))?;
    let bytes = |turns: &Turns| turns.rate() * f64::from(transfers::MIB);
    Ok([
        Comparison::of("a large download, bytes/s", Unit::BytesPerSecond, bytes(&ours))
            .beside_nginx(bytes(&nginx))
            .beside_direct(bytes(&direct))
            .wanted(Wanted::LeastOfDirect(0.8)),
        Comparison::of("  processor time of a MiB", Unit::Seconds, ours.per_one())
            .beside_nginx(nginx.per_one())
            .wanted(Wanted::MostOfNginx(1.0)),
    ])
}

/// WebSockets, and large requests.
async fn streams(dir: &Path, certificate: &Certificate) -> Result<Vec<Comparison>, Failure> {
    let application = app::serve().await?;
    let proxies = Proxies::start(dir, certificate, application)?;
    let trust = Trust::bundle(&certificate.chain)?;
    let server = |address, trust| Server { endpoint: proxies.endpoint, address, trust };
    let ours = server(proxies.ours.address, Some(trust.clone()));
    let nginx = server(proxies.nginx.address, Some(trust));
    let turn = Duration::from_secs(TURN_SECONDS);
    let echoes = async |server: &Server| sockets::echoes(server, ECHOING, turn).await;
    let mut measured = vec![
        Comparison::of("WebSocket messages/s there and back", Unit::PerSecond, echoes(&ours).await?)
            .beside_nginx(echoes(&nginx).await?)
            .beside_direct(echoes(&server(application, None)).await?)
            .wanted(Wanted::LeastOfDirect(0.9)),
    ];
    let idle = idle(&ours, || proxies.ours.stats()).await?;
    measured.push(
        Comparison::of("memory of a silent WebSocket", Unit::Bytes, idle)
            .beside_nginx(self::idle(&nginx, || proxies.nginx.stats()).await?)
            .wanted(Wanted::Most(IDLE_LIMIT)),
    );
    measured.extend(uploads(&proxies).await?);
    Ok(measured)
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
async fn idle(server: &Server, stats: impl Fn() -> Result<Stats, Failure>) -> Result<f64, Failure> {
    // What is taken once is not counted.
    drop(sockets::idle(server, 1).await?);
    let before = stats()?.anonymous_bytes;
    let open = sockets::idle(server, IDLE).await?;
    let taken = stats()?.anonymous_bytes.saturating_sub(before);
    drop(open);
    Ok(taken as f64 / IDLE as f64)
}

/// Over a path with a delay; HTTP/2 is held against HTTP/1.1.
async fn uploads(proxies: &Proxies) -> Result<[Comparison; 2], Failure> {
    let far =
        async |address: SocketAddr| Ok::<_, Failure>(proxies.url().of(transfers::far(address, DELAY).await?));
    let (ours, nginx) = (far(proxies.ours.address).await?, far(proxies.nginx.address).await?);
    let first = transfers::upload(&ours, "--http1.1").await?;
    let second = transfers::upload(&ours, "--http2").await?;
    Ok([
        Comparison::of("a large upload over 50 ms, HTTP/1.1", Unit::BytesPerSecond, first)
            .beside_nginx(transfers::upload(&nginx, "--http1.1").await?),
        // nginx is not asked: its window of 64 KiB makes a minute of it.
        Comparison::of("the same over HTTP/2", Unit::BytesPerSecond, second)
            .wanted(Wanted::Least(first * 0.8)),
    ])
}
