//! One request's way: to the fallback, or authenticate, route, call, render.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use api::{Error, Family, route};
use bytes::Bytes;
use cloudwatch::CloudWatch;
use futures::FutureExt;
use futures::future::{BoxFuture, NeverError};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use identity::Identity;
use timeline::{Step, TRACE_PARENT, Timeline};

use crate::audit::{self, Audit};
use crate::authenticate::{self, SigningName};
use crate::body::{self, Body, BodyError};
use crate::respond::{self, RequestId};
use crate::service::{self, Call};
use crate::throttle::Throttle;
use crate::{Service, logs, query};

/// What the audit log calls the operations' service.
const LAMBDA: &str = "lambda.amazonaws.com";

type Answer = BoxFuture<'static, Response<Body>>;
type Fallback = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// What stands before the operations.
#[derive(Debug)]
pub struct Front {
    /// The region that this installation is.
    pub region: String,
    /// Who is who.
    pub identity: Identity,
    /// How often operations may be called.
    pub throttle: Throttle,
    /// Where calls are noted.
    pub audit: Audit,
}

/// The HTTP side of the control API. Cloning shares it.
#[derive(Clone)]
pub struct Control {
    service: Arc<dyn Service>,
    front: Arc<Front>,
    logs: Option<CloudWatch>,
    fallback: Option<Fallback>,
    peer: Option<IpAddr>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("fallback", &self.fallback.is_some()).finish_non_exhaustive()
    }
}

impl Control {
    /// Without a fallback: other paths are unknown operations.
    #[must_use]
    pub fn new(service: Arc<dyn Service>, front: Front) -> Self {
        Self { service, front: Arc::new(front), logs: None, fallback: None, peer: None }
    }

    /// The same, for requests that come from there.
    #[must_use]
    pub fn for_peer(&self, peer: IpAddr) -> Self {
        Self { peer: Some(peer), ..self.clone() }
    }

    /// Answers CloudWatch Logs too.
    #[must_use]
    pub fn with_logs(self, logs: CloudWatch) -> Self {
        Self { logs: Some(logs), ..self }
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
                        &RequestId::new(),
                    ),
                }
            })
        }));
        self
    }

    /// Answers one request; every failure is an answer too. Each kind has a future of its own, as one for all would be as
    /// large as the largest.
    fn handle(self, request: Request<Incoming>) -> Answer {
        if query::is_query(&request) {
            return Box::pin(async move { self.query(request).await });
        }
        if let Some(service) = self.logs.as_ref().filter(|_| logs::is_logs(&request)).cloned() {
            return Box::pin(async move { logs::answer(&service, &self.front, self.peer, request).await });
        }
        match &self.fallback {
            Some(fallback) if !route::is_lambda(request.uri().path()) => fallback(request),
            _ => Box::pin(async move { self.lambda(request).await }),
        }
    }

    /// A request to a Lambda API, whatever its body is made of.
    pub async fn lambda<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        let trace_parent = request.headers().get(TRACE_PARENT).and_then(|value| value.to_str().ok());
        let timeline = Timeline::begin_for(trace_parent);
        let (parts, body) = request.into_parts();
        let id = RequestId::new();
        match self.admit(&parts, body).await {
            Ok(call) => {
                timeline.reached(Step::Api);
                self.carry_out_whole(parts, call, id, timeline).await
            }
            Err(error) => {
                tracing::debug!(method = %parts.method, path = parts.uri.path(), %error, "request refused");
                let family = route::family(parts.uri.path());
                respond::error(&error, family, &id)
            }
        }
    }

    /// A call of IAM or STS, whatever its body is made of.
    pub async fn query<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        query::answer(&self.front, self.peer, request).await
    }

    /// The call that a request is, once it is known whose.
    async fn admit<B>(&self, parts: &Parts, body: B) -> Result<Call, Error>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        let body = body::read(body).await?;
        let front = &self.front;
        let scope = (SigningName::Lambda, front.region.as_str());
        let caller = authenticate::authenticate(parts, &body, &front.identity, scope)?;
        let route = route::route(parts.method.as_str(), parts.uri.path(), parts.uri.query())?;
        Ok(Call { caller, peer: self.peer, route, body })
    }

    /// Also where the client hangs up: what was done is noted.
    async fn carry_out_whole(
        &self,
        parts: Parts,
        call: Call,
        id: RequestId,
        timeline: Timeline,
    ) -> Response<Body> {
        let (control, known) = (self.clone(), id.clone());
        let whole = timeline.scope(async move { control.carry_out(&parts, call, &id).await });
        let mut whole = Box::pin(AssertUnwindSafe(whole).catch_unwind());
        // What waits for nothing, as most reads do not, is over at once and needs no task that outlives the client.
        let ended = match futures::poll!(&mut whole) {
            Poll::Ready(ended) => ended.ok(),
            Poll::Pending => tokio::spawn(whole).await.ok().and_then(Result::ok),
        };
        ended.unwrap_or_else(|| {
            tracing::error!(request = known.as_str(), "a call was not carried out to its end");
            let message = "Carrying out the request: it was broken off; report this";
            respond::error(&Error::internal(message), Family::Microvms, &known)
        })
    }

    async fn carry_out(&self, parts: &Parts, call: Call, id: &RequestId) -> Response<Body> {
        let (operation, caller) = (call.route.operation, Arc::clone(&call.caller));
        let (model, family) = (operation.model(), call.route.family());
        let answer = match self.front.throttle.admit(&caller.account, operation, Instant::now()) {
            Ok(()) => self.service.answer(call).await,
            Err(error) => service::Answer { resources: vec![], outcome: Err(error) },
        };
        let error = answer.outcome.as_ref().err();
        let event = audit::Event {
            source: LAMBDA,
            name: model.name,
            caller: &caller,
            peer: self.peer,
            user_agent: audit::user_agent(&parts.headers),
            resources: &answer.resources,
            error: error
                .map(|error| (error.kind.name(error.family.unwrap_or(family)), error.message.as_str())),
            request_id: id.as_str(),
            read_only: model.method == "GET",
            data: audit::is_data(operation),
        };
        self.front.audit.note(&event).await;
        match answer.outcome {
            Ok(json) => respond::success(model.status, json, id),
            Err(error) => {
                tracing::debug!(operation = model.name, %error, "call refused");
                respond::error(&error, error.family.unwrap_or(family), id)
            }
        }
    }
}

impl HyperService<Request<Incoming>> for Control {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = NeverError<Answer>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.clone().handle(request).never_error()
    }
}
