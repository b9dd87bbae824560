//! What a user does with the AWS CLI, from the bucket to the end, and with the endpoint.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rekindle_e2e::{Artifact, Hooks, Image, Json, Microvm, Server, json, microvm, until};

use crate::{cloudwatch, exposure, fixture};

const NAME: &str = "session";
/// For a line of output to reach the log.
const LOGGED: Duration = Duration::from_secs(10);
const HOOKS: [&str; 6] = ["ready", "validate", "run", "resume", "suspend", "terminate"];

pub(crate) fn the_cli_session_of_the_manual() {
    let server = fixture::shared();
    let server = &*server;
    managed_images(server);
    let image = create_image(server);
    built(server, &image, "1.0", "CREATED");
    update_image(server, &image);
    built(server, &image, "2.0", "UPDATED");
    let versions =
        server.aws(&["lambda-microvms", "list-microvm-image-versions", "--image-identifier", &image.arn]);
    assert_eq!(versions["items"].as_array().unwrap().len(), 2, "{versions}");
    run_and_end(server, &image);
    cloudwatch::configured(server, &image);
    image.delete(server);
    cloudwatch::outlives(server, NAME);
}

fn managed_images(server: &Server) {
    let managed = server.aws(&["lambda-microvms", "list-managed-microvm-images"]);
    let arn = server.base_image();
    assert!(
        managed["items"].as_array().unwrap().iter().any(|item| item["imageArn"] == arn.as_str()),
        "{managed}"
    );
}

fn configuration(server: &Server, greeting: &str) -> Vec<String> {
    let arguments = [
        ("--base-image-arn", server.base_image()),
        ("--build-role-arn", server.build_role()),
        ("--code-artifact", json!({ "uri": "s3://session-bucket/app.zip" }).to_string()),
        ("--hooks", Hooks::All.to_json().to_string()),
        ("--environment-variables", json!({ "GREETING": greeting }).to_string()),
        ("--resources", r#"[{"minimumMemoryInMiB":512}]"#.to_owned()),
        ("--description", format!("says {greeting}")),
    ];
    arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

fn call(server: &Server, operation: &[&str], configuration: &[String]) -> Json {
    let configuration: Vec<&str> = configuration.iter().map(String::as_str).collect();
    server.aws(&[&["lambda-microvms"][..], operation, &configuration].concat())
}

fn create_image(server: &Server) -> Image {
    let zip = server.scratch("app.zip");
    // No other build has left its container.
    std::fs::write(&zip, Artifact::of("examples/hello").file("session", "").zip()).unwrap();
    server.aws_text(&["s3", "mb", "s3://session-bucket"]);
    server.aws_text(&["s3", "cp", zip.to_str().unwrap(), "s3://session-bucket/app.zip"]);
    let create = ["create-microvm-image", "--name", NAME, "--tags", "team=tests"];
    let created = call(server, &create, &configuration(server, "hello"));
    let (region, account) = (server.variable("AWS_REGION"), server.variable("AWS_ACCOUNT_ID"));
    let arn = format!("arn:aws:lambda:{region}:{account}:microvm-image:{NAME}");
    assert_eq!(created["imageArn"], arn.as_str(), "{created}");
    assert_eq!(created["state"], "CREATING", "{created}");
    assert_eq!(created["imageVersion"], "1.0", "{created}");
    assert_recent(&created["createdAt"]);
    let again = server.aws_error(&["lambda-microvms", "delete-microvm-image", "--image-identifier", &arn]);
    assert!(again.contains("ConflictException") && again.contains("already in state: CREATING"), "{again}");
    Image { arn }
}

fn update_image(server: &Server, image: &Image) {
    let update = ["update-microvm-image", "--image-identifier", &image.arn];
    let updated = call(server, &update, &configuration(server, "hello again"));
    assert_eq!(updated["state"], "UPDATING", "{updated}");
    assert_eq!(updated["imageVersion"], "2.0", "{updated}");
}

/// Waits for the build of a version and looks at everything there is to see of it.
fn built(server: &Server, image: &Image, version: &str, state: &str) {
    let record = image.settled(server);
    assert_eq!(record["state"], state, "{record}: {}", image.build(server, version));
    assert_eq!(record["latestActiveImageVersion"], version, "{record}");
    assert_eq!(record["name"], NAME, "{record}");
    assert_eq!(record["tags"]["team"], "tests", "{record}");
    let which = ["--image-identifier", &image.arn, "--image-version", version];
    let detail = server.aws(&[&["lambda-microvms", "get-microvm-image-version"][..], &which].concat());
    assert_eq!(detail["state"], "SUCCESSFUL", "{detail}");
    assert_eq!(detail["status"], "ACTIVE", "{detail}");
    assert_eq!(detail["resources"][0]["minimumMemoryInMiB"], 512, "{detail}");
    assert_eq!(detail["hooks"]["microvmHooks"]["run"], "ENABLED", "{detail}");
    let build = image.build(server, version);
    assert_eq!(build["buildState"], "SUCCESSFUL", "{build}");
    assert_eq!(build["imageVersion"], version, "{build}");
    for size in ["memorySnapshotSizeInBytes", "codeInstallSizeInBytes", "diskSnapshotSizeInBytes"] {
        assert!(build["snapshotBuild"][size].as_u64().is_some_and(|bytes| bytes > 0), "{size}: {build}");
    }
    let log = server.logs(build["buildId"].as_str().unwrap());
    // The second version is of the same artifact.
    let told = if version == "1.0" { "COPY app.py" } else { "Using the container that a build" };
    assert!(log.contains(told), "the build's log lacks its steps:\n{log}");
    cloudwatch::of_build(server, NAME, version);
}

fn run_and_end(server: &Server, image: &Image) {
    let microvm = run(server, image);
    application(server, &microvm);
    cloudwatch::of_microvm(server, NAME, &microvm);
    tokens(server, &microvm);
    sleep_and_wake(&microvm);
    let refused =
        server.aws_error(&["lambda-microvms", "delete-microvm-image", "--image-identifier", &image.arn]);
    assert!(refused.contains("Cannot delete MicroVM image with running MicroVMs"), "{refused}");
    let ended = microvm.terminate();
    assert_eq!(ended["stateReason"], "Success.", "{ended}");
    assert_recent(&ended["terminatedAt"]);
    let gone = microvm.request("/", &[]).expect(502);
    assert_eq!(gone.header("x-aws-proxy-error"), Some("MICROVM_CONNECT_FAILED"), "{gone:?}");
    // Ending what has ended is success.
    microvm.call("terminate-microvm");
}

fn run<'a>(server: &'a Server, image: &Image) -> Microvm<'a> {
    let idle = r#"{"maxIdleDurationSeconds":900,"suspendedDurationSeconds":300,"autoResumeEnabled":true}"#;
    let token = ["--client-token", "one-and-the-same"];
    let arguments =
        ["--idle-policy", idle, "--run-hook-payload", "a payload", "--maximum-duration-in-seconds", "1800"];
    let microvm = Microvm::run(server, image, &[&arguments[..], &token].concat());
    let again = Microvm::launch(server, image, &[&arguments[..], &token].concat());
    assert_eq!(again.id, microvm.id, "a repeated request runs no second MicroVM");
    let run =
        ["lambda-microvms", "run-microvm", "--image-identifier", &image.arn, "--run-hook-payload", "another"];
    let conflict = server.aws_error(&[&run[..], &token].concat());
    assert!(conflict.contains("ConflictException"), "{conflict}");

    let record = server.aws(&["lambda-microvms", "get-microvm", "--microvm-identifier", &microvm.id]);
    assert_eq!(record["state"], "RUNNING", "{record}");
    assert_eq!(record["imageArn"], image.arn.as_str(), "{record}");
    assert_eq!(record["imageVersion"], "2.0", "{record}");
    assert_eq!(record["maximumDurationInSeconds"], 1800, "{record}");
    assert_eq!(record["idlePolicy"], serde_json::from_str::<Json>(idle).unwrap(), "{record}");
    assert!(record["runHookPayload"].is_null() && record["stateReason"].is_null(), "{record}");
    assert_recent(&record["startedAt"]);
    assert_endpoint(server, &microvm);
    let listed = server.aws(&["lambda-microvms", "list-microvms", "--image-identifier", &image.arn]);
    let ids: Vec<&Json> = listed["items"].as_array().unwrap().iter().map(|item| &item["microvmId"]).collect();
    assert_eq!(ids, [microvm.id.as_str()], "{listed}");
    microvm
}

