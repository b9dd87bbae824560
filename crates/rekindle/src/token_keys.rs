//! The keys of endpoint tokens: replaced once a day, and when the operator says so, while the server runs.

use std::fs;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use auth::keyring::TokenKeyring;
use auth::token::TokenKey;
use tokio_util::sync::CancellationToken;

use crate::cli::TokensCommand;
use crate::data_dir::{DataDir, DataDirError};
use crate::files::FileError;
use crate::secret_file::{Secret, SecretFile};

/// How long a token may be good (SPEC §5.2), and with it the key before the newest.
const LONGEST_TOKEN: Duration = Duration::from_secs(60 * 60);
/// A key seals for so long.
const ROTATE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why the keys are not replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    #[error(transparent)]
    Data(#[from] DataDirError),
    #[error(
        "cannot replace the tokens' key yet: tokens under the one before it are good for {0} more minutes; do it then, \
         or end all tokens with `rekindle tokens revoke`"
    )]
    TooSoon(u64),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// The file of a data directory: the newest secret, and the one before it while its tokens may be good.
fn file(data: &DataDir) -> SecretFile {
    SecretFile { path: data.token_key(), most: 2, loss: "clients then need new endpoint tokens" }
}

fn keys(secrets: &[Secret]) -> (TokenKey, Option<TokenKey>) {
    // A file holds one or more.
    (TokenKey::from_secret(secrets[0]), secrets.get(1).copied().map(TokenKey::from_secret))
}

/// How long the newest secret has been the newest.
fn age(file: &SecretFile, now: SystemTime) -> Result<Duration, FileError> {
    let written = fs::metadata(&file.path).and_then(|file| file.modified());
    // A clock that was set back makes it young: it is replaced later, which harms nobody.
    Ok(now.duration_since(written.map_err(FileError::new("look at", &file.path))?).unwrap_or_default())
}

/// The keys that a server uses, and the file that they follow.
pub(crate) struct TokenKeys {
    file: SecretFile,
    known: Vec<Secret>,
    keyring: TokenKeyring,
}

impl TokenKeys {
    /// Those of the data directory, which a first start makes.
    pub(crate) fn open(data: &DataDir) -> Result<Self, DataDirError> {
        let file = file(data);
        let known = file.open()?;
        let (current, previous) = keys(&known);
        Ok(Self { file, known, keyring: TokenKeyring::new(current, previous) })
    }

    /// For whoever seals and opens tokens.
    pub(crate) fn keyring(&self) -> TokenKeyring {
        self.keyring.clone()
    }

    /// Follows the file, and replaces what is a day old, until `stop`.
    pub(crate) async fn keep(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look(SystemTime::now()) {
                tracing::error!("{error}; endpoint tokens stay under the keys that they have");
            }
        }
    }

    fn look(&mut self, now: SystemTime) -> Result<(), DataDirError> {
        let mut secrets = self.file.open()?;
        if age(&self.file, now)? > ROTATE_AFTER {
            secrets = self.file.renew(Some(secrets[0]))?;
        }
        if secrets != self.known {
            let (current, previous) = keys(&secrets);
            self.keyring.replace(current, previous);
            self.known = secrets;
            tracing::info!("new endpoint tokens are sealed under a new key");
        }
        Ok(())
    }
}

/// `rekindle tokens`: a running server follows within seconds.
pub(crate) fn run(command: &TokensCommand) -> Result<(), TokensError> {
    let told = match command {
        TokensCommand::Rotate(args) => {
            rotate(&DataDir::find(&args.data_dir)?, SystemTime::now())?;
            "new tokens are under a new key; those given out are good until they expire"
        }
        TokensCommand::Revoke(args) => {
            file(&DataDir::find(&args.data_dir)?).renew(None)?;
            "new tokens are under a new key; those given out open nothing any more"
        }
    };
    Ok(writeln!(io::stdout(), "{told}")?)
}

fn rotate(data: &DataDir, now: SystemTime) -> Result<(), TokensError> {
    let file = file(data);
    let secrets = file.open()?;
    let age = age(&file, now).map_err(DataDirError::from)?;
    match LONGEST_TOKEN.checked_sub(age) {
        Some(left) if secrets.len() > 1 && !left.is_zero() => {
            Err(TokensError::TooSoon(left.as_secs().div_ceil(60)))
        }
        _ => Ok(file.renew(Some(secrets[0])).map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use auth::token::{Ports, Scope};
    use ids::MicrovmId;

    use super::*;
    use crate::secret_file::SECRET_BYTES;

    fn scope() -> Scope {
        Scope { microvm: MicrovmId::random(), ports: Ports::All, expires_at: u64::MAX }
    }

    fn opened() -> (tempfile::TempDir, DataDir, TokenKeys) {
        let root = tempfile::tempdir().unwrap();
        let (data, _) = DataDir::claim(&root.path().join("data")).unwrap();
        let keys = TokenKeys::open(&data).unwrap();
        (root, data, keys)
    }

    #[test]
    fn a_key_is_replaced_once_a_day_and_its_tokens_outlive_it() {
        let (_root, data, mut keys) = opened();
        let token = keys.keyring().seal(&scope());
        let now = SystemTime::now();
        keys.look(now).unwrap();
        assert_eq!(fs::read(data.token_key()).unwrap().len(), SECRET_BYTES);
        keys.look(now + ROTATE_AFTER + Duration::from_secs(60)).unwrap();
        assert_eq!(fs::read(data.token_key()).unwrap().len(), 2 * SECRET_BYTES);
        assert!(keys.keyring().open(&token, 0).is_ok());
        let again = TokenKeys::open(&data).unwrap();
        assert!(again.keyring().open(&token, 0).is_ok());
    }

    #[test]
    fn an_operator_rotates_at_most_once_an_hour_and_revokes_at_any_time() {
        let (_root, data, mut keys) = opened();
        let keyring = keys.keyring();
        let (now, token) = (SystemTime::now(), keyring.seal(&scope()));
        rotate(&data, now).unwrap();
        let error = rotate(&data, now + LONGEST_TOKEN / 2).unwrap_err().to_string();
        assert!(error.contains("30 more minutes"), "{error}");
        keys.look(now).unwrap();
        assert!(keyring.open(&token, 0).is_ok());
        rotate(&data, now + LONGEST_TOKEN + Duration::from_secs(60)).unwrap();
        keys.look(now).unwrap();
        assert!(keyring.open(&token, 0).is_err());

        let token = keyring.seal(&scope());
        file(&data).renew(None).unwrap();
        keys.look(now).unwrap();
        assert!(keyring.open(&token, 0).is_err());
    }

    #[test]
    fn a_damaged_file_is_named_and_the_keys_stay() {
        let (_root, data, mut keys) = opened();
        let token = keys.keyring().seal(&scope());
        fs::write(data.token_key(), "short").unwrap();
        let error = keys.look(SystemTime::now()).unwrap_err().to_string();
        assert!(error.contains("token.key is damaged"), "{error}");
        assert!(keys.keyring().open(&token, 0).is_ok());
        assert_eq!(fs::read(data.token_key()).unwrap(), b"short");
    }
}
