//! The guest for real: images built, started, snapshotted, cloned, suspended and resumed in virtual machines.
//!
//! Needs root, and what `make setup build` makes. It says so and passes only where set-up was never run.

// A test, though not one that the lint recognises.
#![allow(clippy::unwrap_used)]

mod artifact;
mod confined;
mod containers;
mod failures;
mod hello;
mod limits;
mod machines;
mod output;
mod session;
mod shells;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use engine::accelerator::{self, Wish};
use engine::firecracker::{self, Firecracker};
use engine::qemu::{Overlays, Qemu, probe};
use engine::{Engine, VmmRoot, jail};
use futures::FutureExt;
use rekindle_platform::{Assets, Platform};

use machines::Bench;

const AGENT: &str = "target/x86_64-unknown-linux-gnu/agent/rekindle-agent";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// Where Firecracker is, to run the same on it.
const FIRECRACKER: &str = "REKINDLE_FIRECRACKER";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let first = args.next().and_then(|first| first.into_string().ok()).unwrap_or_default();
    if first == "jail" {
        eprintln!("{}", jail::exec(args));
        return ExitCode::FAILURE;
    }
    let assets = Assets::from_env();
    if !assets.dir.exists() {
        println!("skipped: run scripts/setup");
        return ExitCode::SUCCESS;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bench = bench(assets).await;
        let outcome = AssertUnwindSafe(tests(&bench, &first)).catch_unwind().await;
        // Machines outlive whoever started them: those of a failed test must not.
        bench.end_machines().await;
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
    println!("guest test passed");
    ExitCode::SUCCESS
}

/// As with other tests, a word narrows down what is run. Two at a time, as most machines have but one processor, after the
/// one that looks at clocks.
async fn tests(bench: &Bench, word: &str) {
    let wanted = |name: &str| word.starts_with('-') || name.contains(word);
    if wanted("hello") {
        timed("hello", hello::lives(bench)).await;
    }
    let containers = async {
        if wanted("containers") {
            timed("containers", containers::are_confined(bench)).await;
        }
    };
    let others = async {
        if wanted("output") {
            timed("output", output::is_told(bench)).await;
        }
        if wanted("limits") {
            timed("limits", limits::end_who_takes_too_much(bench)).await;
        }
        if wanted("failures") {
            timed("failures", failures::are_told(bench)).await;
        }
    };
    futures::join!(containers, others);
}

/// The checkout, of which the KVM lab has not all.
pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

async fn bench(assets: Assets) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let agent = std::env::var_os("REKINDLE_AGENT").map_or_else(|| checkout().join(AGENT), PathBuf::from);
    let platform = Platform::install(&assets, &agent, &dir.path().join("platforms")).unwrap();
    let engine = engine(dir.path()).await;
    println!("on {}", engine.compatibility().engine);
    Bench { dir, assets, platform, engine }
}

/// QEMU, or the Firecracker that is named in the environment.
async fn engine(dir: &Path) -> Arc<dyn Engine> {
    let jailer = vec!["/proc/self/exe".into(), "jail".into()];
    if let Some(program) = std::env::var_os(FIRECRACKER).map(PathBuf::from) {
        let compatibility = firecracker::probe(&program).await.unwrap();
        return Arc::new(Firecracker::new(program, jailer, compatibility));
    }
    println!("on Firecracker: skipped, as {FIRECRACKER} names none");
    let choice = accelerator::find(Wish::Auto).unwrap();
    println!("with {}, because {}", choice.accelerator, choice.why);
    let program = PathBuf::from(QEMU);
    let mut jailer = jailer;
    // What its VMMs see, for as long as the tests run.
    let root = Box::leak(Box::new(VmmRoot::make(&jailer, std::slice::from_ref(&program)).unwrap()));
    jailer.extend(root.jail_args());
    let overlays = Overlays { templates: dir.to_owned() };
    let compatibility = probe(&program, choice.accelerator).await.unwrap();
    Arc::new(Qemu { compatibility, program, jailer, overlays })
}

/// Prints how long it took, and gives back what came of it.
pub(crate) async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = work.await;
    println!("{what}: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    result
}
