//! The states of MicroVMs, and what survives between them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rekindle_e2e::command::Environment;
use rekindle_e2e::{
    Artifact, ImageRequest, Json, Microvm, Neighbour, Server, json, machines, microvm, neighbour, proc, until,
};

use crate::{fixture, rust_sdk, traces};

/// The least that an idle policy may say.
const MAX_IDLE: Duration = Duration::from_secs(60);
/// The most layers of memory that are kept of a MicroVM.
const MAX_LAYERS: usize = 8;
/// As many are merged.
const MERGE_LAYERS: usize = 4;
/// A timer's granularity, and the time to save.
const SLACK: Duration = Duration::from_secs(20);
/// Of one MicroVM; twice the threads of `examples/native`.
const SLEEPS: u32 = 16;
/// Says how many instead.
const SLEEPS_VARIABLE: &str = "REKINDLE_SLEEPS";
/// MicroVMs launched at the same moment.
const TOGETHER: usize = 3;
/// For as many spares to be there again.
const SPARES_COME: Duration = Duration::from_secs(120);
/// Of a guest's clock, request included.
const CLOCK_ERROR: f64 = 0.05;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn idle_policy(suspended_seconds: u32, auto_resume: bool) -> String {
    json!({
        "maxIdleDurationSeconds": MAX_IDLE.as_secs(),
        "suspendedDurationSeconds": suspended_seconds,
        "autoResumeEnabled": auto_resume,
    })
    .to_string()
}

/// The whole of a MicroVM's life at its shortest: an image without a base, built, run, asked, suspended, woken by a
/// request, suspended and resumed, ended.
pub(crate) fn the_smallest_image_lives_sleeps_and_wakes() {
    let server = fixture::shared();
    let image = ImageRequest::of(&server, "smallest", &Artifact::native()).create(&server).built(&server);
    let microvm = Microvm::run(&server, &image, &["--idle-policy", &idle_policy(600, true)]);
    let greeting = json!({ "message": "Hello from Rekindle" });
    assert_eq!(microvm.json("/"), greeting);
    microvm.suspend();
    assert!(server.vmms(&microvm.id).is_empty(), "a sleeping MicroVM has no process");
    assert_eq!(microvm.json("/"), greeting);
    assert_eq!(microvm.state(), "RUNNING");
    microvm.suspend();
    microvm.resume();
    assert_eq!(microvm.json("/"), greeting);
    microvm.terminate();
    image.delete(&server);
}

/// More often than its application has threads, and, where [`SLEEPS_VARIABLE`] says so, hundreds of times: what is lost
/// once in a hundred sleeps is lost every day.
pub(crate) fn a_microvm_sleeps_again_and_again() {
    let server = fixture::shared();
    let image = ImageRequest::of(&server, "sleeper", &Artifact::native()).create(&server).built(&server);
    let microvm = Microvm::run(&server, &image, &["--idle-policy", &idle_policy(600, true)]);
    let sleeps = std::env::var(SLEEPS_VARIABLE).map_or(SLEEPS, |count| count.parse().unwrap());
    let greet = || drop(microvm.json("/"));
    rust_sdk::sleep_often(server.environment(), &microvm.id, sleeps, greet);
    greet();
    microvm.terminate();
    image.delete(&server);
}

/// On a server of its own, which nobody else keeps busy.
pub(crate) fn as_many_spares_wait_as_were_launched_together() {
    let spares_are_logged =
        Environment::from([("RUST_LOG".to_owned(), "info,rekindle_guest=debug".to_owned())]);
    let mut server = Server::start_under(&[], |_| spares_are_logged);
    let image = ImageRequest::of(&server, "burst", &Artifact::native()).create(&server).built(&server);
    let from_spares = || {
        let ids = rust_sdk::launch_together(server.environment(), &image.arn, TOGETHER);
        let shown = ids.iter().map(|id| traces::shown(&server, id));
        shown.filter(|timelines| timelines.contains("spare clone")).count()
    };
    let used = from_spares();
    assert!(used <= 1, "nobody could expect so many");
    until("as many spares as are launched", SPARES_COME, || {
        let came = server.log().matches("a spare is ready").count();
        (came >= used + TOGETHER).then_some(())
    });
    assert_eq!(from_spares(), TOGETHER);
    server.stop();
}

