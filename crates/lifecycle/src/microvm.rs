//! A MicroVM's life (SPEC §1.3, §4.2–4.4).
//!
//! ```text
//!             launched            idle | asked           saved
//!  Pending ────────────▶ Running ──────────────▶ Suspending ─────▶ Suspended
//!     │                   ▲  │                       │               │   │
//!     │                   │  │      resumed          │               │   │
//!     │                   └──┼───────────────────────┼───────────────┘   │
//!     ▼                      ▼                       ▼                   ▼
//!  Terminating ◀───────── asked, lifetime, exit, failure, suspended too long
//!     │ released
//!     ▼
//!  Terminated
//! ```
//!
//! A request that comes while it is being saved does not wait for that: the saving is given up if it still can be, and
//! the MicroVM goes on from what is in its memory. Clients see SUSPENDING until it is RUNNING. One that could not be saved
//! goes on likewise.
//!
//! The owner applies an event, makes the result durable, and only then starts the [`Action`] that it
//! returns. Every action can be repeated after a crash, so a lost one is found again by [`Microvm::pending_action`].

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Being launched.
    Pending,
    /// The application runs and the endpoint answers.
    Running,
    /// Being saved.
    Suspending,
    /// Saved durably; no process, no memory. Stays so while it is being resumed.
    Suspended,
    /// Being taken down.
    Terminating,
    /// Gone; the record is kept for its retention.
    Terminated,
}

impl State {
    /// The name that clients know.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Suspending => "SUSPENDING",
            Self::Suspended => "SUSPENDED",
            Self::Terminating => "TERMINATING",
            Self::Terminated => "TERMINATED",
        }
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the state of a MicroVM")]
pub struct ParseStateError(String);

impl FromStr for State {
    type Err = ParseStateError;
    fn from_str(text: &str) -> Result<Self, ParseStateError> {
        let mut all = [
            Self::Pending,
            Self::Running,
            Self::Suspending,
            Self::Suspended,
            Self::Terminating,
            Self::Terminated,
        ]
        .into_iter();
        all.find(|state| state.as_str() == text).ok_or_else(|| ParseStateError(text.to_owned()))
    }
}

/// When an idle MicroVM sleeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdlePolicy {
    /// Seconds without a byte through the endpoint before it is suspended.
    pub max_idle_duration_seconds: u32,
    /// Seconds suspended before it is terminated; 0 terminates at once.
    pub suspended_duration_seconds: u32,
    /// Whether a request wakes it.
    pub auto_resume_enabled: bool,
}

/// What a launch fixes for the whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Wall-clock seconds from the start, running and suspended alike (SPEC §4.4).
    pub maximum_duration_seconds: u32,
    /// None: never suspended for being idle.
    pub idle: Option<IdlePolicy>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The clone runs and its `/run` hook answered 200.
    Launched,
    /// A client asked for suspension.
    SuspendRequested,
    /// No bytes for `maxIdleDurationSeconds`.
    IdleExpired,
    /// The snapshot is durable and the VMM is gone.
    Saved,
    /// It could not be saved, as on a full disk; its VMM is as it was.
    SaveFailed,
    /// A client asked for it to run.
    ResumeRequested,
    /// A request came through the endpoint.
    RequestArrived,
    /// The clone runs again and its `/resume` hook answered 200.
    Resumed,
    /// It could not be resumed this time; what was saved is as it was.
    ResumeFailed,
    /// A client asked for the end.
    TerminateRequested,
    /// `maximumDurationInSeconds` are over.
    LifetimeExceeded,
    /// `suspendedDurationSeconds` are over.
    SuspendedTooLong,
    /// The application's PID 1 ended.
    ContainerExited(i32),
    /// A step failed for good; the text goes to the client as `stateReason`.
    Failed(String),
    /// Every resource of the MicroVM is released.
    Released,
}

