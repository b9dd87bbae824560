//! Images, their versions and builds, and the managed base images.

use std::collections::BTreeMap;

use ids::{BuildId, ImageArn, ImageName, ImageVersion};
use serde::{Deserialize, Serialize};

use crate::common::text_enum;
use crate::size::{self, SizeClass};
use crate::validate::{self, Constraints};
use crate::{
    Architecture, Capability, Chipset, Error, Hooks, Logging, Page, Request, Sensitive, Tags, Timestamp,
};

text_enum!(/// State of an image.
ImageState {
    /** First version being built. */ Creating = "CREATING",
    /** First version built. */ Created = "CREATED",
    /** First version failed. */ CreateFailed = "CREATE_FAILED",
    /** A further version being built or removed. */ Updating = "UPDATING",
    /** Further version done. */ Updated = "UPDATED",
    /** Further version failed. */ UpdateFailed = "UPDATE_FAILED",
    /** Being removed. */ Deleting = "DELETING",
    /** Could not be removed. */ DeleteFailed = "DELETE_FAILED",
    /** Removed. */ Deleted = "DELETED",
});
text_enum!(/// State of an image's version.
VersionState {
    /** Waits. */ Pending = "PENDING",
    /** Is being built. */ InProgress = "IN_PROGRESS",
    /** Built. */ Successful = "SUCCESSFUL",
    /** Failed. */ Failed = "FAILED",
    /** Being removed. */ Deleting = "DELETING",
    /** Removed. */ Deleted = "DELETED",
    /** Could not be removed. */ DeleteFailed = "DELETE_FAILED",
});
text_enum!(/// Whether a version may be run.
    VersionStatus { /** It may. */ Active = "ACTIVE", /** It may not. */ Inactive = "INACTIVE" });
text_enum!(/// State of a build.
BuildState {
    /** Waits. */ Pending = "PENDING",
    /** Runs. */ InProgress = "IN_PROGRESS",
    /** Done. */ Successful = "SUCCESSFUL",
    /** Failed. */ Failed = "FAILED",
});

/// Where the zip is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CodeArtifact {
    /// `s3://<bucket>/<key>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

impl CodeArtifact {
    /// Bucket and key.
    pub fn location(&self) -> Result<(&str, &str), Error> {
        self.uri
            .as_deref()
            .and_then(|uri| uri.strip_prefix("s3://")?.split_once('/'))
            .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            .ok_or_else(|| {
                Error::validation(
                    "CodeArtifact URI must be a valid S3 URI in the format: s3://<bucket>/<key>",
                )
            })
    }
}

/// A processor asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuConfiguration {
    /// Its instruction set.
    pub architecture: Architecture,
}

/// A size asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// One of the sizes of [`crate::size`].
    #[serde(rename = "minimumMemoryInMiB")]
    pub minimum_memory_in_mib: i64,
}

/// What a version is made from: shared by the requests that make one and the answers that show one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageConfig {
    /// Managed base image.
    pub base_image_arn: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_image_version: Option<String>,
    /// Role of the build.
    pub build_role_arn: String,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The application.
    pub code_artifact: CodeArtifact,
    /// Where the build's output goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// What the build and, by default, MicroVMs reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_network_connectors: Option<Vec<String>>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_configurations: Option<Vec<CpuConfiguration>>,
    /// Size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<Resources>>,
    /// Additional rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_os_capabilities: Option<Vec<Capability>>,
    /// Calls into the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// The application's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment_variables: Option<BTreeMap<String, Sensitive>>,
    /// Key to encrypt with; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_identifier: Option<String>,
}

impl ImageConfig {
    /// The size asked for, or the default; the error is the one Create and Update answer.
    pub fn size(&self) -> Result<SizeClass, Error> {
        let Some(asked) = self.resources.iter().flatten().next() else { return Ok(size::DEFAULT) };
        SizeClass::for_memory(asked.minimum_memory_in_mib).ok_or_else(|| {
            let sizes: Vec<u32> = size::ALL.iter().map(|size| size.memory_mib).collect();
            Error::validation(format!(
                "The requested memory size of {} MiB is not supported by base MicroVM image {}. \
                 Supported memory sizes in MiB are: {sizes:?}.",
                asked.minimum_memory_in_mib, self.base_image_arn
            ))
        })
    }
}

