//! One MicroVM that runs, from the host's side.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_proto::host::{CallError, Channel, Describer};
use agent_proto::{HookCall, HookOutcome};
use async_trait::async_trait;
use guest::{Guest, Host, ImageLayer, Purpose, Saved, Suspension, SuspensionError, hooks};
use lifecycle::microvm::Event;
use logs::Output;
use proxy::{Activity, Allowance, BoxedIo, Connector, Farewell, FirstAnswer, Life, Shell};
use store::{HookSettings, MicrovmRecord};
use timeline::{Kind, Step, Timeline};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::guests::{InstanceError, remove};
use crate::machines::{Instance, Suspended};
use crate::shell;
use crate::timelines::Timelines;

/// How long an application may take to end by its stop signal; for more there is the terminate hook.
const STOP_TIME: Duration = Duration::from_secs(3);
/// The life that a launch begins.
const FIRST_LIFE: u64 = 1;

/// The hooks of a MicroVM's life (SPEC §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Run,
    Resume,
    Suspend,
    Terminate,
}

impl Hook {
    /// Last part of its path.
    fn path(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Resume => "resume",
            Self::Suspend => "suspend",
            Self::Terminate => "terminate",
        }
    }

    /// As messages write it.
    fn title(self) -> &'static str {
        match self {
            Self::Run => "Run",
            Self::Resume => "Resume",
            Self::Suspend => "Suspend",
            Self::Terminate => "Terminate",
        }
    }

    /// Seconds that it may take; `None` where the image does not have it.
    fn limit(self, settings: &HookSettings) -> Option<u32> {
        match self {
            Self::Run => settings.run,
            Self::Resume => settings.resume,
            Self::Suspend => settings.suspend,
            Self::Terminate => settings.terminate,
        }
    }
}

/// What a running MicroVM is put together from.
pub(crate) struct Parts {
    pub(crate) guest: Guest,
    pub(crate) hooks: HookSettings,
    pub(crate) generation: u64,
    pub(crate) log: Arc<Output>,
    pub(crate) dir: PathBuf,
    /// Of the layer that it was cloned from.
    pub(crate) layer: PathBuf,
    /// Of a new MicroVM.
    pub(crate) machine_id: String,
    /// Of a life, which it begins with.
    pub(crate) describer: Describer,
    pub(crate) run_body: Vec<u8>,
    pub(crate) timelines: Timelines,
    pub(crate) allowance: Allowance,
    pub(crate) origin: Option<Origin>,
}

/// What it was cloned from, and where; not known of one that a restart found running.
pub(crate) type Origin = (Arc<Host>, ImageLayer);

/// A MicroVM that runs.
pub(crate) struct Running {
    parts: Parts,
    life: Arc<Life>,
    /// The exit code of the application's first process, once it has ended.
    exited: watch::Receiver<Option<i32>>,
    /// To be ended before the next sleep.
    housekeeping: Housekeeping,
}

impl Running {
    pub(crate) fn new(mut parts: Parts) -> Self {
        let connector = Arc::new(ThroughAgent(parts.guest.channel().clone()));
        let life = Life::new(parts.generation, connector, Arc::new(Activity::new())).within(parts.allowance);
        let life = Arc::new(match Timeline::current() {
            Some(timeline) => {
                life.telling(note_first_answer(timeline, parts.generation, parts.timelines.clone()))
            }
            None => life,
        });
        parts.guest.describe(Arc::clone(&parts.describer));
        let exited = parts.guest.listen(Arc::clone(&parts.log));
        Self { parts, life, exited, housekeeping: Housekeeping::default() }
    }

    /// The same, with the layers that earlier sleeps left being merged once there is time.
    pub(crate) fn merging(mut self) -> Self {
        if let Some((host, layer)) = self.parts.origin.clone() {
            self.housekeeping = Housekeeping::merge(host, layer, Suspension::of(&self.parts.dir));
        }
        self
    }

    /// Lets the application run, after a restore, and calls `hook` if the image has it.
    pub(crate) async fn live(&self, hook: Option<Hook>) -> Result<(), InstanceError> {
        let machine_id = (hook == Some(Hook::Run)).then(|| self.parts.machine_id.clone());
        let outcome = self.parts.guest.live(machine_id, hook.and_then(|hook| self.order(hook))).await?;
        timeline::reached(Step::Hook);
        self.check(hook, outcome.as_ref())
    }

