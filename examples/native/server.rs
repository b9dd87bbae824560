//! A small native server for Rekindle: HTTP on 8080, lifecycle hooks on 9000, Rust's standard library only.
//!
//!     GET  /         a greeting
//!     POST <hook>    on the hooks' port: 200, whichever it is

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Threads that wait for a connection to a port. They are there before the snapshot is, so that no request has to wait
/// for one to be made.
const THREADS: usize = 8;
/// Longest head of a request, and longest body, that is read.
const MAX_BYTES: u64 = 64 * 1024;

fn main() -> io::Result<()> {
    let hooks = listen("HOOKS_PORT", 9000)?;
    let app = listen("PORT", 8080)?;
    for (listener, body) in [(hooks, "{}\n"), (app, "{\"message\": \"Hello from Rekindle\"}\n")] {
        for _ in 0..THREADS {
            let listener = listener.try_clone()?;
            thread::spawn(move || serve(&listener, body));
        }
    }
    loop {
        thread::park();
    }
}

fn listen(variable: &str, default: u16) -> io::Result<TcpListener> {
    let port = std::env::var(variable).ok().and_then(|port| port.parse().ok()).unwrap_or(default);
    TcpListener::bind(("0.0.0.0", port))
}

fn serve(listener: &TcpListener, body: &str) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    loop {
        // A connection that fails or talks no HTTP is closed; the next one is none the worse for it.
        let _ = listener.accept().and_then(|(stream, _)| converse(&stream, answer.as_bytes()));
    }
}

/// Answers the requests of a connection, one after the other, until its client closes it.
fn converse(stream: &TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while skip_request(&mut reader)? {
        (&*stream).write_all(answer)?;
    }
    Ok(())
}

/// Reads a request to its end; `false` where there is none any more.
fn skip_request(reader: &mut impl BufRead) -> io::Result<bool> {
    let mut head = reader.by_ref().take(MAX_BYTES);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap_or(MAX_BYTES);
            }
            None if line == "\r\n" => break,
            _ => {}
        }
    }
    let body = io::copy(&mut reader.by_ref().take(length.min(MAX_BYTES)), &mut io::sink())?;
    Ok(body == length)
}
