//! The data plane as a client sees it: a real TLS client over loopback, an application behind duplex pipes.

use std::time::Duration;

use crate::world::{App, World, empty, text};
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rekindle_proxy::WakeError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn forwards_over_both_versions_of_http() {
    let world = World::start(App::Echo).await;
    for h2 in [false, true] {
        let mut client = world.connect(h2).await;
        let request = world
            .request("/path?q=1")
            .header("x-aws-proxy-unknown", "1")
            .header("traceparent", "00-abc")
            .body(text("hello"))
            .unwrap();
        let response = client.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let id = response.headers()["x-amzn-requestid"].to_str().unwrap().to_owned();
        let seen =
            String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let head = seen.to_ascii_lowercase();
        assert!(head.starts_with("post /path?q=1"), "{seen}");
        assert!(head.contains(&format!("host: {}", world.host())), "{seen}");
        assert!(head.contains(&format!("x-amzn-requestid: {id}")), "{seen}");
        assert!(head.contains("traceparent: 00-abc"), "{seen}");
        assert!(!head.contains("x-aws-proxy"), "{seen}");
        assert!(!head.contains("x-forwarded"), "{seen}");
        assert!(head.ends_with("hello"), "{seen}");
    }
}

#[tokio::test]
async fn one_answer_for_missing_and_wrong_tokens_and_unknown_endpoints() {
    let world = World::start(App::Echo).await;
    let mut answers = Vec::new();
    for (host, token) in [
        (world.host(), None),
        (world.host(), Some("nonsense".to_owned())),
        (world.host(), Some(world.token_for(ids::MicrovmId::random()))),
        (world.hosts.host(ids::EndpointId::random()), Some(world.token())),
        ("elsewhere.test".to_owned(), Some(world.token())),
    ] {
        let mut client = world.connect_without_name().await;
        let mut request = Request::get("/").header("host", host);
        if let Some(token) = token {
            request = request.header("x-aws-proxy-auth", token);
        }
        let response = client.send(request.body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()["x-aws-proxy-error"], "UNAUTHORIZED");
        assert_eq!(response.headers()["cache-control"], "private, no-store");
        answers.push(response.into_body().collect().await.unwrap().to_bytes());
    }
    assert!(answers.iter().all(|body| body == "Request missing authentication"));
    assert_eq!(world.wakes(), 0, "nobody without a token wakes a MicroVM");
}

#[tokio::test]
async fn ports_are_checked_before_anything_wakes() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(false).await;
    for (port, status, body) in [
        ("9000", StatusCode::FORBIDDEN, "Access to port denied"),
        ("banana", StatusCode::BAD_REQUEST, "Invalid port"),
    ] {
        let request = world.request("/").header("x-aws-proxy-port", port).body(empty()).unwrap();
        let response = client.send(request).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    }
    assert_eq!(world.wakes(), 0);
}

