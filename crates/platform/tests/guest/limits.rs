//! What an application meets that takes all there is, and what is left of the machine then.

use std::time::Duration;

use crate::artifact::zip;
use crate::machines::Bench;

const DOCKERFILE: &str = "FROM rekindle/debian:13\nCOPY app.sh /\nCMD [\"sh\", \"/app.sh\"]\n";
/// First the disk, of which most is taken without being written; then memory, by a child that the first process outlives.
const APP: &str = r#"
for mib in 8000 7900 7800 7700 7600 7500 7400 7300 7200; do fallocate -l ${mib}M /full 2>/dev/null && break; done
dd if=/dev/zero of=/rest bs=1M 2>&1 | grep -o 'No space left on device'
rm -f /full /rest && echo kept >/small && echo "disk again: $(cat /small)"

perl -e 'my @all; while (1) { push @all, "x" x (1 << 24) }'
echo "hog ended with $?"
echo up
sleep 1000 & wait
"#;

pub(crate) async fn end_who_takes_too_much(bench: &Bench) {
    let files = [("Dockerfile", DOCKERFILE.as_bytes()), ("app.sh", APP.as_bytes())];
    let image = bench.build("limits-build", &zip(&files), &[]).await.unwrap();
    let mut guest = bench.start("limits", &image, false).await;
    guest.printed("up\n").await;
    let log = guest.flushed_log().await;
    println!("{log}");
    for want in ["No space left on device", "disk again: kept", "hog ended with 137"] {
        assert!(log.contains(want), "{want}");
    }
    let killed: Vec<&str> =
        log.lines().filter(|line| line.contains("Out of memory: Killed process")).collect();
    assert!(killed.len() == 1 && killed[0].contains("(perl)"), "{killed:?}");
    // The machine is well.
    guest.stopped_log(Duration::ZERO).await;
    guest.power_off().await;
}
