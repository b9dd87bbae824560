//! From one life to the next: what must differ, what must go on, and what must not be used.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rekindle_e2e::microvm::SETTLE;
use rekindle_e2e::{Image, Json, Microvm, Server, json, until};

use crate::fixture;

/// How far a guest's clocks may be off over a sleep: what loading its state takes on a busy host.
const CLOCK_ERROR_NS: u64 = 250_000_000;
/// How long the clocks are watched going on over a sleep.
const ASLEEP: Duration = Duration::from_secs(2);

fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// The one pause of the application from before `earlier` until after `later`: it ran neither between those two moments
/// nor by a clock of the life before.
fn pause_over(microvm: &Microvm<'_>, earlier: u64, later: u64) -> Json {
    let found = microvm.json("/pauses")["pauses"].take();
    let pauses = found.as_array().unwrap();
    let over = |pause: &&Json| {
        pause["before"]["wall"].as_u64().unwrap() < earlier
            && pause["after"]["wall"].as_u64().unwrap() >= later
    };
    let [pause] = pauses.iter().filter(over).collect::<Vec<_>>()[..] else {
        panic!("not one pause over {earlier}..{later}: {found}")
    };
    pause.clone()
}

/// The application stamps every moment at which it runs, from before the snapshot on.
pub(crate) fn nothing_runs_between_two_lives_and_clones_differ() {
    let server = fixture::shared();
    let image = fixture::probe(&server);
    let built = now_ns();
    let clones = [(); 2].map(|()| {
        let asked = now_ns();
        (Microvm::run(&server, &image, &[]), asked)
    });
    let pauses = clones.each_ref().map(|(clone, asked)| pause_over(clone, built, *asked));
    // Down to the nanosecond and the turn of the loop: had either run before its clock was set, it would have gone on
    // from here. A turn reads the wall clock first, and the others may come after the pause.
    for mark in ["wall", "count"] {
        assert_eq!(pauses[0]["before"][mark], pauses[1]["before"][mark], "{mark} of {pauses:?}");
    }
    let mut drawn = BTreeSet::new();
    for ((clone, _), pause) in clones.iter().zip(&pauses) {
        // The very first that it drew, and what comes later.
        drawn.extend(pause["drawn"].as_object().unwrap().values().map(text));
        drawn.extend(["random", "hello"].map(|part| text(&clone.json("/tls")[part])));
        drawn.insert(text(&clone.json("/file?path=/etc/machine-id")["text"]));
        // As on AWS: what had read it would not learn of another.
        assert_eq!(clone.json("/file?path=/etc/hostname")["text"], "localhost\n");
    }
    assert_eq!(drawn.len(), 2 * 8, "clones agree on what must differ: {drawn:?}");
    let [one, two] = clones.map(|(clone, _)| clone);
    let machine_id = one.json("/file?path=/etc/machine-id");
    let digits = one.id.trim_start_matches("microvm-").replace('-', "");
    assert_eq!(machine_id["text"], format!("{digits}\n"));

    one.post("/pauses");
    let before = now_ns();
    one.suspend();
    let (suspended, resumed) = (now_ns(), now_ns());
    one.resume();
    let pause = pause_over(&one, suspended, resumed);
    assert!(pause["before"]["wall"].as_u64().unwrap() > before, "{pause}");
    assert_eq!(one.json("/file?path=/etc/machine-id"), machine_id, "it is the same machine still");
    for clone in [one, two] {
        clone.terminate();
    }
}

