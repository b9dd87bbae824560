//! HTTP as what is exported needs it: one request, one short answer, within limits.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Scheme, Uri};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody's certificate could be checked.
    #[error(
        "cannot send over TLS: reading this host's certificate authorities: {0}; install ca-certificates"
    )]
    Authorities(#[from] io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS for sending: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection, or one that broke off.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    /// Too slow.
    #[error("it did not take the request and answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
    /// Too long, or broken off.
    #[error("its answer cannot be read: {0}")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends requests to one place, over connections that it keeps. Clones share them.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limit: Duration,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl HttpClient {
    /// For requests to `uri`, of which the scheme tells whether TLS is needed, that may take as long as `limit`.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(uri: &Uri, limit: Duration) -> Result<Self, StartError> {
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector(uri)?), limit })
    }

    /// The status and the body of the answer.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), SendError> {
        tokio::time::timeout(self.limit, async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(SendError::Answer)?.to_bytes()))
        })
        .await?
    }
}

fn connector(uri: &Uri) -> Result<HttpsConnector<HttpConnector>, StartError> {
    let builder = HttpsConnectorBuilder::new();
    let builder = if uri.scheme() == Some(&Scheme::HTTPS) {
        builder.with_provider_and_native_roots(ring::default_provider())?
    } else {
        builder.with_tls_config(no_authorities()?)
    };
    Ok(builder.https_or_http().enable_http1().build())
}

/// For a place that is not spoken to over TLS.
fn no_authorities() -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
