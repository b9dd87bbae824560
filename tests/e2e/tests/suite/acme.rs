//! Certificates by ACME, from a real authority (Let's Encrypt's Pebble, of Debian) that looks for itself: for the endpoints by
//! a record of DNS that a hook adds, for a name of the operator's own by what the endpoints' listener shows.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rekindle_e2e::{Server, command, json, until};

use crate::fixture;

const HOST: &str = "7c0e2c67-9f6c-4a8d-bb0e-5a39b6a8a5c1.lambda-microvm.us-east-1.localhost";
const DOMAIN: &str = "acme.rekindle.test";
/// The life of what the authority issues, so short that it is renewed while the test looks.
const LIFE_SECONDS: u32 = 30;
/// For an order to be carried out.
const ISSUED: Duration = Duration::from_secs(90);

pub(crate) fn certificates_are_issued_renewed_and_kept() {
    let mut server = fixture::exclusive();
    let image = fixture::probe(&server);
    let authority = Authority::start(&server);
    let root = authority.root(&server);
    let told = server.scratch("told");
    let settings = settings(&server, &authority, &told);
    server.restart_with(&["--config", settings.to_str().unwrap()]);
    rekindle(&server, &["domain", "add", DOMAIN, &image.arn]);

    for host in [HOST, DOMAIN] {
        until(&format!("a certificate for {host}"), ISSUED, || {
            is_trusted(&server, host, &root).then_some(())
        });
    }
    let first = serial(&server, HOST);
    until("the certificate to be renewed", ISSUED, || {
        (serial(&server, HOST) != first && is_trusted(&server, HOST, &root)).then_some(())
    });
    let told = std::fs::read_to_string(told).unwrap();
    let record = "_acme-challenge.lambda-microvm.us-east-1.localhost";
    assert!(told.starts_with(&format!("add {record}\nremove {record}\n")), "{told}");

    drop(authority);
    server.restart();
    let acme = server.data_dir().join("acme");
    for (host, file) in [(HOST, "endpoints.pem"), (DOMAIN, &format!("{DOMAIN}.pem"))] {
        let file = acme.join(file);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut openssl = Command::new("openssl");
        let kept = command::must(openssl.args(["x509", "-noout", "-serial", "-in"]).arg(&file));
        assert_eq!(serial(&server, host), kept, "what was issued before is shown at once");
    }
    assert_eq!(acme.join("account.json").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    rekindle(&server, &["domain", "remove", DOMAIN]);
    server.restart_with(&["--config", fixture::SETTINGS]);
}

fn settings(server: &Server, authority: &Authority, told: &Path) -> PathBuf {
    let (hook, settings) = (server.scratch("dns-hook"), server.scratch("acme.toml"));
    let script = format!(
        "#!/bin/sh\n\
         echo \"$1 $2\" >>{told}\n\
         case $1 in add) path=set-txt ;; remove) path=clear-txt ;; esac\n\
         exec curl --silent --fail --noproxy '*' --data \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" \
         http://127.0.0.1:{port}/$path\n",
        told = told.display(),
        port = authority.records,
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let acme = format!(
        "\n[acme]\ndirectory = \"https://localhost:{}/dir\"\ncontact = [\"mailto:operator@rekindle.test\"]\n\
         ca_bundle = {:?}\ndns_hook = {hook:?}\n",
        authority.port, authority.certificate
    );
    std::fs::write(&settings, std::fs::read_to_string(fixture::SETTINGS).unwrap() + &acme).unwrap();
    settings
}

fn rekindle(server: &Server, arguments: &[&str]) {
    let mut rekindle = Command::new(command::rekindle());
    command::must(rekindle.args(arguments).arg("--data-dir").arg(server.data_dir()));
}

/// Whether a client that trusts the authority alone gets an answer.
fn is_trusted(server: &Server, host: &str, root: &Path) -> bool {
    let port = server.endpoint_port();
    let resolve = format!("{host}:{port}:127.0.0.1");
    let options = ["--cacert", root.to_str().unwrap(), "--resolve", &resolve];
    server.try_curl(&format!("https://{host}:{port}/"), &options).is_ok_and(|answer| answer.status == 403)
}

/// Of the certificate that clients of a host are shown.
fn serial(server: &Server, host: &str) -> String {
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{} -servername {host} </dev/null 2>/dev/null | \
         openssl x509 -noout -serial",
        server.endpoint_port()
    );
    command::must(Command::new("sh").args(["-c", &script]))
}

/// The authority, and the DNS server that it asks.
struct Authority {
    port: u16,
    management: u16,
    /// Where records of DNS are set.
    records: u16,
    certificate: PathBuf,
    programs: [Child; 2],
}

impl Authority {
    fn start(server: &Server) -> Self {
        let [port, management, records, dns] = [(); 4].map(|()| free_port());
        let (certificate, key) = (server.scratch("authority.pem"), server.scratch("authority.key"));
        issue(&certificate, &key);
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": certificate,
            "privateKey": key,
            "httpPort": 1,
            "tlsPort": server.endpoint_port(),
            "certificateValidityPeriod": LIFE_SECONDS,
        }});
        let file = server.scratch("authority.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut resolver = Command::new("pebble-challtestsrv");
        resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        resolver.args([
            "-dns01",
            &format!("127.0.0.1:{dns}"),
            "-management",
            &format!("127.0.0.1:{records}"),
        ]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(&file).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        let programs = [quiet(&mut resolver), quiet(pebble.env("PEBBLE_VA_NOSLEEP", "1"))];
        Self { port, management, records, certificate, programs }
    }

    /// What signs all that it issues, once it answers.
    fn root(&self, server: &Server) -> PathBuf {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let trust = ["--cacert", self.certificate.to_str().unwrap()];
        let answer = until("the authority", ISSUED, || server.try_curl(&url, &trust).ok());
        let root = server.scratch("root.pem");
        std::fs::write(&root, answer.expect(200).body).unwrap();
        root
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A certificate of its own for the authority's own listeners.
fn issue(chain: &Path, key: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=authority", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"]).arg(chain);
    command::must(openssl.arg("-keyout").arg(key));
}
