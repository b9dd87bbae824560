//! The benchmark: what users wait for and what a clone costs, with the bare engine and the limits beside it, how launches
//! scale, what of its link a guest has, the endpoints beside nginx, and how many calls one core answers, with a bare axum handler beside it.
//!
//! `cargo run --release -p rekindle-bench` starts servers of its own on throw-away data directories, deploys what it
//! measures there, and prints a table of each part as soon as it is measured. Needs root and what `make setup` and
//! `make build` make.

mod api;
mod baseline;
mod builds;
mod calls;
mod client;
mod density;
mod endpoint;
mod examples;
mod microvms;
mod report;
mod scale;
mod stats;
mod suspensions;
mod table;
mod throughput;
mod vmm;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use e2e::{Artifact, Image, ImageRequest, Server};

use crate::endpoint::latency::{self, Latencies};
use crate::examples::Example;
use crate::microvms::Bench;
use crate::report::Report;
use crate::table::{Row, Table};

/// Whatever went wrong: a figure that cannot be measured is a failure of the whole.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The most that the proxy may add to a request.
const PROXY_LIMIT: Duration = Duration::from_micros(50);

/// Measures Rekindle on this machine.
#[derive(Debug, Parser)]
#[command(group = clap::ArgGroup::new("only"))]
struct Arguments {
    /// How many times each figure is measured
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,
    /// Writes all figures to this file too, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Waits for a line on standard input when the images of a part are built, so that the machine can be made quiet
    #[arg(long)]
    pause: bool,
    /// Of the examples only this one
    #[arg(long)]
    example: Option<Example>,
    /// Only what users of the examples wait for
    #[arg(long, group = "only")]
    examples_only: bool,
    /// Only how many clones of the examples run at once, and what they cost
    #[arg(long, group = "only")]
    density_only: bool,
    /// How many clones that is tried with
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clones: u16,
    /// Only how launches scale
    #[arg(long, group = "only")]
    scale_only: bool,
    /// Of that only one axis
    #[arg(long)]
    axis: Option<scale::Kind>,
    /// Draws the axes into this directory
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Only what suspensions of much and of little cost
    #[arg(long, group = "only")]
    suspensions_only: bool,
    /// Only what builds take, the first and those that follow it
    #[arg(long, group = "only")]
    builds_only: bool,
    /// Only what of its link's throughput a guest has through its slot
    #[arg(long, group = "only")]
    network_only: bool,
    /// Only what the proxy adds to a request: needs neither root nor set-up
    #[arg(long, group = "only")]
    proxy_only: bool,
    /// Only the endpoints beside nginx: needs neither root nor set-up, but scripts/bench-peers
    #[arg(long, group = "only")]
    endpoint_only: bool,
    /// Only the API's calls per second and the pages of listings: needs neither root nor set-up
    #[arg(long, group = "only")]
    calls_only: bool,
    /// Of the API's calls only those whose row begins so, and no pages
    #[arg(long, requires = "calls_only")]
    operation: Option<String>,
    /// How many turns of half a second each kind of call has
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    turns: u16,
    /// What a process does that this one starts: the proxy that is measured
    #[arg(long, hide = true, num_args = 6, exclusive = true)]
    serve_endpoint: Option<Vec<String>>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    if let Some(proxy) = &arguments.serve_endpoint {
        return endpoint::bed::run(proxy);
    }
    let mut report = Report::new(arguments.samples)?;
    let measured = arguments.measure(&mut report);
    // Those before a failure are figures too.
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    measured
}

