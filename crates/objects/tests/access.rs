//! Who may do what: two accounts, a user who may little, and temporary credentials, through the AWS CLI.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::process::Command;

use rekindle_objects::ObjectStore;
use world::{As, EVERYTHING, Grant, Person, SECRET, account, aws, serve};

const OWNER: As = As { key: "AKIAOWNER", secret: SECRET, token: None };
const STRANGER: As = As { key: "AKIASTRANGER", secret: SECRET, token: None };
const READER: As = As { key: "AKIAREADER", secret: SECRET, token: None };
const SESSION: As = As { key: "ASIASESSION", secret: SECRET, token: Some("a+token/=") };

const READING: &[Grant] = &[
    ("s3:GetObject", "arn:aws:s3:::mine/public/*", &[]),
    ("s3:ListBucket", "arn:aws:s3:::mine", &[("s3:prefix", "public/")]),
    ("s3:PutObject", "arn:aws:s3:::mine/in/*", &[]),
];

fn people() -> [Person; 4] {
    let person =
        |who: As, number, may| Person { key: who.key, account: account(number), token: who.token, may };
    [
        person(OWNER, 1, EVERYTHING),
        person(STRANGER, 2, EVERYTHING),
        person(READER, 1, READING),
        person(SESSION, 1, EVERYTHING),
    ]
}

/// The calls of one test.
struct World {
    dir: tempfile::TempDir,
    url: String,
}

