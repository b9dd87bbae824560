//! One request's way: to the fallback, or authenticate, route, call, render.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use api::{Error, Family};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service as HyperService;

use crate::body::{self, Body, BodyError};
use crate::service::Call;
use crate::{Keys, Service, authenticate, respond, route};

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Fallback = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// The HTTP side of the control API. Cloning shares it.
#[derive(Clone)]
pub struct Control {
    service: Arc<dyn Service>,
    keys: Arc<dyn Keys>,
    fallback: Option<Fallback>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("fallback", &self.fallback.is_some()).finish_non_exhaustive()
    }
}

impl Control {
    /// Without a fallback: other paths are unknown operations.
    #[must_use]
    pub fn new(service: Arc<dyn Service>, keys: Arc<dyn Keys>) -> Self {
        Self { service, keys, fallback: None }
    }

    /// Hands every path that is no Lambda API to `fallback` (S3), which authenticates for itself.
    #[must_use]
    pub fn with_fallback<S, B>(mut self, fallback: S) -> Self
    where
        S: HyperService<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: fmt::Debug + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        self.fallback = Some(Arc::new(move |request| {
            let answer = fallback.call(request);
            Box::pin(async move {
                match answer.await {
                    Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
                    Err(error) => respond::error(
                        &Error::internal(format!("Serving the request: {error:?}")),
                        Family::Microvms,
                    ),
                }
            })
        }));
        self
    }

    /// Answers one request; every failure is an answer too.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        match &self.fallback {
            Some(fallback) if !route::is_lambda(request.uri().path()) => fallback(request).await,
            _ => self.lambda(request).await,
        }
    }

    /// A request to a Lambda API, whatever its body is made of.
    pub async fn lambda<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        let (parts, body) = request.into_parts();
        let mut family = Family::Microvms;
        let outcome = async {
            let body = body::read(body).await?;
            let account = authenticate::authenticate(&parts, &body, self.keys.as_ref())?;
            let route = route::route(parts.method.as_str(), parts.uri.path(), parts.uri.query())?;
            let model = route.operation.model();
            family = model.family;
            let answer = self.service.answer(Call { account, route, body }).await?;
            Ok(respond::success(model.status, answer))
        };
        let outcome: Result<_, Error> = outcome.await;
        outcome.unwrap_or_else(|error| {
            tracing::debug!(method = %parts.method, path = parts.uri.path(), %error, "request refused");
            respond::error(&error, family)
        })
    }
}

impl HyperService<Request<Incoming>> for Control {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let control = self.clone();
        Box::pin(async move { Ok(control.handle(request).await) })
    }
}
