//! Requests that are made to harm: each is refused or cut, the application sees nothing of it, and others are served.

use std::time::Duration;

use crate::world::{App, World, empty};
use http::StatusCode;
use rekindle_proxy::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// For an answer that does not come to be missed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is answered to these bytes, up to the end of the connection.
async fn answer(world: &World, bytes: &[u8]) -> String {
    let mut stream = world.tls(&world.host(), false, true).await;
    // The proxy may have closed before it has all.
    let _ = stream.write_all(bytes).await;
    let mut seen = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut seen)).await.expect("the connection is cut");
    String::from_utf8_lossy(&seen).into_owned()
}

/// Another client is served as if nothing were.
async fn others_are_served(world: &World) {
    let before = world.requests();
    let mut client = world.connect(true).await;
    let response = timeout(PATIENCE, client.send(world.request("/").body(empty()).unwrap())).await.unwrap();
    assert_eq!((response.status(), world.requests()), (StatusCode::OK, before + 1));
}

#[tokio::test]
async fn requests_whose_end_is_doubtful_are_refused_and_their_connection_closed() {
    let world = World::start(App::Echo).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for framing in [
        // TE.TE
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: x\r\n chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        // Lengths
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 18446744073709551616",
        "Content-Length:",
        "Content Length: 5",
        // Names and values
        "X Y: z",
        "X\0: z",
        "X: a\0b",
        "X: a\rb",
        "X\x0b: z",
        ": z",
    ] {
        let head =
            format!("POST / HTTP/1.1\r\nHost: {}\r\nX-aws-proxy-auth: {}", world.host(), world.token());
        let seen = answer(&world, format!("{head}\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        assert!(seen.starts_with("HTTP/1.1 400 "), "{framing:?}: {seen}");
        assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{framing:?}: {seen}");
    }
    assert_eq!((world.requests(), world.wakes()), (0, 0));
    others_are_served(&world).await;
}

/// RFC 9112 §6.3: the length is nothing beside an encoding, and nothing may follow.
#[tokio::test]
async fn a_length_beside_chunks_is_dropped_and_nothing_follows() {
    let world = World::start(App::Echo).await;
    for framing in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding:\tchunked\r\nContent-Length: 6",
    ] {
        let before = world.requests();
        let head =
            format!("POST / HTTP/1.1\r\nHost: {}\r\nX-aws-proxy-auth: {}", world.host(), world.token());
        let seen = answer(&world, format!("{head}\r\n{framing}\r\n\r\n0\r\n\r\nG").as_bytes()).await;
        let (answer, echoed) = seen.split_once("\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{seen}");
        // The application's view of it, in which nothing else begins.
        assert!(!echoed.contains("content-length: 6") && !echoed.ends_with('G'), "{seen}");
        assert_eq!(seen.matches("HTTP/1.1 ").count(), 1, "{seen}");
        assert_eq!(world.requests(), before + 1);
    }
}

#[tokio::test]
async fn chunks_of_doubtful_length_are_not_passed_on() {
    let world = World::start(App::Echo).await;
    for chunks in [
        "x\r\n\r\n",
        "-1\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "fffffffffffffffff\r\na",
        "1\r\nab\r\n0\r\n\r\n",
    ] {
        let head =
            format!("POST / HTTP/1.1\r\nHost: {}\r\nX-aws-proxy-auth: {}", world.host(), world.token());
        let seen =
            answer(&world, format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes()).await;
        assert!(!seen.contains(" 200 "), "{chunks:?}: {seen}");
    }
    others_are_served(&world).await;
}

#[tokio::test]
async fn heads_beyond_their_limits_are_refused() {
    let world = World::start(App::Echo).await;
    let head = |more: &str| format!("GET / HTTP/1.1\r\nHost: {}\r\n{more}\r\n", world.host());
    let long = head(&format!("X: {}\r\n", "a".repeat(limits::MAX_HEADER_BYTES)));
    let many = head(&"X: y\r\n".repeat(limits::MAX_HEADERS));
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(limits::MAX_HEADER_BYTES));
    for bytes in [long, many, target] {
        let seen = answer(&world, bytes.as_bytes()).await;
        assert!(seen.starts_with("HTTP/1.1 431") || seen.starts_with("HTTP/1.1 414"), "{seen}");
    }
    assert_eq!(world.requests(), 0);
    others_are_served(&world).await;
}

#[tokio::test]
async fn a_head_that_trickles_is_cut() {
    let world = World::start(App::Echo).await;
    let mut slow = world.tls(&world.host(), false, true).await;
    slow.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
    others_are_served(&world).await;
    // From here on time passes as soon as nothing else is to be done.
    tokio::time::pause();
    let began = Instant::now();
    while began.elapsed() < 2 * limits::HEADER_TIMEOUT {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if slow.write_all(b"a").await.is_err() || slow.flush().await.is_err() {
            break;
        }
        if let Ok(read) = timeout(Duration::from_millis(1), slow.read(&mut [0; 64])).await {
            assert!(matches!(read, Ok(0) | Err(_)));
            break;
        }
    }
    assert!(began.elapsed() <= limits::HEADER_TIMEOUT + Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(world.requests(), 1);
}

/// Frames of HTTP/2 by hand, because libraries do not send what is wrong.
mod h2 {
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    /// `:status: 400` and `431` begin a head so (RFC 7541, appendix A).
    pub(super) const BAD_REQUEST: u8 = 0x8c;

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// The client's beginning: the preface, and settings that change nothing.
    pub(super) fn preface() -> Vec<u8> {
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
    }

    /// Literal fields, never indexed nor compressed.
    pub(super) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                integer(&mut block, text.len());
                block.extend(*text);
            }
        }
        block
    }

    fn integer(block: &mut Vec<u8>, mut number: usize) {
        if number < 127 {
            return block.push(u8::try_from(number).unwrap());
        }
        block.push(127);
        number -= 127;
        while number >= 128 {
            block.push(u8::try_from(number % 128).unwrap() | 128);
            number /= 128;
        }
        block.push(u8::try_from(number).unwrap());
    }
}

