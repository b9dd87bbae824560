//! The host's end of one guest: its session, what it has told, and its application.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_proto::host::{Answers, CallError, Channel};
use agent_proto::shell::HostEnds;
use agent_proto::{ENTROPY_BYTES, Event, HookCall, HookOutcome, NewLife, Request, Response};
use engine::Machine;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

const MEET_WITHIN: Duration = Duration::from_secs(120);
const CALL_WITHIN: Duration = Duration::from_secs(120);
/// For an application that has much to do first.
const PRINT_WITHIN: Duration = Duration::from_secs(180);
const HOOKS: u16 = 9000;
const APP: u16 = 8080;

/// What the guest has told in this session.
#[derive(Default, Clone)]
struct Told {
    log: String,
    exit: Option<i32>,
    mark: u64,
}

/// A machine with an agent that answers.
pub(crate) struct Guest {
    pub(crate) machine: Box<dyn Machine>,
    channel: Channel,
    told: watch::Receiver<Told>,
}

impl Guest {
    /// Waits for the agent.
    pub(crate) async fn meet(machine: Box<dyn Machine>) -> Self {
        let session = async {
            let io = machine.channel().await.unwrap();
            Channel::establish(io, Answers::none()).await
        };
        let Ok(met) = tokio::time::timeout(MEET_WITHIN, session).await else {
            panic!("no agent answers; console: {}", machine.console().await.unwrap());
        };
        let (channel, mut events) = met.unwrap();
        let (teller, told) = watch::channel(Told::default());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                teller.send_modify(|told| match event {
                    Event::Log { bytes, .. } => told.log.push_str(&String::from_utf8_lossy(&bytes)),
                    Event::AppExited { code } => told.exit = Some(code),
                    Event::Flushed { mark } => told.mark = mark,
                });
            }
        });
        Self { machine, channel, told }
    }

    pub(crate) fn log(&self) -> String {
        self.told.borrow().log.clone()
    }

    /// Waits until the application has printed a text.
    pub(crate) async fn printed(&self, text: &str) {
        let mut told = self.told.clone();
        let printed = told.wait_for(|told| told.log.contains(text));
        if tokio::time::timeout(PRINT_WITHIN, printed).await.is_err() {
            panic!("the application does not print {text}; it wrote: {}", self.log());
        }
    }

    /// Waits until the application has ended; its exit code.
    pub(crate) async fn exit(&mut self) -> i32 {
        let ended = self.told.wait_for(|told| told.exit.is_some());
        let code = tokio::time::timeout(CALL_WITHIN, ended).await.map(|told| told.unwrap().exit.unwrap());
        code.unwrap_or_else(|_| panic!("the application did not end; it wrote: {}", self.log()))
    }

    /// The application's exit code, if it was told.
    pub(crate) fn told_exit(&self) -> Option<i32> {
        self.told.borrow().exit
    }

    pub(crate) async fn call_within(&self, limit: Duration, request: Request) -> Response {
        let what = format!("{request:?}");
        match tokio::time::timeout(limit, self.channel.call(&request)).await {
            Ok(Ok(response)) => response,
            failed => {
                let console = self.machine.console().await.unwrap();
                panic!("{what}: {failed:?}; log: {}; console: {console}", self.log());
            }
        }
    }

    pub(crate) async fn done(&self, request: Request) {
        let what = format!("{request:?}");
        let response = self.call_within(CALL_WITHIN, request).await;
        assert_eq!(response, Response::Done, "{what}; log: {}", self.log());
    }

    pub(crate) async fn hook(&self, name: &str) -> HookOutcome {
        match self.call_within(CALL_WITHIN, Request::Hook(hook_call(name, None))).await {
            Response::Hook(outcome) => outcome,
            other => panic!("no answer to a hook: {other:?}"),
        }
    }

    /// Calls the ready hook until it says yes.
    pub(crate) async fn ready(&self) {
        let deadline = Instant::now() + CALL_WITHIN;
        loop {
            let outcome = self.hook("ready").await;
            if outcome == HookOutcome::Status(200) {
                return;
            }
            assert!(Instant::now() < deadline, "{outcome:?}; log: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn live(&self, hook: Option<HookCall>) -> Response {
        let mut entropy = vec![0; ENTROPY_BYTES];
        getrandom::fill(&mut entropy).unwrap();
        let wall_clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        self.channel
            .call(&Request::Live(NewLife { wall_clock, entropy, machine_id: None, hook }))
            .await
            .unwrap()
    }

    /// Freezes the guest, which ends the session.
    pub(crate) async fn freeze(self) -> Box<dyn Machine> {
        self.freeze_with_log().await.0
    }

    /// The same, with all that was told.
    pub(crate) async fn freeze_with_log(mut self) -> (Box<dyn Machine>, String) {
        self.done(Request::Freeze).await;
        tokio::time::timeout(CALL_WITHIN, self.channel.ended()).await.unwrap();
        // The teller goes once it has nothing more.
        while self.told.changed().await.is_ok() {}
        let log = self.log();
        (self.machine, log)
    }

    /// What was printed by now.
    pub(crate) async fn flushed_log(&mut self) -> String {
        self.told_before(Request::Flush).await
    }

    /// What was printed until the application had ended, or would not.
    pub(crate) async fn stopped_log(&mut self, within: Duration) -> String {
        let within_ms = within.as_millis() as u64;
        self.told_before(Request::Stop { within_ms }).await
    }

    async fn told_before(&mut self, request: Request) -> String {
        match self.call_within(CALL_WITHIN, request).await {
            Response::Flushed { mark } => drop(self.told.wait_for(|told| told.mark >= mark).await.unwrap()),
            other => panic!("not flushed: {other:?}"),
        }
        self.log()
    }

    pub(crate) async fn shell(&self) -> Result<HostEnds, CallError> {
        self.channel.shell().await
    }

    /// Ends the session and starts another, as a server does that was restarted.
    pub(crate) async fn meet_again(self) -> Self {
        self.channel.close().await;
        Self::meet(self.machine).await
    }

    pub(crate) async fn power_off(self) {
        self.done(Request::Shutdown).await;
        if tokio::time::timeout(CALL_WITHIN, self.machine.wait_exit()).await.is_err() {
            panic!("the machine stays on; console: {}", self.machine.console().await.unwrap());
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.http("GET", path).await
    }

    /// One request through the relay, whose answer must be a 200 with JSON.
    pub(crate) async fn http(&self, method: &str, path: &str) -> Value {
        let mut stream = self.channel.relay(APP).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(CALL_WITHIN, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        serde_json::from_str(body).unwrap()
    }
}

pub(crate) fn hook_call(name: &str, body: Option<Vec<u8>>) -> HookCall {
    HookCall { hook: name.into(), port: HOOKS, timeout_ms: 10_000, body }
}
