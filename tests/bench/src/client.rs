//! A client of endpoints: TLS under the server's own authority, HTTP/1.1, one connection.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Failure;

/// What every connection is opened with.
#[derive(Clone)]
pub(crate) struct Trust(TlsConnector);

impl Trust {
    /// Trusts the authorities of a PEM file.
    pub(crate) fn bundle(path: &Path) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A client that comes for the first time has no session to resume.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands over a connection.
    pub(crate) async fn connect(
        &self,
        name: ServerName<'static>,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        Ok(self.0.connect(name, tcp).await?)
    }
}

/// A kept-alive connection.
pub(crate) struct Connection {
    client: SendRequest<Empty<Bytes>>,
    host: String,
}

impl Connection {
    /// To an endpoint, `host` or `host:port`, which is served at `address`.
    pub(crate) async fn open(trust: &Trust, endpoint: &str, address: SocketAddr) -> Result<Self, Failure> {
        let name = endpoint.split(':').next().unwrap_or(endpoint).to_owned();
        let tcp = tcp(address).await?;
        let tls = trust.connect(ServerName::try_from(name)?, tcp).await?;
        Self::over(tls, endpoint).await
    }

    /// Without TLS.
    pub(crate) async fn plain(address: SocketAddr) -> Result<Self, Failure> {
        Self::over(tcp(address).await?, &address.to_string()).await
    }

    /// Over a stream that is connected already.
    pub(crate) async fn over<T>(io: T, host: &str) -> Result<Self, Failure>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (client, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok(Self { client, host: host.to_owned() })
    }

    /// The body of a 200; any other status is a failure.
    pub(crate) async fn get(&mut self, path: &str, token: Option<&str>) -> Result<Bytes, Failure> {
        let mut request = Request::get(path).header("host", &self.host);
        if let Some(token) = token {
            request = request.header("x-aws-proxy-auth", token);
        }
        self.client.ready().await?;
        let response = self.client.send_request(request.body(Empty::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status == StatusCode::OK {
            Ok(body)
        } else {
            Err(format!("GET {path} of {} answered {status}: {}", self.host, String::from_utf8_lossy(&body))
                .into())
        }
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
