//! What stands in for builds, the host and roles.

use std::sync::Arc;

use capacity::{Capacity, Limits};
use control::Builds;
use iam::{RoleSession, ServiceRoles};
use ids::{BuildId, ImageArn, ImageVersion};
use node::now_ms;
use store::{SnapshotSizes, Store, StoreError, builds, versions};

/// Builds of artifacts of these names never end, or fail; all others succeed at once.
const NEVER_ENDS: &str = "never-ends.zip";
const FAILS: &str = "fails.zip";
/// Images whose names begin so are being deleted for ever.
const LINGERS: &str = "lingers";

/// A host that has room for everything, or for nothing.
#[must_use]
pub fn room(is_there: bool) -> Capacity {
    // None at all lets builds through, which need none here.
    let memory = if is_there { None } else { Some(0) };
    Capacity::new(Limits { memory, ..Limits::default() })
}

/// Builds that end as the artifact's name says.
#[derive(Debug)]
pub struct Named(pub Store);

impl Builds for Named {
    fn start(&self, build: BuildId) {
        let store = self.0.clone();
        tokio::spawn(async move { carry_out(&store, build).await });
    }

    fn remove(&self, image: ImageArn) {
        if image.name.as_str().starts_with(LINGERS) {
            return;
        }
        let store = self.0.clone();
        tokio::spawn(async move {
            store.write::<_, StoreError>(move |tx| tx.delete_image(&image)).await.unwrap();
        });
    }

    fn remove_version(&self, image: ImageArn, version: ImageVersion) {
        let store = self.0.clone();
        let finish = move |tx: &store::Tx<'_>| versions::finish_delete(tx, &image, version, now_ms());
        tokio::spawn(async move { store.write::<_, StoreError>(finish).await.unwrap() });
    }
}

async fn carry_out(store: &Store, id: BuildId) {
    let begun = store.write::<_, StoreError>(move |tx| builds::begin(tx, id, now_ms())).await.unwrap();
    let Some((_, version)) = begun else { return };
    let outcome = match version.code_artifact.uri.rsplit('/').next() {
        Some(NEVER_ENDS) => return,
        Some(FAILS) => Err("The container image build failed.".to_owned()),
        _ => Ok(SnapshotSizes { memory: Some(1), code_install: Some(2), disk: Some(3) }),
    };
    let finish = move |tx: &store::Tx<'_>| builds::finish(tx, id, outcome, None, now_ms());
    store.write::<_, StoreError>(finish).await.unwrap();
}

/// Roles that trust everybody.
#[derive(Debug)]
pub struct Willing;

impl ServiceRoles for Willing {
    fn assume(&self, _: &str, _: &str, _: &str) -> Result<Arc<dyn RoleSession>, String> {
        Ok(Arc::new(Self))
    }
}

impl RoleSession for Willing {
    fn may(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }
}
