//! What the identifiers in requests name, and the error where they name nothing.

use ids::{ImageArn, ImageVersion, MicrovmId, MicrovmOrImage};

use crate::endpoints::GetMicrovmUsageRequest;
use crate::{
    CreateMicrovmAuthTokenRequest, CreateMicrovmShellAuthTokenRequest, DeleteMicrovmImageInput,
    DeleteMicrovmImageVersionInput, Error, ErrorKind, GetMicrovmImageBuildInput, GetMicrovmImageInput,
    GetMicrovmImageVersionInput, GetMicrovmRequest, ListMicrovmImageBuildsInput,
    ListMicrovmImageVersionsInput, ListMicrovmsRequest, ResumeMicrovmRequest, RunMicrovmRequest,
    SuspendMicrovmRequest, TerminateMicrovmRequest, UpdateMicrovmImageRequest,
    UpdateMicrovmImageVersionRequest,
};

/// The image that an identifier names, with the errors of the image operations.
///
/// # Errors
/// A name without its ARN is a ValidationException, a slash before it an AccessDeniedException (SPEC §1.1).
pub fn image_arn(text: &str) -> Result<ImageArn, Error> {
    if text.contains(":microvm-image/") {
        let message = format!("The resource {text} is malformed: write microvm-image:<name>, with a colon");
        return Err(Error::new(ErrorKind::AccessDenied, message));
    }
    text.parse().map_err(|_| Error::validation(format!("Invalid ARN format: {text}")))
}

/// The MicroVM or image that an identifier names.
///
/// # Errors
/// What is no MicroVM's id is taken for an image's ARN: see [`image_arn`].
pub fn microvm_or_image(text: &str) -> Result<MicrovmOrImage, Error> {
    match text.parse() {
        Ok(id) => Ok(MicrovmOrImage::Microvm(id)),
        Err(_) => Ok(MicrovmOrImage::Image(image_arn(text)?)),
    }
}

/// The version that a text names: whatever is no version does not exist.
///
/// # Errors
/// A ResourceNotFoundException.
pub fn image_version(image: &str, text: &str) -> Result<ImageVersion, Error> {
    text.parse().map_err(|_| Error::unknown_version(image, text))
}

macro_rules! names_image {
    ($($request:ident)+) => {$(
        impl $request {
            /// The image named; the error is the one that image operations answer.
            ///
            /// # Errors
            /// See [`image_arn`].
            pub fn image_arn(&self) -> Result<ImageArn, Error> {
                image_arn(&self.image_identifier)
            }
        }
    )+};
}
names_image!(UpdateMicrovmImageRequest GetMicrovmImageInput DeleteMicrovmImageInput GetMicrovmImageVersionInput
    GetMicrovmImageBuildInput ListMicrovmImageVersionsInput ListMicrovmImageBuildsInput
    UpdateMicrovmImageVersionRequest DeleteMicrovmImageVersionInput);

macro_rules! names_version {
    ($($request:ident)+) => {$(
        impl $request {
            /// The version named; no such version where it is not a number.
            ///
            /// # Errors
            /// See [`image_version`].
            pub fn version(&self) -> Result<ImageVersion, Error> {
                image_version(&self.image_identifier, &self.image_version)
            }
        }
    )+};
}
names_version!(GetMicrovmImageVersionInput GetMicrovmImageBuildInput ListMicrovmImageBuildsInput
    UpdateMicrovmImageVersionRequest DeleteMicrovmImageVersionInput);

macro_rules! names_microvm {
    ($($request:ident)+) => {$(
        impl $request {
            /// The MicroVM named; no such MicroVM where it is not an id of ours.
            ///
            /// # Errors
            /// A ResourceNotFoundException.
            pub fn microvm_id(&self) -> Result<MicrovmId, Error> {
                let text = &self.microvm_identifier;
                text.parse().map_err(|_| Error::unknown_microvm(text))
            }
        }
    )+};
}
names_microvm!(GetMicrovmRequest SuspendMicrovmRequest ResumeMicrovmRequest TerminateMicrovmRequest
    CreateMicrovmAuthTokenRequest CreateMicrovmShellAuthTokenRequest GetMicrovmUsageRequest);

impl RunMicrovmRequest {
    /// The image named.
    ///
    /// # Errors
    /// Those that RunMicrovm answers.
    pub fn image_arn(&self) -> Result<ImageArn, Error> {
        if !self.image_identifier.starts_with("arn:") {
            return Err(Error::validation("Malformed ARN - doesn't start with 'arn:'"));
        }
        image_arn(&self.image_identifier)
    }

    /// The version named, if any.
    ///
    /// # Errors
    /// Of what is no number, no version is active.
    pub fn version(&self) -> Result<Option<ImageVersion>, Error> {
        let Some(text) = &self.image_version else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Error::no_active_version(&self.image_identifier, Some(text)))
    }
}

impl ListMicrovmsRequest {
    /// The image asked for.
    ///
    /// # Errors
    /// See [`image_arn`].
    pub fn image_arn(&self) -> Result<Option<ImageArn>, Error> {
        self.image_identifier.as_deref().map(image_arn).transpose()
    }

    /// The version asked for.
    ///
    /// # Errors
    /// See [`image_version`].
    pub fn version(&self) -> Result<Option<ImageVersion>, Error> {
        let image = self.image_identifier.as_deref().unwrap_or_default();
        self.image_version.as_deref().map(|version| image_version(image, version)).transpose()
    }
}
