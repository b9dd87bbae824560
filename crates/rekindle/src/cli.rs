//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use proxy::headers::DEFAULT_PORT;

use crate::engines::{AcceleratorWish, EngineWish};
use crate::port_forward::Forward;

/// Where a server keeps its data when nothing else is said.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/rekindle/data";
/// Where the control API listens when nothing else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:4580";

/// Self-hosted AWS Lambda MicroVMs.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server in the foreground, until SIGTERM or SIGINT
    ///
    /// MicroVMs go on when the server ends, and the next start on the same data directory takes them up again.
    Serve(Serve),
    /// Print `export NAME=value` lines that point the AWS CLI, SDKs and curl at a server
    Env(Env),
    /// Print, or have this machine trust, the authority that signs the endpoints' certificate
    Ca(Ca),
    /// Replace the key of the MicroVMs' endpoint tokens, while the server runs
    Tokens(Tokens),
    /// Make further accounts on a server, and list them
    Account(Account),
    /// Say what this machine has, what is missing, and how to mend it
    Doctor(Doctor),
    /// Print what a build or the application in a MicroVM printed
    Logs(Logs),
    /// Print where the time of a MicroVM's launch, and of its last wakes and suspensions, went
    Trace(Trace),
    /// Print what MicroVMs have used: seconds awake and asleep, and CPU and memory beyond the baseline of their size
    Usage(Usage),
    /// Forward local TCP ports to ports of a MicroVM, until interrupted
    ///
    /// Prints a line for each forward when it is ready. A connection wakes the MicroVM; one that is open when it is
    /// suspended is reset.
    PortForward(PortForward),
    /// Open a shell in a MicroVM, as root beside its application; the MicroVM is woken first
    ///
    /// With a terminal as standard input the shell has that terminal until it exits. Otherwise the input is typed into it,
    /// and its end ends the shell. The MicroVM must have been run with the connector SHELL_INGRESS.
    Shell(Shell),
    /// Print a link that lets a browser in to a MicroVM's application, with a cookie for its endpoint alone
    ///
    /// Whoever has the link may use it until it expires. What it opens is woken by the browser's requests.
    Open(Open),
    /// Let anybody send requests to ports of a MicroVM, or of all MicroVMs of an image, without a token
    ///
    /// A MicroVM's own setting counts before its image's. Requests wake what sleeps. Shells, TCP tunnels and other ports still
    /// need a token.
    Public(Public),
    /// Lead host names of your own to a MicroVM, or to the newest of an image
    ///
    /// The operator lists the names that may be used as `domains` in the settings. What a name leads to needs tokens as the
    /// endpoint does, unless it is public.
    Domain(Domain),
}

#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Directory of the server's data
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Addresses {
    /// Where the AWS API listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    pub(crate) listen: SocketAddr,
    /// Where the MicroVMs' endpoints listen; port 0 takes a free one [default: 127.0.0.1:443, or 8443 if that is taken]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) endpoint_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) data: DataDir,
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    /// Settings, in TOML; crates/rekindle/config.toml lists them all
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Let an image of the local catalogue answer for another name in FROM; may be repeated
    #[arg(long = "alias", value_name = "NAME=LOCAL", value_parser = alias)]
    pub(crate) aliases: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) machines: Machines,
}

/// What runs MicroVMs, in place of what the settings say.
#[derive(Debug, Args)]
pub(crate) struct Machines {
    /// VMM that runs them
    #[arg(long, value_enum)]
    pub(crate) engine: Option<EngineWish>,
    /// What executes their instructions; what is named and not there is an error
    #[arg(long, value_enum)]
    pub(crate) accelerator: Option<AcceleratorWish>,
}

#[derive(Debug, Args)]
pub(crate) struct Env {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Wait until the server answers, a minute at most
    #[arg(long)]
    pub(crate) wait: bool,
    /// Use the root key of this account [default: the one of the first start]
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) account: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    pub(crate) command: CaCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Print its certificate in PEM
    Print(DataDir),
    /// Add it to the certificates that this machine trusts; needs root
    Install(DataDir),
    /// Take it out of them again
    Uninstall(DataDir),
}

