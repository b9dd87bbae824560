//! Files of secrets: made by a first start, read by later ones, and refused where they are not what was written.

use std::path::PathBuf;

use crate::data_dir::DataDirError;
use crate::files::{self, SECRET};

/// Bytes of one secret.
pub(crate) const SECRET_BYTES: usize = 32;

/// One secret.
pub(crate) type Secret = [u8; SECRET_BYTES];

/// Where secrets are kept, newest first.
#[derive(Debug)]
pub(crate) struct SecretFile {
    /// The file.
    pub(crate) path: PathBuf,
    /// The most that it may hold.
    pub(crate) most: usize,
    /// What is lost by removing it.
    pub(crate) loss: &'static str,
}

impl SecretFile {
    /// What it holds, one or more; `None` where there is no such file.
    pub(crate) fn read(&self) -> Result<Option<Vec<Secret>>, DataDirError> {
        let Some(content) = files::read(&self.path)? else { return Ok(None) };
        let (secrets, rest) = content.as_chunks();
        if !rest.is_empty() || !(1..=self.most).contains(&secrets.len()) {
            return Err(DataDirError::Damaged {
                path: self.path.clone(),
                reason: format!("{} bytes, not {}", content.len(), self.wanted()),
                loss: self.loss,
            });
        }
        Ok(Some(secrets.to_vec()))
    }

    fn wanted(&self) -> String {
        let sizes: Vec<String> = (1..=self.most).map(|count| (count * SECRET_BYTES).to_string()).collect();
        sizes.join(" or ")
    }

    /// What it holds, or what a first start puts into it.
    pub(crate) fn open(&self) -> Result<Vec<Secret>, DataDirError> {
        self.read()?.map_or_else(|| self.renew(None), Ok)
    }

    /// Puts a new secret into it, before `previous`, or in place of all.
    pub(crate) fn renew(&self, previous: Option<Secret>) -> Result<Vec<Secret>, DataDirError> {
        let mut fresh = [0; SECRET_BYTES];
        getrandom::fill(&mut fresh)?;
        let secrets: Vec<Secret> = std::iter::once(fresh).chain(previous).collect();
        files::write(&self.path, secrets.as_flattened(), SECRET)?;
        Ok(secrets)
    }
}
