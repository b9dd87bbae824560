//! `rekindle account`: further accounts on one server. The records are written directly, whether a server runs or not.

use std::io::{self, Write};
use std::path::Path;

use identity::accounts::{self, AccountError, RootAccount};
use store::{Store, StoreError};

use crate::cli;
use crate::data_dir::{DataDir, DataDirError};

/// What stands for a name that is not there.
const NO_NAME: &str = "-";

/// Why there is no account to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountsError {
    #[error(transparent)]
    Data(#[from] DataDirError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Makes an account, or lists them all.
pub(crate) async fn run(args: &cli::Account) -> Result<(), AccountsError> {
    match &args.command {
        cli::AccountCommand::Create(args) => create(&args.data.data_dir, args.name.as_deref()).await,
        cli::AccountCommand::List(data) => list(&data.data_dir, &mut io::stdout()),
    }
}

async fn create(dir: &Path, name: Option<&str>) -> Result<(), AccountsError> {
    let account = accounts::create(&open(dir)?, name).await?;
    let id = &account.record.id;
    let mut out = io::stdout();
    writeln!(out, "{id}")?;
    // Beside the id, for people: what reads the output gets the id alone.
    eprintln!("made account {id}; work in it with: eval \"$(rekindle env --account {id})\"");
    Ok(())
}

fn list(dir: &Path, out: &mut impl Write) -> Result<(), AccountsError> {
    for account in accounts::list(&open(dir)?)? {
        writeln!(out, "{}\t{}", account.id, account.name.as_deref().unwrap_or(NO_NAME))?;
    }
    Ok(())
}

/// The account with this id or name, with the key of its root.
pub(crate) fn find(dir: &Path, id_or_name: &str) -> Result<RootAccount, AccountsError> {
    Ok(accounts::find(&open(dir)?, id_or_name)?)
}

/// The records of a server that has been started before.
fn open(dir: &Path) -> Result<Store, AccountsError> {
    let data = DataDir::find(dir)?;
    data.account()?;
    Ok(Store::open(&data.database())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_is_made_where_a_server_has_run_and_is_found_by_id_and_name() {
        let root = tempfile::tempdir().unwrap();
        let error = create(root.path(), None).await.unwrap_err().to_string();
        assert!(error.contains("rekindle serve"), "{error}");

        DataDir::claim(root.path()).unwrap().0.open_account().unwrap();
        create(root.path(), Some("team-a")).await.unwrap();
        create(root.path(), None).await.unwrap();
        let account = find(root.path(), "team-a").unwrap();
        let id = account.record.id.to_string();
        assert_eq!(find(root.path(), &id).unwrap(), account);
        let mut out = Vec::new();
        list(root.path(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains(&format!("{id}\tteam-a\n")) && out.contains("\t-\n"), "{out}");

        let error = create(root.path(), Some("team-a")).await.unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        let error = find(root.path(), "nobody").unwrap_err().to_string();
        assert!(error.contains("rekindle account list"), "{error}");
    }
}
