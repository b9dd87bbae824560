//! The example application: built, snapshotted, cloned twice, suspended, resumed, ended.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use agent_proto::{HookOutcome, Response};
use engine::{Machine, MachineSpec, Restore, StartError};

use crate::artifact::zip_directory;
use crate::confined;
use crate::machines::{Bench, end};
use crate::session::{Guest, hook_call};
use crate::{checkout, timed};

const EXAMPLE: &str = "examples/hello";
/// How far a clone's wall clock may be off.
const CLOCK_SECONDS: f64 = 0.05;
const LOADS: &str = "REKINDLE_LOADS";
const LOADS_UNLESS_TOLD: u32 = 3;
const OK: HookOutcome = HookOutcome::Status(200);

pub(crate) async fn lives(bench: &Bench) {
    let image = bench.build("hello-build", &zip_directory(&checkout().join(EXAMPLE)), &[]).await.unwrap();
    let source = bench.start("hello", &image, false).await;
    timed("ready", source.ready()).await;
    assert_eq!(source.http("POST", "/counter").await["file"], 1);
    let machine = timed("freeze", source.freeze()).await;
    let snapshot = bench.snapshot("hello", &image, machine).await;

    let one_spec = bench.clone_spec("hello-one", &snapshot);
    let one = launch(bench, one_spec.clone(), &snapshot.from, Some("run")).await;
    let two = launch(bench, bench.clone_spec("hello-two", &snapshot), &snapshot.from, Some("run")).await;
    differ(&one, &two).await;
    assert_eq!(one.get("/").await["microvmId"], "microvm-hello-one");
    confined::each_vmm(&*one.machine, &bench.engine.compatibility().engine.name);
    println!("private memory: {:?}", one.machine.private_memory().await.unwrap());

    for count in 2..5 {
        assert_eq!(one.http("POST", "/counter").await["memory"], count);
    }
    let suspended = Restore {
        device_state: bench.path("one.device"),
        layers: vec![bench.path("one.diff")],
        ..snapshot.from.clone()
    };
    suspend(one, &suspended).await;
    let one = launch(bench, one_spec.clone(), &suspended, Some("resume")).await;
    assert_counts(&one, 4).await;
    assert_eq!(one.http("POST", "/counter").await["memory"], 5);

    let again = Restore {
        device_state: bench.path("again.device"),
        layers: vec![bench.path("again.diff")],
        ..snapshot.from.clone()
    };
    suspend(one, &again).await;
    let mut one = resume_parked(bench, one_spec, &again).await;
    confined::each_vmm(&*one.machine, &bench.engine.compatibility().engine.name);
    assert_counts(&one, 5).await;
    assert_eq!(one.http("POST", "/counter").await["file"], 6);
    assert_eq!(two.get("/counter").await["memory"], 1);

    assert_eq!(one.get("/exit?code=7").await["exiting"], 7);
    assert_eq!(timed("exit told", one.exit()).await, 7);
    let mut one = one.meet_again().await;
    assert_eq!(one.exit().await, 7);
    one.power_off().await;
    end(two.machine).await;

    for number in 0..loads() {
        let clone = bench.clone_spec(&format!("hello-load-{number}"), &snapshot);
        let clone = launch(bench, clone, &snapshot.from, Some("run")).await;
        assert_counts(&clone, 1).await;
        end(clone.machine).await;
    }
}

/// How often the snapshot is loaded in a row.
fn loads() -> u32 {
    std::env::var(LOADS).map_or(LOADS_UNLESS_TOLD, |number| number.parse().unwrap())
}

/// From a snapshot to the first answer, each step timed from the start.
async fn launch(bench: &Bench, spec: MachineSpec, from: &Restore, hook: Option<&str>) -> Guest {
    let name = spec.name.clone();
    begin(&name, bench.engine.restore(spec, from.clone()), hook).await
}

/// Resumes a machine in a VMM that was started before.
async fn resume_parked(bench: &Bench, spec: MachineSpec, from: &Restore) -> Guest {
    let waiting = MachineSpec { run_dir: bench.path("waiting"), ..spec.clone() };
    let parked = bench.engine.park(waiting.clone(), &from.base_memory).await.unwrap();
    // Another's memory must not be loaded into it; it ends.
    let other = Restore { base_memory: bench.path("other"), ..from.clone() };
    let refused = parked.restore(waiting.clone(), other).await;
    assert!(matches!(refused, Err(StartError::Spec(_))), "{refused:?}");
    assert!(bench.engine.adopt(&waiting.run_dir).await.unwrap().is_none());

    let parked = bench.engine.park(waiting.clone(), &from.base_memory).await.unwrap();
    let spec = MachineSpec { run_dir: bench.path("taken"), ..spec };
    std::fs::rename(&waiting.run_dir, &spec.run_dir).unwrap();
    let name = spec.name.clone();
    begin(&name, parked.restore(spec, from.clone()), Some("resume")).await
}

async fn assert_counts(guest: &Guest, count: u64) {
    let counts = guest.get("/counter").await;
    assert_eq!((&counts["memory"], &counts["file"]), (&count.into(), &count.into()));
}

async fn begin(
    name: &str,
    restored: impl Future<Output = Result<Box<dyn Machine>, StartError>>,
    hook: Option<&str>,
) -> Guest {
    let start = Instant::now();
    let mut steps = Vec::new();
    let mut step = |name: &str| steps.push(format!("{name} {:.1}", start.elapsed().as_secs_f64() * 1000.0));
    let body = format!(r#"{{"microvmId":"microvm-{name}","runHookPayload":"p"}}"#);
    let machine = restored.await.unwrap();
    step("restored");
    let guest = Guest::meet(machine).await;
    step("handshake");
    let body = |hook| (hook == "run").then(|| body.clone().into_bytes());
    let call = hook.map(|hook| hook_call(hook, body(hook)));
    let answer = guest.live(call).await;
    assert_eq!(answer, if hook.is_some() { Response::Hook(OK) } else { Response::Done });
    step("life begun, hook called");
    guest.get("/time").await;
    step("first 200");
    println!("launch, ms from start: {}", steps.join(", "));
    timed("second request", guest.get("/time")).await;
    guest
}

async fn differ(one: &Guest, two: &Guest) {
    let (random_one, random_two) = (one.get("/random").await, two.get("/random").await);
    assert_ne!(random_one["hex"], random_two["hex"]);
    assert_ne!(random_one["uuid"], random_two["uuid"]);
    for clone in [one, two] {
        let before = now();
        let wall = clone.get("/time").await["wall"].as_f64().unwrap();
        let after = now();
        println!(
            "wall clock: {:.1} ms after the request, {:.1} ms before the answer",
            (wall - before) * 1000.0,
            (after - wall) * 1000.0
        );
        assert!(before - CLOCK_SECONDS < wall && wall < after + CLOCK_SECONDS);
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

async fn suspend(guest: Guest, to: &Restore) {
    assert_eq!(timed("suspend hook", guest.hook("suspend")).await, OK);
    let machine = timed("freeze", guest.freeze()).await;
    timed("pause", machine.pause()).await.unwrap();
    let write = timed("save_diff", machine.save_diff()).await.unwrap();
    let below = write.below(&[]).unwrap();
    let write = async { write.run(&to.device_state, &below, &to.layers[0], &|| false) };
    println!("{:?}", timed("write", write).await.unwrap());
    timed("killed", end(machine)).await;
}
