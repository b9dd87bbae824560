//! The interpreter that runs the tests: one process, told on its standard input which test is next.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A running interpreter.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one that knows the beds by `settings`.
    #[must_use]
    pub fn start(settings: &Value) -> Self {
        let mut child = command(settings).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// Names of all tests.
    #[must_use]
    pub fn names(settings: &Value) -> Vec<String> {
        e2e::command::must(command(settings).arg("list")).lines().map(str::to_owned).collect()
    }

    /// Runs one test; why it failed.
    ///
    /// # Errors
    /// What the test says.
    pub fn run(&mut self, name: &str) -> Result<(), String> {
        writeln!(self.input, "{name}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value =
            serde_json::from_str(&line).map_err(|error| format!("the worker answers {line:?}: {error}"))?;
        answer["failure"].as_str().map_or(Ok(()), |failure| Err(failure.to_owned()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(settings: &Value) -> Command {
    let mut command = Command::new(e2e::command::clients().join("bin/python"));
    command
        .arg("-B")
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/main.py"))
        .env("CONFORMANCE", settings.to_string())
        // Nothing of the person who runs the tests: profiles, proxies.
        .env_remove("AWS_PROFILE")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("NO_PROXY", "*");
    command
}
