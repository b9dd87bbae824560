//! A proxy with one MicroVM that always runs, whose application is a server on loopback: in this process, or in one of its
//! own, so that its processor time and memory can be told from everybody else's.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use auth::token::{Ports, Scope, TokenKey};
use ids::{EndpointId, MicrovmId};
use proxy::{
    Activity, Backend, BoxedIo, Connector, EndpointHosts, Life, Proxy, Site, Target, WakeError, tls_config,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::process::Stats;
use crate::Failure;

const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Of endpoint tokens; whoever has it can open no more than what is measured here.
const SECRET: [u8; 32] = [7; 32];

fn hosts() -> EndpointHosts {
    EndpointHosts::new("us-east-1", "localhost")
}

/// The one endpoint there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    id: EndpointId,
    microvm: MicrovmId,
}

impl Endpoint {
    pub(crate) fn random() -> Self {
        Self { id: EndpointId::random(), microvm: MicrovmId::random() }
    }

    pub(crate) fn host(self) -> String {
        hosts().host(self.id)
    }

    /// For every port of it.
    pub(crate) fn token(self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires_at = (now + TOKEN_LIFE).as_secs();
        TokenKey::from_secret(SECRET).seal(&Scope { microvm: self.microvm, ports: Ports::All, expires_at })
    }

    /// Serves it on loopback until `stop`; `target` answers.
    pub(crate) async fn serve(
        self,
        certificate: &Certificate,
        target: SocketAddr,
        stop: CancellationToken,
    ) -> Result<SocketAddr, Failure> {
        let connector: Arc<dyn Connector> = Arc::new(Loopback(target));
        let life = Arc::new(Life::new(1, connector, Arc::new(Activity::new())));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tls = tls_config(Arc::new(SingleCertAndKey::from(certificate.load()?)))?;
        let backend = OneLife { endpoint: self, life };
        let proxy = Proxy::new(Arc::new(backend), hosts(), TokenKey::from_secret(SECRET));
        tokio::spawn(proxy.serve(listener, tls, stop));
        Ok(address)
    }
}

/// A certificate for the endpoint that nobody has signed, and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    pub(crate) fn make(dir: &Path) -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed(vec![hosts().wildcard()])?;
        let this = Self { chain: dir.join("endpoint.pem"), key: dir.join("endpoint.key") };
        std::fs::write(&this.chain, made.cert.pem())?;
        std::fs::write(&this.key, made.signing_key.serialize_pem())?;
        Ok(this)
    }

    fn load(&self) -> Result<CertifiedKey, Failure> {
        let chain = CertificateDer::pem_file_iter(&self.chain)?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        Ok(CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?))
    }
}

struct OneLife {
    endpoint: Endpoint,
    life: Arc<Life>,
}

#[async_trait]
impl Backend for OneLife {
    fn resolve(&self, site: &Site) -> Option<Target> {
        let microvm = self.endpoint.microvm;
        let target = || Target { microvm, http_ingress: true, public_ports: Arc::default() };
        (*site == Site::Endpoint(self.endpoint.id)).then(target)
    }

    fn is_domain(&self, _: &str) -> bool {
        false
    }

    async fn wake(&self, _: MicrovmId, _: Option<&str>) -> Result<Arc<Life>, WakeError> {
        Ok(Arc::clone(&self.life))
    }
}

/// Whatever the port.
struct Loopback(SocketAddr);

#[async_trait]
impl Connector for Loopback {
    async fn connect(&self, _: u16) -> io::Result<BoxedIo> {
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// A proxy in a process of its own, which ends with this.
#[derive(Debug)]
pub(crate) struct ProxyProcess {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl ProxyProcess {
    /// On one core, with one thread.
    pub(crate) fn start(
        endpoint: Endpoint,
        certificate: &Certificate,
        target: SocketAddr,
        core: usize,
    ) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve-endpoint")
            .args([&certificate.chain, &certificate.key])
            .args([target.to_string(), core.to_string()])
            .args([endpoint.id.to_string(), endpoint.microvm.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the proxy has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }

    pub(crate) fn stats(&self) -> Result<Stats, Failure> {
        Stats::of(self.child.id())
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        // Closing its input ends it; it is not to outlive a failure to do so.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What such a process does: says where it serves, and goes on until its input ends.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let [chain, key, target, core, id, microvm] = arguments else {
        return Err("six arguments are needed".into());
    };
    let endpoint = Endpoint { id: id.parse()?, microvm: microvm.parse()? };
    let certificate = Certificate { chain: chain.into(), key: key.into() };
    let mut set = CpuSet::new();
    set.set(core.parse()?);
    sched_setaffinity(None, &set)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let address =
        runtime.block_on(endpoint.serve(&certificate, target.parse()?, CancellationToken::new()))?;
    println!("{address}");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    runtime.shutdown_background();
    Ok(())
}
