//! Running `ip` and `nft` with a script on their standard input.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Why the host's tools did not do what they were asked to.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be run.
    #[error("cannot run `{command}`: {source}; install iproute2 and nftables and start the server as root")]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ran and failed.
    #[error(
        "`{command}` failed: {stderr}; the server needs CAP_NET_ADMIN and CAP_SYS_ADMIN, and a kernel with veth, tun and nf_tables"
    )]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote to its standard error, and the script it was given.
        stderr: String,
    },
    /// A kernel setting or a namespace could not be reached.
    #[error("cannot {attempt}: {source}; the server needs root's capabilities and a writable /proc/sys")]
    Kernel {
        /// What was attempted.
        attempt: String,
        /// What the system said.
        source: io::Error,
    },
}

impl CommandError {
    pub(crate) fn kernel(attempt: impl Into<String>, source: io::Error) -> Self {
        Self::Kernel { attempt: attempt.into(), source }
    }
}

/// Runs a batch of `ip` commands, stopping at the first which fails.
pub(crate) fn ip_batch(script: &str) -> Result<(), CommandError> {
    run("ip", &["-batch", "-"], script).map(drop)
}

/// Applies an nft script as one transaction.
pub(crate) fn nft(script: &str) -> Result<(), CommandError> {
    run("nft", &["-f", "-"], script).map(drop)
}

/// Has the kernel say whether it would take an nft script, and changes nothing.
pub(crate) fn nft_check(script: &str) -> Result<(), CommandError> {
    run("nft", &["--check", "-f", "-"], script).map(drop)
}

/// Runs a query of `ip` and returns what it prints.
pub(crate) fn ip_query(args: &[&str]) -> Result<String, CommandError> {
    run("ip", args, "")
}

fn run(program: &str, args: &[&str], script: &str) -> Result<String, CommandError> {
    let command = format!("{program} {}", args.join(" "));
    let output = feed(program, args, script)
        .map_err(|source| CommandError::Start { command: command.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CommandError::Failed {
        command,
        stderr: format!("{} (script: {})", said.trim(), script.trim().replace('\n', "; ")),
    })
}

fn feed(program: &str, args: &[&str], script: &str) -> io::Result<std::process::Output> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool which gives up before reading everything says why on its standard error.
        match stdin.write_all(script.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}
