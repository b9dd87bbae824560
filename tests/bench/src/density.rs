//! How many clones of one image a host holds: what each costs while it idles, whether all of them still answer, and
//! that those which sleep have no process and cost nothing.

use std::time::Duration;

use e2e::proc::kibibytes;

use crate::Failure;
use crate::examples::Example;
use crate::microvms::{Bench, Memory, rest};
use crate::stats::Samples;
use crate::table::{Row, Table};

/// For the host to count what processes gave back.
const SETTLE: Duration = Duration::from_secs(2);
/// How long clones are watched that have nothing to do.
const IDLE_SECONDS: u32 = 20;
/// So that a hundred take a third of a processor.
const IDLE_LIMIT: Duration = Duration::from_micros(3_300);

#[derive(Debug, Default)]
struct Figures {
    launch: Samples,
    /// Each asked once more when the last had started.
    again: Samples,
    memory: Vec<Memory>,
    /// What each had of a processor in a second in which nobody asked it anything.
    idle: Samples,
    suspend: Samples,
    /// Memory that the host could give: with no clone, with all of them running, with all of them suspended.
    available: [u64; 3],
}

/// The table of so many clones. A clone that does not answer, or a suspended one that has a VMM, is a failure.
pub(crate) async fn measure(bench: &Bench<'_>, example: Example, clones: usize) -> Result<Table, Failure> {
    let figures = figures(bench, clones).await?;
    Ok(Table { name: format!("{}, {clones} clones", example.name()), rows: rows(&figures, example) })
}

fn rows(figures: &Figures, example: Example) -> Vec<Row> {
    let memory = |of: fn(&Memory) -> u64| figures.memory.iter().map(of).collect::<Samples<u64>>();
    let [before, running, suspended] = figures.available;
    let each = |bytes: u64| std::iter::once(bytes / figures.memory.len().max(1) as u64).collect();
    vec![
        Row::count("clones that answered, and once more when all had started", figures.again.len()),
        Row::of("launch of each → first 200", &figures.launch),
        Row::of("request to each when all had started → 200", &figures.again),
        Row::bytes("private memory of each (Private_Dirty)", &memory(|memory| memory.private_dirty))
            .limit(example.memory_limit()),
        Row::bytes("proportional memory of each (Pss)", &memory(|memory| memory.proportional)),
        Row::of("processor time of each in an idle second", &figures.idle).limit(IDLE_LIMIT),
        Row::bytes("memory of the host that is gone, for each", &each(before.saturating_sub(running))),
        Row::of("SuspendMicrovm call → SUSPENDED", &figures.suspend),
        Row::bytes(
            "memory of the host that is still gone, for each",
            &each(before.saturating_sub(suspended)),
        ),
    ]
}

async fn figures(bench: &Bench<'_>, clones: usize) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    // The first one pays for what is made once, and is not counted among what the clones take.
    let (first, _) = bench.launch().await?;
    bench.terminate(&first).await?;
    figures.available[0] = available().await?;
    let mut serving = Vec::with_capacity(clones);
    for _ in 0..clones {
        let (microvm, took) = bench.launch().await?;
        figures.launch.push(took);
        serving.push(microvm);
    }
    for microvm in &serving {
        figures.again.push(bench.ask(microvm).await?);
    }
    rest().await;
    figures.memory = bench.memory()?;
    if figures.memory.len() != clones {
        return Err(format!("{clones} MicroVMs run in {} VMMs", figures.memory.len()).into());
    }
    figures.available[1] = available().await?;
    figures.idle = idle(bench).await?;
    for microvm in &serving {
        figures.suspend.push(bench.suspend(microvm).await?);
        // Suspensions have a rate, of two a second for each processor.
        rest().await;
    }
    figures.available[2] = available().await?;
    let left = bench.vmms();
    if !left.is_empty() {
        return Err(format!("suspended MicroVMs have the VMMs {left:?}").into());
    }
    for microvm in &serving {
        bench.terminate(microvm).await?;
    }
    Ok(figures)
}

async fn idle(bench: &Bench<'_>) -> Result<Samples, Failure> {
    let before = bench.processor_time()?;
    tokio::time::sleep(Duration::from_secs(IDLE_SECONDS.into())).await;
    let after = bench.processor_time()?;
    Ok(after
        .iter()
        .filter_map(|(pid, time)| Some(time.saturating_sub(*before.get(pid)?) / IDLE_SECONDS))
        .collect())
}

async fn available() -> Result<u64, Failure> {
    tokio::time::sleep(SETTLE).await;
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    kibibytes(&meminfo, "MemAvailable").ok_or("no MemAvailable in /proc/meminfo".into())
}
