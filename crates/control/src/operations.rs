//! The operations themselves, over the records, the node and the builds.
//!
//! Every change is one transaction: the name's uniqueness, the client token and the records stand or fall
//! together. Only what is on the disk is acted upon and answered, so that a crash in between loses nothing:
//! the node and the builds take up at the next start what the records say.
//!
//! Where SPEC leaves a choice: another account's ARN is an AccessDeniedException and another region's is not
//! found; deleting what is gone is a ResourceNotFoundException; and what images are for is the host's architecture,
//! which is shown whatever was asked for ([`OtherArchitectures`]).

mod access;
mod architecture;
mod base_images;
mod config;
mod connectors;
mod exposure;
mod failure;
mod host;
mod idempotency;
mod images;
mod microvms;
pub mod pages;
mod render;
mod retention;
mod tags;
mod tokens;
mod usage;
mod versions;

use std::sync::Arc;

use ::connectors::Connectors;
use api::decode::decode;
use api::*;
use capacity::Capacity;
use futures::future::BoxFuture;
use identity::Identity;
use ids::{AccountId, BuildId, ImageArn, ImageVersion};
use serde::{Deserialize, Serialize};
use store::Store;

use crate::Service;
use crate::service::{Answer, Call};
use access::{Place, Resource, Touches};
pub use architecture::OtherArchitectures;
pub use exposure::DomainNames;
use failure::Failure;
pub use host::RunsOn;
use pages::Listing;

/// What the operations need to know of the installation.
#[derive(Clone)]
pub struct Settings {
    /// The region that this installation is.
    pub region: String,
    /// Names of the endpoints.
    pub hosts: proxy::EndpointHosts,
    /// Where the endpoints listen; shown as `:port` where it is not 443.
    pub endpoint_port: u16,
    /// Seals endpoint tokens.
    pub tokens: auth::keyring::TokenKeyring,
    /// Signs the tokens of listings' pages.
    pub page_secret: [u8; 32],
    /// When this installation's managed base image was made, in milliseconds since the epoch.
    pub base_image_created_at: u64,
    /// How much an account may have.
    pub quotas: Quotas,
    /// Host names that accounts may use for their MicroVMs.
    pub domains: DomainNames,
    /// What becomes of images for an architecture that is not the host's.
    pub other_architectures: OtherArchitectures,
    /// What this host's MicroVMs run on.
    pub runs_on: RunsOn,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("region", &self.region).finish_non_exhaustive()
    }
}

/// How much an account may have (SPEC §9); its excess is a ServiceQuotaExceededException.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Images.
    pub images: usize,
    /// Versions of one image.
    pub versions_per_image: usize,
    /// Builds that have not ended.
    pub concurrent_builds: usize,
    /// Baseline memory of MicroVMs that are not terminated, in MiB.
    pub memory_mib: usize,
    /// Network connectors.
    pub network_connectors: usize,
}

impl Default for Quotas {
    /// AWS's own. What the host has room for is another matter, which [`Capacity`] decides.
    fn default() -> Self {
        Self {
            images: 100,
            versions_per_image: 50,
            concurrent_builds: 10,
            memory_mib: 400 * 1024,
            network_connectors: 100,
        }
    }
}

/// Whoever carries out builds and removes images' files.
pub trait Builds: Send + Sync + 'static {
    /// A build whose PENDING record is on the disk. Returns at once.
    fn start(&self, build: BuildId);

    /// An image whose DELETING record is on the disk: its files go, then its records. Returns at once.
    fn remove(&self, image: ImageArn);

    /// A version whose DELETING record is on the disk: its files go, then its records, and with them its image
    /// settles. Returns at once.
    fn remove_version(&self, image: ImageArn, version: ImageVersion);
}