/// The kind of the frame that ends stream 1 or the connection, and the beginning of its payload.
async fn verdict(stream: &mut (impl AsyncReadExt + Unpin)) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("a verdict");
        if read.is_err() {
            return (h2::GOAWAY, Vec::new());
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return (h2::GOAWAY, Vec::new());
        }
        if matches!(head[3], h2::HEADERS | h2::RST_STREAM | h2::GOAWAY) {
            return (head[3], payload);
        }
    }
}

#[tokio::test]
async fn nothing_of_http2_becomes_another_request_of_http1() {
    let world = World::start(App::Echo).await;
    let (host, token) = (world.host(), world.token());
    let good: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", host.as_bytes()),
        (b":path", b"/"),
        (b"x-aws-proxy-auth", token.as_bytes()),
    ];
    let bad: [(&[u8], &[u8]); 17] = [
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"connection", b"x-aws-proxy-auth"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"content-length", b"5"),
        (b"x", b"a\r\ntransfer-encoding: chunked"),
        (b"x", b"a\nb: c"),
        (b"x", b"a\0b"),
        (b"x y", b"z"),
        (b"x:", b"y"),
        (b"x\r\ny", b"z"),
        (b"X", b"y"),
        (b"", b"y"),
        (b":path", b"/again"),
    ];
    for field in bad {
        let mut stream = world.tls(&host, true, true).await;
        let block = h2::block(&[&good[..], &[field]].concat());
        let request = h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, 1, &block);
        stream.write_all(&[h2::preface(), request].concat()).await.unwrap();
        let (kind, payload) = verdict(&mut stream).await;
        let refused = kind != h2::HEADERS || payload.first() == Some(&h2::BAD_REQUEST);
        assert!(refused, "{:?}: {payload:?}", field.escape_ascii());
    }
    for path in [&b"/ HTTP/1.1\r\nX: y"[..], b"/\r\n", b"/ x", b""] {
        let mut stream = world.tls(&host, true, true).await;
        let mut fields = good.clone();
        fields[3].1 = path;
        let request = h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, 1, &h2::block(&fields));
        stream.write_all(&[h2::preface(), request].concat()).await.unwrap();
        let (kind, payload) = verdict(&mut stream).await;
        assert!(kind != h2::HEADERS || payload.first() == Some(&h2::BAD_REQUEST), "{}", path.escape_ascii());
    }
    assert_eq!(world.requests(), 0);
    others_are_served(&world).await;
}

/// As bytes of a failed assertion are read.
trait Escaped {
    fn escape_ascii(&self) -> String;
}

impl Escaped for (&[u8], &[u8]) {
    fn escape_ascii(&self) -> String {
        format!("{}: {}", self.0.escape_ascii(), self.1.escape_ascii())
    }
}

#[tokio::test]
async fn a_client_that_resets_what_it_asks_for_is_cut() {
    const STREAMS: u32 = 20_000;
    let world = World::start(App::Echo).await;
    let (host, token) = (world.host(), world.token());
    let block = h2::block(&[
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", host.as_bytes()),
        (b":path", b"/"),
        (b"x-aws-proxy-auth", token.as_bytes()),
    ]);
    let (mut read, mut write) = tokio::io::split(world.tls(&host, true, true).await);
    let attack = tokio::spawn(async move {
        write.write_all(&h2::preface()).await.unwrap();
        for stream in (1..).step_by(2).take(STREAMS as usize) {
            let request = h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream, &block);
            let reset = h2::frame(h2::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            // Cut: what was wanted.
            if write.write_all(&[request, reset].concat()).await.is_err() {
                return;
            }
        }
        let _ = write.flush().await;
    });
    others_are_served(&world).await;
    let _ = timeout(PATIENCE, attack).await;
    let mut seen = Vec::new();
    let _ = timeout(PATIENCE, read.read_to_end(&mut seen)).await.expect("the connection is cut");
    assert!(world.requests() < STREAMS as usize, "{}", world.requests());
    others_are_served(&world).await;
}

#[tokio::test]
async fn a_head_of_http2_that_does_not_end_is_cut() {
    let world = World::start(App::Echo).await;
    let mut stream = world.tls(&world.host(), true, true).await;
    let block = h2::block(&[(b"x", &[b'a'; 8000])]);
    let mut bytes = [h2::preface(), h2::frame(h2::HEADERS, 0, 1, &block)].concat();
    for _ in 0..64 {
        bytes.extend(h2::frame(h2::CONTINUATION, 0, 1, &block));
    }
    let _ = stream.write_all(&bytes).await;
    assert_eq!(verdict(&mut stream).await.0, h2::GOAWAY);
    assert_eq!(world.requests(), 0);
    others_are_served(&world).await;
}
