//! The AWS CLI against the store over a loopback listener. Needs the clients that `scripts/clients` installs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rekindle_objects::{ObjectStore, ReadError};
use tokio::net::TcpListener;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

async fn serve(store: &ObjectStore) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = store.service("us-east-1", |id| (id == KEY).then(|| SECRET.to_owned()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    url
}

async fn aws(dir: &Path, url: &str, secret: &str, arguments: &str) -> Output {
    let assets = std::env::var_os("REKINDLE_ASSETS").unwrap_or_else(|| "/var/lib/rekindle/assets".into());
    let mut command = Command::new(Path::new(&assets).join("clients/bin/aws"));
    command
        .args(arguments.split(' '))
        .current_dir(dir)
        .env("AWS_ENDPOINT_URL", url)
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("NO_PROXY", "127.0.0.1");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_works_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(&dir.path().join("store")).unwrap();
    let url = serve(&store).await;
    let run = async |arguments: &str| {
        let output = aws(dir.path(), &url, SECRET, arguments).await;
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
    assert_eq!(store.read("artifacts", "app/big.zip").unwrap().size, big.len() as u64);
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

    let wrong = aws(dir.path(), &url, "wrong", "s3api list-buckets").await;
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("SignatureDoesNotMatch"));
    let missing = aws(dir.path(), &url, SECRET, "s3api get-object --bucket artifacts --key no x").await;
    assert!(String::from_utf8_lossy(&missing.stderr).contains("NoSuchKey"));

    run("s3 rb --force s3://artifacts").await;
    assert!(matches!(store.read("artifacts", "copy"), Err(ReadError::NoSuchBucket)));
}
