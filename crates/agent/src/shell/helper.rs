//! The helper that becomes a shell of the container.
//!
//! It reads its order from standard input, has the terminal as standard output, complains to standard error, and forks; the
//! child joins the container and becomes the shell, the parent waits outside and ends as it does.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use agent_proto::AppSpec;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use serde::{Deserialize, Serialize};

use crate::container::CANNOT_START;
use crate::error::{Error, trying};
use crate::fork::{self, Fork};
use crate::{environment, privileges, user};

/// Bash first.
const SHELLS: [&str; 2] = ["bash", "sh"];
const HOME: &str = "/root";
/// What every shell has, whatever the image says.
const VARIABLES: [(&str, &str); 3] = [("HOME", HOME), ("TERM", "xterm"), ("PS1", "λ $ ")];
/// Bash reads its start-up files, which set a prompt of their own; this sets ours once, just before the first one.
const PROMPT_ONCE: (&str, &str) = ("PROMPT_COMMAND", "PS1='λ $ '; unset PROMPT_COMMAND");

/// What a helper is told.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    /// How the container was started.
    pub(crate) spec: AppSpec,
    /// The container's own helper.
    pub(crate) container: u32,
    /// The directory of the shell's cgroup.
    pub(crate) cgroup: String,
}

/// Runs the shell; exits with its exit code.
pub(crate) fn main() -> ExitCode {
    let complaints = io::stderr().as_fd().try_clone_to_owned();
    match complaints.map_err(trying("keeping standard error")).and_then(run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprint!("{error}");
            ExitCode::from(CANNOT_START)
        }
    }
}

fn run(complaints: OwnedFd) -> Result<u8, Error> {
    let mut order = Vec::new();
    io::stdin().read_to_end(&mut order).map_err(trying("reading the shell's order"))?;
    let order: Order = postcard::from_bytes(&order).map_err(trying("reading the shell's order"))?;
    let container = find(order.container)?;
    let processes = File::open(format!("/proc/{}/ns/pid_for_children", order.container))
        .map_err(trying("finding the container's processes"))?;
    rustix::thread::move_into_link_name_space(processes.as_fd(), Some(LinkNameSpaceType::ProcessID))
        .map_err(trying("joining the container's processes"))?;
    match fork::fork()? {
        Fork::Child => {
            let error = become_shell(&order, &container);
            // Nobody hears it where the agent is gone.
            let _ = File::from(complaints).write_all(error.to_string().as_bytes());
            std::process::exit(i32::from(CANNOT_START))
        }
        Fork::Parent(child) => {
            drop(complaints);
            leave_terminal()?;
            fork::wait(child)
        }
    }
}

/// The terminal is the shell's alone, and the agent waits for the end of complaints.
fn leave_terminal() -> Result<(), Error> {
    let attempt = "leaving the terminal";
    let null = File::options().read(true).write(true).open("/dev/null").map_err(trying(attempt))?;
    rustix::stdio::dup2_stdin(&null).map_err(trying(attempt))?;
    rustix::stdio::dup2_stdout(&null).map_err(trying(attempt))?;
    rustix::stdio::dup2_stderr(&null).map_err(trying(attempt))
}

/// Does not return where a shell starts.
fn become_shell(order: &Order, container: &OwnedFd) -> Error {
    match prepare(order, container) {
        Ok(variables) => exec(&variables),
        Err(error) => error,
    }
}

fn prepare<'a>(order: &'a Order, container: &OwnedFd) -> Result<Vec<(&'a str, &'a str)>, Error> {
    // Until it has no more rights than they have, the container's processes must not look into this one.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(trying("hiding the helper"))?;
    rustix::process::setsid().map_err(trying("starting a session"))?;
    fs::write(Path::new(&order.cgroup).join("cgroup.procs"), "0")
        .map_err(trying("joining the shell's cgroup"))?;
    join(container)?;
    take_terminal()?;
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let root = user::resolve("", &read("/etc/passwd"), &read("/etc/group"))
        .map_err(|missing| Error::new("becoming root", format!("the image has no {missing}")))?;
    enter_workdir(&order.spec.config.workdir);
    privileges::assume(&root, order.spec.all_capabilities)?;
    let mut variables = environment::of(&order.spec, HOME);
    variables.extend(VARIABLES);
    Ok(variables)
}

/// A process in the container's namespaces, but for that of its processes, which the child is born in. Found before the
/// fork: the child does not see it.
fn find(container: u32) -> Result<OwnedFd, Error> {
    let attempt = "finding the container";
    let process = i32::try_from(container).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| Error::new(attempt, "no process has such an id"))?;
    rustix::process::pidfd_open(process, PidfdFlags::empty()).map_err(trying(attempt))
}

fn join(container: &OwnedFd) -> Result<(), Error> {
    let namespaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::CONTROL_GROUP;
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), namespaces)
        .map_err(trying("joining the container"))
}

fn take_terminal() -> Result<(), Error> {
    let attempt = "taking the terminal";
    let terminal = io::stdout();
    rustix::process::ioctl_tiocsctty(&terminal).map_err(trying(attempt))?;
    rustix::stdio::dup2_stdin(&terminal).map_err(trying(attempt))?;
    rustix::stdio::dup2_stderr(&terminal).map_err(trying(attempt))
}

/// A directory that the application has removed meanwhile keeps nobody out.
fn enter_workdir(workdir: &str) {
    let entered = std::env::set_current_dir(if workdir.is_empty() { "/" } else { workdir });
    if entered.is_err() {
        // Joining the container has led to its root already.
        let _ = std::env::set_current_dir("/");
    }
}

fn exec(variables: &[(&str, &str)]) -> Error {
    environment::search_path(variables);
    for shell in SHELLS {
        let mut command = Command::new(shell);
        command.env_clear().envs(variables.iter().copied());
        if shell == SHELLS[0] {
            command.env(PROMPT_ONCE.0, PROMPT_ONCE.1);
        }
        let error = command.exec();
        if error.kind() != io::ErrorKind::NotFound {
            return Error::new(format!("executing {shell}"), error);
        }
    }
    Error::new("executing bash or sh", "the image has neither")
}
