//! `rekindle account`: further accounts on one server. The records are written directly, whether a server runs or not.

use std::io::{self, Write};
use std::path::Path;

use identity::accounts::{self, AccountError, RootAccount};
use store::{AccountRecord, Store, StoreError};

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
        cli::AccountCommand::Create(args) => {
            let id = create(&args.data.data_dir, args.name.as_deref()).await?.record.id;
            writeln!(io::stdout(), "{id}")?;
            // For people alone: a script reads the id.
            eprintln!("work in it with: eval \"$(rekindle env --account {id})\"");
        }
        cli::AccountCommand::List(data) => {
            for account in list(&data.data_dir)? {
                let name = account.name.as_deref().unwrap_or(NO_NAME);
                writeln!(io::stdout(), "{}\t{name}", account.id)?;
            }
        }
    }
    Ok(())
}

async fn create(dir: &Path, name: Option<&str>) -> Result<RootAccount, AccountsError> {
    Ok(accounts::create(&open(dir)?, name).await?)
}

fn list(dir: &Path) -> Result<Vec<AccountRecord>, AccountsError> {
    Ok(accounts::list(&open(dir)?)?)
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
        let named = create(root.path(), Some("team-a")).await.unwrap();
        let unnamed = create(root.path(), None).await.unwrap();
        assert_eq!(find(root.path(), "team-a").unwrap(), named);
        assert_eq!(find(root.path(), &unnamed.record.id.to_string()).unwrap(), unnamed);
        let mut both = vec![named.record, unnamed.record];
        both.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(list(root.path()).unwrap(), both);

        let error = create(root.path(), Some("team-a")).await.unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        let error = find(root.path(), "nobody").unwrap_err().to_string();
        assert!(error.contains("rekindle account list"), "{error}");
    }
}
