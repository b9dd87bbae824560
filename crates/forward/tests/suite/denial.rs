//! To a service that lets some groups be written and others not.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rekindle_forward::{CloudWatch, CloudWatchSettings, Forwarder, Target};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{One, REGION, account, open, print};

const DENIED: &str = "/denied";
const REFUSAL: &str = r#"{"__type":"com.amazonaws.logs#AccessDeniedException","Message":"not authorized"}"#;

/// Hands out the groups that were written to, after whether they may be.
async fn serve() -> (String, mpsc::Receiver<(bool, String)>) {
    let (taken, seen) = mpsc::channel(64);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let taken = taken.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let taken = taken.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    let group = request["logGroupName"].as_str().unwrap().to_owned();
                    let may = group != DENIED;
                    taken.send((may, group)).await.unwrap();
                    let (status, answer) = if may { (200, "{}") } else { (400, REFUSAL) };
                    let answer = Response::builder().status(status).body(Full::new(Bytes::from(answer)));
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), answer).await });
        }
    });
    (url, seen)
}

#[tokio::test]
async fn a_group_that_may_not_be_written_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(dir.path());
    let (url, mut seen) = serve().await;
    let to = logs::Destination { account: account(), group: DENIED.into(), stream: "s".into(), source: 1 };
    logs.output(to).write(vec![b"kept".to_vec()]).unwrap();
    let settings = CloudWatchSettings {
        endpoint: Some(url),
        access_key_id: Some("AKIA".into()),
        secret_access_key: Some("s".into()),
        ..CloudWatchSettings::default()
    };
    let target = Target::CloudWatch(CloudWatch::open(&settings, REGION, |_| None).unwrap());
    let forwarder = Forwarder::start(logs.clone(), Arc::new(One), REGION, target);
    assert_eq!(seen.recv().await.unwrap(), (false, DENIED.into()));
    print(&logs, "s", &["taken"]);
    assert_eq!(seen.recv().await.unwrap(), (true, "/g".into()), "and the other is left alone for a while");
    forwarder.close().await;
    let stream = logs.group(&account(), DENIED).unwrap().stream("s").unwrap();
    assert_eq!(logs::Cursor::open(&stream, "forwarded-cloudwatch").unwrap().next(), 0, "it is not given up");
}