pub(crate) fn a_failing_run_hook_terminates() {
    let server = fixture::shared();
    // The hook takes its time, so that a token is minted before it fails: afterwards none is.
    let payload = json!({ "run": { "status": 500, "delay": 5 } }).to_string();
    let microvm = Microvm::launch(&server, &fixture::probe(&server), &["--run-hook-payload", &payload]);
    let ended = microvm.wait("TERMINATED");
    let reason = "Run lifecycle hook returned HTTP status 500. \
                  Please check your hook endpoint and application logs for more details.";
    assert_eq!(ended["stateReason"], reason, "{ended}");
    microvm.request("/", &[]).expect(502);
}

pub(crate) fn a_failing_suspend_hook_terminates() {
    let server = fixture::shared();
    let payload = json!({ "suspend": { "status": 500 } }).to_string();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--run-hook-payload", &payload]);
    microvm.call("suspend-microvm");
    let ended = microvm.wait("TERMINATED");
    let reason = "Suspend lifecycle hook returned HTTP status 500. \
                  Please check your hook endpoint and application logs for more details.";
    assert_eq!(ended["stateReason"], reason, "{ended}");
}

pub(crate) fn an_idle_microvm_sleeps_and_a_request_wakes_it() {
    let server = fixture::shared();
    let policy = idle_policy(600, true);
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", &policy]);
    microvm.post("/counter");
    let began = Instant::now();
    // Asking the API for its state is no traffic; were it, this would never come.
    microvm.wait_within("SUSPENDED", MAX_IDLE + SLACK);
    assert!(began.elapsed() + Duration::from_secs(1) >= MAX_IDLE, "asleep after {:?}", began.elapsed());
    assert!(server.vmms(&microvm.id).is_empty(), "a sleeping MicroVM has no process");
    assert_eq!(microvm.post("/counter"), json!({ "memory": 2, "file": 2 }));
    assert_eq!(microvm.state(), "RUNNING");
    microvm.terminate();
}

pub(crate) fn without_auto_resume_a_request_is_refused() {
    let server = fixture::shared();
    let policy = idle_policy(600, false);
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", &policy]);
    microvm.suspend();
    let refused = microvm.request("/", &[]).expect(502);
    assert_eq!(refused.body, "", "{refused:?}");
    assert_eq!(microvm.state(), "SUSPENDED");
    microvm.resume();
    microvm.json("/");
    microvm.terminate();
}

pub(crate) fn sleeping_too_long_terminates() {
    let server = fixture::shared();
    let policy = idle_policy(5, true);
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", &policy]);
    microvm.suspend();
    let ended = microvm.wait_within("TERMINATED", Duration::from_secs(5) + SLACK);
    assert_eq!(ended["stateReason"], "MicroVM exceeded maximum suspended duration.", "{ended}");
}

pub(crate) fn living_too_long_terminates() {
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--maximum-duration-in-seconds", "20"]);
    // Asleep or awake makes no difference.
    microvm.suspend();
    let ended = microvm.wait_within("TERMINATED", Duration::from_secs(20) + SLACK);
    assert_eq!(ended["stateReason"], "MicroVM exceeded maximum lifetime.", "{ended}");
}

pub(crate) fn the_end_of_the_application_terminates() {
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &[]);
    assert_eq!(microvm.json("/exit?code=7"), json!({ "exiting": 7 }));
    let ended = microvm.wait("TERMINATED");
    assert_eq!(ended["stateReason"], "Container Stopped with Exit Code: 7", "{ended}");
}

pub(crate) fn what_microvms_use_is_accounted() {
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &[]);
    let usage = || {
        let shown = server.usage(&microvm.id);
        let line =
            shown.lines().find(|line| line.starts_with(&microvm.id)).unwrap_or_else(|| panic!("{shown}"));
        let numbers = line.split_whitespace().skip(1).map(|number| number.parse::<f64>().unwrap());
        <[f64; 6]>::try_from(numbers.collect::<Vec<_>>()).unwrap()
    };
    let [awake, asleep, cpu, ..] = rekindle_e2e::until("an account of it", SLACK, || {
        // As often as it takes to be seen: a fast machine does it at once.
        microvm.json("/fill?mib=64");
        let usage = usage();
        (usage[0] > 2.0 && usage[2] > 0.1).then_some(usage)
    });
    assert!(asleep == 0.0 && cpu < awake * 5.0, "{awake} s awake, {asleep} s asleep, {cpu} s of CPU");
    microvm.suspend();
    rekindle_e2e::until("an account of its sleep", SLACK, || {
        let [.., asleep_mib] = usage();
        (usage()[1] > 2.0 && asleep_mib > 0.0).then_some(())
    });
    let before = usage();
    microvm.terminate();
    let after = usage();
    assert!(after.iter().zip(before).all(|(after, before)| *after >= before), "{after:?} after {before:?}");
}

