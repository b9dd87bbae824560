//! `rekindle env`: what points the AWS CLI, SDKs and curl at a server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli;
use crate::quote::quote;
use crate::running::{Running, RunningError};

/// How long `--wait` waits.
const WAIT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// For one try to reach the server.
const TRY: Duration = Duration::from_secs(5);
/// Asked without a signature: a server that refuses is up.
const QUESTION: &str = "/2025-09-09/managed-microvm-images";
const HTTP: &[u8] = b"HTTP/1.1 ";

/// Variables that lead HTTP through a proxy, which would not find this host's addresses.
const PROXIES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Variables with hosts to reach without one.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];
const DIRECT: &str = "127.0.0.1,localhost,.localhost";

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    /// Nobody to point at.
    #[error(transparent)]
    Running(#[from] RunningError),
    /// It does not answer.
    #[error(
        "the server at {address} does not answer ({source}); its output says why, and `rekindle doctor` what is missing"
    )]
    Silent {
        /// Where it should.
        address: SocketAddr,
        /// What came instead.
        source: io::Error,
    },
    /// Nowhere to print to.
    #[error("cannot print: {0}")]
    Print(io::Error),
}

/// Prints `export NAME=value` lines.
pub(crate) fn run(args: &cli::Env) -> Result<(), EnvError> {
    let (dir, account) = (&args.data.data_dir, args.account.as_deref());
    if args.wait {
        wait(dir)?;
    }
    let lines = exports(dir, account)?;
    io::stdout().write_all(lines.as_bytes()).map_err(EnvError::Print)
}

