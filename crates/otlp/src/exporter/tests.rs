//! Against a collector on a port of this host.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use timeline::{Kind, Record};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::{Part, Settings, Subject};

/// Takes what is posted, and answers with these statuses, then with 200.
async fn collector(statuses: &[u16]) -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let posted = collector::serve(listener, statuses, |head| {
        assert_eq!(head.uri.path(), "/v1/traces");
        assert_eq!(head.headers["x-key"], "k");
    });
    (address, posted)
}

fn exporter(address: SocketAddr) -> Exporter {
    let headers = [("x-key".to_owned(), "k".to_owned())].into();
    let endpoint = Some(format!("http://{address}/v1/traces"));
    let settings = Settings { endpoint, headers, ..Settings::default() };
    Exporter::start(Target::find(&settings, |_| None).unwrap().unwrap()).unwrap()
}

fn trace(began_micros: u64) -> Trace {
    let subject = Subject {
        microvm: "microvm-00000000-0000-4000-8000-000000000001".parse().unwrap(),
        image: "arn:aws:lambda:us-east-1:123456789012:microvm-image:hello".parse().unwrap(),
        version: "1.0".parse().unwrap(),
    };
    let record = Record { kind: Kind::Wake, began_micros, parent: None, failed: None, steps: vec![] };
    Trace { subject, record, part: Part::Work }
}

/// When the wakes began that are told of, in microseconds.
fn told(request: &ExportTraceServiceRequest) -> Vec<u64> {
    let spans = &request.resource_spans[0].scope_spans[0].spans;
    spans.iter().map(|span| span.start_time_unix_nano / 1000).collect()
}

#[tokio::test]
async fn what_comes_close_together_is_one_request() {
    let (address, mut posted) = collector(&[]).await;
    let exporter = exporter(address);
    exporter.export(trace(1));
    exporter.export(trace(2));
    assert_eq!(told(&posted.recv().await.unwrap()), [1, 2]);
}

#[tokio::test]
async fn what_a_collector_cannot_take_now_is_sent_again() {
    let (address, mut posted) = collector(&[503]).await;
    let exporter = exporter(address);
    exporter.export(trace(1));
    let (first, second) = (posted.recv().await.unwrap(), posted.recv().await.unwrap());
    assert_eq!(first, second);
    assert_eq!(exporter.dropped.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_a_collector_refuses_is_given_up() {
    let (address, mut posted) = collector(&[400]).await;
    let exporter = exporter(address);
    exporter.export(trace(1));
    assert_eq!(told(&posted.recv().await.unwrap()), [1]);
    exporter.export(trace(2));
    assert_eq!(told(&posted.recv().await.unwrap()), [2], "the first is not sent again");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_traces_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let exporter = exporter(address);
    for began in 0..QUEUE as u64 + 7 {
        exporter.export(trace(began));
    }
    // The task has not run yet, so that as many wait as may.
    assert_eq!(exporter.dropped.load(Ordering::Relaxed), 7);
    let began = Instant::now();
    exporter.close().await;
    assert!(began.elapsed() <= CLOSE + Duration::from_millis(500), "closed after {:?}", began.elapsed());
}

#[tokio::test]
async fn what_waits_is_sent_when_the_exporter_is_closed() {
    let (address, mut posted) = collector(&[]).await;
    let exporter = exporter(address);
    for began in 0..BATCH as u64 + 1 {
        exporter.export(trace(began));
    }
    exporter.close().await;
    let (first, second) = (posted.recv().await.unwrap(), posted.recv().await.unwrap());
    assert_eq!((told(&first).len(), told(&second)), (BATCH, vec![BATCH as u64]));
}
