//! The data directory: its paths, who may use it, and what the first start puts into it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use auth::keys::{AccessKey, GenerateError, account_id};
use ids::AccountId;
use network::InstanceTag;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, SECRET, SECRET_DIR};
use crate::secret_file::{Secret, SecretFile};

const PAGE_SECRET: &str = "pages.key";
const SESSION_SECRET: &str = "sessions.key";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another server has it.
    #[error(
        "another server runs on the data directory {0}; stop that one, or give this one its own --data-dir"
    )]
    InUse(PathBuf),
    /// No server has ever run on it.
    #[error("no server has run on the data directory {0}; start one with `rekindle serve --data-dir {0}`")]
    Fresh(PathBuf),
    /// A file in it is not what a server writes.
    #[error("{path} is damaged ({reason}); restore it, or remove it and start again: {loss}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What is lost by removing it.
        loss: &'static str,
    },
    /// The system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random numbers.
    #[error(transparent)]
    Key(#[from] GenerateError),
    /// No random numbers.
    #[error("cannot make the server's secrets: {0}; check that getrandom(2) is allowed here")]
    Random(#[from] getrandom::Error),
}

/// The owner of everything made through the access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// 12 digits.
    pub(crate) id: AccountId,
    /// Its root key.
    pub(crate) key: AccessKey,
}

#[derive(Serialize, Deserialize)]
struct AccountFile {
    account_id: AccountId,
    access_key_id: String,
    secret_access_key: String,
}

