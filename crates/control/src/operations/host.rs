//! What MicroVMs run on, so that nobody takes a slow host for a fast one. AWS does not tell.

use api::endpoints::{Accelerator, GetHostRequest, Host};
use ids::AccountId;

use super::Operations;
use super::failure::Failure;
use super::render;

/// What was chosen for this host when its server started.
#[derive(Debug, Clone)]
pub struct RunsOn {
    /// The VMM and its version.
    pub engine: String,
    /// What executes the guests' instructions.
    pub accelerator: Accelerator,
    /// Why that, as what follows "because".
    pub because: String,
    /// The processor that guests see.
    pub processor: String,
}

impl Operations {
    pub(super) async fn get_host(&self, _: AccountId, _: GetHostRequest) -> Result<Host, Failure> {
        let RunsOn { engine, accelerator, because, processor } = self.settings.runs_on.clone();
        let (architecture, ..) = render::HOST;
        Ok(Host {
            architecture: architecture.as_str().to_owned(),
            engine,
            accelerator,
            accelerator_reason: because,
            processor,
        })
    }
}
