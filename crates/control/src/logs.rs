//! CloudWatch Logs over HTTP: JSON 1.1 in, JSON or a stream of events out. What is done is `cloudwatch`'s.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use cloudwatch::{CloudWatch, Operation, Refusal, Reply};
use http::request::Parts;
use http::{HeaderName, Request, Response};

use crate::audit;
use crate::authenticate::{self, SigningName};
use crate::body::{self, Body, BodyError};
use crate::control::Front;
use crate::respond::{self, RequestId};

/// What an operation's name stands behind in [`TARGET`].
const PREFIX: &str = "Logs_20140328.";
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
/// Longest body of a request: a batch of events with a character in six escaped, and what stands around each.
const MAX_REQUEST: usize = 8 << 20;

/// Whether a request is for CloudWatch Logs.
pub fn is_logs<B>(request: &Request<B>) -> bool {
    operation(request.headers()).is_some()
}

fn operation(headers: &http::HeaderMap) -> Option<&str> {
    headers.get(TARGET)?.to_str().ok()?.strip_prefix(PREFIX)
}

/// Answers such a request.
pub(crate) async fn answer<B>(
    service: &CloudWatch,
    front: &Front,
    peer: Option<IpAddr>,
    request: Request<B>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let (parts, body) = request.into_parts();
    let id = RequestId::new();
    let outcome = match body::read_within(body, MAX_REQUEST).await {
        Ok(body) => carry_out(service, front, peer, &parts, body, &id).await,
        Err(error) => Err(refusal(&error)),
    };
    match outcome {
        Ok(Reply::Json(json)) => respond::amz_json(json, &id),
        Ok(Reply::Events(messages)) => respond::events(messages, &id),
        Err(Refusal { status, code, message }) => {
            tracing::debug!(code, message, "call refused");
            respond::amz_json_error(status, code, &message, &id)
        }
    }
}

async fn carry_out(
    service: &CloudWatch,
    front: &Front,
    peer: Option<IpAddr>,
    parts: &Parts,
    body: Bytes,
    id: &RequestId,
) -> Result<Reply, Refusal> {
    let scope = (SigningName::Logs, front.region.as_str());
    let caller = authenticate::authenticate(parts, &body, &front.identity, scope);
    let caller = caller.map_err(|error| refusal(&error))?;
    let name = operation(&parts.headers).unwrap_or_default();
    let answer = service.answer(Arc::clone(&caller), name, body).await;
    let operation = Operation::parse(name);
    let event = audit::Event {
        source: "logs.amazonaws.com",
        name,
        caller: &caller,
        peer,
        user_agent: audit::user_agent(&parts.headers),
        resources: &answer.resources,
        error: answer.outcome.as_ref().err().map(|refusal| (refusal.code, refusal.message.as_str())),
        request_id: id.as_str(),
        read_only: operation.is_some_and(Operation::is_read),
        data: operation.is_some_and(Operation::is_data),
    };
    front.audit.note(&event).await;
    answer.outcome
}

/// In the manners of JSON 1.1, where signatures are the client's fault like everything else.
fn refusal(error: &api::Error) -> Refusal {
    let code = error.kind.name(api::Family::Microvms);
    Refusal { status: 400, code, message: error.message.clone() }
}