/// The implementation of [`Service`].
pub struct Operations {
    settings: Settings,
    store: Store,
    identity: Identity,
    node: node::Node,
    builds: Arc<dyn Builds>,
    capacity: Capacity,
    connectors: Connectors,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Operations {
    /// Operations on what `store` holds, carried out by `node` and `builds`.
    pub fn new(
        settings: Settings,
        store: Store,
        identity: Identity,
        node: node::Node,
        builds: Arc<dyn Builds>,
        capacity: Capacity,
        connectors: Connectors,
    ) -> Self {
        Self { settings, store, identity, node, builds, capacity, connectors }
    }

    /// Reads and checks a call, asks whether its caller may, and has `work` done, which gives the answer: what the model
    /// says of the operation's, or what serialises as it.
    async fn carry_out<R, A, W>(&self, call: Call, work: W) -> Answer
    where
        R: Touches,
        A: Serialize,
        W: AsyncFnOnce(&Self, AccountId, R) -> Result<A, Failure>,
    {
        let mut resources = vec![];
        let outcome = async {
            let Call { caller, route, body, .. } = call;
            let request: R = decode(&body, &route.path, &route.query)?;
            let at = Place { region: &self.settings.region, account: &caller.account, store: &self.store };
            let resource = request.resource(&at)?;
            if resource != Resource::All {
                resources.push(resource.arn());
            }
            access::check(&self.identity, &caller, &request, &resource, &at)?;
            let answer = work(self, caller.account.clone(), request).await?;
            Ok(render::json(route.operation, &answer)?)
        };
        let outcome: Result<Vec<u8>, Failure> = outcome.await;
        Answer { resources, outcome: outcome.map_err(Error::from) }
    }

    /// The page that a listing's request asks for; see [`Listing::open`].
    fn listing(
        &self,
        scope: &[&str],
        max_results: Option<i64>,
        token: Option<&str>,
    ) -> Result<Listing, Error> {
        Listing::open(&self.settings.page_secret, scope, max_results, token, node::now_ms())
    }
}

macro_rules! service {
    ($($operation:ident => $carried_out:ident,)+) => {
        impl Service for Operations {
            fn answer(&self, call: Call) -> BoxFuture<'_, Answer> {
                // Each in a future of its own: one for all of them would be as large as the largest.
                match call.route.operation {
                    $(Operation::$operation => Box::pin(self.carry_out(call, Self::$carried_out)),)+
                }
            }
        }
    };
}
service! {
    CreateMicrovmImage => create_image,
    UpdateMicrovmImage => update_image,
    GetMicrovmImage => get_image,
    ListMicrovmImages => list_images,
    DeleteMicrovmImage => delete_image,
    GetMicrovmImageVersion => get_version,
    ListMicrovmImageVersions => list_versions,
    GetMicrovmImageBuild => get_build,
    ListMicrovmImageBuilds => list_builds,
    ListManagedMicrovmImages => list_managed_images,
    RunMicrovm => run,
    GetMicrovm => get,
    ListMicrovms => list,
    SuspendMicrovm => suspend,
    ResumeMicrovm => resume,
    TerminateMicrovm => terminate,
    CreateMicrovmAuthToken => create_auth_token,
    CreateMicrovmShellAuthToken => create_shell_auth_token,
    UpdateMicrovmImageVersion => update_version,
    DeleteMicrovmImageVersion => delete_version,
    ListManagedMicrovmImageVersions => list_managed_versions,
    TagResource => tag,
    UntagResource => untag,
    ListTags => list_tags,
    CreateNetworkConnector => create_connector,
    GetNetworkConnector => get_connector,
    ListNetworkConnectors => list_connectors,
    ListNetworkConnectorVersions => list_connector_versions,
    UpdateNetworkConnector => update_connector,
    DeleteNetworkConnector => delete_connector,
    GetEndpointAccess => get_endpoint_access,
    PutEndpointAccess => put_endpoint_access,
    PutDomain => put_domain,
    DeleteDomain => delete_domain,
    ListDomains => list_domains,
    GetMicrovmUsage => get_usage,
    GetHost => get_host,
}
