//! The guest agent: PID 1 of every MicroVM, static, in the initramfs.
//!
//! It readies the machine, then serves the host over one virtio port or socket device: starts the application as a container,
//! calls its hooks, relays connections, and carries it from one life to the next. Invoked as
//! `container` it is the helper that becomes that container's first process, as `shell` the one that becomes a shell
//! beside it.

mod app;
mod artifact;
mod boot;
mod builder;
mod cgroup;
mod command_line;
mod container;
mod disks;
mod dns;
mod door;
mod environment;
mod error;
mod fork;
mod freezer;
mod hook;
mod ipv6;
mod life;
mod machine_id;
mod metadata;
mod netlink;
mod network;
mod oom;
mod output;
mod port;
mod privileges;
mod pty;
mod seccomp;
mod serve;
mod sessions;
mod shell;
mod sockets;
mod stop;
mod user;
mod volumes;
mod vsock;

use std::process::ExitCode;

/// Argument that makes this program the container's helper.
const CONTAINER: &str = "container";
/// Argument that makes this program a shell's helper.
const SHELL: &str = "shell";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(CONTAINER) => return container::main(),
        Some(SHELL) => return shell::helper::main(),
        _ => {}
    }
    if let Err(error) = init() {
        eprintln!("rekindle-agent: {error}");
    }
    // PID 1 must not return: the kernel would panic. Powering off says the same, sooner.
    boot::power_off();
    ExitCode::FAILURE
}

fn init() -> Result<(), error::Error> {
    boot::ready_machine()?;
    network::configure()?;
    let metadata = metadata::listen()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(error::trying("starting the runtime"))?
        .block_on(serve::serve(metadata))
}
