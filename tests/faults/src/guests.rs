//! MicroVMs as their client knows them, and what must be true of them afterwards.

use std::time::{Duration, Instant};

use e2e::microvm::SETTLE;
use e2e::{Answer, Json, Server, json};

use crate::bed::Bed;
use rekindle_faults::plan::Fault;

const MICROVMS: &str = "/2025-09-09/microvms";
/// How long a client watches what it asked for: a resume that failed leaves no trace that it could see.
const WATCH: Duration = Duration::from_secs(10);
/// Between two looks at a state.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// What the client was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Accepted: it will run.
    Launching,
    Running,
    /// It will sleep.
    Suspending,
    Suspended,
    /// It will run again.
    Resuming,
    /// It will end.
    Terminating,
}

/// A MicroVM, by what was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: String,
    endpoint: String,
    token: Option<String>,
    pub(crate) told: Told,
    /// A call without an answer: what it would have told.
    pub(crate) perhaps: Option<Told>,
    /// Requests that were answered.
    count: u64,
    /// One more was sent.
    unsure: bool,
    /// How often it was resumed.
    pub(crate) wakes: u32,
}

/// What a fault may do to a MicroVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing but a server that died.
    Killed,
    /// Memory is gone.
    PowerCut,
    /// A step failed.
    Failed,
    /// This MicroVM's VMM was killed.
    VmmKilled,
}

impl Harm {
    pub(crate) fn of(fault: Fault) -> Self {
        match fault {
            Fault::KillBefore | Fault::KillAfter | Fault::KillWithin => Self::Killed,
            Fault::PowerCut | Fault::PowerCutTorn | Fault::PowerCutNames => Self::PowerCut,
            Fault::NoSpace | Fault::InputOutput | Fault::Short | Fault::Full | Fault::Record => Self::Failed,
            Fault::Hold => Self::VmmKilled,
        }
    }
}

/// Where a MicroVM may end that the client was told this of. The first is waited for; the others are settled too.
pub(crate) fn allowed(told: Told, harm: Harm) -> &'static [&'static str] {
    match (told, harm) {
        (Told::Terminating, _) => &["TERMINATED"],
        (Told::Suspended, _) => &["SUSPENDED"],
        (Told::Running, Harm::Killed | Harm::Failed) => &["RUNNING"],
        // It may have been told of after the kill; that it runs it has to prove.
        (Told::Running, Harm::VmmKilled) => &["RUNNING", "TERMINATED"],
        (Told::Running, Harm::PowerCut) => &["TERMINATED"],
        (Told::Launching | Told::Resuming, Harm::Killed) => &["RUNNING"],
        // It never ran, so nothing of it can be lost: it is launched again, or ends with the reason.
        (Told::Launching, _) => &["RUNNING", "TERMINATED"],
        (Told::Resuming, Harm::Failed) => &["RUNNING", "SUSPENDED"],
        (Told::Resuming, _) => &["RUNNING", "SUSPENDED", "TERMINATED"],
        (Told::Suspending, Harm::Killed) => &["SUSPENDED"],
        (Told::Suspending, Harm::Failed) => &["SUSPENDED", "RUNNING"],
        (Told::Suspending, _) => &["SUSPENDED", "TERMINATED"],
    }
}

impl Known {
    /// Asks for one. `None` where the call was not acknowledged.
    pub(crate) fn ask(bed: &Bed, client_token: &str) -> Option<Self> {
        Self::ask_of(&bed.server, &bed.image.arn, client_token)
    }

