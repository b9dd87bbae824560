//! Where the time of a launch, a wake and a suspension goes: as traces, and by `rekindle trace`.

use std::process::Command;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rekindle_e2e::{Image, Json, Microvm, Server, command, json, until};

use crate::{collector, fixture};

/// For a trace to come: it waits for others first.
const EXPORTED: Duration = Duration::from_secs(20);
/// Told of by itself, because it may come much later than the rest.
const FIRST_ANSWER: &str = "first byte";

/// The trace of a client, and its span that makes a request.
struct Client {
    trace: [u8; 16],
    span: [u8; 8],
}

impl Client {
    fn header(&self) -> String {
        let [trace, span] = [&self.trace[..], &self.span]
            .map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        format!("traceparent: 00-{trace}-{span}-01")
    }
}

const LAUNCHING: Client = Client { trace: *b"a client's run-m", span: *b"its span" };
const WAKING: Client = Client { trace: *b"another client's", span: *b"own span" };

pub(crate) fn a_launch_and_a_wake_continue_their_clients_traces() {
    let server = fixture::shared();
    let microvm = launched(&server, &fixture::probe(&server), &LAUNCHING);
    microvm.json("/headers");
    microvm.suspend();
    let seen = microvm.request("/headers", &["--header", &WAKING.header()]).expect(200).json();
    assert_eq!(format!("traceparent: {}", seen["traceparent"].as_str().unwrap()), WAKING.header());

    for (client, kind, first_step) in [(LAUNCHING, "launch", "API"), (WAKING, "wake", "store")] {
        let spans = until(&format!("the trace of the {kind}"), EXPORTED, || {
            let spans = collector::trace(&client.trace);
            spans.iter().any(|span| span.name == FIRST_ANSWER).then_some(spans)
        });
        let root = spans.iter().find(|span| span.name == kind).unwrap();
        assert_eq!(root.parent_span_id, client.span);
        assert_eq!(root.status.clone().unwrap().code(), StatusCode::Ok, "{root:?}");
        assert_eq!(attribute(root, "faas.instance"), microvm.id);
        let steps: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == root.span_id).collect();
        assert_eq!(steps.len() + 1, spans.len(), "{spans:#?}");
        assert_eq!(steps[0].name, first_step);
        add_up(root, &steps);
    }
    microvm.terminate();
}

/// The steps follow each other without a gap, from the beginning of the whole to its end; then came the first answer.
fn add_up(root: &Span, steps: &[&Span]) {
    let (first_answer, steps) = steps.split_last().unwrap();
    assert_eq!(first_answer.name, FIRST_ANSWER);
    let mut at = root.start_time_unix_nano;
    for step in steps {
        assert_eq!(step.start_time_unix_nano, at, "{step:?}");
        at = step.end_time_unix_nano;
    }
    assert_eq!(at, root.end_time_unix_nano);
    assert!(first_answer.start_time_unix_nano >= at && first_answer.end_time_unix_nano > at);
}

pub(crate) fn rekindle_trace_shows_where_the_time_went() {
    let server = fixture::shared();
    let policy = idle_policy().to_string();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", &policy]);
    microvm.json("/headers");
    microvm.suspend();
    microvm.json("/headers");
    // It is kept once it is over, which its client does not wait for.
    let shown = until("the wake's first answer to be shown", EXPORTED, || {
        let shown = shown(&server, &microvm.id);
        (shown.matches(FIRST_ANSWER).count() == 2).then_some(shown)
    });
    let timelines: Vec<&str> = shown.split("\n\n").collect();
    assert_eq!(timelines.len(), 3, "{shown}");
    for (timeline, (kind, last)) in
        timelines.iter().zip([("launch", FIRST_ANSWER), ("suspend", "shown"), ("wake", FIRST_ANSWER)])
    {
        let mut lines = timeline.lines();
        let total = lines.next().unwrap().strip_prefix(&format!("{kind} ")).expect(timeline);
        let total = millis(total.split_once(", ").unwrap().1.trim_end_matches(" ms"));
        let steps: Vec<(String, f64)> = lines.map(step).collect();
        assert_eq!(steps.last().unwrap().0, last, "{timeline}");
        let sum: f64 = steps.iter().map(|(_, took)| took).sum();
        // Each is cut to hundredths.
        assert!((0.0..0.01 * (steps.len() + 1) as f64).contains(&(total - sum + 0.001)), "{sum}: {timeline}");
    }
    microvm.terminate();
    let mut trace = Command::new(command::rekindle());
    let gone = command::run(trace.args(["trace", &microvm.id, "--data-dir"]).arg(server.data_dir()));
    assert!(!gone.status.success() && command::text(&gone.stderr).contains(&microvm.id), "{gone:?}");
}

/// What `rekindle trace` shows of a MicroVM.
pub(crate) fn shown(server: &Server, id: &str) -> String {
    let mut trace = Command::new(command::rekindle());
    command::must(trace.args(["trace", id, "--data-dir"]).arg(server.data_dir()))
}

/// Name and milliseconds of a line; the bar beside them is for the eye.
fn step(line: &str) -> (String, f64) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = words.iter().position(|word| word.contains('.')).expect(line);
    assert!(words[number + 1].starts_with('█'), "{line}");
    (words[..number].join(" "), millis(words[number]))
}

fn millis(text: &str) -> f64 {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// To be woken by requests.
fn idle_policy() -> Json {
    json!({ "maxIdleDurationSeconds": 900, "suspendedDurationSeconds": 600, "autoResumeEnabled": true })
}

/// A MicroVM that runs, by a call that belongs to its client's trace.
fn launched<'a>(server: &'a Server, image: &Image, client: &Client) -> Microvm<'a> {
    let request = json!({ "imageIdentifier": image.arn, "idlePolicy": idle_policy() }).to_string();
    let options = ["--header", &client.header(), "--data", &request];
    let answer = server.api("/2025-09-09/microvms", &options).unwrap().expect(200).json();
    let microvm = Microvm::of(server, answer["microvmId"].as_str().unwrap());
    microvm.wait("RUNNING");
    microvm
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key == name).unwrap();
    match found.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        other => panic!("{name}: {other:?}"),
    }
}
