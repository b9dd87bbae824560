//! A WebSocket as a browser opens one: it can send no header, and minds what is selected of the subprotocols that it offers.
//! `scripts/browser` installs the browser; where there is none, the test says so and is left out.

use std::io::{self, Write};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::world::{App, World};

const PROGRAM: &str = "chromium";
/// For the browser to start and to report.
const PATIENCE: Duration = Duration::from_secs(120);
/// What its console's lines are known by.
const REPORT: &str = "REPORT";

/// Says what happens to a WebSocket that offers `protocols`, over which a message goes.
fn page(url: &str, protocols: &[String]) -> String {
    format!(
        "<script>
        const report = (what) => console.log(`{REPORT} ${{what}}.`);
        const socket = new WebSocket('{url}', {protocols:?});
        socket.onopen = () => socket.send('a message');
        socket.onmessage = ({{ data }}) => {{ report(`${{socket.protocol}}: ${{data}}`); socket.close(1000); }};
        socket.onclose = ({{ code }}) => report(`closed with ${{code}}`);
        </script>"
    )
}

/// What the page reports first, so many times; nothing without a browser.
async fn reports(world: &World, page: &str, count: usize) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.html");
    std::fs::write(&file, page).unwrap();
    let mut chromium = Command::new(PROGRAM);
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.args(["--ignore-certificate-errors", "--no-proxy-server", "--enable-logging=stderr"]);
    chromium.arg(format!("--host-resolver-rules=MAP * {}", world.address()));
    chromium.arg(format!("--user-data-dir={}", dir.path().display())).arg(&file);
    // Otherwise it prints the page and ends.
    chromium.arg("--remote-debugging-port=0");
    chromium.env("HOME", dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut chromium = match chromium.kill_on_drop(true).spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        started => started.unwrap(),
    };
    let mut lines = BufReader::new(chromium.stderr.take().unwrap()).lines();
    let (mut reports, mut said) = (Vec::new(), String::new());
    let reading = async {
        while reports.len() < count
            && let Some(line) = lines.next_line().await.unwrap()
        {
            let report = line.split_once(REPORT).and_then(|(_, report)| report.trim_start().split_once('.'));
            reports.extend(report.map(|(report, _)| report.to_owned()));
            said += &format!("{line}\n");
        }
    };
    let in_time = timeout(PATIENCE, reading).await.is_ok();
    chromium.kill().await.unwrap();
    assert!(in_time && reports.len() == count, "{reports:?}\n{said}");
    Some(reports)
}

fn skipped() {
    let why = format!("a WebSocket from a browser: not tested, there is no {PROGRAM}; run scripts/browser\n");
    // Past the harness, which shows nothing of a test that passes.
    io::stderr().write_all(why.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_opens_a_websocket_with_its_token_among_the_subprotocols() {
    let world = World::start(App::Messages).await;
    let token = |token: &str| format!("lambda-microvms.authentication.{token}");
    let offer = |token| ["lambda-microvms".to_owned(), token, "lambda-microvms.port.8080".to_owned()];
    let url = format!("wss://{}/ws", world.host());
    let good = page(&url, &offer(token(&world.token())));
    let Some(reported) = reports(&world, &good, 2).await else { return skipped() };
    assert_eq!(reported, ["lambda-microvms: a message", "closed with 1000"]);
    assert_eq!(world.port(), 8080);
    let (wrong, connections) = (page(&url, &offer(token("wrong"))), world.connections());
    assert_eq!(reports(&world, &wrong, 1).await.unwrap(), ["closed with 1006"]);
    assert_eq!(world.connections(), connections, "nothing of it reaches the application");
}