    /// The same, of another image.
    pub(crate) fn ask_of(server: &Server, image: &str, client_token: &str) -> Option<Self> {
        let body = json!({"imageIdentifier": image, "clientToken": client_token}).to_string();
        let answer = call(server, "POST", MICROVMS, &body).ok()?;
        if answer.status >= 300 {
            return None;
        }
        let answer = answer.json();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            id: text("microvmId"),
            endpoint: text("endpoint"),
            token: None,
            told: Told::Launching,
            perhaps: None,
            count: 0,
            unsure: false,
            wakes: 0,
        })
    }

    /// One that runs and has counted.
    pub(crate) fn run(bed: &Bed, client_token: &str) -> Result<Self, String> {
        // The server may still hold what it measured when an earlier fault had filled its disk.
        let launched = patiently(|| Self::ask(bed, client_token));
        let mut known = launched.ok_or("RunMicrovm was refused without a fault")?;
        known.settle(&bed.server, &["RUNNING"])?;
        known.told = Told::Running;
        known.count(&bed.server)?;
        Ok(known)
    }

    /// One that sleeps.
    pub(crate) fn suspended(bed: &Bed, client_token: &str) -> Result<Self, String> {
        Self::run(bed, client_token)?.asleep(bed)
    }

    /// The same one, asleep.
    pub(crate) fn asleep(mut self, bed: &Bed) -> Result<Self, String> {
        self.suspend(&bed.server);
        self.settle(&bed.server, &["SUSPENDED"])?;
        self.told = Told::Suspended;
        Ok(self)
    }

    pub(crate) fn suspend(&mut self, server: &Server) {
        self.tell(server, "suspend", Told::Suspending);
    }

    pub(crate) fn resume(&mut self, server: &Server) {
        self.wakes += 1;
        self.tell(server, "resume", Told::Resuming);
    }

    pub(crate) fn terminate(&mut self, server: &Server) {
        let answer = call(server, "DELETE", &format!("{MICROVMS}/{}", self.id), "");
        self.heard(answer, Told::Terminating);
    }

    fn tell(&mut self, server: &Server, operation: &str, told: Told) {
        let answer = call(server, "POST", &format!("{MICROVMS}/{}/{operation}", self.id), "");
        self.heard(answer, told);
    }

    /// Where no answer came, or one that says that the server failed, either may be so.
    fn heard(&mut self, answer: Result<Answer, String>, told: Told) {
        match answer {
            Ok(answer) if answer.status < 300 => (self.told, self.perhaps) = (told, None),
            Ok(answer) if answer.status < 500 => {}
            _ => self.perhaps = Some(told),
        }
    }

    /// Its record.
    pub(crate) fn record(&self, server: &Server) -> Result<Json, String> {
        let answer = call(server, "GET", &format!("{MICROVMS}/{}", self.id), "")?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(format!("{}: {answer:?}", self.id)) }
    }

    /// Waits for one of the states.
    pub(crate) fn settle(&self, server: &Server, states: &[&str]) -> Result<String, String> {
        let began = Instant::now();
        loop {
            let record = self.record(server)?;
            let state = record["state"].as_str().unwrap_or_default();
            if states.contains(&state) {
                return reasoned(state, &record);
            }
            if state == "TERMINATED" || began.elapsed() > SETTLE {
                return Err(format!("told {:?}, it is not {states:?}: {record}", self.told));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits, as a client does in the middle of a fault, until it is settled or the server is gone; not for what was not
    /// acknowledged.
    pub(crate) fn watch(&mut self, server: &Server, state: &str, told: Told) {
        let began = Instant::now();
        while self.perhaps.is_none() && began.elapsed() < WATCH {
            let Ok(record) = self.record(server) else { return };
            let seen = record["state"].as_str().unwrap_or_default();
            if seen == state {
                (self.told, self.perhaps) = (told, None);
                return;
            }
            // A failure that it recovered from, or not.
            let back = matches!((self.told, seen), (Told::Suspending, "RUNNING"));
            if seen == "TERMINATED"
                || back
                || record["stateReason"].as_str().is_some_and(|why| !why.is_empty())
            {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// One more request, which must be answered right.
    pub(crate) fn count(&mut self, server: &Server) -> Result<(), String> {
        let answer = self.post(server)?;
        let expected = [self.count + 1, self.count + 2];
        let unsure = std::mem::take(&mut self.unsure);
        let right = |count: &u64| answer == json!({"memory": count, "file": count});
        match expected.iter().take(1 + usize::from(unsure)).find(|count| right(count)) {
            Some(count) => self.count = *count,
            None => return Err(format!("{} has lost its memory: {answer}, not {}", self.id, expected[0])),
        }
        Ok(())
    }

    /// One more request, which a fault may befall.
    pub(crate) fn try_count(&mut self, server: &Server) {
        if self.unsure {
            return;
        }
        self.unsure = self.count(server).is_err();
    }

    fn post(&mut self, server: &Server) -> Result<Json, String> {
        Ok(self.request(server, "/counter", &["--request", "POST", "--data", ""])?.json())
    }

    /// Its application answers.
    pub(crate) fn greets(&mut self, server: &Server) -> Result<(), String> {
        self.request(server, "/", &[]).map(drop)
    }

    fn request(&mut self, server: &Server, path: &str, options: &[&str]) -> Result<Answer, String> {
        if self.token.is_none() {
            let body = json!({"expirationInMinutes": 60, "allowedPorts": [{"allPorts": {}}]}).to_string();
            let answer = call(server, "POST", &format!("{MICROVMS}/{}/auth-token", self.id), &body)?;
            self.token = answer.json()["authToken"]["X-aws-proxy-auth"].as_str().map(str::to_owned);
        }
        let auth = format!("X-aws-proxy-auth: {}", self.token.as_deref().unwrap_or_default());
        let url = format!("https://{}{path}", self.endpoint);
        let answer = server.try_curl(&url, &[&["--header", &auth][..], options].concat())?;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{}: {answer:?}", self.id)) }
    }

    /// What must be true after the fault; whatever still lives answers with its memory.
    pub(crate) fn check(&mut self, server: &Server, harm: Harm) -> Result<(), String> {
        let mut states = allowed(self.told, harm).to_vec();
        states.extend(self.perhaps.iter().flat_map(|told| allowed(*told, harm)));
        let state = self.settle(server, &states)?;
        self.perhaps = None;
        if state == "TERMINATED" {
            self.told = Told::Terminating;
        } else if let Err(error) = self.prove(server, &state) {
            // A record may speak of what the start has not found to be lost yet, where it may be lost.
            let ended = states.contains(&"TERMINATED") && self.settle(server, &["TERMINATED"]).is_ok();
            if !ended {
                return Err(error);
            }
            self.told = Told::Terminating;
        }
        let vmms = server.vmms(&self.id).len();
        let expected = usize::from(self.told == Told::Running);
        if vmms == expected { Ok(()) } else { Err(format!("{} has {vmms} VMMs, not {expected}", self.id)) }
    }

    /// Where it runs: what it saves next, over what the fault left, is its memory too.
    pub(crate) fn sleep_and_wake(&mut self, server: &Server) -> Result<(), String> {
        if self.told != Told::Running {
            return Ok(());
        }
        self.suspend(server);
        self.settle(server, &["SUSPENDED"])?;
        self.prove(server, "SUSPENDED")
    }

    /// Whatever state it is in, it answers with its memory.
    fn prove(&mut self, server: &Server, state: &str) -> Result<(), String> {
        if state != "RUNNING" {
            self.told = Told::Suspended;
            // A disk that was full is seen to have room again with the server's next look at it.
            patiently(|| {
                self.resume(server);
                (self.told == Told::Resuming).then_some(())
            });
            self.settle(server, &["RUNNING"])?;
        }
        self.told = Told::Running;
        self.count(server)
    }

    pub(crate) fn end(&mut self, server: &Server) -> Result<(), String> {
        self.terminate(server);
        self.settle(server, &["TERMINATED"]).map(drop)
    }
}

/// Tries until there is something, but not for long.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        let made = attempt();
        if made.is_some() || began.elapsed() > WATCH {
            return made;
        }
        std::thread::sleep(PAUSE);
    }
}

fn reasoned(state: &str, record: &Json) -> Result<String, String> {
    let reason = record["stateReason"].as_str().unwrap_or_default();
    if state == "TERMINATED" && reason.is_empty() {
        return Err(format!("it ended without a reason: {record}"));
    }
    Ok(state.to_owned())
}

pub(crate) fn call(server: &Server, method: &str, path: &str, body: &str) -> Result<Answer, String> {
    server.api(path, &["--request", method, "--data-binary", body])
}
