//! MicroVMs run for a test.

use std::time::Duration;

use crate::{Answer, Image, Json, Server, until};

/// For a MicroVM to get from one state to the next, hooks included.
pub const SETTLE: Duration = Duration::from_secs(60);
/// The port that the tests' applications serve.
pub const PORT: u16 = 8080;

/// A MicroVM; terminated with its server.
#[derive(Debug)]
pub struct Microvm<'a> {
    server: &'a Server,
    /// Its id.
    pub id: String,
    /// Its endpoint, `host:port`.
    pub endpoint: String,
    /// A token for every port.
    token: String,
}

impl<'a> Microvm<'a> {
    /// Asks for one with further arguments of `run-microvm`, and returns while it is being launched.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn launch(server: &'a Server, image: &Image, arguments: &[&str]) -> Self {
        // In its name the application's output is kept.
        Self::launch_as(server, image, Some(&server.execution_role()), arguments)
    }

    /// The same, acting as this role or as none.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn launch_as(server: &'a Server, image: &Image, role: Option<&str>, arguments: &[&str]) -> Self {
        let mut run = vec!["lambda-microvms", "run-microvm", "--image-identifier", &image.arn];
        run.extend(role.iter().flat_map(|role| ["--execution-role-arn", role]));
        let microvm = server.aws(&[&run[..], arguments].concat());
        let text =
            |name: &str| microvm[name].as_str().unwrap_or_else(|| panic!("no {name}: {microvm}")).to_owned();
        let (id, endpoint) = (text("microvmId"), text("endpoint"));
        let token = token(server, &id, r#"[{"allPorts":{}}]"#);
        Self { server, id, endpoint, token }
    }

    /// One that is there already.
    ///
    /// # Panics
    /// Where it is not.
    pub fn of(server: &'a Server, id: &str) -> Self {
        let record = server.microvm(id);
        let endpoint = record["endpoint"].as_str().unwrap_or_else(|| panic!("no endpoint: {record}"));
        let token = token(server, id, r#"[{"allPorts":{}}]"#);
        Self { server, id: id.to_owned(), endpoint: endpoint.to_owned(), token }
    }

    /// The same, and waits until it runs.
    ///
    /// # Panics
    /// Where it does not.
    pub fn run(server: &'a Server, image: &Image, arguments: &[&str]) -> Self {
        let microvm = Self::launch(server, image, arguments);
        microvm.wait("RUNNING");
        microvm
    }

    /// Its server.
    #[must_use]
    pub fn server(&self) -> &'a Server {
        self.server
    }

    /// Its record.
    #[must_use]
    pub fn get(&self) -> Json {
        self.server.microvm(&self.id)
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> String {
        self.get()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits for a state, within [`SETTLE`]; the record then.
    ///
    /// # Panics
    /// Where it does not come.
    pub fn wait(&self, state: &str) -> Json {
        self.wait_within(state, SETTLE)
    }

    /// Waits for a state.
    ///
    /// # Panics
    /// Where it does not come, or the MicroVM ends instead.
    pub fn wait_within(&self, state: &str, limit: Duration) -> Json {
        until(&format!("{} to be {state}", self.id), limit, || {
            let record = self.get();
            let over = record["state"] == "TERMINATED" && state != "TERMINATED";
            assert!(!over, "not {state}: {record}\n{}", self.server.logs(&self.id));
            (record["state"] == state).then_some(record)
        })
    }

    /// A lifecycle operation of the AWS CLI: `suspend-microvm` and the like.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn call(&self, operation: &str) {
        self.server.aws(&["lambda-microvms", operation, "--microvm-identifier", &self.id]);
    }

    /// Suspends it and waits until that is durable.
    ///
    /// # Panics
    /// Where it does not come to that.
    pub fn suspend(&self) {
        self.call("suspend-microvm");
        self.wait("SUSPENDED");
    }

    /// Resumes it and waits until it runs.
    ///
    /// # Panics
    /// Where it does not come to that.
    pub fn resume(&self) {
        self.call("resume-microvm");
        self.wait("RUNNING");
    }

    /// Terminates it and waits until it is gone; the record then.
    ///
    /// # Panics
    /// Where it does not come to that.
    pub fn terminate(&self) -> Json {
        self.call("terminate-microvm");
        self.wait("TERMINATED")
    }

    /// Waits until its application listens: without `/ready` it may have been snapshotted before it did.
    ///
    /// # Panics
    /// Where it does not come to that.
    #[must_use]
    pub fn listening(self) -> Self {
        until("the application to listen", SETTLE, || (self.request("/", &[]).status != 502).then_some(()));
        self
    }

    /// A URL at its endpoint.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.endpoint)
    }

    /// What its application answers, whatever it is.
    ///
    /// # Panics
    /// Where no answer comes.
    pub fn request(&self, path: &str, options: &[&str]) -> Answer {
        let auth = self.auth();
        self.server.curl(&self.url(path), &[&["--header", &auth][..], options].concat())
    }

    /// The JSON that its application answers to a GET.
    ///
    /// # Panics
    /// Where it is not a 200 with JSON.
    pub fn json(&self, path: &str) -> Json {
        self.request(path, &[]).expect(200).json()
    }

    /// The JSON that its application answers to an empty POST.
    ///
    /// # Panics
    /// Where it is not a 200 with JSON.
    pub fn post(&self, path: &str) -> Json {
        self.request(path, &["--request", "POST", "--data", ""]).expect(200).json()
    }

    /// A token for every port.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The header that lets a request in.
    #[must_use]
    pub fn auth(&self) -> String {
        format!("X-aws-proxy-auth: {}", self.token)
    }
}

/// Mints a token by the AWS CLI.
///
/// # Panics
/// Where it is refused.
#[must_use]
pub fn token(server: &Server, id: &str, allowed_ports: &str) -> String {
    let answer = server.aws(&[
        "lambda-microvms",
        "create-microvm-auth-token",
        "--microvm-identifier",
        id,
        "--expiration-in-minutes",
        "60",
        "--allowed-ports",
        allowed_ports,
    ]);
    let token = answer["authToken"]["X-aws-proxy-auth"].as_str();
    token.unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
}