/// What the owner must now do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Clone from the image's snapshot.
    Launch,
    /// Call `/suspend`, save, stop.
    Suspend,
    /// Restore the saved state, or go on without it where it was not saved, and call `/resume`. Takes the place of a
    /// [`Action::Suspend`] that is under way.
    Resume,
    /// Take down. `call_hook`: whether the application may still be told.
    Terminate {
        /// False where there is no application left to call.
        call_hook: bool,
    },
}

/// An event that the state does not allow; the client gets a ConflictException.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the MicroVM is {}, which does not allow this{}", .state.as_str(), advice(*.state))]
pub struct Refused {
    /// The state it is in.
    pub state: State,
}

/// The lifecycle part of a MicroVM's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Microvm {
    /// What clients see.
    pub state: State,
    /// Whether a resume is under way; the state stays `Suspended` meanwhile (SPEC §1.3), or `Suspending` where it was
    /// not even saved.
    pub resuming: bool,
    /// Whether PID 1 ended: then there is nobody to call `/terminate` on.
    pub exited: bool,
    /// Why it is ending or ended.
    pub reason: Option<String>,
    /// Fixed at launch.
    pub policy: Policy,
    /// RunMicrovm's moment.
    pub started_at: u64,
    /// Set while suspended.
    pub suspended_at: Option<u64>,
    /// Set once terminated.
    pub terminated_at: Option<u64>,
    /// Counts the lives: raised by every launch and resume.
    pub life: u64,
}

impl Microvm {
    /// A MicroVM that RunMicrovm accepted at `now`.
    #[must_use]
    pub fn new(policy: Policy, now: u64) -> Self {
        Self {
            state: State::Pending,
            resuming: false,
            exited: false,
            reason: None,
            policy,
            started_at: now,
            suspended_at: None,
            terminated_at: None,
            life: 1,
        }
    }

    /// Applies `event` at `now`. Returns what to do next, or nothing where the event changes nothing.
    ///
    /// # Errors
    /// [`Refused`] where a client asked for what the state does not allow. Nothing is changed then.
    pub fn apply(&mut self, event: &Event, now: u64) -> Result<Option<Action>, Refused> {
        use State::{Pending, Running, Suspended, Suspending, Terminated, Terminating};
        match (self.state, event) {
            (Terminating, Event::Released) => {
                self.state = Terminated;
                self.terminated_at = Some(now);
                Ok(None)
            }
            (
                Terminating | Terminated,
                Event::SuspendRequested | Event::ResumeRequested | Event::RequestArrived,
            ) => Err(self.refused()),
            // The end is decided already: nothing that happens now changes it.
            (Terminating | Terminated, _) => Ok(None),

            (_, Event::TerminateRequested) => Ok(Some(self.end("Success."))),
            (_, Event::LifetimeExceeded) => Ok(Some(self.end("MicroVM exceeded maximum lifetime."))),
            (_, Event::Failed(why)) => Ok(Some(self.end(why))),
            (_, Event::ContainerExited(code)) => {
                self.exited = true;
                Ok(Some(self.end(&format!("Container Stopped with Exit Code: {code}"))))
            }

            (Pending, Event::Launched) => {
                self.state = Running;
                Ok(None)
            }
            (Pending, Event::SuspendRequested | Event::ResumeRequested) => Err(self.refused()),

            (Running, Event::SuspendRequested | Event::IdleExpired) => {
                self.state = Suspending;
                Ok(Some(Action::Suspend))
            }

            (Suspending, Event::Saved) => Ok(self.sleep(now)),
            (Suspending, Event::ResumeRequested) => Err(self.refused()),

            (Suspended, Event::ResumeRequested)
            | (Suspending | Suspended, Event::RequestArrived)
            | (Suspending, Event::SaveFailed)
                if !self.resuming =>
            {
                self.resuming = true;
                self.life += 1;
                Ok(Some(Action::Resume))
            }
            (Suspending | Suspended, Event::SuspendRequested) if self.resuming => Err(self.refused()),
            (Suspending | Suspended, Event::Resumed) if self.resuming => {
                self.resuming = false;
                self.suspended_at = None;
                self.state = Running;
                Ok(None)
            }
            (Suspended, Event::ResumeFailed) if self.resuming => {
                self.resuming = false;
                Ok(None)
            }
            (Suspended, Event::SuspendedTooLong) if !self.resuming => {
                Ok(Some(self.end("MicroVM exceeded maximum suspended duration.")))
            }

            // Repeating what is already so is success (SPEC §1.4); a late timer or report changes nothing.
            _ => Ok(None),
        }
    }

