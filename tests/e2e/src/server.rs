//! A server under test: started, killed, started again, and searched for leftovers at its end.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::census::{self, Census};
use crate::command::{self, Environment};
use crate::http::{self, Answer};
use crate::image::BUILD;
use crate::{Json, disk, machines, until};

/// For a server to answer: it may have to make snapshots' processes and namespaces ready first.
const START: Duration = Duration::from_secs(120);
/// For a server to end in order.
const STOP: Duration = Duration::from_secs(60);
/// For what a server released to be gone.
const GONE: Duration = Duration::from_secs(60);
/// Below the range that the kernel takes ports of outgoing connections from, so that a port is still free when the
/// server that used it is started again.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// The bucket that artifacts are put in.
const BUCKET: &str = "artifacts";
/// What a file system of some GiB takes for itself, most of it for its journal.
const FILE_SYSTEM_MIB: u64 = 128;

/// A server of its own, with a data directory of its own.
#[derive(Debug)]
pub struct Server {
    dir: TempDir,
    data_dir: PathBuf,
    ports: [u16; 2],
    arguments: Vec<String>,
    variables: Environment,
    child: Option<Child>,
    environment: Environment,
}

impl Server {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with further arguments of `rekindle serve`.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_under(arguments, |_| Environment::new())
    }

    /// The same, in an environment with the variables that `prepare` makes of the data directory's path. It may fill that
    /// directory too, with what a server left, and make it a disk of its own, which is unmounted at the end.
    #[must_use]
    pub fn start_under(arguments: &[&str], prepare: impl FnOnce(&Path) -> Environment) -> Self {
        let dir = tempfile::Builder::new().prefix("rekindle-e2e-").tempdir().unwrap();
        // The instance's tag is made of this very path.
        let data_dir = dir.path().canonicalize().unwrap().join("data");
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        let variables = prepare(&data_dir);
        let is_new = !data_dir.join("db").exists();
        let environment = Environment::new();
        let ports = free_ports();
        let mut server = Self { dir, data_dir, ports, arguments, variables, child: None, environment };
        server.launch();
        if is_new {
            server.aws_text(&["s3", "mb", &format!("s3://{BUCKET}")]);
        }
        server
    }

    /// Starts another on a copy of the data of one that was killed, on a disk with so many MiB left.
    ///
    /// # Panics
    /// Where it does not answer.
    #[must_use]
    pub fn start_on_small_disk(killed: &Self, left_mib: u64, arguments: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("rekindle-e2e-").tempdir().unwrap();
        let data_dir = dir.path().canonicalize().unwrap().join("data");
        let used = command::must(Command::new("du").arg("-sm").arg(&killed.data_dir));
        let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
        disk::mount(&data_dir, (used + left_mib + FILE_SYSTEM_MIB) << 20);
        command::must(
            Command::new("cp").args(["-aT", "--sparse=always"]).arg(&killed.data_dir).arg(&data_dir),
        );
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        let (variables, environment) = (Environment::new(), killed.environment.clone());
        let ports = free_ports();
        let mut server = Self { dir, data_dir, ports, arguments, variables, child: None, environment };
        server.launch();
        server
    }

    /// Kills it as a crash would. MicroVMs go on.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Has it read again what it shows its clients.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn hang_up(&self) {
        let child = self.child.as_ref().expect("the server runs");
        command::must(Command::new("kill").args(["-HUP", &child.id().to_string()]));
    }

    /// Starts it again, on the same data and ports; waits until it answers.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        self.launch();
    }

    /// The same, with other arguments of `rekindle serve`.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        self.restart();
    }

    /// Starts it again if a test that failed left it killed, or with other arguments than these.
    pub fn revive_with(&mut self, arguments: &[&str]) {
        if self.child.is_none() || self.arguments != arguments {
            self.restart_with(arguments);
        }
    }

    /// The same where it may end before it answers; its log's end then.
    pub fn try_restart(&mut self) -> Result<(), String> {
        if self.child.is_some() {
            self.kill();
        }
        self.try_launch()
    }

    /// Whether its process has ended.
    ///
    /// # Panics
    /// Where that cannot be told.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Has every MicroVM ended, and does not wait for it.
    pub fn end_microvms(&self) {
        for id in self.living() {
            self.aws_text(&["lambda-microvms", "terminate-microvm", "--microvm-identifier", &id]);
        }
    }

    /// Ends every MicroVM, then the server, in order.
    ///
    /// # Panics
    /// Where anything of it is left.
    pub fn stop(&mut self) {
        self.end_microvms();
        // What builds is left alone by a server that stops, for the next one to take up.
        until("every build to end", BUILD, || self.builds().is_empty().then_some(()));
        until("every MicroVM to be terminated", GONE, || self.living().is_empty().then_some(()));
        let mut child = self.child.take().expect("the server runs");
        command::must(Command::new("kill").args(["-TERM", &child.id().to_string()]));
        until("the server to end", STOP, || child.try_wait().unwrap());
        until_gone(&self.data_dir);
        self.unmount();
        // Now, because servers that tests share are never dropped.
        std::fs::remove_dir_all(self.dir.path()).unwrap();
    }

    fn unmount(&self) {
        let device = |path: &Path| path.metadata().map(|about| about.dev()).ok();
        if device(&self.data_dir) != device(self.dir.path()) {
            command::must(Command::new("umount").arg(&self.data_dir));
        }
    }

    fn launch(&mut self) {
        self.try_launch().unwrap_or_else(|log| panic!("the server does not answer:\n{log}"));
    }

    fn try_launch(&mut self) -> Result<(), String> {
        let [api, endpoint] = self.ports.map(|port| format!("127.0.0.1:{port}"));
        // One log across restarts: what happened before a crash explains what happens after it.
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut serve = Command::new(command::rekindle());
        serve
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &api, "--endpoint-listen", &endpoint])
            .args(machines::arguments())
            .args(&self.arguments)
            .envs(&self.variables)
            .env("REKINDLE_AGENT", command::agent())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(serve.spawn().unwrap());
        let deadline = Instant::now() + START;
        let mut environment = Command::new(command::rekindle());
        environment.arg("env").arg("--data-dir").arg(&self.data_dir);
        // It may be early: the first server writes what it prints, a restarted one finds it written.
        loop {
            let output = command::run(&mut environment);
            if output.status.success() {
                self.environment = command::parse_exports(&command::text(&output.stdout));
            }
            if self.answers() {
                machines::note(&self.machines_by());
                return Ok(());
            }
            if self.has_ended() || Instant::now() >= deadline {
                return Err(self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let Some(url) = self.environment.get("AWS_ENDPOINT_URL") else { return false };
        http::curl(&self.environment, url, &[]).is_ok()
    }

    /// What runs its MicroVMs, as it says itself.
    fn machines_by(&self) -> Json {
        let text = std::fs::read(self.data_dir.join("server.json")).unwrap();
        serde_json::from_slice::<Json>(&text).unwrap()["machines_by"].clone()
    }

    /// The ids of its MicroVMs that are not terminated.
    pub fn living(&self) -> Vec<String> {
        self.listed("list-microvms", "microvmId", |state| state != "TERMINATED")
    }

    fn builds(&self) -> Vec<String> {
        self.listed("list-microvm-images", "imageArn", |state| state.ends_with("ING"))
    }

    fn listed(&self, operation: &str, name: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let all = self.aws(&["lambda-microvms", operation]);
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let wanted = |item: &&Json| item["state"].as_str().is_some_and(&wanted);
        items.iter().filter(wanted).map(|item| item[name].as_str().unwrap().to_owned()).collect()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where a MicroVM's files are.
    #[must_use]
    pub fn microvm_dir(&self, id: &str) -> PathBuf {
        self.data_dir.join("microvms").join(id)
    }

    /// A file beside the data directory, for what a test needs on a disk.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `rekindle env` says.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// A variable of `rekindle env`.
    ///
    /// # Panics
    /// Where it is missing.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.environment.get(name).unwrap_or_else(|| panic!("`rekindle env` does not export {name}"))
    }

    /// The port that endpoints are served on.
    #[must_use]
    pub fn endpoint_port(&self) -> u16 {
        self.ports[1]
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.scratch("server.log")
    }

    /// The VMMs of one MicroVM: one while it runs.
    #[must_use]
    pub fn vmms(&self, id: &str) -> Vec<i32> {
        census::vmms_of(&self.data_dir.join("microvms").join(id))
    }

    /// What it has on this host.
    #[must_use]
    pub fn census(&self) -> Census {
        Census::of(&self.data_dir)
    }

    /// What the AWS CLI prints, as JSON; `null` where it prints nothing.
    ///
    /// # Panics
    /// Where the command fails.
    pub fn aws(&self, arguments: &[&str]) -> Json {
        let output = self.aws_text(arguments);
        if output.trim().is_empty() {
            return Json::Null;
        }
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("aws {arguments:?}: {error}: {output}"))
    }

    /// The same where the command may fail: with what it complains of.
    pub fn try_aws(&self, arguments: &[&str]) -> Result<Json, String> {
        let output = command::run(&mut self.aws_command(arguments));
        let [answer, complaint] = [&output.stdout, &output.stderr].map(|bytes| command::text(bytes));
        if output.status.success() {
            serde_json::from_str(&answer).map_err(|error| error.to_string())
        } else {
            Err(complaint)
        }
    }

    /// What the AWS CLI prints.
    ///
    /// # Panics
    /// Where the command fails.
    pub fn aws_text(&self, arguments: &[&str]) -> String {
        command::must(&mut self.aws_command(arguments))
    }

    /// What the AWS CLI complains of: a command that must fail.
    ///
    /// # Panics
    /// Where it succeeds.
    pub fn aws_error(&self, arguments: &[&str]) -> String {
        let output = command::run(&mut self.aws_command(arguments));
        assert!(!output.status.success(), "aws {arguments:?} succeeds: {}", command::text(&output.stdout));
        command::text(&output.stderr)
    }

    fn aws_command(&self, arguments: &[&str]) -> Command {
        command::aws(&self.client_environment(), arguments)
    }

    /// What a client of this server is started with: nothing of the person who runs the tests, such as profiles,
    /// proxies or pagers.
    #[must_use]
    pub fn client_environment(&self) -> Environment {
        let mut environment = self.environment.clone();
        for (name, value) in [
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_MAX_ATTEMPTS", "1"),
            ("AWS_PAGER", ""),
            ("NO_PROXY", "*"),
        ] {
            environment.insert(name.into(), value.into());
        }
        environment
    }

    /// What curl gets from an endpoint or any other URL; an error where no answer came.
    pub fn try_curl(&self, url: &str, options: &[&str]) -> Result<Answer, String> {
        http::curl(&self.environment, url, options)
    }

    /// The same, where an answer must come.
    ///
    /// # Panics
    /// Where none does.
    pub fn curl(&self, url: &str, options: &[&str]) -> Answer {
        self.try_curl(url, options).unwrap_or_else(|error| panic!("{url}: {error}\n{}", self.log()))
    }

    /// An answer of the AWS API to curl, which signs too and starts much faster than the AWS CLI: for polling.
    pub fn api(&self, path: &str, options: &[&str]) -> Result<Answer, String> {
        let url = format!("{}{path}", self.variable("AWS_ENDPOINT_URL"));
        let scope = format!("aws:amz:{}:lambda", self.variable("AWS_REGION"));
        let keys =
            format!("{}:{}", self.variable("AWS_ACCESS_KEY_ID"), self.variable("AWS_SECRET_ACCESS_KEY"));
        let mut all = vec!["--aws-sigv4", &scope, "--user", &keys];
        all.extend(options);
        self.try_curl(&url, &all)
    }

    /// Output of a MicroVM or a build, by `rekindle logs`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn logs(&self, id: &str) -> String {
        let mut command = Command::new(command::rekindle());
        command::must(command.args(["logs", id, "--data-dir"]).arg(&self.data_dir))
    }

    /// What a MicroVM has used, by `rekindle usage`.
    ///
    /// # Panics
    /// Where that fails.
    pub fn usage(&self, id: &str) -> String {
        let mut command = Command::new(command::rekindle());
        command::must(command.args(["usage", id, "--data-dir"]).arg(&self.data_dir))
    }

    /// Puts bytes where images are made from; the S3 URI of it.
    ///
    /// # Panics
    /// Where that fails.
    pub fn upload(&self, key: &str, content: &[u8]) -> String {
        let file = self.scratch(&format!("upload-{}", key.replace('/', "-")));
        std::fs::write(&file, content).unwrap();
        let uri = format!("s3://{BUCKET}/{key}");
        self.aws_text(&["s3", "cp", "--only-show-errors", file.to_str().unwrap(), &uri]);
        std::fs::remove_file(&file).unwrap();
        uri
    }

    /// The managed base image.
    #[must_use]
    pub fn base_image(&self) -> String {
        format!("arn:aws:lambda:{}:aws:microvm-image:al2023-1", self.variable("AWS_REGION"))
    }

    /// A role of this account, for builds.
    #[must_use]
    pub fn build_role(&self) -> String {
        format!("arn:aws:iam::{}:role/MicroVMBuildRole", self.variable("AWS_ACCOUNT_ID"))
    }

    /// A role of this account, for applications.
    #[must_use]
    pub fn execution_role(&self) -> String {
        format!("arn:aws:iam::{}:role/MicroVMExecutionRole", self.variable("AWS_ACCOUNT_ID"))
    }

    /// A MicroVM's record, without the AWS CLI.
    ///
    /// # Panics
    /// Where the API does not give it.
    pub fn microvm(&self, id: &str) -> Json {
        let answer =
            self.api(&format!("/2025-09-09/microvms/{id}"), &[]).unwrap_or_else(|error| panic!("{error}"));
        answer.expect(200).json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if std::thread::panicking() {
            // The test failed already. What it leaves would make others fail: clean up without asserting.
            let _ = child.kill();
            let _ = child.wait();
            census::remove(&self.data_dir);
            self.unmount();
            eprintln!("the server's log ends:\n{}", self.log());
        } else {
            self.child = Some(child);
            self.stop();
        }
    }
}

/// Waits until nothing of a stopped server is left; what is does not stay, but is told.
fn until_gone(data_dir: &Path) {
    let began = Instant::now();
    let mut left = Census::of(data_dir);
    while !left.is_empty() && began.elapsed() < GONE {
        std::thread::sleep(Duration::from_millis(100));
        left = Census::of(data_dir);
    }
    census::remove(data_dir);
    assert!(left.is_empty(), "left behind: {left}");
}

/// Two ports that nobody listens on, not the same for tests that run at the same time.
fn free_ports() -> [u16; 2] {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = (std::process::id() % 100) as u16 * 100;
    let free = || {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        PORTS.start + (spread + step) % (PORTS.end - PORTS.start)
    };
    let next = || {
        std::iter::repeat_with(free)
            .take(PORTS.len())
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .expect("no port is free")
    };
    [next(), next()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_different() {
        let [a, b] = free_ports();
        assert_ne!(a, b);
        assert!(TcpListener::bind(("127.0.0.1", a)).is_ok() && TcpListener::bind(("127.0.0.1", b)).is_ok());
        assert!(PORTS.contains(&a) && PORTS.contains(&b));
    }
}
