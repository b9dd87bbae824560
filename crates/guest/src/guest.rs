//! One running guest.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_proto::host::{Answers, CallError, Channel, Describer};
use agent_proto::{ENTROPY_BYTES, Event, HookCall, HookOutcome, NewLife, Request, Response};
use engine::{Compatibility, DiffWrite, Machine, MachineSpec, SaveError};
use futures::FutureExt;
use logs::Output;
use network::Slot;
use timeline::Step;
use tokio::sync::{mpsc, watch};

use crate::host::{Host, end};
use crate::{GuestError, output};

/// For the agent to do what takes no application's time: freezing, a new life, thawing.
const STEP_SECONDS: u64 = 30;
/// For what was printed to be written down before a guest is ended, which a guest that hangs must not hold up.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// For a VMM to be gone after its channel has closed.
const END_TIME: Duration = Duration::from_secs(2);
/// How much longer than its own limit a hook's answer is waited for.
const HOOK_GRACE: Duration = Duration::from_secs(10);

/// A guest that runs, with the session to its agent. Dropped without [`Guest::end`] it goes on running.
pub struct Guest {
    host: Arc<Host>,
    name: String,
    slot: Slot,
    machine: Box<dyn Machine>,
    channel: Channel,
    events: Option<mpsc::Receiver<Event>>,
    /// Once somebody listens: the last mark before which all output has been written.
    written: Option<watch::Receiver<u64>>,
    describer: Arc<OnceLock<Describer>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest")
            .field("name", &self.name)
            .field("pid", &self.machine.pid())
            .finish_non_exhaustive()
    }
}

impl Guest {
    /// Seconds from the VMM's start to the agent's first word.
    pub(crate) const BOOT_TIME: u64 = 180;
    /// The same from a snapshot.
    pub(crate) const RESTORE_TIME: u64 = 60;

