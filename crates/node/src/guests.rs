//! Machines made of real guests: clones of an image's snapshot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use connectors::{ConnectorError, Connectors};
use guest::{
    Dirs, GuestError, Host, ImageLayer, LayerError, MetadataService, Persona, Purpose, Suspension,
    SuspensionError,
};
use ids::MicrovmId;
use lifecycle::microvm::State;
use logs::Logs;
use metering::Phase;
use network::Egress;
use network::cgroup::Usage;
use otlp::{Exporter, Subject};
use proxy::Allowance;
use store::{HookSettings, MicrovmRecord, Store, StoreError, VersionRecord};
use timeline::Step;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::instance::{Hook, Parts, Running};
use crate::machines::{Instance, Machines, NotResumed, Suspended};
use crate::output;
use crate::timelines::Timelines;

/// Baseline memory for which a MicroVM has a processor (SPEC §3).
const MIB_PER_PROCESSOR: u32 = 512;

/// Why a MicroVM could not be launched, saved or woken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstanceError {
    /// One of its hooks failed; the text is for the client.
    #[error("{0}")]
    Hook(String),
    /// Its VMM is gone.
    #[error("The MicroVM's virtual machine was lost while the server was down.")]
    Lost,
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Suspension(#[from] SuspensionError),
    /// What it was to reach is not there any more; the text is for the client.
    #[error("The MicroVM's egress cannot be set up: {0}.")]
    Connector(#[from] ConnectorError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the version it was cloned from has no record any more")]
    NoVersion,
    #[error("{doing} {path}: {source}", path = path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("an internal step was cut short: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

impl InstanceError {
    /// What the client sees. Host paths and the like are for the server's log alone.
    pub(crate) fn reason(&self, doing: &'static str, microvm: &MicrovmRecord) -> String {
        match self {
            Self::Hook(_) | Self::Lost => self.to_string(),
            Self::Connector(error) if !matches!(error, ConnectorError::Store(_)) => self.to_string(),
            _ => {
                tracing::error!(microvm = %microvm.id, error = %self, "{doing} failed");
                let internal = || {
                    format!(
                        "Internal failure while {doing}. The server's log says more about {}.",
                        microvm.id
                    )
                };
                self.told().unwrap_or_else(internal)
            }
        }
    }

    /// What a snapshot that cannot be used says of itself.
    fn told(&self) -> Option<String> {
        match self {
            Self::Layer(error) => error.told(),
            Self::Suspension(error) => error.told(),
            Self::Guest(error) => error.told(),
            _ => None,
        }
    }
}

/// Clones guests from the images of this host.
#[derive(Debug, Clone)]
pub struct GuestMachines {
    host: Arc<Host>,
    store: Store,
    dirs: Dirs,
    logs: Logs,
    roles: Arc<dyn iam::ServiceRoles>,
    metadata: Arc<MetadataService>,
    connectors: Connectors,
    exporter: Option<Exporter>,
    /// For each processor of a MicroVM.
    allowance: Allowance,
}

impl GuestMachines {
    /// Machines whose files are in `dirs` and whose applications' output goes to `logs`, where `roles` says that
    /// their execution role may write it, which `metadata` describes to themselves, and which reach what `connectors`
    /// lets them.
    #[must_use]
    pub fn new(
        host: Arc<Host>,
        store: Store,
        dirs: Dirs,
        logs: Logs,
        roles: Arc<dyn iam::ServiceRoles>,
        metadata: Arc<MetadataService>,
        connectors: Connectors,
    ) -> Self {
        let allowance = Allowance::default();
        Self { host, store, dirs, logs, roles, metadata, connectors, exporter: None, allowance }
    }

    /// The same, with the timelines exported as traces too.
    #[must_use]
    pub fn exporting(self, exporter: Option<Exporter>) -> Self {
        Self { exporter, ..self }
    }

    /// The same, each MicroVM having no more of its endpoint than `allowance` for each of its processors.
    #[must_use]
    pub fn within(self, allowance: Allowance) -> Self {
        Self { allowance, ..self }
    }

    async fn start(&self, microvm: &MicrovmRecord) -> Result<Running, InstanceError> {
        let (layer, hooks) = self.layer(microvm).await?;
        let binding = microvm.egress_binding.as_ref();
        let egress = binding.map(|binding| self.connectors.egress(&microvm.account, binding)).transpose()?;
        let dir = self.dirs.microvm(microvm.id);
        let disk = layer.private_disk(&dir);
        // An earlier attempt, cut short by a restart, was never seen by a client.
        self.release(microvm).await;
        fs::create_dir_all(&dir).map_err(file_error("creating", &dir))?;
        timeline::reached(Step::Layer);
        let guest = self.host.launch(&microvm.id.to_string(), &layer, disk, egress).await?;
        let running = self.running(microvm, guest, hooks, Some(layer.clone()));
        running.live(Some(Hook::Run)).await?;
        self.host.keep_spares(&layer, Purpose::Launch);
        Ok(running)
    }

    async fn wake(&self, microvm: &MicrovmRecord) -> Result<Running, InstanceError> {
        let (layer, hooks) = self.layer(microvm).await?;
        let dir = self.dirs.microvm(microvm.id);
        let (name, suspension) = (microvm.id.to_string(), Suspension::of(&dir));
        let guest = if suspension.exists() {
            // What runs of an earlier attempt has not come as far as to let the application run.
            self.host.discard(&name).await;
            let from = suspension.restore(&layer, self.host.compatibility())?;
            timeline::reached(Step::Layer);
            let (disk, egress) = (layer.private_disk(&dir), self.egress_still(microvm));
            let guest = self.host.wake(&name, &layer, disk, from, egress).await?;
            spawn_blocking(move || suspension.mark_used()).await??;
            timeline::reached(Step::Used);
            guest
        } else {
            self.adopted(microvm).await?
        };
        let running = self.running(microvm, guest, hooks, Some(layer));
        running.live(Some(Hook::Resume)).await?;
        Ok(running.merging())
    }

    async fn find(&self, microvm: &MicrovmRecord) -> Result<Running, InstanceError> {
        let hooks = self.hooks(microvm)?;
        let guest = self.adopted(microvm).await?;
        Ok(self.running(microvm, guest, hooks, None))
    }

    async fn adopted(&self, microvm: &MicrovmRecord) -> Result<guest::Guest, InstanceError> {
        let adopted = self.host.adopt(&microvm.id.to_string(), self.egress_still(microvm)).await?;
        adopted.ok_or(InstanceError::Lost)
    }

    /// What a MicroVM reaches that was launched before: a change of the host's settings does not end it.
    fn egress_still(&self, microvm: &MicrovmRecord) -> Option<Egress> {
        let binding = microvm.egress_binding.as_ref()?;
        Some(self.connectors.egress_still(&microvm.account, binding))
    }

    async fn finish_save(
        &self,
        microvm: &MicrovmRecord,
        wanted: &CancellationToken,
    ) -> Result<Suspended, InstanceError> {
        if Suspension::of(&self.dirs.microvm(microvm.id)).exists() {
            self.host.discard(&microvm.id.to_string()).await;
            return Ok(Suspended::Saved);
        }
        let running = self.find(microvm).await?;
        // It may have been frozen already, and a frozen application answers no hook.
        running.live(None).await?;
        running.save(wanted).await
    }

    fn running(
        &self,
        microvm: &MicrovmRecord,
        guest: guest::Guest,
        hooks: HookSettings,
        layer: Option<ImageLayer>,
    ) -> Running {
        Running::new(Parts {
            guest,
            hooks,
            generation: microvm.life.life,
            log: Arc::new(output::of(&self.logs, &*self.roles, microvm)),
            dir: self.dirs.microvm(microvm.id),
            layer: self.dirs.version(&microvm.image, microvm.version),
            machine_id: machine_id(microvm.id),
            describer: self.metadata.describer(persona(microvm)),
            run_body: run_body(microvm),
            timelines: self.timelines(microvm),
            allowance: self.allowance.times((microvm.memory_mib / MIB_PER_PROCESSOR).max(1)),
            origin: layer.map(|layer| (Arc::clone(&self.host), layer)),
        })
    }

    fn timelines(&self, microvm: &MicrovmRecord) -> Timelines {
        let subject = Subject { microvm: microvm.id, image: microvm.image.clone(), version: microvm.version };
        Timelines { dir: self.dirs.microvm(microvm.id), subject, exporter: self.exporter.clone() }
    }

    async fn layer(&self, microvm: &MicrovmRecord) -> Result<(ImageLayer, HookSettings), InstanceError> {
        let version = self.version(microvm)?;
        let (dirs, host) = (self.dirs.clone(), Arc::clone(&self.host));
        let dir = dirs.version(&microvm.image, microvm.version);
        let layer = spawn_blocking(move || ImageLayer::open(&dir, &dirs, host.compatibility())).await?;
        let unusable = layer.as_ref().err().and_then(LayerError::told);
        if unusable != version.unusable {
            self.note(microvm, unusable).await?;
        }
        Ok((layer?, version.hooks))
    }

    /// Has the version's record say why it cannot be launched from, or that it can.
    async fn note(&self, microvm: &MicrovmRecord, unusable: Option<String>) -> Result<(), InstanceError> {
        let (image, number) = (microvm.image.clone(), microvm.version);
        let write = move |tx: &store::Tx<'_>| match tx.version(&image, number)? {
            Some(version) => tx.put_version(&VersionRecord { unusable, ..version }),
            None => Ok(()),
        };
        Ok(self.store.write::<_, StoreError>(write).await?)
    }

    fn hooks(&self, microvm: &MicrovmRecord) -> Result<HookSettings, InstanceError> {
        self.version(microvm).map(|version| version.hooks)
    }

    fn version(&self, microvm: &MicrovmRecord) -> Result<VersionRecord, InstanceError> {
        let version = self.store.read::<_, StoreError>(|tx| tx.version(&microvm.image, microvm.version))?;
        version.ok_or(InstanceError::NoVersion)
    }

    async fn release(&self, microvm: &MicrovmRecord) {
        self.host.discard(&microvm.id.to_string()).await;
        remove(self.dirs.microvm(microvm.id)).await;
    }

    /// What was half started must not stay.
    async fn started(
        &self,
        doing: &'static str,
        microvm: &MicrovmRecord,
        result: Result<Running, InstanceError>,
    ) -> Result<Box<dyn Instance>, String> {
        match result {
            Ok(running) => Ok(Box::new(running)),
            Err(error) => {
                self.host.discard(&microvm.id.to_string()).await;
                Err(error.reason(doing, microvm))
            }
        }
    }
}

#[async_trait]
impl Machines for GuestMachines {
    async fn launch(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.started("launching the MicroVM", microvm, self.start(microvm).await).await
    }

    async fn adopt(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.started("taking up the MicroVM again", microvm, self.find(microvm).await).await
    }

    async fn resume(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, NotResumed> {
        match self.wake(microvm).await {
            Ok(running) => Ok(Box::new(running)),
            Err(error) => {
                self.host.discard(&microvm.id.to_string()).await;
                // Nothing of the application has run then, and nothing says that what was saved is at fault.
                if error.told().is_none() && Suspension::of(&self.dirs.microvm(microvm.id)).exists() {
                    tracing::error!(microvm = %microvm.id, %error, "a MicroVM cannot be resumed now; it sleeps on");
                    return Err(NotResumed::ThisTime);
                }
                Err(NotResumed::Ever(error.reason("resuming the MicroVM", microvm)))
            }
        }
    }

    fn saved_bytes(&self, microvm: &MicrovmRecord) -> u64 {
        Suspension::of(&self.dirs.microvm(microvm.id)).bytes()
    }

    fn phase(&self, id: MicrovmId, state: State) -> Phase {
        match state {
            State::Running | State::Suspending => {
                let usage = self.host.usage(&id.to_string());
                usage.map_or(Phase::Away, |Usage { cpu_nanos, memory_bytes }| Phase::Running {
                    cpu_nanos,
                    memory_bytes,
                })
            }
            State::Suspended => {
                Phase::Suspended { saved_bytes: Suspension::of(&self.dirs.microvm(id)).bytes() }
            }
            State::Pending | State::Terminating | State::Terminated => Phase::Away,
        }
    }

    fn tell_of_refused(&self, microvm: &MicrovmRecord) -> bool {
        let refused = self.host.refused(&microvm.id.to_string());
        let Some(refused) = refused.filter(|refused| !refused.is_empty()) else { return false };
        tracing::info!(microvm = %microvm.id, packets = %refused, "its network connectors refused packets");
        let line = format!("rekindle: packets that the network connectors refused: {refused}");
        if let Err(error) = output::of(&self.logs, &*self.roles, microvm).write(vec![line.into_bytes()]) {
            tracing::warn!(microvm = %microvm.id, %error, "its log does not tell what was refused");
        }
        true
    }

    async fn finish_suspend(
        &self,
        microvm: &MicrovmRecord,
        wanted: CancellationToken,
    ) -> Result<Suspended, String> {
        let finished = self.finish_save(microvm, &wanted).await;
        finished.map_err(|error| error.reason("suspending the MicroVM", microvm))
    }

    async fn discard(&self, microvm: &MicrovmRecord) {
        self.release(microvm).await;
    }

    fn keep(&self, microvm: &MicrovmRecord, timeline: timeline::Record) {
        self.timelines(microvm).done(timeline);
    }
}

/// The body of `/run` (SPEC §4.1): the payload is text, whatever is in it.
fn run_body(microvm: &MicrovmRecord) -> Vec<u8> {
    let payload = microvm.run_hook_payload.as_deref().unwrap_or_default();
    serde_json::json!({"microvmId": microvm.id, "runHookPayload": payload}).to_string().into_bytes()
}

/// Who it is to itself: a session of its role has its id for a name.
fn persona(microvm: &MicrovmRecord) -> Persona {
    let (image, role) = (microvm.image.clone(), microvm.execution_role_arn.clone());
    Persona { name: microvm.id.to_string(), image, role }
}

/// The digits of its uuid.
fn machine_id(id: MicrovmId) -> String {
    id.to_string().trim_start_matches("microvm-").replace('-', "")
}

/// Removes a MicroVM's directory.
pub(crate) async fn remove(dir: PathBuf) {
    let path = dir.clone();
    match spawn_blocking(move || remove_all(&path)).await {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a MicroVM's directory");
        }
        _ => {}
    }
}

/// Where its time went may be noted in it meanwhile, a file between the last one's removal and the directory's own.
fn remove_all(dir: &Path) -> io::Result<()> {
    /// Beyond the notes that can be under way.
    const RETRIES: u32 = 20;
    for _ in 0..RETRIES {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => return removed,
        }
    }
    fs::remove_dir_all(dir)
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstanceError {
    let path = path.to_owned();
    move |source| InstanceError::File { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_goes_whatever_is_noted_in_it_meanwhile() {
        let data = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let dir = data.path().join(round.to_string());
            fs::create_dir(&dir).unwrap();
            // No more than are tried again for, as each can be in the way twice: when it is begun, and when it is renamed.
            let noting = std::thread::spawn({
                let dir = dir.clone();
                move || (0..10).all(|_| timeline::file::keep(&dir, record()).is_ok())
            });
            remove(dir.clone()).await;
            noting.join().unwrap();
            assert!(!dir.exists(), "round {round}");
        }
    }

    fn record() -> timeline::Record {
        timeline::Timeline::begin().record(timeline::Kind::Wake, None)
    }
}