/// A data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// Keeps other servers off a data directory, as long as it lives; the system lets go when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl DataDir {
    /// The directory, made where there is none, and locked for a server. It is its owner's alone: it holds keys, and
    /// tenants' memory.
    pub(crate) fn claim(path: &Path) -> Result<(Self, Lock), DataDirError> {
        files::make_secret_dir(path)?;
        fs::set_permissions(path, Permissions::from_mode(SECRET_DIR))
            .map_err(FileError::new("close to others", path))?;
        let dir = Self::find(path)?;
        let lock = dir.lock()?;
        Ok((dir, lock))
    }

    /// The directory of a server that has been started before.
    pub(crate) fn find(path: &Path) -> Result<Self, DataDirError> {
        match path.canonicalize() {
            Ok(path) => Ok(Self { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DataDirError::Fresh(path.into())),
            Err(error) => Err(FileError::new("open", path)(error).into()),
        }
    }

    fn lock(&self) -> Result<Lock, DataDirError> {
        let path = self.path.join("lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(SECRET).open(&path);
        let file = open.map_err(FileError::new("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse(self.path.clone())),
            Err(error) => Err(FileError::new("lock", &path)(error.into()).into()),
        }
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names this server's things on the host.
    pub(crate) fn tag(&self) -> InstanceTag {
        InstanceTag::of_data_dir(&self.path)
    }

    /// The records.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// The embedded S3.
    pub(crate) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// What builds and applications print.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// What was called, by whom.
    pub(crate) fn audit(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// The local certificate authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The account with an ACME authority, and the certificates that it has issued.
    pub(crate) fn acme(&self) -> PathBuf {
        self.path.join("acme")
    }

    /// The certificates that clients trust: the system's, and the local authority's.
    pub(crate) fn trust(&self) -> PathBuf {
        self.path.join("trust.pem")
    }

    /// What a running server tells of itself.
    pub(crate) fn server_file(&self) -> PathBuf {
        self.path.join("server.json")
    }

    /// The network range chosen for this server.
    pub(crate) fn range_file(&self) -> PathBuf {
        self.path.join("network.json")
    }

    /// The secrets of the endpoint tokens' keys.
    pub(crate) fn token_key(&self) -> PathBuf {
        self.path.join("token.key")
    }

    fn account_file(&self) -> PathBuf {
        self.path.join("account.json")
    }

    /// The account, which a first start makes.
    pub(crate) fn open_account(&self) -> Result<Account, DataDirError> {
        match self.account() {
            Err(DataDirError::Fresh(_)) => self.make_account(),
            found => found,
        }
    }

    /// The account.
    pub(crate) fn account(&self) -> Result<Account, DataDirError> {
        let path = self.account_file();
        let content = files::read(&path)?.ok_or_else(|| DataDirError::Fresh(self.path.clone()))?;
        let file: AccountFile = serde_json::from_slice(&content).map_err(|error| DataDirError::Damaged {
            path,
            reason: error.to_string(),
            loss: "the server then makes a new account, and what the old one owns is not seen by it",
        })?;
        let key = AccessKey { id: file.access_key_id, secret: file.secret_access_key };
        Ok(Account { id: file.account_id, key })
    }

    fn make_account(&self) -> Result<Account, DataDirError> {
        let account = Account { id: account_id()?, key: AccessKey::generate()? };
        let file = AccountFile {
            account_id: account.id.clone(),
            access_key_id: account.key.id.clone(),
            secret_access_key: account.key.secret.clone(),
        };
        files::write_json(&self.account_file(), &file, SECRET)?;
        Ok(account)
    }

    /// The secret that signs the tokens of listings' pages, which a first start makes.
    pub(crate) fn open_page_secret(&self) -> Result<Secret, DataDirError> {
        self.open_secret(PAGE_SECRET, "listings under way must then begin anew")
    }

    /// The secret behind temporary credentials, which a first start makes.
    pub(crate) fn open_session_secret(&self) -> Result<Secret, DataDirError> {
        self.open_secret(SESSION_SECRET, "temporary credentials must then be asked for anew")
    }

    fn open_secret(&self, name: &str, loss: &'static str) -> Result<Secret, DataDirError> {
        let file = SecretFile { path: self.path.join(name), most: 1, loss };
        Ok(file.open()?[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_file::SECRET_BYTES;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_first_start_makes_what_later_ones_find() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/data");
        let (dir, lock) = DataDir::claim(&path).unwrap();
        let account = dir.open_account().unwrap();
        dir.open_page_secret().unwrap();
        let secret = fs::read(dir.path().join(PAGE_SECRET)).unwrap();
        drop(lock);

        let (again, _lock) = DataDir::claim(&path).unwrap();
        assert_eq!(again.open_account().unwrap(), account);
        again.open_page_secret().unwrap();
        assert_eq!(fs::read(dir.path().join(PAGE_SECRET)).unwrap(), secret);
        assert_eq!(secret.len(), SECRET_BYTES);
        assert_eq!(DataDir::find(&path).unwrap().account().unwrap(), account);
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let (dir, _lock) = DataDir::claim(root.path()).unwrap();
        dir.open_account().unwrap();
        dir.open_page_secret().unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(
            [dir.account_file(), dir.path().join(PAGE_SECRET)].map(|path| mode(&path)),
            [0o600, 0o600]
        );
    }

    #[test]
    fn a_half_made_first_start_is_completed() {
        let root = tempfile::tempdir().unwrap();
        let (dir, _lock) = DataDir::claim(root.path()).unwrap();
        let account = dir.open_account().unwrap();
        fs::write(root.path().join("pages.key.new"), "ha").unwrap();
        dir.open_page_secret().unwrap();
        assert_eq!(dir.open_account().unwrap(), account);
        assert_eq!(fs::read(dir.path().join(PAGE_SECRET)).unwrap().len(), SECRET_BYTES);
    }

    #[test]
    fn a_second_server_is_refused_until_the_first_ends() {
        let root = tempfile::tempdir().unwrap();
        let (_, lock) = DataDir::claim(root.path()).unwrap();
        let error = DataDir::claim(root.path()).unwrap_err().to_string();
        assert!(error.contains("another server runs on the data directory"), "{error}");
        drop(lock);
        DataDir::claim(root.path()).unwrap();
    }

    #[test]
    fn damage_is_told_and_nothing_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (dir, _lock) = DataDir::claim(root.path()).unwrap();
        fs::write(dir.account_file(), "{").unwrap();
        fs::write(dir.path().join(PAGE_SECRET), "short").unwrap();
        let error = dir.open_account().unwrap_err().to_string();
        assert!(error.contains("account.json is damaged"), "{error}");
        let error = dir.open_page_secret().unwrap_err().to_string();
        assert!(error.contains("5 bytes, not 32"), "{error}");
        assert_eq!(fs::read(dir.path().join(PAGE_SECRET)).unwrap(), b"short");
    }

    #[test]
    fn a_directory_without_a_server_says_how_to_start_one() {
        let root = tempfile::tempdir().unwrap();
        let missing = DataDir::find(&root.path().join("x")).unwrap_err().to_string();
        let empty = DataDir::find(root.path()).unwrap().account().unwrap_err().to_string();
        assert!(missing.contains("rekindle serve") && empty.contains("rekindle serve"), "{missing}; {empty}");
    }
}