    /// Greets the agent of a machine that runs. The machine is ended where that fails.
    pub(crate) async fn establish(
        host: Arc<Host>,
        name: &str,
        slot: Slot,
        machine: Box<dyn Machine>,
        seconds: u64,
    ) -> Result<Self, GuestError> {
        let describer = Arc::new(OnceLock::<Describer>::new());
        let asked = Arc::clone(&describer);
        let answers = Answers {
            resolver: host.resolver(&slot),
            describer: Arc::new(move || asked.get().and_then(|describe| describe())),
        };
        match greet(&*machine, answers, seconds).await {
            Ok((channel, events)) => {
                timeline::reached(Step::Agent);
                let name = name.to_owned();
                let events = Some(events);
                Ok(Self { host, name, slot, machine, channel, events, written: None, describer })
            }
            Err(error) => {
                end(&*machine).await;
                host.release(name, &slot.name);
                Err(error)
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Its directory and disks have been renamed.
    pub(crate) fn moved(&mut self, name: &str, spec: MachineSpec) -> Result<(), GuestError> {
        self.machine.moved(spec)?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// Whether its agent can be reached.
    pub(crate) fn is_well(&self) -> bool {
        let ended = (self.machine.wait_exit().now_or_never(), self.channel.ended().now_or_never());
        matches!(ended, (None, None))
    }

    /// The session with the agent.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Writes the application's output to `log` from now on. The receiver holds the exit code of the application's
    /// first process, once that has ended. Only the first call gets anything.
    pub fn listen(&mut self, log: impl Into<Arc<Output>>) -> watch::Receiver<Option<i32>> {
        let Some(events) = self.events.take() else { return watch::channel(None).1 };
        let heard = output::listen(events, log.into());
        self.written = Some(heard.written);
        heard.exited
    }

    /// Has its questions about itself answered from now on. Only the first call says what it is.
    pub fn describe(&self, describer: Describer) {
        // What it is does not change.
        let _ = self.describer.set(describer);
    }

    /// Has the agent do something within `limit`; an answer that says it failed is an error.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn call(
        &self,
        doing: &'static str,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, GuestError> {
        match tokio::time::timeout(limit, self.channel.call(request)).await {
            Ok(Ok(Response::Failed { message })) => Err(GuestError::Failed(message)),
            Ok(Err(source @ (CallError::Ended(_) | CallError::NoAnswer))) => {
                Err(broken(&*self.machine, doing, source).await)
            }
            Ok(answer) => Ok(answer?),
            Err(_) => Err(timed_out(&*self.machine, doing, limit.as_secs()).await),
        }
    }

    /// Calls a hook of the application once.
    ///
    /// # Errors
    /// [`GuestError`] where the agent does not answer; what the application does is in the outcome.
    pub async fn hook(&self, call: HookCall) -> Result<HookOutcome, GuestError> {
        let limit = Duration::from_millis(call.timeout_ms) + HOOK_GRACE;
        match self.call("calling a hook", &Request::Hook(call), limit).await? {
            Response::Hook(outcome) => Ok(outcome),
            _ => Err(CallError::WrongAnswer.into()),
        }
    }

    /// Stops every process of the application; afterwards the agent waits for a new session.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn freeze(&self) -> Result<(), GuestError> {
        const DOING: &str = "freezing the application";
        let limit = Duration::from_secs(STEP_SECONDS);
        self.call(DOING, &Request::Freeze, limit).await?;
        // Saved any sooner, the agent would wake in the old session, and take a new host's greeting for part of it.
        match tokio::time::timeout(limit, self.channel.ended()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(timed_out(&*self.machine, DOING, STEP_SECONDS).await),
        }
    }

    /// Gives a restored guest a clock and entropy of its own and, to a new one, its `machine_id` (32 hexadecimal
    /// digits); then lets its application run (invariant 5) and calls `hook`, whose outcome is returned.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn live(
        &self,
        machine_id: Option<String>,
        hook: Option<HookCall>,
    ) -> Result<Option<HookOutcome>, GuestError> {
        let mut entropy = vec![0; ENTROPY_BYTES];
        getrandom::fill(&mut entropy).map_err(GuestError::Random)?;
        let hook_time = hook.as_ref().map_or(0, |hook| hook.timeout_ms);
        let limit = Duration::from_secs(STEP_SECONDS) + Duration::from_millis(hook_time);
        let request = Request::Live(NewLife { wall_clock: now_nanos(), entropy, machine_id, hook });
        let answer = self.call("beginning a new life", &request, limit).await?;
        match answer {
            Response::Hook(outcome) => Ok(Some(outcome)),
            Response::Done => Ok(None),
            _ => Err(CallError::WrongAnswer.into()),
        }
    }

    /// What its saved state depends on besides its files.
    pub(crate) fn compatibility(&self) -> &Compatibility {
        self.host.compatibility()
    }

    /// Of a guest that was booted: makes its memory file and `device_state` durable. It no longer runs afterwards.
    ///
    /// # Errors
    /// [`SaveError`].
    pub async fn save_full(&self, device_state: &Path) -> Result<(), SaveError> {
        self.machine.save_full(device_state).await
    }

    /// Of a guest that was restored: stops it and takes its device state. What is returned then writes to the disk what
    /// it differs in. With the moment when it was stopped.
    ///
    /// # Errors
    /// [`SaveError`].
    pub async fn save_diff(&self) -> Result<(DiffWrite, SystemTime), SaveError> {
        self.machine.pause().await?;
        let stopped_at = SystemTime::now();
        Ok((self.machine.save_diff().await?, stopped_at))
    }

    /// Lets a frozen guest whose saving was given up run again, and greets its agent anew; the application stays frozen
    /// until [`Guest::live`].
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the guest remains then.
    pub async fn go_on(self) -> Result<Self, GuestError> {
        let Self { host, name, slot, machine, .. } = self;
        if let Err(error) = machine.cont().await {
            end(&*machine).await;
            host.release(&name, &slot.name);
            return Err(error.into());
        }
        Self::establish(host, &name, slot, machine, Self::RESTORE_TIME).await
    }

    /// Returns when the VMM is gone or the agent can no longer be reached, with the reason.
    pub async fn lost(&self) -> &'static str {
        tokio::select! {
            _ = self.machine.wait_exit() => self.why_ended(),
            () = self.channel.ended() => if is_ending(&*self.machine).await {
                self.why_ended()
            } else {
                "The MicroVM's virtual machine no longer answers."
            },
        }
    }