    /// Calls a hook, if the image has it.
    async fn call(&self, hook: Hook) -> Result<(), InstanceError> {
        let Some(order) = self.order(hook) else { return Ok(()) };
        let outcome = self.parts.guest.hook(order).await?;
        self.check(Some(hook), Some(&outcome))
    }

    fn order(&self, hook: Hook) -> Option<HookCall> {
        let seconds = hook.limit(&self.parts.hooks)?;
        Some(HookCall {
            hook: hook.path().to_owned(),
            port: self.parts.hooks.port.unwrap_or(hooks::DEFAULT_PORT),
            timeout_ms: u64::from(seconds) * 1000,
            body: (hook == Hook::Run).then(|| self.parts.run_body.clone()),
        })
    }

    fn check(&self, hook: Option<Hook>, outcome: Option<&HookOutcome>) -> Result<(), InstanceError> {
        let failed = hook.zip(outcome).and_then(|(hook, outcome)| {
            hooks::failure(hook.title(), outcome, hook.limit(&self.parts.hooks).unwrap_or_default())
        });
        failed.map_or(Ok(()), |reason| Err(InstanceError::Hook(reason)))
    }

    /// Calls `/suspend`, freezes, saves durably, ends the VMM; or is returned, frozen, where it is `wanted` before or
    /// cannot be saved.
    pub(crate) async fn save(mut self, wanted: &CancellationToken) -> Result<Suspended, InstanceError> {
        // From here on requests wait for the next life.
        self.life.activity.close();
        self.life.end_shells(Farewell::Suspended);
        self.call(Hook::Suspend).await?;
        timeline::reached(Step::Hook);
        if let Err(error) = self.parts.guest.freeze().await {
            // Such as a disk of the host's that takes too long to write what the guest has not written yet.
            tracing::error!(dir = %self.parts.dir.display(), %error, "a MicroVM cannot be frozen; it goes on");
            return Ok(Suspended::Failed(Box::new(self)));
        }
        timeline::reached(Step::Freeze);
        tokio::select! {
            biased;
            () = wanted.cancelled() => return Ok(Suspended::GivenUp(Box::new(self))),
            () = self.housekeeping.end() => {}
        }
        match Suspension::of(&self.parts.dir).save(&self.parts.guest, &self.parts.layer, wanted).await {
            Ok(Saved::Durable) => {
                timeline::reached(Step::Save);
                self.parts.guest.end().await;
                timeline::reached(Step::End);
                if let Some((host, layer)) = self.parts.origin {
                    host.keep_spares(&layer, Purpose::Wake);
                }
                Ok(Suspended::Saved)
            }
            Ok(Saved::GivenUp(writing)) => {
                self.housekeeping = Housekeeping { task: Some(writing), ..Housekeeping::default() };
                Ok(Suspended::GivenUp(Box::new(self)))
            }
            Err(error @ SuspensionError::Withdraw(_)) => Err(error.into()),
            Err(error) => {
                tracing::error!(dir = %self.parts.dir.display(), %error, "a MicroVM cannot be saved; it goes on");
                Ok(Suspended::Failed(Box::new(self)))
            }
        }
    }

    /// Asks the application to end, and notes how it did. Whether it could be asked: then all its output is written.
    async fn stop(&self, microvm: &MicrovmRecord) -> bool {
        if let Err(error) = self.parts.guest.stop(STOP_TIME).await {
            tracing::debug!(microvm = %microvm.id, %error, "the application could not be asked to end");
            return false;
        }
        match *self.exited.borrow() {
            Some(code) => tracing::info!(microvm = %microvm.id, code, "the application has ended"),
            None => tracing::info!(microvm = %microvm.id, "the application is ended with its MicroVM"),
        }
        true
    }

    /// After a saving that was given up or failed: a new life of the same guest.
    async fn go_on(self, generation: u64) -> Result<Self, InstanceError> {
        let Self { parts, housekeeping, .. } = self;
        let guest = parts.guest.go_on().await?;
        let new = Self::new(Parts { guest, generation, ..parts });
        new.live(Some(Hook::Resume)).await?;
        Ok(Self { housekeeping, ..new })
    }
}

