//! What the server is made of behind its listeners: records, objects, the host of the VMs, MicroVMs and builds.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ::capacity::Capacity;
use auth::keyring::TokenKeyring;
use build::{Builder, Workshop};
use cloudwatch::CloudWatch;
use connectors::{Connectors, Networks};
use control::{Builds, DomainNames, Operations, Service};
use forward::{Forwarder, Printers, Target};
use guest::{Dirs, DirsError, GuestError, Host, MetadataService};
use identity::Identity;
use identity::accounts::AccountError;
use ids::{BuildId, ImageArn, ImageVersion};
use logs::Logs;
use network::cgroup::{CgroupError, Cgroups};
use network::dns;
use network::endpoint::Endpoints as InterfaceEndpoints;
use node::{GuestMachines, Node};
use objects::ObjectStore;
use otlp::{Exporter, LogSink};
use platform::{Assets, Platform, PlatformError};
use proxy::{Backend, EndpointHosts};
use store::{Store, StoreError};

use crate::agent;
use crate::capacity::{self, Watch};
use crate::config::Config;
use crate::data_dir::{Account, DataDir, DataDirError};
use crate::engines::{self, Chosen, EngineError};
use crate::interface_endpoint;
use crate::printers::Recorded;
use crate::range::{self, RangeError};
use crate::roles::Roles;