impl Arguments {
    fn measure(&self, report: &mut Report) -> Result<(), Failure> {
        let Self { density_only, scale_only, suspensions_only, builds_only, .. } = *self;
        let Self { network_only, proxy_only, endpoint_only, calls_only, .. } = *self;
        let examples_only = self.examples_only || self.example.is_some() && !density_only;
        let vms_only = [examples_only, density_only, scale_only, suspensions_only, builds_only];
        let only = [&vms_only[..], &[network_only, proxy_only, endpoint_only, calls_only]].concat();
        let wants = |part: bool| part || !only.contains(&true);
        if wants(examples_only) || wants(density_only) {
            self.examples(report, wants(examples_only), wants(density_only))?;
        }
        if wants(suspensions_only) {
            self.with_probe(report, suspensions::measure)?;
        }
        if wants(scale_only) {
            self.scale(report)?;
        }
        if wants(builds_only) {
            report.table(builds::measure(&Server::start()));
        }
        if wants(network_only) {
            self.with_probe(report, throughput::measure)?;
        }
        if wants(proxy_only) {
            report.table(Table { name: "proxy".into(), rows: proxy_rows(&latency::measure()?) });
        }
        if wants(endpoint_only) {
            report.endpoint(endpoint::measure()?);
        }
        // Last, because it keeps this thread to one core.
        if wants(calls_only) {
            let calls::Figures { operations, pages } =
                calls::measure(self.operation.as_deref(), usize::from(self.turns))?;
            report.calls(operations);
            if self.operation.is_none() {
                report.table(pages);
            }
        }
        Ok(())
    }

    fn examples(&self, report: &mut Report, times: bool, density: bool) -> Result<(), Failure> {
        let server = Server::start();
        let examples = self.example.map_or(Example::value_variants().to_vec(), |only| vec![only]);
        // A build measured beside would slow everything down: all of them come first.
        let images: Vec<(Example, Image)> =
            examples.into_iter().map(|example| (example, example.deploy(&server))).collect();
        self.wait_for_quiet()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        for (example, image) in &images {
            if times {
                let samples = usize::from(self.samples);
                let measured = examples::measure(&server, *example, &image.arn, samples);
                report.table(runtime.block_on(measured)?);
            }
            if density {
                let bench = Bench::new(&server, &image.arn)?;
                let measured = density::measure(&bench, *example, usize::from(self.clones));
                report.table(runtime.block_on(measured)?);
            }
        }
        images.iter().for_each(|(_, image)| image.delete(&server));
        // Dropping the server asserts that nothing of it is left.
        Ok(())
    }

    /// What is measured with the tests' own application, on a server of its own.
    fn with_probe(
        &self,
        report: &mut Report,
        measure: impl AsyncFnOnce(&Server, &str, usize) -> Result<Table, Failure>,
    ) -> Result<(), Failure> {
        let server = Server::start();
        let image = ImageRequest::of(&server, "probe", &Artifact::probe()).create(&server).built(&server);
        self.wait_for_quiet()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let measured = measure(&server, &image.arn, usize::from(self.samples));
        report.table(runtime.block_on(measured)?);
        image.delete(&server);
        Ok(())
    }

    fn scale(&self, report: &mut Report) -> Result<(), Failure> {
        let mut bed = scale::Bed::build(self.axis)?;
        self.wait_for_quiet()?;
        for kind in scale::Kind::value_variants() {
            if self.axis.is_none_or(|only| only == *kind) {
                let axis = bed.measure(*kind)?;
                if let Some(dir) = &self.plots {
                    axis.plot(dir)?;
                }
                report.axis(axis);
            }
        }
        Ok(())
    }

    fn wait_for_quiet(&self) -> Result<(), Failure> {
        if self.pause {
            println!("built; press Enter to measure");
            std::io::stdin().read_line(&mut String::new())?;
        }
        Ok(())
    }
}

fn proxy_rows(latencies: &Latencies) -> Vec<Row> {
    let added: stats::Samples = latencies.added().into_iter().collect();
    vec![
        Row::of("request on a kept-alive connection", &latencies.through),
        Row::of("  without the proxy", &latencies.direct),
        Row::of("  added by the proxy", &added).limit(PROXY_LIMIT),
    ]
}
