use super::*;
use crate::stream::SEGMENT;
use crate::{Found, Search, Toward, search};

const NO_QUOTA: Quota = Quota { stream: u64::MAX, account: u64::MAX };
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn account(number: u64) -> AccountId {
    format!("{number:012}").parse().unwrap()
}

fn to(stream: &str) -> Destination {
    Destination { account: account(1), group: "/g".into(), stream: stream.into(), source: 7 }
}

fn group(name: &str) -> GroupInfo {
    GroupInfo { name: name.into(), created: 1, retention_days: None, tags: BTreeMap::new() }
}

fn found(logs: &Logs, stream: &str) -> Vec<Found> {
    let stream = logs.group(&account(1), "/g").and_then(|group| group.stream(stream));
    search(&stream.into_iter().collect::<Vec<_>>(), &Search::all()).unwrap().events
}

fn texts(logs: &Logs, stream: &str) -> Vec<String> {
    let text = |found: Found| String::from_utf8(found.event.message).unwrap();
    found(logs, stream).into_iter().map(text).collect()
}

fn write(logs: &Logs, stream: &str, lines: &[&str]) {
    logs.output(to(stream)).write(lines.iter().map(|line| line.as_bytes().to_vec()).collect()).unwrap();
}

#[test]
fn output_makes_its_group_and_stream_and_a_later_server_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("microvms")).unwrap();
    let logs = Logs::open(dir.path(), NO_QUOTA).unwrap();
    let output = logs.output(to("s"));
    assert!(logs.groups(&account(1)).is_empty());
    output.write(vec![]).unwrap();
    assert!(logs.groups(&account(1)).is_empty(), "nothing was printed");
    output.write(vec![b"one".to_vec(), b"two".to_vec()]).unwrap();
    // As after a crash: nothing was closed.
    let again = Logs::open(dir.path(), NO_QUOTA).unwrap();
    assert_eq!(texts(&again, "s"), ["one", "two"]);
    assert_eq!(found(&again, "s"), found(&logs, "s"));
    assert!(found(&again, "s").iter().all(|found| found.event.source == 7));
    assert!(!dir.path().join("microvms").exists());
}

#[test]
fn a_group_deleted_under_its_writer_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), NO_QUOTA).unwrap();
    let output = logs.output(to("s"));
    output.write(vec![b"one".to_vec()]).unwrap();
    assert!(logs.delete_group(&account(1), "/g").unwrap());
    assert!(!logs.delete_group(&account(1), "/g").unwrap());
    output.write(vec![b"two".to_vec()]).unwrap();
    assert_eq!(texts(&logs, "s"), ["two"]);
    assert!(logs.group(&account(1), "/g").unwrap().delete_stream("s").unwrap());
    output.write(vec![b"three".to_vec()]).unwrap();
    output.rest();
    assert_eq!(texts(&Logs::open(dir.path(), NO_QUOTA).unwrap(), "s"), ["three"]);
}

#[test]
fn accounts_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), NO_QUOTA).unwrap();
    write(&logs, "s", &["mine"]);
    assert!(logs.group(&account(2), "/g").is_none() && logs.groups(&account(2)).is_empty());
    logs.create_group(&account(2), group("/g")).unwrap();
    assert!(logs.group(&account(2), "/g").unwrap().streams().is_empty());
}

#[test]
fn what_a_group_is_survives() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), NO_QUOTA).unwrap();
    let long = "x".repeat(512);
    let made = logs.create_group(&account(1), group(&long)).unwrap();
    assert!(matches!(logs.create_group(&account(1), group(&long)), Err(CreateError::Exists)));
    made.create_stream(&long, 5).unwrap();
    assert!(matches!(made.create_stream(&long, 5), Err(CreateError::Exists)));
    made.change(|info| info.retention_days = Some(3)).unwrap();
    let again = Logs::open(dir.path(), NO_QUOTA).unwrap();
    let found = again.group(&account(1), &long).unwrap();
    assert_eq!((found.info(), found.stream(&long).unwrap().info()), (made.info(), made.streams()[0].info()));
    // A deletion that a crash cut short is finished.
    fs::remove_file(dir.path().join("000000000001").join(json_file::hashed(&long)).join("group.json"))
        .unwrap();
    assert!(Logs::open(dir.path(), NO_QUOTA).unwrap().groups(&account(1)).is_empty());
    assert!(folders(&dir.path().join("000000000001")).unwrap().is_empty());
}

