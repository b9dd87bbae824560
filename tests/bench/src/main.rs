//! The benchmark: what users wait for and what a clone costs, with the bare engine and the limits beside it, and how
//! many calls one core answers, with a bare axum handler beside it.
//!
//! `cargo run --release -p rekindle-bench` starts a server of its own on a throw-away data directory, deploys
//! `examples/hello` and `examples/native` and prints a table of each, then those of the proxy and of the API. Needs root and what `make setup` and `make build` make.

mod api;
mod baseline;
mod calls;
mod client;
mod microvms;
mod proxy_latency;
mod stats;
mod suspensions;
mod table;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use e2e::{Artifact, Image, ImageRequest, Server};

use crate::microvms::{AT_ONCE, Bench, CLONES, Figures, Memory};
use crate::proxy_latency::Latencies;
use crate::table::{Row, Table, mebibytes};

/// Whatever went wrong: a figure that cannot be measured is a failure of the whole.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The most that the medians may be on a warm host without hardware virtualization.
mod limit {
    use std::time::Duration;

    pub(crate) const SUSPEND: Duration = Duration::from_millis(300);
    pub(crate) const TERMINATE: Duration = Duration::from_millis(50);
    pub(crate) const TOGETHER: Duration = Duration::from_secs(2);
    pub(crate) const PROXY: Duration = Duration::from_micros(50);
}

/// Measures Rekindle on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many times each figure is measured
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,
    /// Only this example, and of all figures only those of its MicroVMs
    #[arg(long)]
    example: Option<Example>,
    /// Only what suspensions of much and of little cost
    #[arg(long, conflicts_with = "example")]
    suspensions_only: bool,
    /// Only what the proxy adds to a request: needs neither root nor set-up
    #[arg(long, conflicts_with = "example")]
    proxy_only: bool,
    /// Only the API's calls per second and the pages of listings: needs neither root nor set-up
    #[arg(long, conflicts_with_all = ["example", "proxy_only"])]
    calls_only: bool,
    /// Of the API's calls only those whose row begins so, and no pages
    #[arg(long, requires = "calls_only")]
    operation: Option<String>,
    /// How many turns of half a second each kind of call has
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    turns: u16,
}

/// An application whose MicroVMs are measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Example {
    /// Python, a thread for each request
    Hello,
    /// A static program in an empty container
    Native,
}

impl Example {
    fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Native => "native",
        }
    }

    fn artifact(self) -> Artifact {
        match self {
            Self::Hello => Artifact::of("examples/hello"),
            Self::Native => Artifact::native(),
        }
    }

    fn launch_limit(self) -> Duration {
        Duration::from_millis(match self {
            Self::Hello => 180,
            Self::Native => 120,
        })
    }

    fn wake_limit(self) -> Duration {
        Duration::from_millis(match self {
            Self::Hello => 200,
            Self::Native => 140,
        })
    }
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let (operation, turns) = (arguments.operation.as_deref(), usize::from(arguments.turns));
    if arguments.calls_only {
        print!("{}", calls::measure(operation, turns)?);
        return Ok(());
    }
    if arguments.suspensions_only {
        return print_suspensions(&arguments);
    }
    if !arguments.proxy_only {
        print_examples(&arguments)?;
    }
    if arguments.example.is_none() {
        print!("{}", Table(proxy_rows(&proxy_latency::measure()?)));
        if !arguments.proxy_only {
            print_suspensions(&arguments)?;
            print!("\n{}", calls::measure(operation, turns)?);
        }
    }
    Ok(())
}

/// Prints each example's table as soon as it is measured.
fn print_examples(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::start();
    let examples = arguments.example.map_or(Example::value_variants().to_vec(), |only| vec![only]);
    // A build measured beside would slow everything down: all of them come first.
    let images: Vec<(Example, Image)> =
        examples.into_iter().map(|example| (example, deploy(&server, example))).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (example, image) in &images {
        let measured = with_server(&server, *example, &image.arn, usize::from(arguments.samples));
        print!("{}\n{}\n", example.name(), Table(runtime.block_on(measured)?));
    }
    images.iter().for_each(|(_, image)| image.delete(&server));
    // Dropping the server asserts that nothing of it is left.
    Ok(())
}

fn print_suspensions(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = suspensions::measure(&server, usize::from(arguments.samples));
    print!("\nsuspensions\n{}", runtime.block_on(measured)?);
    Ok(())
}

fn deploy(server: &Server, example: Example) -> Image {
    ImageRequest::of(server, example.name(), &example.artifact()).create(server).built(server)
}

async fn with_server(
    server: &Server,
    example: Example,
    image: &str,
    samples: usize,
) -> Result<Vec<Row>, Failure> {
    let bench = Bench::new(server, image)?;
    let figures = bench.cycles(samples).await?;
    let bare = baseline::measure(server, image, samples).await?;
    let mut rows = microvm_rows(example, &figures, &bare);
    let together = bench.together().await?;
    rows.push(
        Row::of(&format!("{AT_ONCE} RunMicrovm calls at once → the last 200"), &together.all)
            .limit(limit::TOGETHER),
    );
    rows.push(Row::of("  each of them", &together.each));
    rows.extend(memory_rows(&bench.memory().await?));
    Ok(rows)
}

fn microvm_rows(example: Example, figures: &Figures, bare: &baseline::Figures) -> Vec<Row> {
    let compared = |name: &str, ours, bare, limit| Row::of(name, ours).limit(limit).against(ours, bare);
    let [call, token, request] = &figures.parts;
    vec![
        compared("RunMicrovm call → first 200", &figures.launch, &bare.launch, example.launch_limit()),
        Row::of("  of it: the call", call),
        Row::of("  of it: the token", token),
        Row::of("  of it: connection and request", request),
        compared("request to SUSPENDED → 200", &figures.wake, &bare.wake, example.wake_limit()),
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
        Row::in_words(&format!("{name}, each of {CLONES}"), at(last / 2), at(last * 9 / 10), at(last))
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
