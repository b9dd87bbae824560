//! Calls per second of the control API on one core, beside those of a bare axum handler on the same core; and how long
//! a page of MicroVMs takes, wherever it lies.
//!
//! Both are sent the very same signed requests, over as many connections, by a generator that has the other core to
//! itself; both are served by the control API's own loop over hyper, on a runtime of one thread; and axum's handler
//! reads the body and answers with as many bytes. The requests are signed before the clock runs; the server checks each
//! signature, asks the policies, writes the audit log, and reads or writes real records on a real disk. Only the
//! machines that RunMicrovm starts are none.

pub(crate) mod bed;
mod load;
#[allow(clippy::unwrap_used, dead_code)] // The API's own tests sign with it.
#[path = "../../../crates/control/tests/api/signing.rs"]
mod signing;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use hyper_util::service::TowerToHyperService;
use ids::MicrovmId;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use store::Store;
use time::OffsetDateTime;
use tokio::net::TcpListener;

use crate::Failure;
use crate::stats::Samples;
use crate::table::{Row, Table};
use load::{Answered, Caller, Load};

/// The least share of axum's throughput.
const SHARE: f64 = 0.6;
/// The longest that a page may take.
const PAGE: Duration = Duration::from_millis(20);
const SERVER_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;
/// Both servers take turns, so that a change of the machine's load meets both.
const TURN: Duration = Duration::from_millis(500);
/// Different requests of an operation.
const REQUESTS: usize = 64;
/// Pages timed for each figure.
const PAGES: usize = 50;
const MICROVMS: &str = "/2025-09-09/microvms";

/// Everything that is measured here.
pub(crate) struct Figures {
    pub(crate) operations: Vec<Operation>,
    pub(crate) pages: Table,
}

/// Calls of one kind, and of axum's handler of as many bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Operation {
    operation: &'static str,
    ours: Answered,
    axum: Answered,
    /// Ours of axum's calls per second.
    share: f64,
}

/// Calls of one kind.
struct Kind {
    name: &'static str,
    requests: Vec<Vec<u8>>,
    connections: usize,
}

/// Measures, with a server and a generator that each keep to a core of their own: everything, or the operations whose
/// name begins with `only`.
pub(crate) fn measure(only: Option<&str>, turns: usize) -> Result<Figures, Failure> {
    let dir = tempfile::Builder::new().tempdir_in("/var/tmp")?;
    let runtime = runtime()?;
    let (ours, store) = serve_records(dir.path())?;
    let ids = runtime.block_on(bed::fill(&store))?;
    pin(GENERATOR_CORE)?;
    runtime.block_on(async {
        let pages = if only.is_none() { pages(ours, &ids).await? } else { vec![] };
        let rows = pages.iter().map(|(name, samples)| Row::of(name, samples).limit(PAGE)).collect();
        let pages = Table { name: "a page of 50 of 100,000".into(), rows };
        let mut operations = Vec::new();
        for kind in kinds(&ids).into_iter().filter(|kind| kind.name.starts_with(only.unwrap_or_default())) {
            let size = Caller::open(ours).await?.call(&kind.requests[0]).await?.len();
            let axum = serve_bytes(size)?;
            let (mut of_ours, mut of_axum) = (Load::default(), Load::default());
            for _ in 0..turns {
                of_ours.add(load::run(ours, &kind.requests, kind.connections, TURN).await?);
                bed::end_all(&store).await?;
                of_axum.add(load::run(axum, &kind.requests, kind.connections, TURN).await?);
            }
            let (ours, axum) = (of_ours.answered(), of_axum.answered());
            operations.push(Operation { operation: kind.name, share: ours.rate() / axum.rate(), ours, axum });
        }
        Ok(Figures { operations, pages })
    })
}

