//! IAM and STS as the AWS CLI and SDKs call them: a form in, XML out.

mod call;
mod error;
mod fields;
mod form;
mod iam;
mod page;
mod sts;
mod xml;

use auth::sigv4::SigV4Error;
use uuid::Uuid;

use crate::caller::Caller;
use crate::identity::Identity;

use call::{Call, Handler};
use error::Refusal;
use xml::Xml;

pub use form::{FormError, parse as parse_form};

/// Which of the two APIs is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Users, roles and policies.
    Iam,
    /// Sessions.
    Sts,
}

impl Service {
    /// By the name in the credential scope of a signature.
    #[must_use]
    pub fn from_signing_name(name: &str) -> Option<Self> {
        match name {
            "iam" => Some(Self::Iam),
            "sts" => Some(Self::Sts),
            _ => None,
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Iam => "2010-05-08",
            Self::Sts => "2011-06-15",
        }
    }

    fn signing_name(self) -> &'static str {
        match self {
            Self::Iam => "iam",
            Self::Sts => "sts",
        }
    }

    fn namespace(self) -> String {
        format!("https://{}.amazonaws.com/doc/{}/", self.signing_name(), self.version())
    }

    fn handler(self, action: &str) -> Option<Handler> {
        match self {
            Self::Iam => iam::handler(action),
            Self::Sts => sts::handler(action),
        }
    }
}

/// An answer for the wire; its content type is `text/xml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryAnswer {
    /// HTTP status.
    pub status: u16,
    /// XML.
    pub body: String,
    /// What the body says in `RequestId`; AWS repeats it in the header `x-amzn-requestid`.
    pub request_id: String,
    /// The error's code and message, where it is one.
    pub error: Option<(String, String)>,
}

/// The answer to a request whose signature or form is not accepted.
#[must_use]
pub fn refuse(service: Service, error: &SigV4Error) -> QueryAnswer {
    let name = service.signing_name();
    let refusal = Refusal { status: error.status(name), code: error.code(name), message: error.to_string() };
    render(service, "", Err(refusal))
}

/// Carries out one call.
pub(crate) async fn answer(
    identity: &Identity,
    caller: &Caller,
    service: Service,
    form: &[(String, String)],
) -> QueryAnswer {
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let (action, version) = (field("Action"), field("Version"));
    let outcome = match service.handler(action).filter(|_| version == service.version()) {
        Some(handler) => run(identity, caller, service, action, form, handler).await,
        None => Err(Refusal::unknown_action(action, version)),
    };
    if let Err(refusal) = &outcome {
        tracing::debug!(action, code = refusal.code, message = refusal.message, "call refused");
    }
    render(service, action, outcome)
}

async fn run(
    identity: &Identity,
    caller: &Caller,
    service: Service,
    action: &str,
    form: &[(String, String)],
    handler: Handler,
) -> Result<Xml, Refusal> {
    let reads = service == Service::Sts || action.starts_with("Get") || action.starts_with("List");
    // Taken before the account is looked at, so that the change is made to what is there.
    let changing = if reads { None } else { Some(identity.changing().await) };
    let mut call = Call::new(identity, caller, service, action, form)?;
    handler(&mut call)?;
    let (draft, answer) = call.into_parts();
    if let Some(changing) = changing.filter(|_| draft.is_changed()) {
        identity.commit(draft, changing).await?;
    }
    Ok(answer)
}

fn render(service: Service, action: &str, outcome: Result<Xml, Refusal>) -> QueryAnswer {
    let request_id = Uuid::new_v4().to_string();
    let mut xml = Xml::default();
    let namespace = service.namespace();
    match outcome {
        Ok(result) => {
            let response = format!("{action}Response");
            xml.open_in(&response, &namespace);
            if !result.is_empty() {
                xml.within(&format!("{action}Result"), |xml| xml.append(&result));
            }
            xml.within("ResponseMetadata", |xml| xml.text("RequestId", &request_id));
            xml.close(&response);
            QueryAnswer { status: 200, body: xml.into_string(), request_id, error: None }
        }
        Err(Refusal { status, code, message }) => {
            xml.open_in("ErrorResponse", &namespace);
            xml.within("Error", |xml| {
                xml.text("Type", if status < 500 { "Sender" } else { "Receiver" });
                xml.text("Code", code);
                xml.text("Message", &message);
            });
            xml.text("RequestId", &request_id);
            xml.close("ErrorResponse");
            let error = Some((code.to_owned(), message));
            QueryAnswer { status, body: xml.into_string(), request_id, error }
        }
    }
}
