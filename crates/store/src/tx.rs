//! Reads and writes inside one transaction.

use std::cell::RefCell;
use std::str::FromStr;

use ids::{AccountId, BuildId, EndpointId, ImageArn, ImageVersion, MicrovmId, MicrovmOrImage};
use lifecycle::image::{BuildState, ImageState};
use metering::Meter;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    BuildRecord, ImageRecord, MicrovmRecord, MicrovmSummary, StoreError, TokenRecord, VersionRecord,
};

type Result<T> = std::result::Result<T, StoreError>;

/// One transaction, or one look at what is written.
#[derive(Debug)]
pub struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    written: RefCell<Written>,
}

/// What a transaction wrote, of what is kept in memory.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// These MicroVMs.
    pub(crate) microvms: Vec<MicrovmId>,
    /// Whether some of the exposure.
    pub(crate) exposure: bool,
}

impl Written {
    pub(crate) fn add(&mut self, other: Self) {
        self.microvms.extend(other.microvms);
        self.exposure |= other.exposure;
    }
}

impl<'a> Tx<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection, written: RefCell::default() }
    }

    pub(crate) fn into_written(self) -> Written {
        self.written.into_inner()
    }

    /// Some of the exposure is written.
    pub(crate) fn expose(&self) {
        self.written.borrow_mut().exposure = true;
    }

    /// The image with this ARN.
    ///
    /// # Errors
    /// [`StoreError`], as everywhere here.
    pub fn image(&self, arn: &ImageArn) -> Result<Option<ImageRecord>> {
        self.one("image", "SELECT doc FROM images WHERE arn = ?1", [arn.to_string()])
    }

    /// Up to `limit` images of `account` whose ARN comes after `after`, in the order of their ARNs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn images(&self, account: &AccountId, after: &str, limit: usize) -> Result<Vec<ImageRecord>> {
        const SQL: &str = "SELECT doc FROM images WHERE account = ?1 AND arn > ?2 ORDER BY arn LIMIT ?3";
        self.many("image", SQL, params![account.to_string(), after, limit])
    }

    /// Writes an image.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_image(&self, image: &ImageRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO images (arn, account, deleting, doc) VALUES (?1, ?2, ?3, ?4)",
            params![
                image.arn.to_string(),
                image.arn.account.to_string(),
                image.state == ImageState::Deleting,
                doc("image", image)?
            ],
        )
    }

    /// How many images `account` has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_images(&self, account: &AccountId) -> Result<usize> {
        self.count("SELECT count(*) FROM images WHERE account = ?1", [account.to_string()])
    }

    /// Every image that is being deleted, for the look around after a restart.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deleting_images(&self) -> Result<Vec<ImageRecord>> {
        self.many("image", "SELECT doc FROM images WHERE deleting = 1 ORDER BY arn", [])
    }

    /// Removes an image with its versions, its builds and the tokens that led to it: its name is free again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_image(&self, arn: &ImageArn) -> Result<()> {
        self.end_exposure(&MicrovmOrImage::Image(arn.clone()))?;
        let arn = arn.to_string();
        self.run("DELETE FROM builds WHERE image = ?1", [&arn])?;
        self.run("DELETE FROM versions WHERE image = ?1", [&arn])?;
        self.run("DELETE FROM tokens WHERE result = ?1", [&arn])?;
        self.run("DELETE FROM images WHERE arn = ?1", [&arn])
    }

    /// One version of an image.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn version(&self, image: &ImageArn, version: ImageVersion) -> Result<Option<VersionRecord>> {
        const SQL: &str = "SELECT doc FROM versions WHERE image = ?1 AND version = ?2";
        self.one("version", SQL, params![image.to_string(), version.major()])
    }

    /// Every version of an image, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn versions(&self, image: &ImageArn) -> Result<Vec<VersionRecord>> {
        const SQL: &str = "SELECT doc FROM versions WHERE image = ?1 ORDER BY version DESC";
        self.many("version", SQL, [image.to_string()])
    }

    /// Up to `limit` versions of an image that are older than `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn versions_before(
        &self,
        image: &ImageArn,
        before: Option<ImageVersion>,
        limit: usize,
    ) -> Result<Vec<VersionRecord>> {
        const SQL: &str =
            "SELECT doc FROM versions WHERE image = ?1 AND version < ?2 ORDER BY version DESC LIMIT ?3";
        // No version has a number beyond 32 bits.
        let before = before.map_or(i64::MAX, |version| version.major().into());
        self.many("version", SQL, params![image.to_string(), before, limit])
    }

    /// How many versions an image has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_versions(&self, image: &ImageArn) -> Result<usize> {
        self.count("SELECT count(*) FROM versions WHERE image = ?1", [image.to_string()])
    }

    /// The newest version of an image that is SUCCESSFUL and ACTIVE.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn latest_runnable_version(&self, image: &ImageArn) -> Result<Option<VersionRecord>> {
        const SQL: &str =
            "SELECT doc FROM versions WHERE image = ?1 AND runnable = 1 ORDER BY version DESC LIMIT 1";
        self.one("version", SQL, [image.to_string()])
    }

    /// The newest version of an image that FAILED.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn latest_failed_version(&self, image: &ImageArn) -> Result<Option<VersionRecord>> {
        const SQL: &str =
            "SELECT doc FROM versions WHERE image = ?1 AND failed = 1 ORDER BY version DESC LIMIT 1";
        self.one("version", SQL, [image.to_string()])
    }

    /// Every version that is being deleted while its image stays, for the look around after a restart.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deleting_versions(&self) -> Result<Vec<VersionRecord>> {
        const SQL: &str = "SELECT doc FROM versions WHERE deleting = 1 ORDER BY image, version";
        self.many("version", SQL, [])
    }

    /// Writes a version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_version(&self, version: &VersionRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO versions (image, version, runnable, failed, deleting, doc) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                version.image.to_string(),
                version.version.major(),
                version.is_runnable(),
                version.state == BuildState::Failed,
                version.state == BuildState::Deleting,
                doc("version", version)?
            ],
        )
    }

    /// Removes a version with its builds. Its number is not given again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_version(&self, image: &ImageArn, version: ImageVersion) -> Result<()> {
        let image = image.to_string();
        self.run("DELETE FROM builds WHERE image = ?1 AND version = ?2", params![image, version.major()])?;
        self.run("DELETE FROM versions WHERE image = ?1 AND version = ?2", params![image, version.major()])
    }

    /// One build.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn build(&self, id: BuildId) -> Result<Option<BuildRecord>> {
        self.one("build", "SELECT doc FROM builds WHERE id = ?1", [id.to_string()])
    }

    /// Every build of a version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn builds(&self, image: &ImageArn, version: ImageVersion) -> Result<Vec<BuildRecord>> {
        const SQL: &str = "SELECT doc FROM builds WHERE image = ?1 AND version = ?2 ORDER BY id";
        self.many("build", SQL, params![image.to_string(), version.major()])
    }

    /// Every build that has not ended, for the look around after a restart.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unfinished_builds(&self) -> Result<Vec<BuildRecord>> {
        self.many("build", "SELECT doc FROM builds WHERE ended = 0 ORDER BY account, id", [])
    }

    /// How many builds of `account` have not ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_unfinished_builds(&self, account: &AccountId) -> Result<usize> {
        const SQL: &str = "SELECT count(*) FROM builds WHERE account = ?1 AND ended = 0";
        self.count(SQL, [account.to_string()])
    }

    /// Writes a build.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_build(&self, build: &BuildRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO builds (id, account, image, version, ended, doc) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                build.id.to_string(),
                build.image.account.to_string(),
                build.image.to_string(),
                build.version.major(),
                build.state.has_ended(),
                doc("build", build)?
            ],
        )
    }

    /// One MicroVM.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn microvm(&self, id: MicrovmId) -> Result<Option<MicrovmRecord>> {
        self.one("MicroVM", "SELECT doc FROM microvms WHERE id = ?1", [id.to_string()])
    }

    /// The MicroVM behind an endpoint.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn microvm_at(&self, endpoint: EndpointId) -> Result<Option<MicrovmRecord>> {
        self.one("MicroVM", "SELECT doc FROM microvms WHERE endpoint = ?1", [endpoint.to_string()])
    }

    /// Up to `limit` MicroVMs of `account` whose id comes after `after`, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn microvms(&self, account: &AccountId, after: &str, limit: usize) -> Result<Vec<MicrovmSummary>> {
        const SQL: &str = "SELECT id, image, version, state, started_at FROM microvms \
            WHERE account = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.summaries(SQL, params![account.to_string(), after, limit])
    }

    /// The same for one image, or one version of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn microvms_of(
        &self,
        image: &ImageArn,
        version: Option<ImageVersion>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<MicrovmSummary>> {
        // Two statements, as each finds its page in an index of its own.
        const OF_IMAGE: &str = "SELECT id, image, version, state, started_at FROM microvms \
            WHERE image = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        const OF_VERSION: &str = "SELECT id, image, version, state, started_at FROM microvms \
            WHERE image = ?1 AND version = ?4 AND id > ?2 ORDER BY id LIMIT ?3";
        let image = image.to_string();
        match version {
            None => self.summaries(OF_IMAGE, params![image, after, limit]),
            Some(version) => self.summaries(OF_VERSION, params![image, after, limit, version.major()]),
        }
    }

    fn summaries(&self, sql: &str, by: impl Params) -> Result<Vec<MicrovmSummary>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement.query_map(by, |row| {
            Ok(MicrovmSummary {
                id: text(row, 0)?,
                image: text(row, 1)?,
                version: ImageVersion::from_major(row.get(2)?),
                state: text(row, 3)?,
                started_at: row.get(4)?,
            })
        })?;
        Ok(found.collect::<std::result::Result<_, _>>()?)
    }

    /// How many MicroVMs of an image are not terminated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn live_microvms_of(&self, image: &ImageArn) -> Result<usize> {
        const SQL: &str = "SELECT count(*) FROM microvms INDEXED BY microvms_live_by_version \
            WHERE image = ?1 AND terminated_at IS NULL";
        self.count(SQL, [image.to_string()])
    }

    /// How many MicroVMs of one version of an image are not terminated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn live_microvms_of_version(&self, image: &ImageArn, version: ImageVersion) -> Result<usize> {
        const SQL: &str = "SELECT count(*) FROM microvms INDEXED BY microvms_live_by_version \
            WHERE image = ?1 AND version = ?2 AND terminated_at IS NULL";
        self.count(SQL, params![image.to_string(), version.major()])
    }

    // Without statistics SQLite takes the wider index of a listing for what only the small one of the living answers
    // without reading records: these statements name theirs.

    /// Baseline memory, in MiB, of the MicroVMs of `account` that are not terminated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn live_memory_mib(&self, account: &AccountId) -> Result<usize> {
        const SQL: &str = "SELECT coalesce(sum(memory_mib), 0) FROM microvms INDEXED BY microvms_live \
            WHERE account = ?1 AND terminated_at IS NULL";
        self.count(SQL, [account.to_string()])
    }

    /// Every MicroVM that is not terminated, for the look around after a restart.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn live_microvms(&self) -> Result<Vec<MicrovmRecord>> {
        const SQL: &str = "SELECT doc FROM microvms INDEXED BY microvms_live WHERE terminated_at IS NULL ORDER BY account, id";
        self.many("MicroVM", SQL, [])
    }

    /// Writes a MicroVM. What it is, such as its endpoint and image, stays as it was first written; only its life
    /// goes on, so that a change leaves the indices by the former alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_microvm(&self, microvm: &MicrovmRecord) -> Result<()> {
        self.run(
            "INSERT INTO microvms \
             (id, endpoint, account, image, version, terminated_at, memory_mib, state, started_at, doc) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT (id) DO UPDATE SET terminated_at = excluded.terminated_at, state = excluded.state, \
             started_at = excluded.started_at, doc = excluded.doc",
            params![
                microvm.id.to_string(),
                microvm.endpoint.to_string(),
                microvm.account.to_string(),
                microvm.image.to_string(),
                microvm.version.major(),
                microvm.life.terminated_at,
                microvm.memory_mib,
                microvm.life.state.as_str(),
                microvm.life.started_at,
                doc("MicroVM", microvm)?
            ],
        )?;
        self.written.borrow_mut().microvms.push(microvm.id);
        if microvm.life.terminated_at.is_some() {
            self.end_exposure(&MicrovmOrImage::Microvm(microvm.id))?;
        }
        self.note_uses(microvm)
    }

    /// Forgets up to `limit` MicroVMs that were terminated before `moment`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_microvms_terminated_before(&self, moment: u64, limit: usize) -> Result<()> {
        const SQL: &str = "DELETE FROM microvms WHERE rowid IN \
            (SELECT rowid FROM microvms WHERE terminated_at < ?1 ORDER BY terminated_at LIMIT ?2) RETURNING id";
        let mut statement = self.connection.prepare_cached(SQL)?;
        for forgotten in statement.query_map(params![moment, limit], |row| text(row, 0))? {
            let id: MicrovmId = forgotten?;
            self.run("DELETE FROM usage WHERE microvm = ?1", [id.to_string()])?;
            self.written.borrow_mut().microvms.push(id);
        }
        Ok(())
    }

    /// What a MicroVM has used, as it was last written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage(&self, id: MicrovmId) -> Result<Option<Meter>> {
        self.one("usage", "SELECT doc FROM usage WHERE microvm = ?1", [id.to_string()])
    }

    /// Writes what a MicroVM has used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_usage(&self, id: MicrovmId, meter: &Meter) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO usage (microvm, doc) VALUES (?1, ?2)",
            params![id.to_string(), doc("usage", meter)?],
        )
    }

    /// What `token` was first used for in `scope`, an operation or the resource that it was used on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn token(&self, account: &AccountId, scope: &str, token: &str) -> Result<Option<TokenRecord>> {
        const SQL: &str = "SELECT doc FROM tokens WHERE account = ?1 AND scope = ?2 AND token = ?3";
        self.one("token", SQL, params![account.to_string(), scope, token])
    }

    /// Remembers a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_token(
        &self,
        account: &AccountId,
        scope: &str,
        token: &str,
        record: &TokenRecord,
    ) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO tokens (account, scope, token, result, created_at, doc) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                account.to_string(),
                scope,
                token,
                record.result,
                record.created_at,
                doc("token", record)?
            ],
        )
    }

    /// Forgets the tokens first used before `moment`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_tokens_before(&self, moment: u64) -> Result<()> {
        self.run("DELETE FROM tokens WHERE created_at < ?1", [moment])
    }

    pub(crate) fn count(&self, sql: &str, by: impl Params) -> Result<usize> {
        Ok(self.connection.prepare_cached(sql)?.query_row(by, |row| row.get(0))?)
    }

    pub(crate) fn one<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        sql: &str,
        by: impl Params,
    ) -> Result<Option<T>> {
        let text: Option<String> =
            self.connection.prepare_cached(sql)?.query_row(by, |row| row.get(0)).optional()?;
        text.map(|text| parse(kind, &text)).transpose()
    }

    pub(crate) fn many<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        sql: &str,
        by: impl Params,
    ) -> Result<Vec<T>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let texts = statement.query_map(by, |row| row.get::<_, String>(0))?;
        texts.map(|text| parse(kind, &text?)).collect()
    }

    pub(crate) fn run(&self, sql: &str, values: impl Params) -> Result<()> {
        self.connection.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// A column whose text is an identifier or the name of a state.
fn text<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error));
    row.get_ref(column)?.as_str()?.parse().map_err(wrong)
}

fn parse<T: DeserializeOwned>(kind: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| StoreError::Record { kind, source })
}

pub(crate) fn doc<T: Serialize>(kind: &'static str, record: &T) -> Result<String> {
    serde_json::to_string(record).map_err(|source| StoreError::Record { kind, source })
}