    /// The event that time alone will bring, and when, if nothing else happens.
    /// `last_activity` is the last byte through the endpoint; open but silent streams do not count (SPEC §4.2).
    #[must_use]
    pub fn next_deadline(&self, last_activity: u64) -> Option<(u64, Event)> {
        if matches!(self.state, State::Terminating | State::Terminated) {
            return None;
        }
        let lifetime =
            (after(self.started_at, self.policy.maximum_duration_seconds), Event::LifetimeExceeded);
        let idle = match (self.policy.idle, self.state) {
            (Some(idle), State::Running) => {
                let active = last_activity.max(self.started_at);
                Some((after(active, idle.max_idle_duration_seconds), Event::IdleExpired))
            }
            (Some(idle), State::Suspended) if !self.resuming => self
                .suspended_at
                .map(|since| (after(since, idle.suspended_duration_seconds), Event::SuspendedTooLong)),
            _ => None,
        };
        Some(match idle {
            Some(sooner) if sooner.0 < lifetime.0 => sooner,
            _ => lifetime,
        })
    }

    /// What was under way when the owner last stopped, to be taken up again after a crash.
    #[must_use]
    pub fn pending_action(&self) -> Option<Action> {
        match self.state {
            State::Pending => Some(Action::Launch),
            State::Suspending | State::Suspended if self.resuming => Some(Action::Resume),
            State::Suspending => Some(Action::Suspend),
            State::Terminating => Some(Action::Terminate { call_hook: false }),
            State::Running | State::Suspended | State::Terminated => None,
        }
    }

    /// Whether a request through the endpoint may wake it.
    #[must_use]
    pub fn wakes_on_request(&self) -> bool {
        self.policy.idle.is_some_and(|idle| idle.auto_resume_enabled)
    }

    fn sleep(&mut self, now: u64) -> Option<Action> {
        self.state = State::Suspended;
        self.suspended_at = Some(now);
        if self.resuming {
            // A request came, but too late for the saving to be given up.
            return Some(Action::Resume);
        }
        let gone_at_once = self.policy.idle.is_some_and(|idle| idle.suspended_duration_seconds == 0);
        gone_at_once.then(|| self.end("MicroVM exceeded maximum suspended duration."))
    }

    fn end(&mut self, reason: &str) -> Action {
        let call_hook = self.state == State::Running && !self.exited;
        self.state = State::Terminating;
        self.resuming = false;
        self.reason = Some(reason.to_owned());
        Action::Terminate { call_hook }
    }

    fn refused(&self) -> Refused {
        Refused { state: self.state }
    }
}

/// What a client can do about a state.
fn advice(state: State) -> &'static str {
    match state {
        State::Terminating | State::Terminated => "; run a new one",
        _ => "; wait for it to settle and ask again",
    }
}

