//! One request's way: to the fallback, or authenticate, route, decode, call, render.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use api::decode::decode;
use api::{Error, ErrorKind, Request as ApiRequest};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use ids::AccountId;

use crate::body::{self, Body, BodyError};
use crate::route::{self, Operation, Route};
use crate::{Keys, Service, authenticate, respond};

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
                    Err(error) => respond::error(&Error::internal(format!("Serving the request: {error:?}"))),
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
        let outcome = async {
            let body = body::read(body).await?;
            let account = authenticate::authenticate(&parts, &body, self.keys.as_ref())?;
            let found = route::route(&parts.method, parts.uri.path(), parts.uri.query());
            let route = found.ok_or_else(|| unknown(&parts))?;
            self.dispatch(route, &body, account).await
        };
        outcome.await.unwrap_or_else(|error: Error| {
            tracing::debug!(method = %parts.method, path = parts.uri.path(), %error, "request refused");
            respond::error(&error)
        })
    }

    async fn dispatch(&self, route: Route, body: &[u8], account: AccountId) -> Result<Response<Body>, Error> {
        macro_rules! operations {
            ($($operation:ident => $function:ident),+ $(,)?) => {
                match route.operation {
                    $(Operation::$operation => {
                        let request = decode(body, &route.parameters)?;
                        let status = status_of(&request);
                        let answer = self.service.$function(account, request).await?;
                        Ok(respond::success(status, &answer))
                    })+
                }
            };
        }
        operations! {
            CreateMicrovmImage => create_microvm_image,
            UpdateMicrovmImage => update_microvm_image,
            GetMicrovmImage => get_microvm_image,
            ListMicrovmImages => list_microvm_images,
            DeleteMicrovmImage => delete_microvm_image,
            GetMicrovmImageVersion => get_microvm_image_version,
            ListMicrovmImageVersions => list_microvm_image_versions,
            GetMicrovmImageBuild => get_microvm_image_build,
            ListMicrovmImageBuilds => list_microvm_image_builds,
            ListManagedMicrovmImages => list_managed_microvm_images,
            RunMicrovm => run_microvm,
            GetMicrovm => get_microvm,
            ListMicrovms => list_microvms,
            SuspendMicrovm => suspend_microvm,
            ResumeMicrovm => resume_microvm,
            TerminateMicrovm => terminate_microvm,
            CreateMicrovmAuthToken => create_microvm_auth_token,
        }
    }
}

fn status_of<R: ApiRequest>(_: &R) -> u16 {
    R::STATUS
}

fn unknown(parts: &http::request::Parts) -> Error {
    let message = format!("No operation answers {} {}", parts.method, parts.uri.path());
    Error::new(ErrorKind::UnknownOperation, message)
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
