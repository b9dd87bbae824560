//! IAM and STS over HTTP: a form in, XML out. What they do is `identity`'s.

use std::net::IpAddr;

use auth::sigv4::SigV4Error;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Request, Response};
use identity::{QueryAnswer, Service, parse_form};

use crate::audit;
use crate::authenticate::{self, SigningName};
use crate::body::{self, Body, BodyError};
use crate::control::Front;
use crate::respond;

const FORM: &str = "application/x-www-form-urlencoded";

/// Whether a request is for IAM or STS: a form that is posted to the root, or stands in its query, as whoever proves its
/// identity to a third party has it (a presigned GetCallerIdentity).
pub fn is_query<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let form = match *request.method() {
        Method::POST => kind.starts_with(FORM),
        Method::GET => in_query(request.uri().query().unwrap_or_default()),
        _ => false,
    };
    form && request.uri().path() == "/"
}

fn in_query(query: &str) -> bool {
    query.split('&').any(|pair| pair.starts_with("Action="))
}

/// Answers such a request.
pub(crate) async fn answer<B>(front: &Front, peer: Option<IpAddr>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let (parts, body) = request.into_parts();
    let name = authenticate::signing_name(&parts);
    let (service, name) = match name {
        Some(SigningName::Iam) => (Service::Iam, SigningName::Iam),
        _ => (Service::Sts, SigningName::Sts),
    };
    let answer = match body::read(body).await {
        Ok(body) => carry_out(front, peer, &parts, &body, (service, name)).await,
        Err(_) => identity::refuse(service, &SigV4Error::Incomplete("the body is too long, or ended early")),
    };
    respond::xml(answer.status, answer.body, &answer.request_id)
}

async fn carry_out(
    front: &Front,
    peer: Option<IpAddr>,
    parts: &Parts,
    body: &[u8],
    (service, name): (Service, SigningName),
) -> QueryAnswer {
    let caller = match authenticate::verified(parts, body, &front.identity, (name, &front.region)) {
        Ok(caller) => caller,
        Err(error) => return identity::refuse(service, &error.into_signature()),
    };
    let text =
        if parts.method == Method::GET { parts.uri.query().unwrap_or_default().as_bytes() } else { body };
    let form = match parse_form(text) {
        Ok(form) => form,
        Err(_) => return identity::refuse(service, &SigV4Error::Incomplete("the body is no form")),
    };
    let answer = front.identity.query(&caller, service, &form).await;
    let action = form.iter().find(|(name, _)| name == "Action").map_or("", |(_, action)| action.as_str());
    let event = audit::Event {
        source: if service == Service::Iam { "iam.amazonaws.com" } else { "sts.amazonaws.com" },
        name: action,
        caller: &caller,
        peer,
        user_agent: audit::user_agent(&parts.headers),
        resources: &[],
        error: answer.error.as_ref().map(|(code, message)| (code.as_str(), message.as_str())),
        request_id: &answer.request_id,
        read_only: action.starts_with("Get") || action.starts_with("List"),
        data: false,
    };
    front.audit.note(&event).await;
    answer
}
