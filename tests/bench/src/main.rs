//! The benchmark: what users wait for and what a clone costs, with the bare engine and the limits beside it, and how
//! many calls one core answers, with a bare axum handler beside it.
//!
//! `cargo run --release -p rekindle-bench` starts a server of its own on a throw-away data directory, deploys
//! `examples/hello` and prints two tables. Needs root and what `make setup` and `make build` make.

mod api;
mod baseline;
mod calls;
mod client;
mod microvms;
mod proxy_latency;
mod stats;
mod table;

use clap::Parser;
use e2e::{Artifact, Image, ImageRequest, Server};

use crate::microvms::{Bench, CLONES, Figures, Memory};
use crate::proxy_latency::Latencies;
use crate::table::{Row, Table, mebibytes};

/// Whatever went wrong: a figure that cannot be measured is a failure of the whole.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The most that the medians may be on a warm host without hardware virtualization.
mod limit {
    use std::time::Duration;

    pub(crate) const LAUNCH: Duration = Duration::from_millis(300);
    pub(crate) const WAKE: Duration = Duration::from_millis(400);
    pub(crate) const SUSPEND: Duration = Duration::from_millis(600);
    pub(crate) const TERMINATE: Duration = Duration::from_millis(200);
    pub(crate) const PROXY: Duration = Duration::from_micros(50);
}

/// Measures Rekindle on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many times each figure is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,
    /// Only what the proxy adds to a request: needs neither root nor set-up
    #[arg(long)]
    proxy_only: bool,
    /// Only the API's calls per second and the pages of listings: needs neither root nor set-up
    #[arg(long, conflicts_with = "proxy_only")]
    calls_only: bool,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    if arguments.calls_only {
        print!("{}", calls::measure()?);
        return Ok(());
    }
    let mut table = Table::default();
    if !arguments.proxy_only {
        let server = Server::start();
        let image = deploy(&server);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        table.0 = runtime.block_on(with_server(&server, &image.arn, usize::from(arguments.samples)))?;
        image.delete(&server);
        // Dropping the server asserts that nothing of it is left.
    }
    table.0.extend(proxy_rows(&proxy_latency::measure()?));
    print!("{table}");
    if !arguments.proxy_only {
        print!("\n{}", calls::measure()?);
    }
    Ok(())
}

fn deploy(server: &Server) -> Image {
    ImageRequest::of(server, "hello", &Artifact::of("examples/hello")).create(server).built(server)
}

async fn with_server(server: &Server, image: &str, samples: usize) -> Result<Vec<Row>, Failure> {
    let bench = Bench::new(server, image)?;
    let figures = bench.cycles(samples).await?;
    let memory = bench.memory().await?;
    let bare = baseline::measure(server, image, samples).await?;
    let mut rows = microvm_rows(&figures, &bare);
    rows.extend(memory_rows(&memory));
    Ok(rows)
}

fn microvm_rows(figures: &Figures, bare: &baseline::Figures) -> Vec<Row> {
    let compared = |name: &str, ours, bare, limit| Row::of(name, ours).limit(limit).against(ours, bare);
    let [call, token, request] = &figures.parts;
    vec![
        compared("RunMicrovm call → first 200", &figures.launch, &bare.launch, limit::LAUNCH),
        Row::of("  of it: the call", call),
        Row::of("  of it: the token", token),
        Row::of("  of it: connection and request", request),
        compared("request to SUSPENDED → 200", &figures.wake, &bare.wake, limit::WAKE),
        compared("SuspendMicrovm call → SUSPENDED", &figures.suspend, &bare.suspend, limit::SUSPEND),
        compared("TerminateMicrovm call → TERMINATED", &figures.terminate, &bare.terminate, limit::TERMINATE),
    ]
}

fn memory_rows(memory: &[Memory]) -> Vec<Row> {
    let row = |name: &str, of: fn(&Memory) -> u64| {
        let mut bytes: Vec<u64> = memory.iter().map(of).collect();
        bytes.sort_unstable();
        let at = |rank: usize| bytes.get(rank).copied().map(mebibytes).unwrap_or_default();
        let last = bytes.len().saturating_sub(1);
        Row::in_words(&format!("{name}, each of {CLONES}"), at(last / 2), at(0), at(last * 9 / 10))
    };
    vec![
        row("private memory (Private_Dirty)", |memory| memory.private_dirty),
        row("proportional memory (Pss)", |memory| memory.proportional),
    ]
}

fn proxy_rows(latencies: &Latencies) -> Vec<Row> {
    let added: stats::Samples = latencies.added().into_iter().collect();
    vec![
        Row::of("request on a kept-alive connection", &latencies.through),
        Row::of("  without the proxy", &latencies.direct),
        Row::of("  added by the proxy", &added).limit(limit::PROXY),
    ]
}
