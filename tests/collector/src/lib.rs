//! An OTLP/HTTP collector for tests, which answers as it is told to.

#![allow(clippy::unwrap_used, reason = "for tests alone")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Most messages that wait to be looked at.
const WAITING: usize = 64;

/// Answers on this listener with these statuses, then with 200, and hands out what was posted once `check` has seen its head.
#[must_use]
pub fn serve<M: Message + Default + 'static>(
    listener: TcpListener,
    statuses: &[u16],
    check: fn(&Parts),
) -> mpsc::Receiver<M> {
    let (taken, posted) = mpsc::channel(WAITING);
    let statuses = Arc::new(Mutex::new(VecDeque::from(statuses.to_vec())));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (taken, statuses) = (taken.clone(), Arc::clone(&statuses));
            let answer = service_fn(move |request: Request<Incoming>| {
                let (taken, statuses) = (taken.clone(), Arc::clone(&statuses));
                async move {
                    let (head, body) = request.into_parts();
                    assert_eq!(head.headers["content-type"], "application/x-protobuf");
                    check(&head);
                    let body = body.collect().await.unwrap().to_bytes();
                    let status = statuses.lock().unwrap().pop_front().unwrap_or(200);
                    taken.send(M::decode(body).unwrap()).await.unwrap();
                    let answer = Response::builder().status(status).body(Full::new(Bytes::new()));
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), answer).await });
        }
    });
    posted
}
