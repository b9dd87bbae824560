//! `rekindle ca`: the local authority's certificate, for the people and programs that are to trust the endpoints.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use proxy::ca::CERTIFICATE_FILE;

use crate::cli::CaCommand;
use crate::data_dir::{DataDir, DataDirError};
use crate::files::{self, FileError, PUBLIC};

/// A place where a distribution looks for certificates to trust, and what has it look again.
struct TrustStore {
    dir: &'static str,
    /// What names there must end in.
    extension: &'static str,
    refresh: &'static [&'static str],
}

/// Debian and its kin, Fedora and its, Arch.
const STORES: [TrustStore; 3] = [
    TrustStore {
        dir: "/usr/local/share/ca-certificates",
        extension: "crt",
        refresh: &["update-ca-certificates"],
    },
    TrustStore {
        dir: "/etc/pki/ca-trust/source/anchors",
        extension: "pem",
        refresh: &["update-ca-trust", "extract"],
    },
    TrustStore {
        dir: "/etc/ca-certificates/trust-source/anchors",
        extension: "crt",
        refresh: &["trust", "extract-compat"],
    },
];

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error(transparent)]
    Data(#[from] DataDirError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot print: {0}")]
    Print(io::Error),
    #[error("no server has made an authority in {0} yet; start one with `rekindle serve`")]
    None(PathBuf),
    #[error(
        "this machine keeps its trusted certificates in no place that is known here; add what `rekindle ca print` prints by hand"
    )]
    NoStore,
    #[error(
        "cannot have this machine read its certificates again with `{command}`: {reason}; run it by hand, as root"
    )]
    Refresh { command: String, reason: String },
}

/// Carries out the command.
pub(crate) fn run(command: &CaCommand) -> Result<(), AuthorityError> {
    match command {
        CaCommand::Print(args) => {
            let pem = certificate(&DataDir::find(&args.data_dir)?)?;
            io::stdout().write_all(&pem).map_err(AuthorityError::Print)
        }
        CaCommand::Install(args) => {
            let data = DataDir::find(&args.data_dir)?;
            let (store, anchor) = anchor(&data)?;
            files::write(&anchor, &certificate(&data)?, PUBLIC)?;
            refresh(store)?;
            tell(&format!("{}: trusted by this machine", anchor.display()))
        }
        CaCommand::Uninstall(args) => {
            let (store, anchor) = anchor(&DataDir::find(&args.data_dir)?)?;
            files::remove(&anchor)?;
            refresh(store)?;
            tell(&format!("{}: no longer trusted by this machine", anchor.display()))
        }
    }
}

fn certificate(data: &DataDir) -> Result<Vec<u8>, AuthorityError> {
    files::read(&data.ca().join(CERTIFICATE_FILE))?.ok_or_else(|| AuthorityError::None(data.path().into()))
}

/// Where this machine's store has the certificate. Each server on a host has a name of its own there.
fn anchor(data: &DataDir) -> Result<(&'static TrustStore, PathBuf), AuthorityError> {
    let store = STORES.iter().find(|store| Path::new(store.dir).is_dir()).ok_or(AuthorityError::NoStore)?;
    let name = format!("rekindle-{}.{}", data.tag(), store.extension);
    Ok((store, Path::new(store.dir).join(name)))
}

fn refresh(store: &TrustStore) -> Result<(), AuthorityError> {
    let failed = |reason| AuthorityError::Refresh { command: store.refresh.join(" "), reason };
    let (program, arguments) = (store.refresh[0], &store.refresh[1..]);
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(failed(said())) }
}

fn tell(what: &str) -> Result<(), AuthorityError> {
    writeln!(io::stdout(), "{what}").map_err(AuthorityError::Print)
}