fn after(start: u64, seconds: u32) -> u64 {
    start.saturating_add(u64::from(seconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: IdlePolicy = IdlePolicy {
        max_idle_duration_seconds: 60,
        suspended_duration_seconds: 300,
        auto_resume_enabled: true,
    };

    fn microvm(idle: Option<IdlePolicy>) -> Microvm {
        Microvm::new(Policy { maximum_duration_seconds: 28_800, idle }, 1_000)
    }

    fn running(idle: Option<IdlePolicy>) -> Microvm {
        let mut vm = microvm(idle);
        assert_eq!(vm.apply(&Event::Launched, 1_500), Ok(None));
        vm
    }

    fn suspended(idle: Option<IdlePolicy>) -> Microvm {
        let mut vm = running(idle);
        assert_eq!(vm.apply(&Event::SuspendRequested, 2_000), Ok(Some(Action::Suspend)));
        assert_eq!(vm.state, State::Suspending);
        vm.apply(&Event::Saved, 3_000).unwrap();
        vm
    }

    #[test]
    fn sleeps_and_wakes() {
        let mut vm = suspended(Some(IDLE));
        assert_eq!((vm.state, vm.suspended_at, vm.life), (State::Suspended, Some(3_000), 1));
        assert_eq!(vm.apply(&Event::ResumeRequested, 4_000), Ok(Some(Action::Resume)));
        assert_eq!(vm.state, State::Suspended, "stays SUSPENDED during the resume hook");
        assert_eq!(vm.apply(&Event::ResumeRequested, 4_001), Ok(None), "one resume at a time");
        assert_eq!(vm.apply(&Event::Resumed, 4_100), Ok(None));
        assert_eq!((vm.state, vm.suspended_at, vm.life), (State::Running, None, 2));
    }

    #[test]
    fn what_cannot_be_resumed_now_sleeps_on() {
        let mut vm = suspended(Some(IDLE));
        vm.apply(&Event::ResumeRequested, 4_000).unwrap();
        assert_eq!(vm.apply(&Event::ResumeFailed, 4_100), Ok(None));
        assert_eq!((vm.state, vm.suspended_at, vm.pending_action()), (State::Suspended, Some(3_000), None));
        assert_eq!(vm.apply(&Event::RequestArrived, 5_000), Ok(Some(Action::Resume)));
    }

    #[test]
    fn a_request_does_not_wait_for_the_saving() {
        let wanted = || {
            let mut vm = running(Some(IdlePolicy { suspended_duration_seconds: 0, ..IDLE }));
            vm.apply(&Event::IdleExpired, 2_000).unwrap();
            assert_eq!(vm.apply(&Event::RequestArrived, 2_001), Ok(Some(Action::Resume)));
            assert_eq!(vm.apply(&Event::RequestArrived, 2_002), Ok(None), "one resume at a time");
            assert_eq!((vm.state, vm.life), (State::Suspending, 2));
            vm
        };
        let mut given_up = wanted();
        given_up.apply(&Event::Resumed, 2_100).unwrap();
        assert_eq!((given_up.state, given_up.resuming), (State::Running, false));
        let mut too_late = wanted();
        assert_eq!(too_late.apply(&Event::Saved, 2_050), Ok(Some(Action::Resume)));
        assert_eq!((too_late.state, too_late.resuming), (State::Suspended, true));
        too_late.apply(&Event::Resumed, 2_100).unwrap();
        assert_eq!((too_late.state, too_late.suspended_at, too_late.life), (State::Running, None, 2));
    }

    #[test]
    fn what_cannot_be_saved_goes_on() {
        let mut vm = running(Some(IDLE));
        vm.apply(&Event::IdleExpired, 2_000).unwrap();
        assert_eq!(vm.apply(&Event::SaveFailed, 2_001), Ok(Some(Action::Resume)));
        assert_eq!((vm.state, vm.life), (State::Suspending, 2));
        vm.apply(&Event::Resumed, 2_100).unwrap();
        assert_eq!((vm.state, vm.reason.clone()), (State::Running, None));
        assert_eq!(vm.next_deadline(2_100), Some((62_100, Event::IdleExpired)), "it is tried again");
    }

    #[test]
    fn repeating_what_is_so_succeeds() {
        assert_eq!(suspended(None).apply(&Event::SuspendRequested, 9_000), Ok(None));
        assert_eq!(running(None).apply(&Event::ResumeRequested, 9_000), Ok(None));
        let mut vm = running(None);
        vm.apply(&Event::TerminateRequested, 9_000).unwrap();
        assert_eq!(vm.apply(&Event::TerminateRequested, 9_000), Ok(None));
        assert_eq!(vm.apply(&Event::ResumeRequested, 9_000), Err(Refused { state: State::Terminating }));
    }

    #[test]
    fn the_hook_is_called_only_where_somebody_can_answer() {
        assert_eq!(
            running(None).apply(&Event::TerminateRequested, 2),
            Ok(Some(Action::Terminate { call_hook: true }))
        );
        let mut exited = running(None);
        assert_eq!(
            exited.apply(&Event::ContainerExited(124), 2),
            Ok(Some(Action::Terminate { call_hook: false }))
        );
        assert_eq!(exited.reason.as_deref(), Some("Container Stopped with Exit Code: 124"));
        assert_eq!(
            suspended(None).apply(&Event::TerminateRequested, 2),
            Ok(Some(Action::Terminate { call_hook: false }))
        );
    }

    #[test]
    fn time_brings_sleep_then_the_end() {
        let vm = running(Some(IDLE));
        assert_eq!(vm.next_deadline(10_000), Some((70_000, Event::IdleExpired)));
        assert_eq!(vm.next_deadline(28_790_000), Some((28_801_000, Event::LifetimeExceeded)));
        assert_eq!(suspended(Some(IDLE)).next_deadline(0), Some((303_000, Event::SuspendedTooLong)));
        assert_eq!(suspended(None).next_deadline(0), Some((28_801_000, Event::LifetimeExceeded)));
    }

    #[test]
    fn a_refusal_names_the_state_as_clients_know_it() {
        let ended = Refused { state: State::Terminated }.to_string();
        assert_eq!(ended, "the MicroVM is TERMINATED, which does not allow this; run a new one");
        let busy = Refused { state: State::Suspending }.to_string();
        assert!(busy.starts_with("the MicroVM is SUSPENDING, ") && busy.ends_with("ask again"), "{busy}");
    }

    #[test]
    fn zero_suspended_duration_ends_it_at_once() {
        let vm = suspended(Some(IdlePolicy { suspended_duration_seconds: 0, ..IDLE }));
        assert_eq!(vm.state, State::Terminating);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Launched),
            Just(Event::SuspendRequested),
            Just(Event::IdleExpired),
            Just(Event::Saved),
            Just(Event::SaveFailed),
            Just(Event::ResumeRequested),
            Just(Event::RequestArrived),
            Just(Event::Resumed),
            Just(Event::ResumeFailed),
            Just(Event::TerminateRequested),
            Just(Event::LifetimeExceeded),
            Just(Event::SuspendedTooLong),
            any::<i32>().prop_map(Event::ContainerExited),
            ".{0,8}".prop_map(Event::Failed),
            Just(Event::Released),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_record_stays_coherent(events in proptest::collection::vec(any_event(), 0..40)) {
            let mut vm = microvm(Some(IDLE));
            for (step, event) in events.iter().enumerate() {
                let before = vm.clone();
                let result = vm.apply(event, 1_000 + step as u64);
                if result.is_err() {
                    prop_assert_eq!(&vm, &before, "a refusal changes nothing");
                }
                if before.state == State::Terminated {
                    prop_assert_eq!(&vm, &before, "TERMINATED is final");
                }
                prop_assert!(!vm.resuming || matches!(vm.state, State::Suspending | State::Suspended));
                prop_assert!(vm.life >= before.life);
                prop_assert_eq!(vm.terminated_at.is_some(), vm.state == State::Terminated);
                let ending = matches!(vm.state, State::Terminating | State::Terminated);
                prop_assert_eq!(vm.reason.is_some(), ending);
                prop_assert_eq!(vm.next_deadline(0).is_none(), ending);
                if let Ok(Some(action)) = result {
                    // A crash right after the transition must find the same work again.
                    let found = vm.pending_action();
                    let same = found == Some(action)
                        || matches!((found, action), (Some(Action::Terminate { .. }), Action::Terminate { .. }));
                    prop_assert!(same, "{:?} lost, found {:?}", action, found);
                }
            }
        }

        #[test]
        fn a_terminate_always_ends_it(events in proptest::collection::vec(any_event(), 0..20)) {
            let mut vm = microvm(None);
            for event in &events {
                let _ = vm.apply(event, 5);
            }
            vm.apply(&Event::TerminateRequested, 6).unwrap();
            vm.apply(&Event::Released, 7).unwrap();
            prop_assert_eq!(vm.state, State::Terminated);
        }
    }
}