/// And nothing of what it has is lost by that. On Firecracker: a QEMU keeps all that its guest has had.
pub(crate) fn memory_that_a_guest_frees_goes_back() {
    const FILL_MIB: u64 = 200;
    const RETURNED_MIB: u64 = 150;
    let server = fixture::shared();
    if !machines::last().starts_with("Firecracker") {
        return;
    }
    let microvm =
        Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", &idle_policy(600, true)]);
    let taken_mib = || private_mib(server.vmms(&microvm.id)[0]);
    for _ in 0..2 {
        microvm.json(&format!("/fill?mib={FILL_MIB}"));
        let taken = taken_mib();
        assert!(taken > FILL_MIB, "{taken} MiB");
        microvm.json("/fill?mib=0");
        until("memory to go back", SLACK, || (taken_mib() + RETURNED_MIB < taken).then_some(()));
        let filled = microvm.json(&format!("/fill?mib={}", FILL_MIB / 4));
        microvm.suspend();
        assert_eq!(microvm.json("/filled"), filled);
    }
    microvm.terminate();
}

/// Memory that a process shares with no other, nor with a file.
fn private_mib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    proc::kibibytes(&status, "RssAnon").unwrap() >> 20
}

pub(crate) fn an_application_is_asked_to_end_and_its_last_words_are_kept() {
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &[]);
    let ended = microvm.terminate();
    assert_eq!(ended["stateReason"], "Success.", "{ended}");
    let log = server.logs(&microvm.id);
    assert!(log.contains("ending by SIGTERM"), "{log}");
}

pub(crate) fn clones_differ_and_know_the_time() {
    let server = fixture::shared();
    let image = fixture::probe(&server);
    let clones = [Microvm::run(&server, &image, &[]), Microvm::run(&server, &image, &[])];
    let mut seen = BTreeSet::new();
    for clone in &clones {
        let random = clone.json("/random");
        seen.extend(["hex", "uuid"].map(|kind| random[kind].as_str().unwrap().to_owned()));
        seen.insert(
            clone.json("/file?path=/proc/sys/kernel/random/uuid")["text"].as_str().unwrap().to_owned(),
        );
        assert_clock(clone);
    }
    assert_eq!(seen.len(), 6, "clones agree on what should be random: {seen:?}");
    let [one, two] = &clones;
    one.post("/counter");
    assert_eq!(two.json("/counter"), json!({ "memory": 0, "file": 0 }), "a clone sees what another wrote");
    one.suspend();
    // Asleep for longer than the error allowed, so that a clock that stood still shows.
    let asleep = Instant::now();
    let before = one.get()["startedAt"].clone();
    rekindle_e2e::until("a second to pass", MAX_IDLE, || (asleep.elapsed().as_secs() >= 1).then_some(()));
    one.resume();
    assert_clock(one);
    assert_eq!(one.get()["startedAt"], before);
    clones.iter().for_each(|clone| drop(clone.terminate()));
}

/// The guest's clock is between the times before and after the request, give or take the error.
fn assert_clock(microvm: &Microvm<'_>) {
    let before = now();
    let told = microvm.json("/time")["wall"].as_f64().unwrap();
    let after = now();
    let early = before - told;
    let late = told - after;
    assert!(early <= CLOCK_ERROR && late <= CLOCK_ERROR, "the clock is {early} s behind or {late} s ahead");
}

