//! Applications that speak TLS (SPEC §5.5).

use crate::world::{App, World, empty, text};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn tls_is_found_by_the_first_request_which_is_lost_in_no_part() {
    for (h2, explains) in [(false, false), (false, true), (true, false), (true, true)] {
        let world = World::start(App::Tls { h2, explains }).await;
        let mut client = world.connect(false).await;
        for _ in 0..2 {
            let response = client.send(world.request("/path").body(text("hello")).unwrap()).await;
            assert_eq!(response.status(), StatusCode::OK, "{h2} {explains}");
            let seen = response.into_body().collect().await.unwrap().to_bytes();
            let seen = std::str::from_utf8(&seen).unwrap();
            let expected = if h2 {
                format!("POST https://{}/path HTTP/2.0", world.host())
            } else {
                "POST /path HTTP/1.1".into()
            };
            assert!(seen.starts_with(&expected) && seen.ends_with("hello"), "{seen}");
        }
        // In the clear, to try, and the one that is kept.
        assert_eq!(world.connections(), 3);
        world.end_life();
        client.send(world.request("/").body(empty()).unwrap()).await;
        assert_eq!(world.connections(), 6, "it is found once per life");
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_again_whole() {
    let world = World::start(App::Tls { h2: false, explains: false }).await;
    let mut client = world.connect(true).await;
    let (feed, body) = crate::world::channel();
    for piece in ["one ", "two ", "three"] {
        feed.send(piece.into()).unwrap();
    }
    let later = tokio::spawn(async move {
        tokio::task::yield_now().await;
        feed.send(" four".into()).unwrap();
    });
    let response = client.send(world.request("/").body(body).unwrap()).await;
    later.await.unwrap();
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    assert!(seen.ends_with(b"one two three four"), "{seen:?}");
}

#[tokio::test]
async fn a_long_body_is_sent_again_whole_or_refused() {
    let world = World::start(App::Tls { h2: true, explains: false }).await;
    let mut client = world.connect(false).await;
    let long = "x".repeat(8 << 20);
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let body = Full::from(long.clone()).boxed();
        let response = client.send(world.request("/").body(body).unwrap()).await;
        statuses.push(response.status());
        let seen = response.into_body().collect().await.unwrap().to_bytes();
        let whole = seen.ends_with(long.as_bytes());
        assert_eq!(whole, statuses.last() == Some(&StatusCode::OK));
        client = world.connect(false).await;
    }
    assert!(matches!(statuses[0], StatusCode::OK | StatusCode::BAD_GATEWAY));
    assert_eq!(statuses[1], StatusCode::OK, "the port is known");
}

#[tokio::test]
async fn websockets_reach_an_application_that_prefers_http2() {
    let world = World::start(App::Tls { h2: true, explains: false }).await;
    let mut client = world.connect(false).await;
    let request = Request::get(format!("https://{}/ws", world.host()))
        .header("x-aws-proxy-auth", world.token())
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    let response = client.send(request.body(empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"frame").await.unwrap();
    let mut back = [0; 5];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"frame");
}

#[tokio::test]
async fn an_application_in_the_clear_is_asked_nothing() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(false).await;
    for _ in 0..2 {
        let response = client.send(world.request("/").body(text("hello")).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(world.connections(), 1);
}
