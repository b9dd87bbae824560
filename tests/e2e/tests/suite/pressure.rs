//! A host that is full: what it answers, that nobody who runs is harmed, and that room comes back.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rekindle_e2e::{Answer, Image, Json, Microvm, Server, disk, json, machines, until};

use crate::fixture;

/// Beyond what the data take: the reserve of the settings, what three may need to be suspended, and some more.
const DISK_LEFT_MIB: u64 = 700;
/// Less than any launch needs on the disk with the reserve of the settings, and enough for a suspension.
const LITTLE_DISK_MIB: u64 = 100;
/// For the server to see what has changed on its host.
const SEEN: Duration = Duration::from_secs(20);
const MEMORY_CGROUPS: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
const MIB: u64 = 1 << 20;

/// Settings files beside the server's data.
struct Settings(tempfile::TempDir);

impl Settings {
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub(crate) fn a_full_host_refuses_and_harms_nobody() {
    let mut shared = fixture::exclusive();
    let image = fixture::probe(&shared);
    shared.kill();
    let settings = Settings(tempfile::tempdir().unwrap());
    let few = settings.file("few", "max_slots = 3\nready_slots = 0\ndisk_reserve_mib = 300\n");
    let little =
        settings.file("little", "max_slots = 3\nready_slots = 0\ndisk_reserve_mib = 300\nmemory_mib = 1\n");
    let promised = settings.file("promised", "baseline_cpus = 1\nready_slots = 0\ndisk_reserve_mib = 300\n");
    let mut server = Server::start_on_small_disk(&shared, DISK_LEFT_MIB, &["--config", &few]);
    shared.restart();
    drop(shared);

    few_slots(&server, &image);
    let running = server.living();
    server.restart_with(&["--config", &little]);
    little_memory(&server, &image, &running);
    server.restart_with(&["--config", &few]);
    full_disk(&server, &image);
    server.restart_with(&["--config", &promised]);
    few_cpus(&server, &image);
    server.restart_with(&["--config", &few]);
    // A Firecracker tells its guest of an error instead.
    if !machines::last().starts_with("Firecracker") {
        no_room_at_all(&server, &image);
    }
    out_of_memory(&server, &image);
}

/// Four want three places: the fourth is refused, as is who sleeps and would wake; a place given back is had at once.
fn few_slots(server: &Server, image: &Image) {
    let idle =
        json!({"maxIdleDurationSeconds": 3600, "suspendedDurationSeconds": 3600, "autoResumeEnabled": true});
    let sleeper = Microvm::run(server, image, &["--idle-policy", &idle.to_string()]);
    let others = [Microvm::run(server, image, &[]), Microvm::run(server, image, &[])];
    let refused = refused(run(server, image), "network slots");
    assert_eq!(refused.status, 500, "{refused:?}");

    sleeper.suspend();
    let last = Microvm::run(server, image, &[]);
    let woken = sleeper.request("/counter", &[]).expect(502);
    assert_eq!((woken.body.as_str(), woken.header("retry-after")), ("", Some("5")), "{woken:?}");
    let resumed = resume(server, &sleeper).expect(429);
    assert_eq!(resumed.header("x-amzn-errortype"), Some("ThrottlingException"), "{resumed:?}");
    assert_eq!(resumed.header("retry-after"), Some("5"), "{resumed:?}");
    assert_eq!(sleeper.state(), "SUSPENDED", "to be refused is not to fail");
    others.iter().chain([&last]).for_each(|microvm| drop(microvm.json("/counter")));

    last.terminate();
    sleeper.json("/counter");
    sleeper.terminate();
}

/// Two run, more than the settings now allow: they go on, and none is added.
fn little_memory(server: &Server, image: &Image, running: &[String]) {
    assert_eq!(running.len(), 2);
    refused(run(server, image), "MiB of memory");
    for id in running {
        assert_eq!(server.microvm(id)["state"], "RUNNING");
        Microvm::of(server, id).json("/counter");
        Microvm::of(server, id).terminate();
    }
    let build = server.aws_error(&[
        "lambda-microvms",
        "update-microvm-image",
        "--image-identifier",
        &image.arn,
        "--base-image-arn",
        &server.base_image(),
        "--build-role-arn",
        &server.build_role(),
        "--code-artifact",
        r#"{"uri":"s3://artifacts/probe.zip"}"#,
    ]);
    assert!(build.contains("ServiceQuotaExceededException"), "{build}");
}

/// New ones are refused while a running one can still be suspended; room on the disk is room again.
fn full_disk(server: &Server, image: &Image) {
    let microvm = until("memory to be had", SEEN, || run(server, image).ok()).json();
    let microvm = Microvm::of(server, microvm["microvmId"].as_str().unwrap());
    microvm.wait("RUNNING");
    disk::fill(server.data_dir(), LITTLE_DISK_MIB * MIB);
    until("the full disk to be seen", SEEN, || match run(server, image) {
        Ok(answer) => {
            Microvm::of(server, answer.json()["microvmId"].as_str().unwrap()).terminate();
            None
        }
        Err(answer) => Some(refused(Err(answer), "MiB of disk")),
    });
    microvm.suspend();
    disk::make_room(server.data_dir());
    until("the disk's room to be seen", SEEN, || (resume(server, &microvm).status == 200).then_some(()));
    microvm.json("/counter");
    microvm.terminate();
}

/// The image's size has a baseline of a quarter of a CPU: one CPU is promised to four, and one that sleeps gives its part back.
fn few_cpus(server: &Server, image: &Image) {
    let four: Vec<Microvm<'_>> = (0..4).map(|_| Microvm::run(server, image, &[])).collect();
    refused(run(server, image), "0.000 CPUs to promise MicroVMs and this needs 0.250");
    four[0].suspend();
    let fifth = Microvm::run(server, image, &[]);
    assert_eq!(resume(server, &four[0]).status, 429);
    fifth.terminate();
    four[0].resume();
    four.iter().for_each(|microvm| drop(microvm.terminate()));
}

/// What a MicroVM writes when nothing is left waits for room, with the MicroVM; nothing of it is lost.
fn no_room_at_all(server: &Server, image: &Image) {
    const STOPPED: &str = "a machine has stopped: the host's disk is full";
    let microvm = Microvm::run(server, image, &[]);
    assert!(!server.log().contains(STOPPED));
    let stored = std::thread::scope(|scope| {
        disk::fill(server.data_dir(), 0);
        let storing = scope.spawn(|| microvm.json("/store?mib=16"));
        until("the MicroVM to be stopped", SEEN, || server.log().contains(STOPPED).then_some(()));
        disk::make_room(server.data_dir());
        storing.join().unwrap()
    });
    assert_eq!(microvm.json("/stored"), stored);
    microvm.terminate();
}

/// One takes more than its group may have: it ends with the reason, and its neighbour does not notice.
fn out_of_memory(server: &Server, image: &Image) {
    let [greedy, neighbour] = [Microvm::run(server, image, &[]), Microvm::run(server, image, &[])];
    let vmm = server.vmms(&greedy.id)[0];
    let score = fs::read_to_string(format!("/proc/{vmm}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "900", "a VMM goes before the server does");
    let (limit, used) = memory_limit(vmm);
    fs::write(&limit, (used + 64 * MIB).to_string()).unwrap();
    let _ = server.try_curl(&greedy.url("/fill?mib=300"), &["--header", &greedy.auth()]);
    let ended = greedy.wait("TERMINATED");
    let reason = ended["stateReason"].as_str().unwrap_or_default();
    assert!(reason.contains("out of memory"), "{ended}");
    neighbour.json("/counter");
    neighbour.terminate();
}

/// The file with the limit of a process's memory, and the bytes that its group has.
fn memory_limit(pid: i32) -> (PathBuf, u64) {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group =
        groups.lines().find_map(|line| Some(line.rsplit_once(':')?.1).filter(|_| line.contains("rekindle-")));
    let below = group.expect("a VMM is in a group").trim_start_matches('/');
    let read = |dir: &str, limit: &str, used: &str| {
        let dir = PathBuf::from(dir).join(below);
        let used = fs::read_to_string(dir.join(used)).ok()?.trim().parse().ok()?;
        Some((dir.join(limit), used))
    };
    read(MEMORY_CGROUPS[0], "memory.limit_in_bytes", "memory.usage_in_bytes")
        .or_else(|| read(MEMORY_CGROUPS[1], "memory.max", "memory.current"))
        .expect("its group limits memory")
}

/// RunMicrovm, as it is answered: refused is an error.
fn run(server: &Server, image: &Image) -> Result<Answer, Answer> {
    let body = json!({ "imageIdentifier": image.arn }).to_string();
    let answer = server.api("/2025-09-09/microvms", &["--data", &body]).unwrap();
    if answer.status == 200 { Ok(answer) } else { Err(answer) }
}

/// ResumeMicrovm, as it is answered.
fn resume(server: &Server, microvm: &Microvm<'_>) -> Answer {
    let path = format!("/2025-09-09/microvms/{}/resume", microvm.id);
    server.api(&path, &["--request", "POST"]).unwrap()
}

/// An InsufficientCapacityException that names what there is not enough of.
fn refused(answer: Result<Answer, Answer>, of: &str) -> Answer {
    let refused = answer.expect_err("it is full");
    assert_eq!(refused.header("x-amzn-errortype"), Some("InsufficientCapacityException"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("5"), "{refused:?}");
    let Json::Object(body) = refused.json() else { panic!("{refused:?}") };
    assert_eq!(body.keys().collect::<Vec<_>>(), ["message"], "{refused:?}");
    assert!(body["message"].as_str().is_some_and(|message| message.contains(of)), "{refused:?}");
    refused
}
