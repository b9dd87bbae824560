//! TCP through the endpoint, as a client sees it.

use crate::world::{App, Client, World, empty, text};
use futures::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// A CONNECT to `target` with these headers besides the token.
async fn connect(
    world: &World,
    client: &mut Client,
    target: &str,
    headers: &[(&str, &str)],
) -> Response<Incoming> {
    let mut request = Request::connect(target).header("x-aws-proxy-auth", world.token());
    if matches!(client, Client::Http1(_)) {
        request = request.header("host", target);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request.body(empty()).unwrap()).await
}

async fn body(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_connect_carries_bytes_and_a_half_close_over_both_versions_of_http() {
    for h2 in [false, true] {
        let world = World::start(App::Tcp).await;
        let mut client = world.connect(h2).await;
        let response = connect(&world, &mut client, "localhost:8081", &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().contains_key("x-amzn-requestid"));
        assert_eq!(world.port(), 8081);
        let activity = world.activity();
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let before = activity.last_byte();
        io.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        io.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        assert!(activity.last_byte() > before, "bytes are activity");
        assert_eq!(activity.open_requests(), 1);
        // The end of one direction passes on, and the other goes on to its own.
        io.shutdown().await.unwrap();
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ended");
        world.until_idle().await;
    }
}

#[tokio::test]
async fn the_target_is_the_endpoint_or_the_local_host_behind_it() {
    let world = World::start(App::Tcp).await;
    let host = world.host();
    for (target, headers, port) in [
        (format!("{host}:8081"), &[][..], 8081),
        ("127.0.0.1:8082".into(), &[], 8082),
        // The header's port comes first, and some clients send the proxy's name as Host.
        ("localhost:1".into(), &[("x-aws-proxy-port", "8083")], 8083),
    ] {
        let mut client = world.connect(false).await;
        let response = connect(&world, &mut client, &target, headers).await;
        assert_eq!((response.status(), world.port()), (StatusCode::OK, port), "{target}");
    }
    let wakes = world.wakes();
    let other = world.hosts.host(ids::EndpointId::random());
    for (target, status, text) in [
        ("elsewhere.test:8080", StatusCode::FORBIDDEN, "Request missing authentication"),
        ("10.0.0.1:8080", StatusCode::FORBIDDEN, "Request missing authentication"),
        (&format!("{other}:8080"), StatusCode::MISDIRECTED_REQUEST, ""),
        ("localhost:9000", StatusCode::FORBIDDEN, "Access to port denied"),
        ("localhost:0", StatusCode::BAD_REQUEST, "Invalid port"),
    ] {
        for h2 in [false, true] {
            let mut client = world.connect(h2).await;
            let response = connect(&world, &mut client, target, &[]).await;
            assert_eq!(response.status(), status, "{target}");
            assert_eq!(body(response).await, text, "{target}");
        }
    }
    let mut nameless = world.connect_without_name().await;
    let response = connect(&world, &mut nameless, "localhost:8080", &[]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN, "nobody says which MicroVM's local host");
    let request = Request::connect("localhost:8080").header("host", "localhost:8080");
    let response = world.connect(false).await.send(request.body(empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN, "no token");
    let request = Request::connect("localhost:8080").header("x-aws-proxy-auth", world.token());
    let response = world.connect(false).await.send(request.body(text("hidden")).unwrap()).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "a body");
    assert_eq!(world.wakes(), wakes, "nothing of it wakes the MicroVM");
}

#[tokio::test]
async fn a_tunnel_is_there_before_it_is_answered() {
    for (app, code) in [(App::Refuses, "APP_CONNECT_FAILED"), (App::Unreachable, "MICROVM_CONNECT_FAILED")] {
        let world = World::start(app).await;
        for h2 in [false, true] {
            let mut client = world.connect(h2).await;
            let response = connect(&world, &mut client, "localhost:8080", &[]).await;
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
            assert_eq!(response.headers()["x-aws-proxy-error"], code);
        }
        let (response, _) = handshake(&world, true).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(response.headers()["x-aws-proxy-error"], code);
        world.until_idle().await;
    }
}

#[tokio::test]
async fn a_websocket_comes_over_http2() {
    let world = World::start(App::Echo).await;
    let mut client = world.connect(true).await;
    // By its answer the server's settings have come, without which no client opens one.
    client.send(world.request("/").body(empty()).unwrap()).await;
    for (protocol, status) in [("websocket", StatusCode::OK), ("other", StatusCode::NOT_IMPLEMENTED)] {
        let mut request = world.request("/ws").method(Method::CONNECT).body(empty()).unwrap();
        request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", "lambda-microvms, chat".parse().unwrap());
        request.extensions_mut().insert(Protocol::from_static(if protocol == "other" {
            "other"
        } else {
            "websocket"
        }));
        let response = client.send(request).await;
        assert_eq!(response.status(), status, "{protocol}");
        if status != StatusCode::OK {
            continue;
        }
        assert_eq!(response.headers()["x-seen"], "chat");
        assert_eq!(response.headers()["sec-websocket-protocol"], "lambda-microvms");
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        io.write_all(b"frame").await.unwrap();
        let mut back = [0; 5];
        io.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"frame");
    }
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Shakes hands for a TCP connection as a browser does.
async fn handshake(world: &World, with_key: bool) -> (Response<()>, Option<Socket>) {
    let mut client = world.connect(false).await;
    let offer = format!(
        "lambda-microvms, lambda-microvms.tcp, lambda-microvms.port.8090, lambda-microvms.authentication.{}",
        world.token()
    );
    let mut request = Request::get(format!("https://{}/any/path", world.host()))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", offer);
    if with_key {
        request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    let mut response = client.send(request.body(empty()).unwrap()).await;
    let mut socket = None;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        socket = Some(WebSocketStream::from_raw_socket(io, Role::Client, None).await);
    }
    (response.map(drop), socket)
}

/// The code of the close that comes next, which is answered.
async fn closed(mut socket: Socket) -> Option<CloseCode> {
    let code = match socket.next().await.unwrap().unwrap() {
        Message::Close(frame) => frame.map(|frame| frame.code),
        other => panic!("not a close: {other:?}"),
    };
    assert!(socket.next().await.is_none());
    code
}

#[tokio::test]
async fn a_websocket_carries_a_tcp_connection() {
    let world = World::start(App::Tcp).await;
    let (response, socket) = handshake(&world, true).await;
    assert_eq!(response.headers()["sec-websocket-protocol"], "lambda-microvms.tcp");
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(world.port(), 8090);
    let mut socket = socket.unwrap();
    let (activity, before) = (world.activity(), world.activity().last_byte());
    let sent = Message::Binary("hello".into());
    socket.send(sent.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), sent);
    assert!(activity.last_byte() > before && activity.open_requests() == 1);
    // An empty message ends the client's direction; the close comes after all that the application sends.
    socket.send(Message::Binary("".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary("ended".into()));
    assert_eq!(closed(socket).await, Some(CloseCode::Normal));
    world.until_idle().await;
}

#[tokio::test]
async fn a_websocket_for_tcp_ends_with_its_reason() {
    let world = World::start(App::Tcp).await;
    let (response, _) = handshake(&world, false).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "no key");

    let mut socket = handshake(&world, true).await.1.unwrap();
    socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(closed(socket).await, Some(CloseCode::Unsupported));

    let mut socket = handshake(&world, true).await.1.unwrap();
    // The proxy may close before it has all.
    let _ = socket.send(Message::Binary(vec![0; 2 << 20].into())).await;
    assert_eq!(closed(socket).await, Some(CloseCode::Size));

    let mut socket = handshake(&world, true).await.1.unwrap();
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    world.until_idle().await;
}
