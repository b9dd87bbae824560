//! The AWS CLI against the store.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use rekindle_objects::{ObjectStore, ReadError};
use world::{As, EVERYTHING, Person, SECRET, account, aws, serve};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_works_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let me = account(1);
    let store = ObjectStore::open(&dir.path().join("store"), &me).unwrap();
    let url = serve(&store, [Person { key: KEY, account: me.clone(), token: None, may: EVERYTHING }]).await;
    let right = As { key: KEY, secret: SECRET, token: None };
    let run = async |arguments: &str| {
        let output = aws(dir.path(), &url, right, arguments).await;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // Above the CLI's threshold for uploads in parts.
    let big: Vec<u8> = (0..20_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(dir.path().join("big"), &big).unwrap();
    std::fs::write(dir.path().join("small"), "hello").unwrap();

    run("s3 mb s3://artifacts").await;
    run("s3 cp big s3://artifacts/app/big.zip").await;
    run("s3 cp small s3://artifacts/app/sm%2Fall+.txt").await;
    assert_eq!(store.read(&me, "artifacts", "app/big.zip").unwrap().size, big.len() as u64);
    assert_eq!(run("s3 cp s3://artifacts/app/sm%2Fall+.txt -").await, "hello");
    run("s3 cp s3://artifacts/app/big.zip back").await;
    assert!(std::fs::read(dir.path().join("back")).unwrap() == big, "the object came back changed");
    assert!(run("s3 ls s3://artifacts/").await.contains("PRE app/"));
    assert!(run("s3 ls --recursive --page-size 1 s3://artifacts/").await.contains("app/sm%2Fall+.txt"));
    run("s3 cp s3://artifacts/app/big.zip s3://artifacts/copy").await;
    run("s3api get-object --bucket artifacts --key copy --range bytes=10-19 part").await;
    assert_eq!(std::fs::read(dir.path().join("part")).unwrap(), &big[10..20]);
    let head = run("s3api head-object --bucket artifacts --key copy").await;
    assert!(head.contains("20000000"), "{head}");
    run("s3api get-bucket-location --bucket artifacts").await;

    let wrong = aws(dir.path(), &url, As { secret: "wrong", ..right }, "s3api list-buckets").await;
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("SignatureDoesNotMatch"));
    let missing = aws(dir.path(), &url, right, "s3api get-object --bucket artifacts --key no x").await;
    assert!(String::from_utf8_lossy(&missing.stderr).contains("NoSuchKey"));

    run("s3 rb --force s3://artifacts").await;
    assert!(matches!(store.read(&me, "artifacts", "copy"), Err(ReadError::NoSuchBucket)));
}
