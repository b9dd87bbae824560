//! What a refused or failed request answers (SPEC §2.3).

use serde::Serialize;

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
    /// The body is longer than any request may be.
    RequestEntityTooLarge,
}

impl ErrorKind {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Validation | Self::Serialization | Self::IncompleteSignature => 400,
            Self::ServiceQuotaExceeded => 402,
            Self::AccessDenied
            | Self::UnrecognizedClient
            | Self::InvalidSignature
            | Self::MissingAuthenticationToken => 403,
            Self::ResourceNotFound | Self::UnknownOperation => 404,
            Self::Conflict => 409,
            Self::RequestEntityTooLarge => 413,
            Self::Throttling => 429,
            Self::InternalServer | Self::InsufficientCapacity => 500,
        }
    }

    /// The text of `x-amzn-errortype`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::Conflict => "ConflictException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::Validation => "ValidationException",
            Self::ServiceQuotaExceeded => "ServiceQuotaExceededException",
            Self::Throttling => "ThrottlingException",
            Self::InternalServer => "InternalServerException",
            Self::InsufficientCapacity => "InsufficientCapacityException",
            Self::Serialization => "SerializationException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::InvalidSignature => "InvalidSignatureException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::RequestEntityTooLarge => "RequestEntityTooLargeException",
        }
    }
}

/// Members of an error beyond its message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The resource concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// Its kind, for example `MicrovmImage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Whose quota was exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_code: Option<String>,
    /// Which quota was exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_code: Option<String>,
}

/// An error answer. Serialises as its JSON body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{}: {message}", kind.name())]
pub struct Error {
    /// Which error.
    #[serde(skip)]
    pub kind: ErrorKind,
    /// What was attempted and what to do.
    pub message: String,
    /// The members that only some errors have.
    #[serde(flatten)]
    pub details: Box<Details>,
    /// Sent as `Retry-After`.
    #[serde(skip)]
    pub retry_after_seconds: Option<u32>,
}

impl Error {
    /// An error without any field but its message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Box::default(), retry_after_seconds: None }
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
        Self::new(ErrorKind::InsufficientCapacity, message)
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

    /// The resource is another account's.
    #[must_use]
    pub fn access_denied(account: &str, operation: &str, resource: &str) -> Self {
        let message = format!(
            "User: arn:aws:iam::{account}:root is not authorized to perform: lambda:{operation} on resource: \
             {resource} because no identity-based policy allows the lambda:{operation} action"
        );
        Self::new(ErrorKind::AccessDenied, message)
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
        let json = |error: &Error| serde_json::to_value(error).unwrap();
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
}
