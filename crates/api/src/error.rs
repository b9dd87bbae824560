//! What a refused or failed request answers (SPEC §2.3).

use serde_json::{Map, Value};

use crate::generated::operations::{CORE_ERRORS, ENDPOINTS_ERRORS, MICROVMS_ERRORS};
use crate::operation::Family;

/// When a client whom the host has no room for is told to come again.
const FULL_RETRY_SECONDS: u32 = 5;

/// Which error it is: settles the status and `x-amzn-errortype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller may not do this.
    AccessDenied,
    /// The resource's state, or an idempotency token, forbids it.
    Conflict,
    /// There is no such resource.
    ResourceNotFound,
    /// The request breaks a rule.
    Validation,
    /// A limit of the account is reached.
    ServiceQuotaExceeded,
    /// Too many requests.
    Throttling,
    /// Our fault.
    InternalServer,
    /// No room on this host now.
    InsufficientCapacity,
    /// The body is not JSON, or a member has the wrong type.
    Serialization,
    /// No operation has this method and path.
    UnknownOperation,
    /// The access key is not known.
    UnrecognizedClient,
    /// The signature is not that of this request, or its time is not now.
    InvalidSignature,
    /// `Authorization` is there but incomplete.
    IncompleteSignature,
    /// The request is not signed.
    MissingAuthenticationToken,
    /// The session's credentials have run out.
    ExpiredToken,
    /// The body is longer than any request may be.
    RequestEntityTooLarge,
}

/// An error as a service's model has it.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorModel {
    /// Its name, which `x-amzn-errortype` tells.
    pub name: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Whether the client is to blame.
    pub sender: bool,
    /// Members of its body.
    pub members: &'static [&'static str],
    /// Whether it says in `Retry-After` when to come again.
    pub retry_after: bool,
}

impl ErrorKind {
    /// The HTTP status.
    #[must_use]
    pub fn status(self, family: Family) -> u16 {
        self.model(family).map_or_else(|| self.unmodelled_status(), |model| model.status)
    }

    /// The text of `x-amzn-errortype`.
    #[must_use]
    pub fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Validation, Family::Core | Family::Lambda) => "InvalidParameterValueException",
            (Self::Conflict, Family::Core | Family::Lambda) => "ResourceConflictException",
            (Self::ServiceQuotaExceeded, Family::Core) => "NetworkConnectorLimitExceededException",
            (Self::Throttling, Family::Core | Family::Lambda) => "TooManyRequestsException",
            (Self::InternalServer, Family::Core | Family::Lambda) => "ServiceException",
            (Self::Validation, _) => "ValidationException",
            (Self::Conflict, _) => "ConflictException",
            (Self::ServiceQuotaExceeded, _) => "ServiceQuotaExceededException",
            (Self::Throttling, _) => "ThrottlingException",
            (Self::InternalServer, _) => "InternalServerException",
            (Self::AccessDenied, _) => "AccessDeniedException",
            (Self::ResourceNotFound, _) => "ResourceNotFoundException",
            (Self::InsufficientCapacity, _) => "InsufficientCapacityException",
            (Self::Serialization, _) => "SerializationException",
            (Self::UnknownOperation, _) => "UnknownOperationException",
            (Self::UnrecognizedClient, _) => "UnrecognizedClientException",
            (Self::InvalidSignature, _) => "InvalidSignatureException",
            (Self::IncompleteSignature, _) => "IncompleteSignatureException",
            (Self::MissingAuthenticationToken, _) => "MissingAuthenticationTokenException",
            (Self::ExpiredToken, _) => "ExpiredTokenException",
            (Self::RequestEntityTooLarge, _) => "RequestEntityTooLargeException",
        }
    }

    /// What the family's model says of it; of an error that only the other family models, what that one says.
    #[must_use]
    pub fn model(self, family: Family) -> Option<&'static ErrorModel> {
        let name = self.name(family);
        let find = |errors: &'static [ErrorModel]| errors.iter().find(|model| model.name == name);
        match family {
            Family::Microvms | Family::Lambda => find(&MICROVMS_ERRORS),
            Family::Endpoints => find(&ENDPOINTS_ERRORS),
            Family::Core => find(&CORE_ERRORS).or_else(|| find(&MICROVMS_ERRORS)),
        }
    }

    /// Errors of signatures and of HTTP are in no model.
    fn unmodelled_status(self) -> u16 {
        match self {
            Self::UnrecognizedClient
            | Self::InvalidSignature
            | Self::MissingAuthenticationToken
            | Self::ExpiredToken => 403,
            Self::UnknownOperation => 404,
            Self::RequestEntityTooLarge => 413,
            _ => 400,
        }
    }
}