/// CreateMicrovmImage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmImageRequest {
    /// Name, unique in its account.
    pub name: String,
    /// What version 1.0 is made from.
    #[serde(flatten)]
    pub config: ImageConfig,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Makes a repeated request harmless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// UpdateMicrovmImage: what is left out is reset, not inherited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateMicrovmImageRequest {
    /// The image's ARN.
    pub image_identifier: String,
    /// What the next version is made from.
    #[serde(flatten)]
    pub config: ImageConfig,
    /// Makes a repeated request harmless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// An image as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSummary {
    /// ARN.
    pub image_arn: ImageArn,
    /// Name.
    pub name: ImageName,
    /// State.
    pub state: ImageState,
    /// Newest version that may be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_active_image_version: Option<ImageVersion>,
    /// Newest version whose build failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_failed_image_version: Option<ImageVersion>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// GetMicrovmImage's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The image.
    #[serde(flatten)]
    pub summary: ImageSummary,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

/// The answer of CreateMicrovmImage and UpdateMicrovmImage (the latter without tags).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageWithVersion {
    /// The image.
    #[serde(flatten)]
    pub image: Image,
    /// What the new version is made from.
    #[serde(flatten)]
    pub config: ImageConfig,
    /// The new version.
    pub image_version: ImageVersion,
}

/// A version: GetMicrovmImageVersion's answer and ListMicrovmImageVersions' items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageVersionDetail {
    /// What it is made from.
    #[serde(flatten)]
    pub config: ImageConfig,
    /// The image.
    pub image_arn: ImageArn,
    /// Its number.
    pub image_version: ImageVersion,
    /// State.
    pub state: VersionState,
    /// Whether it may be run.
    pub status: VersionStatus,
    /// When it was created.
    pub created_at: Timestamp,
    /// Last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Why it is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

/// DeleteMicrovmImage's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteMicrovmImageResponse {
    /// The image's ARN.
    pub image_identifier: ImageArn,
    /// `DELETING`.
    pub state: ImageState,
}

/// A build: ListMicrovmImageBuilds' items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildSummary {
    /// The image.
    pub image_arn: ImageArn,
    /// The version.
    pub image_version: ImageVersion,
    /// Id.
    pub build_id: BuildId,
    /// State.
    pub build_state: BuildState,
    /// Instruction set built for.
    pub architecture: Architecture,
    /// Line of processors built for.
    pub chipset: Chipset,
    /// Generation of that line.
    pub chipset_generation: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// GetMicrovmImageBuild's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// The build.
    #[serde(flatten)]
    pub summary: BuildSummary,
    /// What it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_build: Option<SnapshotBuild>,
}

/// Sizes of what a build made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotBuild {
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_snapshot_size_in_bytes: Option<u64>,
    /// The application's read-only disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_install_size_in_bytes: Option<u64>,
    /// What the started application had written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_snapshot_size_in_bytes: Option<u64>,
}

/// A managed base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedImageSummary {
    /// ARN; its account is `aws`.
    pub image_arn: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

macro_rules! list_request {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            /// Length of a page, 1 to 50.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub max_results: Option<i64>,
            /// The page asked for.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub next_token: Option<String>,
        }
    };
}
pub(crate) use list_request;

list_request!(/// ListMicrovmImages.
ListMicrovmImagesRequest {
    /// Part of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_filter: Option<String>,
});
list_request!(/// ListManagedMicrovmImages.
    ListManagedMicrovmImagesRequest {});
list_request!(/// ListMicrovmImageVersions.
ListMicrovmImageVersionsRequest {
    /// The image's ARN.
    image_identifier: String,
});
list_request!(/// ListMicrovmImageBuilds.
ListMicrovmImageBuildsRequest {
    /// The image's ARN.
    image_identifier: String,
    /// The version.
    image_version: String,
    /// Only builds for this instruction set.
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<Architecture>,
    /// Only builds for this line of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    chipset: Option<Chipset>,
    /// Only builds for this generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    chipset_generation: Option<String>,
});

