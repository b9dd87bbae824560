//! The control API as it is served, over records made for the purpose and machines that are none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use auth::keys::AccessKey;
use auth::token::TokenKey;
use capacity::{Capacity, Limits};
use connectors::{Connectors, Networks};
use control::{
    Audit, Builds, Control, DomainNames, Front, Operations, OtherArchitectures, Quotas, Rates, RunsOn,
    Settings, Throttle,
};
use iam::{RoleSession, ServiceRoles};
use identity::Identity;
use ids::{BuildId, EndpointId, ImageArn, ImageVersion, MicrovmId};
use lifecycle::image::{BuildState, ImageState, VersionStatus};
use lifecycle::microvm::{Event, Microvm, Policy};
use node::{Instance, Machines, Node, NotResumed, Suspended, now_ms};
use proxy::{Activity, BoxedIo, Connector, EndpointHosts, Life};
use store::{CodeArtifact, HookSettings, ImageRecord, MicrovmRecord, Store, StoreError, Tx, VersionRecord};
use tokio_util::sync::CancellationToken;

use crate::Failure;

pub(crate) const REGION: &str = "us-east-1";
pub(crate) const ACCOUNT: &str = "123456789012";
/// The account's root key.
pub(crate) const KEY: (&str, &str) = ("AKIAEXAMPLEEXAMPLE00", "secret");
/// MicroVMs on record.
pub(crate) const RECORDS: usize = 100_000;
/// Records written in one transaction.
const CHUNK: usize = 20_000;
/// Every so many records, one of the image that is listed apart.
const APART: usize = 10;
const SECRET: [u8; 32] = [7; 32];

/// The image that most MicroVMs are of, or the one that few are of.
pub(crate) fn image(few: bool) -> ImageArn {
    let name = if few { "few" } else { "many" };
    let text = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:microvm-image:{name}");
    text.parse().expect("an ARN as it is written")
}

/// Fills the records; ids in the order of listings.
pub(crate) async fn fill(store: &Store) -> Result<Vec<MicrovmId>, Failure> {
    store
        .write::<_, StoreError>(|tx| {
            for few in [true, false] {
                tx.put_image(&image_record(image(few)))?;
                tx.put_version(&version(image(few)))?;
            }
            Ok(())
        })
        .await?;
    let mut ids = Vec::with_capacity(RECORDS);
    for _ in 0..RECORDS / CHUNK {
        let made: Vec<_> = (0..CHUNK).map(|number| ended(image(number.is_multiple_of(APART)))).collect();
        ids.extend(made.iter().map(|record| record.id));
        store.write(move |tx: &Tx<'_>| made.iter().try_for_each(|record| tx.put_microvm(record))).await?;
    }
    ids.sort_unstable();
    Ok(ids)
}

/// The API over the records of `store`, for an account that is made there.
pub(crate) async fn control(store: &Store, audit: &Path) -> Result<Control, Failure> {
    let key = AccessKey { id: KEY.0.into(), secret: KEY.1.into() };
    identity::accounts::ensure(store, &ACCOUNT.parse()?, &key).await?;
    let settings = Settings {
        region: REGION.into(),
        hosts: EndpointHosts::new(REGION, "localhost"),
        endpoint_port: 443,
        tokens: TokenKey::from_secret(SECRET).into(),
        page_secret: SECRET,
        base_image_created_at: 1,
        quotas: Quotas { memory_mib: usize::MAX, ..Quotas::default() },
        domains: DomainNames::default(),
        other_architectures: OtherArchitectures::Refuse,
        runs_on: RunsOn {
            engine: "none".into(),
            accelerator: api::endpoints::Accelerator::Emulation,
            because: "nothing runs".into(),
            processor: "none".into(),
        },
    };
    let identity = Identity::open(store.clone(), SECRET)?;
    let capacity = Capacity::new(Limits::default());
    let node = Node::start(store.clone(), Arc::new(Nothing), capacity.clone())?;
    let connectors = Connectors::new(store.clone(), Networks::default(), Arc::new(Nothing));
    let operations = Operations::new(
        settings,
        store.clone(),
        identity.clone(),
        node,
        Arc::new(Nothing),
        capacity,
        connectors,
    );
    let front = Front {
        region: REGION.into(),
        identity,
        throttle: Throttle::new(Rates::unlimited()),
        audit: Audit::to_dir(audit, REGION)?,
    };
    Ok(Control::new(Arc::new(operations), front))
}

/// Ends what was launched: no account has thousands at once, and what one has is summed up for each launch.
pub(crate) async fn end_all(store: &Store) -> Result<(), Failure> {
    let end = |tx: &Tx<'_>| {
        for mut record in tx.live_microvms()? {
            end(&mut record.life);
            tx.put_microvm(&record)?;
        }
        Ok::<_, StoreError>(())
    };
    Ok(store.write(end).await?)
}

