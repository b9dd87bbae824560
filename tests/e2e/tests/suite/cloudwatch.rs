//! What builds and applications print, as `aws logs` shows it: called from the session that builds an image and runs it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rekindle_e2e::{Image, Json, Microvm, Server, command, json, until};

/// For a line to come through a live tail, whose client takes a while to start.
const TAILED: Duration = Duration::from_secs(30);
/// For a line of output to reach the log.
const LOGGED: Duration = Duration::from_secs(10);
/// How soon a line must be there.
const SOON_MS: u64 = 1000;

/// The default group of an image.
pub(crate) fn group(name: &str) -> String {
    format!("/aws/lambda-microvms/{name}")
}

/// A build has three streams, each `YYYY/MM/DD[<version>]microvm-<uuid>`.
pub(crate) fn of_build(server: &Server, image: &str, version: &str) {
    let listed = server.aws(&["logs", "describe-log-streams", "--log-group-name", &group(image)]);
    let named = |stream: &&Json| is_stream_of(stream["logStreamName"].as_str().unwrap(), version);
    let streams: Vec<&Json> = listed["logStreams"].as_array().unwrap().iter().filter(named).collect();
    // The test VM calls /validate, which the application tells of.
    assert_eq!(streams.len(), 3, "{listed}");
    let find = ["logs", "filter-log-events", "--log-group-name", &group(image), "--filter-pattern"];
    let steps = server.aws(&[&find[..], &["\"COPY app.py\""]].concat());
    let stream = steps["events"][0]["logStreamName"].as_str().unwrap_or_else(|| panic!("{steps}"));
    assert!(streams.iter().any(|one| one["logStreamName"] == stream) || version != "1.0", "{steps}");
}

fn is_stream_of(name: &str, version: &str) -> bool {
    let Some((day, id)) = name.split_once(&format!("[{version}]")) else { return false };
    let digits: Vec<usize> = day.split('/').map(str::len).collect();
    digits == [4, 2, 2] && day.chars().all(|c| c == '/' || c.is_ascii_digit()) && id.starts_with("microvm-")
}

/// What a running application prints is there within a second, whole and in order, and comes through a live tail.
pub(crate) fn of_microvm(server: &Server, image: &str, microvm: &Microvm<'_>) {
    microvm.request("/first-of-two", &[]);
    microvm.request("/second-of-two", &[]);
    // By now both are printed; how long a busy machine takes to ask is not what is looked at.
    let answered = now_ms();
    let find = ["logs", "filter-log-events", "--log-group-name", &group(image), "--filter-pattern"];
    let events = until("the application's requests to be logged", LOGGED, || {
        let found = server.aws(&[&find[..], &["two"]].concat());
        let events = found["events"].as_array().unwrap().clone();
        (events.len() == 2).then_some(events)
    });
    for (event, path) in events.iter().zip(["/first-of-two", "/second-of-two"]) {
        assert!(event["message"].as_str().unwrap().contains(path), "{event}");
        assert!(
            event["ingestionTime"].as_u64().unwrap() < answered + SOON_MS,
            "later than {answered} and a second: {event}"
        );
    }
    let stream = events[0]["logStreamName"].as_str().unwrap();
    assert!(is_stream_of(stream, "2.0") && stream.ends_with(&microvm.id), "{stream}");
    let get = ["logs", "get-log-events", "--log-group-name", &group(image), "--log-stream-name", stream];
    let read = server.aws(&[&get[..], &["--start-from-head"]].concat());
    let messages: Vec<&str> =
        read["events"].as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(
        server.logs(&microvm.id).lines().collect::<Vec<_>>(),
        messages,
        "`rekindle logs` reads the same"
    );
    tail(server, image, microvm);
}

/// `aws logs start-live-tail`, the follower of the CLI from PyPI.
fn tail(server: &Server, image: &str, microvm: &Microvm<'_>) {
    let (region, account) = (server.variable("AWS_REGION"), server.variable("AWS_ACCOUNT_ID"));
    let arn = format!("arn:aws:logs:{region}:{account}:log-group:{}", group(image));
    let arguments = ["logs", "start-live-tail", "--log-group-identifiers", &arn];
    let mut client = command::aws(&server.client_environment(), &arguments);
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    let (lines, seen) = mpsc::channel();
    let output = BufReader::new(client.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    until("a request to come through the live tail", TAILED, || {
        microvm.request("/tailed", &[]);
        seen.recv_timeout(Duration::from_millis(500)).ok().filter(|line| line.contains("/tailed"))
    });
    client.kill().unwrap();
    client.wait().unwrap();
}

/// A configured group and stream are used exactly, and nothing is kept where logging is disabled.
pub(crate) fn configured(server: &Server, image: &Image) {
    let own = json!({ "cloudWatch": { "logGroup": "/aws/lambda-microvms/own", "logStream": "exactly [this] one" } });
    let run = |logging: &Json| Microvm::run(server, image, &["--logging", &logging.to_string()]);
    let microvms = [run(&own), run(&json!({ "disabled": {} }))];
    microvms.iter().for_each(|microvm| drop(microvm.request("/configured", &[])));
    let of_own = ["logs", "get-log-events", "--log-group-name", "/aws/lambda-microvms/own"];
    let get = [&of_own[..], &["--log-stream-name", "exactly [this] one"]].concat();
    until("the configured stream to have the request", LOGGED, || {
        let read = server.try_aws(&get).ok()?;
        read.to_string().contains("/configured").then_some(())
    });
    for microvm in &microvms {
        microvm.terminate();
    }
    let list = ["logs", "describe-log-streams", "--log-group-name", &group("session")];
    let streams = server.aws(&list).to_string();
    assert!(microvms.iter().all(|microvm| !streams.contains(&microvm.id)), "{streams}");
}

/// The group outlives the image, until it is deleted.
pub(crate) fn outlives(server: &Server, image: &str) {
    let name = group(image);
    let of_group = |operation| ["logs", operation, "--log-group-name", &name];
    server.aws(&[&of_group("put-retention-policy")[..], &["--retention-in-days", "7"]].concat());
    let described = server.aws(&["logs", "describe-log-groups", "--log-group-name-prefix", &name]);
    assert_eq!(described["logGroups"][0]["retentionInDays"], 7, "{described}");
    assert!(described["logGroups"][0]["storedBytes"].as_u64().unwrap() > 0, "{described}");
    server.aws(&of_group("delete-log-group"));
    let gone = server.aws_error(&of_group("filter-log-events"));
    assert!(gone.contains("ResourceNotFoundException"), "{gone}");
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
