//! Builds that fail say whose fault it is, and enough to mend it.

use std::fs::File;
use std::process::Command;

use agent_proto::BuildFailure;
use engine::{Disk, Layer, LayerFormat};

use crate::artifact::zip;
use crate::machines::Bench;

const SMALL: u64 = 96 << 20;

pub(crate) async fn are_told(bench: &Bench) {
    let script = "FROM rekindle/debian:13\nRUN echo a hint for you && ls /does-not-exist\n";
    let (kind, message) = fail(bench, "bad-step", script).await;
    assert_eq!(kind, BuildFailure::Dockerfile);
    assert!(message.contains("a hint for you") && message.contains("/does-not-exist"), "{message}");
    assert!(message.len() < 4096, "{message}");

    let (kind, message) = fail(bench, "bad-instruction", "FROM rekindle/debian:13\nRUNN true\n").await;
    assert_eq!(kind, BuildFailure::Dockerfile);
    assert!(message.contains("RUNN"), "{message}");

    let zipped = zip(&[("other", b"no Dockerfile")]);
    let (kind, message) = bench.build("no-dockerfile", &zipped, &[]).await.err().unwrap();
    assert_eq!(kind, BuildFailure::Artifact);
    assert!(message.contains("no Dockerfile"), "{message}");

    let zipped = zip(&[("Dockerfile", b"FROM rekindle/debian:13\nRUN head -c 256M /dev/zero >/file\n")]);
    let (kind, message) =
        bench.build_on("full-disk", &zipped, &[], small_scratch(bench)).await.err().unwrap();
    assert_eq!(kind, BuildFailure::DiskFull, "{message}");
}

async fn fail(bench: &Bench, name: &str, dockerfile: &str) -> (BuildFailure, String) {
    let zipped = zip(&[("Dockerfile", dockerfile.as_bytes())]);
    let failure = bench.build(name, &zipped, &[]).await.err().unwrap();
    println!("{failure:?}");
    failure
}

fn small_scratch(bench: &Bench) -> Disk {
    let path = bench.path("small.ext4");
    File::create_new(&path).unwrap().set_len(SMALL).unwrap();
    assert!(Command::new("mkfs.ext4").arg("-q").arg(&path).status().unwrap().success());
    Disk::private("scratch", vec![], Layer { path, format: LayerFormat::Raw })
}