/// Ids are uuids, and the endpoint's is another than the MicroVM's.
fn assert_endpoint(server: &Server, microvm: &Microvm<'_>) {
    let uuid = |text: &str| {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
    };
    let id = microvm.id.strip_prefix("microvm-").unwrap();
    let suffix =
        format!(".lambda-microvm.{}.localhost:{}", server.variable("AWS_REGION"), server.endpoint_port());
    let label = microvm.endpoint.strip_suffix(&suffix).unwrap_or_else(|| panic!("{}", microvm.endpoint));
    assert!(uuid(id) && uuid(label) && id != label, "{id} {label}");
}

fn application(server: &Server, microvm: &Microvm<'_>) {
    let summary = microvm.json("/");
    assert_eq!(summary["microvmId"], microvm.id.as_str(), "{summary}");
    assert_eq!(summary["runHookPayload"], "a payload", "{summary}");
    assert_eq!(hook_counts(&summary), [1, 0, 1, 0, 0, 0], "{summary}");
    until("the application's output to be logged", LOGGED, || {
        server.logs(&microvm.id).contains("8080:").then_some(())
    });
}

/// The validate hook is called in a MicroVM that is thrown away, so no other knows of it.
fn hook_counts(summary: &Json) -> Vec<u64> {
    HOOKS.iter().map(|hook| summary["hooks"][hook].as_u64().unwrap_or(u64::MAX)).collect()
}

