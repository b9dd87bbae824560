//! The shell as its clients see it: a real WebSocket client, a shell that a test can see through.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use rekindle_proxy::limits::{
    MAX_SHELL_MESSAGE, MAX_SHELLS, PING_INTERVAL, SHELL_SILENCE, SHELL_START_TIMEOUT,
};
use rekindle_proxy::{Farewell, WakeError};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::world::{App, World, empty};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn handshake(
    world: &World,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<(Socket, Response), Error> {
    let mut request = format!("wss://{}{path}", world.host()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    tokio_tungstenite::client_async(request, world.connection().await).await
}

async fn connect(world: &World) -> Socket {
    handshake(world, "/shell", &[("x-aws-proxy-auth", world.shell_token(60))]).await.unwrap().0
}

/// A shell whose first message has come.
async fn shell(world: &World) -> Socket {
    let mut socket = connect(world).await;
    let init = text(&mut socket).await;
    let id = init
        .strip_prefix(r#"{"type":"session_init","session_id":""#)
        .and_then(|rest| rest.strip_suffix(r#""}"#));
    assert!(id.is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{init}");
    socket
}

async fn text(socket: &mut Socket) -> String {
    match next(socket).await {
        Message::Text(text) => text.to_string(),
        other => panic!("not a text: {other:?}"),
    }
}

async fn shown(socket: &mut Socket) -> Vec<u8> {
    match next(socket).await {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("not output: {other:?}"),
    }
}

/// What is typed into a shell that runs is shown.
async fn shows(socket: &mut Socket, keys: &'static str) {
    socket.send(Message::text(keys)).await.unwrap();
    assert_eq!(shown(socket).await, keys.as_bytes());
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    let Message::Close(Some(CloseFrame { code, reason })) = next(socket).await else { panic!("not a close") };
    // The client's own close goes out with the next look.
    while let Some(Ok(_)) = socket.next().await {}
    (code.into(), reason.to_string())
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap().unwrap().unwrap()
}

/// Has so much time passed.
async fn pass(time: Duration) {
    tokio::time::pause();
    // Timers go by milliseconds, and are never early.
    tokio::time::advance(time + Duration::from_millis(1)).await;
    tokio::time::resume();
}

fn refused(result: Result<(Socket, Response), Error>) -> (StatusCode, Vec<u8>) {
    match result {
        Err(Error::Http(response)) => (response.status(), response.body().clone().unwrap_or_default()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn a_token_in_either_place_opens_the_shell_on_any_path_and_port() {
    let world = World::start(App::Echo).await;
    let token = world.shell_token(60);
    let header = |rest: &[(&'static str, String)]| [&[("x-aws-proxy-auth", token.clone())], rest].concat();
    let protocols = |text: String| vec![("sec-websocket-protocol", text)];
    for (path, headers, selected) in [
        ("/shell", header(&[]), None),
        ("/", header(&[("x-aws-proxy-port", "8022".into())]), None),
        ("/x?y", header(&[("x-aws-proxy-port", "banana".into())]), None),
        ("/shell", header(&protocols("lambda-microvms".into())), Some("lambda-microvms")),
        (
            "/shell",
            protocols(format!(
                "lambda-microvms.authentication.{token}, lambda-microvms, lambda-microvms.port.8022"
            )),
            Some("lambda-microvms"),
        ),
        (
            "/",
            protocols(format!("lambda-microvms, lambda-microvms.authentication.{token}")),
            Some("lambda-microvms"),
        ),
    ] {
        let (mut socket, response) = handshake(&world, path, &headers).await.unwrap();
        let answered =
            response.headers().get("sec-websocket-protocol").map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(answered.as_deref(), selected, "{path} {headers:?}");
        assert!(text(&mut socket).await.contains("session_init"));
    }
    assert_eq!(world.connections(), 0, "the application hears nothing of it");
}

#[tokio::test]
async fn whatever_else_a_shells_token_is_shown_to_is_an_empty_502() {
    let world = World::start(App::Echo).await;
    let token = world.shell_token(60);
    for h2 in [false, true] {
        for method in ["GET", "POST"] {
            let mut client = world.connect(h2).await;
            let request = Request::builder()
                .method(method)
                .uri(format!("https://{}/shell", world.host()))
                .header("x-aws-proxy-auth", &token)
                .body(empty())
                .unwrap();
            let response = client.send(request).await;
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{method} {h2}");
            assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        }
    }
    assert_eq!(world.wakes(), 0);
}

#[tokio::test]
async fn wrong_tokens_open_no_shell_and_wake_nobody() {
    let world = World::start(App::Echo).await;
    let token = |token: String| [("x-aws-proxy-auth", token)];
    for wrong in [token("nonsense".into()), token(world.shell_token(0))] {
        let (status, body) = refused(handshake(&world, "/shell", &wrong).await);
        assert_eq!(
            (status, body.as_slice()),
            (StatusCode::FORBIDDEN, &b"Request missing authentication"[..])
        );
    }
    assert_eq!(world.wakes(), 0);
    // An application's token leads to the application, whatever path it names, and to the ports that it covers.
    let elsewhere = [("x-aws-proxy-auth", world.token()), ("x-aws-proxy-port", "9000".into())];
    let (status, body) = refused(handshake(&world, "/shell", &elsewhere).await);
    assert_eq!((status, body.as_slice()), (StatusCode::FORBIDDEN, &b"Access to port denied"[..]));
    let answer = handshake(&world, "/shell", &token(world.token())).await;
    assert!(answer.is_ok(), "the application accepts the handshake");
    assert_eq!(world.connections(), 1);
}

#[tokio::test]
async fn keys_and_sizes_go_in_and_bytes_come_out() {
    let world = World::start(App::Echo).await;
    let activity = world.activity();
    let mut socket = shell(&world).await;
    for (sent, seen) in [
        (Message::text("whoami\n"), &b"whoami\n"[..]),
        (Message::binary(vec![3, 255, 0]), &[3, 255, 0]),
        (Message::text(r#"{"type":"resize","cols":120,"rows":40}"#), b"120x40"),
        (Message::text(r#"{"type":"other"}"#), br#"{"type":"other"}"#),
    ] {
        let before = activity.last_byte();
        socket.send(sent).await.unwrap();
        assert_eq!(shown(&mut socket).await, seen);
        assert!(activity.last_byte() > before);
    }
    assert_eq!(activity.open_requests(), 1);
}

#[tokio::test]
async fn a_ping_is_answered_and_is_no_activity() {
    let world = World::start(App::Echo).await;
    let mut socket = shell(&world).await;
    let before = world.activity().last_byte();
    socket.send(Message::Ping("there?".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("there?".into()));
    assert_eq!(world.activity().last_byte(), before, "an open but silent shell lets its MicroVM sleep");
}

#[tokio::test]
async fn each_end_of_a_shell_is_told() {
    let world = World::start(App::Echo).await;
    for (keys, told) in
        [("exit", (1000, "shell exited")), ("break", (1001, "connection to the microvm lost"))]
    {
        let mut socket = shell(&world).await;
        socket.send(Message::text(keys)).await.unwrap();
        assert_eq!(closed(&mut socket).await, (told.0, told.1.to_owned()));
    }
    let mut socket = shell(&world).await;
    socket.send(Message::binary(vec![0; MAX_SHELL_MESSAGE + 1])).await.unwrap();
    assert_eq!(closed(&mut socket).await.0, 1009);
    drop(socket);
    world.until_idle().await;
}

#[tokio::test]
async fn a_suspension_or_an_end_of_the_microvm_is_told_to_all() {
    for (why, reason) in
        [(Farewell::Suspended, "microvm suspended"), (Farewell::Terminated, "microvm terminated")]
    {
        let world = World::start(App::Echo).await;
        let mut sockets = [shell(&world).await, shell(&world).await];
        world.end_shells(why);
        for socket in &mut sockets {
            assert_eq!(closed(socket).await, (1001, reason.to_owned()));
        }
        world.until_idle().await;
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let world = World::start(App::Echo).await;
    let mut socket = shell(&world).await;
    world.stop();
    let (code, reason) = closed(&mut socket).await;
    assert_eq!(code, 1001);
    assert!(reason.contains("stopping"), "{reason}");
}

#[tokio::test]
async fn a_shell_that_cannot_start_says_why() {
    let world = World::start(App::Refuses).await;
    let mut socket = connect(&world).await;
    assert_eq!(closed(&mut socket).await, (1011, "the image has neither bash nor sh".to_owned()));
}

#[tokio::test]
async fn a_shell_that_does_not_start_in_time_says_so() {
    let world = World::start(App::Unreachable).await;
    let mut socket = connect(&world).await;
    while world.shells() == 0 {
        tokio::task::yield_now().await;
    }
    pass(SHELL_START_TIMEOUT).await;
    assert_eq!(closed(&mut socket).await, (1011, "no shell started within 30 s".to_owned()));
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_loses_its_shell() {
    let world = World::start(App::Echo).await;
    let mut socket = shell(&world).await;
    shows(&mut socket, "ls").await;
    pass(SHELL_SILENCE).await;
    world.until_idle().await;
}

#[tokio::test]
async fn a_client_that_only_answers_pings_keeps_its_shell() {
    let world = World::start(App::Echo).await;
    let mut socket = shell(&world).await;
    shows(&mut socket, "ls").await;
    let before = world.activity().last_byte();
    let rounds = 2 * SHELL_SILENCE.as_secs() / PING_INTERVAL.as_secs();
    for _ in 0..rounds {
        pass(PING_INTERVAL).await;
        assert!(matches!(next(&mut socket).await, Message::Ping(_)));
        // With it goes the answer.
        socket.flush().await.unwrap();
    }
    assert_eq!(world.activity().last_byte(), before);
    shows(&mut socket, "pwd").await;
}

#[tokio::test]
async fn a_sleeper_is_woken_and_what_cannot_wake_is_refused() {
    let world = World::start(App::Echo).await;
    world.activity().close();
    let mut socket = connect(&world).await;
    assert!(text(&mut socket).await.contains("session_init"));
    assert_eq!(world.wakes(), 2);
    world.fail_wakes(Some(WakeError::NoAutoResume));
    let header = [("x-aws-proxy-auth", world.shell_token(60))];
    assert_eq!(refused(handshake(&world, "/shell", &header).await), (StatusCode::BAD_GATEWAY, Vec::new()));
}

#[tokio::test]
async fn so_many_shells_at_once_and_no_more() {
    let world = World::start(App::Echo).await;
    let mut sockets = Vec::new();
    for _ in 0..MAX_SHELLS {
        sockets.push(shell(&world).await);
    }
    let header = [("x-aws-proxy-auth", world.shell_token(60))];
    assert_eq!(refused(handshake(&world, "/shell", &header).await).0, StatusCode::TOO_MANY_REQUESTS);
    let mut first = sockets.swap_remove(0);
    first.send(Message::text("exit")).await.unwrap();
    assert_eq!(closed(&mut first).await.0, 1000);
    // Its place is given back once its client has closed too.
    drop(first);
    world.until_open(MAX_SHELLS - 1).await;
    shell(&world).await;
}