macro_rules! path_request {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name { $($(#[$fdoc])* pub $field: String),+ }
    };
}
pub(crate) use path_request;

path_request!(/// GetMicrovmImage.
    GetMicrovmImageRequest { /** The image's ARN. */ image_identifier });
path_request!(/// DeleteMicrovmImage.
    DeleteMicrovmImageRequest { /** The image's ARN. */ image_identifier });
path_request!(/// GetMicrovmImageVersion.
    GetMicrovmImageVersionRequest { /** The image's ARN. */ image_identifier, /** The version. */ image_version });
path_request!(/// GetMicrovmImageBuild.
GetMicrovmImageBuildRequest {
    /** The image's ARN. */ image_identifier, /** The version. */ image_version, /** The build's id. */ build_id
});

macro_rules! names_image {
    ($($request:ident)+) => {$(
        impl $request {
            /// The image named; the error is the one that image operations answer.
            pub fn image_arn(&self) -> Result<ImageArn, Error> {
                validate::image_arn(&self.image_identifier)
            }
        }
    )+};
}
names_image!(UpdateMicrovmImageRequest GetMicrovmImageRequest DeleteMicrovmImageRequest
    GetMicrovmImageVersionRequest GetMicrovmImageBuildRequest ListMicrovmImageVersionsRequest
    ListMicrovmImageBuildsRequest);

macro_rules! names_version {
    ($($request:ident)+) => {$(
        impl $request {
            /// The version named; no such version where it is not a number.
            pub fn version(&self) -> Result<ImageVersion, Error> {
                validate::image_version(&self.image_identifier, &self.image_version)
            }
        }
    )+};
}
names_version!(GetMicrovmImageVersionRequest GetMicrovmImageBuildRequest ListMicrovmImageBuildsRequest);

impl Request for CreateMicrovmImageRequest {
    type Response = ImageWithVersion;
    const OPERATION: &'static str = "CreateMicrovmImage";
    const STATUS: u16 = 201;

    fn validate(&self) -> Result<(), Error> {
        let mut constraints = Constraints::default();
        constraints.image_config(&self.config);
        constraints.image_name("name", &self.name);
        constraints.tags(self.tags.as_ref());
        constraints.client_token(self.client_token.as_deref());
        constraints.finish()?;
        validate::image_config(&self.config)
    }
}

impl Request for UpdateMicrovmImageRequest {
    type Response = ImageWithVersion;
    const OPERATION: &'static str = "UpdateMicrovmImage";

    fn validate(&self) -> Result<(), Error> {
        let mut constraints = Constraints::default();
        constraints.image_config(&self.config);
        constraints.identifier("imageIdentifier", &self.image_identifier);
        constraints.client_token(self.client_token.as_deref());
        constraints.finish()?;
        self.image_arn()?;
        validate::image_config(&self.config)
    }
}

impl Request for ListMicrovmImagesRequest {
    type Response = Page<ImageSummary>;
    const OPERATION: &'static str = "ListMicrovmImages";

    fn validate(&self) -> Result<(), Error> {
        let mut constraints = Constraints::default();
        constraints.max_results(self.max_results);
        if let Some(filter) = &self.name_filter {
            constraints.non_blank("nameFilter", filter);
        }
        constraints.finish()
    }
}

impl Request for ListManagedMicrovmImagesRequest {
    type Response = Page<ManagedImageSummary>;
    const OPERATION: &'static str = "ListManagedMicrovmImages";

    fn validate(&self) -> Result<(), Error> {
        let mut constraints = Constraints::default();
        constraints.max_results(self.max_results);
        constraints.finish()
    }
}

macro_rules! image_request {
    ($request:ident, $response:ty, $operation:literal $(, $field:ident $name:literal)* $(; $max:ident)?) => {
        impl Request for $request {
            type Response = $response;
            const OPERATION: &'static str = $operation;

            fn validate(&self) -> Result<(), Error> {
                let mut constraints = Constraints::default();
                $(constraints.max_results(self.$max);)?
                constraints.identifier("imageIdentifier", &self.image_identifier);
                $(constraints.non_blank($name, &self.$field);)*
                constraints.finish()?;
                self.image_arn().map(drop)
            }
        }
    };
}
image_request!(GetMicrovmImageRequest, Image, "GetMicrovmImage");
image_request!(DeleteMicrovmImageRequest, DeleteMicrovmImageResponse, "DeleteMicrovmImage");
image_request!(
    GetMicrovmImageVersionRequest,
    ImageVersionDetail,
    "GetMicrovmImageVersion",
    image_version "imageVersion"
);
image_request!(
    GetMicrovmImageBuildRequest,
    Build,
    "GetMicrovmImageBuild",
    image_version "imageVersion",
    build_id "buildId"
);
image_request!(
    ListMicrovmImageVersionsRequest,
    Page<ImageVersionDetail>,
    "ListMicrovmImageVersions"; max_results
);
image_request!(
    ListMicrovmImageBuildsRequest,
    Page<BuildSummary>,
    "ListMicrovmImageBuilds",
    image_version "imageVersion"; max_results
);