pub(crate) fn suspend_and_resume_lose_nothing() {
    const CYCLES: u64 = 20;
    const FILL: &str = "/fill?mib=4";
    // From then on it stays awake until its layers are merged, wherever they are many. Before, they may become more.
    const MERGING: u64 = 12;
    let server = fixture::shared();
    let microvm =
        Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", &idle_policy(600, true)]);
    let dir = server.microvm_dir(&microvm.id);
    let mut filled = microvm.json(FILL);
    let mut merges = 0;
    for cycle in 1..=CYCLES {
        let counted: Json = microvm.post("/counter");
        assert_eq!(counted, json!({ "memory": cycle, "file": cycle }));
        assert_eq!(microvm.json("/filled"), filled);
        if cycle % 3 == 0 {
            filled = microvm.json(FILL);
        }
        microvm.suspend();
        let depth = layers(&dir);
        assert!((1..=MAX_LAYERS).contains(&depth), "{depth} layers");
        let merging = cycle >= MERGING && depth >= MERGE_LAYERS;
        // By turns: asked to, and woken by the next cycle's request.
        if cycle % 2 == 0 || merging {
            microvm.resume();
        }
        if merging {
            let merged = dir.join("merged");
            rekindle_e2e::until("layers to be merged", MAX_IDLE, || merged.is_dir().then_some(()));
            merges += 1;
        }
    }
    assert!(merges > 0);
    let summary = microvm.json("/");
    assert_eq!((&summary["hooks"]["suspend"], &summary["hooks"]["resume"]), (&json!(CYCLES), &json!(CYCLES)));
    microvm.terminate();
}

/// The layers of memory that a sleeping MicroVM consists of.
fn layers(dir: &Path) -> usize {
    let files = fs::read_dir(dir.join("suspended")).unwrap().map(|file| file.unwrap().file_name());
    files.filter(|name| name.to_str().unwrap().starts_with("memory.")).count()
}

/// A disk that does not answer holds up the suspension, but neither a request nor what comes after.
pub(crate) fn a_request_does_not_wait_for_the_disk_of_a_suspension() {
    let server = fixture::shared();
    let microvm =
        Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", &idle_policy(600, true)]);
    microvm.post("/counter");
    let dir = server.microvm_dir(&microvm.id);
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("scratch."));
    let disk = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).find(named).unwrap();
    let held = dir.join("held");
    fs::rename(&disk, &held).unwrap();
    // To be made durable it is opened, which of a pipe takes until somebody opens its other end.
    Command::new("mkfifo").arg(&disk).status().unwrap();
    microvm.call("suspend-microvm");
    let writing = dir.join("suspended.staging");
    rekindle_e2e::until("the disk to be written to", MAX_IDLE, || writing.is_dir().then_some(()));
    assert_eq!(microvm.state(), "SUSPENDING");
    assert_eq!(microvm.post("/counter"), json!({ "memory": 2, "file": 2 }));
    assert_eq!(microvm.state(), "RUNNING");
    assert_clock(&microvm);
    let summary = microvm.json("/");
    assert_eq!((&summary["hooks"]["suspend"], &summary["hooks"]["resume"]), (&json!(1), &json!(1)));
    let answered = File::options().write(true).open(&disk).unwrap();
    fs::rename(&held, &disk).unwrap();
    drop(answered);
    microvm.suspend();
    assert_eq!(microvm.post("/counter"), json!({ "memory": 3, "file": 3 }));
    microvm.terminate();
}

/// Their peers belong to the life before (SPEC §4.3).
pub(crate) fn connections_to_others_end_with_a_life() {
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &[]);
    let public = Neighbour::new("held", "198.51.103");
    microvm.json(&format!("/hold?host={}&port={}", public.address, neighbour::PORT));
    assert_eq!(microvm.json("/held")["error"], Json::Null);
    microvm.suspend();
    microvm.resume();
    assert_eq!(microvm.json("/held")["error"], "ECONNABORTED");
    microvm.terminate();
}

/// Else each sleep would leave one behind, and whatever the application has to each, a thread perhaps.
pub(crate) fn clients_connections_end_with_a_life() {
    // Of `/proc/net/tcp`: its own port, in hexadecimal digits, and the state of a connection that nobody has closed.
    const OURS: &str = ":1F90";
    const ESTABLISHED: &str = "01";
    assert_eq!(u16::from_str_radix(&OURS[1..], 16), Ok(microvm::PORT));
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &[]);
    let connections = || {
        let table = microvm.json("/file?path=/proc/net/tcp");
        let rows = table["text"].as_str().unwrap().lines().map(|row| row.split_whitespace().collect());
        rows.filter(|row: &Vec<_>| row[1].ends_with(OURS) && row[3] == ESTABLISHED).count()
    };
    assert_eq!(connections(), 1, "that of the request itself");
    for _ in 0..3 {
        microvm.suspend();
        microvm.resume();
        microvm.json("/");
    }
    until("the connections of earlier lives to have ended", SLACK, || (connections() == 1).then_some(()));
    microvm.terminate();
}
