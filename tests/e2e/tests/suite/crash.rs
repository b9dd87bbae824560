//! The server is killed at every stage, and started again: nothing acknowledged is lost, nothing is left over.

use std::time::Duration;

use rekindle_e2e::{Artifact, ImageRequest, Microvm, Server, json, microvm, until};

use crate::fixture;

/// For a line of output to reach the log.
const LOGGED: Duration = Duration::from_secs(10);

/// A MicroVM whose server is killed: it is known by its id and endpoint afterwards.
pub(crate) struct Survivor {
    pub(crate) id: String,
    endpoint: String,
    token: String,
}

impl Survivor {
    pub(crate) fn run(server: &Server) -> Self {
        Self::of(server, &Microvm::run(server, &fixture::probe(server), &[]))
    }

    fn of(server: &Server, microvm: &Microvm<'_>) -> Self {
        let token = microvm::token(server, &microvm.id, r#"[{"allPorts":{}}]"#);
        Self { id: microvm.id.clone(), endpoint: microvm.endpoint.clone(), token }
    }

    /// The counter after one more.
    fn count(&self, server: &Server) -> rekindle_e2e::Json {
        self.post(server, "/counter")
    }

    /// What its application answers to an empty POST; the token is from before the kill and must do.
    pub(crate) fn post(&self, server: &Server, path: &str) -> rekindle_e2e::Json {
        self.ask(server, path, &["--request", "POST", "--data", ""])
    }

    pub(crate) fn get(&self, server: &Server, path: &str) -> rekindle_e2e::Json {
        self.ask(server, path, &[])
    }

    fn ask(&self, server: &Server, path: &str, options: &[&str]) -> rekindle_e2e::Json {
        let auth = format!("X-aws-proxy-auth: {}", self.token);
        let url = format!("https://{}{path}", self.endpoint);
        server.curl(&url, &[&["--header", &auth][..], options].concat()).expect(200).json()
    }

    pub(crate) fn wait(&self, server: &Server, states: &[&str]) -> String {
        until(&format!("{} to be one of {states:?}", self.id), microvm::SETTLE, || {
            let record = server.microvm(&self.id);
            let state = record["state"].as_str().unwrap().to_owned();
            assert!(states.contains(&state.as_str()) || state != "TERMINATED", "{record}");
            states.contains(&state.as_str()).then_some(state)
        })
    }

    /// Waits for what the application notes of each request to be in the log. What is on its way to a server that is killed is
    /// lost, so it is waited for before that.
    fn wait_for_notes(&self, server: &Server, requests: usize) {
        until(&format!("{requests} requests to be in the log"), LOGGED, || {
            let log = server.logs(&self.id);
            let noted = log.matches("POST /counter").count();
            assert!(noted <= requests, "a line is there twice: {log}");
            (noted == requests).then_some(())
        });
    }

    fn call(&self, server: &Server, operation: &str) {
        server.aws(&["lambda-microvms", operation, "--microvm-identifier", &self.id]);
    }

    pub(crate) fn end(&self, server: &Server) {
        self.call(server, "terminate-microvm");
        self.wait(server, &["TERMINATED"]);
        assert_eq!(server.vmms(&self.id), [] as [i32; 0], "a terminated MicroVM has a process");
    }
}

fn counted(times: u64) -> rekindle_e2e::Json {
    json!({ "memory": times, "file": times })
}

pub(crate) fn a_running_microvm_goes_on() {
    let mut server = fixture::exclusive();
    let survivor = Survivor::run(&server);
    assert_eq!(survivor.count(&server), counted(1));
    survivor.wait_for_notes(&server, 1);
    let vmms = server.vmms(&survivor.id);
    server.kill();
    assert_eq!(server.vmms(&survivor.id), vmms, "a MicroVM outlives its server");
    server.restart();
    assert_eq!(survivor.count(&server), counted(2));
    assert_eq!(server.vmms(&survivor.id), vmms, "the same process goes on");
    survivor.wait_for_notes(&server, 2);
    // And again, because what was adopted must be adoptable.
    server.restart();
    assert_eq!(survivor.count(&server), counted(3));
    survivor.call(&server, "suspend-microvm");
    survivor.wait(&server, &["SUSPENDED"]);
    survivor.call(&server, "resume-microvm");
    assert_eq!(survivor.count(&server), counted(4));
    survivor.wait_for_notes(&server, 4);
    survivor.end(&server);
}

pub(crate) fn a_suspended_microvm_resumes() {
    let mut server = fixture::exclusive();
    let survivor = Survivor::run(&server);
    assert_eq!(survivor.count(&server), counted(1));
    survivor.call(&server, "suspend-microvm");
    survivor.wait(&server, &["SUSPENDED"]);
    server.restart();
    assert_eq!(survivor.wait(&server, &["SUSPENDED"]), "SUSPENDED");
    survivor.call(&server, "resume-microvm");
    survivor.wait(&server, &["RUNNING"]);
    assert_eq!(survivor.count(&server), counted(2));
    survivor.end(&server);
}

pub(crate) fn a_build_is_finished_or_failed() {
    let mut server = fixture::exclusive();
    // No other build has left its container.
    let artifact = Artifact::probe().file("crashed", "");
    let image = ImageRequest::of(&server, "crashed", &artifact).create(&server);
    until("the build to be under way", microvm::SETTLE, || {
        (image.build(&server, "1.0")["buildState"] == "IN_PROGRESS").then_some(())
    });
    server.restart();
    let record = image.settled(&server);
    let build = image.build(&server, "1.0");
    match record["state"].as_str() {
        Some("CREATED") => assert_eq!(build["buildState"], "SUCCESSFUL", "{build}"),
        Some("CREATE_FAILED") => {
            assert_eq!(build["buildState"], "FAILED", "{build}");
            assert!(build["stateReason"].as_str().is_some_and(|reason| !reason.is_empty()), "{build}");
        }
        _ => panic!("{record}"),
    }
    image.delete(&server);
}

pub(crate) fn killed_during_a_launch() {
    let mut server = fixture::exclusive();
    let image = fixture::probe(&server);
    // The hook holds the launch open until the server is gone.
    let payload = json!({ "run": { "delay": 10 } }).to_string();
    let microvm = Microvm::launch(&server, &image, &["--run-hook-payload", &payload]);
    let survivor = Survivor::of(&server, &microvm);
    assert_eq!(server.microvm(&survivor.id)["state"], "PENDING");
    server.restart();
    // It was acknowledged, so it runs: launched again, once and not twice.
    survivor.wait(&server, &["RUNNING"]);
    assert_eq!(survivor.count(&server), counted(1));
    assert_eq!(server.vmms(&survivor.id).len(), 1);
    survivor.end(&server);
}

pub(crate) fn killed_during_a_suspend() {
    let mut server = fixture::exclusive();
    // First while the hook holds the suspension open, then wherever it is right after the call.
    let slow = json!({ "suspend": { "delay": 3 } }).to_string();
    for arguments in [&["--run-hook-payload", &slow][..], &[]] {
        let microvm = Microvm::run(&server, &fixture::probe(&server), arguments);
        let survivor = Survivor::of(&server, &microvm);
        assert_eq!(survivor.count(&server), counted(1));
        survivor.call(&server, "suspend-microvm");
        let state = server.microvm(&survivor.id)["state"].clone();
        assert!(state == "SUSPENDING" || arguments.is_empty(), "{state}");
        server.restart();
        survivor.wait(&server, &["SUSPENDED"]);
        survivor.call(&server, "resume-microvm");
        survivor.wait(&server, &["RUNNING"]);
        assert_eq!(survivor.count(&server), counted(2));
        survivor.end(&server);
    }
}

pub(crate) fn killed_during_a_terminate() {
    let mut server = fixture::exclusive();
    let survivor = Survivor::run(&server);
    survivor.call(&server, "terminate-microvm");
    server.restart();
    survivor.wait(&server, &["TERMINATED"]);
    assert_eq!(server.vmms(&survivor.id), [] as [i32; 0]);
    assert_eq!(server.microvm(&survivor.id)["stateReason"], "Success.");
    let left = server.data_dir().join("microvms").join(&survivor.id);
    assert!(!left.exists(), "{} is left", left.display());
}
