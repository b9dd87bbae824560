//! A running server as its clients have it: signed calls of its API, and TLS to the endpoints of its MicroVMs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::endpoints::{Domain, EndpointAccess, ListDomainsResponse, MicrovmUsage};
use api::{CreateMicrovmAuthTokenResponse, GetMicrovmResponse, ListMicrovmsResponse};
use auth::keys::AccessKey;
use auth::sigv4::{SignError, sign};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use ids::{AccountId, ImageArn, ImageName, MicrovmId, MicrovmOrImage};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::data_dir::DataDir;
use crate::running::{Running, RunningError};
use crate::server_file::ServerFile;

/// For a call of the API to be answered.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For a TLS connection to an endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer of the API; those that are asked for here are far smaller.
const MAX_ANSWER: usize = 1 << 20;
/// The port that an address does not have to tell.
const HTTPS_PORT: u16 = 443;
/// The path of ListDomains.
const DOMAINS: &str = "/2026-11-29/domains";
/// The API's signing name.
const SERVICE: &str = "lambda";
const ERROR_TYPE: &str = "x-amzn-errortype";
const HTTP1: &[u8] = b"http/1.1";

/// Why a server, or an endpoint of its, cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is none.
    #[error(transparent)]
    Running(#[from] RunningError),
    /// The request cannot be signed.
    #[error("{0}")]
    Sign(#[from] SignError),
    /// No answer came.
    #[error("{operation}: the server at {address} does not answer ({reason}); its output says why")]
    Silent {
        /// What was called.
        operation: &'static str,
        /// Where.
        address: SocketAddr,
        /// What came instead.
        reason: String,
    },
    /// The answer is an error.
    #[error("{operation} is refused: {message} ({code}){}", hint(.code))]
    Refused {
        /// What was called.
        operation: &'static str,
        /// The error's name, such as `ResourceNotFoundException`.
        code: String,
        /// What the server says of it.
        message: String,
    },
    /// The answer cannot be read.
    #[error(
        "{operation}: cannot read the answer ({reason}); use the program that the server was started from"
    )]
    Answer {
        /// What was called.
        operation: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection to the endpoint.
    #[error(
        "cannot connect to the endpoint {endpoint} at {address}: {source}; check that the server runs, and that \
         nothing else listens there"
    )]
    Connect {
        /// The MicroVM's endpoint.
        endpoint: String,
        /// Where endpoints are served.
        address: SocketAddr,
        /// What the system or TLS said.
        source: io::Error,
    },
    /// The certificates cannot be read.
    #[error(
        "cannot read the certificates to trust in {path}: {reason}; a start of the server writes them anew"
    )]
    Trust {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn hint(code: &str) -> &'static str {
    match code {
        "ResourceNotFoundException" => {
            "; `aws lambda-microvms list-microvms` prints the ids, --account and --data-dir name another account or \
             server"
        }
        "ThrottlingException" => "; try again in a moment",
        _ => "",
    }
}

/// A connection to an endpoint.
pub(crate) type EndpointStream = TlsStream<TcpStream>;

/// Speaks to a running server with the root key of an account.
pub(crate) struct Client {
    server: ServerFile,
    account: AccountId,
    key: AccessKey,
    tls: TlsConnector,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// Of the server that runs on a data directory; `account` is an id or a name, without it the first account's.
    pub(crate) fn of(dir: &Path, account: Option<&str>) -> Result<Self, ClientError> {
        let running = Running::find(dir)?;
        let (account, key) = running.key(account)?;
        let tls = TlsConnector::from(Arc::new(trusting(&running.data)?));
        Ok(Self { server: running.server, account, key, tls })
    }

    /// The ARN of the account's image with this name.
    pub(crate) fn image(&self, name: ImageName) -> ImageArn {
        ImageArn { region: self.server.region.clone(), account: self.account.clone(), name }
    }

    /// Where clients of a host name reach the endpoints, which is the name alone on the usual port.
    pub(crate) fn address_of(&self, host: &str) -> String {
        match self.server.endpoint().port() {
            HTTPS_PORT => host.to_owned(),
            port => format!("{host}:{port}"),
        }
    }

    /// GetMicrovm.
    pub(crate) async fn microvm(&self, id: MicrovmId) -> Result<GetMicrovmResponse, ClientError> {
        self.call("GetMicrovm", Method::GET, &format!("/2025-09-09/microvms/{id}"), None).await
    }

    /// GetMicrovmUsage.
    pub(crate) async fn usage(&self, id: &str) -> Result<MicrovmUsage, ClientError> {
        self.call("GetMicrovmUsage", Method::GET, &format!("/2026-11-29/microvms/{id}/usage"), None).await
    }

    /// ListMicrovms, to its last page: their ids.
    pub(crate) async fn microvms(&self) -> Result<Vec<String>, ClientError> {
        const MICROVMS: &str = "/2025-09-09/microvms";
        let (mut ids, mut path) = (Vec::new(), MICROVMS.to_owned());
        loop {
            let page: ListMicrovmsResponse = self.call("ListMicrovms", Method::GET, &path, None).await?;
            ids.extend(page.items.into_iter().map(|item| item.microvm_id));
            let Some(next) = page.next_token else { return Ok(ids) };
            path = format!("{MICROVMS}?nextToken={}", encode(&next));
        }
    }