impl World {
    /// With a bucket `mine` of the owner, and objects in it.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&dir.path().join("store"), &account(1)).unwrap();
        let world = Self { url: serve(&store, people()).await, dir };
        std::fs::write(world.dir.path().join("file"), "hello").unwrap();
        world.works(OWNER, "s3 mb s3://mine").await;
        world.works(OWNER, "s3 cp file s3://mine/public/a").await;
        world.works(OWNER, "s3 cp file s3://mine/secret/b").await;
        world
    }

    async fn works(&self, who: As, arguments: &str) -> String {
        let output = aws(self.dir.path(), &self.url, who, arguments).await;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn fails(&self, who: As, arguments: &str, words: &str) {
        let output = aws(self.dir.path(), &self.url, who, arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{arguments}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_no_way_into_the_buckets_of_another() {
    let world = World::new().await;
    world.works(STRANGER, "s3 mb s3://theirs").await;
    assert!(!world.works(STRANGER, "s3 ls").await.contains("mine"));
    assert!(!world.works(OWNER, "s3 ls").await.contains("theirs"));
    world.fails(STRANGER, "s3api head-bucket --bucket mine", "403").await;
    world.fails(STRANGER, "s3api create-bucket --bucket mine", "BucketAlreadyExists").await;
    world.fails(OWNER, "s3api create-bucket --bucket mine", "BucketAlreadyOwnedByYou").await;
    for call in [
        "delete-bucket --bucket mine",
        "get-bucket-location --bucket mine",
        "list-objects --bucket mine",
        "list-objects-v2 --bucket mine",
        "list-multipart-uploads --bucket mine",
        "get-object --bucket mine --key public/a out",
        "get-object --bucket mine --key missing out",
        "put-object --bucket mine --key public/a --body file",
        "delete-object --bucket mine --key public/a",
        "delete-objects --bucket mine --delete Objects=[{Key=public/a}]",
        "copy-object --bucket theirs --key a --copy-source mine/public/a",
        "copy-object --bucket mine --key a --copy-source mine/public/a",
        "create-multipart-upload --bucket mine --key a",
    ] {
        world.fails(STRANGER, &format!("s3api {call}"), "(AccessDenied)").await;
    }
    world.fails(STRANGER, "s3api head-object --bucket mine --key public/a", "403").await;

    let expecting = "s3api get-bucket-location --bucket mine --expected-bucket-owner";
    world.works(OWNER, &format!("{expecting} {}", account(1))).await;
    world.fails(OWNER, &format!("{expecting} {}", account(2)), "(AccessDenied)").await;

    let id = world
        .works(OWNER, "s3api create-multipart-upload --bucket mine --key a --query UploadId --output text")
        .await;
    let upload = format!("--bucket mine --key a --upload-id {}", id.trim());
    for call in ["list-parts", "abort-multipart-upload", "upload-part --part-number 1 --body file"] {
        world.fails(STRANGER, &format!("s3api {call} {upload}"), "(AccessDenied)").await;
    }
    assert_eq!(world.works(OWNER, "s3 cp s3://mine/public/a -").await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_only_what_is_allowed() {
    let world = World::new().await;
    assert_eq!(world.works(READER, "s3 cp s3://mine/public/a -").await, "hello");
    assert!(
        world
            .works(READER, "s3api list-objects-v2 --bucket mine --prefix public/")
            .await
            .contains("public/a")
    );
    world.works(READER, "s3api put-object --bucket mine --key in/x --body file").await;
    world.works(READER, "s3api create-multipart-upload --bucket mine --key in/y").await;
    for (call, action) in [
        ("list-buckets", "s3:ListAllMyBuckets on arn:aws:s3:::*"),
        ("create-bucket --bucket another", "s3:CreateBucket on arn:aws:s3:::another"),
        ("delete-bucket --bucket mine", "s3:DeleteBucket on arn:aws:s3:::mine"),
        ("get-bucket-location --bucket mine", "s3:GetBucketLocation on arn:aws:s3:::mine"),
        ("list-objects --bucket mine", "s3:ListBucket on arn:aws:s3:::mine"),
        ("list-objects-v2 --bucket mine --prefix secret/", "s3:ListBucket on arn:aws:s3:::mine"),
        ("list-multipart-uploads --bucket mine", "s3:ListBucketMultipartUploads on arn:aws:s3:::mine"),
        ("get-object --bucket mine --key secret/b out", "s3:GetObject on arn:aws:s3:::mine/secret/b"),
        // Whether it is there is not for them to know.
        ("get-object --bucket mine --key public/missing out", "s3:ListBucket on arn:aws:s3:::mine"),
        ("put-object --bucket mine --key public/a --body file", "s3:PutObject on arn:aws:s3:::mine/public/a"),
        ("delete-object --bucket mine --key in/x", "s3:DeleteObject on arn:aws:s3:::mine/in/x"),
        (
            "copy-object --bucket mine --key in/z --copy-source mine/secret/b",
            "s3:GetObject on arn:aws:s3:::mine/secret/b",
        ),
        (
            "copy-object --bucket mine --key z --copy-source mine/public/a",
            "s3:PutObject on arn:aws:s3:::mine/z",
        ),
        ("create-multipart-upload --bucket mine --key z", "s3:PutObject on arn:aws:s3:::mine/z"),
    ] {
        let words = format!("AKIAREADER may not {action}");
        world.fails(READER, &format!("s3api {call}"), &words).await;
    }
    let answer =
        world.works(READER, "s3api delete-objects --bucket mine --delete Objects=[{Key=in/x}]").await;
    assert!(answer.contains("AccessDenied") && answer.contains("s3:DeleteObject on arn:aws:s3:::mine/in/x"));
    assert!(world.works(OWNER, "s3 ls --recursive s3://mine").await.contains("in/x"));
    world.fails(OWNER, "s3api get-object --bucket mine --key missing out", "(NoSuchKey)").await;
    world.fails(OWNER, "s3api get-bucket-acl --bucket mine", "(NotImplemented)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_credentials_need_their_token() {
    let world = World::new().await;
    assert_eq!(world.works(SESSION, "s3 cp s3://mine/public/a -").await, "hello");
    let call = "s3api get-object --bucket mine --key public/a out";
    world.fails(As { token: None, ..SESSION }, call, "(InvalidToken)").await;
    world.fails(As { token: Some("other"), ..SESSION }, call, "(InvalidToken)").await;
    world.fails(As { token: Some("old"), ..SESSION }, call, "(ExpiredToken)").await;
    world.fails(As { key: "AKIANOBODY", ..SESSION }, call, "(InvalidAccessKeyId)").await;

    std::fs::write(world.dir.path().join("config"), "[default]\ns3 =\n  signature_version = s3v4\n").unwrap();
    let signed = world.works(SESSION, "s3 presign s3://mine/public/a").await;
    assert!(signed.contains("X-Amz-Security-Token"));
    let get = |url: &str| {
        let output = Command::new("curl").args(["-s", "--noproxy", "*", url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(get(signed.trim()), "hello");
    let unsigned = format!("{}/mine/public/a", world.url);
    assert!(get(&unsigned).contains("<Code>AccessDenied</Code>"));
}
