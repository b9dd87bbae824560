//! The one task that owns a MicroVM: every transition of it happens here, in order, and is on the disk before
//! anybody sees it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use capacity::{Capacity, Reservation, Shortage, Want};
use lifecycle::microvm::{Action, Event, Refused, State};
use store::{MicrovmRecord, Store, StoreError};
use timeline::{Kind, Timeline};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::baseline;
use crate::machines::{Instance, Machines, NotResumed, Suspended};
use crate::metering::{Meters, Seen};
use crate::now_ms;

/// What the others see of a MicroVM, never ahead of what is on the disk.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) resuming: bool,
    /// How many resumes have failed and left it asleep.
    pub(crate) failed_resumes: u64,
    pub(crate) wakes_on_request: bool,
    /// Set while it runs.
    pub(crate) life: Option<Arc<proxy::Life>>,
}

/// A client's wish, and where its answer goes.
pub(crate) struct Command {
    pub(crate) event: Event,
    /// Of what follows from it, begun when the wish was.
    pub(crate) timeline: Timeline,
    pub(crate) reply: oneshot::Sender<Result<(), CommandError>>,
}

/// Why a wish was not taken up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Full(#[from] Shortage),
}

/// What an action came to.
struct Outcome {
    /// None where another action came in between.
    event: Option<Event>,
    instance: Option<Box<dyn Instance>>,
    /// Where its time went, if that is of interest.
    timed: Option<Timed>,
}

/// A launch, wake or suspension that was carried out, and why if it failed.
struct Timed {
    kind: Kind,
    timeline: Timeline,
    failed: Option<String>,
}

enum Step {
    Asked(Command),
    Done(Outcome),
    Happened(Event),
    TimePassed,
}

pub(crate) struct Owner {
    record: MicrovmRecord,
    store: Store,
    machines: Arc<dyn Machines>,
    meters: Meters,
    capacity: Capacity,
    /// There whenever a VMM may be.
    place: Option<Reservation>,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<View>,
    failed_resumes: u64,
    instance: Option<Box<dyn Instance>>,
    work: Option<JoinHandle<Outcome>>,
    /// Decided while another action was still at work: to resume instead, or to end.
    next: Option<(Action, Timeline)>,
    /// Tells a suspension at work that something else was decided.
    wanted: CancellationToken,
}

impl Owner {
    pub(crate) fn new(
        record: MicrovmRecord,
        store: Store,
        machines: Arc<dyn Machines>,
        meters: Meters,
        capacity: Capacity,
        place: Option<Reservation>,
        commands: mpsc::Receiver<Command>,
    ) -> (Self, watch::Receiver<View>) {
        let (view, seen) = watch::channel(view_of(&record, None, 0));
        let owner = Self {
            record,
            store,
            machines,
            meters,
            capacity,
            place,
            commands,
            view,
            failed_resumes: 0,
            instance: None,
            work: None,
            next: None,
            wanted: CancellationToken::new(),
        };
        (owner, seen)
    }

    /// Owns the MicroVM until it is terminated. `adopt`: it was running before a restart. `timeline`: of what it has to
    /// do first.
    pub(crate) async fn run(mut self, adopt: bool, timeline: Timeline) {
        if adopt && self.record.life.state == State::Running {
            match self.machines.adopt(&self.record).await {
                Ok(instance) => self.instance = Some(instance),
                Err(why) => self.settle(Event::Failed(why)).await,
            }
            self.publish();
        }
        if self.work.is_none() && self.next.is_none() {
            self.next = self.record.life.pending_action().map(|action| (action, timeline));
        }
        self.start_next();
        while self.record.life.state != State::Terminated {
            match self.wait().await {
                Step::Asked(Command { event, timeline, reply }) => {
                    // A client that left has its wish fulfilled all the same.
                    let _ = reply.send(self.apply(&event, timeline).await);
                }
                Step::Done(outcome) => {
                    self.work = None;
                    self.instance = outcome.instance;
                    if self.instance.is_none() && self.next.is_none() {
                        self.place = None;
                    }
                    if let Some(event) = outcome.event {
                        self.settle(event).await;
                    }
                    if let Some(Timed { kind, timeline, failed }) = outcome.timed {
                        timeline.reached(timeline::Step::Shown);
                        self.machines.keep(&self.record, timeline.record(kind, failed));
                    }
                }
                Step::Happened(event) => self.settle(event).await,
                Step::TimePassed => self.settle_due().await,
            }
            self.start_next();
        }
    }