#[derive(Debug, Args)]
pub(crate) struct Tokens {
    #[command(subcommand)]
    pub(crate) command: TokensCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Seal new tokens under a new key, as happens once a day; tokens given out are good until they expire
    Rotate(DataDir),
    /// The same, and end all tokens given out
    Revoke(DataDir),
}

#[derive(Debug, Args)]
pub(crate) struct Account {
    #[command(subcommand)]
    pub(crate) command: AccountCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account and print its id; a running server knows it at once
    Create(CreateAccount),
    /// Print ids and names of all accounts
    List(DataDir),
}

#[derive(Debug, Args)]
pub(crate) struct CreateAccount {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// What to call it
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) data: DataDir,
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    #[command(flatten)]
    pub(crate) machines: Machines,
    /// The settings that the server is to have
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Id of a build, or of a MicroVM
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Go on with what is added, until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Id of a MicroVM that has not ended
    pub(crate) id: ids::MicrovmId,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// Id of a MicroVM
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) ids: Vec<ids::MicrovmId>,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Every MicroVM of the account that is listed, those included that have ended of late
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PortForward {
    /// Id of a MicroVM
    pub(crate) id: ids::MicrovmId,
    /// PORT of the MicroVM, and where to listen for it: on LOCAL (0 takes a free port) of ADDR, by default on the same port of 127.0.0.1
    #[arg(required = true, value_name = "[[ADDR:]LOCAL:]PORT")]
    pub(crate) forwards: Vec<Forward>,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The account that the MicroVM belongs to [default: the one of the first start]
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) account: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// Id of a MicroVM
    pub(crate) id: ids::MicrovmId,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The account that the MicroVM belongs to [default: the one of the first start]
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) account: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Open {
    /// Id of a MicroVM
    pub(crate) id: ids::MicrovmId,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Port of the application
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// How long the link, and what is open by it, is good for
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) minutes: u32,
    /// Path to go to
    #[arg(long, default_value = "/", value_parser = path)]
    pub(crate) path: String,
    /// Open it in this desktop's browser too
    #[arg(long)]
    pub(crate) browser: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Public {
    /// Id of a MicroVM, or name or ARN of an image
    #[arg(value_name = "ID|IMAGE")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Port to be public, in place of all that are; may be repeated [default: 8080]
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ports: Vec<u16>,
    /// No port, from now on
    #[arg(long, conflicts_with = "ports")]
    pub(crate) off: bool,
    /// Only print which ports are public by this setting
    #[arg(long, conflicts_with_all = ["ports", "off"])]
    pub(crate) show: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Domain {
    #[command(subcommand)]
    pub(crate) command: DomainCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Lead a name to a MicroVM or an image, also where it has led elsewhere
    Add(AddDomain),
    /// Print names, and where they lead
    List(Whose),
    /// Let a name lead nowhere
    Remove(RemoveDomain),
}

#[derive(Debug, Args)]
pub(crate) struct AddDomain {
    /// Host name, such as app.example.com
    pub(crate) name: String,
    /// Id of a MicroVM, or name or ARN of an image
    #[arg(value_name = "ID|IMAGE")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) whose: Whose,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveDomain {
    /// Host name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) whose: Whose,
}

/// Which server and account a command is about.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The account that it belongs to [default: the one of the first start]
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) account: Option<String>,
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err("give a path from the root, such as /docs".into())
    }
}

fn alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, local)) if !name.is_empty() && !local.is_empty() => Ok((name.into(), local.into())),
        _ => Err("give NAME=LOCAL, such as public.ecr.aws/lambda/microvms:al2023-minimal=rekindle/debian:13"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_alias_has_two_names() {
        assert_eq!(alias("a/b:c=d:1"), Ok(("a/b:c".into(), "d:1".into())));
        for bad in ["", "a", "=a", "a="] {
            assert!(alias(bad).is_err(), "{bad}");
        }
    }
}