fn tokens(server: &Server, microvm: &Microvm<'_>) {
    let get = |token: Option<&str>, port: &str| {
        let auth = token.map(|token| format!("X-aws-proxy-auth: {token}"));
        let port = format!("X-aws-proxy-port: {port}");
        let mut options = vec!["--header", &port];
        options.extend(auth.iter().flat_map(|auth| ["--header", auth]));
        let answer = server.curl(&microvm.url("/"), &options);
        (answer.status, answer.body)
    };
    let status = |token: &str, port: &str| get(Some(token), port).0;
    let port = microvm::token(server, &microvm.id, r#"[{"port":8080}]"#);
    assert_eq!(status(&port, "8080"), 200);
    assert_eq!(get(Some(&port), "9000"), (403, "Access to port denied".to_owned()));
    assert_eq!(status(&port, "banana"), 400);
    let range = microvm::token(server, &microvm.id, r#"[{"range":{"startPort":8000,"endPort":8100}}]"#);
    assert_eq!((status(&range, "8080"), status(&range, "8101")), (200, 403));
    let all = microvm::token(server, &microvm.id, r#"[{"allPorts":{}}]"#);
    // The hooks' server knows no GET; that it says so shows it was reached. Nothing listens on the other.
    assert_eq!((status(&all, "8080"), status(&all, "9000"), status(&all, "8081")), (200, 501, 502));
    let refused = (403, "Request missing authentication".to_owned());
    assert_eq!(get(None, "8080"), refused);
    assert_eq!(get(Some("wrong"), "8080"), refused);
}

fn sleep_and_wake(microvm: &Microvm<'_>) {
    microvm.post("/counter");
    microvm.suspend();
    // Suspending what is suspended is success, and calls no hook.
    microvm.call("suspend-microvm");
    microvm.resume();
    microvm.call("resume-microvm");
    assert_eq!(microvm.json("/counter"), json!({ "memory": 1, "file": 1 }));
    microvm.suspend();
    let summary = microvm.json("/");
    assert_eq!(hook_counts(&summary), [1, 0, 1, 2, 2, 0], "{summary}");
    assert_eq!(microvm.state(), "RUNNING");
}

/// The CLI prints a timestamp as the API gives it: seconds since the epoch.
fn assert_recent(timestamp: &Json) {
    let then = timestamp.as_f64().unwrap_or_else(|| panic!("not a timestamp: {timestamp}"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 3600.0..=now).contains(&then), "{then} is not recent: it is {now}");
}

pub(crate) fn requests_over_every_protocol() {
    let server = fixture::shared();
    let idle = r#"{"maxIdleDurationSeconds":900,"suspendedDurationSeconds":300,"autoResumeEnabled":true}"#;
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", idle]);
    for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
        let answer = microvm.request("/headers", &[option, "--header", "traceparent: 00-a"]).expect(200);
        assert_eq!(answer.version, version, "{answer:?}");
        let id = answer.header("x-amzn-requestid").unwrap().to_owned();
        let seen = answer.json();
        assert_eq!(seen["x-amzn-requestid"], id.as_str(), "{seen}");
        assert_eq!(seen["host"], microvm.endpoint.as_str(), "{seen}");
        assert_eq!(seen["traceparent"], "00-a", "{seen}");
        let names: Vec<&String> = seen.as_object().unwrap().keys().collect();
        let leaked = |name: &&&String| name.starts_with("x-aws-proxy") || name.starts_with("x-forwarded");
        assert!(!names.iter().any(|name| leaked(&name)), "{seen}");
    }
    // An application of HTTP/1.1 alone cannot be forced to HTTP/2.
    microvm.request("/", &["--header", "X-aws-proxy-force-h2: true"]).expect(502);
    streams(&server, &microvm);
    exposure::without_a_token_in_a_header(&server, &microvm);
    microvm.terminate();
    exposure::nothing_is_left(&server);
}

/// The first line is there well before the last is sent.
fn streams(server: &Server, microvm: &Microvm<'_>) {
    let token = microvm::token(server, &microvm.id, r#"[{"port":8080}]"#);
    let began = Instant::now();
    let mut curl = Command::new("curl")
        .args([
            "--silent",
            "--no-buffer",
            "--noproxy",
            "*",
            "--header",
            &format!("X-aws-proxy-auth: {token}"),
        ])
        .arg(microvm.url("/stream?count=20"))
        .envs(server.environment())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<(String, Duration)> = BufReader::new(curl.stdout.take().unwrap())
        .lines()
        .map(|line| (line.unwrap(), began.elapsed()))
        .collect();
    assert!(curl.wait().unwrap().success());
    assert_eq!(lines.len(), 20, "{lines:?}");
    assert_eq!(lines[19].0, "line 19");
    assert!(lines[19].1 - lines[0].1 > Duration::from_secs(1), "not streamed: {lines:?}");
}

/// Accounts, keys, buckets and ranges of addresses of their own.
pub(crate) fn two_servers_side_by_side() {
    let first = fixture::shared();
    let mut second = Server::start();
    for variable in ["AWS_ACCOUNT_ID", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"] {
        assert_ne!(first.variable(variable), second.variable(variable), "{variable}");
    }
    let images = second.aws(&["lambda-microvms", "list-microvm-images"]);
    assert_eq!(images["items"], json!([]), "another server's images");
    second.stop();
    first.aws(&["lambda-microvms", "list-microvm-images"]);
}
