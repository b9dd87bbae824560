//! nginx, as the proxy that people would put before an application, and as the application.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::bed::Certificate;
use super::process::Stats;
use crate::Failure;

const START: Duration = Duration::from_secs(10);
/// Size of the large download.
pub(crate) const DOWNLOAD_MIB: u32 = 1024;
/// The path of it.
pub(crate) const DOWNLOAD_PATH: &str = "/large";

/// One process that does everything, on one core.
#[derive(Debug)]
pub(crate) struct Nginx {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    /// Answers `/` with a few bytes, and [`DOWNLOAD_PATH`] with [`DOWNLOAD_MIB`].
    pub(crate) fn application(dir: &Path, core: usize) -> Result<Self, Failure> {
        fs::File::create(dir.join(DOWNLOAD_PATH.trim_start_matches('/')))?
            .set_len(u64::from(DOWNLOAD_MIB) << 20)?;
        let root = dir.display();
        let serves = format!(
            "location = / {{ return 200 \"hello\\n\"; }}
             location / {{ root {root}; sendfile on; sendfile_max_chunk 2m; }}"
        );
        Self::start(dir, "application", core, "", "", &serves)
    }

    /// Passes everything on to `target`, with TLS before it, in the version of HTTP that the client speaks.
    pub(crate) fn proxy(
        dir: &Path,
        certificate: &Certificate,
        target: SocketAddr,
        core: usize,
    ) -> Result<Self, Failure> {
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let upstream = format!(
            "map $http_upgrade $to_upgrade {{ default upgrade; '' ''; }}
             upstream app {{ server {target}; keepalive 64; keepalive_requests 1000000000; }}
             ssl_certificate {chain}; ssl_certificate_key {key};"
        );
        // What a client is slow to take would be put on the disk.
        let serves = "location / {
            proxy_max_temp_file_size 0;
            proxy_pass http://app; proxy_http_version 1.1; proxy_request_buffering off; proxy_read_timeout 1h;
            proxy_set_header Host $host; proxy_set_header Connection $to_upgrade;
            proxy_set_header Upgrade $http_upgrade; }";
        Self::start(dir, "proxy", core, "ssl http2", &upstream, serves)
    }

    fn start(
        dir: &Path,
        name: &str,
        core: usize,
        listens: &str,
        http: &str,
        serves: &str,
    ) -> Result<Self, Failure> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let own = dir.display();
        let text = format!(
            "daemon off; master_process off; pid {own}/{name}.pid; error_log {own}/{name}.log;
             worker_rlimit_nofile 65536;
             events {{ worker_connections 32768; }}
             http {{
                access_log off; client_max_body_size 0; keepalive_requests 1000000000; tcp_nodelay on;
                client_body_temp_path {own}/{name}-body; proxy_temp_path {own}/{name}-proxy;
                {http}
                server {{ listen {address} {listens}; {serves} }}
             }}"
        );
        let config = dir.join(format!("{name}.conf"));
        fs::write(&config, text)?;
        let mut nginx = Command::new("taskset");
        nginx.args(["-c", &core.to_string(), "nginx", "-c"]).arg(&config).process_group(0);
        let child =
            nginx.spawn().map_err(|error| format!("cannot start nginx: {error}; run scripts/bench-peers"))?;
        let mut this = Self { child, address };
        this.wait_until_it_listens()?;
        Ok(this)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("nginx ended with {status}").into());
            }
            if began.elapsed() > START {
                return Err("nginx does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(crate) fn stats(&self) -> Result<Stats, Failure> {
        Stats::of(self.child.id())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