/// Adds to a launch or a wake when its first answer began.
fn note_first_answer(timeline: Timeline, generation: u64, timelines: Timelines) -> FirstAnswer {
    let kind = if generation == FIRST_LIFE { Kind::Launch } else { Kind::Wake };
    Box::new(move |came| {
        timeline.reached_at(Step::Request, came);
        timeline.reached(Step::Answer);
        timelines.answered(timeline.record(kind, None));
    })
}

#[async_trait]
impl Instance for Running {
    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.life)
    }

    async fn ended(&mut self) -> Event {
        let lost = self.parts.guest.lost();
        tokio::select! {
            biased;
            Ok(code) = self.exited.wait_for(Option::is_some) => Event::ContainerExited(code.unwrap_or_default()),
            why = lost => Event::Failed(why.to_owned()),
        }
    }

    async fn suspend(
        self: Box<Self>,
        microvm: &MicrovmRecord,
        wanted: CancellationToken,
    ) -> Result<Suspended, String> {
        self.save(&wanted).await.map_err(|error| error.reason("suspending the MicroVM", microvm))
    }

    async fn resume(self: Box<Self>, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        let resumed = self.go_on(microvm.life.life).await;
        let resumed = resumed.map_err(|error| error.reason("resuming the MicroVM", microvm))?;
        Ok(Box::new(resumed))
    }

    async fn terminate(mut self: Box<Self>, microvm: &MicrovmRecord, call_hook: bool) {
        self.life.activity.close();
        self.life.end_shells(Farewell::Terminated);
        if call_hook && let Err(error) = self.call(Hook::Terminate).await {
            // Nothing depends on it any more (SPEC §4.1).
            tracing::debug!(microvm = %microvm.id, %error, "the terminate hook failed");
        }
        timeline::reached(Step::Hook);
        if call_hook && self.stop(microvm).await {
            timeline::reached(Step::Stop);
            self.parts.guest.end_at_once().await;
        } else {
            self.parts.guest.end().await;
        }
        timeline::reached(Step::End);
        self.housekeeping.end().await;
        remove(self.parts.dir).await;
        timeline::reached(Step::Files);
    }
}

/// Work in a MicroVM's directory that nobody waits for, until the next is to be done there.
#[derive(Default)]
struct Housekeeping {
    task: Option<JoinHandle<()>>,
    given_up: CancellationToken,
}

impl Housekeeping {
    /// Merges the layers of a MicroVM's memory, once nothing is launched or woken.
    fn merge(host: Arc<Host>, layer: ImageLayer, suspension: Suspension) -> Self {
        let given_up = CancellationToken::new();
        let token = given_up.clone();
        let merge = async move {
            if token.run_until_cancelled(host.quiet()).await.is_none() {
                return;
            }
            match spawn_blocking(move || suspension.merge(&layer, &token)).await {
                Ok(Ok(Some(merged))) => tracing::debug!(bytes = merged.file_bytes, "layers merged"),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::info!(%error, "layers are not merged; the next resume tries again");
                }
                Err(error) => tracing::error!(%error, "merging layers failed"),
            }
        };
        Self { task: Some(tokio::spawn(merge)), given_up }
    }

    /// Gives it up and waits for its end. Safe to drop and to call again.
    async fn end(&mut self) {
        self.given_up.cancel();
        if let Some(task) = &mut self.task {
            // However it ended: what it left half done is no suspension.
            let _ = task.await;
        }
        self.task = None;
    }
}

/// Connections to the application, through the agent in its VM.
struct ThroughAgent(Channel);

#[async_trait]
impl Connector for ThroughAgent {
    async fn connect(&self, port: u16) -> io::Result<BoxedIo> {
        match self.0.relay(port).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(CallError::Refused(why)) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    async fn shell(&self) -> io::Result<Shell> {
        match self.0.shell().await {
            Ok(ends) => Ok(shell::of_agent(ends)),
            Err(CallError::Refused(why)) => Err(io::Error::other(why)),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