#[test]
fn of_a_full_group_the_stream_that_was_quiet_for_longest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), NO_QUOTA).unwrap();
    let group = logs.create_group(&account(1), group("/g")).unwrap();
    for (name, at) in [("a", 1), ("b", 2), ("c", 3)] {
        group.create_within(3, name, at).unwrap();
    }
    write(&logs, "a", &["still in use"]);
    group.create_within(3, "d", 4).unwrap();
    let names: Vec<String> = group.streams().iter().map(|stream| stream.name().to_owned()).collect();
    assert_eq!(names, ["a", "c", "d"]);
}

#[test]
fn a_sweep_removes_what_retention_no_longer_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), NO_QUOTA).unwrap();
    write(&logs, "s", &["old"]);
    logs.sweep(now_ms() + 9 * DAY_MS).unwrap();
    assert_eq!(texts(&logs, "s"), ["old"], "without a policy events are kept for ever");
    logs.group(&account(1), "/g").unwrap().change(|info| info.retention_days = Some(1)).unwrap();
    logs.sweep(now_ms()).unwrap();
    assert_eq!(texts(&logs, "s"), ["old"]);
    logs.sweep(now_ms() + 2 * DAY_MS).unwrap();
    let left = logs.group(&account(1), "/g").unwrap();
    assert!(left.streams().is_empty() && left.bytes() == 0);
}

#[test]
fn a_full_account_drops_its_oldest_segments_and_their_streams_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), Quota { stream: u64::MAX, account: 4 * SEGMENT }).unwrap();
    write(&logs, "quiet", &["a", "b", "c"]);
    logs.output(to("quiet")).rest();
    let long = "x".repeat(200_000);
    for _ in 0..50 {
        write(&logs, "noisy", &[&long]);
    }
    let told = texts(&logs, "quiet");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("rekindle: the oldest 3 lines of this stream were dropped"), "{told:?}");
    assert!(logs.group(&account(1), "/g").unwrap().bytes() <= 4 * SEGMENT);
    assert!(texts(&logs, "noisy").iter().any(|text| text.starts_with("rekindle: the oldest")));
}

#[test]
fn lines_that_could_not_be_written_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), NO_QUOTA).unwrap();
    let blocked = dir.path().join("000000000001");
    fs::write(&blocked, "no folder").unwrap();
    let output = logs.output(to("s"));
    for _ in 0..2 {
        let error = output.write(vec![b"lost".to_vec(), b"too".to_vec()]).unwrap_err().to_string();
        assert!(error.contains("cannot make the log"), "{error}");
    }
    fs::remove_file(&blocked).unwrap();
    output.write(vec![b"kept".to_vec()]).unwrap();
    assert_eq!(texts(&logs, "s"), ["rekindle: 4 lines before this one could not be written", "kept"]);
}

/// Twenty thousand lines a second for ten seconds, as one guest sends them, read back while they come.
#[test]
fn a_flood_of_lines_loses_none() {
    const LINES: usize = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), Quota { stream: 256 << 20, account: 4 << 30 }).unwrap();
    let writer = {
        let output = logs.output(to("s"));
        std::thread::spawn(move || {
            for start in (0..LINES).step_by(500) {
                let line = |number: usize| format!("line {number} {}", "x".repeat(80)).into_bytes();
                output.write((start..start + 500).map(line).collect()).unwrap();
            }
        })
    };
    let mut follower = crate::Follower::of(dir.path(), &to("s"));
    let mut seen = 0;
    while seen < LINES {
        let over = writer.is_finished();
        let events = follower.read().unwrap();
        assert!(!(over && events.is_empty()), "{seen} of {LINES}");
        for event in events {
            assert!(event.message.starts_with(format!("line {seen} ").as_bytes()), "line {seen}");
            seen += 1;
        }
    }
    writer.join().unwrap();
    let stream = logs.group(&account(1), "/g").unwrap().stream("s").unwrap();
    let last = Search { toward: Toward::Older, limit: 1, ..Search::all() };
    let page = search(&[stream], &last).unwrap();
    assert!(page.events[0].event.message.starts_with(format!("line {} ", LINES - 1).as_bytes()));
}
