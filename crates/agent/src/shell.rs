//! Shells beside the application: a terminal in its container each, joined to a stream of the host's.

mod admission;
mod group;
pub(crate) mod helper;

use std::process::Stdio;

use agent_proto::guest::Call;
use agent_proto::shell::{Receiver, Sender};
use agent_proto::{MAX_SHELL_CHUNK, Response, ShellInput, ShellOutput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::app::{Container, SELF};
use crate::error::{Error, trying};
use crate::pty::Pty;

pub(crate) use admission::Admission;
use admission::Seat;
use group::Group;

/// Of what a helper says goes wrong.
const MAX_COMPLAINT: u64 = 4096;
/// More than a terminal keeps of what a shell has written before it exited.
const MAX_LAST_WORDS: usize = 256 * 1024;

/// A shell that runs.
struct Shell {
    pty: Pty,
    /// The shell's parent, which ends as it does.
    helper: Child,
    group: Group,
}

/// Starts a shell in the container, if there is one, and serves it until it exits, the host closes its stream, or a
/// freeze ends it. Nothing of it is left then.
pub(crate) async fn serve(call: Call, container: Option<Container>, admission: &Admission) {
    let started = async {
        let seat = admission.enter()?;
        let container =
            container.ok_or_else(|| Error::new(ATTEMPT, "the application has not been started"))?;
        Ok::<_, Error>((Shell::start(&container).await?, seat))
    };
    match started.await {
        Ok((shell, seat)) => shell.run(call, seat).await,
        Err(error) => {
            // Where the answer cannot be written the session is over.
            let _ = call.answer(&Response::Failed { message: error.to_string() }).await;
        }
    }
}

const ATTEMPT: &str = "starting a shell";

impl Shell {
    async fn start(container: &Container) -> Result<Self, Error> {
        if container.has_exited() {
            return Err(Error::new(ATTEMPT, "the application has exited"));
        }
        let (pty, terminal) = Pty::open(container.helper)?;
        let group = Group::make()?;
        let order = helper::Order {
            spec: (*container.spec).clone(),
            container: container.helper,
            cgroup: group.path().to_string_lossy().into_owned(),
        };
        let order = postcard::to_allocvec(&order).map_err(trying(ATTEMPT))?;
        let helper = Command::new(SELF)
            .arg(crate::SHELL)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(terminal)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(trying(ATTEMPT))?;
        let mut shell = Self { pty, helper, group };
        match shell.complaint(&order).await {
            None => Ok(shell),
            Some(complaint) => {
                shell.end().await;
                Err(Error::new(ATTEMPT, complaint))
            }
        }
    }

    /// Gives the helper its order; what it says where it cannot carry it out.
    async fn complaint(&mut self, order: &[u8]) -> Option<String> {
        let (mut stdin, stderr) = (self.helper.stdin.take()?, self.helper.stderr.take()?);
        // A helper that died at once says why.
        let _ = stdin.write_all(order).await;
        drop(stdin);
        let mut complaint = String::new();
        // It is closed by the shell's start.
        let read = stderr.take(MAX_COMPLAINT).read_to_string(&mut complaint).await;
        read.map_or_else(|error| Some(error.to_string()), |count| (count > 0).then_some(complaint))
    }

    async fn run(mut self, call: Call, seat: Seat<'_>) {
        if let Ok((sender, receiver)) = call.into_shell().await {
            tokio::select! {
                () = type_in(&self.pty, receiver) => {}
                () = show(&self.pty, &mut self.helper, sender) => {}
                () = seat.called_up() => {}
            }
        }
        self.end().await;
    }

    /// Hangs up whoever uses the terminal, then kills what is left of all that was started in it.
    async fn end(self) {
        let Self { pty, mut helper, group } = self;
        drop(pty);
        group.end().await;
        // It ends with its child.
        let _ = helper.wait().await;
    }
}

/// Gives the terminal what the client types, until the client goes.
async fn type_in(pty: &Pty, mut receiver: Receiver<ShellInput>) {
    while let Ok(Some(input)) = receiver.next().await {
        let done = match input {
            ShellInput::Keys(keys) => pty.write_all(&keys).await,
            ShellInput::Resize { cols, rows } => pty.resize(cols, rows),
        };
        if done.is_err() {
            // Nobody has the other side: the shell exits, which its output tells.
            std::future::pending::<()>().await;
        }
    }
}

/// Sends the client what the terminal shows, until the shell has exited or the client goes. A client that is behind holds
/// the shell back.
async fn show(pty: &Pty, helper: &mut Child, mut sender: Sender<ShellOutput>) {
    let mut buffer = vec![0; MAX_SHELL_CHUNK];
    loop {
        let read = tokio::select! {
            read = pty.read(&mut buffer) => read,
            _ = helper.wait() => break,
        };
        let Ok(count @ 1..) = read else { break };
        if sender.send(&ShellOutput::Bytes(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
    let mut last_words = 0;
    while last_words < MAX_LAST_WORDS
        && let Ok(count @ 1..) = pty.read_now(&mut buffer)
    {
        last_words += count;
        if sender.send(&ShellOutput::Bytes(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
    // A shell may give up its terminal before it exits.
    let _ = helper.wait().await;
    if sender.send(&ShellOutput::Exited).await.is_ok() {
        // A client that went away need not hear it.
        let _ = sender.close().await;
    }
}