fn wait(dir: &Path) -> Result<(), EnvError> {
    let deadline = Instant::now() + WAIT;
    loop {
        match answering(dir) {
            Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

fn answering(dir: &Path) -> Result<(), EnvError> {
    let address = Running::find(dir)?.server.control();
    greet(address).map_err(|source| EnvError::Silent { address, source })
}

/// Any answer will do.
fn greet(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TRY)?;
    stream.set_read_timeout(Some(TRY))?;
    stream.write_all(
        format!("GET {QUESTION} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut head = [0; HTTP.len()];
    stream.read_exact(&mut head)?;
    if head == HTTP { Ok(()) } else { Err(io::Error::other("what answers there is no server of ours")) }
}

fn exports(dir: &Path, account: Option<&str>) -> Result<String, EnvError> {
    let running = Running::find(dir)?;
    let (id, key) = running.key(account)?;
    let Running { data, server } = running;
    let trust = data.trust().to_string_lossy().into_owned();
    let mut variables = vec![
        ("AWS_ENDPOINT_URL", format!("http://{}", server.control())),
        ("AWS_ACCESS_KEY_ID", key.id),
        ("AWS_SECRET_ACCESS_KEY", key.secret),
        ("AWS_REGION", server.region.clone()),
        ("AWS_DEFAULT_REGION", server.region),
        ("AWS_ACCOUNT_ID", id.to_string()),
        // A live tail of logs goes to stream-<host> otherwise, which an address has not.
        ("AWS_DISABLE_HOST_PREFIX_INJECTION", "true".to_owned()),
        ("AWS_CA_BUNDLE", trust.clone()),
        ("SSL_CERT_FILE", trust.clone()),
        ("CURL_CA_BUNDLE", trust.clone()),
        ("NODE_EXTRA_CA_CERTS", trust),
    ];
    variables.extend(without_proxy(|name| std::env::var(name).ok()));
    Ok(variables.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect())
}

/// Where HTTP goes through a proxy, this host's own addresses are excepted from it.
fn without_proxy(variable: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if !PROXIES.into_iter().any(|name| set(name).is_some()) {
        return Vec::new();
    }
    let before = NO_PROXY.into_iter().find_map(set).unwrap_or_default();
    let hosts = match before.as_str() {
        "" => DIRECT.to_owned(),
        before if before.contains(DIRECT) => before.to_owned(),
        before => format!("{before},{DIRECT}"),
    };
    NO_PROXY.map(|name| (name, hosts.clone())).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;
    use crate::engines::Chosen;
    use crate::server_file::ServerFile;
    use std::net::TcpListener;

    /// A data directory as a server leaves it that listens there.
    fn served(address: SocketAddr) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let (data, _) = DataDir::claim(root.path()).unwrap();
        data.open_account().unwrap();
        let server = ServerFile {
            listen: address,
            endpoint_listen: address,
            region: "eu-west-1".into(),
            account_id: "123456789012".parse().unwrap(),
            machines_by: Chosen::for_tests(),
        };
        server.write(&data).unwrap();
        root
    }

    #[test]
    fn every_variable_is_exported_once() {
        let root = served("0.0.0.0:4580".parse().unwrap());
        let lines = exports(root.path(), None).unwrap();
        for expected in [
            "export AWS_ENDPOINT_URL=http://127.0.0.1:4580\n",
            "export AWS_ACCESS_KEY_ID=AKIA",
            "export AWS_SECRET_ACCESS_KEY=",
            "export AWS_REGION=eu-west-1\n",
            "export AWS_DEFAULT_REGION=eu-west-1\n",
            "export AWS_ACCOUNT_ID=123456789012\n",
            "export AWS_DISABLE_HOST_PREFIX_INJECTION=true\n",
            "export AWS_CA_BUNDLE=/",
            "export SSL_CERT_FILE=/",
            "export CURL_CA_BUNDLE=/",
            "export NODE_EXTRA_CA_CERTS=/",
        ] {
            assert_eq!(lines.matches(expected).count(), 1, "{expected}: {lines}");
        }
    }

    #[tokio::test]
    async fn another_account_has_its_own_key() {
        let root = served("0.0.0.0:4580".parse().unwrap());
        let store = store::Store::open(&DataDir::find(root.path()).unwrap().database()).unwrap();
        let made = identity::accounts::create(&store, Some("team-a")).await.unwrap();
        let lines = exports(root.path(), Some("team-a")).unwrap();
        assert!(lines.contains(&format!("export AWS_ACCESS_KEY_ID={}\n", made.key.id)), "{lines}");
        assert!(lines.contains(&format!("export AWS_ACCOUNT_ID={}\n", made.record.id)), "{lines}");
        assert!(exports(root.path(), Some("team-b")).unwrap_err().to_string().contains("team-b"));
    }

    #[test]
    fn waiting_ends_with_the_first_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let root = served(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            // The first connection is cut, as by a server that is not quite up.
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap();
        });
        wait(root.path()).unwrap();
        server.join().unwrap();
    }

    #[test]
    fn no_server_is_said_in_words() {
        let root = tempfile::tempdir().unwrap();
        let error = exports(root.path(), None).unwrap_err().to_string();
        assert!(error.contains("no server runs") && error.contains("rekindle serve"), "{error}");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = answering(served(address).path()).unwrap_err().to_string();
        assert!(error.contains("does not answer") && error.contains("refused"), "{error}");
    }

    #[test]
    fn a_proxy_is_not_asked_for_this_host() {
        assert_eq!(without_proxy(|_| None), []);
        assert_eq!(without_proxy(|name| (name == "no_proxy").then(|| "x".into())), []);
        let both = |hosts: &str| NO_PROXY.map(|name| (name, hosts.to_owned())).to_vec();
        assert_eq!(without_proxy(|name| (name == "HTTPS_PROXY").then(|| "p".into())), both(DIRECT));
        let before = |name: &str| Some(if name == "no_proxy" { "x" } else { "p" }.to_owned());
        assert_eq!(without_proxy(before), both(&format!("x,{DIRECT}")));
        let twice = |name: &str| Some(if name == "no_proxy" { DIRECT } else { "p" }.to_owned());
        assert_eq!(without_proxy(twice), both(DIRECT));
    }
}
