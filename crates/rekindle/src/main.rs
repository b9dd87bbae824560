//! The one program: the server, and what an operator needs around it.

mod account;
mod acme;
mod agent;
mod authority;
mod capacity;
mod certificate_files;
mod certificates;
mod cli;
mod client;
mod config;
mod data_dir;
mod doctor;
mod domains;
mod engines;
mod env;
mod files;
mod interface_endpoint;
mod listen;
mod logs;
mod networks;
mod open;
mod port_forward;
mod printers;
mod public;
mod quote;
mod range;
mod roles;
mod running;
mod s3_access;
mod secret_file;
mod serve;
mod server_file;
mod services;
mod shell;
mod stop;
mod terminal;
mod token_keys;
mod trace;
mod trust;
mod tunnels;
mod usage;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};

/// What is worth saying when RUST_LOG says nothing else. s3s calls every mistake of a client an error.
const LOG_FILTER: &str = "info,s3s=off";
/// What the server starts itself again as, to confine a VMM; not for people.
const JAIL: &str = "jail";

fn main() -> ExitCode {
    // Before anything else: the jail confines a process of one thread.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == JAIL) {
        return fail(&engine::jail::exec(arguments));
    }
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => fail(error.as_ref()),
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Serve(args) => {
            log_to_stderr();
            runtime()?.block_on(serve::run(&args))?;
        }
        Command::Env(args) => env::run(&args)?,
        Command::Ca(args) => authority::run(&args.command)?,
        Command::Tokens(args) => token_keys::run(&args.command)?,
        Command::Account(args) => runtime()?.block_on(account::run(&args))?,
        Command::Logs(args) => logs::run(&args)?,
        Command::Trace(args) => trace::run(&args)?,
        Command::PortForward(args) => runtime()?.block_on(port_forward::run(&args))?,
        Command::Shell(args) => runtime()?.block_on(shell::run(&args))?,
        Command::Open(args) => runtime()?.block_on(open::run(&args))?,
        Command::Usage(args) => runtime()?.block_on(usage::run(&args))?,
        Command::Public(args) => runtime()?.block_on(public::run(&args))?,
        Command::Domain(args) => runtime()?.block_on(domains::run(&args.command))?,
        Command::Doctor(args) => {
            if !runtime()?.block_on(doctor::run(&args)) {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<Runtime, String> {
    Runtime::new().map_err(|error| format!("cannot start threads: {error}; raise the limit on processes"))
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(io::stderr).init();
}

fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("rekindle: {error}");
    ExitCode::FAILURE
}
