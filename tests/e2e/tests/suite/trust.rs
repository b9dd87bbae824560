//! What clients trust and are trusted by: the endpoints' certificate and the tokens' keys, changed while the server runs.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rekindle_e2e::{Microvm, Server, command, until};

use crate::fixture;

/// For a running server to follow a file.
const FOLLOWED: Duration = Duration::from_secs(30);
const HOST: &str = "7c0e2c67-9f6c-4a8d-bb0e-5a39b6a8a5c1.lambda-microvm.us-east-1.localhost";

pub(crate) fn tokens_change_their_key_and_can_all_be_ended() {
    let server = fixture::exclusive();
    let server = &*server;
    let microvm = Microvm::run(server, &fixture::probe(server), &[]);
    let id = microvm.id.as_str();
    let key_id = |microvm: &Microvm<'_>| microvm.auth().split('.').next().map(str::to_owned);

    rekindle(server, &["tokens", "rotate"]);
    let newer = until("tokens under a new key", FOLLOWED, || {
        Some(Microvm::of(server, id)).filter(|newer| key_id(newer) != key_id(&microvm))
    });
    microvm.request("/", &[]).expect(200);
    newer.request("/", &[]).expect(200);

    rekindle(server, &["tokens", "revoke"]);
    until("older tokens to be refused", FOLLOWED, || {
        (microvm.request("/", &[]).status == 403 && newer.request("/", &[]).status == 403).then_some(())
    });
    Microvm::of(server, id).request("/", &[]).expect(200);
    microvm.terminate();
}

pub(crate) fn the_local_authority_is_trusted_once_it_is_installed() {
    let server = fixture::shared();
    let printed = rekindle(&server, &["ca", "print"]);
    let url = format!("https://{HOST}:{}/", server.endpoint_port());
    // In a mount namespace of its own: this machine goes on trusting what it did.
    let script = format!(
        "set -e
        for dir in /usr/local/share/ca-certificates /etc/ssl/certs; do
            copy=$(mktemp -d); cp -a $dir/. $copy; mount --bind $copy $dir
        done
        answer() {{ curl --silent --noproxy '*' --output /dev/null --write-out '%{{http_code}}' {url} || true; }}
        test $(answer) = 000
        $REKINDLE ca install --data-dir $DATA
        test $(answer) = 403
        $REKINDLE ca uninstall --data-dir $DATA
        test $(answer) = 000"
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "bash", "-xc", &script]);
    unshare.env("REKINDLE", command::rekindle()).env("DATA", server.data_dir());
    command::must(&mut unshare);
    let bundle = std::fs::read_to_string(server.variable("CURL_CA_BUNDLE")).unwrap();
    assert!(printed.starts_with("-----BEGIN CERTIFICATE-----") && bundle.contains(&printed), "{printed}");
}

pub(crate) fn an_operators_certificate_is_replaced_under_open_connections() {
    let mut server = fixture::exclusive();
    let (chain, key) = (server.scratch("chain.pem"), server.scratch("key.pem"));
    issue(&chain, &key);
    let settings = server.scratch("certificate.toml");
    let files = format!("endpoint_certificate = {{ chain = {chain:?}, key = {key:?} }}\n");
    std::fs::write(&settings, files + &std::fs::read_to_string(fixture::SETTINGS).unwrap()).unwrap();
    server.restart_with(&["--config", settings.to_str().unwrap()]);

    let first = std::fs::read(&chain).unwrap();
    let mut kept = Kept::open(&server, &chain);
    assert_eq!(kept.ask(), "HTTP/1.1 403 Forbidden");
    issue(&chain, &key);
    server.hang_up();
    until("new connections to be shown the new certificate", FOLLOWED, || {
        is_shown(&server, &chain).then_some(())
    });
    let old = server.scratch("old.pem");
    std::fs::write(&old, first).unwrap();
    assert!(!is_shown(&server, &old), "the certificate that was replaced is still shown");
    assert_eq!(kept.ask(), "HTTP/1.1 403 Forbidden");
    server.restart_with(&["--config", fixture::SETTINGS]);
}

fn rekindle(server: &Server, arguments: &[&str]) -> String {
    let mut rekindle = Command::new(command::rekindle());
    command::must(rekindle.args(arguments).arg("--data-dir").arg(server.data_dir()))
}

/// A new certificate for all endpoints, signed by itself.
fn issue(chain: &Path, key: &Path) {
    let name = "subjectAltName=DNS:*.lambda-microvm.us-east-1.localhost";
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=operator", "-addext", name, "-out"]).arg(chain);
    command::must(openssl.arg("-keyout").arg(key));
}

fn is_shown(server: &Server, trusted: &Path) -> bool {
    let url = format!("https://{HOST}:{}/", server.endpoint_port());
    server.try_curl(&url, &["--cacert", trusted.to_str().unwrap()]).is_ok_and(|answer| answer.status == 403)
}

/// A connection that stays.
struct Kept {
    client: Child,
    answers: BufReader<ChildStdout>,
}

impl Kept {
    fn open(server: &Server, trusted: &Path) -> Self {
        let mut client = Command::new("openssl");
        let address = format!("127.0.0.1:{}", server.endpoint_port());
        client.args(["s_client", "-quiet", "-verify_return_error", "-servername", HOST]);
        client.args(["-connect", &address, "-CAfile"]).arg(trusted).stderr(Stdio::null());
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(client.stdout.take().unwrap());
        Self { client, answers }
    }

    /// The first line of an answer to a request.
    fn ask(&mut self) -> String {
        let request = format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        self.client.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.answers.read_line(&mut head).unwrap(), 0, "the connection ended: {head}");
        }
        head.lines().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.client.kill().and_then(|()| self.client.wait()).unwrap();
    }
}