#[tokio::test]
async fn failures_are_502_with_their_code() {
    for (app, wake, code) in [
        (App::Refuses, None, Some("APP_CONNECT_FAILED")),
        (App::Unreachable, None, Some("MICROVM_CONNECT_FAILED")),
        (App::HangsUp, None, None),
        (App::Echo, Some(WakeError::Gone), Some("MICROVM_CONNECT_FAILED")),
        (App::Echo, Some(WakeError::NoAutoResume), None),
        (App::Echo, Some(WakeError::NoRoom), None),
        (App::Echo, Some(WakeError::Failed), None),
    ] {
        let world = World::start(app).await;
        world.fail_wakes(wake);
        let mut client = world.connect(false).await;
        let response = client.send(world.request("/").body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{app:?} {wake:?}");
        let seen = response.headers().get("x-aws-proxy-error").map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(seen.as_deref(), code, "{app:?} {wake:?}");
        assert!(response.headers().contains_key("x-amzn-requestid"));
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        assert_eq!(world.activity().open_requests(), 0);
    }
}

#[tokio::test]
async fn a_request_is_held_until_its_microvm_is_awake() {
    let world = World::start(App::Echo).await;
    let gate = world.hold_wakes();
    let mut client = world.connect(false).await;
    let request = world.request("/").body(empty()).unwrap();
    let pending = tokio::spawn(async move { client.send(request).await.status() });
    world.woken().await;
    assert!(!pending.is_finished());
    drop(gate);
    assert_eq!(pending.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn bodies_stream_both_ways_and_count_as_activity() {
    for h2 in [false, true] {
        let world = World::start(App::Mirror).await;
        let activity = world.activity();
        let mut client = world.connect(h2).await;
        let (feed, body) = crate::world::channel();
        let response = client.send(world.request("/").body(body).unwrap()).await;
        assert_eq!(activity.open_requests(), 1);
        let mut body = response.into_body();
        for piece in ["one", "two"] {
            let before = activity.last_byte();
            feed.send(piece.into()).unwrap();
            // The piece comes back while the request is still being sent.
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
            assert!(activity.last_byte() > before);
        }
        let silent_since = activity.last_byte();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(activity.last_byte(), silent_since, "a silent stream is no activity");
        assert_eq!(activity.open_requests(), 1);
        drop(feed);
        let rest = body.collect().await.unwrap();
        assert!(rest.to_bytes().is_empty());
        world.until_idle().await;
    }
}

#[tokio::test]
async fn a_life_closed_meanwhile_is_woken_again() {
    let world = World::start(App::Echo).await;
    world.activity().close();
    let mut client = world.connect(false).await;
    let response = client.send(world.request("/").body(empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(world.wakes(), 2);
}

#[tokio::test]
async fn connections_to_the_application_are_kept_for_the_life_only() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(false).await;
    for _ in 0..3 {
        let response = client.send(world.request("/").body(empty()).unwrap()).await;
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(world.connections(), 1);
    world.end_life();
    world.until_disconnected().await;
}

#[tokio::test]
async fn a_connection_is_kept_after_a_request_with_a_body_too() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(false).await;
    for body in ["", "a body", "", "another"] {
        let response = client.send(world.request("/").body(crate::world::text(body)).unwrap()).await;
        let seen = response.into_body().collect().await.unwrap().to_bytes();
        assert!(seen.ends_with(body.as_bytes()), "{seen:?}");
    }
    assert_eq!(world.connections(), 1);
}

/// As when its time for idle connections is over.
#[tokio::test]
async fn no_request_is_lost_to_a_connection_that_the_application_has_closed() {
    let world = World::start(App::Once).await;
    let mut client = world.connect(false).await;
    for connections in 1..=3 {
        let response = client.send(world.request("/").body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "once");
        assert_eq!(world.connections(), connections);
    }
}

#[tokio::test]
async fn one_tls_connection_serves_one_endpoint() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(true).await;
    let other = world.hosts.host(ids::EndpointId::random());
    let request = Request::get(format!("https://{other}/")).version(Version::HTTP_2).body(empty()).unwrap();
    assert_eq!(client.send(request).await.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn a_websocket_takes_its_token_from_the_subprotocols() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(false).await;
    let offer = format!(
        "chat, lambda-microvms, lambda-microvms.authentication.{}, lambda-microvms.port.8080",
        world.token()
    );
    let request = Request::get(format!("https://{}/ws", world.host()))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-protocol", offer)
        .body(empty())
        .unwrap();
    let mut response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-seen"], "chat");
    assert_eq!(response.headers()["sec-websocket-protocol"], "lambda-microvms");
    let activity = world.activity();
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let before = activity.last_byte();
    io.write_all(b"frame").await.unwrap();
    let mut back = [0; 5];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"frame");
    assert!(activity.last_byte() > before);
    assert_eq!(activity.open_requests(), 1);
    drop(io);
    world.until_idle().await;
}

#[tokio::test]
async fn http2_toward_the_application_keeps_the_authority() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(true).await;
    for (name, value) in [("x-aws-proxy-force-h2", "true"), ("content-type", "application/grpc")] {
        let request = world.request("/svc/call").header(name, value).header("te", "trailers");
        let response = client.send(request.body(empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let seen = response.into_body().collect().await.unwrap().to_bytes();
        let seen = std::str::from_utf8(&seen).unwrap();
        assert!(seen.starts_with(&format!("POST http://{}/svc/call HTTP/2.0", world.host())), "{seen}");
        assert!(seen.contains("te: trailers"), "{seen}");
    }
}