/// Members of an error beyond its message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The resource concerned.
    pub resource_id: Option<String>,
    /// Its kind, for example `MicrovmImage`.
    pub resource_type: Option<String>,
    /// Whose quota was exceeded.
    pub service_code: Option<String>,
    /// Which quota was exceeded.
    pub quota_code: Option<String>,
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.name(Family::Microvms))]
pub struct Error {
    /// Which error.
    pub kind: ErrorKind,
    /// What was attempted and what to do.
    pub message: String,
    /// The members that only some errors have.
    pub details: Box<Details>,
    /// Sent as `Retry-After`.
    pub retry_after_seconds: Option<u32>,
    /// Whose manners it has, where those are not its operation's.
    pub family: Option<Family>,
}

impl Error {
    /// The JSON body: the members that the model gives this error, as far as they are known.
    #[must_use]
    pub fn body(&self, family: Family) -> Value {
        let model = self.kind.model(family);
        let members = model.map_or(&["message"][..], |model| model.members);
        let known = |member: &&str| match *member {
            "message" | "Message" => Some(self.message.clone()),
            "Type" => {
                Some(if model.is_some_and(|model| model.sender) { "User" } else { "Service" }.to_owned())
            }
            "resourceId" => self.details.resource_id.clone(),
            "resourceType" => self.details.resource_type.clone(),
            "serviceCode" => self.details.service_code.clone(),
            "quotaCode" => self.details.quota_code.clone(),
            _ => None,
        };
        let given = members.iter().filter_map(|member| Some(((*member).to_owned(), known(member)?.into())));
        Value::Object(given.collect::<Map<_, _>>())
    }