/// Builds at once: each takes a VM of its own, and more would only slow each other down.
const BUILDS_AT_ONCE: usize = 2;
/// Between two looks for log events whose retention has ended.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why the server cannot work here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServicesError {
    #[error(transparent)]
    Data(#[from] DataDirError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Identity(#[from] identity::OpenError),
    #[error(transparent)]
    Objects(#[from] objects::OpenError),
    #[error(transparent)]
    Dirs(#[from] DirsError),
    #[error("the guest agent is not found: run `make build`, or set REKINDLE_AGENT")]
    Agent,
    #[error(transparent)]
    Logs(#[from] logs::LogError),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    #[error(transparent)]
    Guests(#[from] GuestError),
    #[error(transparent)]
    Traces(#[from] otlp::SettingsError),
    #[error(transparent)]
    Exporter(#[from] otlp::StartError),
    #[error(transparent)]
    LogSink(#[from] otlp::SinkError),
    #[error(transparent)]
    CloudWatch(#[from] forward::OpenError),
    #[error("cannot read {RESOLV_CONF}, which names the resolvers for MicroVMs: {0}")]
    Resolvers(io::Error),
    #[error("cannot make the files of a new platform: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The running parts.
pub(crate) struct Services {
    /// Behind the control API.
    pub(crate) api: Arc<dyn Service>,
    /// Behind the endpoints.
    pub(crate) endpoints: Arc<dyn Backend>,
    /// Behind S3.
    pub(crate) objects: ObjectStore,
    /// Behind CloudWatch Logs.
    pub(crate) logs: CloudWatch,
    /// Who is who.
    pub(crate) identity: Identity,
    /// The records.
    pub(crate) store: Store,
    /// What runs the guests.
    pub(crate) machines_by: Chosen,
    host: Arc<Host>,
    builder: Builder,
    exporter: Option<Exporter>,
    forwarders: Vec<Forwarder>,
}

/// How MicroVMs are reached.
#[derive(Debug)]
pub(crate) struct Endpoints {
    /// Their names.
    pub(crate) hosts: EndpointHosts,
    /// Where the server listens for them.
    pub(crate) port: u16,
    /// What opens them.
    pub(crate) tokens: TokenKeyring,
}

impl Services {
    /// Starts them, and takes up what an earlier server left: MicroVMs go on, builds begin anew. `first` is the
    /// account of the first start. `inside` takes what guests find the API at, if they are to find it.
    pub(crate) async fn start(
        config: &Config,
        data: &DataDir,
        first: &Account,
        endpoints: &Endpoints,
        inside: Option<&InterfaceEndpoints>,
    ) -> Result<Self, ServicesError> {
        let store = Store::open(&data.database())?;
        identity::accounts::ensure(&store, &first.id, &first.key).await?;
        let identity = Identity::open(store.clone(), data.open_session_secret()?)?;
        let roles = Arc::new(Roles(identity.clone()));
        let objects = ObjectStore::open(&data.objects(), &first.id)?;
        let (assets, dirs) = (Assets::from_env(), Dirs::new(data.path(), &data.tag()));
        let logs = open_logs(config, data).await?;
        let cloudwatch = CloudWatch::new(logs.clone(), identity.clone(), &config.region);
        let platform = platform(&assets, &dirs).await?;
        dirs.prepare()?;
        let (host, capacity, machines_by) = host(config, data, &dirs, inside).await?;
        let living = living(&store)?;
        host.reap(&living).await?;
        dirs.sweep(&living.union(&building(&store)?).cloned().collect(), platform.id());
        let connectors = Connectors::new(store.clone(), networks(config), Arc::clone(&roles) as _);
        connectors.recover().await?;

        let metadata = MetadataService::new(Arc::clone(&roles) as _);
        let machines = GuestMachines::new(
            Arc::clone(&host),
            store.clone(),
            dirs.clone(),
            logs.clone(),
            Arc::clone(&roles) as _,
            Arc::clone(&metadata),
            connectors.clone(),
        );
        let exporter = exporter(config)?;
        let machines =
            machines.exporting(exporter.clone()).within(config.endpoint_limits.for_each_processor());
        let node = Node::start(store.clone(), Arc::new(machines), capacity.clone())?;
        let watch =
            Watch { capacity: capacity.clone(), host: Arc::clone(&host), data: data.path().to_owned() };
        watch.look().await;
        tokio::spawn(watch.run(node.clone()));
        tokio::spawn(sweep(logs.clone()));
        let forwarders = forwarders(config, &logs, &store)?;
        tokio::spawn(node.clone().meter());
        tokio::spawn(node.clone().tell_of_refusals());
        let base_image_created_at = modified_ms(&assets.bases());
        let builder = Builder::new(Workshop {
            host: Arc::clone(&host),
            capacity: capacity.clone(),
            store: store.clone(),
            objects: objects.clone(),
            roles,
            metadata,
            connectors: connectors.clone(),
            logs,
            dirs,
            assets,
            platform,
            settings: build_settings(config),
        });
        builder.recover()?;
        let settings = control::Settings {
            region: config.region.clone(),
            hosts: endpoints.hosts.clone(),
            endpoint_port: endpoints.port,
            tokens: endpoints.tokens.clone(),
            page_secret: data.open_page_secret()?,
            base_image_created_at,
            quotas: config.quotas,
            domains: DomainNames::new(config.domains.clone()),
            other_architectures: config.other_architectures,
            runs_on: machines_by.clone().into(),
        };
        let builds = Arc::new(ByBuilder(builder.clone()));
        let api = Operations::new(
            settings,
            store.clone(),
            identity.clone(),
            node.clone(),
            builds,
            capacity,
            connectors,
        );
        Ok(Self {
            api: Arc::new(api),
            endpoints: Arc::new(node),
            objects,
            logs: cloudwatch,
            identity,
            store,
            machines_by,
            host,
            builder,
            exporter,
            forwarders,
        })
    }

    /// Leaves MicroVMs running and builds to begin anew, and gives back everything else on this machine.
    pub(crate) async fn close(self) -> Result<(), ServicesError> {
        self.builder.stop().await;
        self.host.close(&living(&self.store)?).await?;
        if let Some(exporter) = self.exporter {
            exporter.close().await;
        }
        futures::future::join_all(self.forwarders.into_iter().map(Forwarder::close)).await;
        Ok(())
    }
}

/// Looks the logs of an earlier server through.
async fn open_logs(config: &Config, data: &DataDir) -> Result<Logs, ServicesError> {
    let (dir, quota) = (data.logs(), config.logs.quota());
    Ok(tokio::task::spawn_blocking(move || Logs::open(dir, quota)).await??)
}

/// Removes the events whose retention has ended, now and every so often.
async fn sweep(logs: Logs) {
    let mut minutes = tokio::time::interval(SWEEP_EVERY);
    loop {
        minutes.tick().await;
        let logs = logs.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || logs.sweep(logs::now_ms())).await {
            tracing::warn!(%error, "cannot remove old logs");
        }
    }
}

struct ByBuilder(Builder);

impl Builds for ByBuilder {
    fn start(&self, build: BuildId) {
        self.0.start(build);
    }

    fn remove(&self, image: ImageArn) {
        self.0.remove(image);
    }

    fn remove_version(&self, image: ImageArn, version: ImageVersion) {
        self.0.remove_version(image, version);
    }
}

/// What connectors may name.
fn networks(config: &Config) -> Networks {
    Networks { subnets: config.subnets.clone(), security_groups: config.security_groups.clone() }
}

fn build_settings(config: &Config) -> build::Settings {
    build::Settings {
        at_once: BUILDS_AT_ONCE,
        vcpus: config.build_vcpus,
        memory_mib: config.build_memory_mib,
        aliases: config.aliases.clone(),
        cache_bytes: config.build_cache_mib << 20,
        endpoint_url: config.interface_endpoint.then(interface_endpoint::url),
    }
}

/// The way of traces to a collector, if there is one.
fn exporter(config: &Config) -> Result<Option<Exporter>, ServicesError> {
    let target = otlp::Target::find(&config.traces, |name| std::env::var(name).ok())?;
    Ok(target.map(Exporter::start).transpose()?)
}

/// The ways of logs to a collector and to another CloudWatch, as far as there are.
fn forwarders(config: &Config, logs: &Logs, store: &Store) -> Result<Vec<Forwarder>, ServicesError> {
    let mut targets: Vec<Target> = LogSink::open(&config.logs.otlp)?.map(Target::Otlp).into_iter().collect();
    if let Some(settings) = &config.logs.cloudwatch {
        let service = forward::CloudWatch::open(settings, &config.region, |name| std::env::var(name).ok())?;
        targets.push(Target::CloudWatch(service));
    }
    let printers: Arc<dyn Printers> = Arc::new(Recorded(store.clone()));
    let start = |target| Forwarder::start(logs.clone(), Arc::clone(&printers), &config.region, target);
    Ok(targets.into_iter().map(start).collect())
}

/// Copies and hashes what set-up made, which takes a while the first time.
async fn platform(assets: &Assets, dirs: &Dirs) -> Result<Platform, ServicesError> {
    let agent = agent::find(assets).ok_or(ServicesError::Agent)?;
    let (assets, platforms) = (assets.clone(), dirs.platforms());
    Ok(tokio::task::spawn_blocking(move || Platform::install(&assets, &agent, &platforms)).await??)
}

async fn host(
    config: &Config,
    data: &DataDir,
    dirs: &Dirs,
    inside: Option<&InterfaceEndpoints>,
) -> Result<(Arc<Host>, Capacity, Chosen), ServicesError> {
    let (engine, chosen) = engines::open(config.engine, config.accelerator, dirs.overlays()).await?;
    let Chosen { engine: vmm, accelerator, because, cpu } = &chosen;
    tracing::info!(engine = vmm, %accelerator, because, cpu, "VMs can run");
    let pool = range::open_pool(config, data, inside)?;
    let cgroups = Cgroups::open(&data.tag())?;
    let upstreams = match &config.name_servers[..] {
        [] => dns::upstreams(Path::new(RESOLV_CONF)).map_err(ServicesError::Resolvers)?,
        configured => configured.to_vec(),
    };
    let capacity = Capacity::new(capacity::limits(config, pool.capacity()));
    let spares = config.max_spares;
    let host = Host::new(engine, pool, cgroups, upstreams, dirs.clone(), capacity.clone(), spares);
    Ok((host, capacity, chosen))
}

/// The names of the guests that go on.
fn living(store: &Store) -> Result<BTreeSet<String>, StoreError> {
    let living = store.read(|tx| tx.live_microvms())?;
    Ok(living.iter().map(|microvm| microvm.id.to_string()).collect())
}

/// The ids of the builds that begin anew.
fn building(store: &Store) -> Result<BTreeSet<String>, StoreError> {
    let unfinished = store.read(|tx| tx.unfinished_builds())?;
    Ok(unfinished.iter().map(|build| build.id.to_string()).collect())
}

fn modified_ms(path: &Path) -> u64 {
    let modified = path.metadata().and_then(|file| file.modified()).unwrap_or(UNIX_EPOCH);
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