    /// GetEndpointAccess.
    pub(crate) async fn access(&self, of: &MicrovmOrImage) -> Result<EndpointAccess, ClientError> {
        self.call("GetEndpointAccess", Method::GET, &access_path(of), None).await
    }

    /// PutEndpointAccess.
    pub(crate) async fn publish(
        &self,
        of: &MicrovmOrImage,
        ports: &[u16],
    ) -> Result<EndpointAccess, ClientError> {
        let body = json!({ "publicPorts": ports });
        self.call("PutEndpointAccess", Method::PUT, &access_path(of), Some(&body)).await
    }

    /// PutDomain.
    pub(crate) async fn put_domain(&self, name: &str, to: &MicrovmOrImage) -> Result<Domain, ClientError> {
        let body = json!({ "resource": to });
        self.call("PutDomain", Method::PUT, &domain_path(name), Some(&body)).await
    }

    /// DeleteDomain.
    pub(crate) async fn delete_domain(&self, name: &str) -> Result<(), ClientError> {
        self.exchange("DeleteDomain", Method::DELETE, &domain_path(name), None).await.map(drop)
    }

    /// ListDomains, to its last page.
    pub(crate) async fn domains(&self) -> Result<Vec<Domain>, ClientError> {
        let (mut domains, mut path) = (Vec::new(), DOMAINS.to_owned());
        loop {
            let page: ListDomainsResponse = self.call("ListDomains", Method::GET, &path, None).await?;
            domains.extend(page.items);
            let Some(next) = page.next_token else { return Ok(domains) };
            path = format!("{DOMAINS}?nextToken={}", encode(&next));
        }
    }

    /// CreateMicrovmAuthToken for these ports: the headers that let a request in.
    pub(crate) async fn auth_token(
        &self,
        id: MicrovmId,
        ports: &[u16],
        minutes: u32,
    ) -> Result<HeaderMap, ClientError> {
        let ports: Vec<Value> = ports.iter().map(|port| json!({ "port": port })).collect();
        let body = json!({ "expirationInMinutes": minutes, "allowedPorts": ports });
        self.token("CreateMicrovmAuthToken", &format!("/2025-09-09/microvms/{id}/auth-token"), &body).await
    }

    /// CreateMicrovmShellAuthToken: the headers that let a shell's client in.
    pub(crate) async fn shell_token(&self, id: MicrovmId, minutes: u32) -> Result<HeaderMap, ClientError> {
        let body = json!({ "expirationInMinutes": minutes });
        let path = format!("/2025-09-09/microvms/{id}/shell-auth-token");
        self.token("CreateMicrovmShellAuthToken", &path, &body).await
    }

    async fn token(
        &self,
        operation: &'static str,
        path: &str,
        body: &Value,
    ) -> Result<HeaderMap, ClientError> {
        let answer: CreateMicrovmAuthTokenResponse =
            self.call(operation, Method::POST, path, Some(body)).await?;
        let header = |(name, value): (String, api::Sensitive)| -> Result<_, http::Error> {
            Ok((name.parse::<HeaderName>()?, HeaderValue::from_str(&value.0)?))
        };
        let headers: Result<HeaderMap, http::Error> = answer.auth_token.into_iter().map(header).collect();
        headers.map_err(|error| ClientError::Answer { operation, reason: error.to_string() })
    }

    /// Connects to a MicroVM's endpoint (`host` or `host:port`, as GetMicrovm gives it), for HTTP/1.1.
    pub(crate) async fn connect(&self, endpoint: &str) -> Result<EndpointStream, ClientError> {
        let address = self.server.endpoint();
        let host = endpoint.split(':').next().unwrap_or(endpoint).to_owned();
        let connecting = async {
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        let connected = timeout(CONNECT_TIMEOUT, connecting).await.map_err(io::Error::from).flatten();
        connected.map_err(|source| ClientError::Connect { endpoint: endpoint.to_owned(), address, source })
    }

    /// Calls an operation of the API.
    async fn call<A: DeserializeOwned>(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<A, ClientError> {
        let body = self.exchange(operation, method, path, body).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Answer { operation, reason: error.to_string() })
    }

    /// The body of the answer.
    async fn exchange(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, ClientError> {
        let request = self.signed(method, path, body)?;
        let address = self.server.control();
        let silent = |reason: String| ClientError::Silent { operation, address, reason };
        let exchange = timeout(CALL_TIMEOUT, exchange(address, request));
        let (head, body) =
            exchange.await.map_err(|_| silent("too late".into()))?.map_err(|e| silent(e.to_string()))?;
        if !head.status.is_success() {
            return Err(refused(operation, &head, &body));
        }
        Ok(body)
    }

    fn signed(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, self.server.control().to_string());
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let (mut head, ()) = request.body(()).expect("an operation's path and an id").into_parts();
        let now = OffsetDateTime::now_utc();
        sign(&mut head, body.as_bytes(), &self.key, &self.server.region, SERVICE, now)?;
        Ok(Request::from_parts(head, Full::from(body)))
    }
}

/// An identifier as a part of a path, or of a query.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn access_path(of: &MicrovmOrImage) -> String {
    format!("/2026-11-29/endpoint-access/{}", encode(&of.to_string()))
}