    fn why_ended(&self) -> &'static str {
        if self.host.ran_out_of_memory(&self.slot) {
            return "The MicroVM's virtual machine was ended because it or its host was out of memory.";
        }
        "The MicroVM's virtual machine ended unexpectedly."
    }

    /// Has the application's first process end by the image's STOPSIGNAL, within `limit`, and returns once what it has
    /// printed, and its exit, are written down. It may run on afterwards.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn stop(&self, limit: Duration) -> Result<(), GuestError> {
        let within_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { within_ms };
        let answer = self.call("stopping the application", &request, limit + FLUSH_TIME).await?;
        self.written_before(&answer).await;
        Ok(())
    }

    /// Returns once what has been printed by now is written down, where somebody listens and the agent answers.
    async fn flush(&self) {
        if self.written.is_none() {
            return;
        }
        match tokio::time::timeout(FLUSH_TIME, self.channel.call(&Request::Flush)).await {
            Ok(Ok(answer)) => self.written_before(&answer).await,
            // The session is over: it has no more to tell.
            Ok(Err(_)) => {}
            Err(_) => self.warn_of_lost_output(),
        }
    }

    /// Returns once the output is written that was flushed for an answer.
    async fn written_before(&self, answer: &Response) {
        let (Some(mut written), Response::Flushed { mark }) = (self.written.clone(), answer) else { return };
        // A session that ends first has no more to tell.
        let all = written.wait_for(|written| written >= mark);
        if tokio::time::timeout(FLUSH_TIME, all).await.is_err() {
            self.warn_of_lost_output();
        }
    }

    fn warn_of_lost_output(&self) {
        tracing::warn!(name = self.name, "the last output of a guest may be lost: it does not come in time");
    }

    /// Ends it, with what has been printed by now written down, and releases everything it had.
    pub async fn end(self) {
        self.flush().await;
        self.end_at_once().await;
    }

    /// Ends it, and releases everything it had. What it has printed may be lost, but for what was flushed.
    pub async fn end_at_once(self) {
        end(&*self.machine).await;
        self.host.release(&self.name, &self.slot.name);
    }
}

async fn greet(
    machine: &dyn Machine,
    answers: Answers,
    seconds: u64,
) -> Result<(Channel, mpsc::Receiver<Event>), GuestError> {
    let session = async {
        let stream = machine.channel().await?;
        Channel::establish(stream, answers).await
    };
    match tokio::time::timeout(Duration::from_secs(seconds), session).await {
        Ok(session) => Ok(session?),
        Err(_) => Err(timed_out(machine, "waiting for its agent", seconds).await),
    }
}

async fn timed_out(machine: &dyn Machine, doing: &'static str, seconds: u64) -> GuestError {
    GuestError::Timeout { doing, seconds, console: console_tail(machine).await }
}

/// Whether the VMM is why the channel has closed: one that ends closes it first, and is gone a moment later.
async fn is_ending(machine: &dyn Machine) -> bool {
    tokio::time::timeout(END_TIME, machine.wait_exit()).await.is_ok()
}

async fn broken(machine: &dyn Machine, doing: &'static str, source: CallError) -> GuestError {
    let vmm = if is_ending(machine).await { "its VMM has ended" } else { "its VMM runs" };
    GuestError::Broken { doing, source, vmm, console: console_tail(machine).await }
}

async fn console_tail(machine: &dyn Machine) -> String {
    const CONSOLE_TAIL: usize = 1000;
    let console = machine.console().await.unwrap_or_default();
    let tail = console.char_indices().rev().nth(CONSOLE_TAIL).map_or(0, |(at, _)| at);
    console[tail..].trim().to_owned()
}

fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