fn kinds(ids: &[MicrovmId]) -> Vec<Kind> {
    let gets = ids.iter().step_by(ids.len() / REQUESTS).map(|id| format!("{MICROVMS}/{id}"));
    let gets = gets.map(|uri| signed("GET", &uri, "")).collect();
    let few = bed::image(true).to_string().replace(':', "%3A");
    let list = |query: &str| vec![signed("GET", &format!("{MICROVMS}?{query}"), "")];
    let run = format!(r#"{{"imageIdentifier":"{}","maximumDurationInSeconds":3600}}"#, bed::image(true));
    let run = vec![signed("POST", MICROVMS, &run)];
    let kind =
        |name, requests: &Vec<Vec<u8>>, connections| Kind { name, requests: requests.clone(), connections };
    vec![
        kind("GetMicrovm", &gets, 16),
        kind("ListMicrovms, 5", &list(&format!("imageIdentifier={few}&maxResults=5")), 16),
        kind("ListMicrovms, 50", &list("maxResults=50"), 16),
        kind("RunMicrovm, 16 callers", &run, 16),
        kind("RunMicrovm, 64 callers", &run, 64),
        kind("RunMicrovm, 256 callers", &run, 256),
    ]
}

fn signed(method: &str, uri: &str, body: &str) -> Vec<u8> {
    load::bytes(&signing::signed(method, uri, body, bed::KEY.0, bed::KEY.1, OffsetDateTime::now_utc()))
}

/// The listings, each led to half its depth and there timed beside its first page.
async fn pages(address: SocketAddr, ids: &[MicrovmId]) -> Result<Vec<(&'static str, Samples)>, Failure> {
    let of = |few| bed::image(few).to_string().replace(':', "%3A");
    let (few, many) = (format!("&imageIdentifier={}", of(true)), format!("&imageIdentifier={}", of(false)));
    let version = format!("{few}&imageVersion=1.0");
    let mut figures = Vec::new();
    let mut caller = Caller::open(address).await?;
    for (name, deep, filter) in [
        ("all", "all, half way down", ""),
        ("of an image with 90,000", "the same, half way down", many.as_str()),
        ("of an image with 10,000", "the same, half way down", few.as_str()),
        ("of one version with 10,000", "the same, half way down", version.as_str()),
    ] {
        let uri = |token: &str| format!("{MICROVMS}?{}", query(&format!("maxResults=50{filter}{token}")));
        figures.push((name, timed(&mut caller, &uri("")).await?));
        let total = if filter.is_empty() { ids.len() } else { ids.len() / 10 };
        let mut token = String::new();
        for _ in 0..total / 2 / 50 {
            let answer = caller.call(&signed("GET", &uri(&token), "")).await?;
            token = format!("&nextToken={}", next_token(answer)?);
        }
        figures.push((deep, timed(&mut caller, &uri(&token)).await?));
    }
    Ok(figures)
}

/// In the order in which a query is signed.
fn query(text: &str) -> String {
    let mut pairs: Vec<&str> = text.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn next_token(answer: &[u8]) -> Result<String, Failure> {
    let page: serde_json::Value = serde_json::from_slice(answer)?;
    Ok(page["nextToken"].as_str().ok_or("a listing ended too early")?.to_owned())
}

async fn timed(caller: &mut Caller, uri: &str) -> Result<Samples, Failure> {
    let request = signed("GET", uri, "");
    let mut samples = Samples::default();
    for _ in 0..PAGES {
        let began = Instant::now();
        caller.call(&request).await?;
        samples.push(began.elapsed());
    }
    Ok(samples)
}

/// The control API over the records in `dir`, and the store whose writer keeps to its core too.
fn serve_records(dir: &Path) -> Result<(SocketAddr, Store), Failure> {
    let dir = dir.to_owned();
    let (opened, store) = mpsc::channel();
    let address = on_its_core(move |listener| async move {
        let store = Store::open(&dir.join("db"))?;
        let control = bed::control(&store, &dir.join("audit")).await?;
        opened.send(store)?;
        control::server::serve(listener, |peer| control.for_peer(peer), std::future::pending()).await;
        Ok(())
    })?;
    Ok((address, store.recv()?))
}

/// A handler that reads what it is sent, and answers `size` bytes.
fn serve_bytes(size: usize) -> Result<SocketAddr, Failure> {
    let answer = Bytes::from(vec![b' '; size]);
    let app =
        Router::new().fallback(async move |_: Bytes| ([(CONTENT_TYPE, "application/json")], answer.clone()));
    on_its_core(move |listener| async move {
        let service = |_| TowerToHyperService::new(app.clone());
        control::server::serve(listener, service, std::future::pending()).await;
        Ok(())
    })
}

/// Serves on a thread, and threads of its making, that have one core; until the process ends.
fn on_its_core<F>(serve: impl FnOnce(TcpListener) -> F + Send + 'static) -> Result<SocketAddr, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let (bound, address) = mpsc::channel();
    std::thread::spawn(move || -> Result<(), Failure> {
        pin(SERVER_CORE)?;
        runtime()?.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            bound.send(listener.local_addr()?)?;
            serve(listener).await
        })
    });
    Ok(address.recv()?)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Keeps this thread, and those that it starts, to one core.
fn pin(core: usize) -> Result<(), Failure> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Operations as lines of a table.
pub(crate) struct Lines<'a>(pub(crate) &'a [Operation]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<28}{:>10}{:>10}{:>10}{:>12}{:>10}{:>10}{:>8}",
            "on one core", "calls/s", "CPU/call", "p99", "axum's", "CPU/call", "p99", "share"
        )?;
        for Operation { operation, ours, axum, share } in self.0 {
            let verdict =
                if *share < SHARE { format!("  below {:.0} %", SHARE * 100.0) } else { String::new() };
            writeln!(f, "{operation:<28}{ours}  {axum}{:>6.0} %{verdict}", share * 100.0)?;
        }
        Ok(())
    }
}