    /// An error without any field but its message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            details: Box::default(),
            retry_after_seconds: None,
            family: None,
        }
    }

    /// The request breaks a rule.
    #[must_use]
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Validation, message)
    }

    /// There is no such resource.
    #[must_use]
    pub fn not_found(resource_type: &str, id: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceNotFound, message).about(resource_type, id)
    }

    /// The resource's state forbids it.
    #[must_use]
    pub fn conflict(resource_type: &str, id: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message).about(resource_type, id)
    }

    /// A quota is reached.
    #[must_use]
    pub fn quota(quota_code: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::ServiceQuotaExceeded, message);
        error.details.service_code = Some("lambda".into());
        error.details.quota_code = Some(quota_code.into());
        error
    }

    /// Our fault; clients may try again shortly.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self { retry_after_seconds: Some(1), ..Self::new(ErrorKind::InternalServer, message) }
    }

    /// No room on this host now.
    #[must_use]
    pub fn capacity(message: impl Into<String>) -> Self {
        let error = Self::new(ErrorKind::InsufficientCapacity, message);
        Self { retry_after_seconds: Some(FULL_RETRY_SECONDS), ..error }
    }

    /// The same, of ResumeMicrovm, whose model has no other error that asks to come again.
    #[must_use]
    pub fn no_room_to_resume(message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Throttling, message);
        error.details.service_code = Some("lambda".into());
        Self { retry_after_seconds: Some(FULL_RETRY_SECONDS), ..error }
    }

    /// `No MicroVM has this id`, as AWS words it.
    #[must_use]
    pub fn unknown_microvm(id: &str) -> Self {
        Self::not_found("Microvm", id, format!("Unable to find microvmIdentifier {id}"))
    }

    /// No image has this ARN.
    #[must_use]
    pub fn unknown_image(arn: &str) -> Self {
        Self::not_found("MicrovmImage", arn, format!("MicroVMImage not found for MicroVMImageID: {arn}"))
    }

    /// No name of the account's own is called so.
    #[must_use]
    pub fn unknown_domain(name: &str) -> Self {
        Self::not_found("Domain", name, format!("Domain not found: {name}"))
    }

    /// Nothing of this image can be run.
    #[must_use]
    pub fn no_active_version(arn: &str, version: Option<&str>) -> Self {
        let version = version.map(|version| format!(" and version {version}")).unwrap_or_default();
        let message = format!("No active version found for MicroVM image {arn}{version}");
        Self::not_found("MicrovmImage", arn, message)
    }

    /// The image's name is taken.
    #[must_use]
    pub fn duplicate_image(name: &str) -> Self {
        Self::validation(format!("A MicroVM image with the name '{name}' already exists in this account"))
    }

    /// No base image has this ARN and, where one was asked for, version.
    #[must_use]
    pub fn no_base_image(arn: &str, version: Option<&str>) -> Self {
        let version = version.map(|version| format!(" and version {version}")).unwrap_or_default();
        Self::validation(format!("No managed MicroVM Image with arn {arn}{version} is available"))
    }

    /// The image has no such version.
    #[must_use]
    pub fn unknown_version(image: &str, version: &str) -> Self {
        let message = format!("Version {version} of MicroVM image {image} not found");
        Self::not_found("MicrovmImageVersion", version, message)
    }

    /// The version has no such build.
    #[must_use]
    pub fn unknown_build(image: &str, version: &str, build: &str) -> Self {
        let message = format!("Build {build} of version {version} of MicroVM image {image} not found");
        Self::not_found("MicrovmImageBuild", build, message)
    }

    /// A key of the client's was named, which would have to encrypt what we store.
    #[must_use]
    pub fn no_kms() -> Self {
        Self::validation(
            "kmsKeyIdentifier is not supported here: leave it out, and encrypt the server's data directory \
             instead",
        )
    }

    /// A payload was given for an image without a run hook.
    #[must_use]
    pub fn run_hook_needed() -> Self {
        Self::validation("The run hook must be enabled in the MicroVM image to pass the run hook payload")
    }

    /// The same in the manners of `family`.
    #[must_use]
    pub fn of(self, family: Family) -> Self {
        Self { family: Some(family), ..self }
    }

    fn about(mut self, resource_type: &str, id: impl Into<String>) -> Self {
        self.details.resource_type = Some(resource_type.into());
        self.details.resource_id = Some(id.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_hold_only_what_is_known() {
        let json = |error: &Error| error.body(Family::Microvms);
        assert_eq!(json(&Error::validation("no")), serde_json::json!({"message": "no"}));
        assert_eq!(
            json(&Error::unknown_microvm("microvm-1")),
            serde_json::json!({
                "message": "Unable to find microvmIdentifier microvm-1",
                "resourceType": "Microvm",
                "resourceId": "microvm-1",
            })
        );
    }

    #[test]
    fn each_family_has_its_own_names_and_members() {
        let core = |error: &Error| {
            (error.kind.name(Family::Core), error.kind.status(Family::Core), error.body(Family::Core))
        };
        let user = serde_json::json!({"Type": "User", "message": "no"});
        assert_eq!(core(&Error::validation("no")), ("InvalidParameterValueException", 400, user));
        let service = serde_json::json!({"Type": "Service", "Message": "no"});
        assert_eq!(core(&Error::internal("no")), ("ServiceException", 500, service));
        let microvms = ErrorKind::ServiceQuotaExceeded.status(Family::Microvms);
        assert_eq!((microvms, ErrorKind::ServiceQuotaExceeded.status(Family::Core)), (402, 400));
        assert_eq!(ErrorKind::AccessDenied.status(Family::Core), 403);
    }

    #[test]
    fn every_error_of_the_models_is_one_that_can_be_answered() {
        use ErrorKind::*;
        let kinds = [
            AccessDenied,
            Conflict,
            ResourceNotFound,
            Validation,
            ServiceQuotaExceeded,
            Throttling,
            InternalServer,
            InsufficientCapacity,
        ];
        for (family, errors) in [
            (Family::Microvms, &MICROVMS_ERRORS[..]),
            (Family::Core, &CORE_ERRORS[..]),
            (Family::Endpoints, &ENDPOINTS_ERRORS[..]),
        ] {
            for model in errors {
                let answered = |family| kinds.iter().any(|kind| kind.name(family) == model.name);
                // Operations on tags answer in the manners of either.
                assert!(answered(family) || answered(Family::Lambda), "{}", model.name);
            }
        }
    }
}
