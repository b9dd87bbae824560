//! What is no HTTP in the clear: TCP through the endpoint, by every way in, and applications that speak TLS. One MicroVM.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rekindle_e2e::{Microvm, Server, command, microvm, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{fixture, sockets};

const ECHO: u16 = 7007;
const HTTPS: u16 = 8443;
const NOBODY: u16 = 7008;
const HELLO: &[u8] = b"hello";
/// What the echo says once the other side has ended.
const ENDED: &[u8] = b"ended";
/// For a program to end.
const END: Duration = Duration::from_secs(20);

pub(crate) fn tcp_and_tls_reach_their_ports() {
    let server = fixture::shared();
    let idle = r#"{"maxIdleDurationSeconds":900,"suspendedDurationSeconds":300,"autoResumeEnabled":true}"#;
    let microvm = Microvm::run(&server, &fixture::probe(&server), &["--idle-policy", idle]);
    microvm.post(&format!("/listen?echo={ECHO}&https={HTTPS}"));
    over_tls(&microvm);
    by_curl(&microvm);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        by_http2(&microvm).await;
        by_websocket(&microvm).await;
    });
    by_port_forward(&server, &microvm);
}

/// The first request finds out what the port speaks, and loses nothing by it.
fn over_tls(microvm: &Microvm<'_>) {
    let port = format!("X-aws-proxy-port: {HTTPS}");
    let posted = microvm.request("/", &["--header", &port, "--data", "kept"]).expect(200);
    assert_eq!(posted.body, "kept");
    assert_eq!(microvm.request("/", &["--header", &port]).expect(200).body, "over TLS");
}

/// HTTP in a CONNECT, and the refusals.
fn by_curl(microvm: &Microvm<'_>) {
    let proxy = format!("https://{}", microvm.endpoint);
    let tunnelled = |port: u16| {
        let auth = microvm.auth();
        let trust = microvm.server().variable("CURL_CA_BUNDLE");
        let proxy = ["--proxytunnel", "--proxy", &proxy, "--proxy-cacert", trust, "--proxy-header", &auth];
        let options = [&proxy[..], &["--noproxy", ""]].concat();
        microvm.server().try_curl(&format!("http://localhost:{port}/counter"), &options)
    };
    let answer = tunnelled(microvm::PORT).unwrap();
    assert!(answer.body.contains(r#""memory": 0"#), "{answer:?}");
    let refused = tunnelled(NOBODY).unwrap_err();
    assert!(refused.contains("502"), "{refused}");
}

async fn by_http2(microvm: &Microvm<'_>) {
    let io = TokioIo::new(sockets::tls(microvm, b"h2").await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::connect(format!("localhost:{ECHO}")).header("x-aws-proxy-auth", microvm.token());
    let response = client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(HELLO).await.unwrap();
    io.shutdown().await.unwrap();
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [HELLO, ENDED].concat());
}

async fn by_websocket(microvm: &Microvm<'_>) {
    let offer = format!(
        "lambda-microvms, lambda-microvms.tcp, lambda-microvms.port.{ECHO}, lambda-microvms.authentication.{}",
        microvm.token()
    );
    let opened = sockets::websocket(microvm, "/", &[("sec-websocket-protocol", offer)]).await;
    let (mut socket, selected) = opened.unwrap();
    assert_eq!(selected.as_deref(), Some("lambda-microvms.tcp"));
    socket.send(Message::Binary(HELLO.into())).await.unwrap();
    socket.send(Message::Binary(Bytes::new())).await.unwrap();
    let mut all = Vec::new();
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => all.extend_from_slice(&bytes),
            Message::Close(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all, [HELLO, ENDED].concat());
}

/// `rekindle port-forward`; killed with its test.
struct Forward {
    program: Child,
    address: SocketAddr,
}

impl Forward {
    fn start(server: &Server, microvm: &Microvm<'_>) -> Self {
        let mut program = Command::new(command::rekindle())
            .args(["port-forward", &microvm.id, &format!("0:{ECHO}"), "--data-dir"])
            .arg(server.data_dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (address, to) = line.trim_end().split_once(" -> ").unwrap();
        assert_eq!(to, format!("{}:{ECHO}", microvm.id));
        Self { program, address: address.parse().unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(microvm::SETTLE)).unwrap();
        stream
    }

    /// Whether it ended well, and what it complained of.
    fn ended(mut self) -> (bool, String) {
        let status = until("rekindle port-forward to end", END, || self.program.try_wait().unwrap());
        let mut said = String::new();
        self.program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.success(), said)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn by_port_forward(server: &Server, microvm: &Microvm<'_>) {
    let forward = Forward::start(server, microvm);
    echoes(forward.connect());
    // A connection does not outlive a life, and the next one begins another.
    let mut open = forward.connect();
    open.write_all(HELLO).unwrap();
    open.read_exact(&mut [0; HELLO.len()]).unwrap();
    microvm.suspend();
    match open.read(&mut [0; 1]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    echoes(forward.connect());
    assert_eq!(microvm.state(), "RUNNING");

    let stopped = Forward::start(server, microvm);
    command::must(Command::new("kill").args(["-TERM", &stopped.program.id().to_string()]));
    assert_eq!(stopped.ended(), (true, String::new()));

    microvm.terminate();
    // That nothing comes back is all that a client sees.
    let _ = forward.connect().read(&mut [0; 1]);
    let (success, said) = forward.ended();
    assert!(!success && said.contains("has ended (Success.); run a new one"), "{said}");
}

fn echoes(mut stream: TcpStream) {
    stream.write_all(HELLO).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, [HELLO, ENDED].concat());
}
