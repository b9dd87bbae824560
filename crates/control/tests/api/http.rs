//! Signed requests over HTTP semantics, against a service that only tells which function was called.

use std::sync::Arc;

use crate::bed::{OWNER, REGION, SECRET, identity};
use crate::signing::signed;
use ::http::{Request as HttpRequest, Response};
use api::operation::Segment;
use api::*;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use rekindle_control::{Answer, Audit, Call, Control, Front, Rates, Service, Throttle};
use serde_json::{Value, json};
use store::Store;
use time::OffsetDateTime;

const KEY: &str = OWNER;
const IMAGE: &str = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Amicrovm-image%3Amy-app";

struct Telltale;

impl Service for Telltale {
    fn answer(&self, call: Call) -> BoxFuture<'_, Answer> {
        let Call { caller, route, .. } = call;
        let outcome = match route.operation {
            Operation::SuspendMicrovm => Ok(b"{}".to_vec()),
            other => Err(Error::conflict("Test", caller.account.to_string(), other.name())),
        };
        Box::pin(std::future::ready(Answer { resources: vec![], outcome }))
    }
}

async fn control() -> Control {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let (throttle, audit) = (Throttle::new(Rates::unlimited()), Audit::off());
    let front = Front { region: REGION.into(), identity: identity(&store).await, throttle, audit };
    Control::new(Arc::new(Telltale), front)
}

async fn send(request: HttpRequest<String>) -> (u16, String, Value) {
    let control = control().await;
    let response: Response<_> = control.lambda(request.map(|body| Full::new(Bytes::from(body)))).await;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, kind) = (response.status().as_u16(), header("x-amzn-errortype").unwrap_or_default());
    assert!(header("x-amzn-requestid").is_some());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, serde_json::from_slice(&body).unwrap())
}

async fn call(method: &str, path: &str, body: &str) -> (u16, String, Value) {
    send(signed(method, path, body, KEY, SECRET, OffsetDateTime::now_utc())).await
}

#[tokio::test]
async fn every_operation_is_called_by_its_own_name_and_fails_in_its_familys_manners() {
    for model in &OPERATIONS {
        if model.operation == Operation::SuspendMicrovm {
            continue;
        }
        let segments = model.path.iter().map(|segment| match segment {
            Segment::Literal(text) => *text,
            Segment::Label(_) => IMAGE,
        });
        let path = format!("/{}", segments.collect::<Vec<_>>().join("/"));
        let (status, kind, body) = call(model.method, &path, "").await;
        let (expected, members) = match model.family {
            Family::Microvms | Family::Endpoints => {
                ("ConflictException", json!({"resourceType": "Test", "resourceId": "123456789012"}))
            }
            Family::Core | Family::Lambda => ("ResourceConflictException", json!({"Type": "User"})),
        };
        assert_eq!((status, kind.as_str()), (409, expected), "{}: {body}", model.name);
        let mut all = json!({"message": model.name});
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        assert_eq!(body, all);
    }
    let suspended = call("POST", "/2025-09-09/microvms/m/suspend", "").await;
    assert_eq!(suspended, (200, String::new(), json!({})));
}

#[tokio::test]
async fn requests_that_are_not_authentic_are_refused() {
    let path = "/2025-09-09/microvms";
    let now = OffsetDateTime::now_utc();
    let kind = async |request| {
        let (status, kind, _) = send(request).await;
        (status, kind)
    };
    let refused = |kind: &str| (403, kind.to_owned());
    assert_eq!(kind(signed("GET", path, "", KEY, "wrong", now)).await, refused("InvalidSignatureException"));
    assert_eq!(
        kind(signed("GET", path, "", "AKIAOTHER", SECRET, now)).await,
        refused("UnrecognizedClientException")
    );
    let stale = now - time::Duration::minutes(16);
    assert_eq!(kind(signed("GET", path, "", KEY, SECRET, stale)).await, refused("InvalidSignatureException"));
    let mut altered = signed("POST", path, "{}", KEY, SECRET, now);
    *altered.body_mut() = "{ }".into();
    assert_eq!(kind(altered).await, refused("InvalidSignatureException"));
    let bare = HttpRequest::builder().uri(path).body(String::new()).unwrap();
    assert_eq!(kind(bare).await, refused("MissingAuthenticationTokenException"));
}

#[tokio::test]
async fn broken_requests_are_the_clients_fault() {
    let path = "/2025-09-09/microvms";
    let long = "x".repeat(rekindle_control::body::MAX_REQUEST + 1);
    assert_eq!(call("POST", path, &long).await.0, 413);
    let (status, kind, _) = call("POST", "/2025-09-09/nothing", "").await;
    assert_eq!((status, kind.as_str()), (404, "UnknownOperationException"));
    let (status, kind, _) = call("GET", "/2025-09-09/microvms/%f", "").await;
    assert_eq!((status, kind.as_str()), (400, "SerializationException"));
}

#[tokio::test]
async fn a_listener_serves_until_told_to_stop() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = control().await;
    let service = move |peer| control.for_peer(peer);
    let server = tokio::spawn(rekindle_control::server::serve(listener, service, async {
        let _ = stopped.await;
    }));

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET /2025-09-09/microvms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("MissingAuthenticationToken"), "{answer}");

    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
