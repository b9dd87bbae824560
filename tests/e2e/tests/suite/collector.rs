//! A collector of OpenTelemetry traces, to which the server that tests share sends its own, and of log records.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// For all signals: traces go to a path below it.
pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

static SPANS: Mutex<Vec<Span>> = Mutex::new(vec![]);
static LOGS: Mutex<Vec<ResourceLogs>> = Mutex::new(vec![]);

/// Where it listens, from now on to the end of this process.
pub(crate) fn url() -> String {
    static URL: LazyLock<String> = LazyLock::new(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || take(&stream));
            }
        });
        url
    });
    URL.clone()
}

/// The spans that have come of a trace, by when they begin and then the longest first.
pub(crate) fn trace(id: &[u8]) -> Vec<Span> {
    let spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut spans: Vec<Span> = spans.iter().filter(|span| span.trace_id == id).cloned().collect();
    spans.sort_by_key(|span| (span.start_time_unix_nano, u64::MAX - span.end_time_unix_nano));
    spans
}

/// The lines that have come of a MicroVM.
pub(crate) fn lines_of(microvm: &str) -> Vec<String> {
    let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_of = |logs: &&ResourceLogs| {
        let attributes = logs.resource.iter().flat_map(|resource| &resource.attributes);
        let mut instances = attributes.filter(|pair| pair.key == "faas.instance");
        instances.any(|pair| text(pair.value.as_ref()) == microvm)
    };
    let scopes = logs.iter().filter(is_of).flat_map(|logs| &logs.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).map(|record| text(record.body.as_ref()).to_owned()).collect()
}

fn text(value: Option<&AnyValue>) -> &str {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("no text: {other:?}"),
    }
}

/// One request after another, until the server hangs up.
fn take(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = vec![];
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
        let Some(length) = length else { return Ok(()) };
        let mut body = vec![0; length.parse().map_err(io::Error::other)?];
        reader.read_exact(&mut body)?;
        let status = match head[0].split(' ').nth(1) {
            Some("/v1/traces") => keep_traces(&body),
            Some("/v1/logs") => keep_logs(&body),
            _ => "404 Not Found",
        };
        write!(&mut &*stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
    }
}

fn keep_traces(body: &[u8]) -> &'static str {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return "400 Bad Request" };
    let scopes = request.resource_spans.into_iter().flat_map(|of_resource| of_resource.scope_spans);
    SPANS.lock().unwrap_or_else(PoisonError::into_inner).extend(scopes.flat_map(|scope| scope.spans));
    "200 OK"
}

fn keep_logs(body: &[u8]) -> &'static str {
    let Ok(request) = ExportLogsServiceRequest::decode(body) else { return "400 Bad Request" };
    LOGS.lock().unwrap_or_else(PoisonError::into_inner).extend(request.resource_logs);
    "200 OK"
}