fn end(life: &mut Microvm) {
    for event in [Event::TerminateRequested, Event::Released] {
        life.apply(&event, now_ms()).expect("a MicroVM can always be terminated");
    }
}

/// A MicroVM that has run and ended, so that nothing has to own it.
pub(crate) fn ended(image: ImageArn) -> MicrovmRecord {
    let mut life = Microvm::new(Policy { maximum_duration_seconds: 28_800, idle: None }, now_ms());
    end(&mut life);
    let connector =
        |name| format!("arn:aws:lambda:{REGION}:aws:network-connector:aws-network-connector:{name}");
    MicrovmRecord {
        id: MicrovmId::random(),
        endpoint: EndpointId::random(),
        account: image.account.clone(),
        image,
        version: ImageVersion::FIRST,
        memory_mib: 2048,
        execution_role_arn: Some(format!("arn:aws:iam::{ACCOUNT}:role/MicroVMExecutionRole")),
        run_hook_payload: None,
        ingress_network_connectors: vec![connector("HTTP_INGRESS")],
        http_ingress: true,
        egress_network_connectors: vec![connector("INTERNET_EGRESS")],
        egress_binding: None,
        logging: None,
        life,
    }
}

fn image_record(arn: ImageArn) -> ImageRecord {
    ImageRecord {
        arn,
        state: ImageState::Created,
        created_at: 1,
        updated_at: 1,
        last_version: ImageVersion::FIRST,
        tags: BTreeMap::new(),
    }
}

fn version(image: ImageArn) -> VersionRecord {
    VersionRecord {
        image,
        version: ImageVersion::FIRST,
        state: BuildState::Successful,
        status: VersionStatus::Active,
        created_at: 1,
        updated_at: 1,
        description: None,
        base_image_arn: format!("arn:aws:lambda:{REGION}:aws:microvm-image:al2023-1"),
        base_image_version: "1.0".into(),
        build_role_arn: format!("arn:aws:iam::{ACCOUNT}:role/MicroVMBuildRole"),
        code_artifact: CodeArtifact { uri: "s3://artifacts/app.zip".into() },
        hooks: HookSettings::default(),
        environment_variables: BTreeMap::new(),
        minimum_memory_mib: 2048,
        all_capabilities: false,
        egress_network_connectors: vec![],
        logging: None,
        unusable: None,
    }
}

/// An engine, a builder, a host and roles that do nothing, at once.
#[derive(Debug)]
struct Nothing;

struct Stillness(Arc<Life>);

#[async_trait]
impl Connector for Nothing {
    async fn connect(&self, _: u16) -> std::io::Result<BoxedIo> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

#[async_trait]
impl Instance for Stillness {
    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.0)
    }
    async fn ended(&mut self) -> Event {
        std::future::pending().await
    }
    async fn suspend(self: Box<Self>, _: &MicrovmRecord, _: CancellationToken) -> Result<Suspended, String> {
        Ok(Suspended::Saved)
    }
    async fn resume(self: Box<Self>, _: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        Ok(self)
    }
    async fn terminate(self: Box<Self>, _: &MicrovmRecord, _: bool) {}
}

#[async_trait]
impl Machines for Nothing {
    async fn launch(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        let life = Life::new(microvm.life.life, Arc::new(Nothing), Arc::new(Activity::new()));
        Ok(Box::new(Stillness(Arc::new(life))))
    }
    async fn adopt(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.launch(microvm).await
    }
    async fn resume(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, NotResumed> {
        self.launch(microvm).await.map_err(NotResumed::Ever)
    }
    fn saved_bytes(&self, _: &MicrovmRecord) -> u64 {
        0
    }
    async fn finish_suspend(&self, _: &MicrovmRecord, _: CancellationToken) -> Result<Suspended, String> {
        Ok(Suspended::Saved)
    }
    async fn discard(&self, _: &MicrovmRecord) {}
}

impl Builds for Nothing {
    fn start(&self, _: BuildId) {}
    fn remove(&self, _: ImageArn) {}
    fn remove_version(&self, _: ImageArn, _: ImageVersion) {}
}

impl ServiceRoles for Nothing {
    fn assume(&self, role: &str, _: &str, _: &str) -> Result<Arc<dyn RoleSession>, String> {
        Err(format!("{role} is nobody's here"))
    }
}