pub(crate) fn what_a_process_holds_survives_and_its_clocks_go_on() {
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &[]);
    // Made before the snapshot, looked at in a clone.
    assert_kept(&microvm, false);
    microvm.post(&format!("/keepsakes?seconds={}", ASLEEP.as_secs_f64() / 2.0));
    let awake = clocks(&microvm);
    microvm.suspend();
    let asleep = now_ns();
    until("the guest to have slept", ASLEEP * 2, || {
        (now_ns() - asleep >= u64::try_from(ASLEEP.as_nanos()).unwrap()).then_some(())
    });
    microvm.resume();
    let later = clocks(&microvm);
    for clock in ["wall", "monotonic", "boottime"] {
        let went = later.told[clock].as_u64().unwrap() - awake.told[clock].as_u64().unwrap();
        let passed = (later.before - awake.after)..(later.after - awake.before);
        let right = went + CLOCK_ERROR_NS >= passed.start && went <= passed.end + CLOCK_ERROR_NS;
        assert!(right, "{clock} went {went} ns on in {passed:?} ns");
    }
    // They ended while it slept.
    assert_kept(&microvm, true);
    microvm.terminate();
}

/// The guest's clocks, and the host's before and after the request.
struct Clocks {
    told: Json,
    before: u64,
    after: u64,
}

fn clocks(microvm: &Microvm<'_>) -> Clocks {
    let before = now_ns();
    let told = microvm.json("/clocks");
    Clocks { told, before, after: now_ns() }
}

fn assert_kept(microvm: &Microvm<'_>, rang: bool) {
    let found = microvm.json("/keepsakes");
    let lost = found["kept"].as_object().unwrap().values().any(|wrong| !wrong.is_null());
    assert!(!lost, "{found}");
    assert_eq!(found["timers"], json!({ "timerfd": rang, "sleep": rang }));
}

pub(crate) fn a_damaged_snapshot_is_not_used_and_says_so() {
    let mut server = fixture::exclusive();
    let image = fixture::probe(&server);
    for file in ["memory.0", "device", "suspension.json"] {
        let microvm = Microvm::run(&server, &image, &[]);
        microvm.suspend();
        let dir = server.data_dir().join("microvms").join(&microvm.id).join("suspended");
        flip_last_byte(&dir.join(file));
        microvm.call("resume-microvm");
        let ended = microvm.wait("TERMINATED");
        assert_eq!(ended["stateReason"], "The MicroVM's saved state is damaged.", "{file}: {ended}");
    }
    let told = "The image version's snapshot is damaged. Build the image again.";
    let memory = layer(&server, &image).join("memory");
    flip_last_byte(&memory);
    // What was verified is not read again by the same server.
    server.restart();
    // Not `Microvm::launch`: it may end before a token is minted for it.
    let run = ["lambda-microvms", "run-microvm", "--image-identifier", &image.arn];
    let id = text(&server.aws(&run)["microvmId"]);
    let ended = until("the MicroVM to end", SETTLE, || {
        let record = server.microvm(&id);
        (record["state"] == "TERMINATED").then_some(record)
    });
    assert_eq!(ended["stateReason"], told, "{ended}");
    assert_eq!(version(&server, &image)["stateReason"], told);
    assert!(server.log().contains(memory.to_str().unwrap()), "the log names the file: {}", server.log());
    flip_last_byte(&memory);
    Microvm::run(&server, &image, &[]).terminate();
    assert_eq!(version(&server, &image)["stateReason"], Json::Null);
}

/// Flipped twice, it is as it was.
fn flip_last_byte(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let last = file.metadata().unwrap().len() - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).unwrap();
    file.write_all_at(&[byte[0] ^ 1], last).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
}

/// Where the files of the image's first version are.
fn layer(server: &Server, image: &Image) -> std::path::PathBuf {
    let name = image.arn.rsplit(':').next().unwrap();
    let account = format!("{}-{}", server.variable("AWS_ACCOUNT_ID"), server.variable("AWS_REGION"));
    server.data_dir().join("images").join(account).join(name).join("1.0")
}

fn version(server: &Server, image: &Image) -> Json {
    let which = ["--image-identifier", &image.arn, "--image-version", "1.0"];
    server.aws(&[&["lambda-microvms", "get-microvm-image-version"][..], &which].concat())
}