    async fn wait(&mut self) -> Step {
        let deadline = self.record.life.next_deadline(self.last_activity());
        let busy = self.work.is_some();
        tokio::select! {
            Some(command) = self.commands.recv() => Step::Asked(command),
            outcome = finished(self.work.as_mut()) => Step::Done(outcome),
            event = ended(self.instance.as_mut()), if !busy => Step::Happened(event),
            () = due(deadline) => Step::TimePassed,
        }
    }

    /// Bytes may have passed since the timer was set: only what is due now happens.
    async fn settle_due(&mut self) {
        if let Some((at, event)) = self.record.life.next_deadline(self.last_activity())
            && at <= now_ms()
        {
            self.settle(event).await;
        }
    }

    fn last_activity(&self) -> u64 {
        let idle = self.instance.as_ref().map(|instance| instance.life().activity.idle_for());
        idle.map_or(0, |idle| now_ms().saturating_sub(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Applies an event of our own, which must not be lost to a full disk: it is tried until it is written.
    async fn settle(&mut self, event: Event) {
        const RETRY: Duration = Duration::from_secs(1);
        while let Err(error) = self.apply(&event, Timeline::begin()).await {
            match error {
                CommandError::Refused(refused) => {
                    tracing::warn!(microvm = %self.record.id, ?event, %refused, "event refused");
                    return;
                }
                CommandError::Store(error) => {
                    tracing::error!(microvm = %self.record.id, ?event, %error, "cannot record, trying again");
                    tokio::time::sleep(RETRY).await;
                }
                // Only a client's wish to resume needs room.
                CommandError::Full(_) => return,
            }
        }
    }

    /// Decides, makes it durable, shows it. `timeline`: of what follows from it.
    async fn apply(&mut self, event: &Event, timeline: Timeline) -> Result<(), CommandError> {
        let mut record = self.record.clone();
        let action = record.life.apply(event, now_ms())?;
        let place = match action {
            // During a suspension its VMM still has its place.
            Some(Action::Resume) if self.place.is_none() => {
                let saved = self.machines.saved_bytes(&self.record);
                Some(self.capacity.reserve(want(&record, saved))?)
            }
            _ => None,
        };
        if *event == Event::ResumeFailed {
            self.failed_resumes += 1;
        }
        if record != self.record {
            let written = record.clone();
            self.store.write::<_, StoreError>(move |tx| tx.put_microvm(&written)).await?;
            let before = std::mem::replace(&mut self.record, record).life.state;
            self.publish();
            self.account(before);
        }
        if place.is_some() {
            self.place = place;
        }
        if let Some(action) = action {
            timeline.reached(timeline::Step::Store);
            self.next = Some((action, timeline));
            self.wanted.cancel();
        }
        Ok(())
    }

    /// What it uses counts from the moment that it runs up to the moment that it does not, whenever else it is looked at.
    fn account(&self, before: State) {
        let now = self.record.life.state;
        let state = if before == State::Running { before } else { now };
        if before == now || !matches!(state, State::Running | State::Suspended) {
            return;
        }
        let seen = Seen { id: self.record.id, state, memory_mib: self.record.memory_mib };
        if let Err(error) = self.meters.look_at(&seen, &self.store, &*self.machines) {
            tracing::warn!(microvm = %self.record.id, %error, "cannot read what it has used; within a second again");
        }
    }

    fn publish(&self) {
        self.view.send_replace(view_of(&self.record, self.instance.as_deref(), self.failed_resumes));
    }

    fn start_next(&mut self) {
        if self.work.is_some() {
            return;
        }
        let Some((action, timeline)) = self.next.take() else { return };
        let machines = Arc::clone(&self.machines);
        let record = self.record.clone();
        let instance = self.instance.take();
        self.wanted = CancellationToken::new();
        let wanted = self.wanted.clone();
        self.work = Some(tokio::spawn(perform(machines, action, record, instance, wanted, timeline)));
    }
}

/// What a MicroVM needs of the host; `saved`: bytes of memory that it slept with.
#[must_use]
pub fn want(record: &MicrovmRecord, saved: u64) -> Want {
    let image = format!("{} {}", record.image, record.version);
    let cpu_millis = baseline(record.memory_mib).cpu_millis;
    Want { guest: record.id.to_string(), kind: capacity::Kind::Clone, image, at_least: saved, cpu_millis }
}

async fn perform(
    machines: Arc<dyn Machines>,
    action: Action,
    record: MicrovmRecord,
    instance: Option<Box<dyn Instance>>,
    wanted: CancellationToken,
    timeline: Timeline,
) -> Outcome {
    let kind = match action {
        Action::Launch => Kind::Launch,
        Action::Resume => Kind::Wake,
        Action::Suspend => Kind::Suspend,
        Action::Terminate { .. } => Kind::Terminate,
    };
    let (event, instance) =
        timeline.clone().scope(carry_out(machines, action, record, instance, wanted)).await;
    // What was given up tells nothing of how long it takes.
    let timed = event.as_ref().map(|event| Timed { kind, timeline, failed: failure(event) });
    Outcome { event, instance, timed }
}

/// Why an action failed that ended so.
fn failure(event: &Event) -> Option<String> {
    match event {
        Event::Failed(why) => Some(why.clone()),
        Event::SaveFailed => Some("it could not be saved, and goes on; the server's log says why".into()),
        Event::ResumeFailed => {
            Some("it could not be resumed, and sleeps on; the server's log says why".into())
        }
        _ => None,
    }
}

async fn carry_out(
    machines: Arc<dyn Machines>,
    action: Action,
    record: MicrovmRecord,
    instance: Option<Box<dyn Instance>>,
    wanted: CancellationToken,
) -> (Option<Event>, Option<Box<dyn Instance>>) {
    let done = |event| (Some(event), None);
    match action {
        Action::Launch => match machines.launch(&record).await {
            Ok(instance) => (Some(Event::Launched), Some(instance)),
            Err(why) => done(Event::Failed(why)),
        },
        Action::Resume => {
            let resumed = match instance {
                Some(instance) => instance.resume(&record).await.map_err(NotResumed::Ever),
                None => machines.resume(&record).await,
            };
            match resumed {
                Ok(instance) => (Some(Event::Resumed), Some(instance)),
                Err(NotResumed::ThisTime) => done(Event::ResumeFailed),
                Err(NotResumed::Ever(why)) => done(Event::Failed(why)),
            }
        }
        Action::Suspend => {
            let suspended = match instance {
                Some(instance) => instance.suspend(&record, wanted).await,
                None => machines.finish_suspend(&record, wanted).await,
            };
            match suspended {
                Ok(Suspended::Saved) => done(Event::Saved),
                Ok(Suspended::GivenUp(instance)) => (None, Some(instance)),
                Ok(Suspended::Failed(instance)) => (Some(Event::SaveFailed), Some(instance)),
                Err(why) => done(Event::Failed(why)),
            }
        }
        Action::Terminate { call_hook } => {
            match instance {
                Some(instance) => instance.terminate(&record, call_hook).await,
                None => machines.discard(&record).await,
            }
            done(Event::Released)
        }
    }
}

fn view_of(record: &MicrovmRecord, instance: Option<&dyn Instance>, failed_resumes: u64) -> View {
    let running = record.life.state == State::Running;
    View {
        state: record.life.state,
        resuming: record.life.resuming,
        failed_resumes,
        wakes_on_request: record.life.wakes_on_request(),
        life: instance.filter(|_| running).map(Instance::life),
    }
}

async fn finished(work: Option<&mut JoinHandle<Outcome>>) -> Outcome {
    match work {
        Some(work) => work.await.unwrap_or_else(|error| {
            let why = format!("an internal step of the MicroVM failed: {error}");
            Outcome { event: Some(Event::Failed(why)), instance: None, timed: None }
        }),
        None => pending().await,
    }
}

async fn ended(instance: Option<&mut Box<dyn Instance>>) -> Event {
    match instance {
        Some(instance) => instance.ended().await,
        None => pending().await,
    }
}

async fn due(deadline: Option<(u64, Event)>) {
    match deadline {
        Some((at, _)) => tokio::time::sleep(Duration::from_millis(at.saturating_sub(now_ms()))).await,
        None => pending().await,
    }
}