fn domain_path(name: &str) -> String {
    format!("{DOMAINS}/{}", encode(name))
}

/// One request on a connection of its own.
async fn exchange(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
    connection.abort();
    Ok((head, body))
}

fn refused(operation: &'static str, head: &http::response::Parts, body: &[u8]) -> ClientError {
    #[derive(Deserialize)]
    struct Complaint {
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    let code = head.headers.get(ERROR_TYPE).and_then(|code| code.to_str().ok());
    let complaint: Option<Complaint> = serde_json::from_slice(body).ok();
    ClientError::Refused {
        operation,
        code: code.map_or_else(|| head.status.to_string(), str::to_owned),
        message: complaint.and_then(|it| it.message).unwrap_or_else(|| "no reason is given".into()),
    }
}

fn trusting(data: &DataDir) -> Result<ClientConfig, ClientError> {
    let path = data.trust();
    let failed = |reason: String| ClientError::Trust { path: path.display().to_string(), reason };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(config)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engines::Chosen;
    use auth::sigv4;
    use hyper::service::service_fn;
    use proxy::ca::LocalCa;
    use std::convert::Infallible;
    use std::sync::Mutex;
    use tokio::net::TcpListener;

    /// A data directory as a server leaves it that listens there.
    pub(crate) fn served(control: SocketAddr, endpoint: SocketAddr) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let (data, _) = DataDir::claim(root.path()).unwrap();
        let account_id = data.open_account().unwrap().id;
        let region = "eu-west-1".into();
        let machines_by = Chosen::for_tests();
        let server =
            ServerFile { listen: control, endpoint_listen: endpoint, region, account_id, machines_by };
        server.write(&data).unwrap();
        let ca = LocalCa::open(&data.ca()).unwrap();
        crate::trust::write(&data.trust(), ca.bundle_pem()).unwrap();
        root
    }

    /// An API that verifies signatures, notes paths and bodies, and answers the same to everything.
    async fn api(status: u16, answer: Value) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (notes, answer) = (Arc::clone(&notes), answer.to_string());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (notes, answer) = (Arc::clone(&notes), answer.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        assert_eq!(sigv4::parse(&sigv4::Request::of(&head)).unwrap().region, "eu-west-1");
                        let body = String::from_utf8(body.to_vec()).unwrap();
                        notes.lock().unwrap().push(format!("{} {} {body}", head.method, head.uri));
                        let response = http::Response::builder().status(status);
                        let response = response.header(ERROR_TYPE, "ResourceNotFoundException");
                        Ok::<_, Infallible>(response.body(Full::<Bytes>::from(answer)).unwrap())
                    }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        (address, seen)
    }

    #[tokio::test]
    async fn tokens_are_headers() {
        let (address, seen) = api(200, json!({ "authToken": { "X-aws-proxy-auth": "a.b" } })).await;
        let root = served(address, address);
        let client = Client::of(root.path(), None).unwrap();
        let id = MicrovmId::random();
        let token = client.auth_token(id, &[5432, 6379], 60).await.unwrap();
        assert_eq!((token.len(), token["x-aws-proxy-auth"].to_str().unwrap()), (1, "a.b"));
        let body = r#"{"allowedPorts":[{"port":5432},{"port":6379}],"expirationInMinutes":60}"#;
        assert_eq!(*seen.lock().unwrap(), [format!("POST /2025-09-09/microvms/{id}/auth-token {body}")]);
    }

    #[tokio::test]
    async fn refusals_and_silence_say_what_to_do() {
        let (address, _) = api(404, json!({ "message": "no such MicroVM" })).await;
        let root = served(address, address);
        let client = Client::of(root.path(), None).unwrap();
        let error = client.microvm(MicrovmId::random()).await.unwrap_err().to_string();
        assert!(
            error.contains("GetMicrovm is refused: no such MicroVM (ResourceNotFoundException)"),
            "{error}"
        );
        assert!(error.contains("list-microvms"), "{error}");

        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let root = served(nobody, nobody);
        let client = Client::of(root.path(), None).unwrap();
        let error = client.microvm(MicrovmId::random()).await.unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
        let error = client.connect("x.localhost:1").await.unwrap_err().to_string();
        assert!(error.contains("cannot connect to the endpoint x.localhost:1"), "{error}");

        let empty = tempfile::tempdir().unwrap();
        let error = Client::of(empty.path(), None).unwrap_err().to_string();
        assert!(error.contains("rekindle serve"), "{error}");
    }
}
