//! What an application prints is told, to the last word and once; and how it is asked to end.

use std::time::{Duration, Instant};

use agent_proto::{HookOutcome, Response};

use crate::artifact::zip;
use crate::machines::{Bench, Image, end};
use crate::session::{Guest, hook_call};
use crate::{shells, timed};

const DOCKERFILE: &str = "FROM rekindle/debian:13\nCOPY app.pl /\nCMD [\"perl\", \"/app.pl\"]\n";
/// Prints a line for each hook before it answers, so that nothing is older than the answer.
const APP: &str = r#"
use IO::Socket::INET;
$| = 1;
my $listener = IO::Socket::INET->new(LocalPort => 9000, Listen => 8, ReuseAddr => 1) or die $!;
while (my $client = $listener->accept) {
    my ($hook) = <$client> =~ m{/(\w+) HTTP};
    while (<$client> =~ /\S/) {}
    print "hook $hook ", ++$calls, "\n";
    print $client "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    close $client;
}
"#;
/// Far longer than an application may take here.
const LONG: Duration = Duration::from_secs(20);
const OK: HookOutcome = HookOutcome::Status(200);

pub(crate) async fn is_told(bench: &Bench) {
    let files = [("Dockerfile", DOCKERFILE.as_bytes()), ("app.pl", APP.as_bytes())];
    let mut image = bench.build("output-build", &zip(&files), &[]).await.unwrap();
    nothing_is_lost_or_told_twice(bench, &image).await;
    signals_reach_who_heeds_them(bench, &mut image).await;
    orphans_are_the_first_processes_own(bench, &mut image).await;
    shells::fall_back(bench, &mut image).await;
}

async fn nothing_is_lost_or_told_twice(bench: &Bench, image: &Image) {
    let source = bench.start("output", image, false).await;
    source.ready().await;
    assert_eq!(source.hook("last").await, OK);
    let (machine, log) = source.freeze_with_log().await;
    assert!(log.contains("hook last "), "printed right before the snapshot: {log}");
    let snapshot = bench.snapshot("output", image, machine).await;

    let spec = bench.clone_spec("output-clone", &snapshot);
    let mut clone = Guest::meet(bench.engine.restore(spec, snapshot.from.clone()).await.unwrap()).await;
    let answer = clone.live(Some(hook_call("run", None))).await;
    assert_eq!(answer, Response::Hook(OK));
    let log = timed("flush", clone.flushed_log()).await;
    assert!(log.starts_with("hook run ") && log.lines().count() == 1, "{log}");
    end(clone.machine).await;
}

async fn signals_reach_who_heeds_them(bench: &Bench, image: &mut Image) {
    image.config.stop_signal = "SIGINT".into();
    image.config.cmd = ["sh", "-c", "trap 'echo stopping; exit 5' INT; echo up; sleep 1000 & wait"]
        .map(String::from)
        .to_vec();
    let mut guest = bench.start("stopped", image, false).await;
    guest.printed("up").await;
    assert_eq!(guest.stopped_log(LONG).await, "up\nstopping\n");
    assert_eq!(guest.told_exit(), Some(5), "the exit is told before the mark");
    guest.power_off().await;

    // The kernel keeps a signal from the first process that has nothing for it: nobody waits for the end then.
    image.config.stop_signal = String::new();
    image.config.cmd = ["sh", "-c", "echo up; exec sleep 1000"].map(String::from).to_vec();
    let mut guest = bench.start("deaf", image, false).await;
    guest.printed("up").await;
    let asked = Instant::now();
    assert_eq!(guest.stopped_log(LONG).await, "up\n");
    assert!(asked.elapsed() < LONG / 2, "{:?}", asked.elapsed());
    guest.power_off().await;
}

/// As under Docker without an init; and none outlives it.
async fn orphans_are_the_first_processes_own(bench: &Bench, image: &mut Image) {
    const ORPHAN: &str =
        "sh -c 'sleep 1000 & echo $! >/orphan'; grep PPid /proc/$(cat /orphan)/status; exit 3";
    image.config.cmd = ["sh", "-c", ORPHAN].map(String::from).to_vec();
    let mut guest = bench.start("orphans", image, false).await;
    assert_eq!(guest.exit().await, 3, "the orphan holds the outputs open, and has ended too");
    assert_eq!(guest.log(), "PPid:\t1\n");
    guest.power_off().await;
}
