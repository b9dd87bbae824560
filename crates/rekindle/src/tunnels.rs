//! TCP connections to ports of a MicroVM, each by a CONNECT through its endpoint, which wakes it.

use std::time::{Duration, Instant};

use api::{GetMicrovmResponse, MicrovmState};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ids::MicrovmId;
use proxy::headers::{APP_CONNECT_FAILED, PROXY_ERROR, PROXY_PORT};
use tokio::sync::Mutex;

use crate::client::{Client, ClientError};

/// How long a token lives, in minutes: the longest that there is.
const TOKEN_MINUTES: u32 = 60;
/// How long before its end a token is renewed; no tunnel takes longer to open.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 60);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The server cannot be asked, or the endpoint not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The MicroVM is over, for good.
    #[error("{id} has ended ({reason}); run a new one with `aws lambda-microvms run-microvm`")]
    Over {
        /// Which.
        id: MicrovmId,
        /// Its state's reason.
        reason: String,
    },
    /// The application does not listen there.
    #[error("nothing listens on port {port} of {id}; `rekindle logs {id}` shows what its application prints")]
    Nobody {
        /// Of which MicroVM.
        id: MicrovmId,
        /// Which port.
        port: u16,
    },
    /// The endpoint would not.
    #[error(
        "the endpoint refuses a tunnel to port {port} of {id} ({status}), which is {state}; if it sleeps, there is no \
         room to wake it or its idle policy does not: `aws lambda-microvms resume-microvm` says which"
    )]
    Refused {
        /// To which MicroVM.
        id: MicrovmId,
        /// To which port.
        port: u16,
        /// The answer's status.
        status: StatusCode,
        /// The MicroVM's state.
        state: String,
    },
    /// The endpoint speaks no HTTP, or the connection broke.
    #[error("the endpoint of {id} broke off before a tunnel was there ({source}); try again")]
    Broken {
        /// Of which MicroVM.
        id: MicrovmId,
        /// What happened.
        source: hyper::Error,
    },
}

struct Token {
    headers: HeaderMap,
    until: Instant,
}

/// Opens TCP connections to some ports of one MicroVM.
pub(crate) struct Tunnels {
    client: Client,
    id: MicrovmId,
    endpoint: String,
    ports: Vec<u16>,
    token: Mutex<Option<Token>>,
}

impl Tunnels {
    /// To a MicroVM that is not over. Nothing is woken yet.
    pub(crate) async fn to(client: Client, id: MicrovmId, ports: Vec<u16>) -> Result<Self, TunnelError> {
        let endpoint = living(client.microvm(id).await?, id)?.endpoint;
        Ok(Self { client, id, endpoint, ports, token: Mutex::default() })
    }

    /// A connection to a port; the MicroVM is woken first.
    pub(crate) async fn open(&self, port: u16) -> Result<TokioIo<Upgraded>, TunnelError> {
        let broken = |source| TunnelError::Broken { id: self.id, source };
        let token = match self.token().await {
            Ok(token) => token,
            // There are no tokens for what has ended: that is the clearer reason.
            Err(error) => return Err(self.state().await.err().unwrap_or(error.into())),
        };
        let stream = self.client.connect(&self.endpoint).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(connect(port, token)).await.map_err(broken)?;
        if !answer.status().is_success() {
            return Err(self.refusal(port, &answer).await);
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await.map_err(broken)?))
    }

    async fn token(&self) -> Result<HeaderMap, ClientError> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.headers.clone());
        }
        let life = Duration::from_secs(u64::from(TOKEN_MINUTES) * 60);
        let until = Instant::now() + life - RENEW_BEFORE;
        let headers = self.client.auth_token(self.id, &self.ports, TOKEN_MINUTES).await?;
        *token = Some(Token { headers: headers.clone(), until });
        Ok(headers)
    }

    /// Its state, where it is not over.
    async fn state(&self) -> Result<MicrovmState, TunnelError> {
        Ok(living(self.client.microvm(self.id).await?, self.id)?.state)
    }

    async fn refusal(&self, port: u16, answer: &Response<Incoming>) -> TunnelError {
        if answer.headers().get(PROXY_ERROR).is_some_and(|code| code == APP_CONNECT_FAILED) {
            return TunnelError::Nobody { id: self.id, port };
        }
        if answer.status() == StatusCode::FORBIDDEN {
            // By a clock that jumped, the token may be over before it was to be renewed.
            self.token.lock().await.take();
        }
        match self.state().await {
            Ok(state) => {
                let state = state.to_string();
                TunnelError::Refused { id: self.id, port, status: answer.status(), state }
            }
            Err(error) => error,
        }
    }
}

/// The MicroVM, where it is not over.
fn living(microvm: GetMicrovmResponse, id: MicrovmId) -> Result<GetMicrovmResponse, TunnelError> {
    match microvm.state {
        MicrovmState::Terminating | MicrovmState::Terminated => {
            let reason = microvm.state_reason.unwrap_or_else(|| "no reason is given yet".into());
            Err(TunnelError::Over { id, reason })
        }
        _ => Ok(microvm),
    }
}

fn connect(port: u16, token: HeaderMap) -> Request<Empty<Bytes>> {
    let target = format!("localhost:{port}");
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::builder().authority(target.as_str()).build().expect("a host and a number");
    *request.headers_mut() = token;
    request.headers_mut().insert(http::header::HOST, target.parse().expect("a host and a number"));
    request.headers_mut().insert(PROXY_PORT, port.into());
    request
}
