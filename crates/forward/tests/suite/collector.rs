//! To a collector that answers as it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use logs::Logs;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use otlp::{LogSink, Settings};
use rekindle_forward::{Forwarder, Target};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{One, REGION, open, print};

fn serve(listener: TcpListener, statuses: &[u16]) -> mpsc::Receiver<ExportLogsServiceRequest> {
    collector::serve(listener, statuses, |_| {})
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn forwarder(logs: &Logs, address: SocketAddr) -> Forwarder {
    let endpoint = Some(format!("http://{address}/v1/logs"));
    let sink = LogSink::open(&Settings { endpoint, ..Settings::default() }).unwrap().unwrap();
    Forwarder::start(logs.clone(), Arc::new(One), REGION, Target::Otlp(sink))
}

fn texts(request: &ExportLogsServiceRequest) -> Vec<String> {
    let scopes = request.resource_logs.iter().flat_map(|of_resource| &of_resource.scope_logs);
    let bodies = scopes.flat_map(|scope| &scope.log_records).map(|record| record.body.clone().unwrap().value);
    let text = |body| match body {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    bodies.map(text).collect()
}

#[tokio::test]
async fn lines_come_in_order_with_who_printed_them() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let (listener, address) = listen().await;
    let mut posted = serve(listener, &[]);
    print(&logs, "s", &["one", "two"]);
    let forwarder = forwarder(&logs, address);
    let first = posted.recv().await.unwrap();
    assert_eq!(texts(&first), ["one", "two"]);
    let resource = first.resource_logs[0].resource.as_ref().unwrap();
    let names: Vec<&str> = resource.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert!(names.contains(&"faas.instance") && names.contains(&"aws.log.stream.names"), "{names:?}");
    print(&logs, "s", &["three"]);
    assert_eq!(texts(&posted.recv().await.unwrap()), ["three"]);
    forwarder.close().await;
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let (listener, address) = listen().await;
    drop(listener);
    let forwarder = forwarder(&logs, address);
    print(&logs, "s", &["one"]);
    print(&logs, "s", &["two"]);
    let mut posted = serve(TcpListener::bind(address).await.unwrap(), &[503]);
    let (refused, mut taken) = (texts(&posted.recv().await.unwrap()), texts(&posted.recv().await.unwrap()));
    assert!(!refused.is_empty() && taken.starts_with(&refused), "{refused:?} {taken:?}");
    while taken.len() < 2 {
        taken.extend(texts(&posted.recv().await.unwrap()));
    }
    assert_eq!(taken, ["one", "two"]);
    forwarder.close().await;
}

#[tokio::test]
async fn the_next_server_goes_on_where_the_one_before_was() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, address) = listen().await;
    let mut posted = serve(listener, &[]);
    let logs = open(dir.path());
    print(&logs, "s", &["one"]);
    let first = forwarder(&logs, address);
    assert_eq!(texts(&posted.recv().await.unwrap()), ["one"]);
    first.close().await;
    print(&logs, "s", &["two"]);
    // As after a crash: nothing was closed.
    let logs = open(dir.path());
    let second = forwarder(&logs, address);
    assert_eq!(texts(&posted.recv().await.unwrap()), ["two"]);
    second.close().await;
}

#[tokio::test]
async fn what_a_collector_will_never_take_does_not_hold_up_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let (listener, address) = listen().await;
    let mut posted = serve(listener, &[400]);
    print(&logs, "s", &["bad"]);
    let forwarder = forwarder(&logs, address);
    assert_eq!(texts(&posted.recv().await.unwrap()), ["bad"]);
    print(&logs, "s", &["good"]);
    assert_eq!(texts(&posted.recv().await.unwrap()), ["good"]);
    forwarder.close().await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_sent_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let (listener, address) = listen().await;
    let mut posted = serve(listener, &[]);
    let forwarder = forwarder(&logs, address);
    print(&logs, "s", &["one", "two", "three"]);
    assert_eq!(texts(&posted.recv().await.unwrap()), ["one", "two", "three"]);
    logs.delete_group(&crate::account(), "/g").unwrap();
    print(&logs, "s", &["anew"]);
    assert_eq!(texts(&posted.recv().await.unwrap()), ["anew"]);
    forwarder.close().await;
}
