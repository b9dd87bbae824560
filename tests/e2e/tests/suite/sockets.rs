//! Connections to an endpoint that speak something else than requests: TLS as a client has it, and WebSockets over it.

use std::sync::Arc;

use rekindle_e2e::Microvm;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// TLS with the authority that the server's users trust; `protocol` as ALPN names it.
pub(crate) async fn tls(microvm: &Microvm<'_>, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::pem_file_iter(microvm.server().variable("SSL_CERT_FILE")).unwrap();
    roots.add_parsable_certificates(trusted.map(Result::unwrap));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let (host, _) = microvm.endpoint.split_once(':').unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", microvm.server().endpoint_port())).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

/// A WebSocket, and the subprotocol that was selected; or the status of the refusal.
pub(crate) async fn websocket(
    microvm: &Microvm<'_>,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<(WebSocketStream<TlsStream<TcpStream>>, Option<String>), u16> {
    let mut request = format!("wss://{}{path}", microvm.endpoint).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match client_async(request, tls(microvm, b"http/1.1").await).await {
        Ok((socket, answer)) => {
            let selected = answer.headers().get("sec-websocket-protocol");
            Ok((socket, selected.map(|name| name.to_str().unwrap().to_owned())))
        }
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}
